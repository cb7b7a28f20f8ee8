/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SHA-256 (FIPS 180-4), for the checksums of images. Pure functions, any thread. */
#ifndef CATALOG_SHA256_H
#define CATALOG_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct sha256 {
    uint32_t h[8];
    uint64_t length; /* bytes so far */
    uint8_t block[64];
    bool fast; /* by the processor's instructions */
};

/* Room for the digest in hexadecimal with its terminating NUL. */
#define SHA256_HEX_SIZE 65

void sha256_init(struct sha256 *s);
/* Whatever the processor can do; for tests. */
void sha256_init_plain(struct sha256 *s);
void sha256_update(struct sha256 *s, const void *data, size_t len);
/* Ends the sum; `s` must be initialised again before further use. */
void sha256_final(struct sha256 *s, char hex[SHA256_HEX_SIZE]);

/* The sum of a whole file. */
bool sha256_file(const char *path, char hex[SHA256_HEX_SIZE], struct error **err);

#endif
