/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Removing snapshots. Once the row is gone nothing needs the snapshot's layer but what stands on it: with one
 * such layer it becomes one, which copies the smaller of the two. Killed at any time that is the same disk,
 * so the next removal can begin anew.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "catalog/machine_state.h"
#include "catalog/overlay.h"
#include "cli/qemu_img.h"
#include "cli/snapshots.h"

static long long blocks_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (long long)st.st_blocks : 0;
}

/* What is above goes into the layer below, which takes its place. */
static bool merge_down(const char *below, const char *above, struct error **err)
{
    /* A merge that was killed may have left clusters that nobody uses. */
    const char *const check[] = {"qemu-img", "check", "-q", "-r", "all", below, NULL};
    const char *const commit[] = {"qemu-img", "commit", "-q", "-d", "-f", "qcow2", above, NULL};
    if (!qemu_img(check, NULL, 0, err) || !qemu_img(commit, NULL, 0, err))
        return false;
    if (rename(below, above) == 0)
        return true;
    return error_set_errno(err, errno, "put '%s' in the place of '%s'", below, above), false;
}

/* What is below goes into the layer above. */
static bool merge_up(const char *below, const char *above, struct error **err)
{
    cleanup(mem) char *base = overlay_base(below, err);
    const char *const words[] = {"qemu-img", "rebase", "-q", "-f",  "qcow2", "-F",
                                 "qcow2",    "-b",     base, above, NULL};
    return base && qemu_img(words, NULL, 0, err);
}

static bool merge(struct visit *v, struct error **err)
{
    const char *below, *above = NULL;
    while ((below = layers_surplus(&v->layers, v->lock >= 0, &above))) {
        cleanup(mem) char *below_path = layer_path(&v->m, below);
        cleanup(mem) char *above_path = layer_path(&v->m, above);
        bool down = blocks_of(above_path) <= blocks_of(below_path);
        if (!(down ? merge_down(below_path, above_path, err) : merge_up(below_path, above_path, err)) ||
            !visit_refresh(v, err))
            return false;
    }
    return true;
}

static bool check(const struct visit *v, const struct snapshot *s, struct error **err)
{
    const char *above;
    bool at_it = v->m.snapshot && strcmp(v->m.snapshot, s->id) == 0;
    unsigned count = machine_has_disk(s->config) ? layers_above(&v->layers, s->disk, &above) : 0;
    if (count > 1)
        error_set(err, EBUSY, "%u later states of the machine stand on it", count);
    else if (v->m.resume && at_it)
        error_set(err, EBUSY, "the machine's next start goes on from it (ruche start %s)", v->m.name);
    else if (v->lock < 0 && count && layers_on_current(&v->layers, s->disk))
        error_set(err, EBUSY, "the machine runs on top of it (ruche stop %s)", v->m.name);
    else
        return true;
    return false;
}

bool snapshot_drop(struct visit *v, const char *name, struct error **err)
{
    const struct snapshot *s = visit_find(v, name, err);
    if (!s || (!machine_is_live(&v->m) && !visit_lock(v, err)) || !check(v, s, err) ||
        !snapshot_remove(v->db, &v->m, s, err))
        return false;
    struct error *why = NULL;
    if (visit_refresh(v, &why) && merge(v, &why))
        return true;
    error_prefix(err, why, "it is removed, but takes room until the next removal");
    return false;
}
