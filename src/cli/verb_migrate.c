/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche migrate: moves a running machine to another host, or another catalogue. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/parse.h"
#include "base/util.h"
#include "cli/control.h"
#include "cli/interrupt.h"
#include "cli/machines.h"
#include "cli/moving.h"
#include "cli/progress.h"
#include "cli/snapshots.h"
#include "cli/verb.h"

#define COMMAND_MS 20000
#define POLL_US    50000
#define END_MS     20000

struct request {
    const char *bandwidth, *downtime; /* as written; NULL: not said */
    bool compress, no_slow_down;
    struct moving_safety safety;
};

/* Tells the other end what comes, and hears whether it has a place for it. */
static bool announce(const struct machine *m, int line, struct error **err)
{
    struct frame_stream s = moving_stream(line, "the other end");
    json_t *config = moving_config(m, err);
    json_t *offer = config ? json_pack("{s:s, s:s, s:s, s:o}", "ruche", RUCHE_VERSION, "name", m->name,
                                       "uuid", m->uuid, "config", config)
                           : NULL;
    json_t *answer = offer && moving_say(&s, offer, err) ? moving_hear(&s, err) : NULL;
    const char *refusal = json_string_value(json_object_get(answer, "error"));
    if (refusal)
        error_set(err, 0, "%s", refusal);
    bool ok = answer && !refusal;
    json_decref(offer);
    json_decref(answer);
    frame_stream_release(&s);
    return ok;
}

/* --- the migration --- */

static bool call(struct control *c, const char *command, json_t *arguments, struct error **err)
{
    json_t *answer = control_call(c, command, arguments, err);
    json_decref(answer);
    return answer != NULL;
}

static bool set_up(struct control *c, const struct request *r, struct error **err)
{
    json_t *parameters = json_pack("{s:s}", "ruche-compression", r->compress ? "zstd" : "none");
    uint64_t n;
    /* What was written has been looked at. */
    if (r->bandwidth && parse_size(r->bandwidth, &n))
        json_object_set_new(parameters, "max-bandwidth", json_integer((json_int_t)n));
    if (r->downtime && parse_uint(r->downtime, &n))
        json_object_set_new(parameters, "downtime-limit", json_integer((json_int_t)n));
    json_t *list = json_pack("[{s:s, s:b}, {s:s, s:b}]", "capability", "auto-converge", "state",
                             !r->no_slow_down, "capability", "ruche-end", "state", true);
    return call(c, "migrate-set-parameters", parameters, err) &&
           call(c, "migrate-set-capabilities", json_pack("{s:o}", "capabilities", list), err);
}

static bool begin(struct control *c, int line, struct error **err)
{
    cleanup(mem) char *path = NULL;
    cleanup(fd) int listener = moving_offer(&path, err);
    if (listener < 0)
        return false;
    bool ok = call(c, "migrate", json_pack("{s:o}", "uri", json_sprintf("pass:%s", path)), err) &&
              moving_pass(listener, line, err);
    unlink(path);
    return ok;
}

static uint64_t number(const json_t *o, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

static void show(struct progress *p, const json_t *o)
{
    const json_t *ram = json_object_get(o, "ram");
    uint64_t total = number(ram, "total"), left = MIN(number(ram, "remaining"), total);
    double speed = json_number_value(json_object_get(ram, "mbps")) / 8;
    if (!p->terminal) {
        progress_bytes(p, total - left, total);
        return;
    }
    p->step = (unsigned)((total - left) / MIB);
    p->steps = (unsigned)(total / MIB);
    snprintf(p->title, sizeof(p->title), "MiB, %.0f MB/s, %.0f s left, will stand still for %llu ms", speed,
             speed > 0 ? (double)left / 1e6 / speed : 0, (unsigned long long)number(o, "expected-downtime"));
    progress_tick(p);
}

/* Its process has ended before it was asked how it went. */
static bool ended_moved(const struct machine *m)
{
    struct machine_state state;
    machine_wait_end(m, END_MS);
    machine_state_read(m, &state);
    return machine_moved(&state);
}

/* Waits for the end, which an interrupt brings about. `downtime`: for how long it stood still, ms. */
static bool follow(struct control *c, const struct machine *m, struct progress *p, uint64_t *downtime,
                   struct error **err)
{
    for (;;) {
        struct error *why = NULL;
        if (interrupt_take())
            call(c, "migrate_cancel", NULL, NULL);
        json_t *o = control_call(c, "query-migrate", NULL, &why);
        if (!o && ended_moved(m)) {
            error_free(why);
            return true;
        }
        const char *status = json_string_value(json_object_get(o, "status"));
        bool ok = status && strcmp(status, "completed") == 0;
        bool over = ok || !status || strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0;
        const char *reason = json_string_value(json_object_get(o, "error-desc"));
        if (o)
            show(p, o);
        if (ok)
            *downtime = number(o, "downtime");
        else if (over && !why)
            error_set(&why, 0, "%s", reason ? reason : "it did not move");
        json_decref(o);
        if (over && !ok)
            *err = why;
        if (over)
            return ok;
        usleep(POLL_US);
    }
}

static bool move(const struct machine *m, const char *address, const struct request *r, struct control *c,
                 struct error **err)
{
    struct progress p;
    uint64_t downtime = 0;
    cleanup(fd) int line = moving_connect(address, &r->safety, err);
    if (line < 0 || !announce(m, line, err) || !set_up(c, r, err) || !begin(c, line, err))
        return false;
    close(steal_fd(&line)); /* the machine's process has it */
    progress_start(&p, "migrate");
    bool ok = follow(c, m, &p, &downtime, err);
    progress_end(&p, ok);
    if (!ok)
        return false;
    control_command(c, "quit", NULL);
    machine_wait_end(m, END_MS);
    fprintf(stderr, "migrate: '%s' stood still for %llu ms\n", m->name, (unsigned long long)downtime);
    return true;
}

/* As it is now, while the caller keeps snapshots and clones from being made. */
static bool look_again(struct machine *m, struct error **err)
{
    struct machine now = {0};
    cleanup(database) struct database *db = database_open(err);
    if (!db || !machine_find(db, m->uuid, &now, err))
        return false;
    machine_release(m);
    *m = now;
    return true;
}

static bool migrate(struct machine *m, const char *address, const struct request *r, struct error **err)
{
    struct machine_look look;
    struct error *why = NULL;
    struct control *c = NULL;
    cleanup(fd) int at_snapshots = layers_lock(m, &why);
    if (at_snapshots >= 0)
        look_again(m, &why);
    machine_look(m, &look);
    if (!why && strcmp(look.status, "running") != 0 && strcmp(look.status, "paused") != 0)
        error_set(&why, ESRCH, "only a machine that runs can be moved, its status is '%s'", look.status);
    else if (!why && snapshots_none(m, "they stay in its folder; ruche snapshot rm removes them", &why) &&
             (c = control_open(look.state.control, COMMAND_MS, &why)))
        move(m, address, r, c, &why);
    control_close(c);
    if (!why)
        return true;
    error_prefix(err, why, "migrate '%s'", m->name);
    return false;
}

static int check(const struct request *r, const char *address)
{
    uint64_t n;
    if (r->bandwidth && !parse_size(r->bandwidth, &n))
        return usage_error("migrate", "--bandwidth '%s': a size such as 100M is wanted, for each second",
                           r->bandwidth);
    if (r->downtime && !parse_uint(r->downtime, &n))
        return usage_error("migrate", "--downtime '%s': a number of milliseconds is wanted", r->downtime);
    return moving_check("migrate", address, &r->safety);
}

static int run(int argc, char **argv)
{
    struct request r = {0};
    const struct arg args[] = {{"bandwidth", 0, NULL, &r.bandwidth},
                               {"downtime", 0, NULL, &r.downtime},
                               {"compress", 0, &r.compress, NULL},
                               {"no-slow-down", 0, &r.no_slow_down, NULL},
                               MOVING_ARGS(&r.safety)};
    cleanup(machine) struct machine m = {0};
    struct error *err = NULL;
    int count = args_take(argc, argv, args, ARRAY_SIZE(args));
    if (count < 0)
        return EXIT_USAGE;
    if (count != 2)
        return usage_error("migrate", "a machine and where it is to go are wanted");
    int status = check(&r, argv[1]);
    if (status == EXIT_OK)
        status = machine_named(argv[0], &m);
    if (status != EXIT_OK)
        return status;
    interrupt_watch();
    return migrate(&m, argv[1], &r, &err) ? EXIT_OK : failure(err);
}

const struct verb verb_migrate = {
    .name = "migrate",
    .summary = "move a running machine to another host",
    .help =
        "usage: ruche migrate [OPTION]... NAME unix:PATH|tcp:HOST:PORT|ssh:[USER@]HOST\n"
        "\n"
        "Moves a machine to where ruche receive waits for one, or by ssh to a host that has Ruche. It "
        "stands\n"
        "still for some milliseconds and goes on there, under either engine. Its disks stay where they are:\n"
        "both hosts must see the same files under the same names, with locks. Connections through the\n"
        "user-mode network are lost. Until the other end has said that it has the machine, and whatever\n"
        "breaks, it goes on here.\n"
        "\n"
        "  --bandwidth SIZE   what may be sent in a second, e.g. 100M\n"
        "  --downtime MS      for how long it may stand still (default 30)\n"
        "  --compress         what is sent\n"
        "  --no-slow-down     never slow the guest down, even if it writes faster than can be sent\n"
        "\n" MOVING_HELP,
    .run = run,
};
