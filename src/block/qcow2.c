/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The qcow2 format: opening and closing. See qcow2.h for how the parts fit. */
#include "block/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "os/sys.h"

static bool qcow2_probe(const uint8_t *head, size_t len)
{
    if (len < 8 || load_be32(head) != QCOW2_MAGIC)
        return false;
    uint32_t version = load_be32(head + HEADER_VERSION);
    return version >= 2;
}

static bool fail(const struct qcow2 *q, int code, struct error **err)
{
    error_set_errno(err, code, "cannot open qcow2 image '%s'", q->layer->path);
    return false;
}

static bool malformed(const struct qcow2 *q, const char *why, struct error **err)
{
    error_set(err, EINVAL, "cannot open qcow2 image '%s': %s", q->layer->path, why);
    return false;
}

static uint64_t *load_table(struct qcow2 *q, uint64_t offset, uint64_t entries, struct error **err)
{
    cleanup(mem) uint8_t *disk = malloc(entries * 8 + 1);
    uint64_t *host = malloc(entries * 8 + 1);
    int r = disk && host ? file_read(q->fd, disk, entries * 8, offset) : -ENOMEM;
    if (r < 0) {
        fail(q, -r, err);
        free(host);
        return NULL;
    }
    for (uint64_t i = 0; i < entries; i++)
        host[i] = load_be64(disk + 8 * i);
    return host;
}

bool qcow2_claim(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct error **err)
{
    uint64_t first = cluster_of(q, offset), count = round_up(bytes, q->cluster_size) >> q->cluster_bits;
    for (uint64_t i = 0; i < count; i++) {
        if (set_has(&q->metadata, first + i))
            return malformed(q, "two of its tables lie in the same place", err);
        if (!set_add(&q->metadata, first + i))
            return fail(q, ENOMEM, err);
    }
    return true;
}

static bool read_l1(struct qcow2 *q, struct error **err)
{
    q->l1 = load_table(q, q->l1_offset, q->l1_size, err);
    if (!q->l1)
        return false;
    for (uint32_t i = 0; i < q->l1_size; i++) {
        uint64_t e = q->l1[i], offset = e & ENTRY_OFFSET;
        if (e & L1_RESERVED)
            return malformed(q, "reserved bits are set in its L1 table", err);
        if (!offset) {
            q->l1[i] = 0;
            continue;
        }
        if (offset & (q->cluster_size - 1))
            return malformed(q, "its L1 table points between clusters", err);
        if (!range_fits(offset, q->cluster_size, q->file_end))
            return malformed(q, "it is truncated: an L2 table lies past the end of the file", err);
        if (!qcow2_claim(q, offset, q->cluster_size, err))
            return false;
    }
    return true;
}

static bool read_reftable(struct qcow2 *q, struct error **err)
{
    q->reftable = load_table(q, q->reftable_offset, q->reftable_size, err);
    if (!q->reftable)
        return false;
    for (uint64_t i = 0; i < q->reftable_size; i++) {
        uint64_t e = q->reftable[i];
        if (e & (q->cluster_size - 1))
            return malformed(q, "its refcount table points between clusters", err);
        if (e && !range_fits(e, q->cluster_size, q->file_end))
            return malformed(q, "it is truncated: a refcount block lies past the end of the file", err);
        if (e && !qcow2_claim(q, e, q->cluster_size, err))
            return false;
    }
    return true;
}

static void qcow2_free(struct qcow2 *q)
{
    if (q->hash)
        cache_free(q);
    qcow2_bitmaps_free(q);
    set_free(&q->metadata);
    qcow2_decompress_free(q);
    free(q->l1);
    free(q->reftable);
    free(q);
}

/* While another process writes it, its tables are not those of one instant. They are read when it is taken.
 */
static bool stands_in(const struct layer *l)
{
    return l->block->away && l->readonly && !l->above;
}

static bool open_tables(struct qcow2 *q, struct error **err)
{
    if (!qcow2_read_header(q, err))
        return false;
    if (!cache_init(q))
        return fail(q, ENOMEM, err);
    if (!qcow2_claim(q, 0, q->cluster_size, err) ||
        !qcow2_claim(q, q->l1_offset, (uint64_t)q->l1_size * 8, err))
        return false;
    /* A damaged refcount table or snapshot table does not keep anybody from reading. */
    if (!q->layer->readonly &&
        (!qcow2_claim(q, q->reftable_offset, q->reftable_size * 8, err) || !read_reftable(q, err) ||
         !qcow2_read_snapshots(q, err) || !qcow2_bitmaps_load(q, err)))
        return false;
    if (stands_in(q->layer)) {
        q->l1 = calloc(q->l1_size, sizeof(*q->l1));
        return q->l1 || fail(q, ENOMEM, err);
    }
    if (!read_l1(q, err))
        return false;
    q->fresh = cluster_of(q, round_up(q->file_end, q->cluster_size));
    return qcow2_check_tables(q, err);
}

static bool qcow2_open(struct layer *l, struct error **err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    if (!q) {
        error_set_errno(err, ENOMEM, "cannot open qcow2 image '%s'", l->path);
        return false;
    }
    q->layer = l;
    q->fd = l->fd;
    q->waiting_tail = &q->waiting;
    if (!open_tables(q, err)) {
        qcow2_free(q);
        return false;
    }
    l->format = q;
    l->cluster_size = (unsigned)q->cluster_size;
    return true;
}

/* An untouched disk on top of one of the same size shows the same. */
static bool shows_what_is_below(const struct qcow2 *q)
{
    const struct layer *l = q->layer, *below = l->backing;
    if (!below || below->ops != &qcow2_ops || below->size != l->size)
        return false;
    for (uint32_t i = 0; i < q->l1_size; i++)
        if (q->l1[i])
            return false;
    return true;
}

static void inherit_bitmaps(struct qcow2 *q)
{
    struct qcow2 *below = q->layer->backing->format;
    /* Those that cannot be read cannot be used either. */
    if (below->bitmaps || qcow2_bitmaps_load(below, NULL))
        qcow2_bitmaps_hand_over(below->layer, q->layer);
}

static bool qcow2_open_for_write(struct layer *l, struct error **err)
{
    struct qcow2 *q = l->format;
    if (!q->bitmap_directory.size && shows_what_is_below(q))
        inherit_bitmaps(q);
    if (!l->dirty && !q->stale)
        return true;
    log_line(LOG_WARN, "image '%s' was not closed properly: recounting its clusters", l->path);
    if (qcow2_begin_change(q) < 0)
        return fail(q, EIO, err);
    if (qcow2_repair(q, err))
        return true;
    q->changed = false; /* it stays as it is, dirty */
    return false;
}

int qcow2_begin_change(struct qcow2 *q)
{
    if (q->changed)
        return 0;
    uint8_t field[8];
    /* The other autoclear bits vouch for data that we do not keep up to date. */
    uint64_t known = q->bitmap_directory.size ? q->autoclear & AUTOCLEAR_BITMAPS : 0;
    store_be64(field, known);
    int r = qcow2_bitmaps_begin(q);
    if (r == 0 && q->version >= 3 && q->autoclear != known)
        r = file_write(q->fd, field, sizeof(field), HEADER_AUTOCLEAR);
    if (r == 0)
        q->autoclear = known;
    if (r == 0)
        r = qcow2_write_features(q, q->incompatible | INCOMPAT_DIRTY);
    if (r == 0 && q->version >= 3 && !file_is_nameless(q->fd) && sys.fdatasync(q->fd) < 0)
        r = -errno;
    q->changed = r == 0;
    return r;
}

/* Gives back the room by which the file was extended ahead of need, and clears the dirty bit once all else is
 * durable. */
static int qcow2_settle(struct layer *l)
{
    struct qcow2 *q = l->format;
    int r = qcow2_bitmaps_unsaved(q) ? qcow2_begin_change(q) : 0;
    if (!q->changed)
        return r;
    r = qcow2_bitmaps_store(q);
    uint64_t end = q->fresh << q->cluster_bits;
    if (r < 0)
        return r;
    if (end < q->file_end && sys.ftruncate(q->fd, (off_t)end) < 0)
        return -errno;
    q->file_end = MIN(q->file_end, end);
    if (!file_is_nameless(q->fd) && sys.fdatasync(q->fd) < 0)
        return -errno;
    r = qcow2_write_features(q, q->incompatible & ~INCOMPAT_DIRTY);
    q->changed = r < 0;
    return r;
}

static void qcow2_close(struct layer *l)
{
    struct qcow2 *q = l->format;
    int r = l->readonly || (l->block && l->block->broken) ? 0 : qcow2_settle(l);
    if (r < 0)
        log_line(LOG_WARN, "image '%s' was not closed properly: %s", l->path, strerror(-r));
    qcow2_free(q);
}

const struct block_ops qcow2_ops = {
    .name = "qcow2",
    .probe = qcow2_probe,
    .open = qcow2_open,
    .open_for_write = qcow2_open_for_write,
    .map = qcow2_map,
    .decompress = qcow2_decompress,
    .read = qcow2_read,
    .submit = qcow2_submit,
    .poll = qcow2_poll,
    .settle = qcow2_settle,
    .bitmap = qcow2_bitmap,
    .hand_over = qcow2_bitmaps_hand_over,
    .resize = qcow2_resize,
    .close = qcow2_close,
    .create = qcow2_create,
};
