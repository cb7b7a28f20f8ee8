/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fw_cfg: items by selector, the file directory, DMA in all its forms, and addresses that are not RAM. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "device/platform/fw_cfg.h"

#define HEADER 0x1000u
#define BUFFER 0x2000u

static struct test_machine *t;

static int setup(void **state)
{
    t = test_machine_new();
    test_machine_add(t, "fw-cfg", NULL);
    log_set_level(LOG_ERROR);
    return 0;
}

static int teardown(void **state)
{
    test_machine_free(t);
    return 0;
}

static void select_key(uint16_t key)
{
    test_out(t, 0x510, 2, key);
}

static void expect_bytes(const char *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(test_in(t, 0x511, 1), (uint8_t)bytes[i]);
}

/* Runs one DMA request and returns what is in its control field afterwards. */
static uint32_t dma(uint32_t control, uint32_t len, uint64_t gpa)
{
    uint8_t h[16];
    store_be32(h, control);
    store_be32(h + 4, len);
    store_be64(h + 8, gpa);
    assert_true(guest_write(t->m.memory, HEADER, h, sizeof(h)));
    test_out(t, 0x514, 4, 0);
    test_out(t, 0x518, 4, __builtin_bswap32(HEADER));
    assert_true(guest_read(t->m.memory, HEADER, h, 4));
    return load_be32(h);
}

static void test_selector_and_data(void **state)
{
    select_key(FW_CFG_SIGNATURE);
    expect_bytes("QEMU\0\0", 6); /* zeros behind the end */
    select_key(FW_CFG_ID);
    expect_bytes("\3\0\0\0", 4);
    select_key(0x4321);
    expect_bytes("\0\0", 2);
    assert_true(fw_cfg_add_number(t->m.fw_cfg, FW_CFG_NB_CPUS, 0x102, 2, NULL));
    select_key(FW_CFG_NB_CPUS);
    expect_bytes("\2\1\0", 3);
    test_out(t, 0x510, 1, 0); /* only a word selects */
    expect_bytes("\0", 1);
}

static void test_directory(void **state)
{
    struct device *dev = t->m.fw_cfg;
    assert_true(fw_cfg_add_file(dev, "etc/b", "bb", 2, NULL));
    assert_true(fw_cfg_add_file(dev, "etc/c", "ccc", 3, NULL));
    assert_true(fw_cfg_add_file(dev, "etc/a", "a", 1, NULL));
    assert_false(fw_cfg_add_file(dev, "etc/a", "a", 1, NULL));
    select_key(FW_CFG_FILE_DIR);
    expect_bytes("\0\0\0\3", 4);
    for (unsigned i = 0; i < 3; i++) {
        char name[56] = "etc/a";
        uint8_t head[8];
        name[4] = (char)('a' + i);
        for (unsigned b = 0; b < 8; b++)
            head[b] = (uint8_t)test_in(t, 0x511, 1);
        assert_int_equal(load_be32(head), i + 1);
        assert_int_equal(load_be16(head + 4), FW_CFG_FILE_FIRST + i);
        expect_bytes(name, sizeof(name));
    }
    select_key(FW_CFG_FILE_FIRST + 2);
    expect_bytes("ccc\0", 4);
}

static void test_adding_has_limits(void **state)
{
    struct device *dev = t->m.fw_cfg;
    struct error *err = NULL;
    char name[80];
    assert_false(fw_cfg_add(dev, FW_CFG_SIGNATURE, "x", 1, &err));
    error_free(err);
    assert_false(fw_cfg_add(dev, FW_CFG_FILE_DIR, "x", 1, NULL));
    assert_false(fw_cfg_add(dev, FW_CFG_FILE_FIRST, "x", 1, NULL));
    memset(name, 'x', 56);
    name[56] = '\0';
    assert_false(fw_cfg_add_file(dev, name, "", 0, NULL));
    name[55] = '\0';
    assert_true(fw_cfg_add_file(dev, name, "", 0, NULL));
    for (unsigned i = 1; i < FW_CFG_FILE_MAX; i++) {
        snprintf(name, sizeof(name), "opt/%u", i);
        assert_true(fw_cfg_add_file(dev, name, name, 4, NULL));
    }
    assert_false(fw_cfg_add_file(dev, "one-more", "", 0, NULL));
}

static void test_dma(void **state)
{
    char got[8];
    assert_int_equal(test_in(t, 0x514, 4), 0x554d4551); /* "QEMU CFG" */
    assert_int_equal(test_in(t, 0x518, 4), 0x47464320);
    assert_true(fw_cfg_add_file(t->m.fw_cfg, "opt/x", "0123456789", 10, NULL));
    memset(got, 'z', sizeof(got));
    assert_true(guest_write(t->m.memory, BUFFER, got, sizeof(got)));
    unsigned marks = t->written_count;
    assert_int_equal(dma(FW_CFG_FILE_FIRST << 16 | 8 | 2, 4, BUFFER), 0);
    assert_true(t->written_count > marks + 1); /* the request by us, the data by the device */
    guest_read(t->m.memory, BUFFER, got, sizeof(got));
    assert_memory_equal(got, "0123zzzz", 8);
    assert_int_equal(dma(4, 3, 0), 0); /* skip */
    assert_int_equal(dma(2, 8, BUFFER), 0);
    guest_read(t->m.memory, BUFFER, got, sizeof(got));
    assert_memory_equal(got, "789\0\0\0\0", 8);
    assert_int_equal(dma(FW_CFG_SIGNATURE << 16 | 8, 0, 0), 0); /* select alone */
    expect_bytes("QEMU", 4);
    assert_int_equal(dma(2, 0, UINT64_MAX), 0); /* nothing to copy, nowhere */
    assert_int_equal(dma(16, 4, BUFFER), 1);    /* items cannot be written */
}

static void test_hostile_dma(void **state)
{
    static const struct {
        uint32_t len;
        uint64_t gpa;
    } bad[] = {{4, TEST_RAM_SIZE - 3}, {4, TEST_RAM_SIZE}, {UINT32_MAX, 0},
               {1, UINT64_MAX},        {2, UINT64_MAX},    {8, 1ull << 40}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(dma(2, bad[i].len, bad[i].gpa), 1);
    /* The request itself: outside of RAM, over its end. */
    static const uint32_t header[] = {0xfffffff8, TEST_RAM_SIZE, TEST_RAM_SIZE - 15, 0xa0000000};
    for (size_t i = 0; i < ARRAY_SIZE(header); i++) {
        unsigned marks = t->written_count;
        test_out(t, 0x514, 4, 0xffffffff);
        test_out(t, 0x518, 4, __builtin_bswap32(header[i]));
        test_out(t, 0x514, 4, 0);
        test_out(t, 0x518, 4, __builtin_bswap32(header[i]));
        assert_int_equal(t->written_count, marks);
    }
    /* Skipping for ever does not come back to the start. */
    for (int i = 0; i < 3; i++)
        assert_int_equal(dma(4, UINT32_MAX, 0), 0);
    expect_bytes("\0", 1);
}

/* The answer may lie over the request. */
static void test_dma_onto_itself(void **state)
{
    assert_int_equal(dma(FW_CFG_SIGNATURE << 16 | 8 | 2, 16, HEADER), 0);
    uint8_t h[16];
    guest_read(t->m.memory, HEADER, h, sizeof(h));
    assert_memory_equal(h, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
}

int main(void)
{
#define FW_CFG_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        FW_CFG_TEST(test_selector_and_data), FW_CFG_TEST(test_directory),
        FW_CFG_TEST(test_adding_has_limits), FW_CFG_TEST(test_dma),
        FW_CFG_TEST(test_hostile_dma),       FW_CFG_TEST(test_dma_onto_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
