/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System items with two threads: waking each other, and making each other's processor forget translations.
 */
#include "suite.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A turn is a number that only ever grows; the thread whose parity it has may add one. */
#define FUTEX_TURNS 100
#define TURN_STOP   UINT32_MAX

struct ping {
    _Atomic uint32_t turn;
    pthread_t thread;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *ping_thread(void *argument)
{
    struct ping *ping = argument;
    for (;;) {
        uint32_t turn = atomic_load(&ping->turn);
        if (turn == TURN_STOP)
            return NULL;
        if (turn & 1) {
            atomic_store(&ping->turn, turn + 1);
            futex_wake(&ping->turn);
        } else {
            futex_wait(&ping->turn, turn);
        }
    }
}

static void *ping_setup(void)
{
    struct ping *ping = allocate(sizeof(*ping));
    if (pthread_create(&ping->thread, NULL, ping_thread, ping))
        die("pthread_create");
    return ping;
}

static uint64_t ping_run(void *context)
{
    struct ping *ping = context;
    uint32_t first = atomic_load(&ping->turn);
    for (unsigned i = 0; i < FUTEX_TURNS; i++) {
        uint32_t turn = atomic_load(&ping->turn) + 1;
        atomic_store(&ping->turn, turn);
        futex_wake(&ping->turn);
        while (atomic_load(&ping->turn) == turn)
            futex_wait(&ping->turn, turn);
    }
    return atomic_load(&ping->turn) - first;
}

static void ping_teardown(void *context)
{
    struct ping *ping = context;
    atomic_store(&ping->turn, TURN_STOP);
    futex_wake(&ping->turn);
    pthread_join(ping->thread, NULL);
    free(ping);
}

/* While a thread reads a page on another processor, the page is taken away again and again. */
#define SHOOTDOWNS      50
#define SHOOTDOWN_BYTES 4096

struct shootdown {
    volatile uint8_t *page;
    _Atomic bool stop;
    pthread_t thread;
};

static void *shootdown_thread(void *argument)
{
    const struct shootdown *shootdown = argument;
    uint64_t sum = 0;
    while (!atomic_load_explicit(&shootdown->stop, memory_order_relaxed))
        sum += *shootdown->page;
    return (void *)(uintptr_t)sum;
}

static void *shootdown_setup(void)
{
    struct shootdown *shootdown = allocate(sizeof(*shootdown));
    void *page = mmap(NULL, SHOOTDOWN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        die("mmap");
    shootdown->page = page;
    if (pthread_create(&shootdown->thread, NULL, shootdown_thread, shootdown))
        die("pthread_create");
    return shootdown;
}

static uint64_t shootdown_run(void *context)
{
    const struct shootdown *shootdown = context;
    uint64_t sum = 0;
    for (unsigned i = 1; i <= SHOOTDOWNS; i++) {
        *shootdown->page = (uint8_t)i;
        sum = mix(sum, *shootdown->page);
        if (madvise((void *)(uintptr_t)shootdown->page, SHOOTDOWN_BYTES, MADV_DONTNEED) < 0)
            die("madvise");
        sum = mix(sum, *shootdown->page);
    }
    return sum;
}

static void shootdown_teardown(void *context)
{
    struct shootdown *shootdown = context;
    atomic_store(&shootdown->stop, true);
    pthread_join(shootdown->thread, NULL);
    munmap((void *)(uintptr_t)shootdown->page, SHOOTDOWN_BYTES);
    free(shootdown);
}

static const struct item items[] = {
    {.name = "futex",
     .operations = FUTEX_TURNS,
     .setup = ping_setup,
     .run = ping_run,
     .teardown = ping_teardown},
    {.name = "shootdown",
     .operations = SHOOTDOWNS,
     .setup = shootdown_setup,
     .run = shootdown_run,
     .teardown = shootdown_teardown,
     .cpus = 2},
};

const struct group group_threads = GROUP("system", items);
