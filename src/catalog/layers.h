/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The layers of a machine's own disk: qcow2 files in its folder, each on top of another or of the image. The
 * catalogue names the top, which the machine writes to, and the one that each snapshot ends with; what these
 * stand on is in the files themselves, by names in the same folder.
 *
 * A layer that is not written to may be in the folders of several machines, clones of each other: hard links
 * to one file, which is gone with the last. Such a shared layer never changes.
 *
 * The catalogue may name as the top an untouched layer on the one that a running machine writes to: both show
 * the same. It never names one below that. One thread.
 */
#ifndef CATALOG_LAYERS_H
#define CATALOG_LAYERS_H

#include "catalog/snapshot.h"

/* Held by whoever changes the snapshots of a machine, or starts it while it looks at its layers. Waits for a
 * moment; the code of *err is EBUSY when another has it. */
int layers_lock(const struct machine *m, struct error **err);

struct name_list {
    char **v;
    size_t n;
};

/* How they are; all of it is as of layers_load. */
struct layers {
    const struct machine *m;
    struct snapshot_list snapshots;
    struct name_list current; /* what the machine stands on, the top first; none without a disk of its own */
    struct name_list frozen;  /* what snapshots stand on */
};

/* `m` must outlive it. */
bool layers_load(struct database *db, const struct machine *m, struct layers *l, struct error **err);
void layers_cleanup(struct layers *l); /* for `cleanup(layers)` */

void name_list_cleanup(struct name_list *list); /* for `cleanup(name_list)` */

/* Adds to an empty list the layer and those that it stands on, down to the image. */
bool layers_chain(const struct machine *m, const char *top, struct name_list *list, struct error **err);

bool layers_on_current(const struct layers *l, const char *name);
/* How many layers stand directly on it; the last of them goes to *above, borrowed. */
unsigned layers_above(const struct layers *l, const char *name, const char **above);

/* A layer that is neither the top nor a snapshot's, and that only one other stands on: the two may become
 * one, unless one of them is shared. Not one that the machine stands on unless `all`. NULL: there is none.
 * Borrowed. */
const char *layers_surplus(const struct layers *l, bool all, const char **above);

/* As many may stand on each other that a machine still opens its disk; the image is one or more itself. */
#define LAYERS_MAX 60

/* Makes an untouched layer on top of another and has the host keep it; its name, owned by the caller. */
char *layers_new(const struct machine *m, const char *below, struct error **err);
/* The path of a layer, owned by the caller. */
char *layer_path(const struct machine *m, const char *name);

/* The machine writes to the layer `disk` from its next start on. */
bool layers_set_top(struct database *db, const struct machine *m, const char *disk, struct error **err);
/* Takes untouched layers off the top that stand on one which neither a snapshot nor another machine needs,
 * nor a memory that is to be gone on from; m->disk is the new one. The machine is locked. */
bool layers_drop_untouched(struct database *db, struct machine *m, struct error **err);
/* Removes layers, folders of snapshots and a saved memory that nothing refers to: leftovers of killed
 * commands. */
bool layers_sweep(const struct layers *l, struct error **err);

#endif
