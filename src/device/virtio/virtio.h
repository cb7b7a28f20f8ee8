/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The core of all virtio devices: virtio 1.2, modern only, over PCI (sections 2 and 4.1). A device class
 * begins with a struct virtio_device and gives a struct virtio_class:
 *
 *     realize:   virtio_init, then virtio_add_queue for each queue, then virtio_ready
 *     reset:     virtio_device_reset        quiesce: (finish own work,) virtio_quiesce
 *     resume:    virtio_resume              unrealize: virtio_exit
 *     state:     nested virtio_device_state; its own post_load ends with virtio_loaded
 *
 * A driver's kick costs the vCPU only a flag, or not even that where the engine has doorbells: queue_notify
 * runs soon after on the main loop. Everything runs with the machine lock held.
 */
#ifndef DEVICE_VIRTIO_VIRTIO_H
#define DEVICE_VIRTIO_VIRTIO_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

#include "device/pci/pci.h"
#include "device/virtio/virtqueue.h"
#include "os/loop.h"

#define VIRTIO_QUEUE_MAX  66
#define VIRTIO_CONFIG_MAX 256
#define VIRTIO_NO_VECTOR  0xFFFF
#define VIRTIO_ISR_QUEUE  1
#define VIRTIO_ISR_CONFIG 2

struct virtio_class {
    const char *name;
    uint16_t id;          /* VIRTIO_ID_... */
    uint32_t pci_class;   /* 24 bits */
    uint16_t config_size; /* bytes of device configuration, at most VIRTIO_CONFIG_MAX */

    /* The driver has chosen: v->features holds until the next reset. May be NULL. */
    void (*features_set)(struct virtio_device *v);
    /* Writes the device configuration as it is now, config_size bytes. May be NULL when config_size is 0. */
    void (*config_read)(struct virtio_device *v, uint8_t *config);
    /* The driver wrote `size` (1, 2, 4) bytes at offset (in range). NULL: configuration is read-only. */
    void (*config_write)(struct virtio_device *v, unsigned offset, unsigned size, uint32_t value);
    /* The driver is ready (status DRIVER_OK); queues may be used from now on. May be NULL. vCPU thread. */
    void (*driver_ok)(struct virtio_device *v);
    /* The queue may have new elements. Main loop. */
    void (*queue_notify)(struct virtio_device *v, struct virtqueue *vq);
    /*
     * Forget all that the driver set up; elements in hand are discarded, guest memory is not touched any
     * more. Any thread. Returns false when work in flight must end first: the device then calls
     * virtio_reset_done, and until then the driver sees its old status. With `wait` (machine reset, main
     * loop) it must finish and return true. May be NULL.
     */
    bool (*reset)(struct virtio_device *v, bool wait);
};

struct virtio_device {
    struct pci_device pci;
    const struct virtio_class *vcls;
    unsigned queue_count;
    uint64_t offered; /* feature bits, incl. those of the core */
    bool packed;      /* property "packed": offer packed rings */
    bool event_idx;   /* property "event-idx" */
    bool indirect;    /* property "indirect" */
    uint8_t cfg_cap;  /* offset of the window capability in configuration space */

    /* Set by the driver. */
    uint64_t features; /* what it wrote; final once status has FEATURES_OK */
    uint32_t device_feature_select, driver_feature_select;
    uint16_t config_vector, queue_select;
    uint8_t status, isr, config_generation;
    bool resetting; /* the driver wrote status 0, the device is still busy */

    bool stopped;                                  /* between quiesce and resume */
    uint64_t kicked[(VIRTIO_QUEUE_MAX + 63) / 64]; /* queues to look at */
    struct loop_timer kick;
    struct virtqueue vq[VIRTIO_QUEUE_MAX];
};

/* The core's properties, for the table of a class whose instance begins with a struct virtio_device. */
#define VIRTIO_PROPS                                                                                         \
    PCI_PROP_ADDR,                                                                                           \
        {.name = "packed",                                                                                   \
         .type = PROP_BOOL,                                                                                  \
         .offset = offsetof(struct virtio_device, packed),                                                   \
         .default_value = "off",                                                                             \
         .help = "offer packed rings"},                                                                      \
        {.name = "event-idx",                                                                                \
         .type = PROP_BOOL,                                                                                  \
         .offset = offsetof(struct virtio_device, event_idx),                                                \
         .default_value = "on",                                                                              \
         .help = "offer notification suppression by event index"},                                           \
    {                                                                                                        \
        .name = "indirect", .type = PROP_BOOL, .offset = offsetof(struct virtio_device, indirect),           \
        .default_value = "on", .help = "offer indirect descriptors"                                          \
    }

extern const struct state_desc virtio_device_state;

/* Puts the device on the PCI bus. `features`: the class's own bits. On failure nothing remains. */
bool virtio_init(struct virtio_device *v, const struct virtio_class *vcls, uint64_t features,
                 struct error **err);
/* The next queue, of at most `max_size` descriptors (a power of two up to VIRTQUEUE_SIZE_MAX). */
struct virtqueue *virtio_add_queue(struct virtio_device *v, uint16_t max_size);
/* After the last queue: one MSI-X vector for each and one for configuration changes. */
void virtio_ready(struct virtio_device *v);
void virtio_exit(struct virtio_device *v);
void virtio_device_reset(struct virtio_device *v);
void virtio_quiesce(struct virtio_device *v);
/* Looks at all queues again. */
void virtio_resume(struct virtio_device *v);
void virtio_loaded(struct virtio_device *v);

/* See virtio_class.reset. */
void virtio_reset_done(struct virtio_device *v);

static inline bool virtio_has(const struct virtio_device *v, unsigned feature)
{
    return v->features & (uint64_t)1 << feature;
}

/* May queues be used now? */
bool virtio_running(const struct virtio_device *v);
/* Has queue_notify called for the queue, soon, from the main loop (say, to share it with others). */
void virtio_kick(struct virtio_device *v, unsigned queue);
/* The device configuration has changed: new generation, interrupt. */
void virtio_config_changed(struct virtio_device *v);
/* The driver broke a rule: the reason is logged, the device stands still until it is reset. */
void virtio_broken(struct virtio_device *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For virtqueue.c and the transport. */
void virtio_kick_all(struct virtio_device *v);
/* Calls queue_notify for the queue, now. Main loop. */
void virtio_notify(struct virtio_device *v, unsigned queue);
/* Brings the queues' doorbells to what BAR 4, the device's and the queues' state say: after any change of
 * those. */
void virtio_doorbells_update(struct virtio_device *v);
/* The address that the driver writes to for a kick; 0: BAR 4 is not mapped. */
uint64_t virtio_transport_doorbell(const struct virtio_device *v, unsigned queue);
void virtio_interrupt(struct virtio_device *v, uint16_t vector, uint8_t isr_bit);
void virtio_set_status(struct virtio_device *v, uint8_t status);
bool virtio_transport_init(struct virtio_device *v, struct error **err);

#endif
