/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bounded logs: their limit, their end, what a full disk does to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "os/sys.h"
#include "os/text_log.h"

static char dir[] = "/tmp/ruche-log-XXXXXX";
static char path[sizeof(dir) + 8], older[sizeof(path) + 2];
static int notes = -1; /* where the program's own log goes */

static void write_text(struct text_log *log, const char *text)
{
    text_log_write(log, (const uint8_t *)text, strlen(text));
}

static off_t size_of(const char *name)
{
    struct stat st;
    return stat(name, &st) == 0 ? st.st_size : -1;
}

static void test_goes_on(void **state)
{
    uint8_t end[4];
    struct text_log *log = text_log_open(path, NULL);
    write_text(log, "hello");
    assert_int_equal(size_of(path), 0); /* gathered */
    text_log_close(log);
    assert_int_equal(size_of(path), 5);
    log = text_log_open(path, NULL);
    assert_int_equal(text_log_tail(log, end, sizeof(end)), 4);
    assert_memory_equal(end, "ello", 4);
    write_text(log, " you");
    assert_int_equal(text_log_tail(log, end, sizeof(end)), 4);
    assert_memory_equal(end, " you", 4);
    assert_int_equal(size_of(path), 9);
    text_log_close(log);
}

/* Numbered lines: the two files hold the last ones, one after the other, and no more than the limit. */
static void test_limit(void **state)
{
    char line[16], *text = malloc(TEXT_LOG_MAX + 1);
    struct text_log *log = text_log_open(path, NULL);
    enum { LINES = 300000 };
    for (unsigned i = 0; i < LINES; i++) {
        snprintf(line, sizeof(line), "%09u\n", i);
        write_text(log, line);
    }
    text_log_close(log);
    off_t old = size_of(older), new = size_of(path);
    assert_true(old > 0 && new > 0 && (size_t)(old + new) <= TEXT_LOG_MAX);
    assert_true((size_t)(old + new) > TEXT_LOG_MAX / 2);
    FILE *f = fopen(older, "r");
    assert_int_equal(fread(text, 1, (size_t)old, f), old);
    fclose(f);
    f = fopen(path, "r");
    assert_int_equal(fread(text + old, 1, (size_t) new, f), new);
    fclose(f);
    text[old + new] = 0;
    const char *p = strchr(text, '\n') + 1;
    for (unsigned i = LINES - (unsigned)strlen(p) / 10; i < LINES; i++, p += 10)
        assert_int_equal(strtoul(p, NULL, 10), i);
    assert_int_equal(*p, 0);
    free(text);
}

static ssize_t no_room(int fd, const struct iovec *iov, int n, off_t off)
{
    errno = ENOSPC;
    return -1;
}

static int no_rename(const char *from, const char *to)
{
    errno = EACCES;
    return -1;
}

/* Said once; what comes when there is room again is kept. */
static void test_full_disk(void **state)
{
    struct sys_table good = sys;
    struct text_log *log = text_log_open(path, NULL);
    sys.pwritev = no_room;
    write_text(log, "lost");
    text_log_flush(log);
    write_text(log, "lost");
    text_log_flush(log);
    sys = good;
    write_text(log, "kept");
    text_log_close(log);
    assert_int_equal(size_of(path), 4);
    char said[512] = "";
    assert_true(pread(notes, said, sizeof(said) - 1, 0) > 0);
    assert_non_null(strstr(said, path));
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

/* The limit holds where no second file can be made. */
static void test_no_rotation(void **state)
{
    static uint8_t block[65536];
    struct sys_table good = sys;
    struct text_log *log = text_log_open(path, NULL);
    sys.rename = no_rename;
    for (unsigned i = 0; i < 40; i++)
        text_log_write(log, block, sizeof(block));
    write_text(log, "end");
    text_log_close(log);
    sys = good;
    assert_int_equal(size_of(path), 3); /* the blocks fill it exactly, five times */
    assert_int_equal(size_of(older), -1);
}

static void test_no_file(void **state)
{
    assert_null(text_log_open("/nowhere/log", NULL));
}

static int setup(void **state)
{
    notes = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    log_to(notes);
    return notes < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    unlink(path);
    unlink(older);
    log_to(STDERR_FILENO);
    close(notes);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_rotation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_file, setup, teardown),
    };
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/log", dir);
    snprintf(older, sizeof(older), "%s.1", path);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
