/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The generation ID: where it is, in which form, when it changes, and that the guest is told. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "device/platform/ich9_pm.h"
#include "device/platform/vmgenid.h"

#define SIZE 16

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

static void read_id(uint8_t id[SIZE])
{
    assert_true(guest_read(t->m.memory, VMGENID_ADDRESS, id, SIZE));
}

static void renew(struct device *dev)
{
    struct error *err = NULL;
    machine_lock(&t->m);
    assert_true(vmgenid_renew(dev, &err));
    machine_unlock(&t->m);
}

/* The first three groups are little-endian. */
static void test_form(void **state)
{
    static const uint8_t wanted[SIZE] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                         0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
    uint8_t id[SIZE];
    struct device *dev = test_machine_add(t, "vmgenid", "guid=00112233-4455-6677-8899-aabbccddeeff");
    read_id(id);
    assert_memory_equal(id, wanted, SIZE);
    assert_ptr_equal(t->m.vmgenid, dev);
}

/* A reset does not change it, nor does the guest. */
static void test_reset(void **state)
{
    uint8_t before[SIZE], after[SIZE], nothing[SIZE] = {0};
    test_machine_add(t, "vmgenid", NULL);
    read_id(before);
    assert_memory_not_equal(before, nothing, SIZE);
    assert_true(guest_write(t->m.memory, VMGENID_ADDRESS, nothing, SIZE));
    machine_lock(&t->m);
    devices_reset(&t->m);
    machine_unlock(&t->m);
    read_id(after);
    assert_memory_equal(after, before, SIZE);
    assert_int_equal(test_in(t, ICH9_PM_GPE0, 4), 0);
}

static void test_renewed(void **state)
{
    uint8_t before[SIZE], after[SIZE], last[SIZE];
    struct device *dev = test_machine_add(t, "vmgenid", NULL);
    test_out(t, ICH9_PM_CONTROL, 2, 1);
    test_out(t, ICH9_PM_GPE0 + 8, 1, 1u << VMGENID_GPE);
    read_id(before);
    unsigned written = t->written_count;
    renew(dev);
    read_id(after);
    assert_memory_not_equal(after, before, SIZE);
    assert_true(t->written_count > written);
    assert_int_equal(test_in(t, ICH9_PM_GPE0, 4), 1u << VMGENID_GPE);
    assert_true(t->gsi_level[ICH9_SCI_GSI]);
    renew(dev);
    read_id(last);
    assert_memory_not_equal(last, after, SIZE);
}

static void test_wrong_text(void **state)
{
    struct error *err = NULL;
    machine_lock(&t->m);
    struct device *dev = device_new(&t->m, "vmgenid", NULL, &err);
    assert_true(device_set(dev, "guid", "00112233", &err));
    assert_false(device_realize(dev, &err));
    machine_unlock(&t->m);
    assert_string_equal(error_text(err), "vmgenid: '00112233' is no GUID");
    error_free(err);
}

int main(void)
{
#define ID_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ID_TEST(test_form),
        ID_TEST(test_reset),
        ID_TEST(test_renewed),
        ID_TEST(test_wrong_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
