/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche start */
#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "cli/args.h"
#include "cli/keeper.h"
#include "cli/machines.h"
#include "cli/verb.h"

static bool start(struct machine *m, void *opaque, struct error **err)
{
    return keeper_start(m, err);
}

/* All that are to be started when the host is, and do not run. */
static int start_all(void)
{
    struct error *err = NULL;
    struct machine *list;
    size_t count;
    if (!machines_all(&list, &count, &err))
        return failure(err);
    int status = EXIT_OK;
    for (size_t i = 0; i < count; i++) {
        struct error *why = NULL;
        struct machine_state state;
        machine_state_read(&list[i], &state);
        if (json_is_true(json_object_get(list[i].config, "autostart")) && !machine_is_live(&list[i]) &&
            !machine_moved(&state) && !keeper_start(&list[i], &why))
            status = failure(why);
    }
    machine_list_free(list, count);
    return status;
}

static int run(int argc, char **argv)
{
    bool all = false;
    const struct arg args[] = {{"autostart", 0, &all, NULL}};
    int count = args_take(argc, argv, args, 1);
    if (count < 0)
        return EXIT_USAGE;
    if (all && count)
        return usage_error("start", "--autostart starts those that are set so, and no others");
    return all ? start_all() : machines_each("start", argv, count, start, NULL);
}

const struct verb verb_start = {
    .name = "start",
    .summary = "start machines",
    .help =
        "usage: ruche start NAME...\n"
        "       ruche start --autostart\n"
        "\n"
        "Starts machines in the background and returns once they run. ruche console shows their console,\n"
        "ruche stop stops them.\n"
        "\n"
        "  --autostart   all machines that are set so and do not run\n",
    .run = run,
};
