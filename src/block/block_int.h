/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the block layer. A struct block is what the user opened; a struct layer is one file of its backing
 * chain, the user's image on top. A format is a struct block_ops over layers.
 *
 * Threads: block_open, block_resize and block_close work on the layers while the block's I/O thread is not
 * running or idle; everything else that touches a layer runs on the I/O thread (worker.h), which therefore
 * needs no locks: metadata is read and written synchronously there, guest data goes through aio.
 */
#ifndef BLOCK_BLOCK_INT_H
#define BLOCK_BLOCK_INT_H

#include <sys/types.h>
#include <time.h>

#include "block/aio.h"
#include "block/block.h"
#include "block/dirty_bits.h"

struct bitmap_call;
struct layer;

enum extent_kind { EXTENT_ZERO, EXTENT_DATA, EXTENT_COMPRESSED };

/* Where a run of guest bytes is found. */
struct extent {
    enum extent_kind kind;
    struct layer *layer; /* DATA, COMPRESSED: whose file */
    uint64_t offset;     /* DATA: in the file. COMPRESSED: guest offset of the run within its cluster */
    uint64_t entry;      /* COMPRESSED: the table entry that says where the cluster is stored */
    uint64_t length;     /* bytes, > 0 */
};

struct block_ops {
    const char *name;

    /* Does the beginning of a file look like this format? */
    bool (*probe)(const uint8_t *head, size_t len);

    /*
     * The layer's file is open and locked. Checks everything that can be checked, sets size, cluster_size,
     * dirty, corrupt, backing_name and backing_format, and `format`. On failure nothing remains.
     */
    bool (*open)(struct layer *layer, struct error **err);

    /* The chain below is open; called before first use for writing (repairs a dirty image). NULL: nothing to
     * do. */
    bool (*open_for_write)(struct layer *layer, struct error **err);

    /*
     * Finds the bytes from `offset` on, at most `length`, both within the layer's size; goes down the chain
     * itself by layer_map. 0 or a negative errno.
     */
    int (*map)(struct layer *layer, uint64_t offset, uint64_t length, struct extent *out);

    /* Gives the whole decompressed cluster of a COMPRESSED extent, valid until the next call. NULL: has none.
     */
    int (*decompress)(struct layer *layer, uint64_t entry, const uint8_t **data);

    /* Starts WRITE, DISCARD or WRITE_ZEROES on the top layer; ends with block_complete. */
    void (*submit)(struct layer *layer, struct block_request *req);

    /* Starts READ; NULL: block_read_plain does. */
    void (*read)(struct layer *layer, struct block_request *req);

    /* Called after completions were handled: starts what had to wait. True when it did something. May be
     * NULL. */
    bool (*poll)(struct layer *layer);

    /* Writes back what is left, so that the file needs no change any more unless there are further writes. 0
     * or a negative errno. Nothing in flight. NULL: nothing is ever left. */
    int (*settle)(struct layer *layer);

    /* Dirty bitmaps (bitmap.c); the top layer, open for writing. NULL: the format has none. */
    int (*bitmap)(struct layer *layer, struct bitmap_call *call);

    /* `to`, which nobody has written to, has taken the place of `from`, which is settled: what the bitmaps
     * say goes on there. NULL: there are none. */
    void (*hand_over)(struct layer *from, struct layer *to);

    /* Nothing in flight. */
    bool (*resize)(struct layer *layer, uint64_t size, struct error **err);

    /* Writes back what is left and frees `format`. Nothing in flight. */
    void (*close)(struct layer *layer);

    /* Fills the new, empty file `fd`. backing may be NULL. NULL function: the format cannot be made. */
    bool (*create)(int fd, const char *path, uint64_t size, const char *backing, const char *backing_format,
                   struct error **err);
};

/* What is done with the dirty bitmaps of an image. 0 or a negative errno: -ENOENT, -EEXIST, -ESTALE for one
 * that is inconsistent. */
enum bitmap_action { BITMAP_ADD, BITMAP_REMOVE, BITMAP_CLEAR, BITMAP_COPY, BITMAP_INFO, BITMAP_FIND };

struct bitmap_call {
    enum bitmap_action action;
    const char *name;        /* of all but INFO */
    unsigned granularity;    /* of ADD, log2 of bytes */
    struct dirty_bits *bits; /* of COPY: gets those of the bitmap added; NULL: only looks whether it could */
    unsigned index;          /* of INFO */
    struct block_bitmap *info; /* of INFO, filled in */
};

extern const struct block_ops raw_ops;
extern const struct block_ops qcow2_ops;

struct layer {
    const struct block_ops *ops;
    void *format; /* the format's own */
    struct block *block;
    char *path;
    int fd;
    bool readonly;
    bool probed; /* the format was guessed from the content */
    bool dirty, corrupt;
    uint64_t size;         /* guest bytes */
    unsigned cluster_size; /* 0: none */
    char *backing_name;    /* as written in the image; owned; NULL: none */
    char *backing_format;  /* owned; NULL: not said */
    struct layer *backing, *above;
    dev_t dev; /* with ino: which file this is */
    ino_t ino;
};

/* Offsets are off_t for the host. */
#define BLOCK_SIZE_MAX ((uint64_t)INT64_MAX & ~(uint64_t)511)

/* A chain longer than this is refused. */
#define BLOCK_CHAIN_MAX 64

struct block_copy;

struct block {
    struct layer *top;
    struct loop *loop;
    int done_fd;        /* eventfd: the I/O thread finished requests; watched by the loop */
    unsigned in_flight; /* submitted, `done` not called; under the loop's lock */
    struct worker *worker;
    struct aio *aio;         /* the worker's; I/O thread only */
    struct block_copy *copy; /* is being made of it; NULL: none. Under the loop's lock */
    unsigned draining;       /* block_drain is at work. Under the loop's lock */
    bool broken;             /* metadata was found damaged: no more writes. I/O thread only */
    bool away;               /* another process has it: the top only stands in */
    struct timespec left;    /* the time of the last write when it was let go of; 0: not by this process */
};

/* layer.c: opens one file and, below it, its backing files. `above` is the layer it backs, NULL for the top.
 */
struct layer *layer_open(struct block *block, const char *path, const char *format, unsigned flags,
                         struct layer *above, struct error **err);
void layer_close(struct layer *layer);
/* The format of that name; NULL: unknown. */
const struct block_ops *block_format_find(const char *name);
/* Calls the format's open_for_write where there is one. */
bool layer_open_for_write(struct layer *layer, struct error **err);
/* Maps through the chain; past the end of `layer` there are zeroes. */
int layer_map(struct layer *layer, uint64_t offset, uint64_t length, struct extent *out);
/* The name of a backing file as seen from where `path` lies; owned by the caller. NULL and *err when it is
 * not a file name. */
char *layer_backing_path(const char *path, const char *name, struct error **err);

/* lock.c: takes the image lock on fd. */
bool image_lock(int fd, const char *path, bool readonly, struct error **err);
/* Keeps of a lock for writing what one for reading is. */
void image_lock_to_readonly(int fd);

/*
 * Runs `run` on the I/O thread and waits for it, meanwhile also for other requests that happen to finish. Its
 * result. Lock held, loop thread or loop not running.
 */
struct block_call {
    struct block_request req; /* block_call's own */
    int (*run)(struct block *block, void *opaque);
    void *opaque;
    int result;
    bool done;
};
int block_call(struct block *block, int (*run)(struct block *block, void *opaque), void *opaque);

/* copy.c: takes a request that changes what is still to be copied, and starts it later; false: it may start
 * now. */
bool copy_holds(struct block_copy *copy, struct block_request *req);
/* How many it has taken and not started. */
unsigned copy_held(const struct block_copy *copy);
/* Waits until some of what is on its way to the copy is there, when nothing else is going on. */
void copy_push(struct block_copy *copy);
/* The block has been drained: copying goes on. */
void copy_go_on(struct block_copy *copy);

/* bitmap.c: adds the bits of a bitmap; 0 or a negative errno. Lock held. */
int block_bitmap_copy(struct block *block, const char *name, struct dirty_bits *bits);

/* Whether somebody else has the file open for writing, as far as locks tell. */
bool image_is_written(int fd);

/* worker.c: hands a finished request back to the loop's thread. I/O thread. */
void block_complete(struct block_request *req, int result);

/* Whole synchronous transfers through `sys`: 0 or a negative errno. Reads past the end of the file give
 * zeroes. */
int file_read(int fd, void *buf, uint64_t len, uint64_t offset);
int file_write(int fd, const void *buf, uint64_t len, uint64_t offset);

/*
 * A regular file that was deleted while open, such as an overlay that is thrown away: whether it survives a
 * failing host is nobody's business, so nothing waits for the disk.
 */
bool file_is_nameless(int fd);

/* Zeroes to write from: one block of read-only memory, ZERO_BLOCK bytes. */
#define ZERO_BLOCK 65536u
extern const uint8_t zero_block[ZERO_BLOCK];

#endif
