/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtqueues: what split and packed rings share, and split rings. Packed rings are in virtqueue_packed.c.
 *
 * Memory ordering (both rings): an index or flag by which the driver hands something over is read with
 * acquire, before what it covers; ours is written with release, after what it covers. Where each side writes
 * its own word and then reads the other's (publish, then "does it want to be told?"), both need a full fence
 * in between, or both may miss the other.
 */
#include <stdlib.h>

#include "base/util.h"
#include "device/virtio/virtio.h"
#include "device/virtio/virtqueue_ring.h"

#define DESC_SIZE 16

/* Split ring layout (section 2.7). */
#define AVAIL_FLAGS 0
#define AVAIL_IDX   2
#define AVAIL_RING  4
#define USED_FLAGS  0
#define USED_IDX    2
#define USED_RING   4

/* --- iovecs --- */

static size_t iov_copy(const struct iovec *iov, unsigned count, size_t offset, uint8_t *buf, size_t len,
                       bool to_iov)
{
    size_t done = 0;
    for (unsigned i = 0; i < count && done < len; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        uint8_t *at = (uint8_t *)iov[i].iov_base + offset;
        size_t n = MIN(iov[i].iov_len - offset, len - done);
        if (to_iov)
            memcpy(at, buf + done, n);
        else
            memcpy(buf + done, at, n);
        done += n;
        offset = 0;
    }
    return done;
}

size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *buf, size_t len)
{
    return iov_copy(iov, count, offset, buf, len, false);
}

size_t iov_write(const struct iovec *iov, unsigned count, size_t offset, const void *buf, size_t len)
{
    union {
        const void *in;
        void *out;
    } source = {.in = buf}; /* only read from */
    return iov_copy(iov, count, offset, source.out, len, true);
}

/* --- set-up --- */

void virtqueue_reset(struct virtqueue *vq)
{
    *vq = (struct virtqueue){
        .vdev = vq->vdev,
        .index = vq->index,
        .max_size = vq->max_size,
        .size = vq->max_size,
        .vector = VIRTIO_NO_VECTOR,
        .avail_wrap = true,
        .used_wrap = true,
        .epoch = vq->epoch + 1,
    };
}

static bool queue_packed(const struct virtqueue *vq)
{
    return virtio_has(vq->vdev, VIRTIO_F_RING_PACKED);
}

bool virtqueue_map(struct virtqueue *vq)
{
    const struct guest_memory *mem = vq->vdev->pci.dev.machine->memory;
    bool packed = queue_packed(vq);
    uint64_t n = vq->size;
    if (n == 0 || n > vq->max_size || (!packed && !is_pow2(n))) {
        virtio_broken(vq->vdev, "queue %u: size %u", vq->index, vq->size);
        return false;
    }
    if (vq->desc_gpa % 16 || vq->driver_gpa % (packed ? 4 : 2) || vq->device_gpa % 4) {
        virtio_broken(vq->vdev, "queue %u: misaligned ring", vq->index);
        return false;
    }
    vq->desc = guest_ptr(mem, vq->desc_gpa, n * DESC_SIZE, packed);
    vq->driver = guest_ptr(mem, vq->driver_gpa, packed ? 4 : AVAIL_RING + 2 * n + 2, false);
    vq->device = guest_ptr(mem, vq->device_gpa, packed ? 4 : USED_RING + 8 * n + 2, true);
    if (!vq->desc || !vq->driver || !vq->device) {
        virtio_broken(vq->vdev, "queue %u: ring outside of memory", vq->index);
        return false;
    }
    vq->mapped = true;
    return true;
}

/* Rings are mapped at first use, which also covers loaded state. */
static bool queue_ready(struct virtqueue *vq)
{
    return vq->enabled && virtio_running(vq->vdev) && (vq->mapped || virtqueue_map(vq));
}

/* --- chains --- */

bool chain_add(struct virtqueue *vq, struct chain *c, const struct ring_desc *d)
{
    bool write = d->flags & VRING_DESC_F_WRITE;
    if (d->len == 0)
        return true;
    if (!write && c->in) {
        virtio_broken(vq->vdev, "queue %u: readable buffer after a writable one", vq->index);
        return false;
    }
    unsigned n = c->out + c->in;
    if (n == VIRTQUEUE_SEGMENTS_MAX) {
        virtio_broken(vq->vdev, "queue %u: too many buffers in one chain", vq->index);
        return false;
    }
    void *p = guest_ptr(vq->vdev->pci.dev.machine->memory, d->addr, d->len, write);
    if (!p) {
        virtio_broken(vq->vdev, "queue %u: buffer 0x%llx+0x%x is not in memory", vq->index,
                      (unsigned long long)d->addr, d->len);
        return false;
    }
    c->iov[n] = (struct iovec){.iov_base = p, .iov_len = d->len};
    c->gpa[n] = d->addr;
    if (write) {
        c->in++;
        c->in_len += d->len;
    } else {
        c->out++;
        c->out_len += d->len;
    }
    return true;
}

const uint8_t *chain_indirect(struct virtqueue *vq, const struct ring_desc *d, unsigned *count)
{
    if (!virtio_has(vq->vdev, VIRTIO_RING_F_INDIRECT_DESC) || d->flags & VRING_DESC_F_NEXT || d->len == 0 ||
        d->len % DESC_SIZE) {
        virtio_broken(vq->vdev, "queue %u: bad indirect descriptor", vq->index);
        return NULL;
    }
    const uint8_t *table = guest_ptr(vq->vdev->pci.dev.machine->memory, d->addr, d->len, false);
    if (!table)
        virtio_broken(vq->vdev, "queue %u: indirect table outside of memory", vq->index);
    *count = d->len / DESC_SIZE;
    return table;
}

static struct ring_desc split_desc(const uint8_t *table, unsigned i)
{
    struct vring_desc raw;
    memcpy(&raw, table + (size_t)i * DESC_SIZE, sizeof(raw));
    /* The compiler must not read the guest's memory a second time. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return (struct ring_desc){.addr = raw.addr, .len = raw.len, .flags = raw.flags, .id = raw.next};
}

/* Follows the chain from `head`; a chain longer than its table is a loop. False: broken. */
static bool split_walk(struct virtqueue *vq, uint16_t head, struct chain *c)
{
    const uint8_t *table = vq->desc;
    unsigned count = vq->size, left = vq->size, i = head;
    c->slots = 0;
    while (left-- > 0) {
        if (i >= count)
            break;
        struct ring_desc d = split_desc(table, i);
        if (table == vq->desc)
            c->slots++;
        if (d.flags & VRING_DESC_F_INDIRECT) {
            if (table != vq->desc)
                break;
            table = chain_indirect(vq, &d, &count);
            if (!table)
                return false;
            left = count;
            i = 0;
            continue;
        }
        if (!chain_add(vq, c, &d))
            return false;
        if (!(d.flags & VRING_DESC_F_NEXT))
            return true;
        i = d.id;
    }
    virtio_broken(vq->vdev, "queue %u: descriptor chain leaves its table or loops", vq->index);
    return false;
}

static uint16_t avail_idx(const struct virtqueue *vq)
{
    /* Pairs with the driver's barrier between filling the ring and moving the index. */
    return __atomic_load_n((const uint16_t *)(const void *)(vq->driver + AVAIL_IDX), __ATOMIC_ACQUIRE);
}

/* How many entries wait; -1: broken. */
static int split_waiting(struct virtqueue *vq)
{
    uint16_t n = (uint16_t)(avail_idx(vq) - vq->last_avail);
    if (n > vq->size) {
        virtio_broken(vq->vdev, "queue %u: available index runs ahead of the ring", vq->index);
        return -1;
    }
    return n;
}

static bool split_pop(struct virtqueue *vq, struct chain *c)
{
    if (split_waiting(vq) <= 0)
        return false;
    const uint8_t *slot = vq->driver + AVAIL_RING + 2 * (vq->last_avail % vq->size);
    uint16_t head = __atomic_load_n((const uint16_t *)(const void *)slot, __ATOMIC_RELAXED);
    c->id = head;
    if (!split_walk(vq, head, c))
        return false;
    vq->last_avail++;
    return true;
}

static struct virtqueue_element *element_new(struct virtqueue *vq, const struct chain *c)
{
    unsigned n = c->out + c->in;
    struct virtqueue_element *e = malloc(sizeof(*e) + n * sizeof(struct iovec) + c->in * sizeof(uint64_t));
    if (!e)
        return NULL;
    memcpy(e->iov, c->iov, n * sizeof(struct iovec));
    e->vq = vq;
    e->next = NULL;
    e->out_count = c->out;
    e->in_count = c->in;
    e->out_len = c->out_len;
    e->in_len = c->in_len;
    e->out = e->iov;
    e->in = e->iov + c->out;
    e->in_gpa = (uint64_t *)(void *)(e->iov + n);
    memcpy(e->in_gpa, c->gpa + c->out, c->in * sizeof(uint64_t));
    e->epoch = vq->epoch;
    e->id = c->id;
    e->slots = c->slots;
    return e;
}

struct virtqueue_element *virtqueue_pop(struct virtqueue *vq)
{
    if (!queue_ready(vq))
        return NULL;
    struct chain c;
    c.out = c.in = 0;
    c.out_len = c.in_len = 0;
    if (!(queue_packed(vq) ? packed_pop(vq, &c) : split_pop(vq, &c)))
        return NULL;
    if (vq->inuse + c.slots > vq->size) {
        /* Offering what the device already holds: unchecked, this would fill our memory. */
        virtio_broken(vq->vdev, "queue %u: descriptors offered twice", vq->index);
        return NULL;
    }
    struct virtqueue_element *e = element_new(vq, &c);
    if (!e) {
        virtio_broken(vq->vdev, "queue %u: out of memory", vq->index);
        return NULL;
    }
    vq->inuse = (uint16_t)(vq->inuse + c.slots);
    return e;
}

void virtqueue_unpop(struct virtqueue_element *e)
{
    struct virtqueue *vq = e->vq;
    if (e->epoch == vq->epoch) {
        vq->inuse = (uint16_t)(vq->inuse - e->slots);
        if (queue_packed(vq))
            packed_rewind(vq, e->slots);
        else
            vq->last_avail--;
    }
    free(e);
}

void virtqueue_discard(struct virtqueue_element *e)
{
    free(e);
}

bool virtqueue_available(struct virtqueue *vq)
{
    if (!queue_ready(vq))
        return false;
    return queue_packed(vq) ? packed_available(vq) : split_waiting(vq) > 0;
}

/* --- giving back --- */

static void split_fill(struct virtqueue *vq, uint16_t id, uint32_t len)
{
    uint16_t at = (uint16_t)(vq->used_idx + vq->filled) % vq->size;
    uint8_t *entry = vq->device + USED_RING + 8 * (size_t)at;
    store_le32(entry, id);
    store_le32(entry + 4, len);
    guest_mark_written(vq->vdev->pci.dev.machine->memory, vq->device_gpa + USED_RING + 8 * (uint64_t)at, 8);
}

static void mark_written(const struct virtqueue_element *e, size_t written)
{
    struct guest_memory *mem = e->vq->vdev->pci.dev.machine->memory;
    for (unsigned i = 0; i < e->in_count && written; i++) {
        size_t n = MIN(written, e->in[i].iov_len);
        guest_mark_written(mem, e->in_gpa[i], n);
        written -= n;
    }
}

void virtqueue_fill(struct virtqueue_element *e, uint32_t written)
{
    struct virtqueue *vq = e->vq;
    mark_written(e, written);
    if (e->epoch == vq->epoch && vq->mapped) {
        if (queue_packed(vq))
            packed_fill(vq, e->id, written);
        else
            split_fill(vq, e->id, written);
        vq->filled++;
        vq->filled_slots = (uint16_t)(vq->filled_slots + e->slots);
        vq->inuse = (uint16_t)(vq->inuse - e->slots);
    }
    free(e);
}

void virtqueue_flush(struct virtqueue *vq)
{
    if (!vq->filled)
        return;
    uint16_t units = vq->filled; /* what an event index counts */
    if (queue_packed(vq)) {
        units = vq->filled_slots;
        packed_flush(vq);
    } else {
        vq->used_idx = (uint16_t)(vq->used_idx + vq->filled);
        /* The driver sees the entries (and the data) before the index that covers them. */
        __atomic_store_n((uint16_t *)(void *)(vq->device + USED_IDX), vq->used_idx, __ATOMIC_RELEASE);
        guest_mark_written(vq->vdev->pci.dev.machine->memory, vq->device_gpa + USED_IDX, 2);
    }
    vq->unsignalled = (uint16_t)MIN((unsigned)vq->unsignalled + units, vq->size);
    vq->filled = vq->filled_slots = 0;
}

void virtqueue_push(struct virtqueue_element *e, uint32_t written)
{
    struct virtqueue *vq = e->vq;
    virtqueue_fill(e, written);
    virtqueue_flush(vq);
}

/* --- notifications --- */

/* Did the used index pass `event` in the last `count` steps to `now`? (section 2.7.7.1) */
bool event_passed(uint16_t event, uint16_t now, uint16_t count)
{
    return (uint16_t)(now - event - 1) < count;
}

static bool split_wants_interrupt(struct virtqueue *vq)
{
    if (!virtio_has(vq->vdev, VIRTIO_RING_F_EVENT_IDX)) {
        const uint8_t *flags = vq->driver + AVAIL_FLAGS;
        return !(__atomic_load_n((const uint16_t *)(const void *)flags, __ATOMIC_RELAXED) &
                 VRING_AVAIL_F_NO_INTERRUPT);
    }
    const uint8_t *used_event = vq->driver + AVAIL_RING + 2 * (size_t)vq->size;
    uint16_t event = __atomic_load_n((const uint16_t *)(const void *)used_event, __ATOMIC_RELAXED);
    return event_passed(event, vq->used_idx, vq->unsignalled);
}

void virtqueue_notify(struct virtqueue *vq)
{
    if (!vq->unsignalled || !queue_ready(vq))
        return;
    /*
     * Our used index first, then the driver's wish. Pairs with the driver's full barrier between asking for
     * an interrupt and looking at the used index once more.
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bool wanted = queue_packed(vq) ? packed_wants_interrupt(vq) : split_wants_interrupt(vq);
    vq->unsignalled = 0;
    if (wanted)
        virtio_interrupt(vq->vdev, vq->vector, VIRTIO_ISR_QUEUE);
}

static void split_set_kicks(struct virtqueue *vq, bool on)
{
    struct guest_memory *mem = vq->vdev->pci.dev.machine->memory;
    if (virtio_has(vq->vdev, VIRTIO_RING_F_EVENT_IDX)) {
        /* "Off" is the stale index: the driver kicks only when passing it. */
        if (on) {
            uint64_t at = USED_RING + 8 * (uint64_t)vq->size;
            /* From what is there already, taken or not: the device has seen it. */
            __atomic_store_n((uint16_t *)(void *)(vq->device + at), avail_idx(vq), __ATOMIC_RELAXED);
            guest_mark_written(mem, vq->device_gpa + at, 2);
        }
        return;
    }
    uint16_t flags = on ? 0 : VRING_USED_F_NO_NOTIFY;
    __atomic_store_n((uint16_t *)(void *)(vq->device + USED_FLAGS), flags, __ATOMIC_RELAXED);
    guest_mark_written(mem, vq->device_gpa + USED_FLAGS, 2);
}

void virtqueue_disable_kicks(struct virtqueue *vq)
{
    if (!queue_ready(vq))
        return;
    if (queue_packed(vq))
        packed_set_kicks(vq, false);
    else
        split_set_kicks(vq, false);
}

bool virtqueue_enable_kicks(struct virtqueue *vq)
{
    if (!queue_ready(vq))
        return false;
    if (queue_packed(vq))
        packed_set_kicks(vq, true);
    else
        split_set_kicks(vq, true);
    /* Our wish first, then the ring. Pairs with the driver's full barrier between adding buffers and reading
     * the wish. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return virtqueue_available(vq);
}
