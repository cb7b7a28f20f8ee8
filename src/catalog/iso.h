/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small volumes of ISO 9660 with a few files in their root, by libisofs. One thread. */
#ifndef CATALOG_ISO_H
#define CATALOG_ISO_H

#include <stdbool.h>
#include <stddef.h>

struct error;

/* Each file begins a sector, and is in one piece as it is. */
#define ISO_SECTOR 2048

struct iso_file {
    const char *name;
    const char *text; /* NULL: there is no such file */
};

/* Makes `path`, which must not exist, for its user alone; on stable storage on return. Names and label keep
 * their letters as they are. Nothing is left on failure. */
bool iso_write(const char *path, const char *label, const struct iso_file *files, size_t count,
               struct error **err);

#endif
