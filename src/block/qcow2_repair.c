/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checking the tables of an image when it is opened, and recounting its clusters when it was not closed
 * properly: what the L1 tables of the disk and of its snapshots lead to is counted, and refcounts and COPIED
 * flags are set to that.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/qcow2.h"
#include "os/sys.h"

/* L2 tables up to this many bytes are checked at opening (128 GiB of disk at 64 KiB clusters); the rest when
 * used. */
#define CHECK_BYTES_MAX (16 * MIB)

/* More clusters than this are not recounted: the counts would take too much memory. */
#define REPAIR_CLUSTERS_MAX BIT(28)

static bool refuse(const struct qcow2 *q, uint64_t guest, const char *why, struct error **err)
{
    error_set(err, EINVAL, "cannot open qcow2 image '%s': at guest offset %" PRIu64 ": %s", q->layer->path,
              guest, why);
    return false;
}

/* Host clusters an entry refers to: [*first, *first + *count); count 0: none. */
static void entry_clusters(const struct qcow2 *q, uint64_t entry, uint64_t *first, uint64_t *count)
{
    uint64_t offset = entry & ENTRY_OFFSET, length = offset ? q->cluster_size : 0;
    if (entry_kind(q, entry) == CLUSTER_COMPRESSED)
        compressed_span(q, entry, &offset, &length);
    *first = cluster_of(q, offset);
    *count = length ? cluster_of(q, offset + length - 1) - *first + 1 : 0;
}

static const char *check_entry(struct qcow2 *q, uint64_t entry, uint64_t *first, uint64_t *count)
{
    const char *fault = entry_fault(q, entry);
    if (fault)
        return fault;
    entry_clusters(q, entry, first, count);
    if (!*count)
        return NULL;
    /* The length of compressed data is rounded up to sectors, so only its start must be in the file. */
    uint64_t last = entry & ENTRY_COMPRESSED ? *first : *first + *count - 1;
    if (last >= cluster_of(q, round_up(q->file_end, q->cluster_size)))
        return "the image is truncated: data lies past the end of the file";
    return set_has(&q->metadata, *first) || set_has(&q->metadata, *first + *count - 1)
               ? "data lies in the same place as a table"
               : NULL;
}

static bool note_uncounted(struct qcow2 *q, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count && !q->stale; i++) {
        uint64_t n;
        if (refcount_get(q, first + i, &n) < 0)
            return false;
        q->stale = n == 0;
    }
    return true;
}

static bool check_l2(struct qcow2 *q, uint32_t l1_index, struct error **err)
{
    uint64_t offset = q->l1[l1_index] & ENTRY_OFFSET, guest = (uint64_t)l1_index << l1_shift(q);
    bool counting = !q->layer->readonly;
    cleanup(mem) uint8_t *table = malloc(q->cluster_size);
    int r = 0;
    const uint8_t *cached = cache_get(q, offset, &r);
    if (!cached || !table)
        return refuse(q, guest, "an L2 table cannot be read", err);
    memcpy(table, cached, q->cluster_size); /* looking at refcounts may push it out of the cache */
    for (uint64_t i = 0; i < l2_entries(q); i++) {
        uint64_t first = 0, count = 0, entry = load_be64(table + 8 * i);
        if (!entry)
            continue;
        const char *fault = check_entry(q, entry, &first, &count);
        if (fault)
            return refuse(q, guest + (i << q->cluster_bits), fault, err);
        if (counting && !note_uncounted(q, first, count))
            return refuse(q, guest, "a refcount block cannot be read", err);
    }
    return true;
}

/* The tables themselves must be counted too, or new clusters would be laid over them. */
static bool check_metadata_counted(struct qcow2 *q)
{
    for (size_t i = 0; i < q->metadata.slots; i++)
        if (q->metadata.slot[i] && !note_uncounted(q, q->metadata.slot[i] - 1, 1))
            return false;
    return true;
}

bool qcow2_check_tables(struct qcow2 *q, struct error **err)
{
    uint64_t checked = 0;
    for (uint32_t i = 0; i < q->l1_size && checked < CHECK_BYTES_MAX; i++) {
        if (!q->l1[i])
            continue;
        if (!check_l2(q, i, err))
            return false;
        checked += q->cluster_size;
    }
    if (!q->layer->readonly && !check_metadata_counted(q))
        return refuse(q, 0, "a refcount block cannot be read", err);
    return true;
}

/* --- Recounting. --- */

struct recount {
    uint32_t *count;   /* references per cluster */
    uint64_t clusters; /* of the file as it was found */
};

static bool too_damaged(const struct qcow2 *q, const char *why, struct error **err)
{
    error_set(err, EINVAL, "cannot repair qcow2 image '%s': %s", q->layer->path, why);
    return false;
}

static bool count_range(struct qcow2 *q, struct recount *rc, uint64_t first, uint64_t count,
                        struct error **err)
{
    for (uint64_t i = first; i < first + count; i++) {
        if (i >= rc->clusters)
            return too_damaged(q, "it refers to clusters past the end of the file", err);
        rc->count[i]++;
    }
    return true;
}

static bool count_bytes(struct qcow2 *q, struct recount *rc, uint64_t offset, uint64_t bytes,
                        struct error **err)
{
    return count_range(q, rc, cluster_of(q, offset), round_up(bytes, q->cluster_size) >> q->cluster_bits,
                       err);
}

static bool count_l2(struct qcow2 *q, struct recount *rc, uint64_t l1_entry, struct error **err)
{
    uint64_t offset = l1_entry & ENTRY_OFFSET;
    int r = 0;
    if (!offset)
        return true;
    if (l1_entry & L1_RESERVED || offset & (q->cluster_size - 1) ||
        !count_range(q, rc, cluster_of(q, offset), 1, NULL))
        return too_damaged(q, "an L1 table is malformed", err);
    const uint8_t *table = cache_get(q, offset, &r);
    if (!table)
        return too_damaged(q, "an L2 table cannot be read", err);
    for (uint64_t i = 0; i < l2_entries(q); i++) {
        uint64_t entry = load_be64(table + 8 * i), first, count;
        const char *fault = entry_fault(q, entry);
        if (fault)
            return too_damaged(q, fault, err);
        entry_clusters(q, entry, &first, &count);
        /* The last sectors of compressed data may be past the end of the file: nothing is there to count. */
        if (entry & ENTRY_COMPRESSED && first < rc->clusters)
            count = MIN(count, rc->clusters - first);
        if (!count_range(q, rc, first, count, err))
            return false;
    }
    return true;
}

static bool count_snapshot(struct qcow2 *q, const struct qcow2_snapshot *s, void *opaque, struct error **err)
{
    cleanup(mem) uint8_t *l1 = malloc((size_t)s->l1_size * 8 + 1);
    if (!l1 || file_read(q->fd, l1, (uint64_t)s->l1_size * 8, s->l1_offset) < 0)
        return too_damaged(q, "the L1 table of a snapshot cannot be read", err);
    if (!count_bytes(q, opaque, s->l1_offset, (uint64_t)s->l1_size * 8, err))
        return false;
    for (uint32_t i = 0; i < s->l1_size; i++)
        if (!count_l2(q, opaque, load_be64(l1 + 8 * (size_t)i), err))
            return false;
    return true;
}

static bool count_piece(struct qcow2 *q, uint64_t offset, uint64_t bytes, void *opaque, struct error **err)
{
    return count_bytes(q, opaque, offset, bytes, err);
}

static bool count_all(struct qcow2 *q, struct recount *rc, struct error **err)
{
    if (!count_bytes(q, rc, 0, q->cluster_size, err) ||
        !count_bytes(q, rc, q->l1_offset, (uint64_t)q->l1_size * 8, err) ||
        !count_bytes(q, rc, q->reftable_offset, q->reftable_size * 8, err) ||
        !count_bytes(q, rc, q->snapshots_offset, q->snapshots ? q->snapshots_length : 0, err))
        return false;
    for (uint64_t i = 0; i < q->reftable_size; i++)
        if (q->reftable[i] && !count_bytes(q, rc, q->reftable[i], q->cluster_size, err))
            return false;
    for (uint32_t i = 0; i < q->l1_size; i++)
        if (!count_l2(q, rc, q->l1[i], err))
            return false;
    if (!qcow2_each_bitmap_piece(q, count_piece, rc, err))
        return false;
    return !q->snapshots || qcow2_each_snapshot(q, count_snapshot, rc, err);
}

/* Is there a refcount block for the cluster? */
static bool has_block(const struct qcow2 *q, uint64_t cluster)
{
    uint64_t index = cluster >> q->refblock_bits;
    return index < q->reftable_size && q->reftable[index];
}

/* Sets the refcounts: first where there are blocks, so that who makes a missing block finds the truth. */
static int store_counts(struct qcow2 *q, const struct recount *rc)
{
    int r = 0;
    for (uint64_t i = 0; i < rc->clusters && r == 0; i++)
        if (has_block(q, i))
            r = refcount_set(q, i, rc->count[i]);
    /* What lies past the end of the file is used by nobody. */
    uint64_t end = q->reftable_size << q->refblock_bits;
    for (uint64_t i = rc->clusters; i < end && r == 0; i++) {
        if (has_block(q, i))
            r = refcount_set(q, i, 0);
        else
            i |= BIT(q->refblock_bits) - 1;
    }
    for (uint64_t i = 0; i < rc->clusters && r == 0; i++)
        if (rc->count[i])
            r = refcount_set(q, i, rc->count[i]);
    return r;
}

static uint64_t with_copied(const struct recount *rc, uint64_t entry, uint64_t cluster)
{
    return rc->count[cluster] == 1 ? entry | ENTRY_COPIED : entry & ~ENTRY_COPIED;
}

/* The flags of one L2 table of the active disk. */
static int fix_l2(struct qcow2 *q, const struct recount *rc, uint64_t offset)
{
    int r = 0;
    uint8_t *table = cache_get(q, offset, &r);
    bool changed = false;
    if (!table)
        return r;
    for (uint64_t i = 0; i < l2_entries(q); i++) {
        uint64_t old = load_be64(table + 8 * i);
        if (old & ENTRY_COMPRESSED || !(old & ENTRY_OFFSET))
            continue;
        uint64_t fixed = with_copied(rc, old, cluster_of(q, old & ENTRY_OFFSET));
        store_be64(table + 8 * i, fixed);
        changed |= fixed != old;
    }
    return changed ? cache_write(q, offset, table, 0, q->cluster_size) : 0;
}

static int fix_flags(struct qcow2 *q, const struct recount *rc)
{
    for (uint32_t i = 0; i < q->l1_size; i++) {
        uint64_t offset = q->l1[i] & ENTRY_OFFSET;
        if (!offset)
            continue;
        int r = fix_l2(q, rc, offset);
        uint64_t fixed = with_copied(rc, q->l1[i], cluster_of(q, offset));
        uint8_t entry[8];
        store_be64(entry, fixed);
        if (r == 0 && fixed != q->l1[i])
            r = file_write(q->fd, entry, sizeof(entry), q->l1_offset + 8 * (uint64_t)i);
        if (r < 0)
            return r;
        q->l1[i] = fixed;
    }
    return 0;
}

bool qcow2_repair(struct qcow2 *q, struct error **err)
{
    struct recount rc = {.clusters = cluster_of(q, round_up(q->file_end, q->cluster_size))};
    if (rc.clusters > REPAIR_CLUSTERS_MAX)
        return too_damaged(q, "it has too many clusters; use 'qemu-img check -r all'", err);
    cleanup(mem) uint32_t *count = calloc(rc.clusters, sizeof(*count));
    if (!count)
        return too_damaged(q, "out of memory", err);
    rc.count = count;
    if (!count_all(q, &rc, err))
        return false;
    int r = store_counts(q, &rc);
    if (r == 0)
        r = fix_flags(q, &rc);
    if (r == 0 && sys.fdatasync(q->fd) < 0)
        r = -errno;
    if (r < 0) {
        error_set_errno(err, -r, "cannot repair qcow2 image '%s'", q->layer->path);
        return false;
    }
    q->free_hint = 0;
    q->stale = false;
    q->layer->dirty = false;
    return true;
}
