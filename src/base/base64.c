/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Base64: see base64.h. */
#include "base/base64.h"

#include <stdlib.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const void *data, size_t len)
{
    const uint8_t *from = data;
    char *text = malloc((len + 2) / 3 * 4 + 1), *to = text;
    if (!text)
        return NULL;
    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i;
        uint32_t group =
            (uint32_t)from[i] << 16 | (n > 1 ? (uint32_t)from[i + 1] << 8 : 0) | (n > 2 ? from[i + 2] : 0);
        *to++ = digits[group >> 18];
        *to++ = digits[group >> 12 & 63];
        *to++ = '=';
        *to++ = '=';
        if (n > 1)
            to[-2] = digits[group >> 6 & 63];
        if (n > 2)
            to[-1] = digits[group & 63];
    }
    *to = 0;
    return text;
}

/* The value of a digit; 64 for anything else. */
static uint32_t value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (uint32_t)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (uint32_t)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (uint32_t)(c - '0') + 52;
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

bool base64_decode(const char *text, size_t len, uint8_t *out, size_t *out_len)
{
    size_t padding = 0;
    uint8_t *to = out;
    if (len % 4)
        return false;
    while (padding < 2 && padding < len && text[len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < len; i += 4) {
        uint32_t group = 0;
        for (size_t k = i; k < i + 4; k++) {
            uint32_t v = k < len - padding ? value_of(text[k]) : 0;
            if (v > 63)
                return false;
            group = group << 6 | v;
        }
        *to++ = (uint8_t)(group >> 16);
        *to++ = (uint8_t)(group >> 8);
        *to++ = (uint8_t)group;
    }
    *out_len = (size_t)(to - out) - padding;
    return true;
}
