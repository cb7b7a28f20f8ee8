/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What firmware does to the PCI bus before an operating system sees it. Machines start without firmware, and
 * kernels expect BARs placed and interrupt lines routed.
 */
#include <stdlib.h>

#include "base/log.h"
#include "base/util.h"
#include "device/pci/pci.h"

#define ELCR2 0x4D1 /* edge/level control of ISA lines 8..15 */

/* ISA lines that share the PCI interrupts while the guest runs without I/O APIC. */
static const uint8_t pirq_irq[PCI_PIRQ_COUNT] = {10, 10, 11, 11, 10, 10, 11, 11};

struct placement {
    struct pci_device *pci;
    unsigned index;
};

/* Largest first wastes no room on alignment; ties keep the order on the bus, so that the layout is
 * reproducible. */
static int by_size(const void *a, const void *b)
{
    const struct placement *x = a, *y = b;
    uint64_t sx = x->pci->bar[x->index].size, sy = y->pci->bar[y->index].size;
    if (sx != sy)
        return sx < sy ? 1 : -1;
    if (x->pci->devfn != y->pci->devfn)
        return x->pci->devfn < y->pci->devfn ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* Takes `size` bytes, naturally aligned, from [*next, end); 0 when there is no room. */
static uint64_t take(uint64_t *next, uint64_t end, uint64_t size)
{
    uint64_t at = round_up(*next, size);
    if (!range_fits(at, size, end))
        return 0;
    *next = at + size;
    return at;
}

static void place_bars(struct pci_bus *bus)
{
    const struct guest_memory *mem = bus->machine->memory;
    struct placement list[ARRAY_SIZE(bus->device) * PCI_BAR_COUNT];
    size_t count = 0;
    for (unsigned d = 0; d < ARRAY_SIZE(bus->device); d++)
        for (unsigned i = 0; bus->device[d] && i < PCI_BAR_COUNT; i++)
            if (bus->device[d]->bar[i].type != PCI_BAR_NONE)
                list[count++] = (struct placement){bus->device[d], i};
    qsort(list, count, sizeof(list[0]), by_size);

    uint64_t io = PCI_PORT_BASE, low = PCI_MMIO32_BASE;
    uint64_t high = round_up(4 * GIB + mem->ram_size - mem->ram_low, GIB);
    for (size_t n = 0; n < count; n++) {
        struct pci_device *pci = list[n].pci;
        const struct pci_bar *bar = &pci->bar[list[n].index];
        uint64_t at;
        if (bar->type == PCI_BAR_IO)
            at = take(&io, PCI_PORT_END, bar->size);
        else
            at = take(&low, PCI_MMIO32_END, bar->size);
        if (!at && bar->type == PCI_BAR_MEM64)
            at = take(&high, bus->machine->mmio.limit, bar->size);
        if (!at)
            log_line(LOG_WARN, "%s: no room for BAR %u", pci->dev.id, list[n].index);
        unsigned reg = PCI_BASE_ADDRESS_0 + 4 * list[n].index;
        pci_config_write(bus, pci->devfn, reg, 4, (uint32_t)at);
        if (bar->type == PCI_BAR_MEM64)
            pci_config_write(bus, pci->devfn, reg + 4, 4, (uint32_t)(at >> 32));
    }
}

unsigned pci_intx_isa_line(uint8_t devfn, unsigned pin)
{
    return pirq_irq[pci_intx_pirq(devfn, pin)];
}

static void route_interrupts(struct pci_bus *bus)
{
    uint16_t level_lines = 0;
    for (unsigned p = 0; p < PCI_PIRQ_COUNT; p++) {
        unsigned reg = p < 4 ? 0x60 + p : 0x68 + p - 4;
        pci_config_write(bus, PCI_LPC_DEVFN, reg, 1, pirq_irq[p]);
        level_lines |= (uint16_t)BIT(pirq_irq[p]);
    }
    bus_write(&bus->machine->ports, ELCR2, 1, level_lines >> 8);
    for (unsigned d = 0; d < ARRAY_SIZE(bus->device); d++) {
        struct pci_device *pci = bus->device[d];
        if (pci && pci->config[PCI_INTERRUPT_PIN]) {
            unsigned line = pci_intx_isa_line(pci->devfn, pci->config[PCI_INTERRUPT_PIN]);
            pci_config_write(bus, pci->devfn, PCI_INTERRUPT_LINE, 1, line);
        }
    }
}

void pci_assign_resources(struct machine *m)
{
    struct pci_bus *bus = m->pci;
    if (!bus)
        return;
    place_bars(bus);
    route_interrupts(bus);
    for (unsigned d = 0; d < ARRAY_SIZE(bus->device); d++) {
        struct pci_device *pci = bus->device[d];
        if (!pci)
            continue;
        uint16_t command = 0;
        for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
            if (pci->bar[i].type == PCI_BAR_IO)
                command |= PCI_COMMAND_IO;
            else if (pci->bar[i].type != PCI_BAR_NONE)
                command |= PCI_COMMAND_MEMORY;
        }
        if (command)
            pci_config_write(bus, pci->devfn, PCI_COMMAND, 2, command | PCI_COMMAND_SERR);
    }
}
