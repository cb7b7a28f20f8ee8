/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Empty qcow2 disks that stand on another one: what a machine booted from an image writes to. */
#ifndef CATALOG_OVERLAY_H
#define CATALOG_OVERLAY_H

#include <stdbool.h>
#include <stdint.h>

struct error;

/* The size that a guest sees of a qcow2 disk (QEMU docs/interop/qcow2.txt, header). */
bool qcow2_virtual_size(const char *path, uint64_t *size, struct error **err);

/* Creates `path`, which must not exist, as a qcow2 disk of the same size on top of `base` (qcow2, an absolute
 * path or the name of a file in the same folder). */
bool overlay_create(const char *path, const char *base, struct error **err);

/* The disk that one stands on, as its header names it: if by a relative path, then from its own folder. Owned
 * by the caller. NULL, with *err unset, when it stands on none. */
char *overlay_base(const char *path, struct error **err);
/* Whether all that it is is in itself and in what it stands on: it has no file for its data apart. */
bool overlay_is_plain(const char *path);
/* 1: nothing was ever written to it, so it shows what its base shows; 0; -1 and *err. */
int overlay_untouched(const char *path, struct error **err);
/*
 * Whether somebody has it open for writing, as far as the locks tell that Ruche and QEMU hold on images
 * (block/lock.c); false also when it cannot be read.
 */
bool overlay_is_written(const char *path);
/* Whether it was not closed properly, so that its reference counts may be wrong; false also when it cannot be
 * read. */
bool overlay_dirty(const char *path);

/*
 * A throw-away overlay below catalog_data_dir("overlays"); the path is the caller's. Overlays whose process
 * is gone are swept away first. The caller unlinks it as soon as the machine has it open.
 */
char *overlay_create_temporary(const char *base, struct error **err);

#endif
