/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche rename */
#include "base/cleanup.h"
#include "catalog/file.h"
#include "cli/args.h"
#include "cli/machines.h"
#include "cli/verb.h"

static int run(int argc, char **argv)
{
    struct error *err = NULL;
    cleanup(machine) struct machine m = {0};
    int count = args_take(argc, argv, NULL, 0);
    if (count < 0)
        return EXIT_USAGE;
    if (count != 2)
        return usage_error("rename", "a machine and its new name are wanted");
    if (!catalog_name_check(argv[1], &err)) {
        failure(err);
        return EXIT_USAGE;
    }
    cleanup(database) struct database *db = machines_open(&err);
    bool ok = db && machine_find(db, argv[0], &m, &err) && machine_rename(db, &m, argv[1], &err);
    return ok ? EXIT_OK : failure(err);
}

const struct verb verb_rename = {
    .name = "rename",
    .summary = "give a machine another name",
    .help = "usage: ruche rename NAME NEW\n"
            "\n"
            "Gives a machine another name, whether it runs or not. Its UUID, addresses and files stay.\n",
    .run = run,
};
