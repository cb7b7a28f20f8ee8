/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An image that one process lets go of and another takes: what was written is seen there and back again, only
 * one has it, and what fails leaves it where it was. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "os/sys.h"
#include "support.h"

static void must_move(struct block *from, struct block *to)
{
    struct error *err = NULL;
    if (!block_release(from, &err) || !block_take(to, &err))
        fail_msg("%s", error_text(err));
    assert_true(block_is_away(from));
    assert_false(block_is_away(to));
}

static void there_and_back(const char *format)
{
    struct block_info info;
    must_run("rm -f disk && qemu-img create -q -f %s disk 4M", format);
    struct block *a = must_open("disk", format, 0);
    fill_part(a, 0, 1);
    struct block *b = must_open("disk", format, BLOCK_AWAY);
    block_get_info(b, &info);
    assert_int_equal(info.size, 4 * MIB);
    assert_false(info.readonly);
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, (uint8_t[512]){0}, 512, false), -EROFS);
    for (uint8_t i = 0; i < 5; i++) {
        fill_part(a, MIB, (uint8_t)(10 + i));
        must_move(a, b);
        expect_part(b, 0, 1);
        expect_part(b, MIB, (uint8_t)(10 + i));
        fill_part(b, 2 * MIB, (uint8_t)(20 + i));
        block_close(a);
        a = b;
        b = must_open("disk", format, BLOCK_AWAY);
        expect_part(a, 2 * MIB, (uint8_t)(20 + i));
    }
    block_close(b);
    fill_part(a, 0, 2);
    block_close(a);
    if (!strcmp(format, "qcow2"))
        must_run("qemu-img check -q disk");
}

static void test_qcow2(void **state)
{
    there_and_back("qcow2");
}

static void test_raw(void **state)
{
    there_and_back("raw");
}

/* What another process is just writing is not all of one instant: data is told of before the file's size is
 * seen. */
static void test_just_being_written(void **state)
{
    must_run("rm -f disk && qemu-img create -q -f qcow2 disk 4M");
    struct block *a = must_open("disk", "qcow2", 0);
    fill_part(a, 0, 1);
    assert_int_equal(do_io(a, BLOCK_FLUSH, 0, NULL, 0, false), 0);
    uint64_t l1 = peek_be64("disk", 40), l2 = peek_be64("disk", l1) & 0x00fffffffffffe00ull;
    poke_be64("disk", l2 + 8 * 40, (1ull << 63) | 64 * MIB);
    struct block *b = must_open("disk", "qcow2", BLOCK_AWAY);
    assert_int_equal(do_io(b, BLOCK_READ, 0, (uint8_t[512]){0}, 512, false), -EBUSY);
    block_close(b);
    block_close(a);
    must_refuse("disk", "qcow2", 0, "truncated");
}

static void test_only_one_has_it(void **state)
{
    struct error *err = NULL;
    must_run("rm -f disk && qemu-img create -q -f qcow2 disk 4M");
    struct block *a = must_open("disk", "qcow2", 0);
    struct block *b = must_open("disk", "qcow2", BLOCK_AWAY), *c = must_open("disk", "qcow2", BLOCK_AWAY);
    assert_false(block_take(b, &err));
    assert_non_null(strstr(error_text(err), "in use by another program"));
    error_free(err);
    fill_part(a, 0, 3);
    must_move(a, c);
    assert_false(block_take(b, NULL));
    assert_false(block_take(a, NULL));
    expect_part(c, 0, 3);
    block_close(c); /* as when its process is killed: the lock ends with it */
    assert_true(block_take(a, NULL));
    expect_part(a, 0, 3);
    /* Not when the other one wrote to it. */
    must_move(a, b);
    fill_part(b, 0, 4);
    block_close(b);
    err = NULL;
    assert_false(block_take(a, &err));
    assert_int_equal(err->code, ESTALE);
    error_free(err);
    block_close(a);
}

static void test_not_the_same_file(void **state)
{
    must_run("rm -f disk && qemu-img create -q -f qcow2 disk 4M");
    must_refuse("disk", "qcow2", BLOCK_AWAY, "nobody has 'disk' open for writing");
    struct block *reader = must_open("disk", "qcow2", BLOCK_READONLY);
    must_refuse("disk", "qcow2", BLOCK_AWAY, "nobody has 'disk' open for writing");
    block_close(reader);
}

static int no_sync(int fd)
{
    (void)fd;
    errno = EIO;
    return -1;
}

static void test_failure_changes_nothing(void **state)
{
    struct error *err = NULL;
    must_run("rm -f disk && qemu-img create -q -f qcow2 disk 4M");
    struct block *a = must_open("disk", "qcow2", 0);
    fill_part(a, 0, 4);
    int (*good)(int fd) = sys.fdatasync;
    sys.fdatasync = no_sync;
    assert_false(block_release(a, &err));
    sys.fdatasync = good;
    assert_non_null(strstr(error_text(err), "cannot let go of 'disk'"));
    error_free(err);
    assert_false(block_is_away(a));
    fill_part(a, MIB, 5);
    block_close(a);
    must_run("qemu-img check -q disk");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qcow2),
        cmocka_unit_test(test_raw),
        cmocka_unit_test(test_just_being_written),
        cmocka_unit_test(test_only_one_has_it),
        cmocka_unit_test(test_not_the_same_file),
        cmocka_unit_test(test_failure_changes_nothing),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
