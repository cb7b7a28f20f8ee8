/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine for device tests: see testmachine.h. */
#include "testmachine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/util.h"
#include "device/pci/pci.h"
#include "device/platform/i8259.h"
#include "device/platform/ioapic.h"

#define START_NS 1000000000u

static struct test_machine *of(struct machine *m)
{
    return CONTAINER_OF(m, struct test_machine, m);
}

static void set_gsi(struct machine *m, unsigned gsi, bool level)
{
    struct test_machine *t = of(m);
    assert_true(gsi < TEST_GSIS);
    t->gsi_rises[gsi] += level && !t->gsi_level[gsi];
    t->gsi_level[gsi] = level;
    if (m->pic)
        i8259_set_irq(m->pic, gsi, level);
    if (m->ioapic)
        ioapic_set_gsi(m->ioapic, gsi, level);
}

static void send_msi(struct machine *m, uint64_t addr, uint32_t data)
{
    struct test_machine *t = of(m);
    t->msi[t->msi_count++ % TEST_MSI_MAX] = (struct test_msi){addr, data};
}

static void event(struct machine *m, enum machine_event event, uint32_t value)
{
    struct test_machine *t = of(m);
    t->event_count++;
    t->last_event = event;
    t->last_event_value = value;
}

static void written(void *opaque, uint64_t gpa, uint64_t len)
{
    struct test_machine *t = opaque;
    t->written_count++;
}

struct test_machine *test_machine_new(void)
{
    struct test_machine *t = calloc(1, sizeof(*t));
    assert_non_null(t);
    struct machine *m = &t->m;
    struct error *err = NULL;
    pthread_mutex_init(&m->lock, NULL);
    m->loop = loop_new(&m->lock, &err);
    m->memory = m->loop ? guest_memory_new(TEST_RAM_SIZE, &err) : NULL;
    if (!m->memory)
        fail_msg("%s", error_text(err));
    m->memory->written = written;
    m->memory->written_opaque = t;
    vm_clock_init(&m->clock, m->loop);
    vm_clock_set(&m->clock, START_NS);
    bus_init(&m->ports, 0x10000);
    bus_init(&m->mmio, BIT(52));
    m->cpu_count = 1;
    m->set_gsi = set_gsi;
    m->send_msi = send_msi;
    m->event = event;
    if (getenv("RUCHE_TEST_DOORBELLS"))
        test_machine_offer_doorbells(t);
    return t;
}

void test_machine_free(struct test_machine *t)
{
    if (!t)
        return;
    struct machine *m = &t->m;
    machine_lock(m);
    while (m->devices) {
        struct device *last = m->devices;
        while (last->next)
            last = last->next;
        device_free(last);
    }
    machine_unlock(m);
    for (unsigned i = 0; i < TEST_EVENTFDS; i++)
        assert_true(!t->bell[i].addr && !t->line[i].addr);
    assert_null(m->ports.windows);
    assert_null(m->mmio.windows);
    assert_null(m->clock.timers);
    vm_clock_destroy(&m->clock);
    loop_free(m->loop);
    guest_memory_free(m->memory);
    pthread_mutex_destroy(&m->lock);
    free(t);
}

static void set_props(struct device *dev, const char *props)
{
    char *text = strdup(props ? props : ""), *rest = text;
    assert_non_null(text);
    for (char *name; (name = strsep(&rest, ",")) && *name;) {
        char *value = strchr(name, '=');
        assert_non_null(value);
        *value++ = '\0';
        struct error *err = NULL;
        if (!device_set(dev, name, value, &err))
            fail_msg("%s", error_text(err));
    }
    free(text);
}

struct device *test_machine_add(struct test_machine *t, const char *cls, const char *props)
{
    struct error *err = NULL;
    machine_lock(&t->m);
    struct device *dev = device_new(&t->m, cls, NULL, &err);
    if (!dev)
        fail_msg("%s", error_text(err));
    set_props(dev, props);
    if (!device_realize(dev, &err))
        fail_msg("%s", error_text(err));
    machine_unlock(&t->m);
    return dev;
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

const char *test_machine_prepare(struct test_machine *t, const char *cls)
{
    bool pci = starts_with(cls, "virtio-") || strcmp(cls, "ich9-lpc") == 0;
    if (pci && !t->m.pci)
        test_machine_add(t, "q35-host", NULL);
    if (strcmp(cls, "virtio-blk") == 0)
        return "file=/proc/self/exe,format=raw,readonly=on"; /* any file will do */
    bool event = strcmp(cls, "vmgenid") == 0;
    if (event && !t->m.pm)
        test_machine_add(t, "ich9-pm", NULL);
    if (event)
        return "guid=00112233-4455-6677-8899-aabbccddeeff";
    return NULL;
}

/* Time. */

static struct vm_timer *first_due(struct vm_clock *clock, uint64_t until)
{
    struct vm_timer *first = NULL;
    for (struct vm_timer *t = clock->timers; t; t = t->next) {
        if (t->deadline <= until && (!first || t->deadline < first->deadline))
            first = t;
    }
    return first;
}

unsigned test_machine_advance(struct test_machine *t, uint64_t ns)
{
    struct vm_clock *clock = &t->m.clock;
    uint64_t until = vm_clock_now(clock) + ns;
    unsigned fired = 0;
    machine_lock(&t->m);
    for (struct vm_timer *timer; (timer = first_due(clock, until)); fired++) {
        vm_clock_set(clock, MAX(timer->deadline, vm_clock_now(clock)));
        vm_timer_cancel(timer);
        timer->fn(timer->opaque);
    }
    vm_clock_set(clock, until);
    machine_unlock(&t->m);
    return fired;
}

static void stop(void *opaque)
{
    loop_stop(opaque);
}

void test_machine_run(struct test_machine *t, unsigned ms)
{
    struct loop_timer timer;
    loop_timer_init(&timer, t->m.loop, stop, t->m.loop);
    loop_timer_arm(&timer, monotonic_ns() + ms * 1000000ull);
    loop_run(t->m.loop);
}

/* Accesses. */

uint32_t test_in(struct test_machine *t, uint16_t port, unsigned size)
{
    machine_lock(&t->m);
    uint32_t v = (uint32_t)bus_read(&t->m.ports, port, size);
    machine_unlock(&t->m);
    return v;
}

void test_out(struct test_machine *t, uint16_t port, unsigned size, uint32_t value)
{
    machine_lock(&t->m);
    bus_write(&t->m.ports, port, size, value);
    machine_unlock(&t->m);
}

uint64_t test_read(struct test_machine *t, uint64_t gpa, unsigned size)
{
    machine_lock(&t->m);
    uint64_t v = bus_read(&t->m.mmio, gpa, size);
    machine_unlock(&t->m);
    return v;
}

void test_write(struct test_machine *t, uint64_t gpa, unsigned size, uint64_t value)
{
    const struct test_eventfd *bell = test_eventfd_find(t->bell, gpa);
    if (bell) {
        t->rung++;
        assert_int_equal(eventfd_write(bell->fd, 1), 0);
        return;
    }
    machine_lock(&t->m);
    bus_write(&t->m.mmio, gpa, size, value);
    machine_unlock(&t->m);
}

/* Randomness. */

uint64_t test_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

uint64_t test_seed(void)
{
    const char *given = getenv("RUCHE_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : monotonic_ns() * 0x9e3779b97f4a7c15ull;
    seed |= !seed;
    printf("RUCHE_TEST_SEED=0x%llx\n", (unsigned long long)seed);
    return seed;
}

static unsigned window_count(const struct io_bus *bus)
{
    unsigned n = 0;
    for (const struct io_window *w = bus->windows; w; w = w->next)
        n++;
    return n;
}

/* Values that registers care about: single bits, all ones, small numbers, addresses in RAM, anything. */
static uint64_t random_value(uint64_t *rng)
{
    uint64_t r = test_random(rng);
    switch (test_random(rng) % 6) {
    case 0:
        return BIT(r % 64);
    case 1:
        return UINT64_MAX;
    case 2:
        return r % 8;
    case 3:
        return r % TEST_RAM_SIZE;
    case 4:
        return r % 256;
    default:
        return r;
    }
}

void test_random_access(struct test_machine *t, uint64_t *rng)
{
    unsigned ports = window_count(&t->m.ports), mmio = window_count(&t->m.mmio);
    if (ports + mmio == 0)
        return;
    unsigned n = (unsigned)(test_random(rng) % (ports + mmio));
    struct io_bus *bus = n < ports ? &t->m.ports : &t->m.mmio;
    const struct io_window *w = bus->windows;
    for (n = n < ports ? n : n - ports; n; n--)
        w = w->next;
    /* Registers crowd at the start of a large window. */
    uint64_t span = test_random(rng) % 2 ? w->size : MIN(w->size, 1024u);
    uint64_t addr = w->base + test_random(rng) % span;
    unsigned size = 1u << test_random(rng) % (bus == &t->m.ports ? 3 : 4);
    if (test_random(rng) % 4)
        addr -= addr % size;
    machine_lock(&t->m);
    if (test_random(rng) % 3)
        bus_write(bus, addr, size, random_value(rng));
    else
        bus_read(bus, addr, size);
    machine_unlock(&t->m);
}
