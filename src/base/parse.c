/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading values that users write: see parse.h. */
#include "base/parse.h"

#include "base/util.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

/* The number at the start of `text`; *end is what follows. */
static bool leading_uint(const char *text, uint64_t *out, const char **end)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = hex ? text + 2 : text;
    if (!(hex ? isxdigit((unsigned char)*digits) : isdigit((unsigned char)*digits)))
        return false; /* strtoull takes blanks and signs */
    char *stop;
    errno = 0;
    unsigned long long v = strtoull(digits, &stop, hex ? 16 : 10);
    if (errno)
        return false;
    *out = v;
    *end = stop;
    return true;
}

bool parse_uint(const char *text, uint64_t *out)
{
    uint64_t v;
    const char *end;
    if (!leading_uint(text, &v, &end) || *end)
        return false;
    *out = v;
    return true;
}

bool parse_size(const char *text, uint64_t *out)
{
    static const char suffixes[] = "KMGT";
    uint64_t v;
    const char *end;
    if (!leading_uint(text, &v, &end))
        return false;
    if (*end) {
        const char *s = strchr(suffixes, toupper((unsigned char)*end));
        if (s) {
            unsigned shift = 10 * (unsigned)(s - suffixes + 1);
            if (v > UINT64_MAX >> shift)
                return false;
            v <<= shift;
            end++;
            if (*end == 'i' && end[1] == 'B')
                end++;
        }
        if (*end == 'B')
            end++;
    }
    if (*end)
        return false;
    *out = v;
    return true;
}

bool parse_bool(const char *text, bool *out)
{
    static const char *const names[][2] = {{"off", "on"}, {"no", "yes"}, {"false", "true"}, {"0", "1"}};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        for (int v = 0; v < 2; v++) {
            if (strcasecmp(text, names[i][v]) == 0) {
                *out = v;
                return true;
            }
        }
    }
    return false;
}

bool parse_mac(const char *text, uint8_t out[6])
{
    uint8_t mac[6];
    for (int i = 0; i < 6; i++, text += 3) {
        if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]) ||
            text[2] != (i < 5 ? ':' : '\0'))
            return false;
        char digits[3] = {text[0], text[1], '\0'};
        mac[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    memcpy(out, mac, sizeof(mac));
    return true;
}

bool parse_uuid(const char *text, uint8_t out[16])
{
    uint8_t uuid[16];
    for (size_t i = 0; i < sizeof(uuid); i++) {
        if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]))
            return false;
        char digits[3] = {text[0], text[1], '\0'};
        uuid[i] = (uint8_t)strtoul(digits, NULL, 16);
        text += 2;
        bool dash = i == 3 || i == 5 || i == 7 || i == 9;
        if (dash && *text != '-')
            return false;
        text += dash;
    }
    if (*text)
        return false;
    memcpy(out, uuid, sizeof(uuid));
    return true;
}
