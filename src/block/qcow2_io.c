/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests to a qcow2 image, and the order among them. Each request locks the clusters it touches: shared
 * when it reads or writes data in place, exclusive when it changes where data lies. What cannot have its lock
 * waits, and does not overtake an earlier waiting request for the same clusters.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/qcow2.h"

/* A cluster that a discard freed, kept from use while the hole is punched. */
struct held {
    struct reservation reservation;
    struct held *next;
};

struct qcow2_op {
    struct block_request *req;
    struct qcow2 *q;
    uint64_t start, end; /* guest bytes, whole clusters */
    bool exclusive;
    uint64_t at, stop; /* DISCARD and WRITE_ZEROES: what is left to do */
    struct io_group group;
    struct qcow2_write write;
    struct iovec *zeroes; /* for writing zeroes by hand */
    struct held *held;
    struct qcow2_op *next, **prev;
};

static void op_finish(struct qcow2_op *op, int result)
{
    struct qcow2 *q = op->q;
    *op->prev = op->next;
    if (op->next)
        op->next->prev = op->prev;
    q->recheck = true;
    block_complete(op->req, result);
    free(op->zeroes);
    free(op);
}

static void read_done(struct io_group *g)
{
    op_finish(CONTAINER_OF(g, struct qcow2_op, group), g->result);
}

static struct io_slice whole(const struct block_request *req)
{
    return (struct io_slice){.iov = req->iov, .iov_count = req->iov_count, .length = req->length};
}

static void write_done(struct qcow2_write *w, int result)
{
    op_finish(CONTAINER_OF(w, struct qcow2_op, write), result);
}

/* --- Zeroes and discards. --- */

static void zero_next(struct qcow2_op *op);

static void zero_done(struct io_group *g)
{
    struct qcow2_op *op = CONTAINER_OF(g, struct qcow2_op, group);
    while (op->held) {
        struct held *h = op->held;
        op->held = h->next;
        clusters_release(op->q, &h->reservation, false);
        free(h);
    }
    op_finish(op, g->result);
}

/* Clusters became free: gives their space back to the host. */
static void punch(void *opaque, uint64_t first, uint64_t count)
{
    struct qcow2_op *op = opaque;
    struct qcow2 *q = op->q;
    struct held *h = malloc(sizeof(*h));
    if (!h)
        return;
    clusters_hold(q, first, count, &h->reservation);
    h->next = op->held;
    op->held = h;
    io_command(&op->group, AIO_PUNCH, q->fd, first << q->cluster_bits, count << q->cluster_bits, EOPNOTSUPP);
}

static void zeroes_written(struct qcow2_write *w, int result)
{
    struct qcow2_op *op = CONTAINER_OF(w, struct qcow2_op, write);
    if (result < 0) {
        io_group_fail(&op->group, result);
        op->at = op->stop;
    }
    zero_next(op);
}

/* Writes zeroes as data from op->at on, within one cluster. */
static void write_zeroes(struct qcow2_op *op, uint64_t length)
{
    struct qcow2 *q = op->q;
    int n = (int)((q->cluster_size + ZERO_BLOCK - 1) / ZERO_BLOCK);
    const uint8_t *from = zero_block;
    if (!op->zeroes)
        op->zeroes = calloc((size_t)n, sizeof(*op->zeroes));
    if (!op->zeroes) {
        zeroes_written(&op->write, -ENOMEM);
        return;
    }
    uint64_t left = length;
    for (int i = 0; i < n; i++) {
        memcpy(&op->zeroes[i].iov_base, &from, sizeof(from)); /* writing only reads it */
        op->zeroes[i].iov_len = MIN(left, ZERO_BLOCK);
        left -= op->zeroes[i].iov_len;
    }
    op->write = (struct qcow2_write){.q = q,
                                     .offset = op->at,
                                     .length = length,
                                     .iov = op->zeroes,
                                     .iov_count = n,
                                     .done = zeroes_written};
    op->at += length;
    qcow2_write_start(&op->write);
}

/* What a run of clusters with entry `old` becomes; equal to `old`: it stays. */
static uint64_t zero_entry(const struct qcow2_op *op, uint64_t old)
{
    const struct qcow2 *q = op->q;
    enum cluster_kind kind = entry_kind(q, old);
    bool keep = op->req->op == BLOCK_WRITE_ZEROES && !op->req->may_unmap;
    if (q->version >= 3 && keep && old & ENTRY_COPIED &&
        (kind == CLUSTER_NORMAL || kind == CLUSTER_ZERO_ALLOCATED))
        return old | ENTRY_ZERO;
    return q->layer->backing && q->version >= 3 ? ENTRY_ZERO : 0;
}

/* Turns whole clusters from `at` on into zeroes, at most `max` (under one L2 table). Returns how many, or an
 * errno. */
static int64_t zero_run(struct qcow2_op *op, uint64_t at, uint64_t max)
{
    struct qcow2 *q = op->q;
    uint64_t first, entry, n = 1;
    int r = qcow2_lookup(q, at, &first, NULL);
    if (r < 0)
        return r;
    uint64_t to = zero_entry(op, first);
    bool keep = to & ENTRY_OFFSET;
    for (; n < max; n++) {
        r = qcow2_lookup(q, at + (n << q->cluster_bits), &entry, NULL);
        if (r < 0)
            return r;
        uint64_t next = zero_entry(op, entry);
        if (next != to + (keep ? n << q->cluster_bits : 0) || (entry == next) != (first == to))
            break;
        if ((entry_kind(q, entry) == CLUSTER_ABSENT) != (entry_kind(q, first) == CLUSTER_ABSENT))
            break;
    }
    if (first == to)
        return (int64_t)n;
    uint64_t bytes = MIN(n << q->cluster_bits, q->layer->size - at);
    r = entry_kind(q, first) == CLUSTER_ABSENT ? qcow2_reads_zero(q, at, bytes) : 0;
    if (r == 0)
        r = qcow2_change_entries(q, &(struct entry_change){.offset = at,
                                                           .count = n,
                                                           .entry = to,
                                                           .step = keep ? q->cluster_size : 0,
                                                           .keep_host = keep,
                                                           .freed = punch,
                                                           .opaque = op});
    return r < 0 ? r : (int64_t)n;
}

static bool by_table(const struct qcow2_op *op)
{
    return op->q->version >= 3 || !op->q->layer->backing;
}

/* Goes on with what is left; comes back after each piece that had to be written as data. */
static void zero_next(struct qcow2_op *op)
{
    struct qcow2 *q = op->q;
    uint64_t size = q->layer->size, mask = q->cluster_size - 1;
    while (op->at < op->stop) {
        uint64_t cluster_end = MIN(round_down(op->at, q->cluster_size) + q->cluster_size, size);
        uint64_t piece = MIN(op->stop, cluster_end) - op->at;
        bool full = !(op->at & mask) && op->at + piece == cluster_end;
        if (!full || !by_table(op)) {
            int zero = qcow2_reads_zero(q, op->at, piece);
            if (zero < 0) {
                io_group_fail(&op->group, zero);
                break;
            }
            if (!zero) {
                write_zeroes(op, piece);
                return;
            }
            op->at += piece;
            continue;
        }
        uint64_t in_table = l2_entries(q) - (cluster_of(q, op->at) & (l2_entries(q) - 1));
        uint64_t clusters = op->stop == size ? (op->stop - op->at + mask) >> q->cluster_bits
                                             : (op->stop - op->at) >> q->cluster_bits;
        int64_t n = zero_run(op, op->at, MIN(clusters, in_table));
        if (n < 0) {
            io_group_fail(&op->group, (int)n);
            break;
        }
        op->at += (uint64_t)n << q->cluster_bits;
    }
    io_group_end(&op->group);
}

static void start_zero(struct qcow2_op *op)
{
    struct qcow2 *q = op->q;
    const struct block_request *req = op->req;
    op->at = req->offset;
    op->stop = req->offset + req->length;
    if (req->op == BLOCK_DISCARD) {
        /* Only whole clusters; the last one of the disk may be short. */
        op->at = round_up(op->at, q->cluster_size);
        if (op->stop != q->layer->size)
            op->stop = round_down(op->stop, q->cluster_size);
        if (!by_table(op))
            op->at = op->stop;
    }
    io_group_begin(&op->group, q->layer->block, zero_done);
    zero_next(op);
}

/* --- Starting and waiting. --- */

static bool overlap(const struct qcow2_op *a, const struct qcow2_op *b)
{
    return a->start < b->end && b->start < a->end;
}

/* Must `op` wait, for one in progress or one that waits before it? */
static bool must_wait(const struct qcow2_op *op)
{
    for (const struct qcow2_op *o = op->q->active; o; o = o->next)
        if (overlap(o, op) && (o->exclusive || op->exclusive))
            return true;
    for (const struct qcow2_op *o = op->q->waiting; o && o != op; o = o->next)
        if (overlap(o, op))
            return true;
    return false;
}

static void make_active(struct qcow2_op *op)
{
    struct qcow2 *q = op->q;
    op->next = q->active;
    op->prev = &q->active;
    if (op->next)
        op->next->prev = &op->next;
    q->active = op;
}

/* Why the operation cannot begin at all, or 0; finds out whether it is exclusive. */
static int prepare(struct qcow2_op *op)
{
    struct qcow2 *q = op->q;
    const struct block_request *req = op->req;
    op->exclusive = false;
    if (req->op == BLOCK_READ)
        return 0;
    if (q->layer->block->broken)
        return -EIO;
    int r = qcow2_begin_change(q);
    if (r == 0)
        qcow2_bitmaps_mark(q, req->offset, req->length);
    if (r == 0)
        r = req->op == BLOCK_WRITE ? qcow2_write_allocates(q, req->offset, req->length) : 1;
    op->exclusive = r > 0;
    return MIN(r, 0);
}

static void run(struct qcow2_op *op)
{
    struct qcow2 *q = op->q;
    struct block_request *req = op->req;
    switch (req->op) {
    case BLOCK_READ:
        io_group_begin(&op->group, q->layer->block, read_done);
        io_read_layer(&op->group, q->layer, req->offset, whole(req));
        io_group_end(&op->group);
        break;
    case BLOCK_WRITE:
        op->write = (struct qcow2_write){.q = q,
                                         .offset = req->offset,
                                         .length = req->length,
                                         .iov = req->iov,
                                         .iov_count = req->iov_count,
                                         .done = write_done};
        qcow2_write_start(&op->write);
        break;
    case BLOCK_DISCARD:
    case BLOCK_WRITE_ZEROES:
        start_zero(op);
        break;
    case BLOCK_FLUSH:
    case BLOCK_CALL:
        break; /* end without an op: see worker.c */
    }
}

/* Begins, or fails with `error`. On no list before. */
static void begin(struct qcow2_op *op, int error)
{
    make_active(op);
    if (error < 0)
        op_finish(op, error);
    else
        run(op);
}

void qcow2_submit(struct layer *l, struct block_request *req)
{
    struct qcow2 *q = l->format;
    struct qcow2_op *op = calloc(1, sizeof(*op));
    if (!op) {
        block_complete(req, -ENOMEM);
        return;
    }
    op->req = req;
    op->q = q;
    op->start = round_down(req->offset, q->cluster_size);
    op->end = round_up(req->offset + req->length, q->cluster_size);
    int r = prepare(op);
    if (r < 0 || !must_wait(op)) {
        begin(op, r);
        return;
    }
    op->next = NULL;
    *q->waiting_tail = op;
    q->waiting_tail = &op->next;
}

void qcow2_read(struct layer *l, struct block_request *req)
{
    qcow2_submit(l, req);
}

bool qcow2_poll(struct layer *l)
{
    struct qcow2 *q = l->format;
    if (!q->recheck)
        return false;
    q->recheck = false;
    bool any = false;
    for (struct qcow2_op **link = &q->waiting; *link;) {
        struct qcow2_op *op = *link, *next = op->next;
        int r = prepare(op);
        if (r == 0 && must_wait(op)) {
            link = &op->next;
            continue;
        }
        *link = next;
        if (!next)
            q->waiting_tail = link;
        begin(op, r);
        any = true;
    }
    return any;
}
