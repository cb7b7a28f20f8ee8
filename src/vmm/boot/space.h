/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a loader puts things. A boot_space keeps account of guest RAM while a machine is loaded: what was
 * claimed for what, so that images that overlap each other, the loader's own tables or no RAM at all are
 * refused by name. Used with no vCPU running.
 */
#ifndef VMM_BOOT_SPACE_H
#define VMM_BOOT_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/memory.h"
#include "vmm/boot/file.h"

struct error;

/*
 * The first MiB: the BIOS data area has the first page for itself, as operating systems leave that page
 * alone; the end of usable low memory; where firmware tables and the RSDP lie.
 */
#define BOOT_LOW_START     0x1000u
#define BOOT_LOW_END       0x9fc00u
#define BOOT_FIRMWARE      0xe0000u
#define BOOT_FIRMWARE_SIZE 0x20000u
#define BOOT_SMBIOS        0xf0000u /* in its second half, where kernels look for it */
#define BOOT_HIGH_START    0x100000u

#define BOOT_CLAIM_MAX 256
#define BOOT_NOWHERE   UINT64_MAX

struct boot_claim {
    uint64_t start, end;
    const char *what; /* a literal */
};

struct boot_space {
    struct guest_memory *mem;
    bool fresh; /* RAM reads as zero and nothing was touched yet: zeroes need not be written */
    unsigned count;
    struct boot_claim claim[BOOT_CLAIM_MAX];
};

/* Claims what no image may use: the first page, and 639 KiB to 1 MiB. */
void boot_space_init(struct boot_space *s, struct guest_memory *mem, bool fresh);

/* Claims [gpa, gpa + len) for `what`; it must be RAM and free. `who` (a file) begins the message. */
bool boot_space_claim(struct boot_space *s, uint64_t gpa, uint64_t len, const char *what, const char *who,
                      struct error **err);

/*
 * Finds and claims `len` bytes at a multiple of `align` within [min, max): the lowest place, or the highest
 * when `top`. BOOT_NOWHERE and *err when there is none.
 */
uint64_t boot_space_find(struct boot_space *s, uint64_t len, uint64_t align, uint64_t min, uint64_t max,
                         bool top, const char *what, struct error **err);

/* Writes to claimed RAM; whole pages of zeroes are left alone while RAM is fresh. The range must be RAM. */
void boot_space_write(struct boot_space *s, uint64_t gpa, const void *data, uint64_t len);
void boot_space_zero(struct boot_space *s, uint64_t gpa, uint64_t len);

/* Reads part of a file straight into claimed RAM. */
bool boot_space_load(struct boot_space *s, uint64_t gpa, const struct boot_file *f, uint64_t offset,
                     uint64_t len, struct error **err);

/* What the guest is told about memory. Types are those of the BIOS call E820h. */
enum boot_memory_type { BOOT_MEM_RAM = 1, BOOT_MEM_RESERVED = 2 };
struct boot_memory_range {
    uint64_t start, size;
    enum boot_memory_type type;
};
#define BOOT_MEMORY_MAP_MAX 8

/* Fills map[] in ascending order and returns the number of entries. */
unsigned boot_memory_map(const struct guest_memory *mem, struct boot_memory_range map[BOOT_MEMORY_MAP_MAX]);

#endif
