/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 8259A pair: initialisation, priorities, both kinds of EOI, nesting, rotation, level and edge inputs, poll
 * mode. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "device/platform/i8259.h"

static struct test_machine *t;
static struct device *pic;

static void intr(void *opaque, bool level)
{
    ((struct test_machine *)opaque)->intr = level;
}

static void init_chips(uint8_t icw4)
{
    static const uint16_t base[] = {0x20, 0xa0};
    for (unsigned i = 0; i < 2; i++) {
        test_out(t, base[i], 1, 0x11);
        test_out(t, base[i] + 1, 1, i ? 0x28 : 0x20);
        test_out(t, base[i] + 1, 1, i ? 2 : 4);
        test_out(t, base[i] + 1, 1, icw4);
        test_out(t, base[i] + 1, 1, 0);
    }
}

static int setup(void **state)
{
    t = test_machine_new();
    pic = test_machine_add(t, "i8259", NULL);
    i8259_connect(pic, intr, t);
    init_chips(1);
    return 0;
}

static int teardown(void **state)
{
    test_machine_free(t);
    return 0;
}

static void line(unsigned irq, bool level)
{
    machine_lock(&t->m);
    i8259_set_irq(pic, irq, level);
    machine_unlock(&t->m);
}

static void pulse(unsigned irq)
{
    line(irq, true);
    line(irq, false);
}

static int acknowledge(void)
{
    machine_lock(&t->m);
    int vector = i8259_acknowledge(pic);
    machine_unlock(&t->m);
    return vector;
}

static uint8_t isr(uint16_t port)
{
    test_out(t, port, 1, 0x0b);
    return (uint8_t)test_in(t, port, 1);
}

static uint8_t irr(uint16_t port)
{
    test_out(t, port, 1, 0x0a);
    return (uint8_t)test_in(t, port, 1);
}

static void test_vectors_and_eoi(void **state)
{
    assert_false(t->intr);
    assert_int_equal(acknowledge(), -1);
    pulse(4);
    assert_true(t->intr);
    assert_int_equal(irr(0x20), 0x10);
    assert_int_equal(acknowledge(), 0x24);
    assert_false(t->intr);
    assert_int_equal(isr(0x20), 0x10);
    assert_int_equal(irr(0x20), 0);
    test_out(t, 0x20, 1, 0x20);
    assert_int_equal(isr(0x20), 0);
}

static void test_slave_through_cascade(void **state)
{
    pulse(14);
    assert_true(t->intr);
    assert_int_equal(acknowledge(), 0x2e);
    assert_int_equal(isr(0x20), 0x04);
    assert_int_equal(isr(0xa0), 0x40);
    test_out(t, 0xa0, 1, 0x66); /* specific EOIs */
    test_out(t, 0x20, 1, 0x62);
    assert_int_equal(isr(0x20) | isr(0xa0), 0);
    assert_false(t->intr);
}

static void test_priorities_and_nesting(void **state)
{
    pulse(6);
    pulse(1);
    assert_int_equal(acknowledge(), 0x21);
    pulse(3);
    assert_false(t->intr); /* lower than what is in service */
    pulse(0);
    assert_true(t->intr);
    assert_int_equal(acknowledge(), 0x20);
    assert_int_equal(isr(0x20), 0x03);
    test_out(t, 0x20, 1, 0x20); /* ends 0 */
    assert_int_equal(isr(0x20), 0x02);
    assert_false(t->intr);
    test_out(t, 0x20, 1, 0x20);
    assert_int_equal(acknowledge(), 0x23);
    test_out(t, 0x20, 1, 0x20);
    assert_int_equal(acknowledge(), 0x26);
}

static void test_two_from_the_slave(void **state)
{
    pulse(12);
    pulse(9);
    assert_int_equal(acknowledge(), 0x29);
    test_out(t, 0xa0, 1, 0x20);
    assert_false(t->intr); /* the master's input 2 is still in service */
    test_out(t, 0x20, 1, 0x20);
    assert_true(t->intr);
    assert_int_equal(acknowledge(), 0x2c);
}

static void test_mask(void **state)
{
    test_out(t, 0x21, 1, 0x10);
    pulse(4);
    assert_false(t->intr);
    assert_int_equal(acknowledge(), -1);
    test_out(t, 0x21, 1, 0);
    assert_true(t->intr);
    assert_int_equal(test_in(t, 0x21, 1), 0);
    test_out(t, 0x21, 1, 0xff);
    assert_false(t->intr);
}

static void test_level_input(void **state)
{
    test_out(t, 0x4d1, 1, 0xff);
    assert_int_equal(test_in(t, 0x4d1, 1), 0xde); /* 8 and 13 are edges for good */
    test_out(t, 0x4d0, 1, 0xff);
    assert_int_equal(test_in(t, 0x4d0, 1), 0xf8);
    line(11, true);
    assert_int_equal(acknowledge(), 0x2b);
    test_out(t, 0xa0, 1, 0x20);
    test_out(t, 0x20, 1, 0x20);
    assert_true(t->intr); /* still high */
    line(11, false);
    assert_false(t->intr);
    assert_int_equal(acknowledge(), -1);
}

/* An edge input that stays high interrupts once. */
static void test_edge_input(void **state)
{
    line(5, true);
    assert_int_equal(acknowledge(), 0x25);
    test_out(t, 0x20, 1, 0x20);
    assert_false(t->intr);
    line(5, true);
    assert_false(t->intr);
    line(5, false);
    line(5, true);
    assert_true(t->intr);
}

static void test_auto_eoi(void **state)
{
    init_chips(3);
    pulse(3);
    assert_int_equal(acknowledge(), 0x23);
    assert_int_equal(isr(0x20), 0);
}

static void test_rotation(void **state)
{
    pulse(0);
    acknowledge();
    test_out(t, 0x20, 1, 0xa0); /* non-specific EOI with rotation: 0 is lowest now */
    pulse(0);
    pulse(7);
    assert_int_equal(acknowledge(), 0x27);
    test_out(t, 0x20, 1, 0x20);
    assert_int_equal(acknowledge(), 0x20);
    test_out(t, 0x20, 1, 0xc4); /* 4 is lowest */
    test_out(t, 0x20, 1, 0x20);
    pulse(4);
    pulse(5);
    assert_int_equal(acknowledge(), 0x25);
}

static void test_special_mask_mode(void **state)
{
    pulse(1);
    acknowledge();
    test_out(t, 0x21, 1, 0x02);
    pulse(5);
    assert_false(t->intr);
    test_out(t, 0x20, 1, 0x68);
    assert_true(t->intr); /* the masked one in service does not block */
    assert_int_equal(acknowledge(), 0x25);
}

static void test_poll(void **state)
{
    pulse(3);
    test_out(t, 0x20, 1, 0x0c);
    assert_int_equal(test_in(t, 0x20, 1), 0x83);
    assert_false(t->intr);
    assert_int_equal(isr(0x20), 0x08);
    test_out(t, 0x20, 1, 0x0c);
    assert_int_equal(test_in(t, 0x20, 1), 0);
}

/* The slave's request goes away between INTR and INTA. */
static void test_spurious(void **state)
{
    test_out(t, 0x4d1, 1, 0x08);
    line(11, true);
    assert_true(t->intr);
    line(11, false);
    assert_false(t->intr);
    assert_int_equal(acknowledge(), -1);
    line(16, true); /* no such line, and the cascade is none */
    line(2, true);
    assert_false(t->intr);
}

int main(void)
{
#define PIC_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PIC_TEST(test_vectors_and_eoi),
        PIC_TEST(test_slave_through_cascade),
        PIC_TEST(test_priorities_and_nesting),
        PIC_TEST(test_two_from_the_slave),
        PIC_TEST(test_mask),
        PIC_TEST(test_level_input),
        PIC_TEST(test_edge_input),
        PIC_TEST(test_auto_eoi),
        PIC_TEST(test_rotation),
        PIC_TEST(test_special_mask_mode),
        PIC_TEST(test_poll),
        PIC_TEST(test_spurious),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
