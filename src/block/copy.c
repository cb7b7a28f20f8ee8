/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies of an instant: see copy.h. `todo` has what nobody has begun to copy. A chunk is a run of it that is
 * on its way: looked up in the tables, read from the source, written to the target. A request that would
 * change either is held until neither is in its way; the parts that held requests wait for come before all
 * others. So a chunk is never read while somebody writes to it.
 *
 * The user of the disk comes first: while requests of his are in flight one chunk is copied at a time.
 */
#include "block/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "block/block_int.h"
#include "block/worker.h"
#include "os/loop.h"

enum { GRANULARITY = 16, BUSY_MAX = 8, BACKGROUND_MAX = 4 };

#define CHUNK_BYTES  MIB        /* of data */
#define LOOKUP_BYTES (64 * MIB) /* that may turn out to be zeroes, which need no copying */
#define NS_PER_S     1000000000ull

struct chunk {
    struct block_copy *copy;
    struct chunk *next;
    uint64_t offset, length, alike; /* bytes; `alike`: what look_up found */
    bool zero;
    uint8_t *data;
    struct iovec iov;
    struct block_call look;
    struct block_request req;
};

struct block_copy {
    struct block *source, *target;
    void (*done)(void *opaque, int result);
    void *opaque;
    char *bitmap;
    bool sparse; /* what the target lacks reads as zeroes */
    struct dirty_bits todo;
    uint64_t at; /* no bit of todo below it is set */
    struct chunk *busy;
    unsigned busy_count, reading; /* chunks; requests of ours on the source */
    struct block_request *held, **held_tail;
    unsigned held_count;
    uint64_t total, copied, speed;
    uint64_t not_before; /* when the next chunk may begin by itself, monotonic */
    struct loop_timer timer, end;
    struct block_request flush;
    int result;
    bool begun, flushing, ended;
};

static bool overlap(const struct chunk *k, const struct block_request *req)
{
    return k->offset < req->offset + req->length && req->offset < k->offset + k->length;
}

static bool in_the_way(const struct block_copy *c, const struct block_request *req)
{
    uint64_t offset, length;
    for (const struct chunk *k = c->busy; k; k = k->next)
        if (overlap(k, req))
            return true;
    return dirty_bits_next(&c->todo, req->offset, req->offset + req->length, &offset, &length);
}

/* Starts the held requests that nothing is in the way of any more. */
static void let_go(struct block_copy *c)
{
    struct block_request **link = &c->held;
    while (*link) {
        struct block_request *req = *link;
        if (c->result == 0 && in_the_way(c, req)) {
            link = &req->next;
            continue;
        }
        *link = req->next;
        c->held_count--;
        worker_push(c->source->worker, req);
    }
    c->held_tail = link;
}

/* --- chunks --- */

static void chunk_end(struct chunk *k, int result)
{
    struct block_copy *c = k->copy;
    struct chunk **link = &c->busy;
    while (*link != k)
        link = &(*link)->next;
    *link = k->next;
    c->busy_count--;
    c->copied += k->length;
    if (c->result == 0)
        c->result = result;
    free(k->data);
    free(k);
    copy_go_on(c);
}

static void written(struct block_request *req, int result)
{
    chunk_end(CONTAINER_OF(req, struct chunk, req), result);
}

static void write_chunk(struct chunk *k)
{
    struct block_copy *c = k->copy;
    if (c->result < 0 || (k->zero && c->sparse)) {
        chunk_end(k, 0);
        return;
    }
    k->iov = (struct iovec){k->data, k->length};
    k->req = (struct block_request){.op = k->zero ? BLOCK_WRITE_ZEROES : BLOCK_WRITE,
                                    .may_unmap = true,
                                    .offset = k->offset,
                                    .length = k->length,
                                    .iov = &k->iov,
                                    .iov_count = 1,
                                    .done = written,
                                    .block = c->target};
    block_submit(&k->req);
}

static bool is_zero(const uint8_t *data, uint64_t length)
{
    return data[0] == 0 && memcmp(data, data + 1, length - 1) == 0;
}

static void was_read(struct block_request *req, int result)
{
    struct chunk *k = CONTAINER_OF(req, struct chunk, req);
    k->copy->reading--;
    if (result < 0) {
        chunk_end(k, result);
        return;
    }
    k->zero = is_zero(k->data, k->length);
    write_chunk(k);
}

/* What is more than a chunk goes back. */
static void shorten(struct chunk *k, uint64_t length)
{
    struct block_copy *c = k->copy;
    if (length >= k->length)
        return;
    dirty_bits_set(&c->todo, k->offset + length, k->length - length);
    c->at = MIN(c->at, k->offset + length);
    k->length = length;
}

/* What is not alike goes back, in whole bits. */
static void keep_alike(struct chunk *k)
{
    uint64_t whole = round_down(k->alike, BIT(GRANULARITY));
    if (k->alike >= k->length)
        return;
    if (!whole) /* zeroes and data share its first bit */
        k->zero = false;
    shorten(k, MAX(whole, BIT(GRANULARITY)));
}

static void looked_up(struct block_request *req, int result)
{
    struct chunk *k = CONTAINER_OF(req, struct chunk, look.req);
    struct block_copy *c = k->copy;
    c->reading--;
    if (result == 0)
        keep_alike(k);
    if (result == 0 && !k->zero) {
        shorten(k, CHUNK_BYTES);
        k->data = malloc(k->length);
        result = k->data ? 0 : -ENOMEM;
    }
    if (result < 0 || c->result < 0) {
        chunk_end(k, result);
        return;
    }
    if (k->zero) {
        write_chunk(k);
        return;
    }
    if (c->speed)
        c->not_before = MAX(c->not_before, monotonic_ns()) +
                        (uint64_t)((double)k->length / (double)c->speed * (double)NS_PER_S);
    k->iov = (struct iovec){k->data, k->length};
    k->req = (struct block_request){.op = BLOCK_READ,
                                    .offset = k->offset,
                                    .length = k->length,
                                    .iov = &k->iov,
                                    .iov_count = 1,
                                    .done = was_read,
                                    .block = c->source};
    c->reading++;
    block_submit(&k->req);
}

/* On the I/O thread: as much of the chunk as is alike, zeroes or data. */
static int look_up(struct block *b, void *opaque)
{
    struct chunk *k = opaque;
    uint64_t n = 0;
    while (n < k->length) {
        struct extent e;
        int r = layer_map(b->top, k->offset + n, k->length - n, &e);
        if (r < 0)
            return r;
        bool zero = e.kind == EXTENT_ZERO;
        if (n && zero != k->zero)
            break;
        k->zero = zero;
        n += e.length;
    }
    k->alike = n;
    return 0;
}

/* Begins with a run of todo. False: no memory, and the copy fails. */
static bool start_chunk(struct block_copy *c, uint64_t offset, uint64_t length)
{
    struct chunk *k = calloc(1, sizeof(*k));
    if (!k) {
        c->result = -ENOMEM;
        return false;
    }
    *k = (struct chunk){.copy = c, .offset = offset, .length = MIN(length, LOOKUP_BYTES), .next = c->busy};
    c->busy = k;
    c->busy_count++;
    dirty_bits_clear(&c->todo, offset, k->length);
    k->look = (struct block_call){
        .req = {.op = BLOCK_CALL, .done = looked_up, .block = c->source}, .run = look_up, .opaque = k};
    c->reading++;
    block_submit(&k->look.req);
    return true;
}

/* --- what comes next --- */

/* The parts that held requests wait for. */
static void start_awaited(struct block_copy *c)
{
    uint64_t offset, length;
    for (const struct block_request *req = c->held; req; req = req->next)
        while (c->busy_count < BUSY_MAX &&
               dirty_bits_next(&c->todo, req->offset, req->offset + req->length, &offset, &length))
            if (!start_chunk(c, offset, MIN(length, CHUNK_BYTES)))
                return;
}

static bool may_start(struct block_copy *c)
{
    unsigned others = c->source->in_flight - c->held_count - c->reading;
    uint64_t now = monotonic_ns();
    if (c->busy_count >= (others ? 1 : BACKGROUND_MAX) || c->source->draining)
        return false;
    if (c->speed && now < c->not_before) {
        loop_timer_arm(&c->timer, c->not_before);
        return false;
    }
    return true;
}

/* True: nothing is left to be begun. */
static bool start_next(struct block_copy *c)
{
    uint64_t offset, length;
    while (dirty_bits_next(&c->todo, c->at, c->todo.size, &offset, &length)) {
        c->at = offset;
        if (!may_start(c) || !start_chunk(c, offset, length))
            return false;
        c->at = offset + MIN(length, LOOKUP_BYTES);
    }
    return true;
}

/* The rest comes when nobody works on copy or target any more. */
static void end(struct block_copy *c)
{
    c->ended = true;
    c->source->copy = NULL;
    loop_timer_arm(&c->end, 0);
}

static void flushed(struct block_request *req, int result)
{
    struct block_copy *c = CONTAINER_OF(req, struct block_copy, flush);
    c->flushing = false;
    if (c->result == 0)
        c->result = result;
    end(c);
}

void copy_go_on(struct block_copy *c)
{
    if (c->ended || c->flushing)
        return;
    let_go(c);
    if (c->result == 0)
        start_awaited(c);
    bool all = c->result < 0 || start_next(c);
    if (c->result < 0)
        let_go(c);
    if (!all || c->busy)
        return;
    if (c->result < 0) {
        end(c);
        return;
    }
    c->flushing = true;
    c->flush = (struct block_request){.op = BLOCK_FLUSH, .done = flushed, .block = c->target};
    block_submit(&c->flush);
}

bool copy_holds(struct block_copy *c, struct block_request *req)
{
    if (c->result < 0 || !in_the_way(c, req))
        return false;
    req->next = NULL;
    *c->held_tail = req;
    c->held_tail = &req->next;
    c->held_count++;
    copy_go_on(c);
    return true;
}

unsigned copy_held(const struct block_copy *c)
{
    return c->held_count;
}

void copy_push(struct block_copy *c)
{
    block_drain(c->target);
}

static void timer_fired(void *opaque)
{
    copy_go_on(opaque);
}

static void report_end(void *opaque)
{
    struct block_copy *c = opaque;
    block_close(c->target);
    c->target = NULL;
    c->done(c->opaque, c->result);
}

/* --- beginning and ending --- */

static bool check_target(const struct block_copy *c, const char *path, struct error **err)
{
    if (c->target->top->size == c->source->top->size)
        return true;
    return error_set(err, EINVAL, "cannot copy '%s' to '%s': their sizes differ", c->source->top->path, path),
           false;
}

struct block_copy *block_copy_open(const struct block_copy_order *o, struct error **err)
{
    struct block *source = o->source;
    if (source->copy)
        return error_set(err, EBUSY, "cannot copy '%s': it is being copied", source->top->path), NULL;
    if (o->bitmap && !block_bitmap_check(source, o->bitmap, err))
        return NULL;
    struct block_copy *c = calloc(1, sizeof(*c));
    if (!c || !dirty_bits_init(&c->todo, source->top->size, GRANULARITY) ||
        (o->bitmap && !(c->bitmap = strdup(o->bitmap)))) {
        error_set_errno(err, ENOMEM, "cannot copy '%s'", source->top->path);
        block_copy_free(c);
        return NULL;
    }
    c->source = source;
    c->done = o->done;
    c->opaque = o->opaque;
    c->speed = o->speed;
    c->held_tail = &c->held;
    c->target = block_open(o->target, "qcow2", 0, source->loop, err);
    if (!c->target || !check_target(c, o->target, err)) {
        block_copy_free(c);
        return NULL;
    }
    c->sparse = !c->target->top->backing;
    loop_timer_init(&c->timer, source->loop, timer_fired, c);
    loop_timer_init(&c->end, source->loop, report_end, c);
    return c;
}

void block_copy_begin(struct block_copy *c)
{
    c->begun = true;
    if (c->bitmap)
        c->result = block_bitmap_copy(c->source, c->bitmap, &c->todo);
    else
        dirty_bits_set(&c->todo, 0, c->todo.size);
    c->total = dirty_bits_bytes(&c->todo);
    c->source->copy = c;
    copy_go_on(c);
}

void block_copy_cancel(struct block_copy *c)
{
    if (c->result == 0)
        c->result = -ECANCELED;
    copy_go_on(c);
}

void block_copy_set_speed(struct block_copy *c, uint64_t speed)
{
    c->speed = speed;
    c->not_before = 0;
    copy_go_on(c);
}

void block_copy_progress(const struct block_copy *c, uint64_t *done, uint64_t *total)
{
    *done = c->copied;
    *total = c->total;
}

void block_copy_free(struct block_copy *c)
{
    if (!c)
        return;
    if (c->begun && !c->ended) {
        block_copy_cancel(c);
        while (!c->ended) {
            block_drain(c->source);
            if (!c->ended)
                block_drain(c->target);
        }
    }
    if (c->begun) {
        loop_timer_cancel(&c->timer);
        loop_timer_cancel(&c->end);
    }
    block_close(c->target);
    dirty_bits_free(&c->todo);
    free(c->bitmap);
    free(c);
}
