/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Handing the tables to the guest: in place with true addresses, or as files with a script that has firmware
 * do the same (the "table-loader" of QEMU's fw_cfg interface, docs/specs/fw_cfg.rst and
 * hw/acpi/bios-linker-loader.c there define commands 1 allocate, 2 add pointer, 3 add checksum; 128 bytes
 * each).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "core/memory.h"
#include "vmm/acpi/acpi.h"
#include "vmm/acpi/aml.h"

#define CHECKSUM_OFFSET 9 /* in every table's header */
#define RSDP_V1_LEN     20
#define TABLES_FILE     "etc/acpi/tables"
#define RSDP_FILE       "etc/acpi/rsdp"
#define TABLES_ALIGN    64
#define RSDP_ALIGN      16

struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
} __attribute__((packed));
_Static_assert(sizeof(struct rsdp) == ACPI_RSDP_LEN, "RSDP");

static uint8_t checksum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + p[i]);
    return (uint8_t)-sum;
}

static struct rsdp make_rsdp(const struct acpi_tables *t, uint64_t base)
{
    struct rsdp r = {
        .revision = 2, .rsdt = (uint32_t)(base + t->rsdt), .length = sizeof(r), .xsdt = base + t->xsdt};

    memcpy(r.signature, "RSD PTR ", sizeof(r.signature));
    memcpy(r.oem_id, "RUCHE ", sizeof(r.oem_id));
    return r;
}

/* Adds `base` to every pointer and fills in the checksums, in a copy of the tables. */
static void relocate(const struct acpi_tables *t, uint8_t *copy, uint64_t base)
{
    for (unsigned i = 0; i < t->pointer_count; i++) {
        uint64_t value = 0;
        memcpy(&value, copy + t->pointer[i].offset, t->pointer[i].size);
        value += base;
        memcpy(copy + t->pointer[i].offset, &value, t->pointer[i].size);
    }
    for (unsigned i = 0; i < t->table_count; i++) {
        uint8_t *table = copy + t->table[i].offset;
        table[CHECKSUM_OFFSET] = checksum(table, t->table[i].length);
    }
}

bool acpi_place(const struct acpi_tables *t, struct guest_memory *mem, uint64_t gpa, uint64_t size,
                struct error **err)
{
    uint64_t base = gpa + round_up(ACPI_RSDP_LEN, TABLES_ALIGN);
    cleanup(mem) uint8_t *copy = malloc(t->len);

    if (!copy) {
        error_set_errno(err, ENOMEM, "cannot place ACPI tables");
        return false;
    }
    memcpy(copy, t->data, t->len);
    relocate(t, copy, base);
    struct rsdp r = make_rsdp(t, base);
    r.checksum = checksum((const uint8_t *)&r, RSDP_V1_LEN);
    r.extended_checksum = checksum((const uint8_t *)&r, sizeof(r));
    if (base - gpa + t->len > size || !guest_write(mem, gpa, &r, sizeof(r)) ||
        !guest_write(mem, base, copy, t->len)) {
        error_set(err, ENOSPC, "cannot place ACPI tables: %zu bytes do not fit at 0x%llx", t->len,
                  (unsigned long long)gpa);
        return false;
    }
    return true;
}

enum { LOADER_ALLOCATE = 1, LOADER_ADD_POINTER = 2, LOADER_ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

#define LOADER_NAME_LEN 56

struct loader_entry {
    uint32_t command;
    union {
        struct {
            char file[LOADER_NAME_LEN];
            uint32_t align;
            uint8_t zone;
        } __attribute__((packed)) allocate;
        struct {
            char dest[LOADER_NAME_LEN], source[LOADER_NAME_LEN];
            uint32_t offset;
            uint8_t size;
        } __attribute__((packed)) pointer;
        struct {
            char file[LOADER_NAME_LEN];
            uint32_t offset, start, length;
        } __attribute__((packed)) checksum;
        uint8_t pad[124];
    };
} __attribute__((packed));
_Static_assert(sizeof(struct loader_entry) == 128, "loader entries are 128 bytes");

static void set_name(char field[LOADER_NAME_LEN], const char *name)
{
    snprintf(field, LOADER_NAME_LEN, "%s", name);
}

static void allocate(struct aml *out, const char *file, uint32_t align, uint8_t zone)
{
    struct loader_entry e = {.command = LOADER_ALLOCATE, .allocate = {.align = align, .zone = zone}};

    set_name(e.allocate.file, file);
    aml_bytes(out, &e, sizeof(e));
}

static void add_pointer(struct aml *out, const char *dest, uint32_t offset, uint8_t size)
{
    struct loader_entry e = {.command = LOADER_ADD_POINTER, .pointer = {.offset = offset, .size = size}};

    set_name(e.pointer.dest, dest);
    set_name(e.pointer.source, TABLES_FILE);
    aml_bytes(out, &e, sizeof(e));
}

static void add_checksum(struct aml *out, const char *file, uint32_t offset, uint32_t start, uint32_t length)
{
    struct loader_entry e = {.command = LOADER_ADD_CHECKSUM,
                             .checksum = {.offset = offset, .start = start, .length = length}};

    set_name(e.checksum.file, file);
    aml_bytes(out, &e, sizeof(e));
}

static void write_script(struct aml *out, const struct acpi_tables *t)
{
    allocate(out, RSDP_FILE, RSDP_ALIGN, ZONE_FSEG);
    allocate(out, TABLES_FILE, TABLES_ALIGN, ZONE_HIGH);
    for (unsigned i = 0; i < t->pointer_count; i++)
        add_pointer(out, TABLES_FILE, t->pointer[i].offset, t->pointer[i].size);
    for (unsigned i = 0; i < t->table_count; i++)
        add_checksum(out, TABLES_FILE, t->table[i].offset + CHECKSUM_OFFSET, t->table[i].offset,
                     t->table[i].length);
    add_pointer(out, RSDP_FILE, offsetof(struct rsdp, rsdt), 4);
    add_pointer(out, RSDP_FILE, offsetof(struct rsdp, xsdt), 8);
    add_checksum(out, RSDP_FILE, offsetof(struct rsdp, checksum), 0, RSDP_V1_LEN);
    add_checksum(out, RSDP_FILE, offsetof(struct rsdp, extended_checksum), 0, ACPI_RSDP_LEN);
}

bool acpi_firmware_files(const struct acpi_tables *t, struct acpi_firmware_files *out, struct error **err)
{
    struct aml tables = {0}, rsdp = {0}, loader = {0};
    struct rsdp r = make_rsdp(t, 0);

    aml_bytes(&tables, t->data, t->len);
    aml_bytes(&rsdp, &r, sizeof(r));
    write_script(&loader, t);
    *out =
        (struct acpi_firmware_files){tables.data, rsdp.data, loader.data, tables.len, rsdp.len, loader.len};
    if (tables.failed || rsdp.failed || loader.failed) {
        acpi_firmware_files_free(out);
        error_set_errno(err, ENOMEM, "cannot build ACPI tables");
        return false;
    }
    return true;
}

void acpi_firmware_files_free(struct acpi_firmware_files *f)
{
    free(f->tables);
    free(f->rsdp);
    free(f->loader);
    *f = (struct acpi_firmware_files){0};
}
