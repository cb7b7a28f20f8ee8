/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hostile driver: the first byte chooses device and ring format, the rest is the memory that rings,
 * descriptors and buffers lie in, and which is written again in pieces between kicks. Nothing outside of
 * guest memory may be touched.
 */
#include <linux/virtio_net.h>

#include "base/log.h"
#include "base/util.h"
#include "virtio_driver.h"

#define AREA       0x1000 /* where the input goes */
#define AREA_SIZE  0x2000
#define RING_SIZE  8
#define ROUNDS     4
#define QUEUES_MAX 6

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const classes[] = {"virtio-rng", "virtio-console", "virtio-net"};

static void map_ring(struct drv *d, unsigned index)
{
    const uint64_t at = AREA + 0x200 * index;
    const uint64_t areas[] = {at, at + 0x80, at + 0xC0};
    drv_write(d, d->common + 22, 2, index);
    drv_write(d, d->common + 24, 2, RING_SIZE);
    drv_write(d, d->common + 26, 2, index);
    for (unsigned i = 0; i < 3; i++)
        drv_write(d, d->common + 32 + 8 * i, 4, areas[i]);
    drv_write(d, d->common + 28, 2, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    log_set_level(LOG_ERROR);
    uint8_t choice = data[0];
    bool packed = choice & 0x80;
    const char *cls = classes[choice % ARRAY_SIZE(classes)];
    struct test_machine *t = pci_machine_new();
    const char *props = choice % ARRAY_SIZE(classes) == 2 ? "packed=on,net=none" : "packed=on";
    struct device *dev = pci_machine_add(t, cls, props);
    struct virtio_device *v = (struct virtio_device *)(void *)dev;
    struct drv d;
    uint64_t features = v->offered & ~BIT(VIRTIO_F_RING_PACKED);
    if (choice & 0x40)
        features &= ~BIT(VIRTIO_RING_F_EVENT_IDX);
    drv_init(&d, t, dev, features | (packed ? BIT(VIRTIO_F_RING_PACKED) : 0));
    unsigned queues = MIN(v->queue_count, QUEUES_MAX);
    for (unsigned i = 0; i < queues; i++)
        map_ring(&d, i);
    drv_set_status(&d, drv_status(&d) | VIRTIO_CONFIG_S_DRIVER_OK);

    uint8_t *area = guest_ptr(t->m.memory, AREA, AREA_SIZE, true);
    size_t piece = (size - 1) / ROUNDS + 1;
    for (size_t at = 1; at < size; at += piece) {
        memcpy(area, data + at, MIN(MIN(piece, size - at), AREA_SIZE));
        for (unsigned i = 0; i < queues; i++)
            drv_write(&d, d.notify + d.notify_multiplier * i, 2, i);
        pump(t);
    }
    test_machine_free(t);
    return 0;
}
