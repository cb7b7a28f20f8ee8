/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The qcow2 header with its extensions: read once at opening, checked field by field, so that nothing later
 * needs to distrust it. Tables are only located here, not read.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/qcow2.h"

enum { BACKING_NAME_MAX = 1023, FEATURE_ENTRY = 48, FEATURE_NAME = 46, BITMAPS_LENGTH = 24 };

/* Every refusal reads "cannot open qcow2 image 'X': why". */
static bool refuse(const struct qcow2 *q, struct error **err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static bool refuse(const struct qcow2 *q, struct error **err, const char *fmt, ...)
{
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    error_set(err, EINVAL, "cannot open qcow2 image '%s': %s", q->layer->path, why);
    return false;
}

/* The name of incompatible feature `bit` in the image's own feature table; false when it has none. */
static bool feature_name(const struct qcow2 *q, const uint8_t *head, unsigned bit, char out[FEATURE_NAME + 1])
{
    for (uint64_t at = q->header_length; at + 8 <= q->cluster_size;) {
        uint32_t type = load_be32(head + at), len = load_be32(head + at + 4);
        at += 8;
        if (type == EXTENSION_END || len > q->cluster_size - at)
            return false;
        for (uint32_t e = 0; type == EXTENSION_FEATURES && e + FEATURE_ENTRY <= len; e += FEATURE_ENTRY) {
            if (head[at + e] != 0 || head[at + e + 1] != bit)
                continue;
            memcpy(out, head + at + e + 2, FEATURE_NAME);
            out[FEATURE_NAME] = 0;
            for (char *c = out; *c; c++)
                if (*c < ' ' || *c > '~')
                    *c = '?';
            return true;
        }
        at += round_up(len, 8);
    }
    return false;
}

static bool check_features(struct qcow2 *q, const uint8_t *head, struct error **err)
{
    uint64_t f = q->incompatible & ~INCOMPAT_KNOWN;
    if (f & INCOMPAT_DATA_FILE)
        return refuse(q, err, "external data files are not supported");
    if (f & INCOMPAT_EXTENDED_L2)
        return refuse(q, err, "extended L2 entries are not supported");
    if (f) {
        unsigned bit = (unsigned)__builtin_ctzll(f);
        char name[FEATURE_NAME + 1];
        if (feature_name(q, head, bit, name))
            return refuse(q, err, "it needs the unknown feature '%s'", name);
        return refuse(q, err, "it needs an unknown feature (incompatible bit %u)", bit);
    }
    if (load_be32(head + HEADER_CRYPT))
        return refuse(q, err, "encryption is not supported");
    if ((q->incompatible & INCOMPAT_COMPRESSION) != 0 && q->compression != COMPRESSION_ZSTD)
        return refuse(q, err, "unknown compression type %u", q->compression);
    if ((q->incompatible & INCOMPAT_COMPRESSION) == 0 && q->compression != COMPRESSION_ZLIB)
        return refuse(q, err, "compression type %u without its feature bit", q->compression);
    if (q->layer->corrupt && !q->layer->readonly)
        return refuse(q, err,
                      "it is marked as corrupt; repair it with 'qemu-img check -r all' or open it read-only");
    return true;
}

/* Version and sizes, on which the place of everything else depends. */
static bool read_geometry(struct qcow2 *q, const uint8_t *h, struct error **err)
{
    if (load_be32(h + HEADER_MAGIC) != QCOW2_MAGIC)
        return refuse(q, err, "it is not a qcow2 image");
    q->version = load_be32(h + HEADER_VERSION);
    if (q->version != 2 && q->version != 3)
        return refuse(q, err, "version %u is not supported", q->version);
    q->cluster_bits = load_be32(h + HEADER_CLUSTER_BITS);
    if (q->cluster_bits < 9 || q->cluster_bits > 21)
        return refuse(q, err, "clusters of 2^%u bytes are not possible", q->cluster_bits);
    q->cluster_size = BIT(q->cluster_bits);
    q->l2_bits = q->cluster_bits - 3;
    q->header_length = HEADER_V2_LENGTH;
    q->refcount_order = 4;
    if (q->version >= 3) {
        q->incompatible = load_be64(h + HEADER_INCOMPATIBLE);
        q->autoclear = load_be64(h + HEADER_AUTOCLEAR);
        q->refcount_order = load_be32(h + HEADER_REFCOUNT_ORDER);
        q->header_length = load_be32(h + HEADER_LENGTH);
    }
    if (q->version >= 3 && (q->header_length < HEADER_V3_LENGTH || q->header_length > q->cluster_size))
        return refuse(q, err, "a header of %u bytes is not possible", q->header_length);
    if (q->header_length > HEADER_COMPRESSION)
        q->compression = h[HEADER_COMPRESSION];
    if (q->refcount_order > 6)
        return refuse(q, err, "refcounts of 2^%u bits are not possible", q->refcount_order);
    q->refblock_bits = q->cluster_bits + 3 - q->refcount_order;
    q->layer->dirty = q->incompatible & INCOMPAT_DIRTY;
    q->layer->corrupt = q->incompatible & INCOMPAT_CORRUPT;
    return true;
}

/*
 * [offset, offset + bytes) is aligned to clusters and lies in the file. Only data may end with the file in
 * the middle of a cluster: what is missing of a table would read as "nothing is stored".
 */
static bool check_table(const struct qcow2 *q, const char *what, uint64_t offset, uint64_t bytes,
                        struct error **err)
{
    if (offset == 0 || offset & (q->cluster_size - 1))
        return refuse(q, err, "the %s is not at the start of a cluster", what);
    if (!range_fits(offset, bytes, q->file_end))
        return refuse(q, err, "it is truncated: the %s lies past the end of the file", what);
    return true;
}

static bool read_tables(struct qcow2 *q, const uint8_t *h, struct error **err)
{
    uint64_t size = load_be64(h + HEADER_SIZE);
    if (size > BLOCK_SIZE_MAX || size & 511)
        return refuse(q, err, "a disk of %" PRIu64 " bytes is not possible", size);
    q->layer->size = size;
    q->l1_size = load_be32(h + HEADER_L1_SIZE);
    q->l1_offset = load_be64(h + HEADER_L1_OFFSET);
    unsigned shift = l1_shift(q);
    if ((uint64_t)q->l1_size * 8 > L1_BYTES_MAX)
        return refuse(q, err, "an L1 table of %u entries is too large", q->l1_size);
    if (q->l1_size < (size >> shift) + !!(size & (BIT(shift) - 1)))
        return refuse(q, err, "its L1 table of %u entries is too small for a disk of %" PRIu64 " bytes",
                      q->l1_size, size);
    if (q->l1_size && !check_table(q, "L1 table", q->l1_offset, (uint64_t)q->l1_size * 8, err))
        return false;
    q->reftable_offset = load_be64(h + HEADER_REFTABLE_OFFSET);
    q->reftable_clusters = load_be32(h + HEADER_REFTABLE_CLUSTERS);
    uint64_t bytes = (uint64_t)q->reftable_clusters << q->cluster_bits;
    if (bytes == 0 || bytes > REFTABLE_BYTES_MAX)
        return refuse(q, err, "a refcount table of %u clusters is not possible", q->reftable_clusters);
    q->reftable_size = bytes / 8;
    if (!check_table(q, "refcount table", q->reftable_offset, bytes, err))
        return false;
    q->snapshots = load_be32(h + HEADER_SNAPSHOTS);
    q->snapshots_offset = load_be64(h + HEADER_SNAPSHOTS_OFFSET);
    if (q->snapshots > SNAPSHOTS_MAX)
        return refuse(q, err, "%u snapshots are too many", q->snapshots);
    return !q->snapshots || check_table(q, "snapshot table", q->snapshots_offset, 1, err);
}

static char *copy_text(const uint8_t *from, uint32_t len)
{
    return memchr(from, 0, len) ? NULL : strndup((const char *)from, len);
}

/* Only believed while all who write to the image know bitmaps; then it must be right. */
static bool read_bitmaps(struct qcow2 *q, const uint8_t *data, uint32_t len, struct error **err)
{
    if (!(q->autoclear & AUTOCLEAR_BITMAPS))
        return true;
    bool fits = len == BITMAPS_LENGTH && load_be32(data + 4) == 0;
    if (fits)
        q->bitmap_directory = (struct bitmap_directory){
            .count = load_be32(data), .size = load_be64(data + 8), .offset = load_be64(data + 16)};
    /* A damaged one does not keep anybody from reading. */
    return fits || q->layer->readonly || refuse(q, err, "the bitmaps extension is malformed");
}

static bool read_extensions(struct qcow2 *q, const uint8_t *head, struct error **err)
{
    uint64_t offset = load_be64(head + HEADER_BACKING_OFFSET);
    uint32_t length = load_be32(head + HEADER_BACKING_SIZE);
    uint64_t end = offset && length ? offset : q->cluster_size;
    for (uint64_t at = q->header_length; at + 8 <= end;) {
        uint32_t type = load_be32(head + at), len = load_be32(head + at + 4);
        at += 8;
        if (type == EXTENSION_END)
            break;
        if (at > end || len > end - at)
            return refuse(q, err, "a header extension is longer than the header");
        if (type == EXTENSION_BACKING_FORMAT && !q->layer->backing_format) {
            q->layer->backing_format = copy_text(head + at, len);
            if (!q->layer->backing_format)
                return refuse(q, err, "the name of the backing file's format is not text");
        }
        if (type == EXTENSION_BITMAPS && !read_bitmaps(q, head + at, len, err))
            return false;
        at += round_up(len, 8);
    }
    if (!offset || !length)
        return true;
    if (length > BACKING_NAME_MAX || offset < q->header_length ||
        !range_fits(offset, length, q->cluster_size))
        return refuse(q, err, "the name of the backing file is not in the header");
    q->layer->backing_name = copy_text(head + offset, length);
    return q->layer->backing_name || refuse(q, err, "the name of the backing file is not text");
}

bool qcow2_read_header(struct qcow2 *q, struct error **err)
{
    struct stat st;
    uint8_t h[HEADER_FULL_LENGTH];
    if (fstat(q->fd, &st) < 0 || !S_ISREG(st.st_mode))
        return refuse(q, err, "only a regular file can be one");
    q->file_end = (uint64_t)st.st_size;
    if (q->file_end < HEADER_V2_LENGTH)
        return refuse(q, err, "it is truncated: %" PRIu64 " bytes are no header", q->file_end);
    int r = file_read(q->fd, h, sizeof(h), 0);
    if (r < 0)
        return refuse(q, err, "%s", strerror(-r));
    if (!read_geometry(q, h, err))
        return false;
    cleanup(mem) uint8_t *head = malloc(q->cluster_size);
    if (!head)
        return refuse(q, err, "out of memory");
    r = file_read(q->fd, head, q->cluster_size, 0);
    if (r < 0)
        return refuse(q, err, "%s", strerror(-r));
    return check_features(q, head, err) && read_tables(q, h, err) && read_extensions(q, head, err);
}

int qcow2_write_features(struct qcow2 *q, uint64_t incompatible)
{
    uint8_t field[8];
    if (q->version < 3)
        return 0;
    store_be64(field, incompatible);
    int r = file_write(q->fd, field, sizeof(field), HEADER_INCOMPATIBLE);
    if (r == 0)
        q->incompatible = incompatible;
    return r;
}

/* --- Writing the extensions anew. --- */

struct header_draft {
    uint8_t *data; /* one cluster, zeroes from `used` on */
    uint64_t used, size;
};

/* Adds an extension, padded to 8 bytes. False: no room. */
static bool add_extension(struct header_draft *d, uint32_t type, const uint8_t *data, uint32_t len)
{
    uint64_t padded = 8 + round_up(len, 8);
    if (padded > d->size - d->used)
        return false;
    store_be32(d->data + d->used, type);
    store_be32(d->data + d->used + 4, len);
    memcpy(d->data + d->used + 8, data, len);
    d->used += padded;
    return true;
}

/* All extensions of the header `old` but the bitmaps; gives where they end there. */
static bool copy_extensions(const struct qcow2 *q, const uint8_t *old, struct header_draft *d)
{
    uint64_t name = load_be64(old + HEADER_BACKING_OFFSET), end = name ? name : q->cluster_size;
    for (uint64_t at = q->header_length; at + 8 <= end;) {
        uint32_t type = load_be32(old + at), len = load_be32(old + at + 4);
        at += 8;
        if (type == EXTENSION_END)
            break;
        if (len > end - at || (type != EXTENSION_BITMAPS && !add_extension(d, type, old + at, len)))
            return false;
        at += round_up(len, 8);
    }
    return true;
}

static bool fill_draft(const struct qcow2 *q, const uint8_t *old, const struct bitmap_directory *b,
                       struct header_draft *d)
{
    uint8_t data[BITMAPS_LENGTH] = {0}, none[1] = {0};
    uint64_t name = load_be64(old + HEADER_BACKING_OFFSET);
    uint32_t name_length = load_be32(old + HEADER_BACKING_SIZE);
    memcpy(d->data, old, q->header_length);
    d->used = q->header_length;
    store_be64(d->data + HEADER_AUTOCLEAR, b->size ? AUTOCLEAR_BITMAPS : 0);
    store_be32(data, b->count);
    store_be64(data + 8, b->size);
    store_be64(data + 16, b->offset);
    if (!copy_extensions(q, old, d) ||
        (b->size && !add_extension(d, EXTENSION_BITMAPS, data, sizeof(data))) ||
        !add_extension(d, EXTENSION_END, none, 0))
        return false;
    if (!name || !name_length)
        return true;
    if (name_length > d->size - d->used)
        return false;
    store_be64(d->data + HEADER_BACKING_OFFSET, d->used);
    memcpy(d->data + d->used, old + name, name_length);
    d->used += name_length;
    return true;
}

int qcow2_write_bitmap_directory(struct qcow2 *q, const struct bitmap_directory *directory)
{
    cleanup(mem) uint8_t *old = malloc(q->cluster_size);
    cleanup(mem) uint8_t *new = calloc(1, q->cluster_size);
    struct header_draft draft = {.data = new, .size = q->cluster_size};
    if (!old || !new)
        return -ENOMEM;
    int r = file_read(q->fd, old, q->cluster_size, 0);
    if (r < 0)
        return r;
    if (!fill_draft(q, old, directory, &draft))
        return -ENOSPC;
    uint64_t end = q->cluster_size;
    while (end && new[end - 1] == old[end - 1])
        end--;
    r = file_write(q->fd, new, end, 0);
    if (r < 0)
        return r;
    q->autoclear = load_be64(new + HEADER_AUTOCLEAR);
    q->bitmap_directory = *directory;
    return 0;
}
