/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Integer items that work on data structures and text: sorting, hashing, searching, compressing.
 */
#include "suite.h"

#include <stdlib.h>
#include <string.h>

#define SORT_COUNT 15000

struct sort {
    uint32_t input[SORT_COUNT], sorted[SORT_COUNT];
};

static void *sort_setup(void)
{
    struct sort *sort = allocate(sizeof(*sort));
    uint64_t random = 4;
    for (size_t i = 0; i < SORT_COUNT; i++)
        sort->input[i] = (uint32_t)(next_random(&random) >> 32);
    return sort;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint64_t sort_run(void *context)
{
    struct sort *sort = context;
    uint64_t sum = 0;
    memcpy(sort->sorted, sort->input, sizeof(sort->sorted));
    qsort(sort->sorted, SORT_COUNT, sizeof(sort->sorted[0]), compare);
    for (size_t i = 0; i < SORT_COUNT; i += 64)
        sum = mix(sum, sort->sorted[i]);
    return sum;
}

/* Open addressing with linear probing, as full as three quarters. */
#define HASH_BITS 16
#define HASH_KEYS (3u << (HASH_BITS - 2))

struct entry {
    uint64_t key, value;
};

static void *hash_setup(void)
{
    return allocate(sizeof(struct entry) << HASH_BITS);
}

static struct entry *hash_find(struct entry *table, uint64_t key)
{
    size_t at = (key * 0x9e3779b97f4a7c15ULL) >> (64 - HASH_BITS);
    while (table[at].key && table[at].key != key)
        at = (at + 1) & ((1u << HASH_BITS) - 1);
    return &table[at];
}

static uint64_t hash_run(void *context)
{
    struct entry *table = context;
    uint64_t random = 5, sum = 0;
    memset(table, 0, sizeof(struct entry) << HASH_BITS);
    for (unsigned i = 0; i < HASH_KEYS; i++) {
        uint64_t key = next_random(&random) | 1;
        struct entry *entry = hash_find(table, key);
        entry->key = key;
        entry->value += i;
    }
    random = 5;
    for (unsigned i = 0; i < HASH_KEYS; i++) {
        uint64_t key = next_random(&random) | 1;
        struct entry *entry = hash_find(table, key);
        sum += entry->value + (entry->key == key);
    }
    return sum;
}

/* Text of words in random order, as compressible as prose. */
#define TEXT_SIZE (256 * 1024)

static void make_text(char *text, size_t size, uint64_t random)
{
    static const char *const words[] = {
        "the",    "processor", "of",     "a",      "machine", "runs",  "and",    "memory",
        "block",  "is",        "to",     "page",   "table",   "in",    "guest",  "host",
        "signal", "reads",     "writes", "fault",  "vector",  "under", "kernel", "interrupt",
        "device", "queue",     "with",   "bridge", "clock",   "every", "line",   "state",
    };
    size_t at = 0;
    while (at < size) {
        const char *word = words[next_random(&random) >> 59];
        while (*word && at < size)
            text[at++] = *word++;
        if (at < size)
            text[at++] = next_random(&random) >> 60 ? ' ' : '\n';
    }
    text[size - 1] = '\0';
}

static void *text_setup(void)
{
    char *text = allocate(TEXT_SIZE);
    make_text(text, TEXT_SIZE, 6);
    return text;
}

static const char *const needles[] = {"memory fault", "interrupt device queue", "clock the state",
                                      "not in there at all"};

/* Horspool's search; gives how often the needle occurs. */
static uint64_t count_occurrences(const char *text, size_t size, const char *needle)
{
    size_t length = strlen(needle), skip[256], count = 0;
    for (size_t i = 0; i < 256; i++)
        skip[i] = length;
    for (size_t i = 0; i + 1 < length; i++)
        skip[(uint8_t)needle[i]] = length - 1 - i;
    for (size_t at = 0; at + length <= size; at += skip[(uint8_t)text[at + length - 1]]) {
        size_t i = length;
        while (i && text[at + i - 1] == needle[i - 1])
            i--;
        count += i == 0;
    }
    return count;
}

static uint64_t search_run(void *context)
{
    uint64_t sum = 0;
    for (int repeat = 0; repeat < 3; repeat++)
        for (size_t i = 0; i < sizeof(needles) / sizeof(needles[0]); i++)
            sum = mix(sum, count_occurrences(context, TEXT_SIZE - 1, needles[i]));
    return sum;
}

/* The same with the C library's functions, which use vectors. */
static uint64_t libc_strings_run(void *context)
{
    const char *text = context;
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof(needles) / sizeof(needles[0]); i++) {
        uint64_t count = 0;
        for (const char *at = text; (at = strstr(at, needles[i])); at++)
            count++;
        sum = mix(sum, count);
    }
    for (const char *at = text, *end = text + TEXT_SIZE; at < end;) {
        const char *line = memchr(at, '\n', (size_t)(end - at));
        size_t length = line ? (size_t)(line - at) : strlen(at);
        sum = mix(sum, length);
        at += length + 1;
    }
    return sum;
}

/*
 * Compression in the manner of LZ77: a table of where four bytes were seen last; tokens of a count of
 * literals, a distance and a length, each as a varying number of 7-bit groups.
 */
#define LZ_BITS 13
#define LZ_SIZE (128 * 1024)
#define LZ_MIN  4

struct lz {
    uint32_t seen[1 << LZ_BITS];
    uint8_t input[LZ_SIZE], packed[LZ_SIZE * 2], unpacked[LZ_SIZE];
};

static void *lz_setup(void)
{
    struct lz *lz = allocate(sizeof(*lz));
    make_text((char *)lz->input, LZ_SIZE, 7);
    return lz;
}

static uint8_t *put_number(uint8_t *to, size_t value)
{
    for (; value >= 128; value >>= 7)
        *to++ = (uint8_t)(value | 128);
    *to++ = (uint8_t)value;
    return to;
}

static const uint8_t *get_number(const uint8_t *from, size_t *value)
{
    unsigned shift = 0;
    for (*value = 0; *from & 128; shift += 7)
        *value |= (size_t)(*from++ & 127) << shift;
    *value |= (size_t)*from++ << shift;
    return from;
}

static uint8_t *put_literals(uint8_t *to, const uint8_t *from, size_t count)
{
    to = put_number(to, count);
    for (size_t i = 0; i < count; i++)
        *to++ = from[i];
    return to;
}

static size_t lz_pack(struct lz *lz)
{
    const uint8_t *in = lz->input;
    uint8_t *out = lz->packed;
    size_t literal = 0, at = 0;
    memset(lz->seen, 0, sizeof(lz->seen));
    while (at + LZ_MIN <= LZ_SIZE) {
        uint32_t four;
        memcpy(&four, in + at, sizeof(four));
        uint32_t *slot = &lz->seen[(four * 2654435761u) >> (32 - LZ_BITS)];
        size_t before = *slot, length = 0;
        *slot = (uint32_t)at;
        if (before < at)
            while (at + length < LZ_SIZE && in[before + length] == in[at + length])
                length++;
        if (length < LZ_MIN) {
            at++;
            continue;
        }
        out = put_literals(out, in + literal, at - literal);
        out = put_number(out, at - before);
        out = put_number(out, length);
        at += length;
        literal = at;
    }
    out = put_literals(out, in + literal, LZ_SIZE - literal);
    return (size_t)(out - lz->packed);
}

static size_t lz_unpack(struct lz *lz, size_t packed)
{
    const uint8_t *from = lz->packed, *end = from + packed;
    uint8_t *out = lz->unpacked;
    for (;;) {
        size_t count, distance;
        from = get_number(from, &count);
        for (; count; count--)
            *out++ = *from++;
        if (from >= end)
            return (size_t)(out - lz->unpacked);
        from = get_number(from, &distance);
        from = get_number(from, &count);
        for (; count; count--, out++)
            *out = *(out - distance);
    }
}

static uint64_t lz_run(void *context)
{
    struct lz *lz = context;
    size_t packed = lz_pack(lz), unpacked = lz_unpack(lz, packed);
    bool same = unpacked == LZ_SIZE && memcmp(lz->input, lz->unpacked, LZ_SIZE) == 0;
    return mix(packed, same);
}

static const struct item items[] = {
    {.name = "qsort", .operations = 1, .setup = sort_setup, .run = sort_run},
    {.name = "hash-table", .operations = 2 * HASH_KEYS, .setup = hash_setup, .run = hash_run},
    {.name = "string-search", .operations = 1, .setup = text_setup, .run = search_run},
    {.name = "libc-strings", .operations = 1, .setup = text_setup, .run = libc_strings_run},
    {.name = "lz-compress", .operations = 1, .setup = lz_setup, .run = lz_run},
};

const struct group group_data = GROUP("integer", items);
