/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing guest data. A write is cut into runs: clusters that may be written in place, and new clusters. What
 * surrounds the data in new clusters is read from where it is now (the backing file, a compressed or shared
 * cluster) first; then all runs are written; then, when all of that is in the file, the L2 entries change.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2.h"

static bool in_place(const struct qcow2 *q, uint64_t entry)
{
    enum cluster_kind kind = entry_kind(q, entry);
    return entry & ENTRY_COPIED && (kind == CLUSTER_NORMAL || kind == CLUSTER_ZERO_ALLOCATED);
}

int qcow2_write_allocates(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    uint64_t entry, at = round_down(offset, q->cluster_size);
    for (; at < offset + length; at += q->cluster_size) {
        int r = qcow2_lookup(q, at, &entry, NULL);
        if (r < 0)
            return r;
        if (!(entry & ENTRY_COPIED) || entry_kind(q, entry) != CLUSTER_NORMAL)
            return 1;
    }
    return 0;
}

static void write_finish(struct qcow2_write *w, int result)
{
    while (w->runs) {
        struct write_run *run = w->runs;
        w->runs = run->next;
        clusters_release(w->q, &run->reservation, false);
        free(run);
    }
    free(w->head);
    free(w->tail);
    w->head = w->tail = NULL;
    w->done(w, result);
}

/* Decides where the clusters from `at` on go, for as many as are alike. */
static int plan_run(struct qcow2_write *w, uint64_t at, uint64_t wanted, struct write_run *run)
{
    struct qcow2 *q = w->q;
    uint64_t first, entry, left;
    int r = qcow2_lookup(q, at, &first, &left);
    if (r < 0)
        return r;
    wanted = MIN(wanted, left);
    bool here = in_place(q, first);
    uint64_t n = 1;
    for (; n < wanted; n++) {
        r = qcow2_lookup(q, at + (n << q->cluster_bits), &entry, NULL);
        if (r < 0)
            return r;
        if (here ? entry != first + (n << q->cluster_bits) : in_place(q, entry))
            break;
    }
    run->offset = at;
    run->link = !here || entry_kind(q, first) == CLUSTER_ZERO_ALLOCATED;
    if (!here) {
        r = clusters_reserve(q, n, &run->reservation);
        run->count = run->reservation.count;
        run->fresh = run->reservation.fresh;
        run->host = run->reservation.first << q->cluster_bits;
        return r;
    }
    run->count = n;
    run->host = first & ENTRY_OFFSET;
    for (uint64_t i = 0; i < n; i++)
        if (set_has(&q->metadata, cluster_of(q, run->host) + i))
            return qcow2_damaged(q, "data lies in the same place as a table", run->host);
    return 0;
}

static int plan(struct qcow2_write *w)
{
    struct qcow2 *q = w->q;
    uint64_t at = round_down(w->offset, q->cluster_size);
    uint64_t end = round_up(w->offset + w->length, q->cluster_size);
    struct write_run **link = &w->runs;
    while (at < end) {
        struct write_run *run = calloc(1, sizeof(*run));
        if (!run)
            return -ENOMEM;
        int r = plan_run(w, at, (end - at) >> q->cluster_bits, run);
        if (r < 0) {
            free(run);
            return r;
        }
        *link = run;
        link = &run->next;
        at += run->count << q->cluster_bits;
    }
    return 0;
}

int qcow2_reads_zero(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    while (length) {
        struct extent e;
        int r = layer_map(q->layer, offset, length, &e);
        if (r < 0)
            return r;
        if (e.kind != EXTENT_ZERO)
            return 0;
        offset += e.length;
        length -= e.length;
    }
    return 1;
}

/* Starts reading what surrounds the data on one side, where the cluster is new. */
static int start_pad(struct qcow2_write *w, const struct write_run *run, uint64_t offset, uint64_t length,
                     uint8_t **pad, uint64_t *pad_length)
{
    if (!run->link || !length)
        return 0;
    int zero = run->fresh ? qcow2_reads_zero(w->q, offset, length) : 0;
    if (zero)
        return MIN(zero, 0);
    *pad = malloc(length);
    if (!*pad)
        return -ENOMEM;
    *pad_length = length;
    struct iovec iov = {*pad, length};
    io_read_layer(&w->group, w->q->layer, offset,
                  (struct io_slice){.iov = &iov, .iov_count = 1, .length = length});
    return 0;
}

static void commit(struct io_group *g)
{
    struct qcow2_write *w = CONTAINER_OF(g, struct qcow2_write, group);
    struct qcow2 *q = w->q;
    int r = g->result;
    for (struct write_run *run = w->runs; run && r == 0; run = run->next) {
        if (!run->link)
            continue;
        r = qcow2_change_entries(q, &(struct entry_change){
                                        .offset = run->offset,
                                        .count = run->count,
                                        .entry = run->host | ENTRY_COPIED,
                                        .step = q->cluster_size,
                                        .fresh = run->reservation.count ? &run->reservation : NULL,
                                        .keep_host = !run->reservation.count,
                                    });
    }
    write_finish(w, r);
}

/* The pads are there: writes all runs out of one list of pads and data. */
static void write_runs(struct io_group *g)
{
    struct qcow2_write *w = CONTAINER_OF(g, struct qcow2_write, group);
    struct qcow2 *q = w->q;
    struct iovec *list = malloc(((size_t)w->iov_count + 2) * sizeof(*list));
    if (g->result < 0 || !list) {
        int result = g->result < 0 ? g->result : -ENOMEM;
        free(list);
        write_finish(w, result);
        return;
    }
    int n = 0;
    if (w->head)
        list[n++] = (struct iovec){w->head, w->head_length};
    for (int i = 0; i < w->iov_count; i++)
        list[n++] = w->iov[i];
    if (w->tail)
        list[n++] = (struct iovec){w->tail, w->tail_length};
    uint64_t start = w->offset - w->head_length, end = w->offset + w->length + w->tail_length;
    io_group_begin(g, q->layer->block, commit);
    for (const struct write_run *run = w->runs; run; run = run->next) {
        uint64_t from = MAX(run->offset, start), to = MIN(run->offset + (run->count << q->cluster_bits), end);
        io_transfer(
            g, AIO_WRITE, q->fd, run->host + (from - run->offset),
            (struct io_slice){.iov = list, .iov_count = n, .skip = from - start, .length = to - from});
    }
    free(list);
    io_group_end(g);
}

void qcow2_write_start(struct qcow2_write *w)
{
    struct qcow2 *q = w->q;
    w->runs = NULL;
    w->head = w->tail = NULL;
    w->head_length = w->tail_length = 0;
    int r = plan(w);
    const struct write_run *last = w->runs;
    if (r < 0 || !last) {
        write_finish(w, r);
        return;
    }
    while (last->next)
        last = last->next;
    uint64_t start = round_down(w->offset, q->cluster_size), end = w->offset + w->length;
    io_group_begin(&w->group, q->layer->block, write_runs);
    r = start_pad(w, w->runs, start, w->offset - start, &w->head, &w->head_length);
    if (r == 0)
        r = start_pad(w, last, end, round_up(end, q->cluster_size) - end, &w->tail, &w->tail_length);
    if (r < 0)
        io_group_fail(&w->group, r);
    io_group_end(&w->group);
}
