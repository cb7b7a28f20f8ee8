/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The conformance suite's main program and what its cases share.
 *
 *     conform [--engine NAME] [--other NAME] [--seed N] [CASE]
 *
 * Exit status 0: no case failed.
 */
#include "conform.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define SHOWN_MAX  8
#define CASE_LIMIT 120 /* seconds */

static unsigned shown;

void conform_fail(struct conform *c, const char *fmt, ...)
{
    va_list ap;
    c->bad = true;
    if (shown++ >= SHOWN_MAX)
        return;
    printf("# ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

uint64_t conform_random(struct conform *c)
{
    c->random ^= c->random >> 12;
    c->random ^= c->random << 25;
    c->random ^= c->random >> 27;
    return c->random * 0x2545f4914f6cdd1dull;
}

/* ---- running the tables ---- */

static const struct conform_case *const tables[] = {
    conform_state_cases,  conform_io_cases,   conform_irq_cases,  conform_eventfd_cases,
    conform_memory_cases, conform_user_cases, conform_watch_cases};

static bool run_case(struct conform *c, const struct conform_case *k)
{
    const struct harness_options options = {.engine = c->engine, .cpu_count = k->cpus, .memory = 16 * MIB};
    c->bad = false;
    shown = 0;
    alarm(CASE_LIMIT);
    c->h = harness_open(&options);
    if (!c->h)
        return false;
    k->run(c);
    harness_close(c->h);
    alarm(0);
    return !c->bad;
}

static unsigned run_tables(struct conform *c, const char *only, unsigned *failed)
{
    unsigned number = 0;
    for (unsigned t = 0; t < ARRAY_SIZE(tables); t++) {
        for (const struct conform_case *k = tables[t]; k->name; k++) {
            if (only && strcmp(only, k->name) != 0)
                continue;
            bool good = run_case(c, k);
            *failed += !good;
            printf("%s %u - %s\n", good ? "ok" : "not ok", ++number, k->name);
            fflush(stdout);
        }
    }
    return number;
}

static uint64_t default_seed(void)
{
    const char *given = getenv("RUCHE_TEST_SEED");
    return given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"engine", 1, 0, 'e'}, {"other", 1, 0, 'o'}, {"seed", 1, 0, 's'}, {0}};
    struct conform c = {.engine = "bt", .random = default_seed()};
    unsigned failed = 0;
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (o == 'e')
            c.engine = optarg;
        else if (o == 'o')
            c.other = optarg;
        else if (o == 's')
            c.random = strtoull(optarg, NULL, 0);
        else
            return 2;
    }
    if (!c.other)
        c.other = c.engine;
    printf("# engine %s, other %s, --seed %llu\n", c.engine, c.other, (unsigned long long)c.random);
    c.random |= !c.random;
    unsigned count = run_tables(&c, argv[optind], &failed);
    printf("# %u passed, %u failed\n", count - failed, failed);
    return count && !failed ? 0 : 1;
}
