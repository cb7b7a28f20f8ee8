/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers, sizes, truth values and addresses as users write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/parse.h"
#include "base/util.h"

static void test_uint(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        uint64_t value;
    } cases[] = {
        {"0", true, 0},
        {"12", true, 12},
        {"0x1f", true, 31},
        {"0XFF", true, 255},
        {"010", true, 10},
        {"18446744073709551615", true, UINT64_MAX},
        {"18446744073709551616", false, 0},
        {"", false, 0},
        {"-1", false, 0},
        {"+1", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"0x", false, 0},
        {"1k", false, 0},
        {"0x-1", false, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t v = 77;
        if (parse_uint(cases[i].text, &v) != cases[i].ok || v != (cases[i].ok ? cases[i].value : 77))
            fail_msg("\"%s\"", cases[i].text);
    }
}

static void test_size(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        uint64_t value;
    } cases[] = {
        {"1", true, 1},          {"4K", true, 4096},
        {"4k", true, 4096},      {"3MiB", true, 3 * MIB},
        {"2G", true, 2 * GIB},   {"1TB", true, 1024 * GIB},
        {"512B", true, 512},     {"0x10K", true, 16384},
        {"16777216T", false, 0}, {"16777215T", true, 16777215ull << 40},
        {"K", false, 0},         {"1KK", false, 0},
        {"1Ki", false, 0},       {"1P", false, 0},
        {"1.5G", false, 0},      {"", false, 0},
        {"-1G", false, 0},       {"1GiBx", false, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t v = 77;
        if (parse_size(cases[i].text, &v) != cases[i].ok || v != (cases[i].ok ? cases[i].value : 77))
            fail_msg("\"%s\"", cases[i].text);
    }
}

static void test_bool(void **state)
{
    bool v = false;
    assert_true(parse_bool("on", &v) && v);
    assert_true(parse_bool("No", &v) && !v);
    assert_true(parse_bool("TRUE", &v) && v);
    assert_true(parse_bool("0", &v) && !v);
    assert_false(parse_bool("", &v));
    assert_false(parse_bool("maybe", &v));
    assert_false(parse_bool("onn", &v));
}

static void test_mac(void **state)
{
    static const uint8_t expected[6] = {0x52, 0x54, 0, 0xab, 0xCD, 0xef};
    static const char *const bad[] = {"",
                                      "52:54:00:ab:cd",
                                      "52:54:00:ab:cd:ef:",
                                      "52:54:00:ab:cd:e",
                                      "52-54-00-ab-cd-ef",
                                      "52:54:00:ab:cd:eg",
                                      "52:54:00:ab:cd:ef0"};
    uint8_t mac[6];
    assert_true(parse_mac("52:54:00:ab:CD:ef", mac));
    assert_memory_equal(mac, expected, 6);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(parse_mac(bad[i], mac));
}

static void test_uuid(void **state)
{
    static const uint8_t expected[16] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4c, 0xde,
                                         0x8f, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xCD};
    static const char *const bad[] = {"",
                                      "0123456789ab4cde8f0123456789abcd",
                                      "01234567-89ab-4cde-8f01-23456789abc",
                                      "01234567-89ab-4cde-8f01-23456789abcg",
                                      "01234567-89ab-4cde-8f0123456789abcd-",
                                      "01234567-89ab-4cde-8f01-23456789abcd0",
                                      "01234567_89ab-4cde-8f01-23456789abcd"};
    uint8_t uuid[16];
    assert_true(parse_uuid("01234567-89ab-4cde-8F01-23456789abcd", uuid));
    assert_memory_equal(uuid, expected, 16);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(parse_uuid(bad[i], uuid));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uint), cmocka_unit_test(test_size), cmocka_unit_test(test_bool),
        cmocka_unit_test(test_mac),  cmocka_unit_test(test_uuid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
