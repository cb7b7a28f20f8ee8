/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche resume */
#include "cli/args.h"
#include "cli/machines.h"
#include "cli/verb.h"

static bool command(struct machine *m, void *opaque, struct error **err)
{
    return machine_command(m, "cont", err);
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
            "Lets machines go on that ruche pause has halted.\n",
    .run = run,
};
