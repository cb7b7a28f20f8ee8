/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 8042: the probing sequences of drivers, both interrupt lines, keyboard and mouse commands, reset. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct test_machine *t;

static int setup(void **state)
{
    t = test_machine_new();
    test_machine_add(t, "i8042", NULL);
    return 0;
}

static int teardown(void **state)
{
    test_machine_free(t);
    return 0;
}

static void command(uint8_t v)
{
    test_out(t, 0x64, 1, v);
}

static void data(uint8_t v)
{
    test_out(t, 0x60, 1, v);
}

static bool full(void)
{
    return test_in(t, 0x64, 1) & 1;
}

static void expect(uint8_t v)
{
    assert_true(full());
    assert_int_equal(test_in(t, 0x60, 1), v);
}

static void expect_mouse(uint8_t v)
{
    assert_int_equal(test_in(t, 0x64, 1) & 0x21, 0x21);
    assert_int_equal(test_in(t, 0x60, 1), v);
}

static void test_controller_self_test(void **state)
{
    assert_false(full());
    command(0xaa);
    expect(0x55);
    assert_false(full());
    assert_int_equal(test_in(t, 0x64, 1) & 0x04, 0x04);
    command(0xab);
    expect(0);
    command(0xa9);
    expect(0);
    command(0xc0);
    expect(0x80);
    assert_int_equal(test_in(t, 0x64, 1) & 0x08, 0x08);
    data(0xee);
    assert_int_equal(test_in(t, 0x64, 1) & 0x08, 0);
}

static void test_command_byte(void **state)
{
    command(0x60);
    data(0x65);
    command(0x20);
    expect(0x65);
    command(0xa7);
    command(0x20);
    expect(0x65);
    command(0xa8);
    command(0x20);
    expect(0x45);
    command(0x7f); /* the controller's memory */
    data(0x99);
    command(0x3f);
    expect(0x99);
}

/* Linux's test for a mouse port: loops a byte back, and waits for its interrupt. */
static void test_mouse_loop(void **state)
{
    command(0x60);
    data(0x47);
    command(0xd3);
    data(0x5a);
    assert_true(t->gsi_level[12]);
    assert_false(t->gsi_level[1]);
    expect_mouse(0x5a);
    assert_false(t->gsi_level[12]);
    command(0xd2);
    data(0x1c);
    assert_true(t->gsi_level[1]);
    expect(0x1c);
    assert_false(t->gsi_level[1]);
}

static void test_keyboard(void **state)
{
    data(0xff);
    expect(0xfa);
    expect(0xaa);
    data(0xf2);
    expect(0xfa);
    expect(0xab);
    expect(0x83);
    data(0xed);
    expect(0xfa);
    data(0x07);
    expect(0xfa);
    data(0xf0);
    expect(0xfa);
    data(0x00);
    expect(0xfa);
    expect(2);
    data(0xee);
    expect(0xee);
    data(0x55);
    expect(0xfe);
    assert_false(full());
}

/* Each byte is an edge of its own. */
static void test_keyboard_interrupts(void **state)
{
    command(0x60);
    data(0x41);
    data(0xf2);
    assert_int_equal(t->gsi_rises[1], 1);
    expect(0xfa);
    assert_int_equal(t->gsi_rises[1], 2);
    expect(0xab);
    expect(0x83);
    assert_int_equal(t->gsi_rises[1], 3);
    assert_false(t->gsi_level[1]);
}

static void mouse(uint8_t v)
{
    command(0xd4);
    data(v);
}

static void test_mouse(void **state)
{
    mouse(0xff);
    expect_mouse(0xfa);
    expect_mouse(0xaa);
    expect_mouse(0x00);
    mouse(0xf2);
    expect_mouse(0xfa);
    expect_mouse(0x00);
    mouse(0xf3);
    expect_mouse(0xfa);
    mouse(60);
    expect_mouse(0xfa);
    mouse(0xf4);
    expect_mouse(0xfa);
    mouse(0xe9);
    expect_mouse(0xfa);
    expect_mouse(0x20);
    expect_mouse(2);
    expect_mouse(60);
    mouse(0xee); /* wrap mode */
    expect_mouse(0xfa);
    mouse(0x12);
    expect_mouse(0x12);
    mouse(0xec);
    expect_mouse(0xfa);
    assert_false(full());
}

static void test_reset_and_a20(void **state)
{
    command(0xd0);
    assert_int_equal(test_in(t, 0x60, 1) & 3, 3);
    command(0xd1);
    data(0xdf);
    assert_int_equal(t->event_count, 0);
    command(0xfe);
    assert_int_equal(t->event_count, 1);
    assert_int_equal(t->last_event, MACHINE_RESET);
    command(0xff); /* pulses nothing */
    assert_int_equal(t->event_count, 1);
    command(0xd1);
    data(0xde);
    assert_int_equal(t->event_count, 2);
}

static void test_queue_does_not_overflow(void **state)
{
    for (int i = 0; i < 100; i++)
        data(0xf2);
    for (int i = 0; i < 40; i++)
        test_in(t, 0x60, 1);
    assert_false(full());
    data(0xee);
    expect(0xee);
}

int main(void)
{
#define KBC_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        KBC_TEST(test_controller_self_test), KBC_TEST(test_command_byte),
        KBC_TEST(test_mouse_loop),           KBC_TEST(test_keyboard),
        KBC_TEST(test_keyboard_interrupts),  KBC_TEST(test_mouse),
        KBC_TEST(test_reset_and_a20),        KBC_TEST(test_queue_does_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
