/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying what a disk holds at one instant to another image, while whoever uses the disk goes on: what is
 * about to be changed is copied first, and the change waits for that. Everything here is called, and calls,
 * on the thread of the source's loop with its lock held.
 */
#ifndef BLOCK_COPY_H
#define BLOCK_COPY_H

#include <stdbool.h>
#include <stdint.h>

struct block;
struct block_copy;
struct error;

struct block_copy_order {
    struct block *source; /* has a loop; outlives the copy */
    const char *target;   /* a qcow2 image of the source's size, made beforehand, that nobody uses */
    const char *bitmap;   /* only what this bitmap of the source says at that instant; NULL: everything */
    uint64_t speed;       /* bytes a second that are copied unless a change waits for them; 0: no limit */
    /* The end: 0, -ECANCELED, or what went wrong as a negative errno. The target is closed, and durable if 0.
     * block_copy_free is due, and may be called from here. */
    void (*done)(void *opaque, int result);
    void *opaque;
};

/* Opens the target and gets all memory; the strings need not stay. NULL and *err on failure, such as a source
 * of which another copy is being made. */
struct block_copy *block_copy_open(const struct block_copy_order *order, struct error **err);
/* The instant. The source has just been drained, and nothing was submitted since. */
void block_copy_begin(struct block_copy *copy);
void block_copy_cancel(struct block_copy *copy);
void block_copy_set_speed(struct block_copy *copy, uint64_t speed);
/* Bytes of the disk that are to be copied, and that have been. */
void block_copy_progress(const struct block_copy *copy, uint64_t *done, uint64_t *total);
/* At once, whatever is in flight; `done` is not called any more. NULL is fine. */
void block_copy_free(struct block_copy *copy);

#endif
