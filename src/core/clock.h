/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine's clock: nanoseconds since the machine was made, standing still while the machine is stopped.
 * Timers on it fire on the main loop's thread with the machine lock held.
 */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "os/loop.h"

struct vm_timer;

struct vm_clock {
    struct loop *loop;
    uint64_t offset_ns;     /* monotonic_ns() - offset_ns = machine time, while running */
    uint64_t stopped_at_ns; /* machine time, while stopped */
    bool running;
    struct vm_timer *timers;    /* all armed timers, so that stop/start can move them */
    pthread_mutex_t timer_lock; /* guards `timers`; a leaf lock */
};

/* Embed and initialise once. `deadline` is machine time. */
struct vm_timer {
    struct loop_timer host;
    struct vm_clock *clock;
    void (*fn)(void *opaque);
    void *opaque;
    uint64_t deadline;
    bool armed;
    struct vm_timer *next, **prev;
};

void vm_clock_init(struct vm_clock *clock, struct loop *loop);
void vm_clock_destroy(struct vm_clock *clock);
/* Any thread. */
uint64_t vm_clock_now(const struct vm_clock *clock);
/* With the machine lock held and all vCPUs stopped. */
void vm_clock_start(struct vm_clock *clock);
void vm_clock_stop(struct vm_clock *clock);
/* Sets machine time (restore), while stopped. */
void vm_clock_set(struct vm_clock *clock, uint64_t now);

void vm_timer_init(struct vm_timer *t, struct vm_clock *clock, void (*fn)(void *opaque), void *opaque);
/* Any thread. A deadline in the past fires as soon as the loop runs. Re-arming moves it. */
void vm_timer_arm(struct vm_timer *t, uint64_t deadline);
void vm_timer_cancel(struct vm_timer *t);

#endif
