/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The device life cycle: properties, identities, windows, register tables, failures half-way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/util.h"
#include "core/device.h"

struct toy {
    struct device dev;
    bool on;
    uint64_t number, amount;
    char *text;
    uint8_t mac[6];
    uint64_t base;

    uint8_t r8;
    uint16_t r16;
    uint32_t r32;
    uint64_t r64;
    unsigned writes;
    uint64_t old;
};

static unsigned unrealized, resets;
static bool fail_realize;

static uint64_t read_magic(struct device *dev, const struct reg_desc *reg)
{
    return 0x11223344;
}

static void wrote(struct device *dev, const struct reg_desc *reg, uint64_t old)
{
    struct toy *t = DEVICE_OF(struct toy, dev);
    t->writes++;
    t->old = old;
}

static const struct reg_desc toy_regs[] = {
    {"R8", 0, 1, offsetof(struct toy, r8), .reset = 0x5a, .writable = 0x0f},
    {"R16", 2, 2, offsetof(struct toy, r16), .reset = 0xffff, .clear = 0xff0f, .write = wrote},
    {"R32", 4, 4, offsetof(struct toy, r32), .writable = UINT32_MAX},
    {"R64", 8, 8, offsetof(struct toy, r64), .reset = 0x0123456789abcdef, .writable = UINT64_MAX,
     .write = wrote},
    {"MAGIC", 16, 4, offsetof(struct toy, r32), .read = read_magic},
    {NULL},
};

static const struct window_desc toy_windows[] = {
    {WINDOW_MMIO, "toy", 0x1000, 0x20, .regs = toy_regs},
    {WINDOW_END},
};

static const struct prop toy_props[] = {
    {"on", PROP_BOOL, offsetof(struct toy, on), "yes"},
    {"number", PROP_UINT, offsetof(struct toy, number), "7", 5, 10},
    {"amount", PROP_SIZE, offsetof(struct toy, amount), "1M"},
    {"text", PROP_STRING, offsetof(struct toy, text), "default"},
    {"mac", PROP_MAC, offsetof(struct toy, mac)},
    {"base", PROP_UINT, offsetof(struct toy, base), "0x80"},
    {.type = PROP_END},
};

static bool toy_realize(struct device *dev, struct error **err)
{
    struct toy *t = DEVICE_OF(struct toy, dev);
    struct window_desc port = {WINDOW_PORT, "toy port", t->base, 1};
    if (!device_map_window(dev, &port, err))
        return false;
    if (fail_realize)
        error_set(err, 0, "told to fail");
    return !fail_realize;
}

static void toy_reset(struct device *dev)
{
    resets++;
}

static void toy_unrealize(struct device *dev)
{
    unrealized++;
}

static const struct device_class toy_class = {.name = "toy",
                                              .help = "a toy",
                                              .size = sizeof(struct toy),
                                              .props = toy_props,
                                              .windows = toy_windows,
                                              .state = &STATELESS,
                                              .realize = toy_realize,
                                              .reset = toy_reset,
                                              .unrealize = toy_unrealize};
static const struct device_class only_class = {.name = "only",
                                               .help = "one at most",
                                               .flags = DEVICE_SINGLETON,
                                               .size = sizeof(struct device),
                                               .state = &STATELESS};

const struct device_class *const device_classes[] = {&toy_class, &only_class, NULL};

const struct device_class *device_class_find(const char *name)
{
    return strcmp(name, "toy") == 0 ? &toy_class : strcmp(name, "only") == 0 ? &only_class : NULL;
}

static struct machine m;

static int setup(void **state)
{
    m = (struct machine){0};
    bus_init(&m.ports, 0x10000);
    bus_init(&m.mmio, BIT(52));
    unrealized = resets = 0;
    fail_realize = false;
    return 0;
}

static struct toy *toy_new(void)
{
    struct device *dev = device_new(&m, "toy", NULL, NULL);
    assert_non_null(dev);
    return DEVICE_OF(struct toy, dev);
}

static struct toy *toy_make(void)
{
    struct toy *t = toy_new();
    struct error *err = NULL;
    if (!device_realize(&t->dev, &err))
        fail_msg("%s", error_text(err));
    return t;
}

static void test_defaults(void **state)
{
    struct toy *t = toy_new();
    assert_true(t->on);
    assert_int_equal(t->number, 7);
    assert_int_equal(t->amount, MIB);
    assert_string_equal(t->text, "default");
    assert_string_equal(t->dev.id, "toy0");
    device_free(&t->dev);
    assert_int_equal(unrealized, 0);
}

static void test_setting(void **state)
{
    static const char *const bad[][2] = {{"on", "perhaps"}, {"number", "4"},    {"number", "11"},
                                         {"number", "x"},   {"amount", "lots"}, {"mac", "1:2:3"},
                                         {"nothing", "1"}};
    struct toy *t = toy_new();
    assert_true(device_set(&t->dev, "on", "off", NULL) && !t->on);
    assert_true(device_set(&t->dev, "number", "0xa", NULL) && t->number == 10);
    assert_true(device_set(&t->dev, "amount", "3G", NULL) && t->amount == 3 * GIB);
    assert_true(device_set(&t->dev, "text", "once", NULL) && device_set(&t->dev, "text", "twice", NULL));
    assert_string_equal(t->text, "twice");
    assert_true(device_set(&t->dev, "mac", "01:02:03:04:05:06", NULL) && t->mac[5] == 6);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error *err = NULL;
        assert_false(device_set(&t->dev, bad[i][0], bad[i][1], &err));
        assert_non_null(strstr(error_text(err), bad[i][0]));
        error_free(err);
    }
    device_free(&t->dev);
}

static void test_identities(void **state)
{
    struct error *err = NULL;
    assert_null(device_new(&m, "unheard-of", NULL, &err));
    assert_non_null(strstr(error_text(err), "unheard-of"));
    error_free(err);
    struct device *a = device_new(&m, "only", "mine", NULL);
    struct device *rival = device_new(&m, "only", "other", NULL);
    assert_true(device_realize(a, NULL));
    assert_null(device_new(&m, "only", NULL, NULL));
    assert_false(device_realize(rival, NULL)); /* and is gone */
    assert_ptr_equal(device_find(&m, "mine"), a);
    assert_null(device_find(&m, "other"));
    assert_null(device_new(&m, "toy", "mine", NULL));
    device_free(a);
    assert_null(m.devices);
}

static void test_failed_realize_leaves_nothing(void **state)
{
    struct error *err = NULL;
    fail_realize = true;
    struct toy *t = toy_new();
    assert_false(device_realize(&t->dev, &err));
    assert_string_equal(error_text(err), "told to fail");
    error_free(err);
    assert_null(m.mmio.windows);
    assert_null(m.ports.windows);
    assert_null(m.devices);
    assert_int_equal(unrealized, 0);

    fail_realize = false;
    struct toy *first = toy_make();
    t = toy_new();
    err = NULL;
    assert_false(device_realize(&t->dev, &err)); /* its window is taken */
    assert_non_null(strstr(error_text(err), "toy is there"));
    error_free(err);
    assert_ptr_equal(m.devices, &first->dev);
    device_free(&first->dev);
    assert_null(m.mmio.windows);
    assert_null(m.ports.windows);
    assert_int_equal(unrealized, 1);
}

static void test_registers(void **state)
{
    struct toy *t = toy_make();
    assert_int_equal(resets, 1);
    assert_int_equal(bus_read(&m.mmio, 0x1000, 1), 0x5a);
    bus_write(&m.mmio, 0x1000, 1, 0xff);
    assert_int_equal(t->r8, 0x5f);
    bus_write(&m.mmio, 0x1002, 2, 0x1230);
    assert_int_equal(t->r16, 0xffff & ~0x1200);
    assert_int_equal(t->old, 0xffff);
    assert_true(bus_read(&m.mmio, 0x1008, 8) == 0x0123456789abcdef);
    assert_int_equal(bus_read(&m.mmio, 0x1010, 4), 0x11223344);
    device_reset(&t->dev);
    assert_int_equal(t->r8, 0x5a);
    assert_int_equal(t->r16, 0xffff);
    device_free(&t->dev);
}

static void test_partial_and_spanning_accesses(void **state)
{
    struct toy *t = toy_make();
    bus_write(&m.mmio, 0x1004, 4, 0xaabbccdd);
    assert_int_equal(bus_read(&m.mmio, 0x1005, 1), 0xcc);
    bus_write(&m.mmio, 0x1006, 1, 0x11);
    assert_int_equal(t->r32, 0xaa11ccdd);
    bus_write(&m.mmio, 0x1003, 1, 0xff); /* the high byte of a write-1-to-clear register */
    assert_int_equal(t->r16, 0x00ff);
    assert_int_equal(bus_read(&m.mmio, 0x1011, 2), 0x2233);
    /* From the hole at 1 through R16 into R32 and R64. */
    t->writes = 0;
    bus_write(&m.mmio, 0x1006, 8, 0x8877665544332211);
    assert_int_equal(t->r32, 0x2211ccdd);
    assert_true(t->r64 == 0x0123887766554433);
    assert_int_equal(t->writes, 1);
    assert_int_equal(bus_read(&m.mmio, 0x1000, 8) & 0xffff, 0x005a);
    assert_int_equal(bus_read(&m.mmio, 0x1018, 8), 0); /* nothing is there, but the window answers */
    device_free(&t->dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_defaults, setup),
        cmocka_unit_test_setup(test_setting, setup),
        cmocka_unit_test_setup(test_identities, setup),
        cmocka_unit_test_setup(test_failed_realize_leaves_nothing, setup),
        cmocka_unit_test_setup(test_registers, setup),
        cmocka_unit_test_setup(test_partial_and_spanning_accesses, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
