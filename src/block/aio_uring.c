/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asynchronous file I/O by io_uring. Completions are announced through the owner's eventfd, which the ring is
 * given; requests gather in the submission queue until the owner reaps, so that one system call starts many.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/util.h"
#include "block/aio_int.h"

enum { RING_ENTRIES = 128 };

struct aio_ring {
    struct aio base;
    struct io_uring ring;
    unsigned queued;         /* in the submission queue, not yet given to the kernel */
    struct aio_op *overflow; /* found no place in the submission queue; last in, first out */
};

static void uring_close(struct aio *aio)
{
    struct aio_ring *r = CONTAINER_OF(aio, struct aio_ring, base);
    io_uring_queue_exit(&r->ring);
    free(r);
}

static struct aio *uring_open(int wake_fd, struct error **err)
{
    struct aio_ring *r = calloc(1, sizeof(*r));
    if (!r) {
        error_set_errno(err, ENOMEM, "cannot set up io_uring");
        return NULL;
    }
    r->base.impl = &aio_uring;
    int e = io_uring_queue_init(RING_ENTRIES, &r->ring, 0);
    if (e < 0) {
        error_set_errno(err, -e, "cannot set up io_uring");
        free(r);
        return NULL;
    }
    /* fallocate came with Linux 5.6, after io_uring itself; a completion must never be lost. */
    struct io_uring_probe *probe = io_uring_get_probe_ring(&r->ring);
    bool able = probe && io_uring_opcode_supported(probe, IORING_OP_FALLOCATE) &&
                (r->ring.features & IORING_FEAT_NODROP) && (r->ring.features & IORING_FEAT_SUBMIT_STABLE);
    io_uring_free_probe(probe);
    e = able ? io_uring_register_eventfd(&r->ring, wake_fd) : -ENOSYS;
    if (e < 0) {
        error_set_errno(err, -e, "cannot use io_uring");
        uring_close(&r->base);
        return NULL;
    }
    return &r->base;
}

static void fill(struct io_uring_sqe *sqe, struct aio_op *op)
{
    unsigned n = (unsigned)MIN(op->iov_count, AIO_IOV_MAX);
    switch (op->kind) {
    case AIO_READ:
        io_uring_prep_readv(sqe, op->fd, op->iov, n, op->offset);
        break;
    case AIO_WRITE:
        io_uring_prep_writev(sqe, op->fd, op->iov, n, op->offset);
        break;
    case AIO_DATASYNC:
        io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
        break;
    case AIO_PUNCH:
    case AIO_ZERO:
        io_uring_prep_fallocate(sqe, op->fd, aio_fallocate_mode(op), (off_t)op->offset, (off_t)op->length);
        break;
    }
    io_uring_sqe_set_data(sqe, op);
}

static void flush_queue(struct aio_ring *r)
{
    while (r->queued) {
        int n = io_uring_submit(&r->ring);
        if (n <= 0)
            break; /* out of resources just now: uring_reap tries again */
        r->queued -= MIN((unsigned)n, r->queued);
    }
}

static bool enqueue(struct aio_ring *r, struct aio_op *op)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);
    if (!sqe) {
        flush_queue(r);
        sqe = io_uring_get_sqe(&r->ring);
    }
    if (!sqe)
        return false;
    fill(sqe, op);
    r->queued++;
    return true;
}

static void uring_submit(struct aio *aio, struct aio_op *op)
{
    struct aio_ring *r = CONTAINER_OF(aio, struct aio_ring, base);
    if (!enqueue(r, op)) {
        op->next = r->overflow;
        r->overflow = op;
    }
}

static unsigned uring_reap(struct aio *aio)
{
    struct aio_ring *r = CONTAINER_OF(aio, struct aio_ring, base);
    struct io_uring_cqe *cqe;
    unsigned finished = 0;
    do {
        flush_queue(r);
        while (io_uring_peek_cqe(&r->ring, &cqe) == 0) {
            struct aio_op *op = io_uring_cqe_get_data(cqe);
            int n = cqe->res;
            io_uring_cqe_seen(&r->ring, cqe);
            if (!aio_advance(op, n)) {
                uring_submit(aio, op);
                continue;
            }
            finished++;
            op->done(op, op->result);
        }
        struct aio_op *again = r->overflow;
        r->overflow = NULL;
        while (again) {
            struct aio_op *next = again->next;
            uring_submit(aio, again);
            again = next;
        }
    } while (r->queued || r->overflow);
    return finished;
}

const struct aio_impl aio_uring = {
    .name = "io_uring",
    .open = uring_open,
    .close = uring_close,
    .submit = uring_submit,
    .reap = uring_reap,
};
