/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche clone */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/parse.h"
#include "catalog/file.h"
#include "cli/args.h"
#include "cli/at_once.h"
#include "cli/clones.h"
#include "cli/verb.h"

struct request {
    struct clone_order order;
    const char *count_text;
    char *made[AT_ONCE_MAX]; /* names NEW-1, NEW-2, ... of --count */
};

static int check_names(const struct clone_order *o)
{
    struct error *err = NULL;
    for (size_t i = 0; i < o->count; i++) {
        for (size_t k = 0; k < i; k++)
            if (strcmp(o->names[i], o->names[k]) == 0)
                return usage_error("clone", "'%s' is there twice", o->names[i]);
        if (catalog_name_check(o->names[i], &err))
            continue;
        failure(err);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

/* The names as they are, or one of them with numbers. */
static int take_names(struct request *r, char **names, size_t count)
{
    uint64_t wanted = count;
    if (r->count_text && (!parse_uint(r->count_text, &wanted) || !wanted))
        return usage_error("clone", "--count wants a number, not '%s'", r->count_text);
    if (r->count_text && count != 1)
        return usage_error("clone", "--count makes numbered names of one name, not of %zu", count);
    if (wanted > AT_ONCE_MAX)
        return usage_error("clone", "no more than %d clones at once", AT_ONCE_MAX);
    r->order.names = names;
    r->order.count = (size_t)wanted;
    if (!r->count_text)
        return check_names(&r->order);
    for (size_t i = 0; i < r->order.count; i++)
        r->made[i] = catalog_format("%s-%zu", names[0], i + 1);
    r->order.names = r->made;
    return check_names(&r->order);
}

static int parse(struct request *r, int argc, char **argv)
{
    const struct arg args[] = {{"full", 0, &r->order.full, NULL},
                               {"cold", 0, &r->order.cold, NULL},
                               {"count", 0, NULL, &r->count_text},
                               {"snapshot", 0, NULL, &r->order.snapshot}};
    int count = args_take(argc, argv, args, sizeof(args) / sizeof(args[0]));
    if (count < 0)
        return EXIT_USAGE;
    if (count < 2)
        return usage_error("clone", count ? "what are the clones to be called?" : "which machine?");
    r->order.machine = argv[0];
    return take_names(r, argv + 1, (size_t)count - 1);
}

/* What the clones of a machine that did not run have in common with it. */
static void tell(const struct clone_result *r)
{
    const json_t *config = r->machines[0].config;
    if (r->forwards)
        fprintf(stderr, "ruche: ports of the host that lead to '%s' do not lead to its clones (ruche set)\n",
                r->of);
    if (!r->machines[0].resume && machine_has_disk(config))
        fprintf(stderr, "ruche: what the guest has on its disk is as in '%s'%s\n", r->of,
                json_is_true(json_object_get(config, "seed"))
                    ? ""
                    : ": its ssh keys too, if it has made them, and the host name");
}

static int make(const struct clone_order *o)
{
    struct clone_result result;
    struct error *err = NULL;
    if (!clones_make(o, &result, &err))
        return failure(err);
    tell(&result);
    int status = result.machines[0].resume ? clones_start(&result) : EXIT_OK;
    clone_result_release(&result);
    return status;
}

static int run(int argc, char **argv)
{
    struct request r = {0};
    int status = parse(&r, argc, argv);
    if (status == EXIT_OK)
        status = make(&r.order);
    for (size_t i = 0; i < AT_ONCE_MAX; i++)
        free(r.made[i]);
    return status;
}

const struct verb verb_clone = {
    .name = "clone",
    .summary = "make machines that are like another one",
    .help =
        "usage: ruche clone [OPTION]... NAME NEW...\n"
        "       ruche clone --count N [OPTION]... NAME NEW\n"
        "\n"
        "Makes machines with the settings and the disk of another one. Clones of a machine that runs go on\n"
        "from the same instant, and the machine goes on too: they share its memory until they write to it,\n"
        "so they start at once and take little room. Each has a UUID and network addresses of its own.\n"
        "\n"
        "  --count N          N clones, called NEW-1 to NEW-N\n"
        "  --snapshot NAME    of that snapshot, not of the machine as it is now\n"
        "  --full             copies the disk; else clones share what is on it now, and each has a file of\n"
        "                     its own with what it writes\n"
        "  --cold             without the memory: the clones do not run, and their disk is as after a power\n"
        "                     failure\n"
        "\n"
        "A guest with an agent is given a host name, machine-id, ssh keys and the time.\n",
    .run = run,
};
