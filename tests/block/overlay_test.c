/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A new top layer for an image in use: what was written before is below, what is written after is on top, and
 * whatever cannot be leaves the image as it was. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "os/sys.h"
#include "support.h"

#define SIZE (4 * MIB)
static struct block *begin(void)
{
    must_run("rm -f *.qcow2 && qemu-img create -q -f qcow2 base.qcow2 %llu && "
             "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2",
             (unsigned long long)SIZE);
    struct block *b = must_open("base.qcow2", "qcow2", 0);
    fill_part(b, 0, 1);
    fill_part(b, MIB, 2);
    return b;
}

static void put(struct block *b, const char *path)
{
    struct error *err = NULL;
    struct layer *overlay = block_overlay_open(b, path, &err);
    if (!overlay || !block_overlay_put(b, overlay, &err))
        fail_msg("%s", error_text(err));
}

static void test_before_is_below(void **state)
{
    struct block *b = begin();
    struct block_info info;
    put(b, "top.qcow2");
    block_get_info(b, &info);
    assert_string_equal(info.path, "top.qcow2");
    assert_string_equal(info.backing, "base.qcow2");
    /* Others may read what is below, and find it complete. */
    must_run("qemu-img check -q base.qcow2 && cp base.qcow2 then.qcow2");
    fill_part(b, MIB, 3);
    fill_part(b, 2 * MIB, 4);
    expect_part(b, 0, 1);
    expect_part(b, MIB, 3);
    must_run("cmp base.qcow2 then.qcow2");
    block_close(b);
    must_run("qemu-img check -q base.qcow2 && qemu-img check -q top.qcow2 && cmp base.qcow2 then.qcow2");
    b = must_open("base.qcow2", "qcow2", BLOCK_READONLY);
    expect_part(b, MIB, 2);
    expect_part(b, 2 * MIB, 0);
    block_close(b);
    b = must_open("top.qcow2", "qcow2", 0);
    expect_part(b, 0, 1);
    expect_part(b, MIB, 3);
    expect_part(b, 2 * MIB, 4);
    block_close(b);
}

static void test_one_on_another(void **state)
{
    struct block *b = begin();
    char below[32] = "base.qcow2", above[32];
    for (unsigned i = 0; i < 5; i++) {
        snprintf(above, sizeof(above), "layer%u.qcow2", i);
        must_run("qemu-img create -q -f qcow2 -b %s -F qcow2 %s", below, above);
        put(b, above);
        fill_part(b, 2 * MIB, (uint8_t)(10 + i));
        memcpy(below, above, sizeof(below));
    }
    expect_part(b, MIB, 2);
    expect_part(b, 2 * MIB, 14);
    block_close(b);
    b = must_open("layer2.qcow2", "qcow2", BLOCK_READONLY);
    expect_part(b, 2 * MIB, 12);
    block_close(b);
}

static void refuse(struct block *b, const char *path, const char *part)
{
    struct error *err = NULL;
    assert_null(block_overlay_open(b, path, &err));
    if (!strstr(error_text(err), part))
        fail_msg("'%s' and not '%s'", error_text(err), part);
    error_free(err);
}

static void test_refusals(void **state)
{
    struct block *b = begin();
    must_run("qemu-img create -q -f qcow2 alone.qcow2 4M && qemu-img create -q -f qcow2 -u -b base.qcow2 -F "
             "qcow2 large.qcow2 8M && qemu-img create -q -f qcow2 -b alone.qcow2 -F qcow2 other.qcow2");
    refuse(b, "alone.qcow2", "no backing file");
    refuse(b, "large.qcow2", "their sizes differ");
    refuse(b, "other.qcow2", "its backing file is 'alone.qcow2'");
    refuse(b, "missing.qcow2", "No such file");
    refuse(b, "base.qcow2", "in use by another program");
    block_overlay_close(block_overlay_open(b, "top.qcow2", NULL));
    fill_part(b, MIB, 5);
    block_close(b);
    b = must_open("base.qcow2", "qcow2", BLOCK_READONLY);
    refuse(b, "top.qcow2", "open read-only");
    expect_part(b, MIB, 5);
    block_close(b);
}

static int no_sync(int fd)
{
    (void)fd;
    errno = EIO;
    return -1;
}

static void test_failure_changes_nothing(void **state)
{
    struct block *b = begin();
    struct error *err = NULL;
    struct layer *overlay = block_overlay_open(b, "top.qcow2", NULL);
    assert_non_null(overlay);
    int (*good)(int fd) = sys.fdatasync;
    sys.fdatasync = no_sync;
    assert_false(block_overlay_put(b, overlay, &err));
    sys.fdatasync = good;
    assert_non_null(strstr(error_text(err), "Input/output error"));
    error_free(err);
    fill_part(b, 2 * MIB, 6);
    assert_true(block_overlay_put(b, overlay, NULL));
    fill_part(b, MIB, 7);
    block_close(b);
    must_run("qemu-img check -q base.qcow2 && qemu-img check -q top.qcow2");
    b = must_open("base.qcow2", "qcow2", BLOCK_READONLY);
    expect_part(b, MIB, 2);
    expect_part(b, 2 * MIB, 6);
    block_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_before_is_below),
        cmocka_unit_test(test_one_on_another),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_failure_changes_nothing),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
