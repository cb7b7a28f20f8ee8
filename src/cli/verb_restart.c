/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche restart */
#include "base/util.h"
#include "cli/args.h"
#include "cli/keeper.h"
#include "cli/machines.h"
#include "cli/stop.h"
#include "cli/verb.h"

struct request {
    bool force;
    int timeout_ms;
};

static bool restart(struct machine *m, void *opaque, struct error **err)
{
    const struct request *r = opaque;
    return stop_ask(m, r->force, err) && stop_wait(m, r->timeout_ms, r->force, err) && keeper_start(m, err);
}

static int run(int argc, char **argv)
{
    struct request r = {.timeout_ms = STOP_TIMEOUT_S * 1000};
    const char *timeout = NULL;
    const struct arg args[] = {{"force", 'f', &r.force, NULL}, {"timeout", 0, NULL, &timeout}};
    int count = args_take(argc, argv, args, ARRAY_SIZE(args));
    if (count < 0)
        return EXIT_USAGE;
    if (timeout && !stop_timeout(timeout, &r.timeout_ms))
        return usage_error("restart", "--timeout '%s': a number of seconds is wanted", timeout);
    return machines_each("restart", argv, count, restart, &r);
}

const struct verb verb_restart = {
    .name = "restart",
    .summary = "stop machines and start them again",
    .help = "usage: ruche restart [--timeout SECONDS] [--force] NAME...\n"
            "\n"
            "Stops machines as ruche stop does, and starts them again with the settings they have now. One\n"
            "that does not run is started.\n",
    .run = run,
};
