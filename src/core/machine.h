/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device sees of the machine it sits in. Filled by the board (src/vmm), used by devices and loaders.
 *
 * THE MACHINE LOCK: one mutex; it is held whenever device code runs, be it for a vCPU's port or memory access
 * or for a main-loop callback (timers, file descriptors). Devices take no lock of their own for that. Work
 * that must not hold up the guest (disk, packets) is handed to other threads and comes back by loop_post.
 * vCPU threads never hold the lock while they run guest code. The lock order is: machine lock, then engine
 * locks, then leaf locks.
 */
#ifndef CORE_MACHINE_H
#define CORE_MACHINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/bus.h"
#include "core/clock.h"
#include "core/memory.h"
#include "os/loop.h"

struct device;
struct pci_bus;
struct fw_cfg;

/* Why a machine stops or changes; the board decides what follows (exit status, reset, QMP event). */
enum machine_event {
    MACHINE_POWEROFF,    /* guest asked for S5 */
    MACHINE_RESET,       /* guest asked for a reset (port 0xCF9, i8042, triple fault) */
    MACHINE_PANICKED,    /* pvpanic */
    MACHINE_CRASHLOADED, /* pvpanic: a crash kernel takes over */
    MACHINE_DEBUG_EXIT,  /* debug-exit device; value is the byte written */
};

struct machine {
    pthread_mutex_t lock;
    struct loop *loop; /* main loop; its lock is `lock` */
    struct vm_clock clock;
    struct guest_memory *memory;
    struct io_bus ports; /* limit 0x10000 */
    struct io_bus mmio;  /* limit 1 << 52 */
    unsigned cpu_count;
    uint8_t uuid[16];

    /*
     * Interrupt lines. gsi 0..15 are the ISA lines (PIC and IOAPIC, with 0 -> IOAPIC pin 2), 16..23 the
     * IOAPIC's PCI pins. Level semantics: the board keeps no count, each line has one owner or is wired-or by
     * PCI.
     */
    void (*set_gsi)(struct machine *m, unsigned gsi, bool level);
    /* Sends a message-signalled interrupt (SDM vol. 3 section 11.11). Any thread, lock not needed. */
    void (*send_msi)(struct machine *m, uint64_t addr, uint32_t data);
    /*
     * Doorbells and lines as in struct engine_ops, with the machine lock held; NULL where the engine has
     * none. False: this one is not to be had, and writes come to the window, messages go by send_msi.
     */
    bool (*doorbell_add)(struct machine *m, uint64_t gpa, int fd);
    void (*doorbell_remove)(struct machine *m, uint64_t gpa, int fd);
    bool (*line_set)(struct machine *m, int fd, uint64_t addr, uint32_t data);
    void (*line_drop)(struct machine *m, int fd);
    /* Any thread; acts soon on the main loop. */
    void (*event)(struct machine *m, enum machine_event event, uint32_t value);

    /* The board's singletons that other devices refer to; NULL until realized. */
    struct pci_bus *pci;
    struct device *fw_cfg; /* see device/platform/fw_cfg.h */
    struct device *pic, *ioapic, *pm, *vmgenid;
    struct device *devices; /* all, in creation order */
};

static inline void machine_lock(struct machine *m)
{
    pthread_mutex_lock(&m->lock);
}

static inline void machine_unlock(struct machine *m)
{
    pthread_mutex_unlock(&m->lock);
}

#endif
