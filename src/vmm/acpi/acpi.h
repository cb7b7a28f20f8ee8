/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine's ACPI tables (ACPI 6.4). They are built once, as one block with offsets for pointers, and
 * given to the guest in two ways: in place below 1 MiB for a kernel that is loaded directly, and as fw_cfg
 * files with a loader script for firmware.
 */
#ifndef VMM_ACPI_ACPI_H
#define VMM_ACPI_ACPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct guest_memory;

struct acpi_config {
    unsigned cpu_count;
    /* Where PCI memory may be: below 4 GiB (on either side of ECAM), and above all RAM (length 0: none). */
    uint32_t pci32_base, pci32_end;
    uint64_t pci64_base, pci64_len;
};

#define ACPI_TABLE_MAX   16
#define ACPI_POINTER_MAX 40
#define ACPI_RSDP_LEN    36

/* A pointer of `size` bytes at `offset`, which holds the offset of what it points to. */
struct acpi_pointer {
    uint32_t offset;
    uint8_t size;
};

/* One table, for its checksum (at byte 9 of it); length 0 bytes are none. */
struct acpi_table {
    uint32_t offset, length;
};

struct acpi_tables {
    uint8_t *data; /* owned */
    size_t len;
    struct acpi_pointer pointer[ACPI_POINTER_MAX];
    unsigned pointer_count;
    struct acpi_table table[ACPI_TABLE_MAX];
    unsigned table_count;
    uint32_t rsdt, xsdt; /* offsets */
};

bool acpi_build(struct acpi_tables *t, const struct acpi_config *config, struct error **err);
void acpi_free(struct acpi_tables *t);

/*
 * Writes the root pointer at the beginning of [gpa, gpa + size) and the tables after it, with true addresses
 * and checksums. `gpa` is a multiple of 64.
 */
bool acpi_place(const struct acpi_tables *t, struct guest_memory *mem, uint64_t gpa, uint64_t size,
                struct error **err);

/* The three fw_cfg files "etc/acpi/tables", "etc/acpi/rsdp" and "etc/table-loader". */
struct acpi_firmware_files {
    uint8_t *tables, *rsdp, *loader; /* owned */
    size_t tables_len, rsdp_len, loader_len;
};
bool acpi_firmware_files(const struct acpi_tables *t, struct acpi_firmware_files *out, struct error **err);
void acpi_firmware_files_free(struct acpi_firmware_files *f);

/* Within acpi/: the DSDT's contents behind its header. */
struct aml;
void acpi_write_dsdt(struct aml *a, const struct acpi_config *config);

#endif
