/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where Ruche keeps things, and the few operations on files and folders that the catalogue needs. Strings
 * returned are owned by the caller. Any thread.
 */
#ifndef CATALOG_FILE_H
#define CATALOG_FILE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct error;

/* $XDG_DATA_HOME/ruche (default ~/.local/share/ruche) and `sub` (NULL: nothing) below it, made when missing,
 * for the user alone. */
char *catalog_data_dir(const char *sub, struct error **err);

/*
 * The folder for sockets: $XDG_RUNTIME_DIR/ruche, else /tmp/ruche-UID. Made when missing; refused when it is
 * not the user's own or others may write to it.
 */
char *catalog_runtime_dir(struct error **err);

/* Letters, digits, '.', '_' and '-', not starting with a sign, at most 63: safe as a file name. */
bool catalog_name_check(const char *name, struct error **err);

/* Removes a file or a folder with all in it, never following a symbolic link. A missing path is no error. */
bool catalog_remove_tree(const char *path, struct error **err);

/* A relative path is put behind the current folder's. */
char *catalog_absolute(const char *path, struct error **err);

/* A whole file, which must be text of at most `most` bytes. The code of *err is EINVAL when it is not. */
char *catalog_read_text(const char *path, size_t most, struct error **err);

/* Copies a file's contents to a new one or in place of an old one's. */
bool catalog_copy(const char *from, const char *to, struct error **err);

/* Writes JSON to `path` in place of what is there, by one rename, so that there is never half of it. One
 * writer at a time. */
bool catalog_write_json(const char *path, const json_t *value, struct error **err);

/* Now, UTC, as 2026-01-31T12:00:00Z. */
#define CATALOG_TIME_SIZE 21
void catalog_time(char text[CATALOG_TIME_SIZE]);

/* Has the host keep a file or a folder with the names in it, also when it fails. */
bool catalog_sync(const char *path, struct error **err);

/* Takes the lock that a file is, made when missing; a descriptor to hold it by, or -1 with *err, whose code
 * is EBUSY when another has it. */
int catalog_lock(const char *path, struct error **err);

/* asprintf that cannot fail short of memory, in which case it ends the program. */
char *catalog_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
