/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Any bytes from a client of the control socket: each message cut out of them gets exactly one well-formed
 * reply. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "../unit/qmp_fake.h"
#include "vmm/qmp_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_machine fake = {.running = true};
    struct qmp_scan scan = {0};
    const char *text = (const char *)data;
    bool negotiated = size % 2;

    while (size > 0) {
        size_t n = qmp_scan(&scan, text, size);
        if (n > size)
            abort();
        if (n == 0)
            break;
        json_t *reply = qmp_answer(&fake_ops, &fake, text, n, &negotiated);
        if (!json_object_get(reply, "return") == !json_object_get(reply, "error"))
            abort();
        json_decref(reply);
        text += n;
        size -= n;
    }
    return 0;
}
