/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Snapshots of named machines: a row each in the catalogue, which names the layer of the disk that it ends
 * with (layers.h), and a folder snapshots/ID in the machine's with the saved memory, if it has any. The files
 * are there before the row and go after it. Whoever changes snapshots holds layers_lock. One thread.
 */
#ifndef CATALOG_SNAPSHOT_H
#define CATALOG_SNAPSHOT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "catalog/machine.h"

struct snapshot {
    char *id;     /* a UUID */
    char *parent; /* the id of the one that it came after; NULL: none */
    char *name;
    char *created; /* UTC, as 2026-01-31T12:00:00Z */
    char *description;
    json_t *config; /* the machine's */
    char *disk;     /* layer of the machine's disk, a name in its folder; it is never written to */
    bool memory;    /* it was taken of a running machine */
};

struct snapshot_list {
    struct snapshot *v;
    size_t n;
};

/* All of a machine, the oldest first. The list is filled on success only. */
bool snapshot_list(struct database *db, const struct machine *m, struct snapshot_list *list,
                   struct error **err);
void snapshot_list_cleanup(struct snapshot_list *list); /* for `cleanup(snapshot_list)` */
/* NULL: there is none. */
const struct snapshot *snapshot_named(const struct snapshot_list *list, const char *name);
const struct snapshot *snapshot_by_id(const struct snapshot_list *list, const char *id);

/* A new one after the machine's present one, with its configuration, but without disk and memory; release it
 * with snapshot_release. */
bool snapshot_prepare(const struct machine *m, const char *name, const char *description, struct snapshot *s,
                      struct error **err);
void snapshot_release(struct snapshot *s);

/*
 * Each of these is one transaction. A snapshot is added, and the machine, which is based on it from then on,
 * writes to the layer `disk`.
 */
bool snapshot_add(struct database *db, const struct machine *m, const struct snapshot *s, const char *disk,
                  struct error **err);
/* What came after it comes after its parent then. */
bool snapshot_remove(struct database *db, const struct machine *m, const struct snapshot *s,
                     struct error **err);
/* The machine goes back to it, with its configuration, and writes to the layer `disk` on top of it; its next
 * start goes on from the memory if `resume`. */
bool snapshot_go_back(struct database *db, const struct machine *m, const struct snapshot *s,
                      const char *disk, bool resume, struct error **err);
/* The machine, which still writes to the layer m->disk, has gone on from the memory. */
bool snapshot_resumed(struct database *db, const struct machine *m, struct error **err);

/* Its folder, and the saved machine in it; owned by the caller. */
char *snapshot_folder(const struct machine *m, const char *id);
char *snapshot_memory(const struct machine *m, const char *id);
/* The saved machine that its next start goes on from, if it does: that of the snapshot which it is based on;
 * of a clone that is based on none, one of its own. Owned by the caller. */
char *machine_memory(const struct machine *m);

#endif
