/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packed rings (virtio 1.2, section 2.8): one ring of descriptors that the driver makes available and the
 * device overwrites with used ones; the AVAIL and USED bits of each tell, with wrap counters, whose it is.
 */
#include "base/util.h"
#include "device/virtio/virtio.h"
#include "device/virtio/virtqueue_ring.h"

#define DESC_SIZE   16
#define DESC_LEN    8
#define DESC_ID     12
#define DESC_FLAGS  14
#define FLAG_AVAIL  (1u << VRING_PACKED_DESC_F_AVAIL)
#define FLAG_USED   (1u << VRING_PACKED_DESC_F_USED)
#define EVENT_OFF   0
#define EVENT_FLAGS 2
#define WRAP_BIT    (1u << VRING_PACKED_EVENT_F_WRAP_CTR)

static uint16_t load_flags(const struct virtqueue *vq, unsigned at)
{
    const uint8_t *flags = vq->desc + (size_t)at * DESC_SIZE + DESC_FLAGS;
    /* Pairs with the driver's barrier between writing a chain and the flags of its first descriptor. */
    return __atomic_load_n((const uint16_t *)(const void *)flags, __ATOMIC_ACQUIRE);
}

static struct ring_desc read_desc(const uint8_t *table, unsigned at)
{
    uint8_t raw[DESC_SIZE];
    memcpy(raw, table + (size_t)at * DESC_SIZE, sizeof(raw));
    /* The compiler must not read the guest's memory a second time. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return (struct ring_desc){
        .addr = load_le64(raw),
        .len = load_le32(raw + DESC_LEN),
        .flags = load_le16(raw + DESC_FLAGS),
        .id = load_le16(raw + DESC_ID),
    };
}

/* Moves a position forward; true when it wrapped. */
static bool advance(const struct virtqueue *vq, uint16_t *at, unsigned slots)
{
    unsigned next = *at + slots;
    bool wrapped = next >= vq->size;
    *at = (uint16_t)(wrapped ? next - vq->size : next);
    return wrapped;
}

bool packed_available(const struct virtqueue *vq)
{
    uint16_t flags = load_flags(vq, vq->last_avail);
    bool avail = flags & FLAG_AVAIL, used = flags & FLAG_USED;
    return avail == vq->avail_wrap && used != vq->avail_wrap;
}

/* All entries of an indirect table are used, in order; only their WRITE flag counts (section 2.8.7). */
static bool add_indirect(struct virtqueue *vq, struct chain *c, const struct ring_desc *d)
{
    unsigned count;
    const uint8_t *table = chain_indirect(vq, d, &count);
    if (!table)
        return false;
    for (unsigned i = 0; i < count; i++) {
        struct ring_desc entry = read_desc(table, i);
        if (entry.flags & VRING_DESC_F_INDIRECT) {
            virtio_broken(vq->vdev, "queue %u: indirect descriptor in an indirect table", vq->index);
            return false;
        }
        if (!chain_add(vq, c, &entry))
            return false;
    }
    return true;
}

bool packed_pop(struct virtqueue *vq, struct chain *c)
{
    if (!packed_available(vq))
        return false;
    uint16_t at = vq->last_avail;
    for (c->slots = 1; c->slots <= vq->size; c->slots++) {
        struct ring_desc d = read_desc(vq->desc, at);
        if (!(d.flags & VRING_DESC_F_INDIRECT ? add_indirect(vq, c, &d) : chain_add(vq, c, &d)))
            return false;
        if (!(d.flags & VRING_DESC_F_NEXT)) {
            c->id = d.id; /* the last descriptor's counts */
            vq->avail_wrap ^= advance(vq, &vq->last_avail, c->slots);
            return true;
        }
        advance(vq, &at, 1);
    }
    virtio_broken(vq->vdev, "queue %u: descriptor chain longer than the ring", vq->index);
    return false;
}

void packed_rewind(struct virtqueue *vq, uint16_t slots)
{
    if (vq->last_avail < slots) {
        vq->last_avail = (uint16_t)(vq->last_avail + vq->size);
        vq->avail_wrap = !vq->avail_wrap;
    }
    vq->last_avail = (uint16_t)(vq->last_avail - slots);
}

/* Writes the used descriptor that lies `ahead` slots after the used position. */
static void write_used(struct virtqueue *vq, unsigned ahead, uint16_t id, uint32_t len)
{
    uint16_t at = vq->used_idx;
    bool wrap = vq->used_wrap ^ advance(vq, &at, ahead);
    uint8_t *d = vq->desc + (size_t)at * DESC_SIZE;
    uint16_t flags = (uint16_t)((wrap ? FLAG_AVAIL | FLAG_USED : 0) | (len ? VRING_DESC_F_WRITE : 0));
    store_le32(d + DESC_LEN, len);
    store_le16(d + DESC_ID, id);
    /* The flags hand it to the driver: after id and length (and the data). */
    __atomic_store_n((uint16_t *)(void *)(d + DESC_FLAGS), flags, __ATOMIC_RELEASE);
    guest_mark_written(vq->vdev->pci.dev.machine->memory, vq->desc_gpa + (uint64_t)at * DESC_SIZE, DESC_SIZE);
}

/* The driver looks at used descriptors in order: what follows one that is not yet used stays unseen. */
void packed_fill(struct virtqueue *vq, uint16_t id, uint32_t len)
{
    if (vq->filled) {
        write_used(vq, vq->filled_slots, id, len);
        return;
    }
    vq->first_id = id;
    vq->first_len = len;
}

void packed_flush(struct virtqueue *vq)
{
    write_used(vq, 0, vq->first_id, vq->first_len);
    vq->used_wrap ^= advance(vq, &vq->used_idx, vq->filled_slots);
}

bool packed_wants_interrupt(const struct virtqueue *vq)
{
    /* One load, so that offset and flags belong together. */
    uint32_t event = __atomic_load_n((const uint32_t *)(const void *)vq->driver, __ATOMIC_RELAXED);
    uint16_t flags = (uint16_t)(event >> 16) & 3;
    if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
        return false;
    if (flags != VRING_PACKED_EVENT_FLAG_DESC || !virtio_has(vq->vdev, VIRTIO_RING_F_EVENT_IDX))
        return true;
    uint16_t offset = (uint16_t)(event & (WRAP_BIT - 1));
    bool wrap = event & WRAP_BIT;
    if (wrap != vq->used_wrap)
        offset = (uint16_t)(offset - vq->size); /* meant in the round before */
    return event_passed(offset, vq->used_idx, vq->unsignalled);
}

void packed_set_kicks(struct virtqueue *vq, bool on)
{
    uint16_t flags = VRING_PACKED_EVENT_FLAG_DISABLE;
    if (on) {
        flags = VRING_PACKED_EVENT_FLAG_ENABLE;
        /* An event position only names the next free slot while nothing waits in front of it. */
        if (virtio_has(vq->vdev, VIRTIO_RING_F_EVENT_IDX) && !packed_available(vq)) {
            uint16_t off = (uint16_t)(vq->last_avail | (vq->avail_wrap ? WRAP_BIT : 0));
            __atomic_store_n((uint16_t *)(void *)(vq->device + EVENT_OFF), off, __ATOMIC_RELAXED);
            flags = VRING_PACKED_EVENT_FLAG_DESC;
        }
    }
    /* After the offset that it makes valid. */
    __atomic_store_n((uint16_t *)(void *)(vq->device + EVENT_FLAGS), flags, __ATOMIC_RELEASE);
    guest_mark_written(vq->vdev->pci.dev.machine->memory, vq->device_gpa, 4);
}
