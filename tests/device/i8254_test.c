/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 8254: counting in every mode to the tick, latches, BCD, interrupts and their highest rate, port 0x61. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SECOND 1000000000ull
#define HZ     1193182ull

static struct test_machine *t;

static int setup(void **state)
{
    t = test_machine_new();
    test_machine_add(t, "i8254", NULL);
    return 0;
}

static int teardown(void **state)
{
    test_machine_free(t);
    return 0;
}

/* Machine time to `n` ticks and a bit after it was last called with 0. */
static void to_tick(uint64_t n)
{
    static uint64_t start;
    uint64_t now = vm_clock_now(&t->m.clock);
    if (!n)
        start = now;
    uint64_t at = start + (n * SECOND + HZ - 1) / HZ + 1;
    if (at > now)
        test_machine_advance(t, at - now);
}

static void program(unsigned ch, unsigned mode, bool bcd, uint16_t count)
{
    test_out(t, 0x43, 1, ch << 6 | 3 << 4 | mode << 1 | bcd);
    test_out(t, (uint16_t)(0x40 + ch), 1, count & 0xff);
    test_out(t, (uint16_t)(0x40 + ch), 1, count >> 8);
    to_tick(0);
}

static unsigned counter(unsigned ch)
{
    test_out(t, 0x43, 1, ch << 6);
    unsigned low = test_in(t, (uint16_t)(0x40 + ch), 1);
    return low | test_in(t, (uint16_t)(0x40 + ch), 1) << 8;
}

static bool output(unsigned ch)
{
    test_out(t, 0x43, 1, 0xe0 | 2u << ch); /* read-back of the status */
    return test_in(t, (uint16_t)(0x40 + ch), 1) & 0x80;
}

static void test_mode_0(void **state)
{
    program(0, 0, false, 1000);
    assert_int_equal(counter(0), 1000);
    assert_false(output(0));
    assert_false(t->gsi_level[0]);
    to_tick(999);
    assert_int_equal(counter(0), 1);
    assert_false(t->gsi_level[0]);
    to_tick(1000);
    assert_int_equal(counter(0), 0);
    assert_true(output(0));
    assert_true(t->gsi_level[0]);
    to_tick(1001);
    assert_int_equal(counter(0), 0xffff);
    to_tick(200000);
    assert_int_equal(t->gsi_rises[0], 1);
}

static void test_mode_2(void **state)
{
    unsigned rises = t->gsi_rises[0];
    program(0, 2, false, 11932);
    rises = t->gsi_rises[0];
    to_tick(1);
    assert_int_equal(counter(0), 11931);
    assert_true(output(0));
    to_tick(11931);
    assert_int_equal(counter(0), 1);
    assert_false(output(0));
    assert_int_equal(t->gsi_rises[0], rises);
    to_tick(11932);
    assert_int_equal(counter(0), 11932);
    assert_int_equal(t->gsi_rises[0], rises + 1);
    to_tick(11932 * 100);
    assert_int_equal(t->gsi_rises[0], rises + 100);
    assert_true(t->gsi_level[0]);
}

static void test_mode_3(void **state)
{
    program(0, 3, false, 0); /* 65536 */
    unsigned rises = t->gsi_rises[0];
    to_tick(1);
    assert_int_equal(counter(0), 65534); /* by two */
    assert_true(output(0));
    to_tick(32768);
    assert_false(output(0));
    to_tick(65536 * 3);
    assert_true(output(0));
    assert_int_equal(t->gsi_rises[0], rises + 3);
}

static void test_mode_4(void **state)
{
    program(0, 4, false, 500);
    unsigned rises = t->gsi_rises[0];
    assert_true(output(0));
    to_tick(500);
    assert_false(output(0));
    to_tick(501);
    assert_true(output(0));
    to_tick(100000);
    assert_int_equal(t->gsi_rises[0], rises + 1);
}

static void test_bcd(void **state)
{
    program(0, 2, true, 0x1000);
    to_tick(1);
    assert_int_equal(counter(0), 0x0999);
    to_tick(1001);
    assert_int_equal(counter(0), 0x0999);
    program(0, 2, true, 0);
    to_tick(1);
    assert_int_equal(counter(0), 0x9999);
}

static void test_latches(void **state)
{
    program(0, 2, false, 1000);
    to_tick(1);
    test_out(t, 0x43, 1, 0x00);
    to_tick(100);
    test_out(t, 0x43, 1, 0x00); /* the first one stays */
    assert_int_equal(test_in(t, 0x40, 1) | test_in(t, 0x40, 1) << 8, 999);
    assert_int_equal(counter(0), 900);
    /* Status and count together: status first. */
    test_out(t, 0x43, 1, 0xc2);
    assert_int_equal(test_in(t, 0x40, 1), 0xb4);
    assert_int_equal(test_in(t, 0x40, 1) | test_in(t, 0x40, 1) << 8, 900);
    assert_int_equal(test_in(t, 0x43, 1), 0xff);
}

static void test_one_byte_access(void **state)
{
    test_out(t, 0x43, 1, 0x14); /* low byte, mode 2 */
    test_out(t, 0x40, 1, 100);
    to_tick(0);
    to_tick(1);
    assert_int_equal(test_in(t, 0x40, 1), 99);
    test_out(t, 0x43, 1, 0x24); /* high byte */
    test_out(t, 0x40, 1, 2);
    to_tick(0);
    to_tick(256);
    assert_int_equal(test_in(t, 0x40, 1), 1);
}

/* The calibration loop of Linux and of firmware: channel 2, gate opened, output polled in port 0x61. */
static void test_gate_and_port_61(void **state)
{
    test_out(t, 0x61, 1, 0);
    program(2, 0, false, 5000);
    to_tick(9000);
    assert_int_equal(test_in(t, 0x61, 1) & 0x23, 0); /* the gate is closed */
    assert_int_equal(counter(2), 5000);
    test_out(t, 0x61, 1, 1);
    to_tick(0);
    to_tick(4999);
    assert_int_equal(test_in(t, 0x61, 1) & 0x23, 0x01);
    test_out(t, 0x61, 1, 0);
    to_tick(9999);
    assert_int_equal(counter(2), 1); /* waits */
    test_out(t, 0x61, 1, 1);
    to_tick(0);
    to_tick(2);
    assert_int_equal(test_in(t, 0x61, 1) & 0x21, 0x21);
    uint32_t refresh = test_in(t, 0x61, 1) & 0x10;
    test_machine_advance(t, 15085);
    assert_int_not_equal(test_in(t, 0x61, 1) & 0x10, refresh);
}

/* However fast a guest programs it, the host is woken at most every 50 us. */
static void test_highest_rate(void **state)
{
    static const uint16_t counts[] = {1, 2, 5, 59};
    for (unsigned i = 0; i < 4; i++) {
        program(0, i % 2 ? 2 : 3, false, counts[i]);
        unsigned fired = test_machine_advance(t, SECOND / 100);
        assert_in_range(fired, 150, 201);
    }
}

static void test_late_host_skips_rounds(void **state)
{
    program(0, 2, false, 1193); /* 1 ms */
    unsigned rises = t->gsi_rises[0];
    vm_clock_set(&t->m.clock, vm_clock_now(&t->m.clock) + SECOND / 2);
    test_machine_advance(t, 0);
    assert_int_equal(t->gsi_rises[0], rises + 1);
    test_machine_advance(t, SECOND / 100);
    assert_in_range(t->gsi_rises[0], rises + 10, rises + 12);
}

int main(void)
{
#define PIT_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PIT_TEST(test_mode_0),
        PIT_TEST(test_mode_2),
        PIT_TEST(test_mode_3),
        PIT_TEST(test_mode_4),
        PIT_TEST(test_bcd),
        PIT_TEST(test_latches),
        PIT_TEST(test_one_byte_access),
        PIT_TEST(test_gate_and_port_61),
        PIT_TEST(test_highest_rate),
        PIT_TEST(test_late_host_skips_rounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
