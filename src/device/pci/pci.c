/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI devices on the one bus: configuration space, decoding of BARs, INTx lines. A guest may write any
 * address into a BAR: what cannot be mapped (overlapping another window, past the end of the space) just does
 * not decode, and is tried again whenever some decoding changes. RAM is looked up before any window, so a BAR
 * never shadows it.
 */
#include "device/pci/pci.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"

#define PCI_SLOT_COUNT 32

bool pci_bus_master(const struct pci_device *pci)
{
    return load_le16(pci->config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

/* --- BARs --- */

static unsigned bar_register(unsigned index)
{
    return PCI_BASE_ADDRESS_0 + 4 * index;
}

void pci_register_bar(struct pci_device *pci, unsigned index, enum pci_bar_type type, bool prefetchable,
                      uint64_t size, const struct io_window *ops)
{
    struct pci_bar *bar = &pci->bar[index];
    unsigned reg = bar_register(index);
    bar->type = type;
    bar->prefetchable = prefetchable;
    bar->size = size;
    bar->window = *ops;
    bar->window.size = size;
    bar->window.mapped = false;

    uint32_t flags = 0;
    if (type == PCI_BAR_IO)
        flags = PCI_BASE_ADDRESS_SPACE_IO;
    else if (type == PCI_BAR_MEM64)
        flags = PCI_BASE_ADDRESS_MEM_TYPE_64;
    if (prefetchable)
        flags |= PCI_BASE_ADDRESS_MEM_PREFETCH;
    store_le32(pci->config + reg, flags);
    uint64_t mask = ~(size - 1);
    store_le32(pci->writable + reg, (uint32_t)mask);
    if (type == PCI_BAR_MEM64)
        store_le32(pci->writable + reg + 4, (uint32_t)(mask >> 32));
}

/* The address in the BAR's register, and whether the guest has it decoded there. */
static bool bar_wanted(const struct pci_device *pci, unsigned index, uint64_t *addr)
{
    const struct pci_bar *bar = &pci->bar[index];
    const uint8_t *reg = pci->config + bar_register(index);
    uint16_t command = load_le16(pci->config + PCI_COMMAND);
    uint64_t limit;
    bool on;

    switch (bar->type) {
    case PCI_BAR_IO:
        *addr = load_le32(reg) & PCI_BASE_ADDRESS_IO_MASK;
        limit = 0x10000;
        on = command & PCI_COMMAND_IO;
        break;
    case PCI_BAR_MEM32:
        *addr = load_le32(reg) & (uint32_t)PCI_BASE_ADDRESS_MEM_MASK;
        limit = UINT32_MAX; /* the last address is what sizing leaves behind: never decoded */
        on = command & PCI_COMMAND_MEMORY;
        break;
    case PCI_BAR_MEM64:
        *addr = load_le64(reg) & ~(uint64_t)15;
        limit = pci->bus->machine->mmio.limit;
        on = command & PCI_COMMAND_MEMORY;
        break;
    default:
        return false;
    }
    return on && *addr != 0 && range_fits(*addr, bar->size, limit);
}

uint64_t pci_bar_address(const struct pci_device *pci, unsigned index)
{
    return pci->bar[index].window.mapped ? pci->bar[index].window.base : 0;
}

static struct io_bus *bar_space(struct pci_device *pci, const struct pci_bar *bar)
{
    struct machine *m = pci->bus->machine;
    return bar->type == PCI_BAR_IO ? &m->ports : &m->mmio;
}

static void bars_changed(struct pci_device *pci)
{
    if (pci->bars_changed)
        pci->bars_changed(pci);
}

static void unmap_stale_bars(struct pci_device *pci)
{
    bool changed = false;
    for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
        struct pci_bar *bar = &pci->bar[i];
        uint64_t addr;
        if (bar->window.mapped && (!bar_wanted(pci, i, &addr) || addr != bar->window.base)) {
            bus_unmap(bar_space(pci, bar), &bar->window);
            changed = true;
        }
    }
    if (changed)
        bars_changed(pci);
}

static void map_wanted_bars(struct pci_device *pci)
{
    bool changed = false;
    for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
        struct pci_bar *bar = &pci->bar[i];
        uint64_t addr;
        if (bar->window.mapped || !bar_wanted(pci, i, &addr))
            continue;
        struct error *err = NULL;
        bar->window.base = addr;
        if (!bus_map(bar_space(pci, bar), &bar->window, &err)) {
            log_guest(LOG_INFO, "%s: BAR %u does not decode: %s", pci->dev.id, i, error_text(err));
            error_free(err);
        }
        changed |= bar->window.mapped;
    }
    if (changed)
        bars_changed(pci);
}

/* Brings the mapped windows of the whole bus to what the registers say; one BAR's move may free the place of
 * another. */
static void update_bars(struct pci_bus *bus)
{
    for (unsigned i = 0; i < ARRAY_SIZE(bus->device); i++)
        if (bus->device[i])
            unmap_stale_bars(bus->device[i]);
    for (unsigned i = 0; i < ARRAY_SIZE(bus->device); i++)
        if (bus->device[i])
            map_wanted_bars(bus->device[i]);
}

/* --- INTx --- */

/*
 * ICH9's wiring as QEMU's q35 has it: slots below 25 rotate over PIRQE..H; the slots of the chipset's own
 * functions use PIRQA..D unrotated (the reset value of its DxxIR registers).
 */
unsigned pci_intx_pirq(uint8_t devfn, unsigned pin)
{
    unsigned slot = PCI_SLOT_OF(devfn);
    return slot < 25 ? 4 + (slot + pin - 1) % 4 : (pin - 1) % 4;
}

unsigned pci_intx_gsi(uint8_t devfn, unsigned pin)
{
    return 16 + pci_intx_pirq(devfn, pin);
}

static bool intx_asserted(const struct pci_device *pci)
{
    return pci->intx && !(load_le16(pci->config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE);
}

static void update_isa_lines(struct pci_bus *bus)
{
    struct machine *m = bus->machine;
    uint16_t lines = 0;
    for (unsigned p = 0; p < PCI_PIRQ_COUNT; p++)
        if (bus->pirq[p] && bus->route[p])
            lines |= (uint16_t)BIT(bus->route[p]);
    uint16_t changed = lines ^ bus->isa_lines;
    bus->isa_lines = lines;
    for (unsigned irq = 0; irq < 16; irq++)
        if (changed & BIT(irq))
            m->set_gsi(m, irq, lines & BIT(irq));
}

static void update_pirq(struct pci_bus *bus, unsigned pirq)
{
    bool level = false;
    for (unsigned i = 0; i < ARRAY_SIZE(bus->device) && !level; i++) {
        const struct pci_device *d = bus->device[i];
        level = d && d->config[PCI_INTERRUPT_PIN] && intx_asserted(d) &&
                pci_intx_pirq(d->devfn, d->config[PCI_INTERRUPT_PIN]) == pirq;
    }
    if (level == bus->pirq[pirq])
        return;
    bus->pirq[pirq] = level;
    bus->machine->set_gsi(bus->machine, 16 + pirq, level);
    update_isa_lines(bus);
}

static void update_intx(struct pci_device *pci)
{
    if (pci->config[PCI_INTERRUPT_PIN])
        update_pirq(pci->bus, pci_intx_pirq(pci->devfn, pci->config[PCI_INTERRUPT_PIN]));
}

void pci_set_intx(struct pci_device *pci, bool level)
{
    if (pci->intx == level)
        return;
    pci->intx = level;
    update_intx(pci);
}

void pci_route_pirq(struct pci_bus *bus, unsigned pirq, uint8_t irq)
{
    bus->route[pirq] = irq & 15;
    update_isa_lines(bus);
}

/* --- configuration space --- */

unsigned pci_add_capability(struct pci_device *pci, uint8_t id, unsigned size)
{
    unsigned at = pci->cap_end;
    pci->cap_end = at + (unsigned)round_up(size, 4);
    pci->config[at] = id;
    pci->config[at + 1] = pci->config[PCI_CAPABILITY_LIST];
    pci->config[PCI_CAPABILITY_LIST] = (uint8_t)at;
    pci->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    return at;
}

static bool overlaps(unsigned offset, unsigned size, unsigned at, unsigned len)
{
    return offset < at + len && at < offset + size;
}

uint32_t pci_config_read(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size)
{
    struct pci_device *pci = bus->device[devfn];
    uint32_t ones = size >= 4 ? UINT32_MAX : (uint32_t)BIT(size * 8) - 1;
    if (!pci || !range_fits(offset, size, PCI_CONFIG_SIZE))
        return ones;
    if (pci->before_read)
        pci->before_read(pci, offset, size);
    uint8_t bytes[4] = {0};
    memcpy(bytes, pci->config + offset, MIN(size, 4));
    if (overlaps(offset, size, PCI_STATUS, 1) && pci->intx)
        bytes[PCI_STATUS - offset] |= PCI_STATUS_INTERRUPT;
    if (overlaps(offset, size, PCI_HEADER_TYPE, 1)) {
        unsigned first = devfn & ~7u;
        for (unsigned f = 1; f < 8; f++)
            if (bus->device[first + f])
                bytes[PCI_HEADER_TYPE - offset] |= 0x80; /* multi-function */
    }
    return load_le32(bytes);
}

void pci_config_write(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size, uint32_t value)
{
    struct pci_device *pci = bus->device[devfn];
    if (!pci || !range_fits(offset, size, PCI_CONFIG_SIZE))
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t v = (uint8_t)(value >> (8 * i));
        uint8_t w = pci->writable[offset + i];
        uint8_t *byte = &pci->config[offset + i];
        *byte = (uint8_t)(((*byte & ~w) | (v & w)) & ~(v & pci->clear[offset + i]));
    }
    if (overlaps(offset, size, PCI_COMMAND, 2)) {
        update_bars(bus);
        update_intx(pci);
    } else if (overlaps(offset, size, PCI_BASE_ADDRESS_0, 4 * PCI_BAR_COUNT)) {
        update_bars(bus);
    }
    pci_msix_config_written(pci, offset, size);
    if (pci->after_write)
        pci->after_write(pci, offset, size);
}

/* --- life cycle --- */

/* Parses "SLOT[.FUNCTION]" (hexadecimal). */
static bool parse_addr(const char *text, uint8_t *devfn)
{
    char *end;
    unsigned long slot = strtoul(text, &end, 16);
    unsigned long function = 0;
    if (end == text || slot >= PCI_SLOT_COUNT)
        return false;
    if (*end == '.') {
        const char *at = end + 1;
        function = strtoul(at, &end, 16);
        if (end == at || function > 7)
            return false;
    }
    *devfn = PCI_DEVFN(slot, function);
    return *end == '\0';
}

static bool pick_address(struct pci_device *pci, struct pci_bus *bus, struct error **err)
{
    if (pci->addr) {
        if (!parse_addr(pci->addr, &pci->devfn)) {
            error_set(err, 0, "%s: \"%s\" is not a PCI address (SLOT or SLOT.FUNCTION)", pci->dev.id,
                      pci->addr);
            return false;
        }
        if (bus->device[pci->devfn]) {
            error_set(err, 0, "%s: PCI address %s is taken by %s", pci->dev.id, pci->addr,
                      bus->device[pci->devfn]->dev.id);
            return false;
        }
        return true;
    }
    for (unsigned slot = 1; slot < PCI_SLOT_OF(PCI_LPC_DEVFN); slot++) {
        bool free_slot = true;
        for (unsigned f = 0; f < 8; f++)
            free_slot = free_slot && !bus->device[PCI_DEVFN(slot, f)];
        if (free_slot) {
            pci->devfn = PCI_DEVFN(slot, 0);
            return true;
        }
    }
    error_set(err, 0, "%s: all PCI slots are taken", pci->dev.id);
    return false;
}

bool pci_device_init(struct pci_device *pci, const struct pci_ids *ids, struct error **err)
{
    struct pci_bus *bus = pci->dev.machine->pci;
    if (!bus) {
        error_set(err, 0, "%s: the machine has no PCI bus", pci->dev.id);
        return false;
    }
    if (!pick_address(pci, bus, err))
        return false;
    uint8_t *c = pci->config;
    store_le16(c + PCI_VENDOR_ID, ids->vendor);
    store_le16(c + PCI_DEVICE_ID, ids->device);
    store_le32(c + PCI_CLASS_REVISION, ids->class_code << 8 | ids->revision);
    store_le16(c + PCI_SUBSYSTEM_VENDOR_ID, ids->subsystem_vendor);
    store_le16(c + PCI_SUBSYSTEM_ID, ids->subsystem);
    c[PCI_INTERRUPT_PIN] = ids->interrupt_pin;
    store_le16(pci->writable + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
                                                PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
                                                PCI_COMMAND_INTX_DISABLE);
    pci->writable[PCI_CACHE_LINE_SIZE] = 0xFF;
    pci->writable[PCI_INTERRUPT_LINE] = 0xFF;
    pci->cap_end = PCI_STD_HEADER_SIZEOF;
    pci->bus = bus;
    bus->device[pci->devfn] = pci;
    return true;
}

void pci_device_exit(struct pci_device *pci)
{
    if (!pci->bus)
        return;
    store_le16(pci->config + PCI_COMMAND, 0);
    unmap_stale_bars(pci);
    pci_msix_settle(pci);
    pci_set_intx(pci, false);
    pci->bus->device[pci->devfn] = NULL;
    pci->bus = NULL;
}

void pci_device_reset(struct pci_device *pci)
{
    if (!pci->complete) {
        /* The first reset ends realize: what it wrote are the power-on values. */
        pci->complete = true;
        memcpy(pci->initial, pci->config, sizeof(pci->initial));
    }
    memcpy(pci->config, pci->initial, sizeof(pci->config));
    pci_msix_reset(pci);
    update_bars(pci->bus);
    pci->intx = false;
    update_intx(pci);
}

void pci_device_loaded(struct pci_device *pci)
{
    update_bars(pci->bus);
    update_intx(pci);
}

static const struct state_field msix_fields[] = {
    STATE_FIELD_U32(struct pci_msix_entry, addr_lo),
    STATE_FIELD_U32(struct pci_msix_entry, addr_hi),
    STATE_FIELD_U32(struct pci_msix_entry, data),
    STATE_FIELD_U32(struct pci_msix_entry, control),
    STATE_FIELD_END,
};

static const struct state_desc msix_entry_state = {
    .name = "msix-entry",
    .version = 1,
    .min_version = 1,
    .fields = msix_fields,
};

/* A stream may hold anything: bits that no guest can change must be those of this device. */
static bool pci_post_load(void *object, struct error **err)
{
    const struct pci_device *pci = object;
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        uint8_t fixed = (uint8_t) ~(pci->writable[i] | pci->clear[i]);
        if ((pci->config[i] ^ pci->initial[i]) & fixed) {
            error_set(err, 0, "PCI register 0x%02x of the saved machine is not this device's", i);
            return false;
        }
    }
    return true;
}

static const struct state_field pci_fields[] = {
    STATE_FIELD_BYTES(struct pci_device, config, PCI_CONFIG_SIZE),
    STATE_FIELD_STRUCT(struct pci_device, msix, PCI_MSIX_MAX, &msix_entry_state),
    STATE_FIELD_U64_ARRAY(struct pci_device, msix_pending, PCI_MSIX_MAX / 64),
    STATE_FIELD_BOOL(struct pci_device, intx),
    STATE_FIELD_END,
};

const struct state_desc pci_device_state = {
    .name = "pci",
    .version = 1,
    .min_version = 1,
    .fields = pci_fields,
    .post_load = pci_post_load,
};
