/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reference counts of host clusters, and the search for free ones. A refcount block counts a fixed run of
 * clusters; a block that is missing counts all of them as free. New blocks lie, where possible, in the run
 * they count and count themselves, so that entering them in the refcount table is the one write that makes
 * them exist.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/qcow2.h"
#include "os/sys.h"

/* The file grows in steps of this many bytes, so that most new clusters need no new file size. */
#define FILE_STEP (8 * MIB)

static uint64_t count_load(const struct qcow2 *q, const uint8_t *block, uint64_t i)
{
    switch (q->refcount_order) {
    case 3:
        return block[i];
    case 4:
        return load_be16(block + 2 * i);
    case 5:
        return load_be32(block + 4 * i);
    case 6:
        return load_be64(block + 8 * i);
    default: {
        unsigned bits = 1u << q->refcount_order, per_byte = 8 / bits;
        return (block[i / per_byte] >> (i % per_byte * bits)) & (BIT(bits) - 1);
    }
    }
}

static void count_store(const struct qcow2 *q, uint8_t *block, uint64_t i, uint64_t v)
{
    switch (q->refcount_order) {
    case 3:
        block[i] = (uint8_t)v;
        break;
    case 4:
        store_be16(block + 2 * i, (uint16_t)v);
        break;
    case 5:
        store_be32(block + 4 * i, (uint32_t)v);
        break;
    case 6:
        store_be64(block + 8 * i, v);
        break;
    default: {
        unsigned bits = 1u << q->refcount_order, per_byte = 8 / bits;
        unsigned shift = (unsigned)(i % per_byte) * bits;
        uint8_t *p = &block[i / per_byte];
        *p = (uint8_t)((*p & ~((BIT(bits) - 1) << shift)) | v << shift);
    }
    }
}

static uint64_t count_max(const struct qcow2 *q)
{
    return q->refcount_order == 6 ? UINT64_MAX : BIT(1u << q->refcount_order) - 1;
}

/* Writes the bytes that hold entries [i, i + n) of a block. */
static int write_counts(struct qcow2 *q, uint64_t block_offset, const uint8_t *block, uint64_t i, uint64_t n)
{
    uint64_t from = (i << q->refcount_order) / 8;
    uint64_t to = (((i + n) << q->refcount_order) + 7) / 8;
    return cache_write(q, block_offset, block, from, to - from);
}

static uint64_t block_offset(const struct qcow2 *q, uint64_t index)
{
    return index < q->reftable_size ? q->reftable[index] & REFTABLE_OFFSET : 0;
}

int refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    int r = 0;
    uint64_t offset = block_offset(q, cluster >> q->refblock_bits);
    *count = 0;
    if (!offset)
        return 0;
    const uint8_t *block = cache_get(q, offset, &r);
    if (block)
        *count = count_load(q, block, cluster & (BIT(q->refblock_bits) - 1));
    return r;
}

/* Makes the file reach to `end`. */
static int extend_file(struct qcow2 *q, uint64_t end)
{
    if (end <= q->file_end)
        return 0;
    if (end > BLOCK_SIZE_MAX)
        return -EFBIG;
    uint64_t want = round_up(end, FILE_STEP);
    if (sys.ftruncate(q->fd, (off_t)want) < 0) {
        want = end;
        if (sys.ftruncate(q->fd, (off_t)want) < 0)
            return -errno;
    }
    q->file_end = want;
    return 0;
}

static int publish_block(struct qcow2 *q, uint64_t index, uint64_t offset)
{
    uint8_t entry[8];
    if (!set_add(&q->metadata, cluster_of(q, offset)))
        return -ENOMEM;
    store_be64(entry, offset);
    int r = file_write(q->fd, entry, sizeof(entry), q->reftable_offset + index * sizeof(entry));
    if (r == 0)
        q->reftable[index] = offset;
    else
        set_remove(&q->metadata, cluster_of(q, offset)); /* it is as free as before */
    return r;
}

/* Puts a new, empty block for `index` at `cluster`, which is free; it counts itself when it lies in its own
 * run. */
static int make_block(struct qcow2 *q, uint64_t index, uint64_t cluster)
{
    cleanup(mem) uint8_t *data = calloc(1, q->cluster_size);
    if (!data)
        return -ENOMEM;
    int r = extend_file(q, (cluster + 1) << q->cluster_bits);
    if (r < 0)
        return r;
    if (cluster >> q->refblock_bits == index)
        count_store(q, data, cluster & (BIT(q->refblock_bits) - 1), 1);
    q->fresh = MAX(q->fresh, cluster + 1);
    uint64_t offset = cluster << q->cluster_bits;
    r = cache_put(q, offset, data);
    return r < 0 ? r : publish_block(q, index, offset);
}

/*
 * The refcount table is full: a larger one, and the blocks that count it, go to `at`, from where on nothing
 * is used. The header's two fields, written at once, switch over.
 */
static int grow_table(struct qcow2 *q, uint64_t at)
{
    uint64_t per_block = BIT(q->refblock_bits), first_block = at >> q->refblock_bits;
    uint64_t entries = (first_block + 16) * 3 / 2;
    uint64_t table = round_up(entries * 8, q->cluster_size) >> q->cluster_bits;
    uint64_t blocks = 1;
    while (((at + blocks + table - 1) >> q->refblock_bits) - first_block + 1 > blocks)
        blocks++;
    uint64_t bytes = table << q->cluster_bits;
    if (bytes > REFTABLE_BYTES_MAX || first_block + blocks > bytes / 8)
        return -EFBIG;
    cleanup(mem) uint64_t *host = calloc(bytes / 8, sizeof(*host));
    cleanup(mem) uint8_t *disk = calloc(1, bytes);
    cleanup(mem) uint8_t *block = malloc(q->cluster_size);
    if (!host || !disk || !block)
        return -ENOMEM;
    int r = extend_file(q, (at + blocks + table) << q->cluster_bits);
    memcpy(host, q->reftable, q->reftable_size * sizeof(*host));
    for (uint64_t b = 0; b < blocks && r == 0; b++) {
        uint64_t base = (first_block + b) << q->refblock_bits;
        memset(block, 0, q->cluster_size);
        for (uint64_t i = 0; i < per_block; i++)
            if (base + i >= at && base + i < at + blocks + table)
                count_store(q, block, i, 1);
        host[first_block + b] = (at + b) << q->cluster_bits;
        r = cache_put(q, host[first_block + b], block);
    }
    for (uint64_t i = 0; i < bytes / 8; i++)
        store_be64(disk + 8 * i, host[i]);
    uint64_t offset = (at + blocks) << q->cluster_bits;
    if (r == 0)
        r = file_write(q->fd, disk, bytes, offset);
    if (r == 0 && !set_add_range(&q->metadata, at, blocks + table))
        r = -ENOMEM;
    uint8_t fields[12];
    store_be64(fields, offset);
    store_be32(fields + 8, (uint32_t)table);
    if (r == 0)
        r = file_write(q->fd, fields, sizeof(fields), HEADER_REFTABLE_OFFSET);
    if (r < 0) {
        set_remove_range(&q->metadata, at, blocks + table);
        return r;
    }
    q->fresh = MAX(q->fresh, at + blocks + table);
    uint64_t old = cluster_of(q, q->reftable_offset), old_count = q->reftable_clusters;
    free(q->reftable);
    q->reftable = steal_ptr(&host);
    q->reftable_offset = offset;
    q->reftable_clusters = (uint32_t)table;
    q->reftable_size = bytes / 8;
    set_remove_range(&q->metadata, old, old_count);
    return refcount_add(q, old, old_count, -1);
}

/* Sees to it that there is a block that counts `cluster`, which may be in use: a new block goes to the end.
 */
static int ensure_block(struct qcow2 *q, uint64_t cluster)
{
    uint64_t index = cluster >> q->refblock_bits;
    if (block_offset(q, index))
        return 0;
    struct reservation r;
    int e = clusters_reserve_all(q, 1, &r);
    if (e < 0 || block_offset(q, index)) {
        if (e == 0)
            clusters_release(q, &r, false);
        return e;
    }
    e = index >= q->reftable_size ? -EIO : refcount_add(q, r.first, 1, 1);
    uint64_t at = r.first;
    clusters_release(q, &r, e == 0);
    return e < 0 ? e : make_block(q, index, at);
}

int refcount_add(struct qcow2 *q, uint64_t first, uint64_t count, int delta)
{
    while (count) {
        uint64_t i = first & (BIT(q->refblock_bits) - 1);
        uint64_t n = MIN(count, BIT(q->refblock_bits) - i);
        int r = delta > 0 ? ensure_block(q, first) : 0;
        uint64_t offset = block_offset(q, first >> q->refblock_bits);
        if (r < 0)
            return r;
        if (!offset)
            return qcow2_damaged(q, "a cluster in use is not counted", first << q->cluster_bits);
        uint8_t *block = cache_get(q, offset, &r);
        if (!block)
            return r;
        for (uint64_t k = 0; k < n; k++) {
            uint64_t v = count_load(q, block, i + k);
            if (delta < 0 ? v == 0 : v == count_max(q)) {
                cache_drop(q, offset);
                return delta < 0 ? qcow2_damaged(q, "a cluster in use is not counted",
                                                 (first + k) << q->cluster_bits)
                                 : -EOVERFLOW;
            }
            count_store(q, block, i + k, v + (uint64_t)(int64_t)delta);
            if (v == 1 && delta < 0)
                q->free_hint = MIN(q->free_hint, first + k);
        }
        r = write_counts(q, offset, block, i, n);
        if (r < 0)
            return r;
        first += n;
        count -= n;
    }
    return 0;
}

int refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
    if (value > count_max(q))
        return -EOVERFLOW;
    int r = ensure_block(q, cluster);
    if (r < 0)
        return r;
    uint64_t offset = block_offset(q, cluster >> q->refblock_bits), i = cluster & (BIT(q->refblock_bits) - 1);
    uint8_t *block = cache_get(q, offset, &r);
    if (!block)
        return r;
    if (count_load(q, block, i) == value)
        return 0;
    count_store(q, block, i, value);
    return write_counts(q, offset, block, i, 1);
}

static void reserve(struct qcow2 *q, struct reservation *r, uint64_t first, uint64_t count)
{
    r->first = first;
    r->count = count;
    r->fresh = first >= q->fresh;
    r->next = q->reserved;
    r->prev = &q->reserved;
    if (r->next)
        r->next->prev = &r->next;
    q->reserved = r;
}

static const struct reservation *reservation_of(const struct qcow2 *q, uint64_t cluster)
{
    const struct reservation *r = q->reserved;
    while (r && cluster - r->first >= r->count)
        r = r->next;
    return r;
}

/*
 * Is `cluster` free? 1, 0 or a negative errno; *skip is how many clusters from there on need no look. Makes
 * the block that counts it, which takes the cluster itself.
 */
static int probe_free(struct qcow2 *q, uint64_t cluster, uint64_t *skip)
{
    uint64_t index = cluster >> q->refblock_bits, count;
    const struct reservation *taken = reservation_of(q, cluster);
    *skip = 1;
    if (taken) {
        *skip = taken->first + taken->count - cluster;
        return 0;
    }
    int r = 0;
    if (index >= q->reftable_size) {
        r = grow_table(q, cluster);
        return r < 0 ? r : 0;
    }
    if (!block_offset(q, index)) {
        if (set_has(&q->metadata, cluster))
            return qcow2_damaged(q, "a table is not counted", cluster << q->cluster_bits);
        r = make_block(q, index, cluster);
        return r < 0 ? r : 0;
    }
    r = refcount_get(q, cluster, &count);
    if (r < 0 || count)
        return r;
    return set_has(&q->metadata, cluster)
               ? qcow2_damaged(q, "a table is not counted", cluster << q->cluster_bits)
               : 1;
}

static int reserve_from(struct qcow2 *q, uint64_t start, uint64_t least, uint64_t want, struct reservation *r)
{
    uint64_t first = start, n = 0;
    while (n < want) {
        uint64_t skip;
        int is_free = probe_free(q, first + n, &skip);
        if (is_free < 0)
            return is_free;
        if (is_free) {
            n++;
            continue;
        }
        if (n >= least)
            break;
        first += n + skip;
        n = 0;
        if (first > ENTRY_OFFSET >> q->cluster_bits)
            return -EFBIG;
    }
    int e = extend_file(q, (first + n) << q->cluster_bits);
    if (e < 0)
        return e;
    reserve(q, r, first, n);
    q->fresh = MAX(q->fresh, first + n);
    return 0;
}

int clusters_reserve(struct qcow2 *q, uint64_t want, struct reservation *r)
{
    int e = reserve_from(q, q->free_hint, 1, want, r);
    if (e < 0)
        return e;
    q->free_hint = r->first + r->count;
    return 0;
}

int clusters_reserve_all(struct qcow2 *q, uint64_t want, struct reservation *r)
{
    return reserve_from(q, q->fresh, want, want, r);
}

void clusters_release(struct qcow2 *q, struct reservation *r, bool used)
{
    if (!r->count)
        return;
    *r->prev = r->next;
    if (r->next)
        r->next->prev = r->prev;
    if (!used)
        q->free_hint = MIN(q->free_hint, r->first);
    r->count = 0;
}

void clusters_hold(struct qcow2 *q, uint64_t first, uint64_t count, struct reservation *r)
{
    reserve(q, r, first, count);
}
