/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche snapshot create|ls|revert|rm|export */
#include <string.h>

#include "base/util.h"
#include "catalog/file.h"
#include "cli/args.h"
#include "cli/snapshots.h"
#include "cli/verb.h"

struct request {
    const char *machine, *name, *dir, *description;
    bool json, cold;
};

static bool create(struct visit *v, const struct request *r, struct error **err)
{
    return snapshot_take(v, r->name, r->description ? r->description : "", err);
}

static bool revert(struct visit *v, const struct request *r, struct error **err)
{
    return snapshot_revert(v, r->name, r->cold, err);
}

static bool drop(struct visit *v, const struct request *r, struct error **err)
{
    return snapshot_drop(v, r->name, err);
}

static bool export_one(struct visit *v, const struct request *r, struct error **err)
{
    return snapshot_export(v, r->name, r->dir, err);
}

static const struct action {
    const char *name, *trying;
    bool (*run)(struct visit *v, const struct request *r, struct error **err); /* NULL: it is ls */
    int words_min, words_max;
} actions[] = {
    {"create", "take a snapshot", create, 1, 2},     {"ls", "list the snapshots", NULL, 1, 1},
    {"revert", "go back to snapshot", revert, 2, 2}, {"rm", "remove snapshot", drop, 2, 2},
    {"export", "export snapshot", export_one, 3, 3},
};

static const struct action *find_action(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_SIZE(actions); i++)
        if (strcmp(actions[i].name, name) == 0)
            return &actions[i];
    return NULL;
}

static int change(const struct action *a, const struct request *r)
{
    struct visit v;
    struct error *why = NULL, *err = NULL;
    bool ok = visit_begin(&v, r->machine, &why) && a->run(&v, r, &why);
    visit_end(&v);
    if (ok)
        return EXIT_OK;
    if (r->name)
        error_prefix(&err, why, "%s '%s' of machine '%s'", a->trying, r->name, r->machine);
    else
        error_prefix(&err, why, "%s of machine '%s'", a->trying, r->machine);
    return failure(err);
}

static int list(const struct request *r)
{
    struct error *err = NULL;
    int status = snapshot_show(r->machine, r->json, &err);
    return err ? failure(err) : status;
}

/* Options that other actions have are unknown to this one. */
static int take_words(const struct action *a, int argc, char **argv, struct request *r)
{
    const struct arg args[] = {
        {"json", 0, &r->json, NULL}, {"cold", 0, &r->cold, NULL}, {"description", 0, NULL, &r->description}};
    size_t from = a->run == create ? 2 : a->run == revert ? 1 : 0;
    return args_take(argc, argv, args + from, a->run == drop || a->run == export_one ? 0 : 1);
}

static int run(int argc, char **argv)
{
    struct request r = {0};
    const struct action *a = find_action(argc > 1 ? argv[1] : NULL);
    char verb[] = "snapshot";
    struct error *err = NULL;
    if (argc < 2)
        return usage_error(verb, "snapshot: say create, ls, revert, rm or export");
    if (!a)
        return usage_error(verb, "snapshot: unknown action '%s'", argv[1]);
    argv[1] = verb;
    int count = take_words(a, argc - 1, argv + 1, &r);
    if (count < 0)
        return EXIT_USAGE;
    if (count < a->words_min || count > a->words_max)
        return usage_error(verb, "snapshot %s: %s", a->name,
                           count < 1                       ? "which machine?"
                           : count < 2 && a->words_min > 1 ? "which snapshot?"
                           : count < a->words_min          ? "to which folder?"
                                                           : "too many words");
    r.machine = argv[1];
    r.name = count > 1 ? argv[2] : NULL;
    r.dir = count > 2 ? argv[3] : NULL;
    if (r.name && !catalog_name_check(r.name, &err)) {
        failure(err);
        return EXIT_USAGE;
    }
    return a->run ? change(a, &r) : list(&r);
}

const struct verb verb_snapshot = {
    .name = "snapshot",
    .summary = "keep states of machines and go back to them",
    .help =
        "usage: ruche snapshot create [--description TEXT] NAME [SNAPSHOT]\n"
        "       ruche snapshot ls [--json] NAME\n"
        "       ruche snapshot revert [--cold] NAME SNAPSHOT\n"
        "       ruche snapshot rm NAME SNAPSHOT\n"
        "       ruche snapshot export NAME SNAPSHOT DIR\n"
        "\n"
        "A snapshot is a machine's state at one instant: its settings, its disk, and of a machine that runs\n"
        "its memory and devices. The machine goes on meanwhile; only what it writes from then on takes room\n"
        "again. Snapshots form a tree; ls marks the one that the machine is based on with a star.\n"
        "\n"
        "  create   takes one; without a name it is s1, s2, ..., and printed\n"
        "  revert   throws the present state away and goes back: a machine that ran goes on running, from\n"
        "           that instant, another one is stopped\n"
        "  rm       removes one, but not the states that came after it\n"
        "  export   makes a folder with all that it holds: disk.qcow2, and memory if the machine ran, from "
        "which\n"
        "           ruche run --restore DIR/memory --disk DIR/disk.qcow2 goes on\n"
        "\n"
        "  --cold   without the memory: the machine is stopped, as after a power failure at that instant\n"
        "\n"
        "Disks that were given by --disk can only take part when they are read-only.\n",
    .run = run,
};
