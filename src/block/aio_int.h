/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the implementations of aio.h share. */
#ifndef BLOCK_AIO_INT_H
#define BLOCK_AIO_INT_H

#include <sys/types.h>

#include "block/aio.h"

struct aio_impl {
    const char *name;
    struct aio *(*open)(int wake_fd, struct error **err);
    void (*close)(struct aio *aio);
    void (*submit)(struct aio *aio, struct aio_op *op);
    unsigned (*reap)(struct aio *aio);
};

struct aio {
    const struct aio_impl *impl;
};

extern const struct aio_impl aio_uring;
extern const struct aio_impl aio_threads;

/* A transfer takes at most this many iovecs at once (IOV_MAX). */
#define AIO_IOV_MAX 1024

/*
 * Takes the outcome `n` (bytes or negative errno) of one system call into account. True: the request is
 * finished and op->result is set. False: the remainder is to be issued again.
 */
bool aio_advance(struct aio_op *op, ssize_t n);

/* fallocate's mode of a PUNCH or ZERO request. */
int aio_fallocate_mode(const struct aio_op *op);

#endif
