/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What tells a machine from all others: random UUIDs and network addresses. Any thread. */
#ifndef CATALOG_IDENTITY_H
#define CATALOG_IDENTITY_H

#include <stdbool.h>

struct error;

#define UUID_TEXT_SIZE 37
#define MAC_TEXT_SIZE  18

/* Version 4 of RFC 9562, in small letters. */
bool identity_uuid(char text[UUID_TEXT_SIZE], struct error **err);
/* One station's address from the locally administered range. */
bool identity_mac(char text[MAC_TEXT_SIZE], struct error **err);

#endif
