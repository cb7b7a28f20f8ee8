/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ACPI block and the ports that end or reset a machine: PM timer, power button, S5, reset control, pvpanic,
 * debug-exit. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/util.h"
#include "device/platform/ich9_pm.h"

#define SECOND 1000000000ull

static struct test_machine *t;

static int setup(void **state)
{
    t = test_machine_new();
    test_machine_add(t, "ich9-pm", NULL);
    return 0;
}

static int teardown(void **state)
{
    test_machine_free(t);
    return 0;
}

static void test_timer(void **state)
{
    uint32_t start = test_in(t, ICH9_PM_TIMER, 4);
    assert_int_equal(start, 3579545); /* the machine is one second old */
    test_machine_advance(t, SECOND / 10);
    assert_in_range(test_in(t, ICH9_PM_TIMER, 4) - start, 357954, 357955);
    test_machine_advance(t, 10 * SECOND);
    assert_true(test_in(t, ICH9_PM_TIMER, 4) < 1u << 24);
    test_out(t, ICH9_PM_TIMER, 4, 0);
    assert_int_not_equal(test_in(t, ICH9_PM_TIMER, 4), 0);
}

static void test_timer_overflow(void **state)
{
    test_machine_advance(t, 3 * SECOND); /* bit 23 has changed */
    assert_int_equal(test_in(t, ICH9_PM_EVENT, 2), 1);
    test_out(t, ICH9_PM_EVENT, 2, 1);
    assert_int_equal(test_in(t, ICH9_PM_EVENT, 2), 0);
    test_out(t, ICH9_PM_CONTROL, 2, 1);
    test_out(t, ICH9_PM_EVENT + 2, 2, 1);
    assert_false(t->gsi_level[9]);
    assert_int_equal(test_machine_advance(t, 3 * SECOND), 1);
    assert_true(t->gsi_level[9]);
    assert_int_equal(test_machine_advance(t, 30 * SECOND), 0); /* until it is answered */
    test_out(t, ICH9_PM_EVENT, 2, 1);
    assert_false(t->gsi_level[9]);
    assert_int_equal(test_machine_advance(t, 3 * SECOND), 1);
}

static bool press(void)
{
    machine_lock(&t->m);
    bool heard = ich9_pm_power_button(t->m.pm);
    machine_unlock(&t->m);
    return heard;
}

static void test_power_button(void **state)
{
    assert_false(press());
    assert_int_equal(test_in(t, ICH9_PM_EVENT, 2), 0x100);
    test_out(t, ICH9_PM_EVENT, 2, 0x100);
    /* As Linux switches ACPI on: SMI command, then enable bits. */
    test_out(t, ICH9_SMI_COMMAND, 1, ICH9_ACPI_ENABLE);
    assert_int_equal(test_in(t, ICH9_PM_CONTROL, 2) & 1, 1);
    test_out(t, ICH9_PM_EVENT + 2, 2, 0x120);
    assert_false(t->gsi_level[9]);
    assert_true(press());
    assert_true(t->gsi_level[9]);
    test_out(t, ICH9_PM_EVENT, 2, 0x100);
    assert_false(t->gsi_level[9]);
    test_out(t, ICH9_SMI_COMMAND, 1, ICH9_ACPI_DISABLE);
    assert_int_equal(test_in(t, ICH9_PM_CONTROL, 2) & 1, 0);
    assert_false(press());
    assert_false(t->gsi_level[9]);
}

static void test_power_off(void **state)
{
    test_out(t, ICH9_PM_CONTROL, 2, 1);
    assert_int_equal(t->event_count, 0);
    test_out(t, ICH9_PM_CONTROL, 2, ICH9_SLEEP_TYPE_S5 << 10 | 1); /* without SLP_EN it is a mere register */
    assert_int_equal(t->event_count, 0);
    test_out(t, ICH9_PM_CONTROL, 2, ICH9_SLEEP_TYPE_S5 << 10 | 0x2001);
    assert_int_equal(t->event_count, 1);
    assert_int_equal(t->last_event, MACHINE_POWEROFF);
    assert_int_equal(test_in(t, ICH9_PM_CONTROL, 2) & 0x2000, 0);
    log_set_level(LOG_ERROR);
    test_out(t, ICH9_PM_CONTROL, 2, 1 << 10 | 0x2001); /* S3: there is none */
    assert_int_equal(t->event_count, 1);
}

/* Drivers write the control register by bytes too. */
static void test_partial_accesses(void **state)
{
    test_out(t, ICH9_PM_CONTROL + 1, 1, 0x20);
    assert_int_equal(t->event_count, 1);
    assert_int_equal(test_in(t, ICH9_PM_EVENT, 4), 0);
    test_out(t, ICH9_PM_EVENT, 4, 0x01200000);
    assert_int_equal(test_in(t, ICH9_PM_EVENT + 2, 2), 0x120);
    assert_int_equal(test_in(t, ICH9_PM_TIMER + 2, 1), test_in(t, ICH9_PM_TIMER, 4) >> 16);
}

static void test_gpe(void **state)
{
    test_out(t, ICH9_PM_GPE0 + 8, 4, 0xffffffff);
    test_out(t, ICH9_PM_GPE0 + 12, 4, 0xffffffff);
    assert_int_equal(test_in(t, ICH9_PM_GPE0 + 8, 4), 0xffffffff);
    assert_int_equal(test_in(t, ICH9_PM_GPE0, 4), 0);
    assert_false(t->gsi_level[9]);
}

static void raise_gpe(unsigned bit)
{
    machine_lock(&t->m);
    ich9_pm_raise_gpe(t->m.pm, bit);
    machine_unlock(&t->m);
}

/* An event interrupts once it is enabled, until it is answered. */
static void test_gpe_event(void **state)
{
    test_out(t, ICH9_PM_CONTROL, 2, 1);
    raise_gpe(5);
    assert_int_equal(test_in(t, ICH9_PM_GPE0, 4), 0x20);
    assert_false(t->gsi_level[9]);
    test_out(t, ICH9_PM_GPE0 + 8, 1, 0x20);
    assert_true(t->gsi_level[9]);
    test_out(t, ICH9_PM_GPE0, 1, 0x20);
    assert_false(t->gsi_level[9]);
    raise_gpe(63);
    assert_int_equal(test_in(t, ICH9_PM_GPE0 + 4, 4), 0x80000000);
    assert_false(t->gsi_level[9]);
}

static void test_reset_ports(void **state)
{
    test_machine_add(t, "reset-port", NULL);
    test_out(t, 0xcf9, 1, 0x02);
    assert_int_equal(test_in(t, 0xcf9, 1), 0x02);
    assert_int_equal(t->event_count, 0);
    test_out(t, 0xcf9, 1, 0x06);
    assert_int_equal(t->event_count, 1);
    assert_int_equal(t->last_event, MACHINE_RESET);
    assert_int_equal(test_in(t, 0x92, 1), 0x02);
    test_out(t, 0x92, 1, 0x00);
    assert_int_equal(t->event_count, 1);
    test_out(t, 0x92, 1, 0x03);
    test_out(t, 0x92, 1, 0x03); /* only the rising bit resets */
    assert_int_equal(t->event_count, 2);
}

static void test_pvpanic(void **state)
{
    test_machine_add(t, "pvpanic", NULL);
    assert_int_equal(test_in(t, 0x505, 1), 3);
    test_out(t, 0x505, 1, 4);
    assert_int_equal(t->event_count, 0);
    test_out(t, 0x505, 1, 1);
    assert_int_equal(t->last_event, MACHINE_PANICKED);
    test_out(t, 0x505, 1, 2);
    assert_int_equal(t->last_event, MACHINE_CRASHLOADED);
}

static void test_debug_exit(void **state)
{
    test_machine_add(t, "debug-exit", NULL);
    test_machine_add(t, "debug-exit", "iobase=0xf4,iosize=4");
    test_out(t, 0x501, 1, 0x10);
    assert_int_equal(t->last_event, MACHINE_DEBUG_EXIT);
    assert_int_equal(t->last_event_value, 0x10);
    test_out(t, 0xf4, 4, 0x12345678);
    assert_int_equal(t->last_event_value, 0x12345678);
    assert_int_equal(t->event_count, 2);
}

int main(void)
{
#define PM_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PM_TEST(test_timer),      PM_TEST(test_timer_overflow),   PM_TEST(test_power_button),
        PM_TEST(test_power_off),  PM_TEST(test_partial_accesses), PM_TEST(test_gpe),
        PM_TEST(test_gpe_event),  PM_TEST(test_reset_ports),      PM_TEST(test_pvpanic),
        PM_TEST(test_debug_exit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
