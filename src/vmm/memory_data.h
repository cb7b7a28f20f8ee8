/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages of guest memory: which of a region hold anything, and sets of them as bits, lowest first. */
#ifndef VMM_MEMORY_DATA_H
#define VMM_MEMORY_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/memory.h"

struct error;

/* Of all regions. */
size_t guest_pages(const struct guest_memory *mem);
/* The number of the region's first page among those of all regions. */
size_t guest_first_page(const struct guest_memory *mem, unsigned region);
/* The words of a set of a region's pages. */
size_t guest_page_words(const struct guest_memory *mem, unsigned region);

bool page_is_zero(const uint8_t *page);

static inline bool page_bit(const uint64_t *bits, size_t i)
{
    return bits[i / 64] >> i % 64 & 1;
}

/* How many there are. */
uint64_t page_bits_set(const uint64_t *bits, size_t words);

/*
 * Adds to `bits` every page of `region` that may hold something but zeros. Of private memory that began as a
 * file `base` (may be NULL) has a number for each page of all regions, not 0 where the file had something;
 * `unchanged` (may be NULL) then becomes those that surely still are the file's. The guest may run: what it
 * writes from before this call on may be missing.
 */
bool memory_data_find(const struct guest_memory *mem, unsigned region, const uint32_t *base, uint64_t *bits,
                      uint64_t *unchanged, struct error **err);

#endif
