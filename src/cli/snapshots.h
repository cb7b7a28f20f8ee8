/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the actions of `ruche snapshot` share, and these actions: one file each. One thread. */
#ifndef CLI_SNAPSHOTS_H
#define CLI_SNAPSHOTS_H

#include <stdbool.h>

#include "base/error.h"
#include "catalog/layers.h"
#include "catalog/machine.h"

/* A machine whose snapshots this command alone changes. */
struct visit {
    struct database *db;
    struct machine m;
    struct layers layers;
    int at_snapshots; /* layers_lock */
    int lock;         /* machine_lock, so that it does not run; -1: not held */
};

/* Without what killed commands have left. False and *err; visit_end is due in any case. */
bool visit_begin(struct visit *v, const char *machine, struct error **err);
void visit_end(struct visit *v);
/* Looks again at machine and layers, after changes, and removes what they have made useless. */
bool visit_refresh(struct visit *v, struct error **err);
/* Takes the machine's lock. */
bool visit_lock(struct visit *v, struct error **err);
/* The snapshot of that name; NULL and *err when there is none. */
const struct snapshot *visit_find(const struct visit *v, const char *name, struct error **err);

/* Whether the machine has none; if not, *err has their number and, in brackets, `hint`. */
bool snapshots_none(const struct machine *m, const char *hint, struct error **err);

/*
 * What snapshots and clones are made of; snapshot_take.c.
 *
 * Whether all disks of such a machine can take part; files that were given to it have no layers of ours.
 */
bool freeze_check_disks(const struct machine *m, struct error **err);
/* The running machine saves itself to the memory of `s`, and its disk goes on in a new layer, which is the
 * catalogue's top then; s->disk is the one that it leaves. A terminal shows how far `what` is. */
bool freeze_running(struct visit *v, const char *control, const char *what, struct snapshot *s,
                    struct error **err);
/* Of a machine that does not run, with a disk: an untouched layer on its top, which is to be the new top. Its
 * name, owned by the caller. */
char *freeze_stopped(struct visit *v, struct error **err);

/* snapshot_take.c; `name` NULL: the first free one of s1, s2, ..., which is printed. */
bool snapshot_take(struct visit *v, const char *name, const char *description, struct error **err);
/* snapshot_revert.c; `cold`: without its memory. */
bool snapshot_revert(struct visit *v, const char *name, bool cold, struct error **err);
/* snapshot_drop.c */
bool snapshot_drop(struct visit *v, const char *name, struct error **err);
/* snapshot_export.c; `to`: a folder, which is made. */
bool snapshot_export(struct visit *v, const char *name, const char *to, struct error **err);
/* snapshot_show.c; gives an exit status. */
int snapshot_show(const char *machine, bool json, struct error **err);

#endif
