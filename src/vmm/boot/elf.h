/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ELF executables (32- and 64-bit x86), as far as loading by physical address needs them. The input is
 * hostile. */
#ifndef VMM_BOOT_ELF_H
#define VMM_BOOT_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/boot/space.h"

#define ELF_SEGMENT_MAX 32
/* How much of a file, from its beginning, holds all headers that are looked at. */
#define ELF_HEAD_MAX (64 * 1024)

struct elf_segment {
    uint64_t offset, file_size; /* in the file */
    uint64_t address, size;     /* physical; size >= file_size */
    uint64_t virtual_address;
    bool load; /* PT_LOAD, otherwise PT_NOTE */
};

struct elf_image {
    bool is_64;
    uint64_t entry;
    unsigned count;
    struct elf_segment segment[ELF_SEGMENT_MAX]; /* PT_LOAD and PT_NOTE only; empty ones left out */
};

bool elf_is_elf(const uint8_t *head, size_t len);

/*
 * Reads the headers in head[0, len) of a file of `file_size` bytes (UINT64_MAX when it is not known). After
 * success every segment lies within the file and no address wraps. `name` begins messages.
 */
bool elf_parse(struct elf_image *elf, const uint8_t *head, size_t len, uint64_t file_size, const char *name,
               struct error **err);

/* Claims the memory of every PT_LOAD and zeroes what lies beyond the file's part. */
bool elf_claim(const struct elf_image *elf, struct boot_space *s, const char *name, struct error **err);

/* Puts bytes [offset, offset + len) of the file where the segments want them. After elf_claim. */
void elf_scatter(const struct elf_image *elf, struct boot_space *s, uint64_t offset, const uint8_t *data,
                 size_t len);

/* Claims and loads every PT_LOAD of a file that is not compressed. */
bool elf_load(const struct elf_image *elf, struct boot_space *s, const struct boot_file *f,
              struct error **err);

/* Does [address, address + 1) lie in a loaded segment? */
bool elf_covers(const struct elf_image *elf, uint64_t address);

#endif
