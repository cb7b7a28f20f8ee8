/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The event loop: order of timers, posts from other threads, removal and cancellation under the lock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "os/loop.h"

#define MS 1000000ull

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loop *loop;

static int setup(void **state)
{
    loop = loop_new(&lock, NULL);
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    loop_free(loop);
    return 0;
}

static void stop(void *opaque)
{
    loop_stop(loop);
}

/* Runs until `ms` have passed. */
static void run_for(unsigned ms)
{
    struct loop_timer t;
    loop_timer_init(&t, loop, stop, NULL);
    loop_timer_arm(&t, monotonic_ns() + ms * MS);
    loop_run(loop);
}

struct numbered {
    struct loop_timer t;
    uint64_t deadline;
};

static uint64_t last_deadline;
static unsigned fired;

static void in_order(void *opaque)
{
    struct numbered *n = opaque;
    assert_true(monotonic_ns() >= n->deadline);
    assert_true(n->deadline >= last_deadline);
    assert_int_not_equal(pthread_mutex_trylock(&lock), 0); /* we hold it */
    last_deadline = n->deadline;
    fired++;
}

static void test_timers_in_order(void **state)
{
    enum { COUNT = 500 };
    static struct numbered n[COUNT];
    uint64_t start = monotonic_ns() + 2 * MS;
    fired = 0;
    last_deadline = 0;
    srand(1);
    for (unsigned i = 0; i < COUNT; i++) {
        loop_timer_init(&n[i].t, loop, in_order, &n[i]);
        loop_timer_arm(&n[i].t, start + 60000 * MS); /* moved below, so that re-arming is exercised */
    }
    for (unsigned i = 0; i < COUNT; i++) {
        loop_timer_arm(&n[i].t, start + (uint64_t)rand() % (10 * MS));
        n[i].deadline = n[i].t.deadline_ns; /* later than asked for when that is past by now */
    }
    for (unsigned i = 0; i < COUNT; i += 5)
        loop_timer_cancel(&n[i].t);
    run_for(30);
    assert_int_equal(fired, COUNT - COUNT / 5);
}

static void count(void *opaque)
{
    ++*(unsigned *)opaque;
}

struct two {
    struct loop_timer a, b;
    unsigned a_fired, b_fired;
};

static void cancel_other(void *opaque)
{
    struct two *two = opaque;
    two->a_fired++;
    loop_timer_cancel(&two->b);
}

static void test_cancel_from_a_callback(void **state)
{
    struct two two = {0};
    uint64_t at = monotonic_ns();
    loop_timer_init(&two.a, loop, cancel_other, &two);
    loop_timer_init(&two.b, loop, count, &two.b_fired);
    loop_timer_arm(&two.a, at);
    loop_timer_arm(&two.b, at + 1);
    run_for(5);
    assert_int_equal(two.a_fired, 1);
    assert_int_equal(two.b_fired, 0);
}

static void rearm_in_the_past(void *opaque)
{
    struct numbered *n = opaque;
    n->deadline++;
    loop_timer_arm(&n->t, 0);
}

/* A timer that is always due must not starve the rest. */
static void test_always_due_timer_starves_nobody(void **state)
{
    struct numbered n = {0};
    unsigned posted = 0;
    loop_timer_init(&n.t, loop, rearm_in_the_past, &n);
    loop_timer_arm(&n.t, 0);
    loop_post(loop, count, &posted);
    run_for(5);
    loop_timer_cancel(&n.t);
    assert_true(n.deadline > 1);
    assert_int_equal(posted, 1);
}

struct poster {
    unsigned count, wanted;
};

static void posted_one(void *opaque)
{
    struct poster *p = opaque;
    if (++p->count == p->wanted)
        loop_stop(loop);
}

static void *post_many(void *opaque)
{
    struct poster *p = opaque;
    for (unsigned i = 0; i < p->wanted / 2; i++)
        loop_post(loop, posted_one, p);
    return NULL;
}

static void test_posts_from_threads(void **state)
{
    struct poster p = {.wanted = 20000};
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, post_many, &p), 0);
    loop_run(loop); /* ends only when none got lost */
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(p.count, p.wanted);
}

static void *arm_soon(void *opaque)
{
    usleep(5000); /* the loop sleeps by now, for a minute */
    loop_timer_arm(opaque, monotonic_ns() + MS);
    return NULL;
}

static void test_earlier_timer_from_a_thread_wakes(void **state)
{
    struct loop_timer far, near;
    loop_timer_init(&far, loop, stop, NULL);
    loop_timer_arm(&far, monotonic_ns() + 60000 * MS);
    loop_timer_init(&near, loop, stop, NULL);
    uint64_t start = monotonic_ns();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, arm_soon, &near), 0);
    loop_run(loop);
    pthread_join(thread, NULL);
    assert_true(monotonic_ns() - start < 30000 * MS);
    loop_timer_cancel(&far);
}

struct pair {
    int a[2], b[2];
    unsigned calls;
};

static void remove_both(void *opaque, int fd, uint32_t events)
{
    struct pair *p = opaque;
    assert_true(events & EPOLLIN);
    p->calls++;
    loop_fd_remove(loop, p->a[0]);
    loop_fd_remove(loop, p->b[0]);
}

/* Both are ready in the same round; the first callback removes the second. */
static void test_removed_descriptor_is_not_called(void **state)
{
    struct pair p = {0};
    assert_int_equal(pipe(p.a) | pipe(p.b), 0);
    assert_int_equal(write(p.a[1], "x", 1) + write(p.b[1], "x", 1), 2);
    assert_true(loop_fd_add(loop, p.a[0], EPOLLIN, remove_both, &p, NULL));
    assert_true(loop_fd_add(loop, p.b[0], EPOLLIN, remove_both, &p, NULL));
    run_for(5);
    assert_int_equal(p.calls, 1);
    for (int i = 0; i < 2; i++) {
        close(p.a[i]);
        close(p.b[i]);
    }
}

static void test_change_and_refusal(void **state)
{
    struct pair p = {0};
    struct error *err = NULL;
    assert_int_equal(pipe(p.a), 0);
    assert_int_equal(write(p.a[1], "x", 1), 1);
    p.b[0] = -1;
    assert_true(loop_fd_add(loop, p.a[0], 0, remove_both, &p, NULL));
    run_for(3);
    assert_int_equal(p.calls, 0);
    loop_fd_change(loop, p.a[0], EPOLLIN);
    run_for(3);
    assert_int_equal(p.calls, 1);
    close(p.a[0]);
    close(p.a[1]);
    assert_false(loop_fd_add(loop, p.a[0], EPOLLIN, remove_both, &p, &err));
    assert_non_null(err);
    error_free(err);
}

static void test_stop_before_run(void **state)
{
    loop_stop(loop);
    loop_run(loop); /* returns */
}

int main(void)
{
#define LOOP_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_timers_in_order),
        LOOP_TEST(test_cancel_from_a_callback),
        LOOP_TEST(test_always_due_timer_starves_nobody),
        LOOP_TEST(test_posts_from_threads),
        LOOP_TEST(test_earlier_timer_from_a_thread_wakes),
        LOOP_TEST(test_removed_descriptor_is_not_called),
        LOOP_TEST(test_change_and_refusal),
        LOOP_TEST(test_stop_before_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
