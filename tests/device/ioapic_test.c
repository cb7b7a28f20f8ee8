/* SPDX-License-Identifier: GPL-2.0-or-later */
/* I/O APIC: registers, the messages it sends, edges, levels with remote IRR and EOI. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/util.h"
#include "device/platform/ioapic.h"

static struct test_machine *t;

static int setup(void **state)
{
    t = test_machine_new();
    test_machine_add(t, "ioapic", NULL);
    return 0;
}

static int teardown(void **state)
{
    test_machine_free(t);
    return 0;
}

static uint32_t get(uint8_t reg)
{
    test_write(t, IOAPIC_BASE, 4, reg);
    return (uint32_t)test_read(t, IOAPIC_BASE + 0x10, 4);
}

static void set(uint8_t reg, uint32_t v)
{
    test_write(t, IOAPIC_BASE, 4, reg);
    test_write(t, IOAPIC_BASE + 0x10, 4, v);
}

static void set_entry(unsigned pin, uint64_t v)
{
    set((uint8_t)(0x11 + 2 * pin), (uint32_t)(v >> 32));
    set((uint8_t)(0x10 + 2 * pin), (uint32_t)v);
}

static void line(unsigned gsi, bool level)
{
    machine_lock(&t->m);
    t->m.set_gsi(&t->m, gsi, level);
    machine_unlock(&t->m);
}

static void expect_msi(unsigned count, uint64_t addr, uint32_t data)
{
    assert_int_equal(t->msi_count, count);
    assert_int_equal(t->msi[count - 1].addr, addr);
    assert_int_equal(t->msi[count - 1].data, data);
}

static void test_registers(void **state)
{
    assert_int_equal(get(1), 0x00170020);
    set(0, 0xff000000);
    assert_int_equal(get(0), 0x0f000000);
    assert_int_equal(get(0x10), 0x00010000); /* masked at reset */
    set(0x10, 0xffffffff);
    assert_int_equal(get(0x10), 0x0001afff); /* neither delivery status nor remote IRR can be written */
    set(0x11, 0xffffffff);
    assert_int_equal(get(0x11), 0xff000000);
    assert_int_equal(get(0x40), 0);
    assert_int_equal(get(0xff), 0);
    assert_int_equal(get(0x0f), 0);
}

static void test_edge(void **state)
{
    line(4, true); /* masked: lost */
    line(4, false);
    set_entry(4, 3ull << 56 | 0x31);
    assert_int_equal(t->msi_count, 0);
    line(4, true);
    expect_msi(1, 0xfee03000, 0x4031);
    line(4, true);
    assert_int_equal(t->msi_count, 1);
    line(4, false);
    line(4, true);
    assert_int_equal(t->msi_count, 2);
}

static void test_line_0_is_pin_2(void **state)
{
    set_entry(2, 0x20);
    set_entry(0, 0x55);
    line(0, true);
    expect_msi(1, 0xfee00000, 0x4020);
    line(2, true); /* the cascade is no line of the machine */
    assert_int_equal(t->msi_count, 1);
}

static void test_logical_lowest_priority(void **state)
{
    set_entry(9, 0x0full << 56 | BIT(11) | 1 << 8 | 0x42);
    line(9, true);
    expect_msi(1, 0xfee0f004, 0x4142);
}

static void test_level(void **state)
{
    set_entry(16, BIT(15) | 0x60);
    line(16, true);
    expect_msi(1, 0xfee00000, 0xc060);
    assert_int_equal(get(0x10 + 32), BIT(14) | BIT(15) | 0x60);
    line(16, false);
    line(16, true);
    assert_int_equal(t->msi_count, 1); /* not before the EOI */
    machine_lock(&t->m);
    ioapic_eoi(t->m.ioapic, 0x61);
    assert_int_equal(t->msi_count, 1);
    ioapic_eoi(t->m.ioapic, 0x60);
    machine_unlock(&t->m);
    assert_int_equal(t->msi_count, 2); /* still high */
    line(16, false);
    test_write(t, IOAPIC_BASE + 0x40, 4, 0x60); /* by the EOI register */
    assert_int_equal(t->msi_count, 2);
    assert_int_equal(get(0x10 + 32), BIT(15) | 0x60);
}

static void test_level_waits_for_unmask(void **state)
{
    set_entry(20, BIT(16) | BIT(15) | 0x70);
    line(20, true);
    assert_int_equal(t->msi_count, 0);
    set_entry(20, BIT(15) | 0x70);
    assert_int_equal(t->msi_count, 1);
    /* To edge and back clears a stuck remote IRR. */
    line(20, false);
    set_entry(20, BIT(16) | 0x70);
    set_entry(20, BIT(16) | BIT(15) | 0x70);
    assert_int_equal(get(0x10 + 40), BIT(16) | BIT(15) | 0x70);
}

int main(void)
{
#define IOAPIC_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        IOAPIC_TEST(test_registers),       IOAPIC_TEST(test_edge),
        IOAPIC_TEST(test_line_0_is_pin_2), IOAPIC_TEST(test_logical_lowest_priority),
        IOAPIC_TEST(test_level),           IOAPIC_TEST(test_level_waits_for_unmask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
