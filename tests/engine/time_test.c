/* SPDX-License-Identifier: GPL-2.0-or-later */
/* engine_ops.run_time: guest time stands still and goes on, on each vCPU alike. Usage: time-test ENGINE. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness.h"

#define CPUS 2

static struct x86_state state[CPUS];

static void look(struct harness *h)
{
    for (unsigned i = 0; i < CPUS; i++)
        h->ops->get_state(h->vcpu[i], &state[i]);
}

static void expect(bool holds, const char *what)
{
    if (holds)
        return;
    printf("# wrong: %s\nnot ok 1 - guest time stands still and goes on\n", what);
    exit(1);
}

int main(int argc, char **argv)
{
    struct harness_options options = {.engine = argc > 1 ? argv[1] : NULL, .cpu_count = CPUS};
    struct harness *h = harness_open(&options);
    if (!h)
        return 1;
    uint64_t pause = h->cpu.tsc_hz / 20, first[CPUS];
    const struct timespec pause_time = {.tv_nsec = 50000000};

    h->ops->run_time(h->engine, false);
    look(h);
    int64_t apart = (int64_t)(state[1].tsc - state[0].tsc);
    for (unsigned i = 0; i < CPUS; i++)
        first[i] = state[i].tsc;
    nanosleep(&pause_time, NULL);
    look(h);
    expect(state[0].tsc == first[0] && state[1].tsc == first[1], "TSCs stand still");

    /* States that are set one after the other while time stands still begin together. */
    state[0].tsc = first[0] + 12345;
    harness_set(h, 0, &state[0]);
    nanosleep(&pause_time, NULL);
    state[1].tsc = first[0] + 12345;
    harness_set(h, 1, &state[1]);
    look(h);
    expect(state[0].tsc == state[1].tsc, "TSCs that were set alike are alike");
    expect(state[0].tsc == first[0] + 12345, "a TSC is what it was set to");

    h->ops->run_time(h->engine, true);
    look(h);
    expect(state[0].tsc >= first[0] + 12345, "a TSC does not go back");
    expect(state[0].tsc - (first[0] + 12345) < pause, "what stood still is not made up for");
    nanosleep(&pause_time, NULL);
    look(h);
    expect(state[0].tsc - first[0] > pause / 2, "TSCs go on");
    printf("# vCPUs were %lld ticks apart at the start\nok 1 - guest time stands still and goes on\n",
           (long long)apart);
    harness_close(h);
    return 0;
}
