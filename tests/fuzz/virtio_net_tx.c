/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames that a guest sends, with the work that it leaves to the card: parsing, checksums and segmentation
 * over a buffer of the exact size. Every piece must be within the limit.
 */
#include <stdlib.h>

#include "base/util.h"
#include "device/virtio/net_offload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void emit(void *opaque, const struct iovec *iov, int count)
{
    const size_t *limit = opaque;
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        const volatile uint8_t *p = iov[i].iov_base; /* reading it is what shows a wild piece */
        len += iov[i].iov_len;
        for (size_t k = 0; k < iov[i].iov_len; k++)
            (void)p[k];
    }
    if (len > *limit)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t head = 8;
    if (size < head)
        return 0;
    size_t len = size - head, limit = load_le16(data + 2);
    uint8_t *frame = malloc(len ? len : 1);
    if (!frame)
        return 0;
    memcpy(frame, data + head, len);
    net_flow_hash(frame, len);
    net_complete_checksum(frame, len, load_le16(data + 4), load_le16(data + 6));
    memcpy(frame, data + head, len);
    net_segment(frame, len, data[7] & 1, load_le16(data), limit, emit, &limit);
    free(frame);
    return 0;
}
