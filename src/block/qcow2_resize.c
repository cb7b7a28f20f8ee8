/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Growing and shrinking a qcow2 disk. Nothing is in flight, so everything is synchronous here. */
#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/qcow2.h"
#include "os/sys.h"

/* A larger L1 table goes to new clusters; the header's two fields switch over at once. */
static int grow_l1(struct qcow2 *q, uint64_t entries)
{
    uint64_t bytes = round_up(entries * 8, q->cluster_size);
    struct reservation r;
    if (bytes > L1_BYTES_MAX)
        return -EFBIG;
    cleanup(mem) uint64_t *l1 = calloc(entries, sizeof(*l1));
    cleanup(mem) uint8_t *disk = calloc(1, bytes);
    if (!l1 || !disk)
        return -ENOMEM;
    int e = clusters_reserve_all(q, bytes >> q->cluster_bits, &r);
    if (e < 0)
        return e;
    uint64_t first = r.first, count = r.count, at = first << q->cluster_bits;
    memcpy(l1, q->l1, q->l1_size * sizeof(*l1));
    for (uint64_t i = 0; i < entries; i++)
        store_be64(disk + 8 * i, l1[i]);
    uint8_t fields[12];
    store_be32(fields, (uint32_t)entries);
    store_be64(fields + 4, at);
    e = file_write(q->fd, disk, bytes, at);
    if (e == 0 && !set_add_range(&q->metadata, first, count))
        e = -ENOMEM;
    if (e == 0)
        e = refcount_add(q, first, count, 1);
    if (e == 0)
        e = file_write(q->fd, fields, sizeof(fields), HEADER_L1_SIZE);
    clusters_release(q, &r, e == 0);
    if (e < 0) {
        set_remove_range(&q->metadata, first, count);
        return e;
    }
    uint64_t old = cluster_of(q, q->l1_offset);
    uint64_t old_count = round_up((uint64_t)q->l1_size * 8, q->cluster_size) >> q->cluster_bits;
    free(q->l1);
    q->l1 = steal_ptr(&l1);
    q->l1_offset = at;
    q->l1_size = (uint32_t)entries;
    set_remove_range(&q->metadata, old, old_count);
    return refcount_add(q, old, old_count, -1);
}

static void punch(void *opaque, uint64_t first, uint64_t count)
{
    struct qcow2 *q = opaque;
    /* Only a service to the host's free space. */
    (void)sys.fallocate(q->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first << q->cluster_bits),
                        (off_t)(count << q->cluster_bits));
}

/* Gives up all whole clusters from `from` on. */
static int drop_clusters(struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint64_t at = round_up(from, q->cluster_size), end = round_up(to, q->cluster_size);
    while (at < end) {
        uint64_t in_table = l2_entries(q) - (cluster_of(q, at) & (l2_entries(q) - 1));
        uint64_t n = MIN(in_table, (end - at) >> q->cluster_bits);
        int r = 0;
        if (q->l1[at >> l1_shift(q)])
            r = qcow2_change_entries(
                q, &(struct entry_change){.offset = at, .count = n, .freed = punch, .opaque = q});
        if (r < 0)
            return r;
        at += n << q->cluster_bits;
    }
    return 0;
}

bool qcow2_resize(struct layer *l, uint64_t size, struct error **err)
{
    struct qcow2 *q = l->format;
    if (q->snapshots && (size < l->size || q->version < 3)) {
        error_set(err, ENOTSUP, "cannot resize '%s': it has internal snapshots", l->path);
        return false;
    }
    if (qcow2_bitmaps_rigid(q)) {
        error_set(err, ENOTSUP, "cannot resize '%s': it has a bitmap that is not understood", l->path);
        return false;
    }
    uint64_t entries = (size >> l1_shift(q)) + !!(size & (BIT(l1_shift(q)) - 1));
    uint8_t field[8];
    store_be64(field, size);
    int r = qcow2_begin_change(q);
    if (r == 0 && entries > q->l1_size)
        r = grow_l1(q, entries);
    if (r == 0 && size < l->size)
        r = drop_clusters(q, size, l->size);
    if (r == 0)
        r = file_write(q->fd, field, sizeof(field), HEADER_SIZE);
    if (r < 0) {
        error_set_errno(err, -r, "cannot resize '%s'", l->path);
        return false;
    }
    l->size = size;
    qcow2_bitmaps_resized(q, size);
    return true;
}
