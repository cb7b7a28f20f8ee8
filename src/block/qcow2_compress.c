/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compressed clusters: zlib (raw deflate) and zstd. The last few are kept, as guests read them in smaller
 * pieces. The input is untrusted: whatever does not give exactly one cluster is an I/O error.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/log.h"
#include "block/qcow2.h"

static bool inflate_cluster(struct qcow2 *q, uint8_t *out, uint64_t in_length)
{
    z_stream z = {.next_in = q->compressed,
                  .avail_in = (uInt)in_length,
                  .next_out = out,
                  .avail_out = (uInt)q->cluster_size};
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return false;
    int r = inflate(&z, Z_FINISH);
    /* What follows the stream is padding up to a sector; some writers leave no end mark. */
    bool ok = (r == Z_STREAM_END || r == Z_BUF_ERROR || r == Z_OK) && z.avail_out == 0;
    inflateEnd(&z);
    return ok;
}

static bool unzstd_cluster(struct qcow2 *q, uint8_t *out, uint64_t in_length)
{
    ZSTD_inBuffer in = {.src = q->compressed, .size = in_length};
    ZSTD_outBuffer to = {.dst = out, .size = q->cluster_size};
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    if (!ctx)
        return false;
    /* A cluster may be several frames; padding after the last is never looked at. */
    size_t left = 1;
    while (to.pos < to.size && in.pos < in.size && !ZSTD_isError(left)) {
        size_t in_before = in.pos, out_before = to.pos;
        left = ZSTD_decompressStream(ctx, &to, &in);
        if (in.pos == in_before && to.pos == out_before)
            break;
    }
    ZSTD_freeDCtx(ctx);
    return !ZSTD_isError(left) && to.pos == to.size;
}

static struct decompressed *slot_for(struct qcow2 *q, uint64_t entry, bool *hit)
{
    struct decompressed *oldest = &q->decompressed[0];
    for (unsigned i = 0; i < DECOMPRESSED_MAX; i++) {
        struct decompressed *d = &q->decompressed[i];
        if (d->entry == entry) {
            *hit = true;
            return d;
        }
        if (d->used < oldest->used)
            oldest = d;
    }
    *hit = false;
    return oldest;
}

int qcow2_decompress(struct layer *l, uint64_t entry, const uint8_t **data)
{
    struct qcow2 *q = l->format;
    bool hit;
    struct decompressed *d = slot_for(q, entry, &hit);
    d->used = ++q->decompress_clock;
    *data = d->data;
    if (hit)
        return 0;
    uint64_t offset, length;
    compressed_span(q, entry, &offset, &length);
    d->entry = 0;
    if (!q->compressed)
        q->compressed = malloc(2 * q->cluster_size + 512);
    if (!d->data)
        d->data = malloc(q->cluster_size);
    if (!q->compressed || !d->data)
        return -ENOMEM;
    int r = file_read(q->fd, q->compressed, length, offset);
    if (r < 0)
        return r;
    if (!(q->compression == COMPRESSION_ZSTD ? unzstd_cluster(q, d->data, length)
                                             : inflate_cluster(q, d->data, length))) {
        log_guest(LOG_ERROR, "image '%s' is damaged: the compressed cluster at %#llx does not unpack",
                  l->path, (unsigned long long)offset);
        return -EIO;
    }
    d->entry = entry;
    *data = d->data;
    return 0;
}

void qcow2_decompress_free(struct qcow2 *q)
{
    for (unsigned i = 0; i < DECOMPRESSED_MAX; i++)
        free(q->decompressed[i].data);
    free(q->compressed);
}
