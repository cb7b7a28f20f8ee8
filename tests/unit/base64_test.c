/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Base64: the values of RFC 4648, all lengths, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/util.h"

static void test_known(void **state)
{
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"},
                                           {"\xfb\xff\xbf", "+/+/"}};
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        char *text = base64_encode(pairs[i][0], strlen(pairs[i][0]));
        assert_string_equal(text, pairs[i][1]);
        free(text);
    }
}

static void test_there_and_back(void **state)
{
    uint8_t data[300];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 197 + (i >> 3));
    for (size_t len = 0; len <= sizeof(data); len++) {
        char *text = base64_encode(data, len);
        size_t got = 999;
        /* In its own place. */
        assert_true(base64_decode(text, strlen(text), (uint8_t *)text, &got));
        assert_int_equal(got, len);
        assert_memory_equal(text, data, len);
        free(text);
    }
}

static void test_none(void **state)
{
    static const char *const bad[] = {"Z",    "Zg",   "Zg=",  "====", "Z===", "Zg==Zg==", "Zm9v\n",
                                      "Zm9 ", "Zm-v", "Zm_v", "=Zm9", "Zm=v", "Zm\xc3v",  "\nZm9"};
    uint8_t out[16];
    size_t len;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (base64_decode(bad[i], strlen(bad[i]), out, &len))
            fail_msg("\"%s\"", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
