/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Configuration accesses by a hostile guest: records of (device, register, size and kind, value). BARs may
 * end up anywhere; every now and then memory that they might have been put over is read.
 */
#include <stdlib.h>

#include "base/log.h"
#include "base/util.h"
#include "virtio_driver.h"

#define RECORD 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t devices[] = {PCI_HOST_DEVFN, PCI_LPC_DEVFN, PCI_DEVFN(1, 0), PCI_DEVFN(2, 0)};
    log_set_level(LOG_ERROR);
    struct test_machine *t = pci_machine_new();
    pci_machine_add(t, "virtio-rng", NULL);
    pci_machine_add(t, "virtio-console", NULL);
    for (; size >= RECORD; data += RECORD, size -= RECORD) {
        uint8_t devfn = devices[data[0] % ARRAY_SIZE(devices)];
        unsigned width = 1u << data[2] % 3;
        uint32_t value = load_le32(data + 4);
        if (data[2] & 0x80) {
            cfg_read(t, devfn, data[1], width);
            test_read(t, value, width);
            test_in(t, (uint16_t)(value | 0xC000), width);
        } else {
            cfg_write(t, devfn, data[1], width, value);
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++)
        if (cfg_read(t, devices[i], PCI_VENDOR_ID, 2) != (i < 2 ? PCI_VENDOR_INTEL : PCI_VENDOR_QUMRANET))
            abort();
    machine_lock(&t->m);
    devices_reset(&t->m);
    pci_assign_resources(&t->m);
    machine_unlock(&t->m);
    test_machine_free(t);
    return 0;
}
