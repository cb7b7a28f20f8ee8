/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche help */
#include <stdio.h>

#include "cli/verb.h"

static int run(int argc, char **argv)
{
    if (argc > 2)
        return usage_error("help", "one command at a time");
    if (argc == 2) {
        const struct verb *verb = verb_find(argv[1]);
        if (!verb)
            return usage_error(NULL, "there is no command '%s'", argv[1]);
        fputs(verb->help, stdout);
        return EXIT_OK;
    }
    puts("usage: ruche COMMAND [ARGUMENT]...\n");
    for (const struct verb *const *v = verbs; *v; v++)
        printf("  %-10s %s\n", (*v)->name, (*v)->summary);
    puts("\n`ruche COMMAND --help` says more about one.");
    return EXIT_OK;
}

const struct verb verb_help = {
    .name = "help",
    .summary = "list the commands, or explain one",
    .help = "usage: ruche help [COMMAND]\n",
    .run = run,
};
