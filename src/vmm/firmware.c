/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What firmware does on other machines: set up PCI, tables for the operating system, and load it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "device/pci/pci.h"
#include "device/platform/fw_cfg.h"
#include "device/platform/vmgenid.h"
#include "vmm/board.h"

#define PCI_HOLE_BASE 0x80000000u
#define PCI64_LEN     (32 * GIB)
_Static_assert(VMGENID_ADDRESS > BOOT_FIRMWARE && VMGENID_ADDRESS + GUEST_PAGE_SIZE <= BOOT_SMBIOS,
               "the generation ID is where no tables come");
#define BDA_EBDA   0x40e /* segment of the extended BIOS data area */
#define BDA_MEMORY 0x413 /* KiB below it */

#define MTRR_UNCACHED      0u
#define MTRR_WRITE_PROTECT 5u
#define MTRR_WRITE_BACK    6u
#define MTRR_ENABLE        (BIT(11) | BIT(10)) /* all, and the fixed ranges */
#define MTRR_VALID         BIT(11)
#define SVR_ENABLE         BIT(8)
#define LVT_EXTINT_LEVEL   0x8700u
#define LVT_NMI_LEVEL      0x8400u

static bool open_files(struct board *b, struct error **err)
{
    const struct machine_config *c = b->config;

    boot_source_init(&b->boot);
    if (!boot_file_open(&b->boot.kernel, c->kernel, err))
        return false;
    if (c->initrd && !boot_file_open(&b->boot.initrd, c->initrd, err))
        return false;
    for (unsigned i = 0; i < c->module_count; i++)
        if (!boot_source_add_module(&b->boot, c->module[i], err))
            return false;
    if (c->cmdline && !(b->boot.cmdline = strdup(c->cmdline))) {
        error_set_errno(err, ENOMEM, "cannot keep the command line");
        return false;
    }
    return true;
}

/* What SMBIOS says of the processor is what CPUID says. */
static bool build_smbios(struct board *b, struct error **err)
{
    uint32_t id[4], vendor[4];
    char vendor_text[13] = {0}, name[49] = {0};

    cpuid_model_query(&b->cpu, 1, 0, 0, 0, 1, id);
    cpuid_model_query(&b->cpu, 0, 0, 0, 0, 1, vendor);
    for (unsigned i = 0; i < 3; i++) {
        static const uint8_t order[3] = {1, 3, 2}; /* EBX, EDX, ECX */
        uint32_t part[4];
        store_le32(vendor_text + 4 * (size_t)i, vendor[order[i]]);
        cpuid_model_query(&b->cpu, 0x80000002 + i, 0, 0, 0, 1, part);
        memcpy(name + sizeof(part) * i, part, sizeof(part));
    }
    struct smbios_config config = {
        .cpu_count = b->m.cpu_count,
        .cpu_id = {id[0], id[3]},
        .cpu_vendor = vendor_text,
        .cpu_name = *name ? name : "processor",
        .ram_size = b->m.memory->ram_size,
        .ram_low = b->m.memory->ram_low,
    };
    memcpy(config.uuid, b->m.uuid, sizeof(config.uuid));
    return smbios_build(&b->smbios, &config, err);
}

static bool build_tables(struct board *b, struct error **err)
{
    const struct guest_memory *mem = b->m.memory;
    uint64_t ram_end = 4 * GIB + mem->ram_size - mem->ram_low;
    struct acpi_config config = {.cpu_count = b->m.cpu_count,
                                 .pci32_base = PCI_HOLE_BASE,
                                 .pci32_end = PCI_MMIO32_END,
                                 .pci64_base = round_up(ram_end, GIB),
                                 .pci64_len = PCI64_LEN};

    if (!range_fits(config.pci64_base, config.pci64_len, BIT(b->cpu.phys_bits)))
        config.pci64_len = 0;
    return acpi_build(&b->acpi, &config, err) && build_smbios(b, err);
}

bool firmware_prepare(struct board *b, struct error **err)
{
    return open_files(b, err) && build_tables(b, err);
}

bool firmware_prepare_saved(struct board *b, struct error **err)
{
    struct error *why = NULL;

    if (!open_files(b, &why)) {
        log_line(LOG_WARN, "a reset will end this machine: %s", error_text(why));
        error_free(why);
        boot_source_free(&b->boot);
    }
    return build_tables(b, err);
}

static bool add_acpi_files(struct board *b, struct error **err)
{
    struct acpi_firmware_files f;

    if (!acpi_firmware_files(&b->acpi, &f, err))
        return false;
    bool ok = fw_cfg_add_file(b->m.fw_cfg, "etc/acpi/tables", f.tables, f.tables_len, err) &&
              fw_cfg_add_file(b->m.fw_cfg, "etc/acpi/rsdp", f.rsdp, f.rsdp_len, err) &&
              fw_cfg_add_file(b->m.fw_cfg, "etc/table-loader", f.loader, f.loader_len, err);
    acpi_firmware_files_free(&f);
    return ok;
}

static bool add_smbios_files(struct board *b, struct error **err)
{
    const struct smbios *s = &b->smbios;

    return fw_cfg_add_file(b->m.fw_cfg, "etc/smbios/smbios-anchor", &s->anchor, sizeof(s->anchor), err) &&
           fw_cfg_add_file(b->m.fw_cfg, "etc/smbios/smbios-tables", s->tables, s->anchor.tables_len, err);
}

/* RAM as firmware wants to know it: start, length, type 1. */
static bool add_e820(struct board *b, struct error **err)
{
    const struct guest_memory *mem = b->m.memory;
    struct {
        uint64_t start, length;
        uint32_t type;
    } __attribute__((packed))
    entry[] = {{0, mem->ram_low, BOOT_MEM_RAM}, {4 * GIB, mem->ram_size - mem->ram_low, BOOT_MEM_RAM}};
    size_t count = entry[1].length ? 2 : 1;

    return fw_cfg_add_file(b->m.fw_cfg, "etc/e820", entry, count * sizeof(entry[0]), err);
}

bool firmware_fill_fw_cfg(struct board *b, struct error **err)
{
    /* Which sleep states there are: bit 7 of entry 1..5, with its type; only S5. */
    static const uint8_t system_states[6] = {0x80, 0, 0, 1, 2, 0x80};
    struct device *f = b->m.fw_cfg;

    return fw_cfg_add(f, FW_CFG_UUID, b->m.uuid, sizeof(b->m.uuid), err) &&
           fw_cfg_add_number(f, FW_CFG_RAM_SIZE, b->m.memory->ram_size, 8, err) &&
           fw_cfg_add_number(f, FW_CFG_NOGRAPHIC, 1, 2, err) &&
           fw_cfg_add_number(f, FW_CFG_NB_CPUS, b->m.cpu_count, 2, err) &&
           fw_cfg_add_number(f, FW_CFG_MAX_CPUS, b->m.cpu_count, 2, err) &&
           fw_cfg_add_number(f, FW_CFG_BOOT_MENU, 0, 2, err) &&
           fw_cfg_add_number(f, FW_CFG_IRQ0_OVERRIDE, 1, 4, err) &&
           fw_cfg_add_file(f, "etc/system-states", system_states, sizeof(system_states), err) &&
           add_e820(b, err) && add_acpi_files(b, err) && add_smbios_files(b, err);
}

/* The two fields of the BIOS data area that kernels read to find the end of low memory. */
static void write_bda(struct guest_memory *mem)
{
    uint16_t ebda = BOOT_LOW_END >> 4, kib = BOOT_LOW_END / KIB;

    guest_write(mem, BDA_EBDA, &ebda, sizeof(ebda));
    guest_write(mem, BDA_MEMORY, &kib, sizeof(kib));
}

/* The same memory type for all eight parts of a fixed-range register. */
static uint64_t all_parts(uint64_t type)
{
    return type * 0x0101010101010101u;
}

/* Memory types: RAM is cached, the video window and the hole below 4 GiB are not. The same on every
 * processor. */
static void set_memory_types(struct x86_state *s, unsigned phys_bits)
{
    s->mtrr_def_type = MTRR_ENABLE | MTRR_WRITE_BACK;
    s->mtrr_fixed[0] = s->mtrr_fixed[1] = all_parts(MTRR_WRITE_BACK); /* 0 to 0x9ffff */
    s->mtrr_fixed[2] = all_parts(MTRR_UNCACHED);                      /* 0xa0000 to 0xbffff */
    for (int i = 3; i < 11; i++)
        s->mtrr_fixed[i] = all_parts(MTRR_WRITE_PROTECT); /* 0xc0000 to 0xfffff */
    s->mtrr_base[0] = PCI_HOLE_BASE | MTRR_UNCACHED;
    s->mtrr_mask[0] = ((BIT(phys_bits) - 1) & ~(uint64_t)(PCI_HOLE_BASE - 1)) | MTRR_VALID;
}

/* The processor as firmware leaves it; the first one takes interrupts from the PIC ("virtual wire mode"). */
static bool start_processor(struct board *b, unsigned index, const struct boot_entry *entry,
                            struct error **err)
{
    struct vcpu *cpu = vcpus_get(b->vcpus, index);
    struct x86_state *state = aligned_alloc(_Alignof(struct x86_state), sizeof(*state));

    if (!state) {
        error_set_errno(err, ENOMEM, "cannot start processor %u", index);
        return false;
    }
    b->ops->get_state(cpu, state);
    set_memory_types(state, b->cpu.phys_bits);
    if (index == 0) {
        state->lapic.svr |= SVR_ENABLE;
        state->lapic.lvt_lint0 = LVT_EXTINT_LEVEL;
        state->lapic.lvt_lint1 = LVT_NMI_LEVEL;
        boot_entry_apply(entry, state);
    }
    bool ok = b->ops->set_state(cpu, state, err);
    free(state);
    return ok;
}

bool firmware_start(struct board *b, bool fresh, struct error **err)
{
    struct guest_memory *mem = b->m.memory;
    struct boot_entry entry;

    if (b->boot.kernel.fd < 0) {
        error_set(err, ENOENT, "what it was booted from is not there");
        return false;
    }
    pci_assign_resources(&b->m);
    write_bda(mem);
    if (!acpi_place(&b->acpi, mem, BOOT_FIRMWARE, VMGENID_ADDRESS - BOOT_FIRMWARE, err) ||
        !smbios_place(&b->smbios, mem, BOOT_SMBIOS, BOOT_FIRMWARE + BOOT_FIRMWARE_SIZE - BOOT_SMBIOS, err) ||
        !boot_load(&b->boot, mem, fresh, BOOT_FIRMWARE, &entry, err))
        return false;
    for (unsigned i = 0; i < b->m.cpu_count; i++)
        if (!start_processor(b, i, &entry, err))
            return false;
    return true;
}
