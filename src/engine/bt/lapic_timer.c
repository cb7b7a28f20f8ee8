/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local APIC's timer. Each APIC publishes when its timer is due, in host TSC ticks (wake_tsc). The vCPU's
 * own thread fires it when it looks; one thread per engine waits for the earliest and makes running vCPUs
 * look. A halted vCPU sleeps no longer than its own timer (bt_lapic_next_expiry) and is left alone.
 *
 * One-shot and periodic counts run on machine time at 1 GHz before division, TSC deadlines on the guest's
 * TSC.
 *
 * The thread's wait and a new deadline meet as in Dekker's algorithm: the vCPU stores wake_tsc, then reads
 * wait_tsc; the thread stores wait_tsc, then reads all wake_tsc (and mp_state) again. One of the two sees the
 * other.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "engine/bt/lapic_impl.h"
#include "os/loop.h"

#define NS_PER_SECOND UINT64_C(1000000000)
/* A guest may ask for any period; the host is not made to follow faster than this. */
#define MIN_PERIOD_NS 20000u
#define WAKE_TAKEN    UINT64_C(0) /* in wake_tsc: the thread has told the vCPU to look */

enum timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };

struct bt_timers {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    pthread_t thread;
    bool stop;                 /* under lock */
    unsigned users;            /* set-up and tear-down are single-threaded */
    uint64_t hz;               /* of the host's TSC */
    _Atomic uint64_t wait_tsc; /* the thread looks again at this time */
    struct bt_lapic *_Atomic lapic[BT_CPU_MAX];
};

static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
    unsigned __int128 v = (unsigned __int128)a * b / c;
    return v > TSC_NEVER - 1 ? TSC_NEVER - 1 : (uint64_t)v;
}

static uint64_t add_clamped(uint64_t a, uint64_t b)
{
    return a > TSC_NEVER - 1 - b ? TSC_NEVER - 1 : a + b;
}

/* ---- the thread ---- */

static bool is_halted(const struct bt_lapic *l)
{
    return __atomic_load_n(&l->cpu->mp_state, __ATOMIC_SEQ_CST) != MP_RUNNING;
}

/* The earliest expiry of a running vCPU. */
static uint64_t earliest(struct bt_timers *t)
{
    uint64_t min = TSC_NEVER;
    for (unsigned i = 0; i < BT_CPU_MAX; i++) {
        struct bt_lapic *l = t->lapic[i];
        uint64_t wake = l && !is_halted(l) ? l->wake_tsc : TSC_NEVER;
        if (wake != WAKE_TAKEN)
            min = MIN(min, wake);
    }
    return min;
}

static void kick_due(struct bt_timers *t, uint64_t now)
{
    for (unsigned i = 0; i < BT_CPU_MAX; i++) {
        struct bt_lapic *l = t->lapic[i];
        if (!l || is_halted(l))
            continue;
        uint64_t wake = l->wake_tsc;
        /* Taken off the list; the vCPU publishes it again should it find that it is not due. */
        if (wake != WAKE_TAKEN && wake <= now &&
            atomic_compare_exchange_strong(&l->wake_tsc, &wake, WAKE_TAKEN))
            bt_request(l->cpu, BT_REQ_EVENT);
    }
}

/* With the lock held: sleeps until `tsc` or a signal. */
static void sleep_until(struct bt_timers *t, uint64_t tsc)
{
    if (tsc == TSC_NEVER) {
        pthread_cond_wait(&t->cond, &t->lock);
        return;
    }
    uint64_t now = bt_host_tsc();
    uint64_t ns = mul_div(tsc > now ? tsc - now : 0, NS_PER_SECOND, t->hz);
    ns = monotonic_ns() + MIN(ns, 3600 * NS_PER_SECOND);
    struct timespec ts = {(time_t)(ns / NS_PER_SECOND), (long)(ns % NS_PER_SECOND)};
    pthread_cond_timedwait(&t->cond, &t->lock, &ts);
}

static void *timer_thread(void *opaque)
{
    struct bt_timers *t = opaque;
    uint64_t pause = mul_div(MIN_PERIOD_NS, t->hz, NS_PER_SECOND);
    prctl(PR_SET_TIMERSLACK, 1);
    pthread_mutex_lock(&t->lock);
    while (!t->stop) {
        uint64_t now = bt_host_tsc();
        kick_due(t, now);
        uint64_t wait = MAX(earliest(t), now + pause);
        t->wait_tsc = wait;
        if (MAX(earliest(t), now + pause) >= wait)
            sleep_until(t, wait);
        t->wait_tsc = 0; /* awake: will look at everything anyway */
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static bool start_thread(struct bt_timers *t)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->cond, &attr);
    pthread_condattr_destroy(&attr);
    return pthread_create(&t->thread, NULL, timer_thread, t) == 0;
}

bool lapic_timer_attach(struct bt_lapic *l)
{
    struct bt_engine *e = l->cpu->engine;
    if (!e->timers) {
        struct bt_timers *t = calloc(1, sizeof(*t));
        if (!t)
            return false;
        t->hz = e->config.cpu->tsc_hz;
        t->wait_tsc = TSC_NEVER;
        if (!start_thread(t)) {
            free(t);
            return false;
        }
        e->timers = t;
    }
    l->timers = e->timers;
    l->timers->users++;
    l->timers->lapic[l->cpu->index] = l;
    return true;
}

static void wake_thread(struct bt_timers *t)
{
    pthread_mutex_lock(&t->lock);
    t->wait_tsc = 0; /* one signal is enough */
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->lock);
}

void lapic_timer_detach(struct bt_lapic *l)
{
    struct bt_timers *t = l->timers;
    /* Under the lock the thread is between two looks at the list. */
    pthread_mutex_lock(&t->lock);
    t->lapic[l->cpu->index] = NULL;
    t->stop = --t->users == 0;
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->lock);
    if (t->users)
        return;
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->cond);
    pthread_mutex_destroy(&t->lock);
    l->cpu->engine->timers = NULL;
    free(t);
}

/* ---- the vCPU's side ---- */

static enum timer_mode mode_of(uint32_t lvt)
{
    return (enum timer_mode)(lvt >> 17 & 3);
}

static unsigned divide_shift(const struct bt_lapic *l)
{
    return (((l->timer_divide & 3) | (l->timer_divide >> 1 & 4)) + 1) & 7;
}

static uint64_t period_ns(const struct bt_lapic *l)
{
    return (uint64_t)l->timer_initial << divide_shift(l);
}

static uint64_t machine_ns(struct bt_lapic *l)
{
    const struct engine_host *host = l->cpu->engine->config.host;
    lapic_leave_gpr(l);
    return host->now(host->opaque);
}

/* When the count that runs now ends; periods of hostile shortness are stretched. */
static uint64_t interval_ns(const struct bt_lapic *l)
{
    uint64_t ns = period_ns(l);
    return mode_of(l->lvt[LVT_TIMER]) == TIMER_PERIODIC ? MAX(ns, MIN_PERIOD_NS) : ns;
}

static void fire(struct bt_lapic *l)
{
    lapic_local_interrupt(l, LVT_TIMER, true);
}

/* Fires what is due, whatever wake_tsc says. */
static void settle(struct bt_lapic *l)
{
    enum timer_mode mode = mode_of(l->lvt[LVT_TIMER]);
    if (mode == TIMER_DEADLINE) {
        if (l->tsc_deadline && bt_rdtsc(l->cpu) >= l->tsc_deadline) {
            l->tsc_deadline = 0;
            fire(l);
        }
        return;
    }
    if (!l->timer_start_ns)
        return;
    uint64_t now = machine_ns(l), interval = interval_ns(l);
    uint64_t elapsed = now > l->timer_start_ns ? now - l->timer_start_ns : 0;
    if (!interval || elapsed < interval)
        return;
    if (mode == TIMER_PERIODIC)
        l->timer_start_ns += elapsed / interval * interval; /* missed ones are one */
    else
        l->timer_start_ns = 0;
    fire(l);
}

/* The next expiry in host TSC ticks. */
static uint64_t expiry(struct bt_lapic *l)
{
    uint32_t lvt = l->lvt[LVT_TIMER];
    if (lvt & LVT_MASKED)
        return TSC_NEVER;
    if (mode_of(lvt) == TIMER_DEADLINE) {
        if (!l->tsc_deadline)
            return TSC_NEVER;
        uint64_t now = bt_rdtsc(l->cpu);
        uint64_t left = l->tsc_deadline > now ? l->tsc_deadline - now : 0;
        return add_clamped(now - l->cpu->tsc_offset, left);
    }
    if (!l->timer_start_ns)
        return TSC_NEVER;
    uint64_t end = l->timer_start_ns + interval_ns(l), now = machine_ns(l);
    return add_clamped(bt_host_tsc(), mul_div(end > now ? end - now : 0, l->timers->hz, NS_PER_SECOND));
}

/* After every change: fires what is due and tells the thread of an earlier expiry. */
static void update(struct bt_lapic *l)
{
    settle(l);
    uint64_t wake = expiry(l);
    l->wake_tsc = wake;
    if (wake < l->timers->wait_tsc) {
        lapic_leave_gpr(l);
        wake_thread(l->timers);
    }
}

void bt_lapic_check_timer(struct bt_lapic *l)
{
    if (bt_host_tsc() >= l->wake_tsc) {
        update(l);
        return;
    }
    /* A vCPU that has just been woken was left out by the thread: see Dekker's algorithm above. */
    atomic_thread_fence(memory_order_seq_cst);
    if (l->wake_tsc < l->timers->wait_tsc) {
        lapic_leave_gpr(l);
        wake_thread(l->timers);
    }
}

void bt_lapic_tsc_changed(struct bt_lapic *l)
{
    update(l);
}

uint64_t bt_lapic_next_expiry(struct bt_lapic *l)
{
    uint64_t wake = l->wake_tsc;
    if (wake == TSC_NEVER)
        return UINT64_MAX;
    lapic_leave_gpr(l);
    uint64_t now = bt_host_tsc();
    return add_clamped(monotonic_ns(), mul_div(wake > now ? wake - now : 0, NS_PER_SECOND, l->timers->hz));
}

void lapic_timer_reset(struct bt_lapic *l)
{
    l->timer_initial = 0;
    l->timer_divide = 0;
    l->timer_start_ns = 0;
    l->tsc_deadline = 0;
    l->wake_tsc = TSC_NEVER;
}

/* Ticks left, after division. */
static uint32_t count_left(const struct bt_lapic *l, uint64_t now)
{
    if (!l->timer_start_ns)
        return 0;
    uint64_t elapsed = now > l->timer_start_ns ? now - l->timer_start_ns : 0, period = period_ns(l);
    return elapsed >= period ? 0 : (uint32_t)((period - elapsed) >> divide_shift(l));
}

uint32_t lapic_timer_current(struct bt_lapic *l)
{
    update(l);
    if (mode_of(l->lvt[LVT_TIMER]) == TIMER_DEADLINE || !l->timer_start_ns)
        return 0;
    return count_left(l, machine_ns(l));
}

void lapic_timer_set_initial(struct bt_lapic *l, uint32_t value)
{
    if (mode_of(l->lvt[LVT_TIMER]) == TIMER_DEADLINE)
        return;
    l->timer_initial = value;
    l->timer_start_ns = value ? MAX(machine_ns(l), 1) : 0;
    update(l);
}

/* What is left to count stays the same number of (now longer or shorter) ticks. */
void lapic_timer_set_divide(struct bt_lapic *l, uint32_t value)
{
    settle(l);
    uint64_t now = l->timer_start_ns ? machine_ns(l) : 0;
    uint32_t left = count_left(l, now);
    l->timer_divide = value & 0xb;
    if (l->timer_start_ns) {
        uint64_t gone = (uint64_t)(l->timer_initial - left) << divide_shift(l);
        l->timer_start_ns = now > gone ? now - gone : 1;
    }
    update(l);
}

void lapic_timer_set_lvt(struct bt_lapic *l, uint32_t value)
{
    settle(l); /* by the old entry */
    enum timer_mode before = mode_of(l->lvt[LVT_TIMER]), after = mode_of(value);
    l->lvt[LVT_TIMER] = value;
    if (before != after && (before == TIMER_DEADLINE || after == TIMER_DEADLINE)) {
        l->timer_start_ns = 0;
        l->tsc_deadline = 0;
        l->timer_initial = 0;
    }
    update(l);
}

uint64_t lapic_timer_deadline(struct bt_lapic *l)
{
    update(l);
    return mode_of(l->lvt[LVT_TIMER]) == TIMER_DEADLINE ? l->tsc_deadline : 0;
}

void lapic_timer_set_deadline(struct bt_lapic *l, uint64_t guest_tsc)
{
    if (mode_of(l->lvt[LVT_TIMER]) != TIMER_DEADLINE)
        return;
    l->tsc_deadline = guest_tsc;
    update(l);
}
