/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See frame_ring.h. A record is a 64-bit length and the frame, padded to 8 bytes; it never wraps. */
#include "net/frame_ring.h"

#include <stdlib.h>

#include "base/util.h"

#define HEADER    8
#define WRAP_MARK UINT64_MAX /* instead of a length: the next record is at 0 */

bool frame_ring_init(struct frame_ring *r, size_t size)
{
    *r = (struct frame_ring){.data = malloc(size), .size = size};
    return r->data != NULL;
}

void frame_ring_free(struct frame_ring *r)
{
    free(r->data);
    r->data = NULL;
}

size_t frame_ring_used(const struct frame_ring *r)
{
    return r->tail >= r->head ? r->tail - r->head : r->size - r->head + r->tail;
}

/* Where a record of `need` bytes may begin; false: nowhere. One byte always stays free, as head == tail means
 * empty. */
static bool find_room(struct frame_ring *r, size_t need, size_t *at)
{
    if (r->tail < r->head) {
        *at = r->tail;
        return need < r->head - r->tail;
    }
    if (need < r->size - r->tail || (need == r->size - r->tail && r->head > 0)) {
        *at = r->tail;
        return true;
    }
    *at = 0;
    return need < r->head;
}

bool frame_ring_put(struct frame_ring *r, const struct iovec *iov, int count)
{
    size_t len = 0, at;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    size_t need = HEADER + round_up(len, 8);
    if (!find_room(r, need, &at))
        return false;
    if (at != r->tail)
        store_le64(r->data + r->tail, WRAP_MARK);
    store_le64(r->data + at, len);
    uint8_t *to = r->data + at + HEADER;
    for (int i = 0; i < count; i++) {
        if (iov[i].iov_len)
            memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    r->tail = at + need == r->size ? 0 : at + need;
    return true;
}

const uint8_t *frame_ring_first(struct frame_ring *r, size_t *len)
{
    if (r->head == r->tail)
        return NULL;
    if (load_le64(r->data + r->head) == WRAP_MARK)
        r->head = 0;
    *len = (size_t)load_le64(r->data + r->head);
    return r->data + r->head + HEADER;
}

void frame_ring_drop(struct frame_ring *r)
{
    size_t len;
    if (!frame_ring_first(r, &len))
        return;
    r->head += HEADER + round_up(len, 8);
    if (r->head == r->size)
        r->head = 0;
}
