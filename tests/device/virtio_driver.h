/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests of PCI and virtio devices: a machine without processors, and the guest's side of a virtio device,
 * written from the driver's point of view (virtio 1.2, sections 2.7.13, 2.8.21 and 3.1), that shares no code
 * with the device's.
 */
#ifndef TESTS_DEVICE_VIRTIO_DRIVER_H
#define TESTS_DEVICE_VIRTIO_DRIVER_H

#include "device/pci/pci.h"
#include "device/virtio/virtio.h"
#include "testmachine.h"

/* A test machine with host bridge and LPC bridge. */
struct test_machine *pci_machine_new(void);
/* Adds a device (as test_machine_add) and places its BARs. */
struct device *pci_machine_add(struct test_machine *t, const char *cls, const char *props);
/* Runs what is due on the main loop. */
void pump(struct test_machine *t);

uint32_t cfg_read(struct test_machine *t, uint8_t devfn, unsigned reg, unsigned size);
void cfg_write(struct test_machine *t, uint8_t devfn, unsigned reg, unsigned size, uint32_t value);

/* --- driver --- */

struct drv_buf {
    uint64_t gpa;
    uint32_t len;
    bool write;
};

#define DRV_RING_MAX  256
#define DRV_TABLE_MAX 16 /* entries in an indirect table */

struct drv_ring {
    struct drv *drv;
    unsigned index, size;
    bool packed, event_idx;
    uint64_t desc, avail, used; /* desc, driver and device area */
    uint8_t *d, *a, *u;
    uint64_t tables; /* indirect tables, one for each slot */
    uint64_t notify;
    unsigned free_count;
    /* split */
    uint16_t free_head, avail_idx, last_used;
    uint16_t kicked_idx;
    /* packed */
    uint16_t next, used_at;
    bool wrap, used_wrap;
    unsigned added; /* descriptors since the last kick decision */
    uint16_t free_id[DRV_RING_MAX];
    unsigned free_id_count;
    uint16_t slots_of[DRV_RING_MAX];
    void *cookie[DRV_RING_MAX];
};

struct drv {
    struct test_machine *t;
    uint64_t next_free; /* guest memory for drv_alloc */
    uint8_t devfn;
    uint64_t common, isr, config, notify; /* addresses */
    uint32_t notify_multiplier;
    uint64_t features;
    uint64_t msix_table;
};

/* Finds the structures, resets, negotiates exactly `features` of what is offered; MSI-X on, vector i for
 * queue i. */
void drv_init(struct drv *d, struct test_machine *t, struct device *dev, uint64_t features);
/* Zeroed guest memory, never given back. */
uint64_t drv_alloc(struct drv *d, uint64_t size, uint64_t align);
void *drv_ptr(struct drv *d, uint64_t gpa, uint64_t size);
void drv_ring_init(struct drv_ring *r, struct drv *d, unsigned index, unsigned size);
void drv_ok(struct drv *d);
uint8_t drv_status(struct drv *d);
void drv_set_status(struct drv *d, uint8_t status);
uint64_t drv_read(struct drv *d, uint64_t addr, unsigned size);
void drv_write(struct drv *d, uint64_t addr, unsigned size, uint64_t value);

/* Adds a chain; false when the ring has no room. `indirect`: through a table of its own. */
bool drv_add(struct drv_ring *r, const struct drv_buf *buf, unsigned count, bool indirect, void *cookie);
/* Kicks if the device wants it; true when it did. */
bool drv_kick(struct drv_ring *r);
void drv_force_kick(struct drv_ring *r);
/* The next used chain's cookie, or NULL. */
void *drv_get(struct drv_ring *r, uint32_t *len);
/* Asks for interrupts (or not); true when something is used already. */
bool drv_enable_cb(struct drv_ring *r);
void drv_disable_cb(struct drv_ring *r);

#endif
