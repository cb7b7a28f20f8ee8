/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Open images as their users see them: see block.h. */
#include "block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "block/block_int.h"
#include "block/worker.h"
#include "os/loop.h"
#include "os/sys.h"

/* Calls `done` of everything that has finished. True when there was something. */
static bool deliver(struct block *b)
{
    int result;
    struct block_request *req;
    bool any = false;
    while ((req = worker_pop_done(b->worker, &result))) {
        any = true;
        b->in_flight--;
        req->done(req, result);
    }
    return any;
}

static void done_event(void *opaque, int fd, uint32_t events)
{
    eventfd_t count;
    (void)events;
    eventfd_read(fd, &count);
    deliver(opaque);
}

static bool watch(struct block *b, struct loop *loop, struct error **err)
{
    b->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (b->done_fd < 0) {
        error_set_errno(err, errno, "cannot make an eventfd");
        return false;
    }
    if (loop && !loop_fd_add(loop, b->done_fd, EPOLLIN, done_event, b, err))
        return false;
    b->loop = loop;
    return true;
}

struct block *block_open(const char *path, const char *format, unsigned flags, struct loop *loop,
                         struct error **err)
{
    struct block *b = calloc(1, sizeof(*b));
    if (!b) {
        error_set_errno(err, ENOMEM, "cannot open '%s'", path);
        return NULL;
    }
    b->done_fd = -1;
    b->away = flags & BLOCK_AWAY;
    if (b->away)
        flags |= BLOCK_READONLY | BLOCK_NO_LOCK;
    b->top = layer_open(b, path, format, flags, NULL, err);
    if (!b->top)
        goto fail;
    if (b->away && !image_is_written(b->top->fd)) {
        error_set(err, ESTALE,
                  "nobody has '%s' open for writing: it is another file, or its lock is not seen here", path);
        goto fail;
    }
    if (!b->top->readonly && !layer_open_for_write(b->top, err))
        goto fail;
    if (!watch(b, loop, err))
        goto fail;
    b->worker = worker_new(b, err);
    if (!b->worker)
        goto fail;
    return b;

fail:
    block_close(b);
    return NULL;
}

void block_close(struct block *b)
{
    if (!b)
        return;
    if (b->worker)
        block_drain(b);
    worker_free(b->worker);
    if (b->loop)
        loop_fd_remove(b->loop, b->done_fd);
    if (b->done_fd >= 0)
        close(b->done_fd);
    layer_close(b->top);
    free(b);
}

static bool without_range(const struct block_request *req)
{
    return req->op == BLOCK_FLUSH || req->op == BLOCK_CALL;
}

/* 0, or why the request cannot be: a negative errno. */
static int check_request(const struct block *b, const struct block_request *req)
{
    if (without_range(req))
        return 0;
    if ((req->offset | req->length) & 511)
        return -EINVAL;
    if (!range_fits(req->offset, req->length, b->top->size))
        return -EINVAL;
    if (req->op != BLOCK_READ && b->top->readonly)
        return -EROFS;
    if (b->away)
        return -EBUSY;
    if (req->op == BLOCK_READ || req->op == BLOCK_WRITE) {
        uint64_t sum = 0;
        for (int i = 0; i < req->iov_count; i++) {
            if (req->iov[i].iov_len > req->length - sum)
                return -EINVAL;
            sum += req->iov[i].iov_len;
        }
        if (sum != req->length)
            return -EINVAL;
    }
    return 0;
}

void block_submit(struct block_request *req)
{
    struct block *b = req->block;
    int r = check_request(b, req);
    b->in_flight++;
    if (r < 0 || (!without_range(req) && req->length == 0))
        block_complete(req, r);
    else if (!b->copy || req->op == BLOCK_READ || without_range(req) || !copy_holds(b->copy, req))
        worker_push(b->worker, req);
}

void block_drain(struct block *b)
{
    b->draining++;
    while (b->in_flight) {
        if (b->copy && copy_held(b->copy) == b->in_flight) {
            copy_push(b->copy);
            continue;
        }
        worker_wait_done(b->worker);
        deliver(b);
    }
    b->draining--;
    if (b->copy && !b->draining)
        copy_go_on(b->copy);
}

static void call_done(struct block_request *req, int result)
{
    struct block_call *call = CONTAINER_OF(req, struct block_call, req);
    call->result = result;
    call->done = true;
}

int block_call(struct block *b, int (*run)(struct block *block, void *opaque), void *opaque)
{
    struct block_call call = {
        .req = {.op = BLOCK_CALL, .done = call_done, .block = b}, .run = run, .opaque = opaque};
    block_submit(&call.req);
    while (!call.done) {
        worker_wait_done(b->worker);
        deliver(b);
    }
    return call.result;
}

static void sync_done(struct block_request *req, int result)
{
    *(int *)req->opaque = result;
}

/* What a grown image shows in its new part must be zeroes, whatever backing files or old clusters hold there.
 */
static bool zero_range(struct block *b, uint64_t from, uint64_t to, struct error **err)
{
    int result = 0;
    struct block_request req = {
        .op = BLOCK_WRITE_ZEROES, .may_unmap = true, .offset = from, .length = to - from, .done = sync_done};
    req.opaque = &result;
    req.block = b;
    block_submit(&req);
    block_drain(b);
    if (result < 0)
        error_set_errno(err, -result, "cannot clear the new part of '%s'", b->top->path);
    return result == 0;
}

bool block_resize(struct block *b, uint64_t size, struct error **err)
{
    struct layer *top = b->top;
    if (top->readonly || b->copy) {
        error_set(err, top->readonly ? EROFS : EBUSY, "cannot resize '%s': it is %s", top->path,
                  top->readonly ? "open read-only" : "being copied");
        return false;
    }
    if (size == 0 || size & 511 || size > BLOCK_SIZE_MAX) {
        error_set(err, EINVAL,
                  "cannot resize '%s': the size must be a multiple of 512 bytes, not zero and below 8 EiB",
                  top->path);
        return false;
    }
    uint64_t old = top->size;
    if (!top->ops->resize(top, size, err))
        return false;
    uint64_t end = old + (top->cluster_size ? top->cluster_size : 0);
    if (top->backing)
        end = MAX(end, top->backing->size);
    end = MIN(end, size);
    return !top->cluster_size || end <= old || zero_range(b, old, end, err);
}

void block_get_info(const struct block *b, struct block_info *info)
{
    const struct layer *top = b->top;
    struct stat st;
    *info = (struct block_info){
        .format = top->ops->name,
        .size = top->size,
        .readonly = top->readonly && !b->away,
        .dirty = top->dirty,
        .corrupt = top->corrupt,
        .cluster_size = top->cluster_size,
        .backing = top->backing_name,
        .path = top->path,
    };
    if (fstat(top->fd, &st) == 0)
        info->allocated = (uint64_t)st.st_blocks * 512;
}

/* A backing file must be there and be what it is said to be; its size is what an overlay without one of its
 * own gets. */
static bool check_backing(const char *path, const char *backing, const char *backing_format, uint64_t *size,
                          struct error **err)
{
    if (!backing_format) {
        error_set(err, EINVAL, "cannot make '%s': the format of backing file '%s' must be said", path,
                  backing);
        return false;
    }
    cleanup(mem) char *name = layer_backing_path(path, backing, err);
    if (!name)
        return false;
    struct error *e = NULL;
    struct layer *l = layer_open(NULL, name, backing_format, BLOCK_READONLY, NULL, &e);
    error_prefix(err, e, "cannot make '%s'", path);
    if (!l)
        return false;
    if (*size == 0)
        *size = l->size;
    layer_close(l);
    return true;
}

bool block_create(const char *path, const char *format, uint64_t size, const char *backing,
                  const char *backing_format, struct error **err)
{
    const struct block_ops *ops = block_format_find(format);
    if (!ops) {
        error_set(err, EINVAL, "cannot make '%s': unknown image format '%s'", path, format);
        return false;
    }
    if (backing && !check_backing(path, backing, backing_format, &size, err))
        return false;
    if (size == 0 || size & 511 || size > BLOCK_SIZE_MAX) {
        error_set(err, EINVAL,
                  "cannot make '%s': the size must be a multiple of 512 bytes, not zero and below 8 EiB",
                  path);
        return false;
    }
    int fd = sys.open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        error_set_errno(err, errno, "cannot make disk image '%s'", path);
        return false;
    }
    bool ok = ops->create(fd, path, size, backing, backing_format, err);
    if (sys.close(fd) < 0 && ok) {
        error_set_errno(err, errno, "cannot make disk image '%s'", path);
        ok = false;
    }
    if (!ok)
        sys.unlink(path);
    return ok;
}
