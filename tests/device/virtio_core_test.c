/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtio core and its PCI transport, seen by a driver; virtio-rng as the device that is used for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <linux/virtio_pci.h>

#include "base/error.h"
#include "base/util.h"
#include "virtio_driver.h"

#define RNG    PCI_DEVFN(1, 0)
#define V1     BIT(VIRTIO_F_VERSION_1)
#define BYTES  256
#define STATUS VIRTIO_PCI_COMMON_STATUS

struct rng {
    struct test_machine *t;
    struct device *dev;
    struct drv d;
    struct drv_ring r;
    uint64_t gpa;
};

static void rng_start(struct rng *x, const char *props, uint64_t features)
{
    *x = (struct rng){.t = pci_machine_new()};
    x->dev = pci_machine_add(x->t, "virtio-rng", props);
    drv_init(&x->d, x->t, x->dev, features | V1);
    drv_ring_init(&x->r, &x->d, 0, 16);
    x->gpa = drv_alloc(&x->d, BYTES, 16);
    drv_ok(&x->d);
    pump(x->t);
}

static bool is_zero(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i])
            return false;
    return true;
}

/* Asks for random bytes; the length given. */
static uint32_t ask(struct rng *x)
{
    const struct drv_buf buf = {x->gpa, BYTES, true};
    uint8_t *p = drv_ptr(&x->d, x->gpa, BYTES);
    uint32_t len = 0;
    memset(p, 0, BYTES);
    assert_true(drv_add(&x->r, &buf, 1, false, x));
    drv_kick(&x->r);
    pump(x->t);
    if (drv_get(&x->r, &len))
        assert_false(is_zero(p, len));
    return len;
}

static void test_identity(void **state)
{
    struct test_machine *t = pci_machine_new();
    static const struct {
        const char *name;
        uint16_t id;
        uint16_t class;
    } expected[] = {
        {"virtio-rng", 0x1044, 0x00FF}, {"virtio-console", 0x1043, 0x0780}, {"virtio-net", 0x1041, 0x0200}};
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
        pci_machine_add(t, expected[i].name, NULL);
        uint8_t devfn = PCI_DEVFN(1 + i, 0);
        assert_int_equal(cfg_read(t, devfn, PCI_VENDOR_ID, 2), 0x1AF4);
        assert_int_equal(cfg_read(t, devfn, PCI_DEVICE_ID, 2), expected[i].id);
        assert_int_equal(cfg_read(t, devfn, PCI_CLASS_DEVICE, 2), expected[i].class);
        assert_int_equal(cfg_read(t, devfn, PCI_REVISION_ID, 1), 1);
        assert_int_equal(cfg_read(t, devfn, PCI_INTERRUPT_PIN, 1), 1);
        assert_int_equal(cfg_read(t, devfn, PCI_SUBSYSTEM_VENDOR_ID, 2), 0x1AF4);
    }
    test_machine_free(t);
}

static void test_negotiation(void **state)
{
    struct rng x;
    rng_start(&x, NULL, 0);
    struct drv *d = &x.d;
    const uint8_t before = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
    static const uint64_t refused[] = {0, BIT(VIRTIO_RING_F_EVENT_IDX), V1 | BIT(60), V1 | BIT(0),
                                       V1 | BIT(VIRTIO_F_RING_PACKED)};
    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        drv_set_status(d, 0);
        assert_int_equal(drv_status(d), 0);
        drv_set_status(d, before);
        for (uint32_t half = 0; half < 2; half++) {
            drv_write(d, d->common + VIRTIO_PCI_COMMON_GFSELECT, 4, half);
            drv_write(d, d->common + VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(refused[i] >> (32 * half)));
        }
        drv_set_status(d, before | VIRTIO_CONFIG_S_FEATURES_OK);
        assert_int_equal(drv_status(d), before);
        /* Nothing runs without that. */
        drv_set_status(d, before | VIRTIO_CONFIG_S_DRIVER_OK);
        struct virtio_device *v = (struct virtio_device *)(void *)x.dev;
        assert_false(virtio_running(v));
    }
    /* No features past 63; bits cannot be taken back; the choice is final. */
    drv_write(d, d->common + VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
    assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_DF, 4), 0);
    drv_init(d, x.t, x.dev, V1);
    drv_set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    assert_int_equal(drv_status(d), before | VIRTIO_CONFIG_S_FEATURES_OK);
    drv_write(d, d->common + VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    drv_write(d, d->common + VIRTIO_PCI_COMMON_GF, 4, 0xFFFFFFFF);
    assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_GF, 4), 0);
    test_machine_free(x.t);
}

static void test_packed_is_offered_on_request(void **state)
{
    struct rng x;
    rng_start(&x, "packed=on", BIT(VIRTIO_F_RING_PACKED));
    assert_int_equal(ask(&x), BYTES);
    test_machine_free(x.t);
}

static void test_common_registers(void **state)
{
    struct rng x;
    rng_start(&x, NULL, 0);
    struct drv *d = &x.d;
    uint64_t c = d->common;
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_NUMQ, 2), 1);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_DESCLO, 8), x.r.desc);
    /* An enabled queue is settled. */
    drv_write(d, c + VIRTIO_PCI_COMMON_Q_SIZE, 2, 32);
    drv_write(d, c + VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0x1230);
    drv_write(d, c + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_DESCLO, 8), x.r.desc);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
    /* A vector that does not exist reads back as none. */
    drv_write(d, c + VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xFFFF);
    drv_write(d, c + VIRTIO_PCI_COMMON_MSIX, 2, 77);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_MSIX, 2), 0xFFFF);
    /* Fields are written with their own width only. */
    drv_write(d, c + STATUS, 4, 0);
    assert_int_not_equal(drv_status(d), 0);
    /* A queue that does not exist. */
    drv_write(d, c + VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
    drv_write(d, c + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    drv_write(d, d->notify + 4, 2, 1);
    drv_write(d, d->notify + 0xFFC, 4, 1000);
    /* Reset forgets it all. */
    drv_set_status(d, 0);
    drv_write(d, c + VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
    assert_int_equal(drv_read(d, c + VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xFFFF);
    test_machine_free(x.t);
}

static unsigned find_cap(struct test_machine *t, uint8_t type)
{
    unsigned at = cfg_read(t, RNG, PCI_CAPABILITY_LIST, 1);
    while (at && !(cfg_read(t, RNG, at, 1) == PCI_CAP_ID_VNDR && cfg_read(t, RNG, at + 3, 1) == type))
        at = cfg_read(t, RNG, at + 1, 1);
    assert_int_not_equal(at, 0);
    return at;
}

/* The structures through configuration space, as firmware without memory decoding reaches them. */
static void test_config_window(void **state)
{
    struct rng x;
    rng_start(&x, NULL, 0);
    unsigned cap = find_cap(x.t, VIRTIO_PCI_CAP_PCI_CFG);
    cfg_write(x.t, RNG, cap + 4, 1, 4);
    cfg_write(x.t, RNG, cap + 8, 4, VIRTIO_PCI_COMMON_NUMQ);
    cfg_write(x.t, RNG, cap + 12, 4, 2);
    assert_int_equal(cfg_read(x.t, RNG, cap + 16, 2), 1);
    cfg_write(x.t, RNG, cap + 8, 4, STATUS);
    cfg_write(x.t, RNG, cap + 12, 4, 1);
    assert_int_equal(cfg_read(x.t, RNG, cap + 16, 1), drv_status(&x.d));
    cfg_write(x.t, RNG, cap + 16, 1, 0);
    assert_int_equal(drv_status(&x.d), 0);
    /* Places and widths that are not valid do nothing. */
    static const struct {
        uint32_t bar, offset, length;
    } bad[] = {{1, 0, 4}, {4, 0x4000, 4}, {4, 0xFFFFFFFC, 4}, {4, 0, 0},
               {4, 0, 3}, {4, 1, 4},      {4, 0, 0x80000000}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        cfg_write(x.t, RNG, cap + 4, 1, bad[i].bar);
        cfg_write(x.t, RNG, cap + 8, 4, bad[i].offset);
        cfg_write(x.t, RNG, cap + 12, 4, bad[i].length);
        cfg_write(x.t, RNG, cap + 16, 4, 0xFFFFFFFF);
        cfg_read(x.t, RNG, cap + 16, 4);
    }
    assert_int_equal(drv_status(&x.d), 0);
    test_machine_free(x.t);
}

static void test_intx(void **state)
{
    struct rng x;
    rng_start(&x, NULL, 0);
    unsigned gsi = pci_intx_gsi(RNG, 1);
    const struct pci_device *pci = (struct pci_device *)(void *)x.dev;
    cfg_write(x.t, RNG, pci->msix_cap + PCI_MSIX_FLAGS, 2, 0);
    unsigned messages = x.t->msi_count;
    assert_int_equal(ask(&x), BYTES);
    assert_int_equal(x.t->msi_count, messages);
    assert_true(x.t->gsi_level[gsi]);
    assert_int_equal(drv_read(&x.d, x.d.isr, 1), 1);
    assert_false(x.t->gsi_level[gsi]);
    assert_int_equal(drv_read(&x.d, x.d.isr, 1), 0);
    assert_int_equal(ask(&x), BYTES);
    assert_true(x.t->gsi_level[gsi]);
    drv_set_status(&x.d, 0);
    assert_false(x.t->gsi_level[gsi]);
    test_machine_free(x.t);
}

/* Without bus mastering the device leaves memory alone; what waits is seen once it is allowed. */
static void test_bus_master(void **state)
{
    struct rng x;
    rng_start(&x, NULL, 0);
    uint32_t len;
    cfg_write(x.t, RNG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(ask(&x), 0);
    cfg_write(x.t, RNG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    pump(x.t);
    assert_ptr_equal(drv_get(&x.r, &len), &x);
    assert_int_equal(len, BYTES);
    test_machine_free(x.t);
}

/* Drivers that fill and kick their queues before DRIVER_OK, and then wait. */
static void test_early_kick(void **state)
{
    struct rng x = {.t = pci_machine_new()};
    uint32_t len;
    x.dev = pci_machine_add(x.t, "virtio-rng", NULL);
    drv_init(&x.d, x.t, x.dev, V1);
    drv_ring_init(&x.r, &x.d, 0, 16);
    const struct drv_buf buf = {drv_alloc(&x.d, BYTES, 16), BYTES, true};
    assert_true(drv_add(&x.r, &buf, 1, false, &x));
    drv_force_kick(&x.r);
    pump(x.t);
    assert_null(drv_get(&x.r, &len));
    drv_ok(&x.d);
    pump(x.t);
    assert_ptr_equal(drv_get(&x.r, &len), &x);
    test_machine_free(x.t);
}

static void test_rng_rate(void **state)
{
    struct rng x;
    rng_start(&x, "rate=12800", 0); /* 128 bytes in 10 ms */
    assert_int_equal(ask(&x), 128);
    assert_int_equal(ask(&x), 0);
    uint32_t len;
    test_machine_advance(x.t, 20000000);
    pump(x.t);
    assert_ptr_equal(drv_get(&x.r, &len), &x);
    assert_int_equal(len, 128);
    test_machine_free(x.t);
}

/* Into another machine with the same memory: the rings go on where they were. */
static void run_migration(const char *props, uint64_t features)
{
    struct rng a, b = {.t = pci_machine_new()};
    rng_start(&a, props, features);
    for (unsigned i = 0; i < 37; i++)
        assert_int_equal(ask(&a), BYTES);
    b.dev = pci_machine_add(b.t, "virtio-rng", props);
    struct state_buf saved = {0};
    struct error *err = NULL;
    machine_lock(&a.t->m);
    devices_quiesce(&a.t->m);
    state_save(a.dev->cls->state, a.dev, &saved);
    machine_unlock(&a.t->m);
    memcpy(guest_ptr(b.t->m.memory, 0, TEST_RAM_SIZE, true), guest_ptr(a.t->m.memory, 0, TEST_RAM_SIZE, true),
           TEST_RAM_SIZE);
    machine_lock(&b.t->m);
    assert_true(state_load(b.dev->cls->state, b.dev, b.dev->cls->size, saved.data, saved.len, &err) > 0);
    devices_resume(&b.t->m);
    machine_unlock(&b.t->m);

    b.d = a.d;
    b.d.t = b.t;
    b.r = a.r;
    b.r.drv = &b.d;
    b.r.d = drv_ptr(&b.d, b.r.desc, 1);
    b.r.a = drv_ptr(&b.d, b.r.avail, 1);
    b.r.u = drv_ptr(&b.d, b.r.used, 1);
    b.gpa = a.gpa;
    for (unsigned i = 0; i < 37; i++) {
        unsigned before = b.t->msi_count;
        drv_enable_cb(&b.r);
        assert_int_equal(ask(&b), BYTES);
        assert_true(b.t->msi_count > before);
    }
    state_buf_free(&saved);
    test_machine_free(a.t);
    test_machine_free(b.t);
}

static void test_migration(void **state)
{
    run_migration(NULL, 0);
    run_migration(NULL, BIT(VIRTIO_RING_F_EVENT_IDX));
    run_migration("packed=on", BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_RING_F_EVENT_IDX));
}

/* A stopped device touches nothing, kicked or not, and goes on by itself. */
static void test_quiesce(void **state)
{
    struct rng x;
    uint32_t len;
    rng_start(&x, NULL, 0);
    machine_lock(&x.t->m);
    devices_quiesce(&x.t->m);
    machine_unlock(&x.t->m);
    assert_int_equal(ask(&x), 0);
    machine_lock(&x.t->m);
    devices_resume(&x.t->m);
    machine_unlock(&x.t->m);
    pump(x.t);
    assert_ptr_equal(drv_get(&x.r, &len), &x);
    test_machine_free(x.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_negotiation),
        cmocka_unit_test(test_packed_is_offered_on_request),
        cmocka_unit_test(test_common_registers),
        cmocka_unit_test(test_config_window),
        cmocka_unit_test(test_intx),
        cmocka_unit_test(test_bus_master),
        cmocka_unit_test(test_early_kick),
        cmocka_unit_test(test_rng_rate),
        cmocka_unit_test(test_migration),
        cmocka_unit_test(test_quiesce),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
