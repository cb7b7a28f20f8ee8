/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine's SMBIOS tables (DMTF DSP0134, SMBIOS 3.0): who made it, its processor and its memory, as
 * inventory programs show them. Given to the guest in two ways, as the ACPI tables are: in place where
 * kernels look for them without firmware, and as fw_cfg files for firmware.
 */
#ifndef VMM_SMBIOS_H
#define VMM_SMBIOS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct guest_memory;

struct smbios_config {
    uint8_t uuid[16];       /* bytes in the order in which a UUID is written */
    unsigned cpu_count;     /* cores of the one processor package */
    uint32_t cpu_id[2];     /* EAX and EDX of CPUID leaf 1 */
    const char *cpu_vendor; /* not empty, as is cpu_name */
    const char *cpu_name;
    uint64_t ram_size, ram_low; /* bytes; all, and what of it is below 4 GiB */
};

/* "_SM3_": points to the tables and has the checksum of itself. */
struct smbios_anchor {
    char magic[5];
    uint8_t checksum, length, major, minor, docrev, revision, reserved;
    uint32_t tables_len;
    uint64_t tables; /* guest address; 0 until they are placed */
} __attribute__((packed));

struct smbios {
    struct smbios_anchor anchor;
    uint8_t *tables; /* owned */
};

bool smbios_build(struct smbios *s, const struct smbios_config *config, struct error **err);
void smbios_free(struct smbios *s);

/*
 * Writes the anchor at `gpa` and the tables after it, within [gpa, gpa + size). Kernels look for the anchor
 * on multiples of 16 from 0xf0000 to 0xfffff.
 */
bool smbios_place(const struct smbios *s, struct guest_memory *mem, uint64_t gpa, uint64_t size,
                  struct error **err);

#endif
