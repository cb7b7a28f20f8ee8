/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a backup is to copy of each disk, found out before anything is done. One thread. */
#ifndef CLI_BACKUP_PLAN_H
#define CLI_BACKUP_PLAN_H

#include "catalog/backup.h"
#include "cli/backup_source.h"

struct disk_plan {
    char *device;        /* the machine's name for it, and the job's */
    char *role;          /* "disk0", ... as they come in the machine */
    char *name, *part;   /* of its file, and before it is complete */
    char *before;        /* the bitmap by which it is copied; NULL: all of it is */
    const char *backing; /* the file of the backup before; NULL: none. The manifest's */
    char *after;         /* the bitmap that begins now, the plan's; NULL: its format has none */
    uint64_t size;       /* bytes that the guest sees */
};

struct backup_plan {
    json_int_t number;
    char *bitmap; /* the name of those that begin now: no other attempt's, and the manifest's once it succeeds
                   */
    struct disk_plan *disk;
    size_t count;
    bool incremental; /* at least one disk is */
    char why[512];    /* a disk is copied as a whole, or empty */
};

/* With `full` all disks are copied as a whole. backup_plan_free is due in any case. */
bool backup_plan_make(const struct backup_folder *f, struct backup_source *s, bool full,
                      struct backup_plan *p, struct error **err);
void backup_plan_free(struct backup_plan *p);

/* Removes bitmaps of the folder that are not called `keep` (NULL: all): what killed and failed backups, and
 * the one before, have left. */
bool backup_plan_tidy(const struct backup_folder *f, struct backup_source *s, const char *keep,
                      struct error **err);

#endif
