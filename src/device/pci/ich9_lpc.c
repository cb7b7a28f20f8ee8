/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The LPC bridge at 00:1f.0 of an Intel ICH9: operating systems know the board by it. It routes PIRQs to ISA
 * lines; the power management block itself is a device of its own, and its place (PMBASE) is fixed.
 */
#include "base/util.h"
#include "device/pci/pci.h"

#define PMBASE         0x40
#define ACPI_CNTL      0x44
#define ACPI_EN        0x80
#define PIRQA_ROUT     0x60
#define PIRQE_ROUT     0x68
#define PIRQ_OFF       0x80
#define PM_IO_BASE     0x600
#define PMBASE_IO_FLAG 1u

struct ich9_lpc {
    struct pci_device pci;
};

/* Lines that may not carry a PIRQ (ICH9 datasheet, PIRQ[n]_ROUT): 0, 1, 2, 8, 13. */
static uint8_t isa_line(uint8_t rout)
{
    const uint16_t reserved = BIT(0) | BIT(1) | BIT(2) | BIT(8) | BIT(13);
    uint8_t irq = rout & 0x0F;
    return rout & PIRQ_OFF || reserved & BIT(irq) ? 0 : irq;
}

static void apply_routes(struct pci_device *pci)
{
    for (unsigned p = 0; p < PCI_PIRQ_COUNT; p++) {
        unsigned reg = p < 4 ? PIRQA_ROUT + p : PIRQE_ROUT + p - 4;
        pci_route_pirq(pci->bus, p, isa_line(pci->config[reg]));
    }
}

static void lpc_after_write(struct pci_device *pci, unsigned offset, unsigned size)
{
    if (offset < PIRQE_ROUT + 4 && offset + size > PIRQA_ROUT)
        apply_routes(pci);
}

static bool lpc_realize(struct device *dev, struct error **err)
{
    struct pci_device *pci = DEVICE_OF(struct pci_device, dev);
    static char lpc_addr[] = "1f.0";
    const struct pci_ids ids = {
        .vendor = PCI_VENDOR_INTEL,
        .device = 0x2918,
        .subsystem_vendor = PCI_VENDOR_QUMRANET,
        .subsystem = 0x1100,
        .class_code = 0x060100,
        .revision = 2,
    };
    pci->addr = lpc_addr;
    bool ok = pci_device_init(pci, &ids, err);
    pci->addr = NULL;
    if (!ok)
        return false;
    store_le32(pci->config + PMBASE, PM_IO_BASE | PMBASE_IO_FLAG);
    pci->config[ACPI_CNTL] = ACPI_EN;
    for (unsigned i = 0; i < 4; i++) {
        pci->config[PIRQA_ROUT + i] = pci->config[PIRQE_ROUT + i] = PIRQ_OFF;
        pci->writable[PIRQA_ROUT + i] = pci->writable[PIRQE_ROUT + i] = 0x8F;
    }
    pci->after_write = lpc_after_write;
    return true;
}

static void lpc_reset(struct device *dev)
{
    struct pci_device *pci = DEVICE_OF(struct pci_device, dev);
    pci_device_reset(pci);
    apply_routes(pci);
}

static bool lpc_post_load(void *object, struct error **err)
{
    struct ich9_lpc *lpc = object;
    pci_device_loaded(&lpc->pci);
    apply_routes(&lpc->pci);
    return true;
}

static void lpc_unrealize(struct device *dev)
{
    pci_device_exit(DEVICE_OF(struct pci_device, dev));
}

static const struct state_field lpc_fields[] = {
    STATE_FIELD_STRUCT(struct ich9_lpc, pci, 1, &pci_device_state),
    STATE_FIELD_END,
};

static const struct state_desc lpc_state = {
    .name = "ich9-lpc",
    .version = 1,
    .min_version = 1,
    .fields = lpc_fields,
    .post_load = lpc_post_load,
};

const struct device_class ich9_lpc_class = {
    .name = "ich9-lpc",
    .help = "LPC bridge with PCI interrupt routing (ICH9)",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct ich9_lpc),
    .state = &lpc_state,
    .realize = lpc_realize,
    .reset = lpc_reset,
    .unrealize = lpc_unrealize,
};
