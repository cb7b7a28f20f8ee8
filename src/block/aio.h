/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asynchronous file I/O for one I/O thread: requests go to io_uring, or, where the kernel refuses io_uring
 * (containers, seccomp, old kernels), to a small pool of threads. Whoever owns an aio calls everything from
 * one thread. Transfers are whole: a short read continues, and gives zeroes past the end of the file; a short
 * write continues.
 */
#ifndef BLOCK_AIO_H
#define BLOCK_AIO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct error;
struct aio;

enum aio_kind {
    AIO_READ,
    AIO_WRITE,
    AIO_DATASYNC,
    AIO_PUNCH, /* deallocates; reads as zeroes afterwards */
    AIO_ZERO,  /* zeroes, space stays allocated */
};

/* One request. Owned by the caller, untouched by it from aio_submit until `done` is called. */
struct aio_op {
    enum aio_kind kind;
    int fd;
    uint64_t offset, length; /* bytes; length equals the sum of iov for transfers */
    struct iovec *iov;       /* consumed: entries are changed as the transfer advances */
    int iov_count;
    /* Called from aio_reap; result is 0 or a negative errno. */
    void (*done)(struct aio_op *op, int result);
    int result; /* for the implementation's use while in flight */
    struct aio_op *next;
};

enum aio_backend { AIO_BACKEND_AUTO, AIO_BACKEND_URING, AIO_BACKEND_THREADS };

/*
 * Which implementation later aio_new calls take. AUTO, the default: io_uring where the kernel grants it. The
 * thread pool is the one whose calls go through `sys`, so that tests inject faults.
 */
void aio_select(enum aio_backend backend);

/* `wake_fd` is an eventfd that becomes readable when aio_reap has something to do. It is not owned. */
struct aio *aio_new(int wake_fd, struct error **err);
/* Nothing is in flight. `aio` may be NULL. */
void aio_free(struct aio *aio);
/* "io_uring" or "threads". */
const char *aio_name(const struct aio *aio);

/* Queues a request; it starts at the latest with the next aio_reap. */
void aio_submit(struct aio *aio, struct aio_op *op);
/* Starts what is queued and calls `done` of what has finished; returns how many did. Never blocks. */
unsigned aio_reap(struct aio *aio);

#endif
