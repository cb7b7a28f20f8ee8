/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What virtqueue.c and virtqueue_packed.c share. */
#ifndef DEVICE_VIRTIO_VIRTQUEUE_RING_H
#define DEVICE_VIRTIO_VIRTQUEUE_RING_H

#include "device/virtio/virtqueue.h"

/* A descriptor read from the ring, once. `id`: next of a split one, buffer id of a packed one. */
struct ring_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, id;
};

/* A chain while it is walked. */
struct chain {
    unsigned out, in; /* buffers; `in` ones follow `out` ones in iov and gpa */
    size_t out_len, in_len;
    uint16_t id, slots;
    struct iovec iov[VIRTQUEUE_SEGMENTS_MAX];
    uint64_t gpa[VIRTQUEUE_SEGMENTS_MAX];
};

/* Adds a buffer; false: broken. */
bool chain_add(struct virtqueue *vq, struct chain *c, const struct ring_desc *d);
/* The table that an indirect descriptor means, and its length in descriptors; NULL: broken. */
const uint8_t *chain_indirect(struct virtqueue *vq, const struct ring_desc *d, unsigned *count);
bool event_passed(uint16_t event, uint16_t now, uint16_t count);

bool packed_pop(struct virtqueue *vq, struct chain *c);
void packed_rewind(struct virtqueue *vq, uint16_t slots);
bool packed_available(const struct virtqueue *vq);
void packed_fill(struct virtqueue *vq, uint16_t id, uint32_t len);
void packed_flush(struct virtqueue *vq);
bool packed_wants_interrupt(const struct virtqueue *vq);
void packed_set_kicks(struct virtqueue *vq, bool on);

#endif
