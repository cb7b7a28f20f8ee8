/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machine time: stands still while stopped, timers move with it, restored times, absurd deadlines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>

#include "core/clock.h"

#define MS 1000000ull

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loop *loop;
static struct vm_clock clk;

static int setup(void **state)
{
    loop = loop_new(&lock, NULL);
    vm_clock_init(&clk, loop);
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    vm_clock_destroy(&clk);
    loop_free(loop);
    return 0;
}

static void stop(void *opaque)
{
    loop_stop(loop);
}

static void run_for(unsigned ms)
{
    struct loop_timer t;
    loop_timer_init(&t, loop, stop, NULL);
    loop_timer_arm(&t, monotonic_ns() + ms * MS);
    loop_run(loop);
}

static void count(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void test_time_stands_still(void **state)
{
    assert_int_equal(vm_clock_now(&clk), 0);
    run_for(2);
    assert_int_equal(vm_clock_now(&clk), 0);
    vm_clock_start(&clk);
    run_for(3);
    uint64_t ran = vm_clock_now(&clk);
    assert_true(ran >= 3 * MS);
    vm_clock_stop(&clk);
    uint64_t stopped = vm_clock_now(&clk);
    run_for(3);
    assert_true(vm_clock_now(&clk) == stopped);
    vm_clock_start(&clk);
    assert_true(vm_clock_now(&clk) >= stopped);
    assert_true(vm_clock_now(&clk) < stopped + 60000 * MS);
    vm_clock_stop(&clk);
}

static void test_timers_wait_while_stopped(void **state)
{
    struct vm_timer t;
    unsigned fired = 0;
    vm_timer_init(&t, &clk, count, &fired);
    vm_timer_arm(&t, 2 * MS);
    run_for(5);
    assert_int_equal(fired, 0);
    assert_true(t.armed);
    vm_clock_start(&clk);
    vm_clock_stop(&clk);
    run_for(5);
    assert_int_equal(fired, 0);
    vm_clock_start(&clk);
    run_for(8);
    assert_int_equal(fired, 1);
    assert_false(t.armed);
    assert_null(clk.timers);
    vm_clock_stop(&clk);
}

static void test_cancel_and_rearm(void **state)
{
    struct vm_timer a, b;
    unsigned a_fired = 0, b_fired = 0;
    vm_timer_init(&a, &clk, count, &a_fired);
    vm_timer_init(&b, &clk, count, &b_fired);
    vm_clock_start(&clk);
    uint64_t now = vm_clock_now(&clk);
    vm_timer_arm(&a, now);
    vm_timer_arm(&b, now + 60000 * MS);
    vm_timer_arm(&b, now + MS);
    vm_timer_cancel(&a);
    vm_timer_cancel(&a);
    run_for(5);
    assert_int_equal(a_fired, 0);
    assert_int_equal(b_fired, 1);
    vm_clock_stop(&clk);
}

/* A machine that is older than the host's uptime, and deadlines that no host clock can hold. */
static void test_restored_and_absurd_times(void **state)
{
    struct vm_timer soon, never;
    unsigned fired = 0, never_fired = 0;
    uint64_t age = (uint64_t)INT64_MAX / 2;
    vm_clock_set(&clk, age);
    vm_timer_init(&soon, &clk, count, &fired);
    vm_timer_init(&never, &clk, count, &never_fired);
    vm_timer_arm(&soon, age + MS);
    vm_timer_arm(&never, UINT64_MAX);
    vm_clock_start(&clk);
    assert_true(vm_clock_now(&clk) >= age);
    run_for(5);
    assert_int_equal(fired, 1);
    assert_int_equal(never_fired, 0);
    vm_clock_stop(&clk);
    vm_clock_set(&clk, 5);
    vm_clock_start(&clk);
    run_for(2);
    assert_int_equal(never_fired, 0);
    vm_timer_cancel(&never);
    vm_clock_stop(&clk);
}

int main(void)
{
#define CLOCK_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CLOCK_TEST(test_time_stands_still),
        CLOCK_TEST(test_timers_wait_while_stopped),
        CLOCK_TEST(test_cancel_and_rearm),
        CLOCK_TEST(test_restored_and_absurd_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
