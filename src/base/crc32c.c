/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC-32C by the processor's own instruction, or by a table where it has none. */
#include "base/crc32c.h"

#include <immintrin.h>
#include <pthread.h>

#include "base/util.h"

#define POLYNOMIAL 0x82f63b78u /* bits in reverse */

static uint32_t table[256];

static void make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int bit = 0; bit < 8; bit++)
            v = v >> 1 ^ (v & 1 ? POLYNOMIAL : 0);
        table[i] = v;
    }
}

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t len)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_table);
    while (len--)
        crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
    return crc;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t len)
{
    uint64_t v = crc;

    for (; len >= 8; p += 8, len -= 8)
        v = _mm_crc32_u64(v, load_le64(p));
    crc = (uint32_t)v;
    while (len--)
        crc = _mm_crc32_u8(crc, *p++);
    return crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
    if (__builtin_cpu_supports("sse4.2"))
        return ~by_instruction(~crc, data, len);
    return ~by_table(~crc, data, len);
}
