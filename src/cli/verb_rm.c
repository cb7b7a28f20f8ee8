/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche rm */
#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/args.h"
#include "cli/machines.h"
#include "cli/snapshots.h"
#include "cli/stop.h"
#include "cli/verb.h"

/* The lock, which keeps others from starting it. Without its folder there is nothing to lock or to start. */
static bool take_lock(const struct machine *m, bool force, int *lock, struct error **err)
{
    struct error *why = NULL;
    *lock = machine_lock(m, &why);
    if (*lock < 0 && why->code == EBUSY && force) {
        error_cleanup(&why);
        why = NULL;
        if (!stop_force(m, err))
            return false;
        *lock = machine_lock(m, &why);
    }
    if (*lock < 0 && why->code == EBUSY)
        error_set(err, EBUSY,
                  "remove machine '%s': it runs, or is just being started (ruche stop %s, or rm --force)",
                  m->name, m->name);
    else if (*lock < 0 && why->code != ENOENT)
        error_set(err, why->code, "remove machine '%s': %s", m->name, error_text(why));
    bool ok = *lock >= 0 || why->code == ENOENT;
    error_free(why);
    return ok;
}

/* They are more than the machine's name says. */
static bool check_snapshots(const struct machine *m, struct error **err)
{
    struct error *why = NULL;
    if (snapshots_none(m, "rm --force removes them with it", &why))
        return true;
    error_prefix(err, why, "remove machine '%s'", m->name);
    return false;
}

static bool remove_machine(struct machine *m, void *opaque, struct error **err)
{
    cleanup(fd) int lock = -1;
    if (!*(const bool *)opaque && !check_snapshots(m, err))
        return false;
    if (!take_lock(m, *(const bool *)opaque, &lock, err))
        return false;
    struct machine_state state;
    struct error *why = NULL;
    machine_state_read(m, &state);
    if (!*(const bool *)opaque && machine_has_disk(m->config) && !machine_is_here(m, &why)) {
        error_prefix(err, why, "remove machine '%s' (rm --force does)", m->name);
        return false;
    }
    cleanup(database) struct database *db = database_open(err);
    if (!db || !machine_remove(db, m, err))
        return false;
    /* Left behind when nobody watched over its end. */
    unlink(state.control);
    unlink(state.serial);
    return true;
}

static int run(int argc, char **argv)
{
    bool force = false;
    const struct arg args[] = {{"force", 'f', &force, NULL}};
    int count = args_take(argc, argv, args, 1);
    return count < 0 ? EXIT_USAGE : machines_each("rm", argv, count, remove_machine, &force);
}

const struct verb verb_rm = {
    .name = "rm",
    .summary = "remove machines with their disks",
    .help = "usage: ruche rm [--force] NAME...\n"
            "\n"
            "Removes machines and all that is in their folders: their disks on images, their logs. Files\n"
            "that were given with --disk, and images, stay.\n"
            "\n"
            "  --force   also those that run, which are ended first, those that have snapshots, and those "
            "that were\n"
            "            moved to another host and still write to their disk here\n",
    .run = run,
};
