/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machine time and timers on it: see clock.h. */
#include "core/clock.h"

#include "base/util.h"

void vm_clock_init(struct vm_clock *clock, struct loop *loop)
{
    *clock = (struct vm_clock){.loop = loop};
    pthread_mutex_init(&clock->timer_lock, NULL);
}

void vm_clock_destroy(struct vm_clock *clock)
{
    pthread_mutex_destroy(&clock->timer_lock);
}

/*
 * Readers take no lock. vm_clock_start writes offset_ns before it sets `running`, vm_clock_stop writes
 * stopped_at_ns before it clears it, so a reader that sees either value of `running` uses a number that
 * belongs to it.
 */
uint64_t vm_clock_now(const struct vm_clock *clock)
{
    if (__atomic_load_n(&clock->running, __ATOMIC_ACQUIRE))
        return monotonic_ns() - __atomic_load_n(&clock->offset_ns, __ATOMIC_RELAXED);
    return __atomic_load_n(&clock->stopped_at_ns, __ATOMIC_RELAXED);
}

/* The host's deadline for a machine time that may be absurdly far away. */
static void arm_host(struct vm_timer *t)
{
    uint64_t offset = t->clock->offset_ns;
    uint64_t host;
    /* offset is "negative" after a restore onto a host that was booted more recently than the machine is old
     */
    if ((int64_t)offset >= 0)
        host = __builtin_add_overflow(t->deadline, offset, &host) ? UINT64_MAX : host;
    else
        host = t->deadline > -offset ? t->deadline - -offset : 0;
    loop_timer_arm(&t->host, host);
}

void vm_clock_start(struct vm_clock *clock)
{
    if (clock->running)
        return;
    pthread_mutex_lock(&clock->timer_lock);
    __atomic_store_n(&clock->offset_ns, monotonic_ns() - clock->stopped_at_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&clock->running, true, __ATOMIC_RELEASE); /* pairs with the acquire in vm_clock_now */
    for (struct vm_timer *t = clock->timers; t; t = t->next)
        arm_host(t);
    pthread_mutex_unlock(&clock->timer_lock);
}

void vm_clock_stop(struct vm_clock *clock)
{
    if (!clock->running)
        return;
    pthread_mutex_lock(&clock->timer_lock);
    __atomic_store_n(&clock->stopped_at_ns, vm_clock_now(clock), __ATOMIC_RELAXED);
    __atomic_store_n(&clock->running, false, __ATOMIC_RELEASE);
    for (struct vm_timer *t = clock->timers; t; t = t->next)
        loop_timer_cancel(&t->host);
    pthread_mutex_unlock(&clock->timer_lock);
}

void vm_clock_set(struct vm_clock *clock, uint64_t now)
{
    clock->stopped_at_ns = now;
}

static void unlink_timer(struct vm_timer *t)
{
    *t->prev = t->next;
    if (t->next)
        t->next->prev = t->prev;
    t->armed = false;
}

static void fire(void *opaque)
{
    struct vm_timer *t = opaque;
    pthread_mutex_lock(&t->clock->timer_lock);
    bool due = t->armed && t->clock->running;
    if (due)
        unlink_timer(t);
    pthread_mutex_unlock(&t->clock->timer_lock);
    if (due)
        t->fn(t->opaque);
}

void vm_timer_init(struct vm_timer *t, struct vm_clock *clock, void (*fn)(void *opaque), void *opaque)
{
    *t = (struct vm_timer){.clock = clock, .fn = fn, .opaque = opaque};
    loop_timer_init(&t->host, clock->loop, fire, t);
}

void vm_timer_arm(struct vm_timer *t, uint64_t deadline)
{
    struct vm_clock *clock = t->clock;
    pthread_mutex_lock(&clock->timer_lock);
    t->deadline = deadline;
    if (!t->armed) {
        t->armed = true;
        t->next = clock->timers;
        t->prev = &clock->timers;
        if (t->next)
            t->next->prev = &t->next;
        clock->timers = t;
    }
    if (clock->running)
        arm_host(t);
    pthread_mutex_unlock(&clock->timer_lock);
}

void vm_timer_cancel(struct vm_timer *t)
{
    if (!t->clock)
        return;
    pthread_mutex_lock(&t->clock->timer_lock);
    if (t->armed)
        unlink_timer(t);
    loop_timer_cancel(&t->host);
    pthread_mutex_unlock(&t->clock->timer_lock);
}
