/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Groups of transfers, and reading through a backing chain: see io.h. */
#include "block/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

/* One transfer in flight, with its part of the iovec list. */
struct io_piece {
    struct aio_op op;
    struct io_group *group;
    int ignore;
    struct iovec iov[];
};

void io_group_begin(struct io_group *g, struct block *block, void (*done)(struct io_group *g))
{
    g->block = block;
    g->pending = 1;
    g->result = 0;
    g->done = done;
}

void io_group_end(struct io_group *g)
{
    if (--g->pending == 0)
        g->done(g);
}

void io_group_fail(struct io_group *g, int error)
{
    if (!g->result)
        g->result = error;
}

static void piece_done(struct aio_op *op, int result)
{
    struct io_piece *p = CONTAINER_OF(op, struct io_piece, op);
    struct io_group *g = p->group;
    if (result < 0 && result != -p->ignore)
        io_group_fail(g, result);
    free(p);
    io_group_end(g);
}

static struct io_piece *piece_new(struct io_group *g, enum aio_kind kind, int fd, int iov_count)
{
    struct io_piece *p = malloc(sizeof(*p) + (size_t)iov_count * sizeof(struct iovec));
    if (!p) {
        io_group_fail(g, -ENOMEM);
        return NULL;
    }
    p->group = g;
    p->ignore = 0;
    p->op =
        (struct aio_op){.kind = kind, .fd = fd, .iov = p->iov, .iov_count = iov_count, .done = piece_done};
    return p;
}

/* Copies the slice's part of the list to `out` (NULL: only counts). Returns the number of entries. */
static int slice_iov(struct io_slice s, struct iovec *out)
{
    int n = 0;
    for (int i = 0; i < s.iov_count && s.length; i++) {
        uint64_t len = s.iov[i].iov_len;
        if (s.skip >= len) {
            s.skip -= len;
            continue;
        }
        uint64_t take = MIN(len - s.skip, s.length);
        if (out)
            out[n] = (struct iovec){(char *)s.iov[i].iov_base + s.skip, take};
        n++;
        s.skip = 0;
        s.length -= take;
    }
    return n;
}

void io_transfer(struct io_group *g, enum aio_kind kind, int fd, uint64_t offset, struct io_slice slice)
{
    int n = slice_iov(slice, NULL);
    struct io_piece *p = piece_new(g, kind, fd, n);
    if (!p)
        return;
    slice_iov(slice, p->iov);
    p->op.offset = offset;
    p->op.length = slice.length;
    g->pending++;
    aio_submit(g->block->aio, &p->op);
}

void io_command(struct io_group *g, enum aio_kind kind, int fd, uint64_t offset, uint64_t length, int ignore)
{
    struct io_piece *p = piece_new(g, kind, fd, 0);
    if (!p)
        return;
    p->op.offset = offset;
    p->op.length = length;
    p->ignore = ignore;
    g->pending++;
    aio_submit(g->block->aio, &p->op);
}

void io_slice_fill(struct io_slice s, const uint8_t *data)
{
    for (int i = 0; i < s.iov_count && s.length; i++) {
        uint64_t len = s.iov[i].iov_len;
        if (s.skip >= len) {
            s.skip -= len;
            continue;
        }
        uint64_t take = MIN(len - s.skip, s.length);
        char *to = (char *)s.iov[i].iov_base + s.skip;
        if (data)
            memcpy(to, data, take);
        else
            memset(to, 0, take);
        data = data ? data + take : NULL;
        s.skip = 0;
        s.length -= take;
    }
}

void io_slice_zero(struct io_slice s)
{
    io_slice_fill(s, NULL);
}

void io_read_layer(struct io_group *g, struct layer *layer, uint64_t offset, struct io_slice slice)
{
    while (slice.length) {
        struct extent e;
        int r = layer_map(layer, offset, slice.length, &e);
        struct io_slice part = slice;
        part.length = e.length;
        const uint8_t *data = NULL;
        if (r == 0 && e.kind == EXTENT_COMPRESSED)
            r = e.layer->ops->decompress(e.layer, e.entry, &data);
        if (r < 0) {
            io_group_fail(g, r);
            return;
        }
        switch (e.kind) {
        case EXTENT_ZERO:
            io_slice_zero(part);
            break;
        case EXTENT_DATA:
            io_transfer(g, AIO_READ, e.layer->fd, e.offset, part);
            break;
        case EXTENT_COMPRESSED:
            io_slice_fill(part, data + e.offset);
            break;
        }
        offset += e.length;
        slice.skip += e.length;
        slice.length -= e.length;
    }
}
