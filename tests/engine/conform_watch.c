/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Conformance: what an onlooker sees: counters and the trace of exits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "conform.h"

/* ECX times OUT to a scratch port; then the end by the exit port. */
CODE(write_ports, "code32", "mov $0x300, %dx; 1: out %al, %dx; loop 1b; mov $0xf4, %dx; out %al, %dx; hlt");

static unsigned counters(struct conform *c, struct engine_stat *stat)
{
    return c->h->ops->stats(c->h->vcpu[0], stat, ENGINE_STATS_MAX);
}

static void run_ports(struct conform *c, uint32_t times)
{
    struct x86_state s;
    conform_prepare(c, 0, write_ports, CODE_SIZE(write_ports), &s);
    s.gpr[R_RCX] = times;
    conform_set(c, 0, &s);
    conform_run(c, HARNESS_EXITED, 20000);
}

/* Always the same counters, which only grow, and by what was done. */
static void counted(struct conform *c)
{
    struct engine_stat before[ENGINE_STATS_MAX], after[ENGINE_STATS_MAX];
    if (!c->h->ops->stats) {
        conform_fail(c, "the engine has no counters");
        return;
    }
    unsigned count = counters(c, before);
    run_ports(c, 500);
    conform_equal(c, counters(c, after), count, "number of counters");
    uint64_t most = 0;
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(before[i].name, after[i].name) != 0)
            conform_fail(c, "counter %u was %s and is %s", i, before[i].name, after[i].name);
        if (after[i].value < before[i].value)
            conform_fail(c, "%s shrinks", after[i].name);
        else if (strncmp(after[i].name, "exits-", 6) == 0)
            most = MAX(most, after[i].value - before[i].value);
    }
    if (most < 500)
        conform_fail(c, "500 exits were counted as %llu", (unsigned long long)most);
    conform_equal(c, c->h->ops->stats(c->h->vcpu[0], after, 1), 1, "counters, with room for one");
}

static void traced(struct conform *c)
{
    char *text = NULL;
    size_t size = 0;
    unsigned lines = 0, right = 0;
    FILE *to = open_memstream(&text, &size);
    const struct harness_options options = {.engine = c->engine, .memory = 16 * MIB, .trace = to};
    harness_close(c->h);
    c->h = harness_open(&options);
    if (!c->h || !to) {
        fprintf(stderr, "conform: cannot open a machine with a trace\n");
        exit(2);
    }
    run_ports(c, 50);
    fflush(to);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        lines++;
        right += strtoull(line, NULL, 10) && strstr(line, " cpu0 ");
    }
    harness_close(c->h); /* it has the trace */
    c->h = NULL;
    fclose(to);
    free(text);
    conform_equal(c, right, lines, "lines of the trace in form");
    if (lines < 50)
        conform_fail(c, "50 exits left %u lines", lines);
}

const struct conform_case conform_watch_cases[] = {
    {"counters only grow, and by what was done", 1, counted},
    {"the trace has a line for each exit", 1, traced},
    {NULL, 0, NULL},
};
