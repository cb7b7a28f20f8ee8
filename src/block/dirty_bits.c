/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bits for parts of a disk: see dirty_bits.h. Bits past the disk's end are never set. */
#include "block/dirty_bits.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static uint64_t bit_count(uint64_t size, unsigned granularity)
{
    return (size >> granularity) + !!(size & (BIT(granularity) - 1));
}

static size_t word_count(uint64_t bits)
{
    return bits / 64 + !!(bits % 64);
}

bool dirty_bits_init(struct dirty_bits *d, uint64_t size, unsigned granularity)
{
    *d = (struct dirty_bits){.size = size, .count = bit_count(size, granularity), .granularity = granularity};
    d->word = calloc(word_count(d->count) + 1, sizeof(*d->word));
    return d->word != NULL;
}

void dirty_bits_free(struct dirty_bits *d)
{
    free(d->word);
    *d = (struct dirty_bits){0};
}

/* Bits [first, end), a word at a time. */
static void change(struct dirty_bits *d, uint64_t first, uint64_t end, bool value)
{
    while (first < end) {
        uint64_t in_word = first % 64, n = MIN(64 - in_word, end - first);
        uint64_t mask = (n == 64 ? UINT64_MAX : BIT(n) - 1) << in_word;
        uint64_t *word = &d->word[first / 64];
        *word = value ? *word | mask : *word & ~mask;
        first += n;
    }
}

void dirty_bits_set(struct dirty_bits *d, uint64_t offset, uint64_t length)
{
    change(d, offset >> d->granularity, bit_count(offset + length, d->granularity), true);
}

void dirty_bits_clear(struct dirty_bits *d, uint64_t offset, uint64_t length)
{
    change(d, offset >> d->granularity, bit_count(offset + length, d->granularity), false);
}

bool dirty_bits_resize(struct dirty_bits *d, uint64_t size)
{
    uint64_t count = bit_count(size, d->granularity), before = d->count;
    size_t old_words = word_count(before), words = word_count(count);
    uint64_t *word = realloc(d->word, (words + 1) * sizeof(*word));
    if (!word)
        return false;
    if (words > old_words)
        memset(word + old_words, 0, (words - old_words) * sizeof(*word));
    d->word = word;
    d->count = count;
    if (count < before)
        change(d, count, words * 64, false);
    else if (size > d->size)
        change(d, d->size >> d->granularity, count, true);
    d->size = size;
    return true;
}

/* The first bit in [from, end) that is `value`; `end` when there is none. */
static uint64_t find(const struct dirty_bits *d, uint64_t from, uint64_t end, bool value)
{
    while (from < end) {
        uint64_t word = value ? d->word[from / 64] : ~d->word[from / 64];
        word &= UINT64_MAX << from % 64;
        if (word)
            return MIN(round_down(from, 64) + (uint64_t)__builtin_ctzll(word), end);
        from = round_down(from, 64) + 64;
    }
    return end;
}

bool dirty_bits_next(const struct dirty_bits *d, uint64_t from, uint64_t end, uint64_t *offset,
                     uint64_t *length)
{
    uint64_t last = bit_count(MIN(end, d->size), d->granularity);
    uint64_t first = find(d, from >> d->granularity, last, true);
    if (from >= MIN(end, d->size) || first >= last)
        return false;
    *offset = first << d->granularity;
    *length = MIN(find(d, first, last, false) << d->granularity, d->size) - *offset;
    return true;
}

void dirty_bits_add(struct dirty_bits *d, const struct dirty_bits *from)
{
    uint64_t offset = 0, length = 0;
    while (dirty_bits_next(from, offset + length, from->size, &offset, &length))
        dirty_bits_set(d, offset, length);
}

uint64_t dirty_bits_bytes(const struct dirty_bits *d)
{
    uint64_t n = 0, last = d->count ? d->count - 1 : 0;
    for (size_t i = 0; i < word_count(d->count); i++)
        n += (uint64_t)__builtin_popcountll(d->word[i]);
    uint64_t bytes = n << d->granularity;
    /* The last bit may stand for less. */
    if (d->count && d->word[last / 64] & BIT(last % 64))
        bytes -= (d->count << d->granularity) - d->size;
    return bytes;
}
