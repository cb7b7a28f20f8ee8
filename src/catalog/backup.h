/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Folders of backups: see docs/backup.md. backup.json, the manifest, says which backups there are and what
 * files they consist of, with checksums, also of itself. A file has its final name before the manifest names
 * it, and loses it only after the manifest no longer does; so whoever is killed leaves files that nothing
 * names, which the next command removes. One thread.
 */
#ifndef CATALOG_BACKUP_H
#define CATALOG_BACKUP_H

#include <jansson.h>
#include <stdbool.h>

#include "catalog/machine.h"

struct backup_folder {
    char *dir;       /* absolute */
    int fd;          /* of the folder, with its lock; -1: not open */
    json_t *content; /* of the manifest; has the form that docs/backup.md describes */
};

/*
 * Opens one to look at it, or, with `change`, to change it alone; what a killed command has begun is then
 * finished or removed. The code of *err is ENOENT when there are no backups, EBUSY while another command is
 * at it, EBADMSG when the manifest is damaged. backup_close is due in any case.
 */
bool backup_open(const char *dir, bool change, struct backup_folder *f, struct error **err);
/* The same, to add to it a backup of the machine: makes the folder when it is missing, takes one that is
 * empty, refuses one that has backups of another machine. */
bool backup_open_for(const char *dir, const struct machine *m, struct backup_folder *f, struct error **err);
/* The manifest as it is on the disk; false when it cannot be read, and there is none then. */
bool backup_reload(struct backup_folder *f, struct error **err);
void backup_close(struct backup_folder *f);
void backup_folder_cleanup(struct backup_folder *f); /* for `cleanup(backup_folder)` */

/* Writes the manifest, durably and in one step. */
bool backup_save(const struct backup_folder *f, struct error **err);
/* Removes what the manifest does not name. */
bool backup_sweep(const struct backup_folder *f, struct error **err);

/* Of the manifest; all borrowed. */
json_t *backup_list(const struct backup_folder *f);          /* the oldest first */
json_t *backup_last(const struct backup_folder *f);          /* NULL: there is none */
const char *backup_chain(const struct backup_folder *f);     /* names the folder among others */
json_t *backup_file(const json_t *backup, const char *role); /* NULL: it has none for that */
json_t *backup_file_named(const struct backup_folder *f, const char *name);
/* By its number as users write it, NULL: the last. NULL and *err when there is none. */
json_t *backup_numbered(const struct backup_folder *f, const char *number, struct error **err);

/* A member of the manifest that is a text; NULL: it is missing. */
const char *backup_text(const json_t *o, const char *key);
/* Whether a file is of a disk. */
bool backup_is_disk(const json_t *entry);

/* The path of a file, owned by the caller. */
char *backup_path(const struct backup_folder *f, const char *name);

/*
 * Has the file take the place of another, which all backups that name it then have. Killed at any time there
 * is the one or the other, which the next backup_open puts right. The new one is durable; *entry is the
 * manifest's for the old one.
 */
bool backup_replace(struct backup_folder *f, json_t *entry, const char *by, struct error **err);

/* Whether a file is as the manifest has it: `sums` false looks at its size only. *err names it. */
bool backup_check_file(const struct backup_folder *f, const json_t *entry, bool sums, struct error **err);

/* The same, with checksums, of a file and all that it stands on; a disk's must be what the manifest says, and
 * lead nowhere else. */
bool backup_check_chain(const struct backup_folder *f, const json_t *entry, struct error **err);

#endif
