/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asynchronous file I/O by a pool of threads, for hosts that refuse io_uring. Threads start when there is
 * work for them. The mutex guards both lists; the system calls run outside of it and go through `sys`.
 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/error.h"
#include "base/util.h"
#include "block/aio_int.h"
#include "os/sys.h"

enum { POOL_MAX = 4 };

struct aio_pool {
    struct aio base;
    int wake_fd;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct aio_op *todo, **todo_tail;
    struct aio_op *finished, **finished_tail;
    pthread_t thread[POOL_MAX];
    unsigned threads, idle, waiting; /* started; sleeping; requests in todo */
    bool stop;
};

static ssize_t call(struct aio_op *op)
{
    int n = MIN(op->iov_count, AIO_IOV_MAX);
    ssize_t r = -1;
    switch (op->kind) {
    case AIO_READ:
        r = sys.preadv(op->fd, op->iov, n, (off_t)op->offset);
        break;
    case AIO_WRITE:
        r = sys.pwritev(op->fd, op->iov, n, (off_t)op->offset);
        break;
    case AIO_DATASYNC:
        r = sys.fdatasync(op->fd);
        break;
    case AIO_PUNCH:
    case AIO_ZERO:
        r = sys.fallocate(op->fd, aio_fallocate_mode(op), (off_t)op->offset, (off_t)op->length);
        break;
    }
    return r < 0 ? -errno : r;
}

static void *pool_thread(void *opaque)
{
    struct aio_pool *p = opaque;
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (!p->todo && !p->stop) {
            p->idle++;
            pthread_cond_wait(&p->work, &p->mutex);
            p->idle--;
        }
        struct aio_op *op = p->todo;
        if (!op)
            break;
        p->todo = op->next;
        if (!p->todo)
            p->todo_tail = &p->todo;
        p->waiting--;
        pthread_mutex_unlock(&p->mutex);
        while (!aio_advance(op, call(op)))
            ;
        pthread_mutex_lock(&p->mutex);
        op->next = NULL;
        bool first = !p->finished;
        *p->finished_tail = op;
        p->finished_tail = &op->next;
        if (first)
            eventfd_write(p->wake_fd, 1);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static void pool_close(struct aio *aio)
{
    struct aio_pool *p = CONTAINER_OF(aio, struct aio_pool, base);
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

static struct aio *pool_open(int wake_fd, struct error **err)
{
    struct aio_pool *p = calloc(1, sizeof(*p));
    if (!p) {
        error_set_errno(err, ENOMEM, "cannot make threads for disk I/O");
        return NULL;
    }
    p->base.impl = &aio_threads;
    p->wake_fd = wake_fd;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    p->todo_tail = &p->todo;
    p->finished_tail = &p->finished;
    /* The first thread now, so that a host that grants none is found here; the others when they are needed.
     */
    int e = pthread_create(&p->thread[0], NULL, pool_thread, p);
    if (e) {
        error_set_errno(err, e, "cannot make threads for disk I/O");
        pool_close(&p->base);
        return NULL;
    }
    p->threads = 1;
    return &p->base;
}

static void pool_submit(struct aio *aio, struct aio_op *op)
{
    struct aio_pool *p = CONTAINER_OF(aio, struct aio_pool, base);
    pthread_mutex_lock(&p->mutex);
    op->next = NULL;
    *p->todo_tail = op;
    p->todo_tail = &op->next;
    p->waiting++;
    if (p->idle)
        pthread_cond_signal(&p->work);
    if (p->waiting > p->idle && p->threads < POOL_MAX &&
        pthread_create(&p->thread[p->threads], NULL, pool_thread, p) == 0)
        p->threads++;
    pthread_mutex_unlock(&p->mutex);
}

static unsigned pool_reap(struct aio *aio)
{
    struct aio_pool *p = CONTAINER_OF(aio, struct aio_pool, base);
    pthread_mutex_lock(&p->mutex);
    struct aio_op *op = p->finished;
    p->finished = NULL;
    p->finished_tail = &p->finished;
    pthread_mutex_unlock(&p->mutex);
    unsigned n = 0;
    while (op) {
        struct aio_op *next = op->next;
        op->done(op, op->result);
        op = next;
        n++;
    }
    return n;
}

const struct aio_impl aio_threads = {
    .name = "threads",
    .open = pool_open,
    .close = pool_close,
    .submit = pool_submit,
    .reap = pool_reap,
};
