/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche pause */
#include "cli/args.h"
#include "cli/machines.h"
#include "cli/verb.h"

static bool command(struct machine *m, void *opaque, struct error **err)
{
    return machine_command(m, "stop", err);
}

static int run(int argc, char **argv)
{
    int count = args_take(argc, argv, NULL, 0);
    return count < 0 ? EXIT_USAGE : machines_each("pause", argv, count, command, NULL);
}

const struct verb verb_pause = {
    .name = "pause",
    .summary = "halt machines where they are",
    .help = "usage: ruche pause NAME...\n"
            "\n"
            "Halts machines: their guests do not run until ruche resume, and notice nothing of it but the "
            "time.\n",
    .run = run,
};
