/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche receive: waits for a machine that `ruche migrate` moves here, and takes it into the catalogue. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/parse.h"
#include "base/util.h"
#include "catalog/config.h"
#include "catalog/file.h"
#include "cli/interrupt.h"
#include "cli/keeper.h"
#include "cli/machines.h"
#include "cli/moving.h"
#include "cli/verb.h"
#include "os/address.h"

struct request {
    const char *listen, *engine, *name; /* NULL: not said */
    bool stdio;
    struct moving_safety safety;
};

/* The first who connects. */
static int wait_for_one(const char *address, struct error **err)
{
    cleanup(fd) int listener = address_listen(address, err);
    int fd = -1, n = -1;
    if (listener < 0)
        return -1;
    fprintf(stderr, "waiting for a machine at %s\n", address);
    interrupt_watch();
    struct pollfd p = {.fd = listener, .events = POLLIN};
    while (!interrupt_pending() && (n = poll(&p, 1, -1)) < 0 && errno == EINTR)
        continue;
    if (n > 0)
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        error_set_errno(err, n > 0 ? errno : EINTR, "wait for a machine");
    if (address_path(address))
        unlink(address_path(address));
    return fd;
}

static int open_line(const struct request *r, struct error **err)
{
    if (r->stdio)
        return moving_stdio(err);
    cleanup(mem) char *dir = r->listen ? NULL : catalog_runtime_dir(err);
    cleanup(mem) char *address = r->listen ? catalog_format("%s", r->listen)
                                 : dir     ? catalog_format("unix:%s/receive.sock", dir)
                                           : NULL;
    int net = address ? wait_for_one(address, err) : -1;
    return net < 0 ? -1 : moving_accept(address, net, &r->safety, err);
}

static bool set_engine(const struct request *r, json_t *config, struct error **err)
{
    return !r->engine || config_set(config, "engine", r->engine, err);
}

/* Whether a place is that of the machine: it was there before, or was about to be when a command was killed.
 */
static bool same_disks(const struct machine *m, const json_t *config)
{
    json_t *own = moving_config(m, NULL);
    bool same = json_equal(json_object_get(own, "disks"), json_object_get(config, "disks"));
    json_decref(own);
    return same;
}

/* A place in the catalogue. *made: it is a new one. */
static bool make_place(const struct request *r, const char *name, const char *uuid, json_t *config,
                       struct machine *m, bool *made, struct error **err)
{
    struct error *why = NULL;
    cleanup(database) struct database *db = machines_open(err);
    if (!db)
        return false;
    *made = !machine_find(db, uuid, m, &why);
    if (*made && why->code == ENOENT) {
        error_free(why);
        return set_engine(r, config, err) &&
               machine_adopt(db, r->name ? r->name : name, uuid, config, m, err);
    }
    if (*made) {
        *err = why;
        return false;
    }
    if (machine_is_live(m) || !same_disks(m, config)) {
        error_set(err, EEXIST, "it is here already, as '%s'%s", m->name,
                  machine_is_live(m) ? "" : ", with other disks");
        return false;
    }
    return !r->engine || (set_engine(r, m->config, err) && machine_update(db, m, err));
}

/* Hears what comes, and makes room for it; what is said about it comes from another host. */
static bool hear_offer(struct frame_stream *s, const struct request *r, struct machine *m, bool *made,
                       struct error **err)
{
    uint8_t uuid[16];
    json_error_t e;
    const char *version, *name, *uuid_text;
    json_t *config, *offer = moving_hear(s, err);
    bool ok = false;
    if (!offer)
        return false;
    if (json_unpack_ex(offer, &e, 0, "{s:s, s:s, s:s, s:o !}", "ruche", &version, "name", &name, "uuid",
                       &uuid_text, "config", &config) < 0)
        error_set(err, EPROTO, "the other end does not speak as this Ruche does: %s", e.text);
    else if (!parse_uuid(uuid_text, uuid))
        error_set(err, EPROTO, "the machine's UUID is none");
    else
        ok = config_check(config, err) && make_place(r, name, uuid_text, config, m, made, err);
    json_decref(offer);
    return ok;
}

/* Hands the line to the machine's process, while this one waits for that. */
static pid_t pass_later(int listener, int line)
{
    pid_t parent = getpid(), pid = fork();
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _exit(getppid() == parent && moving_pass(listener, line, NULL) ? EXIT_OK : EXIT_RUCHE);
}

/* A place that nothing has come to. */
static void give_up_place(const struct machine *m)
{
    cleanup(fd) int lock = machine_lock(m, NULL);
    cleanup(database) struct database *db = database_open(NULL);
    if (lock >= 0 && db)
        machine_remove(db, m, NULL);
}

static bool take_machine(const struct machine *m, int *line, struct error **err)
{
    cleanup(mem) char *path = NULL;
    cleanup(fd) int listener = moving_offer(&path, err);
    if (listener < 0)
        return false;
    cleanup(mem) char *address = catalog_format("pass:%s", path);
    pid_t passer = pass_later(listener, *line);
    close(steal_fd(line));
    close(steal_fd(&listener));
    bool ok = passer > 0 && keeper_receive(m, address, err);
    if (passer > 0) {
        kill(passer, SIGKILL);
        waitpid(passer, NULL, 0);
    } else {
        error_set_errno(err, errno, "make a process");
    }
    unlink(path);
    return ok;
}

static bool receive(const struct request *r, struct error **err)
{
    cleanup(machine) struct machine m = {0};
    cleanup(fd) int line = open_line(r, err);
    bool made = false;
    if (line < 0)
        return false;
    struct frame_stream s = moving_stream(line, "the other end");
    struct error *why = NULL;
    bool ok = hear_offer(&s, r, &m, &made, &why);
    json_t *answer = ok ? json_object() : json_pack("{s:s}", "error", error_text(why));
    bool said = moving_say(&s, answer, ok ? &why : NULL);
    json_decref(answer);
    frame_stream_release(&s);
    ok = ok && said && take_machine(&m, &line, &why);
    if (!ok && made && m.uuid)
        give_up_place(&m);
    if (ok)
        printf("%s\n", m.name);
    else
        error_prefix(err, why, "receive a machine");
    return ok;
}

static int run(int argc, char **argv)
{
    struct request r = {0};
    const struct arg args[] = {{"listen", 0, NULL, &r.listen},
                               {"engine", 0, NULL, &r.engine},
                               {"stdio", 0, &r.stdio, NULL},
                               MOVING_ARGS(&r.safety)};
    struct error *err = NULL;
    int count = args_take(argc, argv, args, ARRAY_SIZE(args));
    if (count < 0)
        return EXIT_USAGE;
    if (count > 1)
        return usage_error("receive", "one name at most");
    if (r.stdio && r.listen)
        return usage_error("receive", "--listen does not go with --stdio");
    int status = r.listen ? moving_check("receive", r.listen, &r.safety) : EXIT_OK;
    if (status != EXIT_OK)
        return status;
    r.name = count ? argv[0] : NULL;
    signal(SIGPIPE, SIG_IGN);
    if (r.name && !catalog_name_check(r.name, &err)) {
        failure(err);
        return EXIT_USAGE;
    }
    return receive(&r, &err) ? EXIT_OK : failure(err);
}

const struct verb verb_receive = {
    .name = "receive",
    .summary = "take a machine that is moved here",
    .help =
        "usage: ruche receive [--listen unix:PATH|tcp:HOST:PORT] [OPTION]... [NAME]\n"
        "\n"
        "Waits for one machine that ruche migrate moves here and takes it into the catalogue, under NAME "
        "or the\n"
        "one that it has. Ends once the machine runs, and prints its name; a machine that cannot be "
        "taken stays\n"
        "where it is. One that was moved away from here before has its place still.\n"
        "\n"
        "  --listen ADDRESS   where; without it at a socket in $XDG_RUNTIME_DIR/ruche, receive.sock\n"
        "  --engine ENGINE    what executes the guest here, as for ruche run; without it the same as there\n"
        "  --stdio            the other end is on standard input and output: ruche migrate ... ssh:HOST\n"
        "                     starts it so\n"
        "\n" MOVING_HELP,
    .run = run,
};
