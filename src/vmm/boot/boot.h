/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loading a machine without firmware: Linux bzImage, Multiboot 1, PVH. A loader writes guest memory and says
 * in what state the first processor enters. Everything read from files is hostile. No vCPU runs meanwhile.
 */
#ifndef VMM_BOOT_BOOT_H
#define VMM_BOOT_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/boot/entry.h"
#include "vmm/boot/file.h"
#include "vmm/boot/space.h"

#define BOOT_MODULE_MAX 64

struct boot_module {
    struct boot_file file;
    char *string; /* the file's name and its command line; owned */
};

/* What to boot. Files stay open, for loading again at reset. */
struct boot_source {
    struct boot_file kernel;
    struct boot_file initrd; /* name NULL: none */
    struct boot_module module[BOOT_MODULE_MAX];
    unsigned module_count;
    char *cmdline; /* owned; NULL: none */
};

/* An empty source; the three below add to it, and boot_source_free releases all. */
void boot_source_init(struct boot_source *src);
void boot_source_free(struct boot_source *src);

/*
 * `spec` is a file's name, followed after a space by a command line for it. (A file whose name has spaces is
 * found when it is given without a command line.)
 */
bool boot_source_add_module(struct boot_source *src, const char *spec, struct error **err);

/*
 * Loads everything. `fresh`: guest RAM is zero and untouched. `rsdp`: guest address of the ACPI root pointer,
 * 0 when there is none. On failure guest memory may be partly written.
 */
bool boot_load(const struct boot_source *src, struct guest_memory *mem, bool fresh, uint64_t rsdp,
               struct boot_entry *entry, struct error **err);

/* For the loaders, one file each. */
struct boot_job {
    const struct boot_source *src;
    struct boot_space space;
    uint64_t rsdp;
    struct boot_entry *entry;
    const uint8_t *head; /* the kernel file's first head_len bytes (at most 64 KiB) */
    size_t head_len;
};

bool linux_probe(const struct boot_job *job);
bool linux_load(struct boot_job *job, struct error **err);
bool multiboot_probe(const struct boot_job *job);
bool multiboot_load(struct boot_job *job, struct error **err);
/* Whether an ELF file offers a PVH entry is found only in loading it. */
bool pvh_load(struct boot_job *job, struct error **err);

/* Finds room below 4 GiB for a string with its NUL, writes it and returns its address. */
uint64_t boot_put_string(struct boot_job *job, const char *text, const char *what, struct error **err);

#endif
