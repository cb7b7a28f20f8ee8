/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kernel images made up for tests: small, right in every field, ready to be damaged. */
#ifndef TESTS_BOOT_IMAGES_H
#define TESTS_BOOT_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/boot/boot.h"
#include "vmm/boot/unpack.h"

#define IMAGE_BASE  0x200000u /* where made-up kernels are loaded */
#define IMAGE_ENTRY (IMAGE_BASE + 0x40)
#define IMAGE_CODE  5000u  /* bytes of file contents */
#define IMAGE_MEM   20000u /* with zeroes behind */

struct image {
    uint8_t data[256 * 1024];
    size_t len;
};

/* The byte at offset `i` of the code of every made-up kernel. */
uint8_t image_pattern(size_t i);

enum elf_extra { ELF_PLAIN, ELF_PVH, ELF_MULTIBOOT };
void image_elf(struct image *im, bool is_64, enum elf_extra extra);
/* Multiboot by addresses, preceded by `skip` bytes (a multiple of 4). */
void image_kludge(struct image *im, size_t skip);
/* A bzImage with a 64-bit ELF kernel as payload; UNPACK_UNKNOWN: no payload, as an image that is no Linux. */
void image_bzimage(struct image *im, enum unpack_format format);

/* The image as an open file under the name "image". */
struct boot_file image_file(const void *data, size_t len);

#endif
