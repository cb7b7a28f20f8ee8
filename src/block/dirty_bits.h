/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which parts of a disk something holds of, a bit for each 2^granularity bytes: what was written since a
 * backup, what is still to be copied. The words are, on this little-endian host, as qcow2 stores them. Has no
 * locks: one thread at a time.
 */
#ifndef BLOCK_DIRTY_BITS_H
#define BLOCK_DIRTY_BITS_H

#include <stdbool.h>
#include <stdint.h>

enum { GRANULARITY_MIN = 9, GRANULARITY_MAX = 31 }; /* log2 of bytes; the format's bounds */

struct dirty_bits {
    uint64_t *word;
    uint64_t size;  /* of the disk, bytes */
    uint64_t count; /* bits */
    unsigned granularity;
};

/* None is set. False: no memory, and nothing is to be freed. */
bool dirty_bits_init(struct dirty_bits *d, uint64_t size, unsigned granularity);
void dirty_bits_free(struct dirty_bits *d);
/* For a disk of another size; the bits of what is new are set. False: no memory, nothing has changed. */
bool dirty_bits_resize(struct dirty_bits *d, uint64_t size);

/* Every bit that has to do with the range, which lies on the disk. */
void dirty_bits_set(struct dirty_bits *d, uint64_t offset, uint64_t length);
void dirty_bits_clear(struct dirty_bits *d, uint64_t offset, uint64_t length);
/* Sets what is set in `from`, a disk of the same size. */
void dirty_bits_add(struct dirty_bits *d, const struct dirty_bits *from);

/* The first run of set bits in [from, end): false when there is none. It may begin before `from` and end
 * after `end` by less than a bit, but not past the disk. */
bool dirty_bits_next(const struct dirty_bits *d, uint64_t from, uint64_t end, uint64_t *offset,
                     uint64_t *length);
/* Bytes of the disk whose bits are set. */
uint64_t dirty_bits_bytes(const struct dirty_bits *d);

#endif
