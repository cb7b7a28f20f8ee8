/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How fast the host's time stamp counter runs. */
#include <cpuid.h>
#include <pthread.h>
#include <time.h>

#include "x86/cpuid.h"

#define NS_PER_SECOND UINT64_C(1000000000)

struct sample {
    uint64_t tsc, ns;
};

static uint64_t read_tsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return (uint64_t)hi << 32 | lo;
}

static uint64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec;
}

/* Both clocks at one moment: of several attempts the one that was disturbed least. */
static struct sample take_sample(void)
{
    struct sample best = {0, 0};
    uint64_t best_width = UINT64_MAX;
    for (int i = 0; i < 16; i++) {
        uint64_t before = read_tsc();
        uint64_t ns = clock_ns();
        uint64_t after = read_tsc();
        if (after - before < best_width) {
            best_width = after - before;
            best = (struct sample){before + (after - before) / 2, ns};
        }
    }
    return best;
}

static uint64_t measure(uint64_t duration_ns)
{
    struct sample a = take_sample();
    struct timespec ts = {0, (long)duration_ns};
    nanosleep(&ts, NULL);
    struct sample b = take_sample();
    if (b.ns <= a.ns || b.tsc <= a.tsc)
        return 0;
    return (uint64_t)((unsigned __int128)(b.tsc - a.tsc) * NS_PER_SECOND / (b.ns - a.ns));
}

/* What CPUID says: the crystal's ratio, or a hypervisor's timing leaf. 0: nothing. */
static uint64_t announced(void)
{
    uint32_t a, b, c, d;
    if (__get_cpuid(0x15, &a, &b, &c, &d) && a && b && c)
        return (uint64_t)c * b / a;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 31))) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010 && a < 0x40000100) {
            __cpuid(0x40000010, a, b, c, d);
            return (uint64_t)a * 1000;
        }
    }
    return 0;
}

static uint64_t tsc_hz, expected_hz;

/*
 * A hypervisor below may scale the counter without saying so; hence what is announced counts only when a
 * short measurement agrees to 0.1 %.
 */
static void find_tsc_hz(void)
{
    uint64_t said = expected_hz ? expected_hz : announced();
    uint64_t tolerance = expected_hz ? HOST_TSC_TOLERANCE(said) : said / 1000;
    uint64_t seen = measure(said ? 2000000 : 10000000);
    if (said && seen && (seen > said ? seen - said : said - seen) < tolerance)
        tsc_hz = said;
    else if (said && seen)
        tsc_hz = measure(10000000);
    else
        tsc_hz = seen;
    if (!tsc_hz)
        tsc_hz = NS_PER_SECOND; /* a clock that stands still: nothing better is known */
    tsc_hz = (tsc_hz + 500) / 1000 * 1000;
}

void host_tsc_expect(uint64_t hz)
{
    expected_hz = hz;
}

uint64_t host_tsc_hz(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_tsc_hz);
    return tsc_hz;
}
