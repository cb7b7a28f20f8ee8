/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making a qcow2 image: version 3, clusters of 64 KiB, 16-bit refcounts. Cluster 0 is the header, 1 the
 * refcount table, 2 the first refcount block, 3 and on the L1 table, all empty.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/qcow2.h"

enum {
    NEW_CLUSTER_BITS = 16,
    NEW_CLUSTER = 1 << NEW_CLUSTER_BITS,
    NEW_REFCOUNT_ORDER = 4,
    NEW_L1_CLUSTER = 3
};
enum { BACKING_NAME_MAX = 1023 };

/* Appends a header extension; returns its end. */
static size_t put_extension(uint8_t *head, size_t at, uint32_t type, const void *data, uint32_t len)
{
    store_be32(head + at, type);
    store_be32(head + at + 4, len);
    memcpy(head + at + 8, data, len);
    return at + 8 + round_up(len, 8);
}

/* The names by which others can say what an image needs that they do not know. */
static size_t put_feature_names(uint8_t *head, size_t at)
{
    static const struct {
        uint8_t type, bit;
        char name[46];
    } names[] = {
        {0, 0, "dirty bit"}, {0, 1, "corrupt bit"}, {0, 3, "compression type"}, {1, 0, "lazy refcounts"}};
    return put_extension(head, at, EXTENSION_FEATURES, names, sizeof(names));
}

static void fill_header(uint8_t *head, uint64_t size, uint32_t l1_size, const char *backing,
                        const char *backing_format)
{
    store_be32(head + HEADER_MAGIC, QCOW2_MAGIC);
    store_be32(head + HEADER_VERSION, 3);
    store_be32(head + HEADER_CLUSTER_BITS, NEW_CLUSTER_BITS);
    store_be64(head + HEADER_SIZE, size);
    store_be32(head + HEADER_L1_SIZE, l1_size);
    store_be64(head + HEADER_L1_OFFSET, (uint64_t)NEW_L1_CLUSTER * NEW_CLUSTER);
    store_be64(head + HEADER_REFTABLE_OFFSET, NEW_CLUSTER);
    store_be32(head + HEADER_REFTABLE_CLUSTERS, 1);
    store_be32(head + HEADER_REFCOUNT_ORDER, NEW_REFCOUNT_ORDER);
    store_be32(head + HEADER_LENGTH, HEADER_FULL_LENGTH);
    size_t at = HEADER_FULL_LENGTH;
    if (backing)
        at = put_extension(head, at, EXTENSION_BACKING_FORMAT, backing_format,
                           (uint32_t)strlen(backing_format));
    at = put_feature_names(head, at);
    at = put_extension(head, at, EXTENSION_END, "", 0);
    if (backing) {
        store_be64(head + HEADER_BACKING_OFFSET, at);
        store_be32(head + HEADER_BACKING_SIZE, (uint32_t)strlen(backing));
        memcpy(head + at, backing, strlen(backing));
    }
}

bool qcow2_create(int fd, const char *path, uint64_t size, const char *backing, const char *backing_format,
                  struct error **err)
{
    uint64_t per_l2 = (uint64_t)NEW_CLUSTER * (NEW_CLUSTER / 8);
    uint64_t l1_bytes = (size / per_l2 + !!(size % per_l2)) * 8;
    uint64_t l1_clusters = round_up(l1_bytes, NEW_CLUSTER) / NEW_CLUSTER;
    uint64_t clusters = NEW_L1_CLUSTER + l1_clusters;
    if (l1_bytes > L1_BYTES_MAX) {
        error_set(err, EFBIG, "cannot make '%s': a qcow2 disk can have at most 2 PiB here", path);
        return false;
    }
    if (backing && (strlen(backing) > BACKING_NAME_MAX || !*backing)) {
        error_set(err, EINVAL, "cannot make '%s': the name of the backing file is empty or too long", path);
        return false;
    }
    cleanup(mem) uint8_t *image = calloc(clusters, NEW_CLUSTER);
    if (!image) {
        error_set_errno(err, ENOMEM, "cannot make '%s'", path);
        return false;
    }
    fill_header(image, size, (uint32_t)(l1_bytes / 8), backing, backing_format);
    store_be64(image + NEW_CLUSTER, 2 * NEW_CLUSTER);
    for (uint64_t i = 0; i < clusters; i++)
        store_be16(image + 2 * NEW_CLUSTER + 2 * i, 1);
    int r = file_write(fd, image, clusters * NEW_CLUSTER, 0);
    if (r < 0)
        error_set_errno(err, -r, "cannot make disk image '%s'", path);
    return r == 0;
}
