/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two address spaces that devices answer in: ports (0..0xFFFF) and memory (all guest physical addresses
 * that are not RAM). A window belongs to a device; windows of a space do not overlap unless the later one has
 * a higher `priority`. All calls are made with the machine lock held (machine.h), from vCPU threads or from
 * the main loop.
 */
#ifndef CORE_BUS_H
#define CORE_BUS_H

#include <stdbool.h>
#include <stdint.h>

struct error;

struct io_window {
    const char *name;
    uint64_t base;
    uint64_t size;
    /*
     * `offset` is relative to base, `size` 1, 2, 4 or 8 and never more than max_access. Reads return
     * zero-extended. Larger accesses are split by the bus, lowest address first.
     */
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
    void *opaque;
    uint8_t max_access; /* 1, 2, 4 or 8; 0 means 4 */
    int8_t priority;
    bool mapped; /* kept by the bus */
    struct io_window *next;
};

struct io_bus {
    struct io_window *windows; /* sorted by base */
    struct io_window *last;    /* last hit */
    bool overlaps;             /* some windows do, so `last` is not used */
    uint64_t limit;            /* one past the highest address */
};

void bus_init(struct io_bus *bus, uint64_t limit);

/* Adds and removes; `w` is not owned and must stay until removed. False and *err when it overlaps at equal
 * priority. */
bool bus_map(struct io_bus *bus, struct io_window *w, struct error **err);
void bus_unmap(struct io_bus *bus, struct io_window *w);

/* Nobody answers: reads give all ones, writes vanish. */
uint64_t bus_read(struct io_bus *bus, uint64_t addr, unsigned size);
void bus_write(struct io_bus *bus, uint64_t addr, unsigned size, uint64_t value);

#endif
