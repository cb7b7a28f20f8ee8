/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest memory: layout, bounds of every access, ROM, written marks, failing system calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/util.h"
#include "core/memory.h"
#include "os/sys.h"

static struct guest_memory *make(uint64_t size)
{
    struct error *err = NULL;
    struct guest_memory *mem = guest_memory_new(size, &err);
    if (!mem)
        fail_msg("%s", error_text(err));
    return mem;
}

static void test_layout(void **state)
{
    struct guest_memory *small = make(2 * GIB);
    assert_int_equal(small->region_count, 1);
    assert_true(small->ram_low == 2 * GIB);
    guest_memory_free(small);

    struct guest_memory *large = make(3 * GIB);
    assert_int_equal(large->region_count, 2);
    assert_true(large->ram_low == 2 * GIB);
    assert_true(large->region[1].gpa == 4 * GIB);
    assert_true(large->region[1].size == GIB);
    assert_null(guest_ptr(large, 2 * GIB, 1, false));
    assert_null(guest_ptr(large, 4 * GIB - 1, 1, false));
    assert_non_null(guest_ptr(large, 5 * GIB - 1, 1, true));
    assert_null(guest_ptr(large, 5 * GIB, 1, true));
    assert_int_equal((uintptr_t)large->region[0].host % (2 * MIB), 0);
    guest_memory_free(large);
}

static void test_refuses_bad_sizes(void **state)
{
    static const uint64_t sizes[] = {0, 4096, MIB - 4096, MIB + 1, 2048 * GIB, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct error *err = NULL;
        assert_null(guest_memory_new(sizes[i], &err));
        assert_non_null(err);
        error_free(err);
    }
}

static void test_bounds(void **state)
{
    struct guest_memory *mem = make(MIB);
    uint8_t *base = guest_ptr(mem, 0, MIB, true);
    assert_non_null(base);
    assert_ptr_equal(guest_ptr(mem, MIB - 1, 1, true), base + MIB - 1);
    assert_null(guest_ptr(mem, MIB - 1, 2, true));
    assert_null(guest_ptr(mem, MIB, 1, true));
    assert_null(guest_ptr(mem, 1, UINT64_MAX, true));
    assert_null(guest_ptr(mem, UINT64_MAX, 2, true));
    guest_memory_free(mem);
}

static uint64_t marked_gpa, marked_len;
static unsigned marks;

static void mark(void *opaque, uint64_t gpa, uint64_t len)
{
    assert_ptr_equal(opaque, &marks);
    marked_gpa = gpa;
    marked_len = len;
    marks++;
}

static void test_copies_and_marks(void **state)
{
    struct guest_memory *mem = make(MIB);
    uint8_t buf[4] = {1, 2, 3, 4}, back[4] = {0};
    mem->written = mark;
    mem->written_opaque = &marks;
    marks = 0;
    assert_true(guest_write(mem, MIB - 4, buf, 4));
    assert_int_equal(marks, 1);
    assert_int_equal(marked_gpa, MIB - 4);
    assert_int_equal(marked_len, 4);
    assert_true(guest_read(mem, MIB - 4, back, 4));
    assert_memory_equal(buf, back, 4);
    back[0] = 9;
    assert_false(guest_write(mem, MIB - 3, buf, 4));
    assert_false(guest_read(mem, MIB - 3, back, 4));
    assert_int_equal(back[0], 9);
    assert_int_equal(marks, 1);
    assert_true(guest_write(mem, 2 * GIB, buf, 0)); /* nothing to write, nothing marked */
    assert_int_equal(marks, 1);
    guest_memory_free(mem);
}

static void test_rom(void **state)
{
    struct guest_memory *mem = make(MIB);
    uint8_t byte = 7;
    uint8_t *rom = guest_memory_add(mem, "firmware", 0xfffc0000, 256 * KIB, REGION_ROM, NULL);
    assert_non_null(rom);
    rom[5] = 42;
    assert_true(guest_read(mem, 0xfffc0005, &byte, 1));
    assert_int_equal(byte, 42);
    assert_false(guest_write(mem, 0xfffc0005, &byte, 1));
    assert_null(guest_ptr(mem, 0xfffc0000, 1, true));
    /* Ranges that are taken, unaligned, empty or out of the address space. */
    assert_null(guest_memory_add(mem, "x", 0xfffff000, 4096, REGION_ROM, NULL));
    assert_null(guest_memory_add(mem, "x", 0, 4096, REGION_ROM, NULL));
    assert_null(guest_memory_add(mem, "x", 0x80000001, 4096, REGION_ROM, NULL));
    assert_null(guest_memory_add(mem, "x", 0x80000000, 0, REGION_ROM, NULL));
    assert_null(guest_memory_add(mem, "x", BIT(52) - 4096, 8192, REGION_ROM, NULL));
    guest_memory_free(mem);
}

static int no_ftruncate(int fd, off_t len)
{
    errno = ENOSPC;
    return -1;
}

static unsigned mmaps_left;

static void *limited_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
    if (mmaps_left-- == 0) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return mmap(addr, len, prot, flags, fd, off);
}

static void test_system_calls_fail(void **state)
{
    struct sys_table real = sys;
    struct error *err = NULL;
    sys.ftruncate = no_ftruncate;
    assert_null(guest_memory_new(MIB, &err));
    assert_int_equal(err->code, ENOSPC);
    error_free(err);
    sys = real;
    for (unsigned n = 0; n < 4; n++) { /* two for each half of the RAM */
        err = NULL;
        mmaps_left = n;
        sys.mmap = limited_mmap;
        assert_null(guest_memory_new(3 * GIB, &err));
        assert_int_equal(err->code, ENOMEM);
        error_free(err);
        sys = real;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout), cmocka_unit_test(test_refuses_bad_sizes),
        cmocka_unit_test(test_bounds), cmocka_unit_test(test_copies_and_marks),
        cmocka_unit_test(test_rom),    cmocka_unit_test(test_system_calls_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
