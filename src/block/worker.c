/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The I/O thread of an open block. One eventfd wakes it for new requests and for aio completions alike; the
 * mutex guards the two request lists. A request that is done keeps its result in format_state.
 */
#include "block/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "block/io.h"

struct request_list {
    struct block_request *head, **tail;
};

struct worker {
    struct block *block;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t finished;
    struct request_list todo, done;
    int wake_fd;
    bool asleep; /* or about to be: a push must write wake_fd */
    bool stop;
};

static void list_init(struct request_list *l)
{
    l->head = NULL;
    l->tail = &l->head;
}

static void list_push(struct request_list *l, struct block_request *req)
{
    req->next = NULL;
    *l->tail = req;
    l->tail = &req->next;
}

static struct block_request *list_take_all(struct request_list *l)
{
    struct block_request *head = l->head;
    list_init(l);
    return head;
}

void block_complete(struct block_request *req, int result)
{
    struct worker *w = req->block->worker;
    req->format_state = (void *)(intptr_t)result;
    pthread_mutex_lock(&w->mutex);
    bool first = !w->done.head;
    list_push(&w->done, req);
    if (first)
        pthread_cond_signal(&w->finished);
    pthread_mutex_unlock(&w->mutex);
    if (first)
        eventfd_write(w->block->done_fd, 1);
}

/* A request served by one group of transfers. */
struct simple_io {
    struct io_group group;
    struct block_request *req;
};

static void simple_done(struct io_group *g)
{
    struct simple_io *s = (struct simple_io *)(void *)g;
    struct block_request *req = s->req;
    int result = g->result;
    free(s);
    block_complete(req, result);
}

static void start_simple(struct block *b, struct block_request *req)
{
    struct simple_io *s = malloc(sizeof(*s));
    if (!s) {
        block_complete(req, -ENOMEM);
        return;
    }
    s->req = req;
    io_group_begin(&s->group, b, simple_done);
    if (req->op == BLOCK_READ)
        io_read_layer(&s->group, b->top, req->offset,
                      (struct io_slice){.iov = req->iov, .iov_count = req->iov_count, .length = req->length});
    else if (!b->top->readonly && !file_is_nameless(b->top->fd))
        io_command(&s->group, AIO_DATASYNC, b->top->fd, 0, 0, 0);
    io_group_end(&s->group);
}

static void run_call(struct block *b, struct block_request *req)
{
    struct block_call *call = CONTAINER_OF(req, struct block_call, req);
    block_complete(req, call->run(b, call->opaque));
}

static void start(struct block *b, struct block_request *req)
{
    struct layer *top = b->top;
    if (req->op == BLOCK_READ && top->ops->read)
        top->ops->read(top, req);
    else if (req->op == BLOCK_READ || req->op == BLOCK_FLUSH)
        start_simple(b, req);
    else if (req->op == BLOCK_CALL)
        run_call(b, req);
    else if (b->broken)
        block_complete(req, -EIO);
    else
        top->ops->submit(top, req);
}

/* Gives new requests; sleeps when there are none and nothing was `busy`. NULL with *stop set at the end. */
static struct block_request *next_requests(struct worker *w, bool busy, bool *stop)
{
    pthread_mutex_lock(&w->mutex);
    w->asleep = !w->todo.head && !busy && !w->stop;
    *stop = w->stop;
    bool sleep = w->asleep;
    struct block_request *reqs = list_take_all(&w->todo);
    pthread_mutex_unlock(&w->mutex);
    if (!sleep)
        return reqs;
    eventfd_t count;
    eventfd_read(w->wake_fd, &count);
    pthread_mutex_lock(&w->mutex);
    w->asleep = false;
    reqs = list_take_all(&w->todo);
    pthread_mutex_unlock(&w->mutex);
    return reqs;
}

static void *worker_thread(void *opaque)
{
    struct worker *w = opaque;
    struct block *b = w->block;
    pthread_setname_np(pthread_self(), "block");
    bool busy = false, stop = false;
    for (;;) {
        struct block_request *req = next_requests(w, busy, &stop);
        if (stop)
            break;
        busy = req != NULL;
        while (req) {
            struct block_request *next = req->next;
            start(b, req);
            req = next;
        }
        if (aio_reap(b->aio))
            busy = true;
        if (b->top->ops->poll && b->top->ops->poll(b->top))
            busy = true;
    }
    return NULL;
}

static bool start_thread(struct worker *w, struct error **err)
{
    /* Signals are for the main thread. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int e = pthread_create(&w->thread, NULL, worker_thread, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (e)
        error_set_errno(err, e, "cannot start a thread for disk I/O");
    return e == 0;
}

struct worker *worker_new(struct block *block, struct error **err)
{
    struct worker *w = calloc(1, sizeof(*w));
    if (!w) {
        error_set_errno(err, ENOMEM, "cannot start a thread for disk I/O");
        return NULL;
    }
    w->block = block;
    list_init(&w->todo);
    list_init(&w->done);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->finished, NULL);
    w->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (w->wake_fd < 0) {
        error_set_errno(err, errno, "cannot make an eventfd");
        goto no_fd;
    }
    block->aio = aio_new(w->wake_fd, err);
    if (!block->aio)
        goto no_aio;
    if (!start_thread(w, err))
        goto no_thread;
    return w;

no_thread:
    aio_free(block->aio);
    block->aio = NULL;
no_aio:
    close(w->wake_fd);
no_fd:
    pthread_cond_destroy(&w->finished);
    pthread_mutex_destroy(&w->mutex);
    free(w);
    return NULL;
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    w->stop = true;
    pthread_mutex_unlock(&w->mutex);
    eventfd_write(w->wake_fd, 1);
    pthread_join(w->thread, NULL);
    aio_free(w->block->aio);
    w->block->aio = NULL;
    close(w->wake_fd);
    pthread_cond_destroy(&w->finished);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

void worker_push(struct worker *w, struct block_request *req)
{
    pthread_mutex_lock(&w->mutex);
    list_push(&w->todo, req);
    bool wake = w->asleep;
    w->asleep = false;
    pthread_mutex_unlock(&w->mutex);
    if (wake)
        eventfd_write(w->wake_fd, 1);
}

struct block_request *worker_pop_done(struct worker *w, int *result)
{
    pthread_mutex_lock(&w->mutex);
    struct block_request *req = w->done.head;
    if (req) {
        w->done.head = req->next;
        if (!w->done.head)
            list_init(&w->done);
    }
    pthread_mutex_unlock(&w->mutex);
    if (req)
        *result = (int)(intptr_t)req->format_state;
    return req;
}

void worker_wait_done(struct worker *w)
{
    pthread_mutex_lock(&w->mutex);
    while (!w->done.head)
        pthread_cond_wait(&w->finished, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
}
