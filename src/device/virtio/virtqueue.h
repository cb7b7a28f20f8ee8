/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtqueues, split and packed (virtio 1.2, sections 2.7 and 2.8), seen from the device. A device takes
 * elements with virtqueue_pop, reads `out`, writes `in`, and gives them back with virtqueue_push; then
 * virtqueue_notify interrupts the driver when it wants to be. All with the machine lock held.
 *
 * Rings and descriptors belong to a hostile guest, and other vCPUs write them meanwhile: each is read once,
 * checked, and never trusted to stay. A ring that breaks the rules puts the whole device into NEEDS_RESET,
 * and its queues give nothing more until the driver resets it. The bytes that `out` points to may change at
 * any time, too: read them once.
 */
#ifndef DEVICE_VIRTIO_VIRTQUEUE_H
#define DEVICE_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct virtio_device;
struct virtqueue;

#define VIRTQUEUE_SIZE_MAX     1024 /* descriptors in a ring */
#define VIRTQUEUE_SEGMENTS_MAX 1024 /* buffers in one element, indirect ones included */

/* One request of the driver: device-readable buffers, then device-writable ones. Empty buffers are left out.
 */
struct virtqueue_element {
    struct virtqueue *vq;
    struct virtqueue_element *next; /* for the device's own lists */
    unsigned out_count, in_count;
    size_t out_len, in_len; /* sums of the lengths */
    struct iovec *out, *in; /* in guest RAM; valid for the machine's life */
    uint64_t *in_gpa;       /* guest address of each `in` */
    uint32_t epoch;         /* the queue's when it was taken */
    uint16_t id;            /* head of the chain, or the packed buffer id */
    uint16_t slots;         /* descriptors that it occupies in the ring */
    struct iovec iov[];
};

struct virtqueue {
    struct virtio_device *vdev;
    unsigned index;
    uint16_t max_size; /* what the device offers; 0: no such queue */

    /* Set by the driver. */
    uint16_t size, vector;
    bool enabled;
    uint64_t desc_gpa, driver_gpa, device_gpa;

    /* Progress. Packed rings count positions in [0, size) with a wrap counter, split ones free-running. */
    uint16_t last_avail, used_idx;
    bool avail_wrap, used_wrap;
    uint16_t
        unsignalled; /* slots used since the driver was last considered for an interrupt, at most `size` */
    uint16_t inuse;  /* slots that the device holds */

    /* Derived. */
    bool mapped;
    uint8_t *desc, *driver, *device; /* the three areas, once mapped */
    uint32_t epoch;                  /* counts resets: elements from before are stale */
    uint16_t filled;                 /* elements filled but not flushed */
    uint16_t filled_slots;           /* and the slots they take */
    uint16_t first_id;               /* packed: the entry that flush makes visible, before the others */
    uint32_t first_len;
    uint64_t doorbell; /* where the engine signals doorbell_fd for a kick; 0: nowhere, and no fd */
    int doorbell_fd;
};

/* The next element, or NULL: nothing there, device not running, or broken now. Given back by push, fill or
 * discard. */
struct virtqueue_element *virtqueue_pop(struct virtqueue *vq);
/* Puts back the element that was popped last, as if never taken; several in reverse order. */
void virtqueue_unpop(struct virtqueue_element *e);
/* Frees an element without returning it to the driver (the device is being reset). */
void virtqueue_discard(struct virtqueue_element *e);

/*
 * Returns an element to the driver: `written` bytes at the start of `in` were written (marked as such here).
 * Frees it. An element from before a reset is just freed.
 */
void virtqueue_push(struct virtqueue_element *e, uint32_t written);
/* As push, for several elements that the driver must see at once: fill each, then flush. */
void virtqueue_fill(struct virtqueue_element *e, uint32_t written);
void virtqueue_flush(struct virtqueue *vq);

/* Interrupts the driver for what was pushed, unless it has said that it does not care. */
void virtqueue_notify(struct virtqueue *vq);

/* Is there something to pop (as far as can be seen without taking it)? */
bool virtqueue_available(struct virtqueue *vq);

/*
 * Asks the driver not to kick, while the queue is being worked on; and to kick again. enable returns true
 * when something came before the driver could know: the device then goes on instead of waiting for a kick. A
 * device that waits for more must call enable each time: with event indices a driver kicks once for each.
 */
void virtqueue_disable_kicks(struct virtqueue *vq);
bool virtqueue_enable_kicks(struct virtqueue *vq);

/* For the core: forgets everything that the driver set. */
void virtqueue_reset(struct virtqueue *vq);
/* For the core: checks the driver's addresses and finds the rings; false: broken. */
bool virtqueue_map(struct virtqueue *vq);

/* Copies between iovecs and flat memory, starting `offset` bytes in. Return the bytes copied, less at the
 * end. */
size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *buf, size_t len);
size_t iov_write(const struct iovec *iov, unsigned count, size_t offset, const void *buf, size_t len);

#endif
