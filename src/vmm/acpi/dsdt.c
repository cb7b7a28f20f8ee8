/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The DSDT: the board's devices and what they decode, for operating systems that learn it from ACPI. */
#include <stdio.h>

#include "base/util.h"
#include "device/pci/pci.h"
#include "device/platform/ich9_pm.h"
#include "device/platform/vmgenid.h"
#include "vmm/acpi/acpi.h"
#include "vmm/acpi/aml.h"

#define PM_LEN      0x80
#define FW_CFG_BASE 0x510
#define FW_CFG_LEN  12
#define PVPANIC     0x505
#define HPET_BASE   0xfed00000u
#define HPET_LEN    0x400

#define STA_PRESENT 0x0f
#define STA_HIDDEN  0x0b

#define NOTIFY_CHANGED 0x80 /* "status change" of the device's own kind */

enum { OSC_BAD_UUID = 4, OSC_BAD_REVISION = 8, OSC_MASKED = 0x10, OSC_KNOWN = 0x1f };

static void osc_field(struct aml *a, unsigned offset, const char *name)
{
    aml_op(a, AML_CREATE_DWORD_FIELD);
    aml_op(a, AML_ARG0 + 3);
    aml_int(a, offset);
    aml_path(a, name);
}

static void osc_set_status(struct aml *a, unsigned bit)
{
    aml_op(a, AML_OR);
    aml_path(a, "CDW1");
    aml_int(a, bit);
    aml_path(a, "CDW1");
}

/* What follows _OSC's test of the UUID: Local0 = CDW3 & OSC_KNOWN, complaints into CDW1, CDW3 = Local0. */
static void osc_answer(struct aml *a)
{
    aml_op(a, AML_AND);
    aml_path(a, "CDW3");
    aml_int(a, OSC_KNOWN);
    aml_op(a, AML_LOCAL0);

    aml_block(a, AML_IF);
    aml_op(a, AML_NOT);
    aml_op(a, AML_EQUAL);
    aml_op(a, AML_ARG0 + 1);
    aml_int(a, 1);
    osc_set_status(a, OSC_BAD_REVISION);
    aml_end(a);

    aml_block(a, AML_IF);
    aml_op(a, AML_NOT);
    aml_op(a, AML_EQUAL);
    aml_path(a, "CDW3");
    aml_op(a, AML_LOCAL0);
    osc_set_status(a, OSC_MASKED);
    aml_end(a);

    aml_op(a, AML_STORE);
    aml_op(a, AML_LOCAL0);
    aml_path(a, "CDW3");
}

/* Method (_OSC): the operating system may have every PCI Express feature that it asks for and that is known.
 */
static void osc_method(struct aml *a)
{
    aml_method(a, "_OSC", 4, true);
    osc_field(a, 0, "CDW1");
    aml_block(a, AML_IF);
    aml_op(a, AML_EQUAL);
    aml_op(a, AML_ARG0);
    aml_uuid(a, "33db4d5b-1ff7-401c-9657-7441c03dd766");
    osc_field(a, 8, "CDW3"); /* only this UUID promises a third doubleword */
    osc_answer(a);
    aml_end(a);
    aml_block(a, AML_ELSE);
    osc_set_status(a, OSC_BAD_UUID);
    aml_end(a);
    aml_op(a, AML_RETURN);
    aml_op(a, AML_ARG0 + 3);
    aml_end(a);
}

/* Where each of a slot's four pins arrives: straight at the interrupt controller's inputs. */
static void routing_table(struct aml *a, const char *path, unsigned (*input)(uint8_t devfn, unsigned pin))
{
    enum { SLOTS = 32, PINS = 4 };

    aml_name(a, path);
    aml_package(a, SLOTS * PINS);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        for (unsigned pin = 0; pin < PINS; pin++) {
            aml_package(a, 4);
            aml_int(a, slot << 16 | 0xffff);
            aml_int(a, pin);
            aml_int(a, 0);
            aml_int(a, input(PCI_DEVFN(slot, 0), pin + 1));
            aml_end(a);
        }
    }
    aml_end(a);
}

/* Method (_PRT): by the interrupt controller that the operating system has named to _PIC. */
static void interrupt_routing(struct aml *a)
{
    routing_table(a, "PRTP", pci_intx_isa_line);
    routing_table(a, "PRTA", pci_intx_gsi);
    aml_method(a, "_PRT", 0, false);
    aml_block(a, AML_IF);
    aml_path(a, "\\PICM");
    aml_op(a, AML_RETURN);
    aml_path(a, "PRTA");
    aml_end(a);
    aml_op(a, AML_RETURN);
    aml_path(a, "PRTP");
    aml_end(a);
}

/* Method (_PIC): 0 the PIC, 1 the I/O APIC; the former until it is called. */
static void interrupt_model(struct aml *a)
{
    aml_name_int(a, "PICM", 0);
    aml_method(a, "_PIC", 1, true);
    aml_op(a, AML_STORE);
    aml_op(a, AML_ARG0);
    aml_path(a, "PICM");
    aml_end(a);
}

static void bridge_windows(struct aml *a, const struct acpi_config *config)
{
    struct aml t = {0};

    aml_res_bus_window(&t, 0, PCI_ECAM_SIZE / MIB);
    aml_res_port(&t, 0xcf8, 8);
    aml_res_port_window(&t, 0, 0xcf8);
    aml_res_port_window(&t, 0xd00, 0xf300);
    aml_res_memory_window32(&t, 0xa0000, 0x20000);
    if (config->pci32_base < PCI_ECAM_BASE)
        aml_res_memory_window32(&t, config->pci32_base, PCI_ECAM_BASE - config->pci32_base);
    aml_res_memory_window32(&t, PCI_ECAM_BASE + PCI_ECAM_SIZE,
                            config->pci32_end - (PCI_ECAM_BASE + PCI_ECAM_SIZE));
    if (config->pci64_len)
        aml_res_memory_window64(&t, config->pci64_base, config->pci64_len);
    aml_name(a, "_CRS");
    aml_resources(a, &t);
}

/* An ISA device with up to two port ranges and an interrupt. */
struct isa_device {
    const char *path, *hid;
    uint16_t port[2];
    uint8_t port_len, irq, uid;
};

static void isa_device(struct aml *a, const struct isa_device *d)
{
    struct aml t = {0};

    aml_device(a, d->path);
    aml_name(a, "_HID");
    aml_eisa_id(a, d->hid);
    if (d->uid)
        aml_name_int(a, "_UID", d->uid);
    aml_name_int(a, "_STA", STA_PRESENT);
    for (size_t i = 0; i < ARRAY_SIZE(d->port); i++)
        if (d->port[i])
            aml_res_port(&t, d->port[i], d->port_len);
    if (d->irq)
        aml_res_irq(&t, d->irq);
    aml_name(a, "_CRS");
    aml_resources(a, &t);
    aml_end(a);
}

static void isa_bridge(struct aml *a)
{
    static const struct isa_device devices[] = {
        {"RTC", "PNP0B00", {0x70}, 8, 8, 0},
        {"KBD", "PNP0303", {0x60, 0x64}, 1, 1, 0},
        {"MOU", "PNP0F13", {0}, 0, 12, 0},
        {"COM1", "PNP0501", {0x3f8}, 8, 4, 1},
    };

    aml_device(a, "ISA");
    aml_name_int(a, "_ADR", PCI_SLOT_OF(PCI_LPC_DEVFN) << 16);
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
        isa_device(a, &devices[i]);
    aml_end(a);
}

static void pci_bridge(struct aml *a, const struct acpi_config *config)
{
    aml_device(a, "PCI0");
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0A08");
    aml_name(a, "_CID");
    aml_eisa_id(a, "PNP0A03");
    aml_name_int(a, "_UID", 0);
    osc_method(a);
    bridge_windows(a, config);
    interrupt_routing(a);
    isa_bridge(a);
    aml_end(a);
}

/* What the board decodes outside of any other device: operating systems keep off it. */
static void motherboard(struct aml *a)
{
    struct aml t = {0};

    aml_device(a, "MBRD");
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0C02");
    aml_name_int(a, "_UID", 1);
    aml_res_memory32(&t, true, PCI_ECAM_BASE, PCI_ECAM_SIZE);
    aml_res_port(&t, ICH9_PM_BASE, PM_LEN);
    aml_name(a, "_CRS");
    aml_resources(a, &t);
    aml_end(a);
}

static void hpet(struct aml *a)
{
    struct aml t = {0};

    aml_device(a, "HPET");
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0103");
    aml_name_int(a, "_UID", 0);
    aml_res_memory32(&t, false, HPET_BASE, HPET_LEN);
    aml_name(a, "_CRS");
    aml_resources(a, &t);
    aml_end(a);
}

/* A device known by a QEMU id that has nothing but ports. */
static void port_device(struct aml *a, const char *path, const char *hid, uint8_t sta, uint16_t port,
                        uint8_t len)
{
    struct aml t = {0};

    aml_device(a, path);
    aml_name_string(a, "_HID", hid);
    aml_name_int(a, "_STA", sta);
    aml_res_port(&t, port, len);
    aml_name(a, "_CRS");
    aml_resources(a, &t);
    aml_end(a);
}

/* Operating systems know it by its compatible ID. ADDR: low and high half of the address. */
static void generation_id(struct aml *a)
{
    aml_device(a, "VGEN");
    aml_name_string(a, "_HID", "RUCH0001");
    aml_name_string(a, "_CID", "VM_Gen_Counter");
    aml_name_string(a, "_DDN", "VM_Gen_Counter");
    aml_name_int(a, "_STA", STA_PRESENT);
    aml_name(a, "ADDR");
    aml_package(a, 2);
    aml_int(a, VMGENID_ADDRESS);
    aml_int(a, 0);
    aml_end(a);
    aml_end(a);
}

/* The method that the ID's bit of GPE0 has called: its name ends with the bit's number. */
static void generation_event(struct aml *a)
{
    char name[5];

    snprintf(name, sizeof(name), "_E%02X", VMGENID_GPE);
    aml_scope(a, "\\_GPE");
    aml_method(a, name, 0, false);
    aml_op(a, AML_NOTIFY);
    aml_path(a, "\\_SB.VGEN");
    aml_int(a, NOTIFY_CHANGED);
    aml_end(a);
    aml_end(a);
}

static void processors(struct aml *a, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char path[5];
        snprintf(path, sizeof(path), "C%03X", i & 0xfff);
        aml_device(a, path);
        aml_name_string(a, "_HID", "ACPI0007");
        aml_name_int(a, "_UID", i);
        aml_name_int(a, "_STA", STA_PRESENT);
        aml_end(a);
    }
}

static void soft_off(struct aml *a)
{
    aml_name(a, "_S5");
    aml_package(a, 4);
    aml_int(a, ICH9_SLEEP_TYPE_S5); /* PM1a and PM1b control, two reserved */
    for (int i = 0; i < 3; i++)
        aml_int(a, 0);
    aml_end(a);
}

void acpi_write_dsdt(struct aml *a, const struct acpi_config *config)
{
    interrupt_model(a);
    aml_scope(a, "\\_SB");
    pci_bridge(a, config);
    motherboard(a);
    hpet(a);
    port_device(a, "FWCF", "QEMU0002", STA_HIDDEN, FW_CFG_BASE, FW_CFG_LEN);
    port_device(a, "PEVT", "QEMU0001", STA_PRESENT, PVPANIC, 1);
    generation_id(a);
    processors(a, config->cpu_count);
    aml_end(a);
    generation_event(a);
    soft_off(a);
}
