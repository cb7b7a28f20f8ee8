/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unpacking of compressed data in a file, as a stream, in the formats that Linux uses for its own payload.
 * The input is hostile; memory use is bounded (dictionaries to 256 MiB). Any thread.
 */
#ifndef VMM_BOOT_UNPACK_H
#define VMM_BOOT_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/boot/file.h"

enum unpack_format {
    UNPACK_UNKNOWN, /* also LZO, which no library here reads */
    UNPACK_GZIP,
    UNPACK_XZ,
    UNPACK_LZMA,
    UNPACK_BZIP2,
    UNPACK_LZ4, /* the "legacy" frame */
    UNPACK_ZSTD,
};

#define UNPACK_MAGIC_LEN 6
enum unpack_format unpack_probe(const uint8_t magic[UNPACK_MAGIC_LEN]);
const char *unpack_format_name(enum unpack_format format);

/* Takes the next `len` bytes of output. False and *err ends the unpacking. */
typedef bool unpack_sink(void *opaque, const uint8_t *data, size_t len, struct error **err);

/*
 * Unpacks [offset, offset + len) of the file, all of it; trailing bytes after the end of the stream are an
 * error unless they are fewer than 8 (padding). False and *err when the data is damaged or ends early, or
 * when the sink refused.
 */
bool unpack(const struct boot_file *f, uint64_t offset, uint64_t len, enum unpack_format format,
            unpack_sink *sink, void *opaque, struct error **err);

#endif
