/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Groups of transfers: a request becomes any number of file transfers, and the group tells when all of them
 * are done. I/O thread only.
 */
#ifndef BLOCK_IO_H
#define BLOCK_IO_H

#include "block/block_int.h"

struct io_group {
    struct block *block;
    unsigned pending;
    int result; /* 0, or the first error */
    void (*done)(struct io_group *g);
};

/* Opens the group: `done` is not called before io_group_end. */
void io_group_begin(struct io_group *g, struct block *block, void (*done)(struct io_group *g));
/* Everything was added. Calls `done` at once when nothing is in flight. */
void io_group_end(struct io_group *g);
/* Notes a failure. */
void io_group_fail(struct io_group *g, int error);

/* A run of bytes within an iovec list. */
struct io_slice {
    const struct iovec *iov;
    int iov_count;
    uint64_t skip; /* bytes of the list before the run */
    uint64_t length;
};

/* Reads guest bytes [offset, offset + slice.length) of the layer's chain into the slice. */
void io_read_layer(struct io_group *g, struct layer *layer, uint64_t offset, struct io_slice slice);
/* One transfer between a file and a slice, whose buffers (not its iovec array) stay valid until the group is
 * done. */
void io_transfer(struct io_group *g, enum aio_kind kind, int fd, uint64_t offset, struct io_slice slice);
/* DATASYNC, PUNCH, ZERO. `ignore` is an errno that counts as success (0: none). */
void io_command(struct io_group *g, enum aio_kind kind, int fd, uint64_t offset, uint64_t length, int ignore);

void io_slice_zero(struct io_slice slice);
void io_slice_fill(struct io_slice slice, const uint8_t *data);

#endif
