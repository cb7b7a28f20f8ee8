/* SPDX-License-Identifier: GPL-2.0-or-later */
/* All tables but the DSDT's contents (ACPI 6.4 chapter 5; HPET and MCFG by their own specifications). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "core/memory.h"
#include "device/pci/pci.h"
#include "device/platform/ich9_pm.h"
#include "device/platform/ioapic.h"
#include "vmm/acpi/acpi.h"
#include "vmm/acpi/aml.h"

#define OEM_ID        "RUCHE "
#define OEM_TABLE_ID  "RUCHEPC "
#define CREATOR_ID    "RUCH"
#define TABLE_ALIGN   64
#define LAPIC_BASE    0xfee00000u
#define HPET_BASE     0xfed00000u
#define HPET_BLOCK_ID 0x8086a201u
#define GPE0_LEN      16
#define RESET_PORT    0xcf9
#define RESET_VALUE   0x0f
#define CMOS_CENTURY  0x32
#define NOT_SUPPORTED 0xfff /* C-state latencies */

#define FADT_WBINVD           BIT(0)
#define FADT_PROC_C1          BIT(2)
#define FADT_NO_SLEEP_BUTTON  BIT(5)
#define FADT_RTC_S4           BIT(7)
#define FADT_RESET_REG        BIT(10)
#define FADT_PLATFORM_CLOCK   BIT(15)
#define BOOT_LEGACY_DEVICES   BIT(0)
#define BOOT_8042             BIT(1)
#define BOOT_NO_VGA           BIT(2)
#define WAET_PM_TIMER_GOOD    BIT(1)
#define MADT_PCAT_COMPAT      BIT(0)
#define MPS_ACTIVE_HIGH_LEVEL 0x0d

struct table_header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem_id[6], oem_table_id[8];
    uint32_t oem_revision;
    char creator_id[4];
    uint32_t creator_revision;
} __attribute__((packed));

/* Generic address structure. */
struct gas {
    uint8_t space, width, offset, access;
    uint64_t address;
} __attribute__((packed));

enum { GAS_MEMORY = 0, GAS_PORT = 1 };

struct fadt {
    uint32_t facs, dsdt;
    uint8_t reserved0, profile;
    uint16_t sci;
    uint32_t smi_command;
    uint8_t acpi_enable, acpi_disable, s4bios, pstate_control;
    uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer, gpe0, gpe1;
    uint8_t pm1_event_len, pm1_control_len, pm2_control_len, pm_timer_len, gpe0_len, gpe1_len, gpe1_base,
        cst_control;
    uint16_t c2_latency, c3_latency, flush_size, flush_stride;
    uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
    uint16_t boot_arch;
    uint8_t reserved1;
    uint32_t flags;
    struct gas reset_register;
    uint8_t reset_value;
    uint16_t arm_boot_arch;
    uint8_t minor_version;
    uint64_t x_facs, x_dsdt;
    struct gas x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control, x_pm_timer, x_gpe0,
        x_gpe1;
    struct gas sleep_control, sleep_status;
    char hypervisor[8];
} __attribute__((packed));
_Static_assert(sizeof(struct table_header) + sizeof(struct fadt) == 276, "FADT revision 6");

struct facs {
    char signature[4];
    uint32_t length, hardware_signature, waking_vector, lock, flags;
    uint64_t x_waking_vector;
    uint8_t version, reserved[31];
} __attribute__((packed));
_Static_assert(sizeof(struct facs) == 64, "FACS");

/* What is being built. */
struct builder {
    struct aml a;
    struct acpi_tables *t;
    uint32_t facs, dsdt;
    uint32_t listed[ACPI_TABLE_MAX]; /* what RSDT and XSDT name */
    unsigned listed_count;
};

static void align(struct builder *b)
{
    while (!b->a.failed && b->a.len % TABLE_ALIGN)
        aml_byte(&b->a, 0);
}

static void add_pointer(struct builder *b, size_t offset, uint8_t size)
{
    if (b->t->pointer_count == ACPI_POINTER_MAX)
        b->a.failed = true;
    else
        b->t->pointer[b->t->pointer_count++] = (struct acpi_pointer){(uint32_t)offset, size};
}

static uint32_t begin_table(struct builder *b, const char *signature, uint8_t revision)
{
    struct table_header h = {.revision = revision, .oem_revision = 1, .creator_revision = 1};

    align(b);
    uint32_t offset = (uint32_t)b->a.len;
    memcpy(h.signature, signature, sizeof(h.signature));
    memcpy(h.oem_id, OEM_ID, sizeof(h.oem_id));
    memcpy(h.oem_table_id, OEM_TABLE_ID, sizeof(h.oem_table_id));
    memcpy(h.creator_id, CREATOR_ID, sizeof(h.creator_id));
    aml_bytes(&b->a, &h, sizeof(h));
    return offset;
}

static void end_table(struct builder *b, uint32_t offset)
{
    if (b->a.failed || b->t->table_count == ACPI_TABLE_MAX) {
        b->a.failed = true;
        return;
    }
    uint32_t length = (uint32_t)b->a.len - offset;
    memcpy(b->a.data + offset + offsetof(struct table_header, length), &length, sizeof(length));
    b->t->table[b->t->table_count++] = (struct acpi_table){offset, length};
}

/* As end_table, for what the root tables name. */
static void end_listed(struct builder *b, uint32_t offset)
{
    end_table(b, offset);
    if (!b->a.failed)
        b->listed[b->listed_count++] = offset;
}

static void build_facs(struct builder *b)
{
    struct facs facs = {.length = sizeof(facs), .version = 2};

    align(b);
    b->facs = (uint32_t)b->a.len;
    memcpy(facs.signature, "FACS", 4);
    aml_bytes(&b->a, &facs, sizeof(facs));
}

static void build_dsdt(struct builder *b, const struct acpi_config *config)
{
    b->dsdt = begin_table(b, "DSDT", 2);
    acpi_write_dsdt(&b->a, config);
    end_table(b, b->dsdt);
}

static struct gas port(uint16_t address, unsigned bytes)
{
    /* Access size: 1 byte, 2 word, 3 doubleword. A block of several registers is accessed by bytes. */
    uint8_t access = bytes == 2 ? 2 : bytes == 4 ? 3 : 1;
    return (struct gas){
        .space = GAS_PORT, .width = (uint8_t)(bytes * 8), .access = access, .address = address};
}

static void build_fadt(struct builder *b)
{
    struct fadt f = {
        .facs = b->facs,
        .dsdt = b->dsdt,
        .sci = ICH9_SCI_GSI,
        .smi_command = ICH9_SMI_COMMAND,
        .acpi_enable = ICH9_ACPI_ENABLE,
        .acpi_disable = ICH9_ACPI_DISABLE,
        .pm1a_event = ICH9_PM_EVENT,
        .pm1a_control = ICH9_PM_CONTROL,
        .pm_timer = ICH9_PM_TIMER,
        .gpe0 = ICH9_PM_GPE0,
        .pm1_event_len = 4,
        .pm1_control_len = 2,
        .pm_timer_len = 4,
        .gpe0_len = GPE0_LEN,
        .c2_latency = NOT_SUPPORTED,
        .c3_latency = NOT_SUPPORTED,
        .century = CMOS_CENTURY,
        .boot_arch = BOOT_LEGACY_DEVICES | BOOT_8042 | BOOT_NO_VGA,
        .flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON | FADT_RTC_S4 | FADT_RESET_REG |
                 FADT_PLATFORM_CLOCK,
        .reset_register = port(RESET_PORT, 1),
        .reset_value = RESET_VALUE,
        .x_facs = b->facs,
        .x_dsdt = b->dsdt,
        .x_pm1a_event = port(ICH9_PM_EVENT, 4),
        .x_pm1a_control = port(ICH9_PM_CONTROL, 2),
        .x_pm_timer = port(ICH9_PM_TIMER, 4),
        .x_gpe0 = port(ICH9_PM_GPE0, GPE0_LEN),
    };
    uint32_t table = begin_table(b, "FACP", 6);
    size_t at = b->a.len;

    f.x_pm1a_event.access = 2; /* two word registers */
    memcpy(f.hypervisor, "Ruche", 5);
    aml_bytes(&b->a, &f, sizeof(f));
    add_pointer(b, at + offsetof(struct fadt, facs), 4);
    add_pointer(b, at + offsetof(struct fadt, dsdt), 4);
    add_pointer(b, at + offsetof(struct fadt, x_facs), 8);
    add_pointer(b, at + offsetof(struct fadt, x_dsdt), 8);
    end_listed(b, table);
}

static void madt_override(struct builder *b, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    const struct {
        uint8_t type, length, bus, irq;
        uint32_t gsi;
        uint16_t flags;
    } __attribute__((packed)) e = {2, sizeof(e), 0, irq, gsi, flags};
    aml_bytes(&b->a, &e, sizeof(e));
}

static void build_madt(struct builder *b, const struct acpi_config *config)
{
    static const uint8_t level_irqs[] = {5, 9, 10, 11};
    const struct {
        uint32_t lapic, flags;
    } head = {LAPIC_BASE, MADT_PCAT_COMPAT};
    const struct {
        uint8_t type, length, id, reserved;
        uint32_t address, gsi_base;
    } ioapic = {1, sizeof(ioapic), 0, 0, IOAPIC_BASE, 0};
    static const uint8_t lint1_nmi[] = {4, 6, 0xff, 0, 0, 1}; /* every processor's LINT1 is NMI */
    uint32_t table = begin_table(b, "APIC", 3);

    aml_bytes(&b->a, &head, sizeof(head));
    for (unsigned i = 0; i < config->cpu_count; i++) {
        const struct {
            uint8_t type, length, uid, apic_id;
            uint32_t flags;
        } cpu = {0, sizeof(cpu), (uint8_t)i, (uint8_t)i, 1};
        aml_bytes(&b->a, &cpu, sizeof(cpu));
    }
    aml_bytes(&b->a, &ioapic, sizeof(ioapic));
    madt_override(b, 0, 2, 0); /* the timer arrives at input 2 */
    for (size_t i = 0; i < ARRAY_SIZE(level_irqs); i++)
        madt_override(b, level_irqs[i], level_irqs[i], MPS_ACTIVE_HIGH_LEVEL);
    aml_bytes(&b->a, lint1_nmi, sizeof(lint1_nmi));
    end_listed(b, table);
}

static void build_hpet(struct builder *b)
{
    const struct {
        uint32_t id;
        struct gas address;
        uint8_t number;
        uint16_t min_tick;
        uint8_t protection;
    } __attribute__((packed))
    h = {.id = HPET_BLOCK_ID, .address = {.space = GAS_MEMORY, .address = HPET_BASE}};
    uint32_t table = begin_table(b, "HPET", 1);

    aml_bytes(&b->a, &h, sizeof(h));
    end_listed(b, table);
}

static void build_mcfg(struct builder *b)
{
    const struct {
        uint64_t reserved, base;
        uint16_t segment;
        uint8_t first_bus, last_bus;
        uint32_t reserved1;
    } __attribute__((packed)) m = {.base = PCI_ECAM_BASE, .last_bus = PCI_ECAM_SIZE / MIB - 1};
    uint32_t table = begin_table(b, "MCFG", 1);

    aml_bytes(&b->a, &m, sizeof(m));
    end_listed(b, table);
}

static void build_waet(struct builder *b)
{
    const uint32_t flags = WAET_PM_TIMER_GOOD;
    uint32_t table = begin_table(b, "WAET", 1);

    aml_bytes(&b->a, &flags, sizeof(flags));
    end_listed(b, table);
}

/* RSDT (4-byte entries) or XSDT (8). */
static uint32_t build_root(struct builder *b, const char *signature, uint8_t entry_size)
{
    uint32_t table = begin_table(b, signature, 1);

    for (unsigned i = 0; i < b->listed_count; i++) {
        uint64_t entry = b->listed[i];
        add_pointer(b, b->a.len, entry_size);
        aml_bytes(&b->a, &entry, entry_size);
    }
    end_table(b, table);
    return table;
}

bool acpi_build(struct acpi_tables *t, const struct acpi_config *config, struct error **err)
{
    struct builder b = {.t = t};

    memset(t, 0, sizeof(*t));
    build_facs(&b);
    build_dsdt(&b, config);
    build_fadt(&b);
    build_madt(&b, config);
    build_hpet(&b);
    build_mcfg(&b);
    build_waet(&b);
    t->rsdt = build_root(&b, "RSDT", 4);
    t->xsdt = build_root(&b, "XSDT", 8);
    if (b.a.failed) {
        free(b.a.data);
        memset(t, 0, sizeof(*t));
        error_set_errno(err, ENOMEM, "cannot build ACPI tables");
        return false;
    }
    t->data = b.a.data;
    t->len = b.a.len;
    return true;
}

void acpi_free(struct acpi_tables *t)
{
    free(t->data);
    memset(t, 0, sizeof(*t));
}
