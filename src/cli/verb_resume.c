/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche resume */
#include <errno.h>
#include <stdio.h>

#include "cli/agent.h"
#include "cli/agent_guest.h"
#include "cli/args.h"
#include "cli/machines.h"
#include "cli/verb.h"

#define PATIENCE_MS 5000

/* The guest has not noticed how long it stood still. One without an agent finds out by itself, or never. */
static void set_time(const struct machine *m)
{
    struct error *err = NULL;
    struct agent *a = agent_open(m, PATIENCE_MS, &err);
    if (a ? !guest_set_time(a, &err) : err->code == ETIMEDOUT)
        fprintf(stderr, "ruche: machine '%s' goes on with its old time: %s\n", m->name, error_text(err));
    error_free(err);
    agent_close(a);
}

static bool command(struct machine *m, void *opaque, struct error **err)
{
    if (!machine_command(m, "cont", err))
        return false;
    set_time(m);
    return true;
}

static int run(int argc, char **argv)
{
    int count = args_take(argc, argv, NULL, 0);
    return count < 0 ? EXIT_USAGE : machines_each("resume", argv, count, command, NULL);
}

const struct verb verb_resume = {
    .name = "resume",
    .summary = "let halted machines go on",
    .help = "usage: ruche resume NAME...\n"
            "\n"
            "Lets machines go on that ruche pause has halted. A guest with an agent has its clock set.\n",
    .run = run,
};
