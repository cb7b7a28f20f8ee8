/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Real-time clock: host time in all formats, setting it, flags, each interrupt, memory sizes in CMOS. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <time.h>
#include <unistd.h>

#include "base/util.h"

static struct test_machine *t;

static int setup(void **state)
{
    t = test_machine_new();
    t->m.cpu_count = 4;
    test_machine_add(t, "mc146818", NULL);
    return 0;
}

static int teardown(void **state)
{
    test_machine_free(t);
    return 0;
}

static uint8_t get(uint8_t reg)
{
    test_out(t, 0x70, 1, reg);
    return (uint8_t)test_in(t, 0x71, 1);
}

static void set(uint8_t reg, uint8_t v)
{
    test_out(t, 0x70, 1, reg);
    test_out(t, 0x71, 1, v);
}

static int bcd(uint8_t v)
{
    return (v >> 4) * 10 + (v & 15);
}

/* As a driver reads it: again when an update came in between. */
static time_t read_bcd_time(void)
{
    struct tm tm;
    uint8_t second;
    do {
        second = get(0);
        tm = (struct tm){.tm_sec = bcd(second),
                         .tm_min = bcd(get(2)),
                         .tm_hour = bcd(get(4)),
                         .tm_mday = bcd(get(7)),
                         .tm_mon = bcd(get(8)) - 1,
                         .tm_year = bcd(get(0x32)) * 100 + bcd(get(9)) - 1900};
    } while (second != get(0));
    return timegm(&tm);
}

static void test_shows_host_time(void **state)
{
    time_t before = time(NULL);
    time_t shown = read_bcd_time();
    assert_in_range(shown, before, time(NULL));
    struct tm tm;
    gmtime_r(&shown, &tm);
    assert_int_equal(get(6), tm.tm_wday + 1);
    assert_int_equal(get(0x0d), 0x80);
    assert_int_equal(test_in(t, 0x70, 1), 0xff);
}

/* 1999-12-31 23:59:58, in each of the four formats, shown a second later at most. */
static void test_set_time(void **state)
{
    for (unsigned format = 0; format < 4; format++) {
        bool binary = format & 1, h24 = format & 2;
        set(0x0b, 0x80 | (binary ? 4 : 0) | (h24 ? 2 : 0));
        static const uint8_t regs[] = {0, 2, 7, 8, 9, 0x32};
        static const uint8_t decimal[] = {58, 59, 31, 12, 99, 19};
        for (unsigned i = 0; i < 6; i++)
            set(regs[i], binary ? decimal[i] : (uint8_t)(decimal[i] / 10 << 4 | decimal[i] % 10));
        uint8_t hour = h24 ? (binary ? 23 : 0x23) : (binary ? 0x8b : 0x91);
        set(4, hour);
        assert_int_equal(get(4), hour); /* frozen */
        set(0x0b, (binary ? 4 : 0) | (h24 ? 2 : 0));
        assert_int_equal(get(4), hour);
        assert_int_equal(get(7), binary ? 31 : 0x31);
        assert_in_range(get(0), binary ? 58 : 0x58, binary ? 59 : 0x59);
        set(0x0b, 2); /* the same time in another format */
        assert_in_range(read_bcd_time(), 946684798, 946684799);
    }
}

static void test_set_while_running(void **state)
{
    set(9, 0x30);
    set(0x32, 0x20);
    struct tm tm;
    time_t shown = read_bcd_time();
    gmtime_r(&shown, &tm);
    assert_int_equal(tm.tm_year, 130);
}

static void test_garbage_times(void **state)
{
    set(0x0b, 0x86);
    for (uint8_t reg = 0; reg < 10; reg++)
        set(reg, 0xff);
    set(0x32, 0xff);
    set(0x0b, 0x02);
    for (uint8_t reg = 0; reg < 0x40; reg++)
        get(reg);
    test_machine_advance(t, 3000000000);
}

static void test_periodic_interrupt(void **state)
{
    set(0x0a, 0x26); /* 1024 Hz */
    set(0x0b, 0x42);
    assert_int_equal(test_machine_advance(t, 1000000), 1);
    assert_true(t->gsi_level[8]);
    assert_int_equal(get(0x0c), 0xc0);
    assert_false(t->gsi_level[8]);
    assert_int_equal(get(0x0c), 0);
    for (int i = 0; i < 100; i++) {
        test_machine_advance(t, 976563);
        assert_int_equal(get(0x0c) & 0xc0, 0xc0);
    }
    assert_int_equal(t->gsi_rises[8], 101);
    /* Unread, the line stays up: one edge. */
    test_machine_advance(t, 50000000);
    assert_int_equal(t->gsi_rises[8], 102);
    set(0x0a, 0x20);
    get(0x0c);
    assert_int_equal(test_machine_advance(t, 50000000), 0);
    set(0x0a, 0x23); /* the fastest: 8192 Hz */
    assert_in_range(test_machine_advance(t, 100000000), 818, 820);
}

/* PF and UF can be polled without interrupts. */
static void test_polled_flags(void **state)
{
    get(0x0c);
    assert_int_equal(test_machine_advance(t, 10000000), 0);
    assert_int_equal(get(0x0c) & 0x40, 0x40);
    usleep(1010000);
    assert_int_equal(get(0x0c) & 0x10, 0x10);
    assert_false(t->gsi_level[8]);
}

static void test_update_and_alarm(void **state)
{
    set(1, 0xff);
    set(3, 0xc0);
    set(5, 0xff); /* every second */
    set(0x0b, 0x32);
    get(0x0c);
    usleep(1010000);
    assert_true(test_machine_advance(t, 1000000000) >=
                1); /* the host's second does not end with machine time */
    assert_true(t->gsi_level[8]);
    assert_int_equal(get(0x0c) & 0xb0, 0xb0);
    set(5, 0x24); /* an hour that never comes */
    set(0x0b, 0x22);
    get(0x0c);
    usleep(1010000);
    test_machine_advance(t, 1000000000);
    assert_false(t->gsi_level[8]);
    assert_int_equal(get(0x0c) & 0x30, 0x10);
}

static void test_memory_sizes(void **state)
{
    assert_int_equal(get(0x15) | get(0x16) << 8, 640);
    assert_int_equal(get(0x17) | get(0x18) << 8, TEST_RAM_SIZE / 1024 - 1024);
    assert_int_equal(get(0x30) | get(0x31) << 8, TEST_RAM_SIZE / 1024 - 1024);
    assert_int_equal(get(0x34) | get(0x35) << 8, 0);
    assert_int_equal(get(0x5b), 0);
    assert_int_equal(get(0x5f), 3);
    set(0x55, 0xa5);
    machine_lock(&t->m);
    devices_reset(&t->m);
    machine_unlock(&t->m);
    assert_int_equal(get(0x55), 0xa5); /* the battery */
    set(0x0d, 0);
    assert_int_equal(get(0x8d), 0x80); /* bit 7 is the NMI mask */
}

int main(void)
{
#define RTC_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        RTC_TEST(test_shows_host_time),  RTC_TEST(test_set_time),           RTC_TEST(test_set_while_running),
        RTC_TEST(test_garbage_times),    RTC_TEST(test_periodic_interrupt), RTC_TEST(test_polled_flags),
        RTC_TEST(test_update_and_alarm), RTC_TEST(test_memory_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
