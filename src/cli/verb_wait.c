/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche wait */
#include "base/cleanup.h"
#include "cli/args.h"
#include "cli/machines.h"
#include "cli/verb.h"

static int run(int argc, char **argv)
{
    int status = EXIT_OK, count = args_take(argc, argv, NULL, 0);
    if (count < 0)
        return EXIT_USAGE;
    if (count < 1)
        return usage_error("wait", "which machine?");
    for (int i = 0; i < count; i++) {
        cleanup(machine) struct machine m = {0};
        struct machine_state state;
        struct error *err = NULL;
        int one = machine_named(argv[i], &m);
        if (one == EXIT_OK) {
            machine_wait_end(&m, -1);
            machine_state_read(&m, &state);
            if (state.life == MACHINE_NEVER)
                error_set(&err, 0, "wait for machine '%s': it has never run", m.name);
            one = err ? failure(err) : machine_exit_status(&m);
        }
        status = status ? status : one;
    }
    return status;
}

const struct verb verb_wait = {
    .name = "wait",
    .summary = "wait for the end of machines",
    .help = "usage: ruche wait NAME...\n"
            "\n"
            "Waits until machines have ended, and gives the exit status that ruche run would have given: 0\n"
            "the guest powered off, 126 it crashed, 125 Ruche failed, 130 the machine was ended; of several\n"
            "machines the first that is not 0. For one that does not run it is that of its last life.\n",
    .run = run,
};
