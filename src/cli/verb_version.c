/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche version */
#include <stdio.h>
#include <string.h>

#include "cli/verb.h"

static int run(int argc, char **argv)
{
    bool json = argc == 2 && strcmp(argv[1], "--json") == 0;
    if (argc > 1 && !json)
        return usage_error("version", "unknown argument '%s'", argv[1]);
    printf(json ? "{\"version\": \"%s\"}\n" : "ruche %s\n", RUCHE_VERSION);
    return EXIT_OK;
}

const struct verb verb_version = {
    .name = "version",
    .summary = "print the version",
    .help = "usage: ruche version [--json]\n",
    .run = run,
};
