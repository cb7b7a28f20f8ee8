/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images: a folder each below catalog_data_dir("images"), holding a root disk, a kernel, an initial RAM disk,
 * and image.json which describes them. An image appears and changes by one rename, so that there is never
 * half of one. While it is being made it is a draft: a folder with a leading dot, held by a lock; drafts that
 * no process holds are swept away by whoever comes next. Functions may be called from one thread at a time.
 */
#ifndef CATALOG_IMAGE_H
#define CATALOG_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct image {
    char *name;
    char *dir; /* absolute */
    char *description;
    char *created;                /* UTC, as 2026-01-31T12:00:00Z */
    char *disk, *kernel, *initrd; /* absolute paths */
    char *cmdline;
    char *disk_sha256, *kernel_sha256, *initrd_sha256;
    char *recipe_sha256; /* of the recipe it was made by */
    uint64_t disk_size;  /* bytes that the guest sees */
    uint64_t host_size;  /* bytes that the files take on the host */
};

/* `image` is filled on success only; release it with image_release. */
bool image_load(const char *name, struct image *image, struct error **err);
void image_release(struct image *image);

/* All images by name. An image that cannot be read is left out, with a warning in the log. */
bool image_list(struct image **images, size_t *count, struct error **err);
void image_list_free(struct image *images, size_t count);

/* False and *err, which names the machine, when the disk of one stands on the image; `what` is what that is
 * in the way of. */
bool image_unused(const char *name, const char *what, struct error **err);

/* Refuses while disks of machines stand on it, unless `force`. */
bool image_remove(const char *name, bool force, struct error **err);

struct image_draft {
    char *name;
    char *dir;   /* absolute; whoever makes the image works in it */
    int lock_fd; /* held while the draft lives */
};

/* Starts a draft. Sweeps stale ones first. */
bool image_draft_begin(const char *name, struct image_draft *draft, struct error **err);
/*
 * Turns the draft, which must hold disk.qcow2, vmlinuz, initrd, cmdline and description, into the image, in
 * place of an earlier one of that name. On failure the draft remains to be discarded.
 */
bool image_draft_commit(struct image_draft *draft, const char *recipe_sha256, struct error **err);
/* Removes what a draft left; harmless after a commit. */
void image_draft_discard(struct image_draft *draft);

#endif
