/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzing the registers of all devices of a board: the input is a list of accesses, steps in time, resets,
 * and saves that are loaded back. Four to ten bytes each: operation and size, window, offset (2), value (as
 * many bytes as the size).
 */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "device/pci/pci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t len;
};

static uint64_t take(struct input *in, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes && in->len; i++, in->len--)
        v |= (uint64_t)*in->data++ << (8 * i);
    return v;
}

static struct test_machine *board(void)
{
    struct test_machine *t = test_machine_new();
    for (const struct device_class *const *cls = device_classes; *cls; cls++) {
        const char *props = test_machine_prepare(t, (*cls)->name);
        bool there = false;
        for (struct device *d = t->m.devices; d; d = d->next)
            there |= d->cls == *cls;
        if (!there)
            test_machine_add(t, (*cls)->name, props);
    }
    return t;
}

static const struct io_window *pick_window(struct test_machine *t, uint64_t n, struct io_bus **bus)
{
    for (unsigned round = 0; round < 256; round++) {
        struct io_bus *both[] = {&t->m.ports, &t->m.mmio};
        for (unsigned b = 0; b < 2; b++) {
            *bus = both[b];
            for (const struct io_window *w = both[b]->windows; w; w = w->next) {
                if (n-- == 0)
                    return w;
            }
        }
    }
    return NULL;
}

static void save_and_load(struct test_machine *t)
{
    machine_lock(&t->m);
    devices_quiesce(&t->m);
    for (struct device *d = t->m.devices; d; d = d->next) {
        struct state_buf buf = {0};
        struct error *err = NULL;
        state_save(d->cls->state, d, &buf);
        if (state_load(d->cls->state, d, d->cls->size, buf.data, buf.len, &err) < 0) {
            log_line(LOG_ERROR, "%s", error_text(err));
            abort();
        }
        state_buf_free(&buf);
    }
    devices_resume(&t->m);
    machine_unlock(&t->m);
}

static void step(struct test_machine *t, struct input *in)
{
    uint8_t op = (uint8_t)take(in, 1);
    unsigned size = 1u << (op & 3);
    struct io_bus *bus;
    if (op == 0xdf) {
        save_and_load(t);
        return;
    }
    if (op >> 5 == 7) {
        test_machine_advance(t, take(in, 2) * 10000);
        return;
    }
    if (op >> 5 == 6) {
        uint64_t gpa = take(in, 2) * 8, v = take(in, 8);
        guest_write(t->m.memory, gpa, &v, sizeof(v));
        return;
    }
    const struct io_window *w = pick_window(t, take(in, 1), &bus);
    if (!w)
        return;
    uint64_t addr = w->base + take(in, 2) % w->size;
    size = bus == &t->m.ports ? MIN(size, 4u) : size;
    machine_lock(&t->m);
    if (op & 4)
        bus_read(bus, addr, size);
    else
        bus_write(bus, addr, size, take(in, size));
    machine_unlock(&t->m);
}

static void start_anew(struct test_machine *t)
{
    machine_lock(&t->m);
    memset(t->m.memory->region[0].host, 0, 65536 * 8);
    vm_clock_set(&t->m.clock, 1000000000);
    devices_reset(&t->m);
    pci_assign_resources(&t->m);
    machine_unlock(&t->m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct test_machine *t;
    struct input in = {data, size};
    log_set_level(LOG_ERROR);
    if (!t)
        t = board();
    start_anew(t);
    while (in.len)
        step(t, &in);
    test_machine_run(t, 0); /* what was posted */
    return 0;
}
