/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Internal snapshots. Ruche does not make them, but keeps those that are there intact: their tables are never
 * written to, and their clusters are counted when an image is repaired.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/qcow2.h"

/* An entry of the snapshot table: fixed part, then extra data, id and name, padded to 8 bytes. */
enum { SNAPSHOT_FIXED = 40, SNAPSHOT_TABLE_MAX = 64 << 20 };

static bool bad_table(struct qcow2 *q, struct error **err)
{
    error_set(err, EINVAL, "cannot open qcow2 image '%s': the snapshot table is malformed", q->layer->path);
    return false;
}

bool qcow2_each_snapshot(struct qcow2 *q,
                         bool (*fn)(struct qcow2 *q, const struct qcow2_snapshot *s, void *opaque,
                                    struct error **err),
                         void *opaque, struct error **err)
{
    uint64_t at = q->snapshots_offset;
    for (uint32_t i = 0; i < q->snapshots; i++) {
        uint8_t e[SNAPSHOT_FIXED];
        if (at - q->snapshots_offset > SNAPSHOT_TABLE_MAX || !range_fits(at, sizeof(e), q->file_end) ||
            file_read(q->fd, e, sizeof(e), at) < 0)
            return bad_table(q, err);
        struct qcow2_snapshot s = {.l1_offset = load_be64(e), .l1_size = load_be32(e + 8)};
        if ((uint64_t)s.l1_size * 8 > L1_BYTES_MAX || s.l1_offset & (q->cluster_size - 1) ||
            !range_fits(s.l1_offset, (uint64_t)s.l1_size * 8, q->file_end))
            return bad_table(q, err);
        uint64_t length =
            SNAPSHOT_FIXED + (uint64_t)load_be32(e + 36) + load_be16(e + 12) + load_be16(e + 14);
        at += round_up(length, 8);
        if (!fn(q, &s, opaque, err))
            return false;
    }
    q->snapshots_length = at - q->snapshots_offset;
    return q->snapshots_length <= SNAPSHOT_TABLE_MAX || bad_table(q, err);
}

static bool protect(struct qcow2 *q, const struct qcow2_snapshot *s, void *opaque, struct error **err)
{
    (void)opaque;
    uint64_t clusters = round_up((uint64_t)s->l1_size * 8, q->cluster_size) >> q->cluster_bits;
    if (set_add_range(&q->metadata, cluster_of(q, s->l1_offset), clusters))
        return true;
    error_set_errno(err, ENOMEM, "cannot open qcow2 image '%s'", q->layer->path);
    return false;
}

bool qcow2_read_snapshots(struct qcow2 *q, struct error **err)
{
    if (!q->snapshots)
        return true;
    if (!qcow2_each_snapshot(q, protect, NULL, err))
        return false;
    uint64_t clusters = round_up(q->snapshots_length, q->cluster_size) >> q->cluster_bits;
    if (!set_add_range(&q->metadata, cluster_of(q, q->snapshots_offset), clusters)) {
        error_set_errno(err, ENOMEM, "cannot open qcow2 image '%s'", q->layer->path);
        return false;
    }
    return true;
}
