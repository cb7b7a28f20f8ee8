/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random identities: see identity.h. */
#include "catalog/identity.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/error.h"

static bool fill(uint8_t *bytes, size_t count, struct error **err)
{
    if (getrandom(bytes, count, 0) == (ssize_t)count)
        return true;
    error_set_errno(err, errno, "get random numbers");
    return false;
}

bool identity_uuid(char text[UUID_TEXT_SIZE], struct error **err)
{
    uint8_t b[16];
    if (!fill(b, sizeof(b), err))
        return false;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(text, UUID_TEXT_SIZE, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
    return true;
}

bool identity_mac(char text[MAC_TEXT_SIZE], struct error **err)
{
    uint8_t b[6];
    if (!fill(b, sizeof(b), err))
        return false;
    b[0] = (uint8_t)((b[0] & 0xfc) | 0x02);
    snprintf(text, MAC_TEXT_SIZE, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
    return true;
}
