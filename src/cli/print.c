/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Output for people and for programs: see print.h. */
#include "cli/print.h"

#include <stdio.h>
#include <time.h>

#include "base/util.h"
#include "cli/verb.h"

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

int print_json(json_t *value)
{
    int failed = !value || json_dumpf(value, stdout, JSON_INDENT(2)) < 0;
    putchar('\n');
    json_decref(value);
    return failed ? EXIT_RUCHE : EXIT_OK;
}
