/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From guest offsets to host clusters and back to the file: looking up L2 entries, and changing them in a
 * safe order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/qcow2.h"

enum cluster_kind entry_kind(const struct qcow2 *q, uint64_t entry)
{
    if (entry & ENTRY_COMPRESSED)
        return CLUSTER_COMPRESSED;
    if (entry & ENTRY_ZERO)
        return entry & ENTRY_OFFSET ? CLUSTER_ZERO_ALLOCATED : CLUSTER_ZERO;
    return entry & ENTRY_OFFSET ? CLUSTER_NORMAL : CLUSTER_ABSENT;
}

void compressed_span(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length)
{
    unsigned shift = 62 - (q->cluster_bits - 8);
    *offset = entry & (BIT(shift) - 1);
    uint64_t sectors = ((entry & (ENTRY_COMPRESSED - 1)) >> shift) + 1;
    *length = sectors * 512 - (*offset & 511);
}

const char *entry_fault(const struct qcow2 *q, uint64_t entry)
{
    if (entry & ENTRY_COMPRESSED)
        return entry & ENTRY_COPIED ? "a compressed cluster is marked as not shared" : NULL;
    if (entry & L2_RESERVED || (q->version < 3 && entry & ENTRY_ZERO))
        return "reserved bits are set in an L2 entry";
    if (entry & ENTRY_OFFSET & (q->cluster_size - 1))
        return "an L2 entry points between clusters";
    return NULL;
}

int qcow2_damaged(struct qcow2 *q, const char *what, uint64_t where)
{
    struct layer *l = q->layer;
    log_guest(LOG_ERROR, "image '%s' is damaged: %s (at %#llx)", l->path, what, (unsigned long long)where);
    l->corrupt = true;
    if (l->block && l == l->block->top && !l->readonly && !l->block->broken) {
        l->block->broken = true;
        qcow2_write_features(q, q->incompatible | INCOMPAT_CORRUPT);
    }
    return -EIO;
}

/* The L2 table for an L1 entry; NULL with *error 0 when there is none. */
static uint8_t *l2_table(struct qcow2 *q, uint64_t l1_index, int *error)
{
    uint64_t offset = q->l1[l1_index] & ENTRY_OFFSET;
    *error = 0;
    return offset ? cache_get(q, offset, error) : NULL;
}

int qcow2_lookup(struct qcow2 *q, uint64_t offset, uint64_t *entry, uint64_t *left_in_table)
{
    int r;
    uint64_t i = cluster_of(q, offset) & (l2_entries(q) - 1);
    if (left_in_table)
        *left_in_table = l2_entries(q) - i;
    const uint8_t *table = l2_table(q, offset >> l1_shift(q), &r);
    *entry = table ? load_be64(table + 8 * i) : 0;
    if (r < 0)
        return r;
    const char *fault = entry_fault(q, *entry);
    return fault ? qcow2_damaged(q, fault, offset) : 0;
}

/* How many of the `max` entries from table[i] on continue the run that `entry` begins. */
static uint64_t run_length(const struct qcow2 *q, const uint8_t *table, uint64_t i, uint64_t max,
                           uint64_t entry)
{
    enum cluster_kind kind = entry_kind(q, entry);
    uint64_t n = 1;
    if (!table)
        return max;
    for (; n < max; n++) {
        uint64_t e = load_be64(table + 8 * (i + n));
        if (entry_fault(q, e) || entry_kind(q, e) != kind)
            break;
        if (kind == CLUSTER_NORMAL && (e & ENTRY_OFFSET) != (entry & ENTRY_OFFSET) + n * q->cluster_size)
            break;
        if (kind == CLUSTER_COMPRESSED)
            break;
    }
    return n;
}

int qcow2_map(struct layer *l, uint64_t offset, uint64_t length, struct extent *out)
{
    struct qcow2 *q = l->format;
    uint64_t entry, left, within = offset & (q->cluster_size - 1);
    int r = qcow2_lookup(q, offset, &entry, &left);
    if (r < 0)
        return r;
    uint64_t wanted = (within + length + q->cluster_size - 1) >> q->cluster_bits;
    const uint8_t *table = l2_table(q, offset >> l1_shift(q), &r);
    if (r < 0)
        return r;
    uint64_t i = cluster_of(q, offset) & (l2_entries(q) - 1);
    uint64_t n = run_length(q, table, i, MIN(left, wanted), entry);
    length = MIN(length, (n << q->cluster_bits) - within);
    *out = (struct extent){.kind = EXTENT_ZERO, .layer = l, .length = length};
    switch (entry_kind(q, entry)) {
    case CLUSTER_ABSENT:
        return l->backing ? layer_map(l->backing, offset, length, out) : 0;
    case CLUSTER_ZERO:
    case CLUSTER_ZERO_ALLOCATED:
        return 0;
    case CLUSTER_NORMAL:
        out->kind = EXTENT_DATA;
        out->offset = (entry & ENTRY_OFFSET) + within;
        return 0;
    case CLUSTER_COMPRESSED:
        out->kind = EXTENT_COMPRESSED;
        out->entry = entry;
        out->offset = within;
        return 0;
    }
    return -EIO;
}

/* Takes one reference from each cluster that `old` entries held, in runs; tells which became free. */
static void give_up(struct qcow2 *q, const uint64_t *old, const struct entry_change *c)
{
    for (uint64_t i = 0, n; i < c->count; i += n) {
        uint64_t host = old[i] & ENTRY_OFFSET, length;
        n = 1;
        switch (entry_kind(q, old[i])) {
        case CLUSTER_ABSENT:
        case CLUSTER_ZERO:
            break;
        case CLUSTER_COMPRESSED:
            compressed_span(q, old[i], &host, &length);
            refcount_add(q, cluster_of(q, host), cluster_of(q, host + length - 1) - cluster_of(q, host) + 1,
                         -1);
            break;
        case CLUSTER_NORMAL:
        case CLUSTER_ZERO_ALLOCATED:
            while (i + n < c->count && !(old[i + n] & ENTRY_COMPRESSED) &&
                   (old[i + n] & (ENTRY_OFFSET | ENTRY_COPIED)) ==
                       (old[i] & (ENTRY_OFFSET | ENTRY_COPIED)) + n * q->cluster_size)
                n++;
            /* A failure here leaves clusters counted that are not used: lost space, nothing worse. */
            if (refcount_add(q, cluster_of(q, host), n, -1) == 0 && c->freed && old[i] & ENTRY_COPIED)
                c->freed(c->opaque, cluster_of(q, host), n);
            break;
        }
    }
}

static void store_entries(uint8_t *table, uint64_t first, const struct entry_change *c)
{
    for (uint64_t i = 0; i < c->count; i++)
        store_be64(table + 8 * (first + i), c->entry + i * c->step);
}

/* The new clusters are counted from now on. */
static int count_fresh(struct qcow2 *q, const struct entry_change *c)
{
    if (!c->fresh)
        return 0;
    int r = refcount_add(q, c->fresh->first, c->fresh->count, 1);
    if (r == 0)
        clusters_release(q, c->fresh, true);
    return r;
}

static int change_in_place(struct qcow2 *q, uint64_t table_offset, uint64_t first,
                           const struct entry_change *c)
{
    int r = count_fresh(q, c);
    if (r < 0)
        return r;
    uint8_t *table = cache_get(q, table_offset, &r);
    if (!table)
        return r;
    store_entries(table, first, c);
    return cache_write(q, table_offset, table, 8 * first, 8 * c->count);
}

/* The table is not there or shared with a snapshot: a new one takes its place. */
static int change_in_copy(struct qcow2 *q, uint64_t l1_index, uint8_t *content, uint64_t first,
                          const struct entry_change *c)
{
    struct reservation r;
    uint64_t old = q->l1[l1_index] & ENTRY_OFFSET;
    int e = clusters_reserve(q, 1, &r);
    if (e < 0)
        return e;
    uint64_t at = r.first << q->cluster_bits;
    store_entries(content, first, c);
    e = set_add(&q->metadata, r.first) ? cache_put(q, at, content) : -ENOMEM;
    if (e == 0)
        e = count_fresh(q, c);
    if (e == 0)
        e = refcount_add(q, r.first, 1, 1);
    uint8_t entry[8];
    store_be64(entry, at | ENTRY_COPIED);
    if (e == 0)
        e = file_write(q->fd, entry, sizeof(entry), q->l1_offset + 8 * l1_index);
    if (e < 0) {
        set_remove(&q->metadata, r.first);
        cache_drop(q, at);
        clusters_release(q, &r, false);
        return e;
    }
    clusters_release(q, &r, true);
    q->l1[l1_index] = at | ENTRY_COPIED;
    if (old) {
        set_remove(&q->metadata, cluster_of(q, old));
        refcount_add(q, cluster_of(q, old), 1, -1);
    }
    return 0;
}

int qcow2_change_entries(struct qcow2 *q, const struct entry_change *c)
{
    uint64_t l1_index = c->offset >> l1_shift(q);
    uint64_t first = cluster_of(q, c->offset) & (l2_entries(q) - 1);
    uint64_t l1_entry = q->l1[l1_index];
    cleanup(mem) uint64_t *old = malloc(c->count * sizeof(*old));
    cleanup(mem) uint8_t *content = l1_entry & ENTRY_COPIED ? NULL : calloc(1, q->cluster_size);
    if (!old || (!(l1_entry & ENTRY_COPIED) && !content))
        return -ENOMEM;
    int r;
    const uint8_t *table = l2_table(q, l1_index, &r);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < c->count; i++)
        old[i] = table ? load_be64(table + 8 * (first + i)) : 0;
    if (content && table)
        memcpy(content, table, q->cluster_size);
    r = content ? change_in_copy(q, l1_index, content, first, c)
                : change_in_place(q, l1_entry & ENTRY_OFFSET, first, c);
    if (r == 0 && !c->keep_host)
        give_up(q, old, c);
    return r;
}
