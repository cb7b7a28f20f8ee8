/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC-32C (Castagnoli): the checksum of what Ruche keeps in files. Any thread. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues the checksum `crc` (0 at the beginning) over data[0, len). */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
