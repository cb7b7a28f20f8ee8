/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The PCI bus: configuration space, BARs, interrupts, what firmware would leave, saved state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/util.h"
#include "virtio_driver.h"

#define RNG PCI_DEVFN(1, 0)

/* A device of the test's own: I/O BAR 0, 32-bit memory BAR 1, 64-bit memory BAR 2, MSI. */
struct sample {
    struct pci_device pci;
    uint64_t last_offset, last_value;
};

static uint64_t sample_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0x5A;
}

static void sample_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct sample *s = opaque;
    s->last_offset = offset;
    s->last_value = value;
}

static char sample_id[] = "sample";

static void sample_init(struct sample *s, struct test_machine *t, char *addr)
{
    const struct pci_ids ids = {
        .vendor = 0x1234, .device = 0x5678, .class_code = 0xFF0000, .interrupt_pin = 2};
    const struct io_window ops = {.name = "sample", .read = sample_read, .write = sample_write, .opaque = s};
    *s = (struct sample){.pci.dev = {.machine = &t->m, .id = sample_id}, .pci.addr = addr};
    struct error *err = NULL;
    machine_lock(&t->m);
    assert_true(pci_device_init(&s->pci, &ids, &err));
    pci_register_bar(&s->pci, 0, PCI_BAR_IO, false, 32, &ops);
    pci_register_bar(&s->pci, 1, PCI_BAR_MEM32, false, 0x1000, &ops);
    pci_register_bar(&s->pci, 2, PCI_BAR_MEM64, true, 0x10000, &ops);
    pci_msi_init(&s->pci);
    pci_device_reset(&s->pci);
    machine_unlock(&t->m);
}

static void sample_exit(struct sample *s, struct test_machine *t)
{
    machine_lock(&t->m);
    pci_device_exit(&s->pci);
    machine_unlock(&t->m);
}

static void test_config_space(void **state)
{
    struct test_machine *t = pci_machine_new();
    pci_machine_add(t, "virtio-rng", NULL);
    assert_int_equal(cfg_read(t, PCI_HOST_DEVFN, 0, 4), 0x29C08086);
    assert_int_equal(cfg_read(t, PCI_LPC_DEVFN, 0, 4), 0x29188086);
    assert_int_equal(cfg_read(t, PCI_LPC_DEVFN, PCI_CLASS_DEVICE, 2), 0x0601);
    assert_int_equal(cfg_read(t, PCI_LPC_DEVFN, 0x40, 4), 0x601);
    assert_int_equal(cfg_read(t, RNG, 0, 4), 0x10441AF4);
    assert_int_equal(cfg_read(t, RNG, PCI_DEVICE_ID + 1, 1), 0x10);
    assert_int_equal(cfg_read(t, RNG, PCI_REVISION_ID, 1), 1);
    assert_int_equal(cfg_read(t, PCI_DEVFN(2, 0), 0, 4), 0xFFFFFFFF);
    assert_int_equal(cfg_read(t, PCI_DEVFN(2, 0), 2, 2), 0xFFFF);

    /* The same through ECAM; other buses and registers past 256 are empty. */
    assert_int_equal(test_read(t, PCI_ECAM_BASE + (RNG << 12), 4), 0x10441AF4);
    assert_int_equal(test_read(t, PCI_ECAM_BASE + (RNG << 12) + 2, 2), 0x1044);
    assert_int_equal(test_read(t, PCI_ECAM_BASE + (RNG << 12) + 0x100, 4), 0xFFFFFFFF);
    assert_int_equal(test_read(t, PCI_ECAM_BASE + (1u << 20), 4), 0xFFFFFFFF);
    test_write(t, PCI_ECAM_BASE + (RNG << 12) + PCI_INTERRUPT_LINE, 1, 7);
    assert_int_equal(cfg_read(t, RNG, PCI_INTERRUPT_LINE, 1), 7);

    /* Read-only registers stay; an address without the enable bit means nothing. */
    cfg_write(t, RNG, 0, 4, 0);
    assert_int_equal(cfg_read(t, RNG, 0, 4), 0x10441AF4);
    cfg_write(t, RNG, PCI_INTERRUPT_PIN, 1, 3);
    assert_int_equal(cfg_read(t, RNG, PCI_INTERRUPT_PIN, 1), 1);
    test_out(t, 0xCF8, 4, (uint32_t)RNG << 8);
    assert_int_equal(test_in(t, 0xCFC, 4), 0xFFFFFFFF);
    test_out(t, 0xCF8, 4, 0x80000000u | (uint32_t)RNG << 8);
    test_out(t, 0xCF8, 1, 0xFF); /* no address: too narrow */
    assert_int_equal(test_in(t, 0xCF8, 4), 0x80000000u | (uint32_t)RNG << 8);
    assert_int_equal(test_in(t, 0xCFC, 4), 0x10441AF4);
    test_machine_free(t);
}

static void test_addresses(void **state)
{
    struct test_machine *t = pci_machine_new();
    struct error *err = NULL;
    struct sample s[2];
    char at[] = "5.0", second[] = "5.3";
    sample_init(&s[0], t, at);
    assert_int_equal(cfg_read(t, PCI_DEVFN(5, 0), PCI_HEADER_TYPE, 1), 0);
    sample_init(&s[1], t, second);
    assert_int_equal(cfg_read(t, PCI_DEVFN(5, 0), PCI_HEADER_TYPE, 1), 0x80);
    assert_int_equal(cfg_read(t, PCI_DEVFN(5, 3), 0, 4), 0x56781234);

    static const char *const bad[] = {"5.3", "1f", "20", "5.8", "x", "5.", "5.1z", ""};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        machine_lock(&t->m);
        struct device *dev = device_new(&t->m, "virtio-rng", NULL, &err);
        assert_true(device_set(dev, "addr", bad[i], &err));
        assert_false(device_realize(dev, &err));
        machine_unlock(&t->m);
        assert_non_null(err);
        error_free(err);
        err = NULL;
    }
    sample_exit(&s[1], t);
    assert_int_equal(cfg_read(t, PCI_DEVFN(5, 0), PCI_HEADER_TYPE, 1), 0);
    sample_exit(&s[0], t);
    test_machine_free(t);
}

static uint64_t size_bar(struct test_machine *t, uint8_t devfn, unsigned bar, uint64_t *flags)
{
    unsigned reg = PCI_BASE_ADDRESS_0 + 4 * bar;
    uint32_t old = cfg_read(t, devfn, reg, 4);
    cfg_write(t, devfn, reg, 4, 0xFFFFFFFF);
    uint32_t mask = cfg_read(t, devfn, reg, 4);
    cfg_write(t, devfn, reg, 4, old);
    *flags = mask & 15;
    uint64_t wide = mask & 1 ? mask & ~3u : mask & ~15u;
    if ((mask & 7) == 4) {
        cfg_write(t, devfn, reg + 4, 4, 0xFFFFFFFF);
        wide |= (uint64_t)cfg_read(t, devfn, reg + 4, 4) << 32;
        cfg_write(t, devfn, reg + 4, 4, 0);
    } else {
        wide |= (uint64_t)UINT32_MAX << 32;
    }
    return ~wide + 1;
}

static void test_bar_sizing_and_moving(void **state)
{
    struct test_machine *t = pci_machine_new();
    struct sample s;
    uint64_t flags;
    char at[] = "4";
    const uint8_t devfn = PCI_DEVFN(4, 0);
    sample_init(&s, t, at);
    assert_int_equal(size_bar(t, devfn, 0, &flags), 32);
    assert_int_equal(flags, 1);
    assert_int_equal(size_bar(t, devfn, 1, &flags), 0x1000);
    assert_int_equal(flags, 0);
    assert_int_equal(size_bar(t, devfn, 2, &flags), 0x10000);
    assert_int_equal(flags, 0xC);
    assert_int_equal(cfg_read(t, devfn, PCI_BASE_ADDRESS_4, 4), 0);

    /* Nothing decodes before the command register says so. */
    cfg_write(t, devfn, PCI_BASE_ADDRESS_1, 4, 0xD0000000);
    cfg_write(t, devfn, PCI_BASE_ADDRESS_0, 4, 0xD000);
    assert_int_equal(test_read(t, 0xD0000000, 1), 0xFF);
    cfg_write(t, devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(test_read(t, 0xD0000000, 1), 0x5A);
    assert_int_equal(test_in(t, 0xD000, 1), 0xFF);
    cfg_write(t, devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
    assert_int_equal(test_in(t, 0xD000, 1), 0x5A);
    test_write(t, 0xD0000010, 4, 0xABCD);
    assert_int_equal(s.last_offset, 0x10);
    assert_int_equal(s.last_value, 0xABCD);

    /* Moved while decoding, also above 4 GiB. */
    cfg_write(t, devfn, PCI_BASE_ADDRESS_1, 4, 0xD1000000);
    assert_int_equal(test_read(t, 0xD0000000, 1), 0xFF);
    assert_int_equal(test_read(t, 0xD1000000, 1), 0x5A);
    cfg_write(t, devfn, PCI_BASE_ADDRESS_2, 4, 0x20000);
    cfg_write(t, devfn, PCI_BASE_ADDRESS_3, 4, 0x80);
    assert_int_equal(test_read(t, 0x8000020000, 1), 0x5A);
    cfg_write(t, devfn, PCI_COMMAND, 2, 0);
    assert_int_equal(test_read(t, 0x8000020000, 1), 0xFF);
    assert_int_equal(test_in(t, 0xD000, 1), 0xFF);
    sample_exit(&s, t);
    test_machine_free(t);
}

static void test_bogus_bars(void **state)
{
    struct test_machine *t = pci_machine_new();
    struct sample a, b;
    char at_a[] = "4", at_b[] = "5";
    const uint8_t da = PCI_DEVFN(4, 0), db = PCI_DEVFN(5, 0);
    sample_init(&a, t, at_a);
    sample_init(&b, t, at_b);
    cfg_write(t, da, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
    cfg_write(t, db, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);

    /* On ECAM, at the very end, at 0, past 2^52: does not decode, the others go on. */
    cfg_write(t, da, PCI_BASE_ADDRESS_1, 4, PCI_ECAM_BASE);
    assert_int_equal(test_read(t, PCI_ECAM_BASE, 4), 0x29C08086);
    cfg_write(t, da, PCI_BASE_ADDRESS_1, 4, 0xFFFFFFFF);
    assert_int_equal(test_read(t, 0xFFFFF000, 1), 0xFF);
    cfg_write(t, da, PCI_BASE_ADDRESS_1, 4, 0);
    assert_int_equal(test_read(t, 0, 1), 0xFF);
    cfg_write(t, da, PCI_BASE_ADDRESS_2, 4, 0xFFFF0000);
    cfg_write(t, da, PCI_BASE_ADDRESS_3, 4, 0xFFFFFFFF);
    assert_int_equal(pci_bar_address(&a.pci, 2), 0);
    cfg_write(t, da, PCI_BASE_ADDRESS_0, 4, 0xFFE0);
    assert_int_equal(test_in(t, 0xFFE0, 1), 0x5A);
    cfg_write(t, da, PCI_BASE_ADDRESS_0, 4, 0x10000);
    assert_int_equal(test_in(t, 0xFFE0, 1), 0xFF);

    /* Over another BAR: the first stays; when it goes away, the second takes the place. */
    cfg_write(t, da, PCI_BASE_ADDRESS_1, 4, 0xD0000000);
    cfg_write(t, db, PCI_BASE_ADDRESS_1, 4, 0xD0000000);
    test_write(t, 0xD0000008, 4, 1);
    assert_int_equal(a.last_value, 1);
    assert_int_equal(b.last_value, 0);
    cfg_write(t, da, PCI_BASE_ADDRESS_1, 4, 0xD2000000);
    test_write(t, 0xD0000008, 4, 2);
    assert_int_equal(a.last_value, 1);
    assert_int_equal(b.last_value, 2);

    /* Over RAM: memory stays memory for devices and, as the engine looks there first, for the guest. */
    cfg_write(t, db, PCI_BASE_ADDRESS_1, 4, 0x100000);
    uint32_t v = 0x12345678, back = 0;
    assert_true(guest_write(t->m.memory, 0x100000, &v, 4));
    assert_true(guest_read(t->m.memory, 0x100000, &back, 4));
    assert_int_equal(back, v);
    sample_exit(&a, t);
    sample_exit(&b, t);
    test_machine_free(t);
}

static void test_assigned_resources(void **state)
{
    struct test_machine *t = pci_machine_new();
    struct sample s;
    char at[] = "9";
    sample_init(&s, t, at);
    for (int i = 0; i < 12; i++)
        pci_machine_add(t, "virtio-rng", NULL);
    uint64_t start[64], size[64];
    unsigned n = 0;
    for (unsigned d = 0; d < 256; d++) {
        const struct pci_device *pci = t->m.pci->device[d];
        for (unsigned i = 0; pci && i < PCI_BAR_COUNT; i++) {
            if (pci->bar[i].type == PCI_BAR_NONE)
                continue;
            uint64_t addr = pci_bar_address(pci, i);
            assert_int_equal(addr % pci->bar[i].size, 0);
            if (pci->bar[i].type == PCI_BAR_IO) {
                assert_in_range(addr, PCI_PORT_BASE, PCI_PORT_END - pci->bar[i].size);
                continue;
            }
            assert_in_range(addr, PCI_MMIO32_BASE, PCI_MMIO32_END - pci->bar[i].size);
            for (unsigned k = 0; k < n; k++)
                assert_true(addr >= start[k] + size[k] || start[k] >= addr + pci->bar[i].size);
            start[n] = addr;
            size[n++] = pci->bar[i].size;
        }
    }
    assert_int_equal(n, 2 + 2 * 12);
    assert_int_equal(cfg_read(t, RNG, PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_SERR);
    assert_int_equal(cfg_read(t, RNG, PCI_INTERRUPT_LINE, 1), 10);
    assert_int_equal(cfg_read(t, PCI_LPC_DEVFN, 0x60, 1), 10);
    assert_int_equal(cfg_read(t, PCI_LPC_DEVFN, 0x6B, 1), 11);
    sample_exit(&s, t);
    test_machine_free(t);
}

static void set_intx(struct test_machine *t, struct sample *s, bool level)
{
    machine_lock(&t->m);
    pci_set_intx(&s->pci, level);
    machine_unlock(&t->m);
}

static void test_intx(void **state)
{
    /* The swizzle: pin INTA# of slot 1 is PIRQF, INTB# of slot 3 is E; the chipset's own slots are not
     * rotated. */
    assert_int_equal(pci_intx_gsi(PCI_DEVFN(1, 0), 1), 21);
    assert_int_equal(pci_intx_gsi(PCI_DEVFN(3, 0), 2), 20);
    assert_int_equal(pci_intx_gsi(PCI_DEVFN(31, 2), 1), 16);

    struct test_machine *t = pci_machine_new();
    struct sample a, b;
    char at_a[] = "3", at_b[] = "7"; /* the same PIRQ, E, which the LPC bridge routes to 10 */
    sample_init(&a, t, at_a);
    sample_init(&b, t, at_b);
    set_intx(t, &a, true);
    assert_true(t->gsi_level[20] && t->gsi_level[10]);
    assert_int_equal(cfg_read(t, PCI_DEVFN(3, 0), PCI_STATUS, 2) & PCI_STATUS_INTERRUPT,
                     PCI_STATUS_INTERRUPT);
    set_intx(t, &b, true);
    set_intx(t, &a, false);
    assert_true(t->gsi_level[20] && t->gsi_level[10]); /* wired-or */
    assert_int_equal(t->gsi_rises[20], 1);
    cfg_write(t, PCI_DEVFN(7, 0), PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    assert_false(t->gsi_level[20] || t->gsi_level[10]);
    cfg_write(t, PCI_DEVFN(7, 0), PCI_COMMAND, 2, 0);
    assert_true(t->gsi_level[20] && t->gsi_level[10]);
    /* Rerouted while high: to 5, then nowhere; reserved lines are not driven. */
    cfg_write(t, PCI_LPC_DEVFN, 0x68, 1, 5);
    assert_true(t->gsi_level[5] && !t->gsi_level[10]);
    cfg_write(t, PCI_LPC_DEVFN, 0x68, 1, 0x85);
    assert_false(t->gsi_level[5]);
    cfg_write(t, PCI_LPC_DEVFN, 0x68, 1, 8);
    assert_false(t->gsi_level[8]);
    assert_true(t->gsi_level[20]);
    sample_exit(&b, t);
    assert_false(t->gsi_level[20]);
    sample_exit(&a, t);
    test_machine_free(t);
}

static void test_msi(void **state)
{
    struct test_machine *t = pci_machine_new();
    struct sample s;
    char at[] = "4";
    const uint8_t devfn = PCI_DEVFN(4, 0);
    sample_init(&s, t, at);
    unsigned cap = s.pci.msi_cap;
    assert_int_equal(cfg_read(t, devfn, PCI_CAPABILITY_LIST, 1), cap);
    assert_int_equal(cfg_read(t, devfn, cap, 1), PCI_CAP_ID_MSI);
    machine_lock(&t->m);
    assert_false(pci_msi_notify(&s.pci));
    machine_unlock(&t->m);
    cfg_write(t, devfn, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    cfg_write(t, devfn, cap + PCI_MSI_ADDRESS_LO, 4, 0xFEE01000);
    cfg_write(t, devfn, cap + PCI_MSI_ADDRESS_HI, 4, 1);
    cfg_write(t, devfn, cap + PCI_MSI_DATA_64, 2, 0x4031);
    cfg_write(t, devfn, cap + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE);
    machine_lock(&t->m);
    assert_true(pci_msi_notify(&s.pci));
    machine_unlock(&t->m);
    assert_int_equal(t->msi_count, 1);
    assert_int_equal(t->msi[0].addr, 0x1FEE01000);
    assert_int_equal(t->msi[0].data, 0x4031);
    sample_exit(&s, t);
    test_machine_free(t);
}

static void notify(struct test_machine *t, struct pci_device *pci, unsigned vector)
{
    machine_lock(&t->m);
    pci_msix_notify(pci, vector);
    machine_unlock(&t->m);
}

static void test_msix(void **state)
{
    struct test_machine *t = pci_machine_new();
    struct pci_device *pci = (struct pci_device *)(void *)pci_machine_add(t, "virtio-rng", NULL);
    unsigned control = pci->msix_cap + PCI_MSIX_FLAGS;
    uint64_t table = pci_bar_address(pci, 1), pba = table + 0x800;
    assert_int_equal(cfg_read(t, RNG, control, 2), 1); /* two vectors, disabled */
    cfg_write(t, RNG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    notify(t, pci, 0);
    assert_int_equal(t->msi_count, 0);
    assert_int_equal(test_read(t, table + PCI_MSIX_ENTRY_VECTOR_CTRL, 4), 1); /* masked at reset */

    cfg_write(t, RNG, control, 2, PCI_MSIX_FLAGS_ENABLE);
    test_write(t, table + 16, 8, 0x00000002FEE02000);
    test_write(t, table + 16 + PCI_MSIX_ENTRY_DATA, 4, 0x77);
    notify(t, pci, 1);
    assert_int_equal(t->msi_count, 0);
    assert_int_equal(test_read(t, pba, 8), 2);
    test_write(t, table + 16 + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 0);
    assert_int_equal(t->msi_count, 1);
    assert_int_equal(t->msi[0].addr, 0x2FEE02000);
    assert_int_equal(t->msi[0].data, 0x77);
    assert_int_equal(test_read(t, pba, 8), 0);
    notify(t, pci, 1);
    assert_int_equal(t->msi_count, 2);

    /* The function mask holds all back. */
    cfg_write(t, RNG, control, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    notify(t, pci, 1);
    assert_int_equal(t->msi_count, 2);
    cfg_write(t, RNG, control, 2, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(t->msi_count, 3);

    /* No such vector; odd accesses; no bus master. */
    notify(t, pci, 2);
    notify(t, pci, 5000);
    test_write(t, table + 17, 1, 0xFF);
    test_write(t, pba, 4, 0xFFFFFFFF);
    assert_int_equal(test_read(t, pba, 4), 0);
    cfg_write(t, RNG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    notify(t, pci, 1);
    assert_int_equal(t->msi_count, 3);
    test_machine_free(t);
}

static void test_saved_state(void **state)
{
    struct test_machine *t = pci_machine_new();
    struct device *dev = pci_machine_add(t, "virtio-rng", NULL);
    struct pci_device *pci = (struct pci_device *)(void *)dev;
    cfg_write(t, RNG, PCI_BASE_ADDRESS_4, 4, 0xD4000000);
    struct state_buf saved = {0};
    machine_lock(&t->m);
    state_save(dev->cls->state, dev, &saved);
    device_reset(dev);
    assert_int_equal(pci_bar_address(pci, 4), 0);
    struct error *err = NULL;
    assert_true(state_load(dev->cls->state, dev, dev->cls->size, saved.data, saved.len, &err) > 0);
    assert_int_equal(pci_bar_address(pci, 4), 0xD4000000);

    /* The vendor id in the stream (its first bytes are "f4 1a 44 10") is not for a stream to choose. */
    uint8_t *id = memmem(saved.data, saved.len, "\xF4\x1A\x44\x10", 4);
    assert_non_null(id);
    *id = 0;
    assert_true(state_load(dev->cls->state, dev, dev->cls->size, saved.data, saved.len, &err) < 0);
    assert_non_null(strstr(error_text(err), "0x00"));
    error_free(err);
    machine_unlock(&t->m);
    state_buf_free(&saved);
    test_machine_free(t);
}

/* Whatever is written where: read-only registers stay, and the device still works after a reset. */
static void test_random_config_writes(void **state)
{
    uint64_t rng = test_seed();
    struct test_machine *t = pci_machine_new();
    for (int i = 0; i < 4; i++)
        pci_machine_add(t, "virtio-rng", NULL);
    static const uint8_t devices[] = {PCI_HOST_DEVFN, PCI_LPC_DEVFN, RNG, RNG + 8, RNG + 16, RNG + 24};
    for (int i = 0; i < 20000; i++) {
        uint8_t devfn = devices[test_random(&rng) % ARRAY_SIZE(devices)];
        unsigned reg = (unsigned)(test_random(&rng) % 256), size = 1u << test_random(&rng) % 3;
        cfg_write(t, devfn, reg, size, (uint32_t)test_random(&rng));
        cfg_read(t, devfn, (unsigned)(test_random(&rng) % 256), 4);
    }
    assert_int_equal(cfg_read(t, PCI_HOST_DEVFN, 0, 4), 0x29C08086);
    for (unsigned d = 2; d < ARRAY_SIZE(devices); d++)
        assert_int_equal(cfg_read(t, devices[d], 0, 4), 0x10441AF4);
    machine_lock(&t->m);
    devices_reset(&t->m);
    pci_assign_resources(&t->m);
    machine_unlock(&t->m);
    for (unsigned d = 2; d < ARRAY_SIZE(devices); d++)
        assert_true(pci_bar_address(t->m.pci->device[devices[d]], 4) >= PCI_MMIO32_BASE);
    test_machine_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_space),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_bar_sizing_and_moving),
        cmocka_unit_test(test_bogus_bars),
        cmocka_unit_test(test_assigned_resources),
        cmocka_unit_test(test_intx),
        cmocka_unit_test(test_msi),
        cmocka_unit_test(test_msix),
        cmocka_unit_test(test_saved_state),
        cmocka_unit_test(test_random_config_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
