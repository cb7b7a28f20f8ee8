/* SPDX-License-Identifier: GPL-2.0-or-later */
/* query-block (QEMU qapi/block-core.json, BlockInfo). */
#include "block/block.h"
#include "vmm/qmp.h"

static json_t *image_of(const struct control_block *b)
{
    json_t *o =
        json_pack("{s:s, s:s, s:I, s:I, s:b}", "filename", b->path, "format", b->format, "virtual-size",
                  (json_int_t)b->size, "actual-size", (json_int_t)b->allocated, "dirty-flag", b->dirty);

    if (b->cluster_size)
        json_object_set_new(o, "cluster-size", json_integer(b->cluster_size));
    if (b->backing)
        json_object_set_new(o, "backing-filename", json_string(b->backing));
    return o;
}

/* Limits on throughput are part of every reply; there are none. */
static json_t *inserted_of(const struct control_block *b)
{
    static const char *const limits[] = {"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr", NULL};
    json_t *cache = json_pack("{s:b, s:b, s:b}", "writeback", true, "direct", false, "no-flush", false);
    json_t *o =
        json_pack("{s:s, s:b, s:s, s:b, s:s, s:i, s:I, s:o, s:o}", "file", b->path, "ro", b->readonly, "drv",
                  b->format, "encrypted", false, "detect_zeroes", "off", "backing_file_depth",
                  b->backing ? 1 : 0, "write_threshold", (json_int_t)0, "cache", cache, "image", image_of(b));

    for (int i = 0; limits[i]; i++)
        json_object_set_new(o, limits[i], json_integer(0));
    if (b->backing)
        json_object_set_new(o, "backing_file", json_string(b->backing));
    return o;
}

static json_t *bitmaps_of(struct qmp_call *call, unsigned disk)
{
    json_t *list = json_array();
    struct block_bitmap m;

    for (unsigned i = 0; call->ops->bitmap_info(call->opaque, disk, i, &m); i++) {
        json_t *o = json_pack("{s:s, s:I, s:I, s:b, s:b, s:b}", "name", m.name, "granularity",
                              (json_int_t)m.granularity, "count", (json_int_t)m.dirty, "recording",
                              m.recording, "busy", false, "persistent", true);
        if (o && m.inconsistent)
            json_object_set_new(o, "inconsistent", json_true());
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *query_block(struct qmp_call *call, struct error **err)
{
    json_t *list = json_array();
    struct control_block b;

    for (unsigned i = 0; call->ops->block_info(call->opaque, i, &b); i++) {
        json_t *inserted = inserted_of(&b);
        json_t *bitmaps = bitmaps_of(call, i);
        if (json_array_size(bitmaps))
            json_object_set(inserted, "dirty-bitmaps", bitmaps);
        json_decref(bitmaps);
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:b, s:b, s:s, s:s, s:o}", "device", b.id, "qdev", b.id,
                                        "locked", false, "removable", false, "type", "unknown", "io-status",
                                        b.corrupt ? "failed" : "ok", "inserted", inserted));
    }
    return list;
}

const struct qmp_command qmp_block_commands[] = {
    {"query-block", query_block},
    {NULL, NULL},
};
