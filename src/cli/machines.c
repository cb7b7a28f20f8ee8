/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Named machines: see machines.h. */
#include "cli/machines.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/control.h"
#include "cli/verb.h"

#define LOOK_MS    1000 /* for a machine that does not answer */
#define COMMAND_MS 20000

struct database *machines_open(struct error **err)
{
    struct database *db = database_open(err);
    if (db)
        machine_sweep(db);
    return db;
}

bool machines_all(struct machine **list, size_t *count, struct error **err)
{
    struct database *db = machines_open(err);
    bool ok = db && machine_list(db, list, count, err);
    database_close(db);
    return ok;
}

int machine_named(const char *word, struct machine *m)
{
    struct error *err = NULL;
    cleanup(database) struct database *db = machines_open(&err);
    return db && machine_find(db, word, m, &err) ? EXIT_OK : failure(err);
}

int machines_each(const char *verb, char **words, int count,
                  bool (*fn)(struct machine *m, void *opaque, struct error **err), void *opaque)
{
    int status = EXIT_OK;
    if (count < 1)
        return usage_error(verb, "which machine?");
    for (int i = 0; i < count; i++) {
        struct error *err = NULL;
        cleanup(machine) struct machine m = {0};
        int found = machine_named(words[i], &m);
        if (found == EXIT_OK && fn(&m, opaque, &err))
            continue;
        if (found == EXIT_OK)
            failure(err);
        status = EXIT_RUCHE;
    }
    return status;
}

/* What the machine says of itself; NULL when it does not answer. */
static json_t *ask(const char *control_path, const char *command)
{
    struct control *c = control_open(control_path, LOOK_MS, NULL);
    json_t *answer = c ? control_call(c, command, NULL, NULL) : NULL;
    control_close(c);
    return answer;
}

void machine_look(const struct machine *m, struct machine_look *look)
{
    *look = (struct machine_look){0};
    machine_state_read(m, &look->state);
    const char *word = machine_died(&look->state)    ? "died"
                       : machine_moved(&look->state) ? "moved"
                                                     : "stopped";
    json_t *answer = NULL;
    if (look->state.life == MACHINE_STARTING) {
        word = "starting";
    } else if (look->state.life == MACHINE_RUNNING) {
        answer = ask(look->state.control, "query-status");
        const char *said = json_string_value(json_object_get(answer, "status"));
        word = said ? said : "no-answer";
        /* It may have ended meanwhile. */
        if (!said && !machine_is_live(m)) {
            machine_look(m, look);
            return;
        }
    }
    snprintf(look->status, sizeof(look->status), "%s", word);
    json_decref(answer);
    if (machine_died(&look->state))
        machine_end_text(&look->state, look->text, sizeof(look->text));
}

json_t *machine_look_json(const struct machine *m, const struct machine_look *look)
{
    const struct machine_state *s = &look->state;
    const json_t *config = m->config;
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:O, s:O, s:b}", "name", m->name, "uuid", m->uuid, "created",
                          m->created, "status", look->status, "cpus", json_object_get(config, "cpus"),
                          "memory", json_object_get(config, "memory"), "autostart",
                          json_is_true(json_object_get(config, "autostart")));
    json_t *image = json_object_get(json_object_get(config, "image"), "name");
    if (image)
        json_object_set(o, "image", image);
    if (s->pid) {
        json_object_set_new(o, "pid", json_integer(s->pid));
        json_object_set_new(o, "control", json_string(s->control));
        json_object_set_new(o, "serial", json_string(s->serial));
        if (s->agent[0])
            json_object_set_new(o, "agent", json_string(s->agent));
    }
    if (s->since)
        json_object_set_new(o, "since", json_integer(s->since));
    if (s->life == MACHINE_ENDED)
        json_object_set_new(o, s->killed ? "signal" : "exit_status", json_integer(s->status));
    if (look->text[0])
        json_object_set_new(o, "reason", json_string(look->text));
    return o;
}

bool machine_command(const struct machine *m, const char *command, struct error **err)
{
    struct machine_state state;
    struct error *why = NULL;
    machine_state_read(m, &state);
    if (state.life == MACHINE_RUNNING) {
        if (control_execute(state.control, command, COMMAND_MS, &why))
            return true;
        error_prefix(err, why, "machine '%s'", m->name);
    } else if (state.life == MACHINE_STARTING) {
        error_set(err, EAGAIN, "machine '%s' is just being started", m->name);
    } else {
        error_set(err, ESRCH, "machine '%s' does not run (ruche start %s starts it)", m->name, m->name);
    }
    return false;
}

int machine_exit_status(const struct machine *m)
{
    struct machine_state state;
    char text[640];
    machine_state_read(m, &state);
    if (machine_died(&state)) {
        machine_end_text(&state, text, sizeof(text));
        fprintf(stderr, "ruche: machine '%s': %s\n", m->name, text);
    }
    return state.life == MACHINE_ENDED && !state.killed ? state.status : EXIT_RUCHE;
}
