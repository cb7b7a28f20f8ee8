/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An event loop over epoll: file descriptors, timers, and functions posted from other threads. One thread
 * runs a loop; loop_post, loop_stop and loop_timer_arm/cancel may be called from any thread; loop_fd_* from
 * the loop's thread, from a thread that holds the loop's lock, or before it runs. Callbacks run with the
 * loop's lock held when it has one, never while waiting. What was cancelled or removed under the lock is not
 * called any more.
 */
#ifndef OS_LOOP_H
#define OS_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct error;
struct loop;

/* `lock` (may be NULL) is taken around every callback; it is not owned. NULL and *err on failure. */
struct loop *loop_new(pthread_mutex_t *lock, struct error **err);
void loop_free(struct loop *loop);

/* Runs until loop_stop. Returns once every callback in progress has returned. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* File descriptors. `events` is a mask of EPOLLIN, EPOLLOUT, EPOLLRDHUP (level-triggered). The fd is not
 * owned. */
typedef void loop_fd_fn(void *opaque, int fd, uint32_t events);
bool loop_fd_add(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *opaque,
                 struct error **err);
void loop_fd_change(struct loop *loop, int fd, uint32_t events);
/* After it returns the callback is not called again, even for events already fetched. */
void loop_fd_remove(struct loop *loop, int fd);

/* Runs fn(opaque) once on the loop's thread, soon. */
void loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque);

/* One-shot timers on CLOCK_MONOTONIC, in nanoseconds. Embed the struct; it needs no other memory. */
struct loop_timer {
    void (*fn)(void *opaque);
    void *opaque;
    uint64_t deadline_ns; /* meaningful while armed */
    struct loop *loop;
    unsigned heap_index; /* 1-based place in the loop's heap; 0: not armed */
};

void loop_timer_init(struct loop_timer *t, struct loop *loop, void (*fn)(void *opaque), void *opaque);
/* Arms or re-arms. A deadline in the past fires at once. */
void loop_timer_arm(struct loop_timer *t, uint64_t deadline_ns);
void loop_timer_cancel(struct loop_timer *t);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t monotonic_ns(void);

#endif
