/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The PCI bus of the board (one bus, Q35-like) and what a PCI device is made of: configuration space with
 * write masks, BARs that really move, capabilities, MSI, MSI-X and INTx. References are to the PCI Local Bus
 * Specification 3.0. Register numbers come from <linux/pci_regs.h>.
 *
 * Everything runs with the machine lock held. A PCI device class begins with a struct pci_device, calls
 * pci_device_init first in realize, pci_device_reset in reset and pci_device_exit in unrealize (and when
 * realize fails later); it names pci_device_state as a nested part of its state, whose post_load calls
 * pci_device_loaded.
 */
#ifndef DEVICE_PCI_PCI_H
#define DEVICE_PCI_PCI_H

#include <linux/pci_regs.h>

#include "core/device.h"

#define PCI_CONFIG_SIZE     256
#define PCI_BAR_COUNT       6
#define PCI_MSIX_MAX        128
#define PCI_PIRQ_COUNT      8
#define PCI_ECAM_BASE       0xB0000000u
#define PCI_ECAM_SIZE       0x10000000u
#define PCI_MMIO32_BASE     0xC0000000u /* where pci_assign_resources puts memory BARs */
#define PCI_MMIO32_END      0xFEC00000u
#define PCI_PORT_BASE       0xC000u
#define PCI_PORT_END        0x10000u
#define PCI_DEVFN(s, f)     ((uint8_t)((s) << 3 | (f)))
#define PCI_SLOT_OF(d)      ((unsigned)(d) >> 3)
#define PCI_HOST_DEVFN      PCI_DEVFN(0, 0)
#define PCI_LPC_DEVFN       PCI_DEVFN(31, 0)
#define PCI_VENDOR_INTEL    0x8086
#define PCI_VENDOR_QUMRANET 0x1AF4 /* the vendor of all virtio devices */

struct pci_device;

enum pci_bar_type { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bar {
    enum pci_bar_type type; /* the register after a MEM64 BAR is NONE and holds its high half */
    bool prefetchable;
    uint64_t size;           /* a power of two, at least 4 (I/O) or 4096 (memory) */
    struct io_window window; /* mapped while the guest's setting decodes it and nothing else is in the way */
};

struct pci_msix_entry {
    uint32_t addr_lo, addr_hi, data, control;
};

/* The eventfd by which a vector's message goes, where the engine has such lines. */
struct pci_msix_line {
    bool tried; /* `addr` and `data` are what the engine was last asked for */
    int fd;     /* -1: it would not have it */
    uint32_t data;
    uint64_t addr;
};

struct pci_device {
    struct device dev;
    struct pci_bus *bus; /* NULL before pci_device_init */
    uint8_t devfn;
    char *addr; /* property "addr": SLOT or SLOT.FUNCTION in hexadecimal; NULL: the first free slot */

    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE]; /* bits that a guest's write stores */
    uint8_t clear[PCI_CONFIG_SIZE];    /* bits that writing 1 clears */
    uint8_t initial[PCI_CONFIG_SIZE];  /* what realize left in config[]: the values at reset */
    bool complete;                     /* realize is over, `initial` is filled */
    struct pci_bar bar[PCI_BAR_COUNT];
    unsigned cap_end; /* first byte free for a capability */

    uint8_t msi_cap, msix_cap; /* offsets; 0: none */
    uint16_t msix_count;
    struct pci_msix_entry msix[PCI_MSIX_MAX];
    uint64_t msix_pending[PCI_MSIX_MAX / 64];
    struct pci_msix_line msix_line[PCI_MSIX_MAX];
    bool intx; /* the device's own interrupt line */

    /*
     * Hooks of the device, NULL when not needed. before_read may refresh config[] bytes that are about to be
     * read; after_write is called when config[offset, offset + size) has taken a guest's write, bars_changed
     * when a BAR has been mapped or unmapped, before any other device's BAR takes the place.
     */
    void (*bars_changed)(struct pci_device *pci);
    void (*before_read)(struct pci_device *pci, unsigned offset, unsigned size);
    void (*after_write)(struct pci_device *pci, unsigned offset, unsigned size);
};

struct pci_bus {
    struct machine *machine;
    struct pci_device *device[256]; /* by devfn */
    bool pirq[PCI_PIRQ_COUNT];      /* wired-or of the INTx lines, PIRQA.. */
    uint8_t route[PCI_PIRQ_COUNT];  /* ISA line of each PIRQ while the LPC bridge routes it; 0: not routed */
    uint16_t isa_lines;             /* ISA lines now held high by PIRQs */
};

struct pci_ids {
    uint16_t vendor, device;
    uint16_t subsystem_vendor, subsystem;
    uint32_t class_code; /* 24 bits: base class, subclass, interface */
    uint8_t revision;
    uint8_t interrupt_pin; /* 1: INTA#; 0: none */
};

/* The property "addr", for the table of a class whose instance begins with a struct pci_device. */
#define PCI_PROP_ADDR                                                                                        \
    {                                                                                                        \
        .name = "addr", .type = PROP_STRING, .offset = offsetof(struct pci_device, addr),                    \
        .help = "PCI slot[.function], hexadecimal (default: the first free slot)"                            \
    }

extern const struct state_desc pci_device_state;

/* Places the device on the bus at its "addr" and writes its header. False and *err: bad or taken address, no
 * bus. */
bool pci_device_init(struct pci_device *pci, const struct pci_ids *ids, struct error **err);
/* Takes it off the bus, its BARs unmapped, its line low. Harmless before pci_device_init. */
void pci_device_exit(struct pci_device *pci);
/* Power-on values: no decoding, BARs 0, MSI and MSI-X off, line low. */
void pci_device_reset(struct pci_device *pci);
/* After a load of state: maps BARs and drives lines as the loaded registers say. */
void pci_device_loaded(struct pci_device *pci);

/*
 * Declares BAR `index`: read, write and max_access as in struct io_window; `name` and `opaque` must outlive
 * the device. Called between pci_device_init and the first reset.
 */
void pci_register_bar(struct pci_device *pci, unsigned index, enum pci_bar_type type, bool prefetchable,
                      uint64_t size, const struct io_window *ops);
/* The guest's address of a BAR; 0 when it does not decode it now. */
uint64_t pci_bar_address(const struct pci_device *pci, unsigned index);

/*
 * Adds a capability of `size` bytes (with its two header bytes), zeroed, at the end of the list and returns
 * its offset. The caller fills config[] and writable[] behind the header. Between pci_device_init and the
 * first reset.
 */
unsigned pci_add_capability(struct pci_device *pci, uint8_t id, unsigned size);

/* MSI (section 6.8.1): one vector, 64-bit address, no masking. */
void pci_msi_init(struct pci_device *pci);
/* MSI-X (section 6.8.2): `count` vectors (1..PCI_MSIX_MAX), table and PBA in a 4 KiB BAR of its own. */
void pci_msix_init(struct pci_device *pci, unsigned bar, unsigned count);
bool pci_msix_enabled(const struct pci_device *pci);
bool pci_msi_enabled(const struct pci_device *pci);
/* Sends, or sets the pending bit while masked. Vectors that do not exist are ignored. */
void pci_msix_notify(struct pci_device *pci, unsigned vector);
/* When it returns all that was sent has reached the processors. In quiesce, and before the device goes. */
void pci_msix_settle(struct pci_device *pci);
/* Sends when MSI is enabled; false when it is not (the caller uses INTx then). */
bool pci_msi_notify(struct pci_device *pci);

/* Level of the device's INTx line. */
void pci_set_intx(struct pci_device *pci, bool level);
/* May it write to memory (Bus Master Enable)? */
bool pci_bus_master(const struct pci_device *pci);

/* PIRQ number (0 = A) and I/O APIC input of `pin` (1 = INTA#) of a device. ACPI's _PRT says the same. */
unsigned pci_intx_pirq(uint8_t devfn, unsigned pin);
unsigned pci_intx_gsi(uint8_t devfn, unsigned pin);
/* The ISA line that pci_assign_resources gives the pin, for systems that use the PIC. */
unsigned pci_intx_isa_line(uint8_t devfn, unsigned pin);
/* Sets or drops (`irq` 0) the ISA line that a PIRQ also drives. By the LPC bridge. */
void pci_route_pirq(struct pci_bus *bus, unsigned pirq, uint8_t irq);

/* One configuration access of a guest: size 1, 2 or 4, any offset. Nobody there, or past the end: all ones.
 */
uint32_t pci_config_read(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size);
void pci_config_write(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size, uint32_t value);

/*
 * Leaves the bus as firmware would: BARs placed (largest first; below 4 GiB, or above all RAM what does not
 * fit there), decoding on, PIRQs routed to ISA lines 10 and 11, interrupt line registers filled. The board
 * calls it after every reset of the devices. A BAR for which there is no room stays unplaced and is logged.
 */
void pci_assign_resources(struct machine *m);

/* For pci_msi.c: the parts of the configuration space that matter to it have changed. */
void pci_msix_config_written(struct pci_device *pci, unsigned offset, unsigned size);
void pci_msix_reset(struct pci_device *pci);

#endif
