/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kicks and messages by eventfds, where the engine has doorbells and lines; virtio-rng is the device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include <cmocka.h>
#include <linux/virtio_pci.h>

#include "base/error.h"
#include "base/util.h"
#include "virtio_driver.h"

#define RNG     PCI_DEVFN(1, 0)
#define OTHER   PCI_DEVFN(2, 0)
#define ON      (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)
#define NOTIFY  0x3000 /* in BAR 4 */
#define PLACE   0xD4000000
#define PLACE_2 0xD5000000
#define BYTES   16

struct rng {
    struct test_machine *t;
    struct device *dev;
    struct drv d;
    struct drv_ring r;
};

/* The driver's side up to DRIVER_OK. */
static void rng_negotiate(struct rng *x, bool doorbells)
{
    *x = (struct rng){.t = pci_machine_new()};
    if (doorbells)
        test_machine_offer_doorbells(x->t);
    x->dev = pci_machine_add(x->t, "virtio-rng", NULL);
    drv_init(&x->d, x->t, x->dev, BIT(VIRTIO_F_VERSION_1));
    drv_ring_init(&x->r, &x->d, 0, 16);
}

static void rng_start(struct rng *x)
{
    rng_negotiate(x, true);
    drv_ok(&x->d);
    pump(x->t);
}

/* Adds a request and kicks; nothing has looked at it yet. */
static void request(struct rng *x)
{
    const struct drv_buf buf = {drv_alloc(&x->d, BYTES, 16), BYTES, true};
    assert_true(drv_add(&x->r, &buf, 1, false, x));
    drv_force_kick(&x->r);
}

static bool served(struct rng *x)
{
    uint32_t len;
    pump(x->t);
    return drv_get(&x->r, &len) == x;
}

static unsigned in_use(const struct test_eventfd *table)
{
    unsigned n = 0;
    for (unsigned i = 0; i < TEST_EVENTFDS; i++)
        n += table[i].addr != 0;
    return n;
}

static bool bell_at(struct rng *x, uint64_t bar)
{
    return test_eventfd_find(x->t->bell, bar + NOTIFY) != NULL;
}

static uint64_t bar_of(struct device *dev)
{
    return pci_bar_address((struct pci_device *)(void *)dev, 4);
}

/* The driver goes on at the BAR's new place. */
static void follow(struct rng *x, uint64_t from)
{
    x->r.notify += bar_of(x->dev) - from;
}

static void lifecycle(struct rng *x, void (*fn)(struct machine *m))
{
    machine_lock(&x->t->m);
    fn(&x->t->m);
    machine_unlock(&x->t->m);
}

static void test_kick(void **state)
{
    struct rng x;
    rng_start(&x);
    request(&x);
    assert_int_equal(x.t->rung, 1);
    assert_true(served(&x));
    request(&x);
    request(&x);
    assert_true(served(&x) && served(&x));
    assert_int_equal(x.t->rung, 3);
    test_machine_free(x.t);
}

/* A doorbell is there exactly while a kick means something. */
static void test_comes_and_goes(void **state)
{
    struct rng x;
    rng_negotiate(&x, true);
    uint64_t bar = bar_of(x.dev);
    assert_int_equal(in_use(x.t->bell), 0);
    drv_ok(&x.d);
    assert_true(bell_at(&x, bar));
    assert_int_equal(in_use(x.t->bell), 1);

    cfg_write(x.t, RNG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(in_use(x.t->bell), 0);
    request(&x);
    assert_false(served(&x));
    cfg_write(x.t, RNG, PCI_COMMAND, 2, ON);
    assert_true(bell_at(&x, bar));
    assert_true(served(&x));

    cfg_write(x.t, RNG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    assert_int_equal(in_use(x.t->bell), 0);
    cfg_write(x.t, RNG, PCI_COMMAND, 2, ON);
    assert_true(bell_at(&x, bar));

    /* A device that has given up. */
    struct virtio_device *v = (struct virtio_device *)(void *)x.dev;
    machine_lock(&x.t->m);
    virtio_broken(v, "on purpose");
    machine_unlock(&x.t->m);
    assert_int_equal(in_use(x.t->bell), 0);

    drv_set_status(&x.d, 0);
    drv_init(&x.d, x.t, x.dev, BIT(VIRTIO_F_VERSION_1));
    drv_ring_init(&x.r, &x.d, 0, 16);
    drv_ok(&x.d);
    assert_true(bell_at(&x, bar));
    drv_set_status(&x.d, 0);
    assert_int_equal(in_use(x.t->bell), 0);
    test_machine_free(x.t);
}

static void test_reset(void **state)
{
    struct rng x;
    rng_start(&x);
    request(&x);
    machine_lock(&x.t->m);
    device_reset(x.dev);
    machine_unlock(&x.t->m);
    assert_int_equal(in_use(x.t->bell), 0);
    assert_false(served(&x));
    test_machine_free(x.t);
}

/* What was rung at the old place counts, and the bell is at the new one. */
static void test_moves_with_the_bar(void **state)
{
    struct rng x;
    rng_start(&x);
    uint64_t before = bar_of(x.dev);
    request(&x);
    cfg_write(x.t, RNG, PCI_BASE_ADDRESS_4 + 4, 4, 0);
    cfg_write(x.t, RNG, PCI_BASE_ADDRESS_4, 4, PLACE);
    assert_int_equal(bar_of(x.dev), PLACE);
    assert_int_equal(in_use(x.t->bell), 1);
    assert_true(bell_at(&x, PLACE));
    assert_true(served(&x));
    follow(&x, before);
    request(&x);
    assert_int_equal(x.t->rung, 2);
    assert_true(served(&x));
    test_machine_free(x.t);
}

static void set_bar(struct test_machine *t, uint8_t devfn, uint64_t addr)
{
    cfg_write(t, devfn, PCI_BASE_ADDRESS_4 + 4, 4, (uint32_t)(addr >> 32));
    cfg_write(t, devfn, PCI_BASE_ADDRESS_4, 4, (uint32_t)addr);
}

/* A BAR that waited for the place of another has its doorbell there once that one has moved away. */
static void take_place(struct rng *stays, uint8_t stays_at, struct rng *leaves, uint8_t leaves_at)
{
    set_bar(stays->t, leaves_at, PLACE);
    set_bar(stays->t, stays_at, PLACE);
    assert_true(bell_at(stays, PLACE));
    assert_int_equal(in_use(stays->t->bell), 1);
    set_bar(stays->t, leaves_at, PLACE_2);
    assert_int_equal(bar_of(leaves->dev), PLACE_2);
    assert_int_equal(bar_of(stays->dev), PLACE);
    assert_true(bell_at(stays, PLACE) && bell_at(stays, PLACE_2));
    set_bar(stays->t, stays_at, 2 * (uint64_t)PLACE_2);
}

static void test_takes_the_place_of_another(void **state)
{
    struct rng x, y;
    rng_start(&x);
    y = (struct rng){.t = x.t, .dev = pci_machine_add(x.t, "virtio-rng", NULL)};
    cfg_write(x.t, RNG, PCI_COMMAND, 2, ON); /* as firmware does, that took it away */
    drv_init(&y.d, y.t, y.dev, BIT(VIRTIO_F_VERSION_1));
    y.d.next_free = TEST_RAM_SIZE / 2;
    drv_ring_init(&y.r, &y.d, 0, 16);
    drv_ok(&y.d);
    /* Whichever comes first on the bus. */
    take_place(&x, RNG, &y, OTHER);
    take_place(&y, OTHER, &x, RNG);
    test_machine_free(x.t);
}

/* What was rung before the machine stood still is served when it goes on, here or elsewhere. */
static void test_rung_before_quiesce(void **state)
{
    struct rng x;
    struct state_buf saved = {0};
    struct error *err = NULL;
    rng_start(&x);
    request(&x);
    lifecycle(&x, devices_quiesce);
    assert_int_equal(in_use(x.t->bell), 0);
    assert_false(served(&x));

    machine_lock(&x.t->m);
    state_save(x.dev->cls->state, x.dev, &saved);
    device_reset(x.dev);
    assert_true(state_load(x.dev->cls->state, x.dev, x.dev->cls->size, saved.data, saved.len, &err) > 0);
    machine_unlock(&x.t->m);
    assert_int_equal(in_use(x.t->bell), 0);
    assert_false(served(&x));
    lifecycle(&x, devices_resume);
    assert_true(bell_at(&x, bar_of(x.dev)));
    assert_true(served(&x));
    state_buf_free(&saved);
    test_machine_free(x.t);
}

static void test_refused_doorbell(void **state)
{
    struct rng x;
    rng_negotiate(&x, true);
    x.t->refuse_eventfds = true;
    drv_ok(&x.d);
    request(&x);
    assert_int_equal(x.t->rung, 0);
    assert_true(served(&x));
    test_machine_free(x.t);
}

/* --- lines --- */

#define VECTOR 1
#define ADDR   0xFEE03000
#define DATA   0x41

struct sender {
    struct test_machine *t;
    struct pci_device *pci;
    uint64_t entry; /* of VECTOR in the table */
    unsigned control;
};

static void sender_start(struct sender *s)
{
    *s = (struct sender){.t = pci_machine_new()};
    test_machine_offer_lines(s->t);
    s->pci = (struct pci_device *)(void *)pci_machine_add(s->t, "virtio-rng", NULL);
    cfg_write(s->t, RNG, PCI_COMMAND, 2, ON);
    s->control = s->pci->msix_cap + PCI_MSIX_FLAGS;
    cfg_write(s->t, RNG, s->control, 2, PCI_MSIX_FLAGS_ENABLE);
    s->entry = pci_bar_address(s->pci, 1) + VECTOR * PCI_MSIX_ENTRY_SIZE;
    test_write(s->t, s->entry, 8, ADDR);
    test_write(s->t, s->entry + PCI_MSIX_ENTRY_DATA, 4, DATA);
    test_write(s->t, s->entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 0);
}

static void notify(struct sender *s)
{
    machine_lock(&s->t->m);
    pci_msix_notify(s->pci, VECTOR);
    machine_unlock(&s->t->m);
}

/* How often the line with that message was signalled since the last time; -1: there is none. */
static int signalled(struct sender *s, uint64_t addr, uint32_t data)
{
    const struct test_eventfd *line = test_eventfd_find(s->t->line, addr);
    eventfd_t n = 0;
    if (!line || line->data != data)
        return -1;
    return eventfd_read(line->fd, &n) == 0 ? (int)n : 0;
}

static void test_line(void **state)
{
    struct sender s;
    sender_start(&s);
    assert_int_equal(in_use(s.t->line), 0);
    notify(&s);
    notify(&s);
    assert_int_equal(signalled(&s, ADDR, DATA), 2);
    assert_int_equal(s.t->line_set, 1);

    /* The entry changes: the same eventfd has another message. */
    int fd = test_eventfd_find(s.t->line, ADDR)->fd;
    test_write(s.t, s.entry, 4, ADDR + 0x1000);
    test_write(s.t, s.entry + PCI_MSIX_ENTRY_DATA, 4, DATA + 1);
    notify(&s);
    assert_int_equal(in_use(s.t->line), 1);
    assert_int_equal(signalled(&s, ADDR + 0x1000, DATA + 1), 1);
    assert_int_equal(test_eventfd_find(s.t->line, ADDR + 0x1000)->fd, fd);
    assert_int_equal(s.t->msi_count, 0);
    test_machine_free(s.t);
}

static void test_line_masked(void **state)
{
    struct sender s;
    sender_start(&s);
    notify(&s);
    assert_int_equal(signalled(&s, ADDR, DATA), 1);

    test_write(s.t, s.entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, PCI_MSIX_ENTRY_CTRL_MASKBIT);
    notify(&s);
    assert_int_equal(signalled(&s, ADDR, DATA), 0);
    assert_int_equal(s.pci->msix_pending[0], BIT(VECTOR));
    test_write(s.t, s.entry + PCI_MSIX_ENTRY_DATA, 4, DATA + 1);
    assert_int_equal(signalled(&s, ADDR, DATA), 0);
    test_write(s.t, s.entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 0);
    assert_int_equal(signalled(&s, ADDR, DATA + 1), 1);
    assert_int_equal(s.pci->msix_pending[0], 0);

    cfg_write(s.t, RNG, s.control, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    notify(&s);
    assert_int_equal(signalled(&s, ADDR, DATA + 1), 0);
    cfg_write(s.t, RNG, s.control, 2, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(signalled(&s, ADDR, DATA + 1), 1);

    cfg_write(s.t, RNG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    notify(&s);
    cfg_write(s.t, RNG, PCI_COMMAND, 2, ON);
    cfg_write(s.t, RNG, s.control, 2, 0);
    notify(&s);
    assert_int_equal(signalled(&s, ADDR, DATA + 1), 0);
    assert_int_equal(s.t->msi_count, 0);
    test_machine_free(s.t);
}

/* The message goes without; the engine is not asked again until it is another one. */
static void test_line_refused(void **state)
{
    struct sender s;
    sender_start(&s);
    s.t->refuse_eventfds = true;
    notify(&s);
    notify(&s);
    assert_int_equal(s.t->line_set, 1);
    assert_int_equal(s.t->msi_count, 2);
    assert_int_equal(s.t->msi[1].addr, ADDR);
    assert_int_equal(s.t->msi[1].data, DATA);
    s.t->refuse_eventfds = false;
    test_write(s.t, s.entry + PCI_MSIX_ENTRY_DATA, 4, DATA + 1);
    notify(&s);
    assert_int_equal(signalled(&s, ADDR, DATA + 1), 1);

    /* One that was set does not send the old message. */
    s.t->refuse_eventfds = true;
    test_write(s.t, s.entry + PCI_MSIX_ENTRY_DATA, 4, DATA);
    notify(&s);
    assert_int_equal(in_use(s.t->line), 0);
    assert_int_equal(s.t->msi_count, 3);
    test_machine_free(s.t);
}

/* The state of the processors is read after devices were quiesced: nothing may be under way. */
static void test_line_quiesced(void **state)
{
    struct sender s;
    sender_start(&s);
    notify(&s);
    machine_lock(&s.t->m);
    devices_quiesce(&s.t->m);
    machine_unlock(&s.t->m);
    assert_int_equal(in_use(s.t->line), 0);
    machine_lock(&s.t->m);
    devices_resume(&s.t->m);
    machine_unlock(&s.t->m);
    notify(&s);
    assert_int_equal(signalled(&s, ADDR, DATA), 1);
    test_machine_free(s.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kick),
        cmocka_unit_test(test_comes_and_goes),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_moves_with_the_bar),
        cmocka_unit_test(test_takes_the_place_of_another),
        cmocka_unit_test(test_rung_before_quiesce),
        cmocka_unit_test(test_refused_doorbell),
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_line_masked),
        cmocka_unit_test(test_line_refused),
        cmocka_unit_test(test_line_quiesced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
