/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Output for people and for programs: see print.h. */
#include "cli/print.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "cli/verb.h"

#define HARMLESS_MAX 300u

const char *age_text(int64_t since, char text[32])
{
    static const struct {
        int64_t seconds, small;
        char unit, small_unit;
    } steps[] = {{86400, 3600, 'd', 'h'}, {3600, 60, 'h', 'm'}, {60, 1, 'm', 's'}};
    int64_t s = MAX(time(NULL) - since, 0);
    size_t i = 0;
    while (i < ARRAY_SIZE(steps) && s < steps[i].seconds)
        i++;
    if (i == ARRAY_SIZE(steps))
        snprintf(text, 32, "%ds", (int)s);
    else
        snprintf(text, 32, "%d%c %d%c", (int)(s / steps[i].seconds), steps[i].unit,
                 (int)(s % steps[i].seconds / steps[i].small), steps[i].small_unit);
    return text;
}

const char *size_text(uint64_t bytes, char text[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    unsigned unit = 0;
    while (v >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
        v /= 1024;
        unit++;
    }
    snprintf(text, 32, v < 10 && unit ? "%.1f %s" : "%.0f %s", v, units[unit]);
    return text;
}

/* The control character at `p`, of ASCII or one that UTF-8 writes as C2 80 to C2 9F; 0: there is none. */
static unsigned control_at(const unsigned char *p)
{
    if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
        return p[1];
    return *p < ' ' || *p == 0x7f ? *p : 0;
}

char *print_harmless(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    cleanup(mem) char *out = malloc(4 * HARMLESS_MAX + 8);
    char *to = out;
    /* It is cut in front of a character, not in one. */
    for (size_t n = 0; out && *p && (n < HARMLESS_MAX || (*p & 0xc0) == 0x80) && n < HARMLESS_MAX + 4;
         n++, p++) {
        unsigned control = control_at(p);
        if (control)
            to += snprintf(to, 5, "\\x%02x", control);
        else
            *to++ = (char)*p;
        p += control >= 0x80;
    }
    if (out)
        *to = 0;
    return catalog_format("%s%s", out ? out : "", *p ? "..." : "");
}

int print_json(json_t *value)
{
    int failed = !value || json_dumpf(value, stdout, JSON_INDENT(2)) < 0;
    putchar('\n');
    json_decref(value);
    return failed ? EXIT_RUCHE : EXIT_OK;
}
