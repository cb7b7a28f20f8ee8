/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche save: has a running machine write itself to a file, from which `ruche run --restore` goes on. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/machine.h"
#include "catalog/machine_state.h"
#include "cli/control.h"
#include "cli/progress.h"
#include "cli/verb.h"

#define ANSWER_MS 60000 /* disks are written back before the answer */
#define POLL_US   20000

/* Of a machine in the catalogue that runs under just that name; NULL when there is none. */
static char *socket_in_catalogue(const char *name)
{
    cleanup(machine) struct machine m = {0};
    struct machine_state state;
    cleanup(database) struct database *db = database_exists() ? database_open(NULL) : NULL;
    if (!db || !machine_find(db, name, &m, NULL) || strcmp(m.name, name) != 0)
        return NULL;
    machine_state_read(&m, &state);
    return state.life == MACHINE_RUNNING ? catalog_format("%s", state.control) : NULL;
}

/* A machine is named as in the catalogue, as ruche run named it, or by its control socket. */
static char *socket_of(const char *machine, struct error **err)
{
    if (strchr(machine, '/'))
        return catalog_format("%s", machine);
    char *known = socket_in_catalogue(machine);
    if (known)
        return known;
    cleanup(mem) char *dir = catalog_runtime_dir(err);
    return dir ? catalog_format("%s/%s.sock", dir, machine) : NULL;
}

static bool command(struct control *c, const char *name, json_t *arguments, struct error **err)
{
    json_t *value = control_call(c, name, arguments, err);
    json_decref(value);
    return value != NULL;
}

/* Shows how far it is until it has ended. */
static bool wait_saved(struct control *c, struct error **err)
{
    struct progress progress;
    progress_start(&progress, "save");
    snprintf(progress.title, sizeof(progress.title), "MiB");
    for (;;) {
        json_t *o = control_call(c, "query-ruche-save", NULL, err);
        if (!o)
            return progress_end(&progress, false), false;
        const char *status = json_string_value(json_object_get(o, "status"));
        const char *why = json_string_value(json_object_get(o, "error"));
        bool active = status && strcmp(status, "active") == 0,
             ok = status && strcmp(status, "completed") == 0;
        progress.step = (unsigned)((uint64_t)json_integer_value(json_object_get(o, "bytes")) / MIB);
        progress.steps = (unsigned)((uint64_t)json_integer_value(json_object_get(o, "total")) / MIB);
        if (!active && !ok)
            error_set(err, 0, "%s", why ? why : "it was cancelled");
        json_decref(o);
        if (!active)
            return progress_end(&progress, ok), ok;
        progress_tick(&progress);
        usleep(POLL_US);
    }
}

/* With `end` the guest does not run between the saved moment and its end. */
static bool save(struct control *c, const char *path, bool end, struct error **err)
{
    if (end && !command(c, "stop", NULL, err))
        return false;
    if (command(c, "ruche-save", json_pack("{s:s}", "path", path), err) && wait_saved(c, err))
        return !end || command(c, "quit", NULL, err);
    if (end)
        command(c, "cont", NULL, NULL);
    return false;
}

static int run(int argc, char **argv)
{
    bool end = argc > 1 && strcmp(argv[1], "--end") == 0;
    char **words = argv + 1 + end;
    int count = argc - 1 - end;
    struct error *err = NULL;

    for (int i = 0; i < count; i++)
        if (words[i][0] == '-')
            return usage_error("save", "unknown option '%s'", words[i]);
    if (count != 2)
        return usage_error("save", "a machine and a file are wanted");
    cleanup(mem) char *socket_path = socket_of(words[0], &err);
    cleanup(mem) char *path = socket_path ? catalog_absolute(words[1], &err) : NULL;
    if (!path)
        return failure(err);
    struct error *why = NULL;
    struct control *c = control_open(socket_path, ANSWER_MS, &why);
    if (c)
        save(c, path, end, &why);
    control_close(c);
    if (!why)
        return EXIT_OK;
    error_prefix(&err, why, "save '%s'", words[0]);
    return failure(err);
}

const struct verb verb_save = {
    .name = "save",
    .summary = "save a running machine to a file",
    .help = "usage: ruche save [--end] MACHINE FILE\n"
            "\n"
            "Writes the machine's memory and the state of its processors and devices to FILE, in place of an "
            "earlier\n"
            "one once it is complete. The machine stands still for that time, then goes on. MACHINE is its "
            "name or\n"
            "its control socket. ruche run --restore FILE goes on from there, as often as one likes, as long "
            "as the\n"
            "machine's disks are not written to; they are not part of the file.\n"
            "\n"
            "  --end    the machine does not go on but ends once it is saved\n",
    .run = run,
};
