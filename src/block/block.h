/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk images: iovecs in, completions out. Nothing here knows guest memory or devices. A struct block is one
 * open image (with its backing chain); a format (raw, qcow2) is one file with one struct block_ops, listed in
 * src/block/meson.build.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct error;
struct loop;
struct block;
struct layer;

enum block_op {
    BLOCK_READ,
    BLOCK_WRITE,
    BLOCK_FLUSH,
    BLOCK_DISCARD,
    BLOCK_WRITE_ZEROES,
    BLOCK_CALL, /* the block layer's own: see block_int.h */
};

/*
 * One request. Owned by the submitter, untouched by it until `done` was called. `done` runs on the thread of
 * the loop given to block_open, with its lock held. result: 0, or a negative errno (-ENOSPC, -EIO, ...). A
 * write is acknowledged once it is in the image file (page cache); BLOCK_FLUSH makes every acknowledged write
 * durable.
 */
struct block_request {
    enum block_op op;
    bool may_unmap;    /* WRITE_ZEROES: holes are welcome */
    uint64_t offset;   /* bytes, multiple of 512 */
    uint64_t length;   /* bytes, multiple of 512; equals the sum of iov */
    struct iovec *iov; /* READ and WRITE */
    int iov_count;
    void (*done)(struct block_request *req, int result);
    void *opaque;
    struct block *block; /* set by block_submit */
    void *format_state;  /* for the format's use while in flight */
    struct block_request *next;
};

enum block_flags {
    BLOCK_READONLY = 1,
    BLOCK_NO_LOCK = 2,    /* only for read-only backing files and tools */
    BLOCK_NO_BACKING = 4, /* the caller puts the layer on what is open already */
    BLOCK_AWAY = 8,       /* another process writes it and will let go: see block_take */
};

struct block_info {
    const char *format;
    uint64_t size;      /* virtual, bytes */
    uint64_t allocated; /* bytes used on the host */
    bool readonly, dirty, corrupt;
    unsigned cluster_size; /* 0 when the format has none */
    const char *backing;   /* NULL: none; owned by the block */
    const char *path;
};

/*
 * Opens an image. `format` NULL probes (a raw image whose content looks like another format is opened as that
 * format only when `format` is NULL). Takes an OFD lock: shared for read-only, exclusive for writing; an
 * image in use is an error that says so. Directories, devices without the right, truncated or malformed
 * images, unknown incompatible features: refused with the reason. With BLOCK_AWAY an image that nobody has
 * open for writing is refused: it is not the one that another process has.
 */
struct block *block_open(const char *path, const char *format, unsigned flags, struct loop *loop,
                         struct error **err);

/* Completes or fails what is in flight, writes back metadata, closes. `block` may be NULL. */
void block_close(struct block *block);

/* Starts a request; any number in flight. Out-of-range or misaligned requests complete with -EINVAL. Loop
 * thread or lock held. */
void block_submit(struct block_request *req);

/* Waits (runs I/O, calls `done`s) until nothing is in flight. Lock held, loop thread or loop not running. */
void block_drain(struct block *block);

/* Grows or, where the format can, shrinks. Nothing in flight. */
bool block_resize(struct block *block, uint64_t size, struct error **err);

void block_get_info(const struct block *block, struct block_info *info);

/*
 * A new top for an image that is open for writing: a qcow2 overlay, made beforehand, whose backing file is
 * the image's file. Opening it touches nothing else. NULL and *err on failure. Lock held.
 */
struct layer *block_overlay_open(struct block *block, const char *path, struct error **err);
/* Gives up one that was not put. NULL is fine. */
void block_overlay_close(struct layer *overlay);
/*
 * Puts it on top: the file below is finished and from then on only read, so that others may read it as well.
 * On failure the image is as it was and the overlay still the caller's. Nothing in flight; lock held.
 */
bool block_overlay_put(struct block *block, struct layer *overlay, struct error **err);

/*
 * Dirty bitmaps: what was written, in units of some size, since the bitmap was made or cleared. They are kept
 * in the image while it is closed. An image that was not closed properly, or was written to by somebody who
 * does not know of them, has inconsistent ones, which can only be removed. *err says which bitmap of which
 * image and why. Lock held.
 */
#define BLOCK_BITMAP_NAME_MAX 1023
struct block_bitmap {
    char name[BLOCK_BITMAP_NAME_MAX + 1];
    uint64_t granularity; /* bytes */
    uint64_t dirty;       /* bytes of the disk */
    bool recording, inconsistent;
};

/* `granularity`: bytes, a power of two from 512 to 2 GiB. */
bool block_bitmap_add(struct block *block, const char *name, uint64_t granularity, struct error **err);
bool block_bitmap_remove(struct block *block, const char *name, struct error **err);
bool block_bitmap_clear(struct block *block, const char *name, struct error **err);
/* Whether it is there; and whether it can be used as well. */
bool block_bitmap_exists(struct block *block, const char *name, struct error **err);
bool block_bitmap_check(struct block *block, const char *name, struct error **err);
/* Number `index`; false when there is none. */
bool block_bitmap_info(struct block *block, unsigned index, struct block_bitmap *info);

/*
 * Handing an image over to another process, which opened it as BLOCK_AWAY: one lets go, the other takes. The
 * lock says who has it. Nothing in flight; lock held.
 *
 * Lets go of an image that is open for writing: what the format holds back is written and durable, the lock
 * free. Until it is taken again the image is away: it can be asked for its size and name only. On failure it
 * is as it was. One that is open for reading stays as it is.
 */
bool block_release(struct block *block, struct error **err);
/* Takes an image that is away: opens it anew for writing. On failure it stays away; ESTALE when it was let go
 * of by block_release and has been written to since. */
bool block_take(struct block *block, struct error **err);
bool block_is_away(const struct block *block);

/* Creates an image file (must not exist). backing may be NULL; backing_format is required with it. Removes
 * what it made on failure. */
bool block_create(const char *path, const char *format, uint64_t size, const char *backing,
                  const char *backing_format, struct error **err);

#endif
