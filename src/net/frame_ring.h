/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A bounded queue of frames in one block of memory: what does not fit is refused, so memory never grows. Not
 * locked by itself; the frame that frame_ring_first gives stays in place until frame_ring_drop, so that one
 * consumer may use it without holding the lock that guards the calls.
 */
#ifndef NET_FRAME_RING_H
#define NET_FRAME_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct frame_ring {
    uint8_t *data;
    size_t size, head, tail; /* records lie in [head, tail), wrapping; equal: empty */
};

/* `size`: bytes for frames with 8 bytes more for each, a multiple of 8. False: no memory. */
bool frame_ring_init(struct frame_ring *r, size_t size);
void frame_ring_free(struct frame_ring *r);

/* Appends the frame made of the pieces; false: no room. */
bool frame_ring_put(struct frame_ring *r, const struct iovec *iov, int count);
/* The oldest frame, or NULL. */
const uint8_t *frame_ring_first(struct frame_ring *r, size_t *len);
/* Removes it. */
void frame_ring_drop(struct frame_ring *r);
/* Bytes taken up. */
size_t frame_ring_used(const struct frame_ring *r);

#endif
