/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Base64 (RFC 4648, section 4). Pure functions, any thread. */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The text, owned by the caller; NULL when there is no memory for it. */
char *base64_encode(const void *data, size_t len);

/*
 * The bytes of a text, which must be whole groups of four characters; `out` has room for 3/4 of `len` and may
 * be where the text is. False for anything else, when what `out` holds means nothing.
 */
bool base64_decode(const char *text, size_t len, uint8_t *out, size_t *out_len);

#endif
