/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kept disks: the overlay of a machine that was run with --keep, in catalog_data_dir("machines") as
 * NAME.qcow2, with NAME.json saying which image it stands on. A rebuilt image has other contents under the
 * same name, so the checksum of the image's disk is part of it.
 */
#ifndef CATALOG_KEPT_H
#define CATALOG_KEPT_H

#include <stdbool.h>

#include "catalog/image.h"

/* The path of the machine's disk, made when there is none (*made: it was); refused when it stands on another
 * image or build. Owned by the caller. */
char *kept_disk(const char *machine, const struct image *image, bool *made, struct error **err);

/* Removes what kept_disk has made, for a machine that never ran. */
void kept_discard(const char *disk);

/* The name of a machine whose disk stands on the image, or NULL when there is none. Owned by the caller. */
char *kept_user_of(const char *image_name);

#endif
