/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Windows of an address space: finding, splitting, overlaps, priorities, changes during an access. */
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
#include "core/bus.h"

struct fake {
    struct io_window w;
    unsigned reads, writes;
    uint64_t offset[8], value[8];
    unsigned size[8];
    struct io_bus *unmap_from; /* the write removes the window */
};

static uint64_t fake_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fake *f = opaque;
    f->offset[f->reads % 8] = offset;
    f->size[f->reads++ % 8] = size;
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++)
        v |= (offset + i) << (8 * i);
    return v;
}

static void fake_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct fake *f = opaque;
    f->offset[f->writes % 8] = offset;
    f->value[f->writes % 8] = value;
    f->size[f->writes++ % 8] = size;
    if (f->unmap_from)
        bus_unmap(f->unmap_from, &f->w);
}

static void fake_init(struct fake *f, const char *name, uint64_t base, uint64_t size, uint8_t max_access)
{
    *f = (struct fake){.w = {.name = name,
                             .base = base,
                             .size = size,
                             .read = fake_read,
                             .write = fake_write,
                             .max_access = max_access}};
    f->w.opaque = f;
}

static void test_nobody_answers(void **state)
{
    struct io_bus bus;
    bus_init(&bus, 0x10000);
    assert_int_equal(bus_read(&bus, 0x80, 1), 0xff);
    assert_int_equal(bus_read(&bus, 0x80, 4), 0xffffffff);
    assert_true(bus_read(&bus, 0xffffffffffffffff, 8) == UINT64_MAX);
    bus_write(&bus, 0x80, 4, 1);
}

static void test_access_sizes(void **state)
{
    struct io_bus bus;
    struct fake byte, qword;
    bus_init(&bus, 0x10000);
    fake_init(&byte, "byte", 0x40, 4, 1);
    fake_init(&qword, "qword", 0x100, 16, 8);
    assert_true(bus_map(&bus, &byte.w, NULL));
    assert_true(bus_map(&bus, &qword.w, NULL));
    assert_int_equal(bus_read(&bus, 0x40, 4), 0x03020100);
    assert_int_equal(byte.reads, 4);
    assert_true(bus_read(&bus, 0x100, 8) == 0x0706050403020100);
    assert_int_equal(qword.reads, 1);
    bus_write(&bus, 0x41, 2, 0xbbaa);
    assert_int_equal(byte.writes, 2);
    assert_int_equal(byte.offset[0], 1);
    assert_int_equal(byte.value[0], 0xaa);
    assert_int_equal(byte.value[1], 0xbb);
}

/* Over the end of a window the access is cut in pieces; what lies beyond has its own answer. */
static void test_crossing_an_end(void **state)
{
    struct io_bus bus;
    struct fake a, b;
    bus_init(&bus, 0x10000);
    fake_init(&a, "a", 0x10, 2, 4);
    fake_init(&b, "b", 0x12, 1, 4);
    assert_true(bus_map(&bus, &a.w, NULL));
    assert_true(bus_map(&bus, &b.w, NULL));
    assert_int_equal(bus_read(&bus, 0x10, 4), 0xff000100);
    assert_int_equal(a.size[0], 2);
    assert_int_equal(b.size[0], 1);
    bus_write(&bus, 0xf, 4, 0x44332211);
    assert_int_equal(a.value[0], 0x3322);
    assert_int_equal(b.value[0], 0x44);
}

static void test_default_access_is_four(void **state)
{
    struct io_bus bus;
    struct fake f;
    bus_init(&bus, 0x10000);
    fake_init(&f, "f", 0, 16, 0);
    assert_true(bus_map(&bus, &f.w, NULL));
    bus_read(&bus, 0, 8);
    assert_int_equal(f.reads, 2);
    assert_int_equal(f.size[0], 4);
}

static void test_refuses_bad_places(void **state)
{
    struct io_bus bus;
    struct fake a, b;
    struct error *err = NULL;
    bus_init(&bus, 0x10000);
    fake_init(&a, "a", 0x100, 0x10, 4);
    assert_true(bus_map(&bus, &a.w, NULL));
    assert_false(bus_map(&bus, &a.w, NULL)); /* twice */
    fake_init(&b, "b", 0x10f, 1, 4);
    assert_false(bus_map(&bus, &b.w, &err));
    assert_non_null(strstr(error_text(err), "a is there"));
    error_free(err);
    fake_init(&b, "b", 0xffff, 2, 4);
    assert_false(bus_map(&bus, &b.w, NULL));
    fake_init(&b, "b", 0, 0, 4);
    assert_false(bus_map(&bus, &b.w, NULL));
    fake_init(&b, "b", UINT64_MAX, 2, 4);
    assert_false(bus_map(&bus, &b.w, NULL));
    fake_init(&b, "b", 0x110, 1, 4);
    assert_true(bus_map(&bus, &b.w, NULL));
}

static void test_priority(void **state)
{
    struct io_bus bus;
    struct fake below, above;
    bus_init(&bus, 0x10000);
    fake_init(&below, "below", 0xcf8, 4, 4);
    fake_init(&above, "above", 0xcf9, 1, 1);
    above.w.priority = 1;
    assert_true(bus_map(&bus, &below.w, NULL));
    bus_read(&bus, 0xcf8, 1); /* a hit that must not be remembered wrongly */
    assert_true(bus_map(&bus, &above.w, NULL));
    bus_write(&bus, 0xcf9, 1, 6);
    assert_int_equal(above.writes, 1);
    assert_int_equal(below.writes, 0);
    bus_write(&bus, 0xcf8, 4, 0x80000000);
    assert_int_equal(below.writes, 1);
    bus_read(&bus, 0xcf8, 1);
    bus_write(&bus, 0xcf9, 1, 6);
    assert_int_equal(above.writes, 2);
    bus_unmap(&bus, &above.w);
    bus_write(&bus, 0xcf9, 1, 6);
    assert_int_equal(above.writes, 2);
    assert_int_equal(below.writes, 2);
}

static void test_unmap_during_access(void **state)
{
    struct io_bus bus;
    struct fake f;
    bus_init(&bus, 0x10000);
    fake_init(&f, "f", 0x40, 4, 1);
    f.unmap_from = &bus;
    assert_true(bus_map(&bus, &f.w, NULL));
    bus_write(&bus, 0x40, 4, 0);
    assert_int_equal(f.writes, 1);
    assert_false(f.w.mapped);
    assert_null(bus.windows);
    assert_int_equal(bus_read(&bus, 0x40, 1), 0xff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_answers),      cmocka_unit_test(test_access_sizes),
        cmocka_unit_test(test_crossing_an_end),     cmocka_unit_test(test_default_access_is_four),
        cmocka_unit_test(test_refuses_bad_places),  cmocka_unit_test(test_priority),
        cmocka_unit_test(test_unmap_during_access),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
