/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host bridge of the board, an Intel 82P35-like memory controller hub at 00:00.0: it owns the bus and the
 * two ways into configuration space, ports 0xCF8/0xCFC (PCI 3.0 section 3.2.2.3.2) and the memory window of
 * PCI Express. The window's place (register PCIEXBAR) is fixed, as is everything that only firmware would
 * set.
 */
#include "base/util.h"
#include "device/pci/pci.h"

#define ADDRESS_ENABLE 0x80000000u
#define PCIEXBAR       0x60
#define PCIEXBAR_ON    1u

struct q35_host {
    struct pci_device pci;
    struct pci_bus bus;
    uint32_t address; /* what was last written to 0xCF8 */
};

static uint64_t address_read(struct device *dev, uint64_t offset, unsigned size)
{
    const struct q35_host *h = DEVICE_OF(struct q35_host, dev);
    return h->address >> (8 * offset);
}

/* Only a whole doubleword is an address; smaller accesses are ordinary I/O, which nothing here answers. */
static void address_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct q35_host *h = DEVICE_OF(struct q35_host, dev);
    if (size == 4 && offset == 0)
        h->address = (uint32_t)value & 0x80FFFFFCu;
}

/* Which register an access to 0xCFC + offset means; false when there is none. */
static bool decode_data(const struct q35_host *h, uint64_t offset, uint8_t *devfn, unsigned *reg)
{
    *devfn = (uint8_t)(h->address >> 8);
    *reg = (h->address & 0xFC) + (unsigned)offset;
    return h->address & ADDRESS_ENABLE && !(h->address >> 16 & 0xFF);
}

static uint64_t data_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct q35_host *h = DEVICE_OF(struct q35_host, dev);
    uint8_t devfn;
    unsigned reg;
    if (!decode_data(h, offset, &devfn, &reg))
        return BIT(8 * size) - 1;
    return pci_config_read(&h->bus, devfn, reg, size);
}

static void data_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct q35_host *h = DEVICE_OF(struct q35_host, dev);
    uint8_t devfn;
    unsigned reg;
    if (decode_data(h, offset, &devfn, &reg))
        pci_config_write(&h->bus, devfn, reg, size, (uint32_t)value);
}

/* Offset in the window: bus in bits 27:20, device and function in 19:12, register in 11:0. */
static uint64_t ecam_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct q35_host *h = DEVICE_OF(struct q35_host, dev);
    if (offset >> 20)
        return BIT(8 * size) - 1;
    return pci_config_read(&h->bus, (uint8_t)(offset >> 12), offset & 0xFFF, size);
}

static void ecam_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct q35_host *h = DEVICE_OF(struct q35_host, dev);
    if (!(offset >> 20))
        pci_config_write(&h->bus, (uint8_t)(offset >> 12), offset & 0xFFF, size, (uint32_t)value);
}

static bool q35_realize(struct device *dev, struct error **err)
{
    struct q35_host *h = DEVICE_OF(struct q35_host, dev);
    static char host_addr[] = "0.0";
    const struct pci_ids ids = {
        .vendor = PCI_VENDOR_INTEL,
        .device = 0x29C0,
        .subsystem_vendor = PCI_VENDOR_QUMRANET,
        .subsystem = 0x1100,
        .class_code = 0x060000,
    };
    h->bus.machine = dev->machine;
    dev->machine->pci = &h->bus;
    h->pci.addr = host_addr;
    bool ok = pci_device_init(&h->pci, &ids, err);
    h->pci.addr = NULL;
    if (!ok) {
        dev->machine->pci = NULL;
        return false;
    }
    store_le64(h->pci.config + PCIEXBAR, PCI_ECAM_BASE | PCIEXBAR_ON);
    return true;
}

static void q35_reset(struct device *dev)
{
    struct q35_host *h = DEVICE_OF(struct q35_host, dev);
    h->address = 0;
    pci_device_reset(&h->pci);
}

/* Devices that are still on the bus are taken off it: they may be freed later. */
static void q35_unrealize(struct device *dev)
{
    struct q35_host *h = DEVICE_OF(struct q35_host, dev);
    for (unsigned d = 0; d < ARRAY_SIZE(h->bus.device); d++)
        if (h->bus.device[d])
            pci_device_exit(h->bus.device[d]);
    dev->machine->pci = NULL;
}

static bool q35_post_load(void *object, struct error **err)
{
    struct q35_host *h = object;
    pci_device_loaded(&h->pci);
    return true;
}

static const struct window_desc q35_windows[] = {
    {.space = WINDOW_PORT,
     .name = "pci-address",
     .base = 0xCF8,
     .size = 4,
     .read = address_read,
     .write = address_write,
     .max_access = 4},
    {.space = WINDOW_PORT,
     .name = "pci-data",
     .base = 0xCFC,
     .size = 4,
     .read = data_read,
     .write = data_write,
     .max_access = 4},
    {.space = WINDOW_MMIO,
     .name = "pci-ecam",
     .base = PCI_ECAM_BASE,
     .size = PCI_ECAM_SIZE,
     .read = ecam_read,
     .write = ecam_write,
     .max_access = 4},
    {.space = WINDOW_END},
};

static const struct state_field q35_fields[] = {
    STATE_FIELD_STRUCT(struct q35_host, pci, 1, &pci_device_state),
    STATE_FIELD_U32(struct q35_host, address),
    STATE_FIELD_END,
};

static const struct state_desc q35_state = {
    .name = "q35-host",
    .version = 1,
    .min_version = 1,
    .fields = q35_fields,
    .post_load = q35_post_load,
};

const struct device_class q35_host_class = {
    .name = "q35-host",
    .help = "PCI host bridge and bus (Q35)",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct q35_host),
    .windows = q35_windows,
    .state = &q35_state,
    .realize = q35_realize,
    .reset = q35_reset,
    .unrealize = q35_unrealize,
};
