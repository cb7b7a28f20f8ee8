/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HPET: identification, counter, one-shot and periodic timers, levels, legacy replacement, highest rate. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/util.h"

#define BASE   0xfed00000u
#define CONFIG (BASE + 0x10)
#define STATUS (BASE + 0x20)
#define COUNT  (BASE + 0xf0)
#define MS     1000000ull

static struct test_machine *t;

static int setup(void **state)
{
    t = test_machine_new();
    test_machine_add(t, "hpet", NULL);
    return 0;
}

static int teardown(void **state)
{
    test_machine_free(t);
    return 0;
}

static uint64_t timer_config(unsigned n)
{
    return BASE + 0x100 + 0x20 * n;
}

static uint64_t comparator(unsigned n)
{
    return timer_config(n) + 8;
}

static void test_identification(void **state)
{
    assert_true(test_read(t, BASE, 8) == 0x009896808086a201);
    assert_int_equal(test_read(t, BASE, 4), 0x8086a201);
    assert_int_equal(test_read(t, BASE + 4, 4), 10000000); /* femtoseconds a tick */
    test_write(t, BASE, 8, 0);
    assert_int_equal(test_read(t, BASE, 4), 0x8086a201);
    assert_true(test_read(t, timer_config(0), 8) == 0x00ff010400000030);
    assert_int_equal(test_read(t, timer_config(3), 8), 0);
    assert_int_equal(test_read(t, BASE + 0x3f8, 8), 0);
}

static void test_counter(void **state)
{
    test_machine_advance(t, MS);
    assert_int_equal(test_read(t, COUNT, 8), 0); /* stands still */
    test_write(t, COUNT, 8, 0x123456789);
    test_write(t, CONFIG, 4, 1);
    test_machine_advance(t, 1000);
    assert_true(test_read(t, COUNT, 8) == 0x123456789 + 100);
    assert_int_equal(test_read(t, COUNT + 4, 4), 1);
    test_write(t, COUNT + 4, 4, 7);
    assert_true(test_read(t, COUNT, 8) == 0x723456789 + 100);
    test_write(t, CONFIG, 4, 0);
    test_machine_advance(t, MS);
    assert_true(test_read(t, COUNT, 8) == 0x723456789 + 100);
}

/* A one-shot by edges to I/O APIC input 20. */
static void test_one_shot(void **state)
{
    test_write(t, CONFIG, 4, 1);
    test_write(t, timer_config(2), 4, 20 << 9 | 4);
    assert_int_equal(test_machine_advance(t, 10 * MS), 0); /* no comparator yet */
    test_write(t, comparator(2), 8, test_read(t, COUNT, 8) + 100000);
    test_machine_advance(t, MS - 10);
    assert_int_equal(t->gsi_rises[20], 0);
    test_machine_advance(t, 10);
    assert_int_equal(t->gsi_rises[20], 1);
    assert_false(t->gsi_level[20]);
    assert_int_equal(test_machine_advance(t, 1000 * MS), 0);
    /* Stopping and starting does not bring it back. */
    test_write(t, CONFIG, 4, 0);
    test_write(t, CONFIG, 4, 1);
    assert_int_equal(test_machine_advance(t, MS), 0);
    /* Written late: at once. */
    test_write(t, comparator(2), 8, test_read(t, COUNT, 8) - 5);
    test_machine_advance(t, MS);
    assert_int_equal(t->gsi_rises[20], 2);
}

static void test_not_routed_or_disabled(void **state)
{
    test_write(t, CONFIG, 4, 1);
    test_write(t, timer_config(1), 4, 5 << 9 | 4); /* not among the routes */
    test_write(t, comparator(1), 8, 1000);
    test_write(t, timer_config(2), 4, 20 << 9);
    test_write(t, comparator(2), 8, 1000);
    test_machine_advance(t, MS);
    assert_int_equal(t->gsi_rises[5] + t->gsi_rises[20], 0);
}

static void test_level(void **state)
{
    test_write(t, CONFIG, 4, 1);
    test_write(t, timer_config(0), 4, 16 << 9 | 4 | 2);
    test_write(t, comparator(0), 8, test_read(t, COUNT, 8) + 1000);
    test_machine_advance(t, MS);
    assert_true(t->gsi_level[16]);
    assert_int_equal(test_read(t, STATUS, 4), 1);
    test_write(t, STATUS, 4, 2);
    assert_true(t->gsi_level[16]);
    test_write(t, STATUS, 4, 1);
    assert_false(t->gsi_level[16]);
    assert_int_equal(test_read(t, STATUS, 4), 0);
}

/* As Linux sets it up: legacy routing, periodic, comparator then period by "set accumulator". */
static void test_periodic_legacy(void **state)
{
    test_machine_add(t, "i8254", NULL);
    test_out(t, 0x43, 1, 0x34);
    test_out(t, 0x40, 1, 0xa9);
    test_out(t, 0x40, 1, 0x04); /* 1 kHz, which the HPET takes off the line */
    test_write(t, CONFIG, 4, 3);
    test_write(t, timer_config(0), 4, 4 | 8 | 0x40 | 0x100);
    test_write(t, comparator(0), 4, (uint32_t)test_read(t, COUNT, 4) + 400000);
    test_write(t, comparator(0), 4, 400000);
    assert_int_equal(test_read(t, timer_config(0), 4) & 0x40, 0);
    unsigned rises = t->gsi_rises[0];
    test_machine_advance(t, 40 * MS);
    assert_int_equal(t->gsi_rises[0], rises + 10);
    /* And gives back. */
    test_write(t, CONFIG, 4, 0);
    rises = t->gsi_rises[0];
    test_machine_advance(t, 10 * MS);
    assert_in_range(t->gsi_rises[0], rises + 9, rises + 11);
}

static void test_pin_2_is_line_0(void **state)
{
    test_write(t, CONFIG, 4, 1);
    test_write(t, timer_config(1), 4, 2 << 9 | 4);
    test_write(t, comparator(1), 8, 1000);
    test_machine_advance(t, MS);
    assert_int_equal(t->gsi_rises[0], 1);
}

static void test_32_bit_wrap(void **state)
{
    test_write(t, COUNT, 8, 0xfffffff0);
    test_write(t, timer_config(2), 4, 23 << 9 | 4 | 0x100);
    test_write(t, comparator(2), 4, 0x10);
    test_write(t, CONFIG, 4, 1);
    test_machine_advance(t, 310);
    assert_int_equal(t->gsi_rises[23], 0);
    test_machine_advance(t, 10);
    assert_int_equal(t->gsi_rises[23], 1);
}

static void test_highest_rate(void **state)
{
    test_write(t, CONFIG, 4, 1);
    test_write(t, timer_config(2), 4, 20 << 9 | 4 | 8 | 0x40);
    test_write(t, comparator(2), 8, 1);
    test_write(t, comparator(2), 8, 1);
    assert_in_range(test_machine_advance(t, 10 * MS), 400, 501);
}

static void test_odd_accesses(void **state)
{
    test_write(t, CONFIG, 1, 1);
    test_write(t, CONFIG + 2, 4, 0xffffffff);
    assert_int_equal(test_read(t, CONFIG, 8), 0);
    test_write(t, CONFIG, 8, UINT64_MAX);
    assert_int_equal(test_read(t, CONFIG, 8), 3);
}

int main(void)
{
#define HPET_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        HPET_TEST(test_identification),         HPET_TEST(test_counter),     HPET_TEST(test_one_shot),
        HPET_TEST(test_not_routed_or_disabled), HPET_TEST(test_level),       HPET_TEST(test_periodic_legacy),
        HPET_TEST(test_pin_2_is_line_0),        HPET_TEST(test_32_bit_wrap), HPET_TEST(test_highest_rate),
        HPET_TEST(test_odd_accesses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
