/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Message-signalled interrupts of PCI devices: MSI with one vector (PCI 3.0 section 6.8.1), MSI-X with table
 * and pending bits in a BAR of its own (section 6.8.2).
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/util.h"
#include "device/pci/pci.h"

#define MSI_SIZE      14 /* 64-bit address, no mask */
#define TABLE_OFFSET  0
#define PBA_OFFSET    0x800
#define MSIX_BAR_SIZE 0x1000

/* --- MSI --- */

void pci_msi_init(struct pci_device *pci)
{
    unsigned at = pci_add_capability(pci, PCI_CAP_ID_MSI, MSI_SIZE);
    pci->msi_cap = (uint8_t)at;
    store_le16(pci->config + at + PCI_MSI_FLAGS, PCI_MSI_FLAGS_64BIT);
    store_le16(pci->writable + at + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
    store_le32(pci->writable + at + PCI_MSI_ADDRESS_LO, ~3u);
    store_le32(pci->writable + at + PCI_MSI_ADDRESS_HI, ~0u);
    store_le16(pci->writable + at + PCI_MSI_DATA_64, 0xFFFF);
}

bool pci_msi_enabled(const struct pci_device *pci)
{
    return pci->msi_cap && load_le16(pci->config + pci->msi_cap + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_ENABLE;
}

bool pci_msi_notify(struct pci_device *pci)
{
    if (!pci_msi_enabled(pci))
        return false;
    const uint8_t *cap = pci->config + pci->msi_cap;
    struct machine *m = pci->bus->machine;
    if (pci_bus_master(pci))
        m->send_msi(m, load_le64(cap + PCI_MSI_ADDRESS_LO), load_le16(cap + PCI_MSI_DATA_64));
    return true;
}

/* --- MSI-X --- */

static uint16_t msix_flags(const struct pci_device *pci)
{
    return pci->msix_cap ? load_le16(pci->config + pci->msix_cap + PCI_MSIX_FLAGS) : 0;
}

bool pci_msix_enabled(const struct pci_device *pci)
{
    return msix_flags(pci) & PCI_MSIX_FLAGS_ENABLE;
}

static bool vector_masked(const struct pci_device *pci, unsigned vector)
{
    return msix_flags(pci) & PCI_MSIX_FLAGS_MASKALL ||
           pci->msix[vector].control & PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

/*
 * A line follows its entry no sooner than the next message: what the guest does to an entry in between, and
 * what a masked one holds back, is no business of the engine's.
 */
static bool line_ready(struct machine *m, struct pci_msix_line *line, uint64_t addr, uint32_t data)
{
    if (line->tried && line->addr == addr && line->data == data)
        return line->fd >= 0;
    bool set = line->fd >= 0;
    if (!set)
        line->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    line->tried = true;
    line->addr = addr;
    line->data = data;
    if (line->fd < 0)
        return false;
    if (m->line_set(m, line->fd, addr, data))
        return true;
    if (set)
        m->line_drop(m, line->fd);
    close(line->fd);
    line->fd = -1;
    return false;
}

static void send(struct machine *m, struct pci_msix_line *line, uint64_t addr, uint32_t data)
{
    if (!m->line_set || !line_ready(m, line, addr, data) || eventfd_write(line->fd, 1) < 0)
        m->send_msi(m, addr, data);
}

void pci_msix_settle(struct pci_device *pci)
{
    struct machine *m = pci->dev.machine;
    for (unsigned v = 0; v < pci->msix_count; v++) {
        struct pci_msix_line *line = &pci->msix_line[v];
        if (line->fd >= 0) {
            m->line_drop(m, line->fd);
            close(line->fd);
        }
        *line = (struct pci_msix_line){.fd = -1};
    }
}

void pci_msix_notify(struct pci_device *pci, unsigned vector)
{
    if (vector >= pci->msix_count || !pci_msix_enabled(pci))
        return;
    if (vector_masked(pci, vector)) {
        pci->msix_pending[vector / 64] |= BIT(vector % 64);
        return;
    }
    const struct pci_msix_entry *e = &pci->msix[vector];
    struct machine *m = pci->bus->machine;
    if (pci_bus_master(pci))
        send(m, &pci->msix_line[vector], (uint64_t)e->addr_hi << 32 | e->addr_lo, e->data);
}

/* Sends what waited for the vector to be unmasked. */
static void fire_pending(struct pci_device *pci, unsigned vector)
{
    uint64_t *word = &pci->msix_pending[vector / 64];
    if (!(*word & BIT(vector % 64)) || !pci_msix_enabled(pci) || vector_masked(pci, vector))
        return;
    *word &= ~BIT(vector % 64);
    pci_msix_notify(pci, vector);
}

void pci_msix_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    unsigned at = pci->msix_cap + PCI_MSIX_FLAGS;
    if (!pci->msix_cap || offset >= at + 2 || at >= offset + size)
        return;
    for (unsigned v = 0; v < pci->msix_count; v++)
        fire_pending(pci, v);
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pci_device *pci = opaque;
    if (offset < PBA_OFFSET) {
        uint64_t index = offset / sizeof(struct pci_msix_entry);
        const uint32_t *words = &pci->msix[index].addr_lo;
        return index < pci->msix_count && size == 4 ? words[offset / 4 % 4] : 0;
    }
    uint64_t word = (offset - PBA_OFFSET) / 8;
    if (word >= ARRAY_SIZE(pci->msix_pending))
        return 0;
    return (uint32_t)(pci->msix_pending[word] >> (offset & 4 ? 32 : 0));
}

/* Only whole doublewords are defined (section 6.8.2); the bus splits 8-byte accesses. */
static void msix_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_device *pci = opaque;
    uint64_t index = offset / sizeof(struct pci_msix_entry);
    if (offset >= PBA_OFFSET || index >= pci->msix_count || size != 4)
        return;
    struct pci_msix_entry *e = &pci->msix[index];
    switch (offset % sizeof(struct pci_msix_entry)) {
    case PCI_MSIX_ENTRY_LOWER_ADDR:
        e->addr_lo = (uint32_t)value & ~3u;
        break;
    case PCI_MSIX_ENTRY_UPPER_ADDR:
        e->addr_hi = (uint32_t)value;
        break;
    case PCI_MSIX_ENTRY_DATA:
        e->data = (uint32_t)value;
        break;
    case PCI_MSIX_ENTRY_VECTOR_CTRL:
        e->control = (uint32_t)value & PCI_MSIX_ENTRY_CTRL_MASKBIT;
        fire_pending(pci, (unsigned)index);
        break;
    default:
        break; /* misaligned */
    }
}

void pci_msix_init(struct pci_device *pci, unsigned bar, unsigned count)
{
    const struct io_window ops = {
        .name = "msix",
        .read = msix_read,
        .write = msix_write,
        .opaque = pci,
        .max_access = 4,
    };
    pci_register_bar(pci, bar, PCI_BAR_MEM32, false, MSIX_BAR_SIZE, &ops);

    unsigned at = pci_add_capability(pci, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
    pci->msix_cap = (uint8_t)at;
    pci->msix_count = (uint16_t)MIN(count, PCI_MSIX_MAX);
    for (unsigned v = 0; v < pci->msix_count; v++)
        pci->msix_line[v].fd = -1;
    store_le16(pci->config + at + PCI_MSIX_FLAGS, (uint16_t)(pci->msix_count - 1));
    store_le16(pci->writable + at + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    store_le32(pci->config + at + PCI_MSIX_TABLE, TABLE_OFFSET | bar);
    store_le32(pci->config + at + PCI_MSIX_PBA, PBA_OFFSET | bar);
}

void pci_msix_reset(struct pci_device *pci)
{
    memset(pci->msix, 0, sizeof(pci->msix));
    memset(pci->msix_pending, 0, sizeof(pci->msix_pending));
    for (unsigned v = 0; v < PCI_MSIX_MAX; v++)
        pci->msix[v].control = PCI_MSIX_ENTRY_CTRL_MASKBIT;
}
