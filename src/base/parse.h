/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading values that users write: numbers, sizes, truth values. Pure functions, any thread. */
#ifndef BASE_PARSE_H
#define BASE_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* The whole text must be the value; false otherwise, and *out is untouched. */

/* Decimal, or hexadecimal after 0x. */
bool parse_uint(const char *text, uint64_t *out);
/* As parse_uint, with an optional suffix K, M, G or T (powers of 1024, either case, an "iB" or "B" may
 * follow). */
bool parse_size(const char *text, uint64_t *out);
/* on, yes, true, 1; off, no, false, 0. */
bool parse_bool(const char *text, bool *out);
/* Six hexadecimal bytes with colons. */
bool parse_mac(const char *text, uint8_t out[6]);
/* RFC 9562: 36 characters, hexadecimal in either case. */
bool parse_uuid(const char *text, uint8_t out[16]);

#endif
