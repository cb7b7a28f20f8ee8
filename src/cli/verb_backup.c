/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche backup NAME DIR, and what is done with the backups in a folder. */
#include <string.h>

#include "base/parse.h"
#include "base/util.h"
#include "cli/args.h"
#include "cli/backups.h"
#include "cli/verb.h"

struct request {
    const char *dir, *machine;
    bool full, json;
    const char *keep, *at, *name;
};

static bool take(const struct request *r, struct error **err)
{
    return backup_take(r->machine, r->dir, r->full, err);
}

static bool verify(const struct request *r, struct error **err)
{
    return backup_verify(r->dir, err);
}

static bool prune(const struct request *r, struct error **err)
{
    uint64_t keep = 0;
    parse_uint(r->keep, &keep);
    return backup_prune(r->dir, (unsigned)MIN(keep, UINT32_MAX), err);
}

static bool restore(const struct request *r, struct error **err)
{
    return backup_restore(r->dir, r->at, r->name, err);
}

static const struct action {
    const char *name, *trying;
    bool (*run)(const struct request *r, struct error **err); /* NULL: it is ls */
} actions[] = {
    {"ls", "list the backups in", NULL},
    {"verify", "verify the backups in", verify},
    {"prune", "prune the backups in", prune},
    {"restore", "restore from", restore},
};

/* What a backup of a machine is. */
static const struct action taking = {"backup", "backup of machine", take};

static const struct action *find_action(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_SIZE(actions); i++)
        if (strcmp(actions[i].name, name) == 0)
            return &actions[i];
    return &taking;
}

/* Options that other actions have are unknown to this one. */
static int take_words(const struct action *a, int argc, char **argv, struct request *r)
{
    const struct arg full = {"full", 0, &r->full, NULL}, json = {"json", 0, &r->json, NULL},
                     keep = {"keep", 0, NULL, &r->keep};
    const struct arg where[] = {{"at", 0, NULL, &r->at}, {"name", 0, NULL, &r->name}};
    if (a->run == restore)
        return args_take(argc, argv, where, ARRAY_SIZE(where));
    const struct arg *one = a->run == take ? &full : a->run == prune ? &keep : &json;
    return args_take(argc, argv, one, a->run == verify ? 0 : 1);
}

static int check_keep(const struct request *r)
{
    uint64_t n = 0;
    if (!r->keep)
        return usage_error("backup", "backup prune: --keep NUMBER is wanted");
    if (parse_uint(r->keep, &n) && n > 0)
        return EXIT_OK;
    return usage_error("backup", "backup prune: --keep '%s' is no number from 1 on", r->keep);
}

static int carry_out(const struct action *a, const struct request *r)
{
    struct error *why = NULL, *err = NULL;
    int status = a->run ? (a->run(r, &why) ? EXIT_OK : EXIT_RUCHE) : backup_show(r->dir, r->json, &why);
    if (!why)
        return status;
    error_prefix(&err, why, "%s '%s'", a->trying, a->run == take ? r->machine : r->dir);
    return failure(err);
}

static int run(int argc, char **argv)
{
    struct request r = {0};
    const struct action *a = find_action(argc > 1 ? argv[1] : NULL);
    char verb[] = "backup";
    int skipped = a->run == take ? 0 : 1;
    if (skipped)
        argv[1] = verb;
    int count = take_words(a, argc - skipped, argv + skipped, &r);
    if (count < 0)
        return EXIT_USAGE;
    char **words = argv + skipped;
    int wanted = a->run == take ? 2 : 1;
    if (count < wanted)
        return usage_error(verb,
                           wanted == 2 && count == 0 ? "which machine, and which folder?" : "which folder?");
    if (count > wanted)
        return usage_error(verb, "'%s' is too much", words[wanted]);
    r.machine = words[0];
    r.dir = words[wanted - 1];
    int status = a->run == prune ? check_keep(&r) : EXIT_OK;
    return status == EXIT_OK ? carry_out(a, &r) : status;
}

const struct verb verb_backup = {
    .name = "backup",
    .summary = "back machines up to a folder and restore them",
    .help =
        "usage: ruche backup [--full] NAME DIR\n"
        "       ruche backup ls [--json] DIR\n"
        "       ruche backup verify DIR\n"
        "       ruche backup prune --keep NUMBER DIR\n"
        "       ruche backup restore [--at NUMBER] [--name NAME] DIR\n"
        "\n"
        "Copies what the disks of a machine hold at this instant, its settings and what it boots to DIR, "
        "which\n"
        "then is this machine's folder of backups. The machine goes on meanwhile. From the second time on "
        "only\n"
        "what has changed is copied. With a guest agent the guest's file systems are consistent, else it is\n"
        "as if the power had failed.\n"
        "\n"
        "  ls        lists the backups in a folder\n"
        "  verify    compares every file with its checksum\n"
        "  prune     removes the oldest backups\n"
        "  restore   makes a machine as it was at the last backup\n"
        "\n"
        "  --full         copies everything, also what has not changed\n"
        "  --keep NUMBER  how many backups stay\n"
        "  --at NUMBER    the backup of this number, as ls shows it\n"
        "  --name NAME    of the machine; by default that of the one that was backed up\n"
        "\n"
        "Disks that the machine only reads are not copied. Each disk is a qcow2 file on top of the backup\n"
        "before, which qemu-img reads without Ruche.\n",
    .run = run,
};
