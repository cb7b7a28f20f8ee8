/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The error convention: set once, prefixed, freed; nobody has to want the reason. Log lines that a guest
 * causes are limited. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"

static bool fails(struct error **err)
{
    error_set_errno(err, ENOENT, "cannot open %s", "x");
    return false;
}

static void test_set_and_prefix(void **state)
{
    struct error *inner = NULL;
    cleanup(error) struct error *outer = NULL;
    assert_false(fails(&inner));
    assert_int_equal(inner->code, ENOENT);
    assert_string_equal(error_text(inner), "cannot open x: No such file or directory");
    error_prefix(&outer, inner, "drive %d", 0);
    assert_int_equal(outer->code, ENOENT);
    assert_string_equal(error_text(outer), "drive 0: cannot open x: No such file or directory");
}

static void test_nobody_wants_it(void **state)
{
    struct error *inner = NULL, *untouched = NULL;
    assert_false(fails(NULL));
    assert_false(fails(&inner));
    error_prefix(NULL, inner, "freed here");
    error_prefix(&untouched, NULL, "no error");
    assert_null(untouched);
    assert_string_equal(error_text(NULL), "unknown error");
    error_free(NULL);
}

static void test_guest_log_is_limited(void **state)
{
    int fd[2];
    static char text[1 << 16];
    assert_int_equal(pipe(fd), 0);
    log_to(fd[1]);
    for (int i = 0; i < 1000; i++)
        log_guest(LOG_WARN, "message %d", i);
    log_guest(LOG_DEBUG, "not wanted");
    log_to(STDERR_FILENO);
    close(fd[1]);
    ssize_t n = read(fd[0], text, sizeof(text) - 1);
    close(fd[0]);
    assert_true(n > 0);
    unsigned lines = 0;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    /* 10 a second, and the second may turn meanwhile */
    assert_in_range(lines, 10, 21);
    assert_non_null(strstr(text, "warning: message 9\n"));
    assert_null(strstr(text, "not wanted"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_prefix),
        cmocka_unit_test(test_nobody_wants_it),
        cmocka_unit_test(test_guest_log_is_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
