/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Asynchronous file I/O: the choice of implementation, and what both have in common. */
#include "block/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "block/aio_int.h"

static enum aio_backend selected = AIO_BACKEND_AUTO;

void aio_select(enum aio_backend backend)
{
    selected = backend;
}

struct aio *aio_new(int wake_fd, struct error **err)
{
    struct aio *aio;
    if (selected == AIO_BACKEND_THREADS)
        return aio_threads.open(wake_fd, err);
    if (selected == AIO_BACKEND_URING)
        return aio_uring.open(wake_fd, err);
    struct error *refused = NULL;
    aio = aio_uring.open(wake_fd, &refused);
    if (aio)
        return aio;
    log_line(LOG_INFO, "%s: using threads for disk I/O", error_text(refused));
    error_free(refused);
    return aio_threads.open(wake_fd, err);
}

void aio_free(struct aio *aio)
{
    if (aio)
        aio->impl->close(aio);
}

const char *aio_name(const struct aio *aio)
{
    return aio->impl->name;
}

void aio_submit(struct aio *aio, struct aio_op *op)
{
    aio->impl->submit(aio, op);
}

unsigned aio_reap(struct aio *aio)
{
    return aio->impl->reap(aio);
}

int aio_fallocate_mode(const struct aio_op *op)
{
    return FALLOC_FL_KEEP_SIZE | (op->kind == AIO_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

static void skip_bytes(struct aio_op *op, size_t n)
{
    op->offset += n;
    op->length -= n;
    while (op->iov_count && n >= op->iov->iov_len) {
        n -= op->iov->iov_len;
        op->iov++;
        op->iov_count--;
    }
    if (n) {
        op->iov->iov_base = (char *)op->iov->iov_base + n;
        op->iov->iov_len -= n;
    }
}

bool aio_advance(struct aio_op *op, ssize_t n)
{
    if (n < 0) {
        if (n == -EINTR || n == -EAGAIN)
            return false;
        op->result = (int)n;
        return true;
    }
    op->result = 0;
    if (op->kind != AIO_READ && op->kind != AIO_WRITE)
        return true;
    if (n == 0 && op->length) {
        if (op->kind == AIO_WRITE) {
            op->result = -EIO;
            return true;
        }
        for (int i = 0; i < op->iov_count; i++)
            memset(op->iov[i].iov_base, 0, op->iov[i].iov_len);
        return true;
    }
    skip_bytes(op, (size_t)n);
    return op->length == 0;
}
