/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Address spaces made of windows: see bus.h. */
#include "core/bus.h"

#include "base/error.h"
#include "base/util.h"

#include <errno.h>

void bus_init(struct io_bus *bus, uint64_t limit)
{
    *bus = (struct io_bus){.limit = limit};
}

static bool windows_overlap(const struct io_window *a, const struct io_window *b)
{
    return a->base < b->base + b->size && b->base < a->base + a->size;
}

/* The look-up may trust its last hit only while no two windows compete for an address. */
static void find_overlaps(struct io_bus *bus)
{
    bus->last = NULL;
    bus->overlaps = false;
    for (struct io_window *w = bus->windows; w && !bus->overlaps; w = w->next) {
        for (struct io_window *v = w->next; v && v->base < w->base + w->size; v = v->next)
            bus->overlaps = true;
    }
}

bool bus_map(struct io_bus *bus, struct io_window *w, struct error **err)
{
    if (w->mapped || !w->size || !range_fits(w->base, w->size, bus->limit)) {
        error_set(err, EINVAL, "cannot map %s at 0x%llx: bad range", w->name, (unsigned long long)w->base);
        return false;
    }
    for (struct io_window *v = bus->windows; v; v = v->next) {
        if (v->priority == w->priority && windows_overlap(v, w)) {
            error_set(err, EBUSY, "cannot map %s at 0x%llx: %s is there", w->name,
                      (unsigned long long)w->base, v->name);
            return false;
        }
    }
    struct io_window **p = &bus->windows;
    while (*p && (*p)->base <= w->base)
        p = &(*p)->next;
    w->next = *p;
    *p = w;
    w->mapped = true;
    find_overlaps(bus);
    return true;
}

void bus_unmap(struct io_bus *bus, struct io_window *w)
{
    for (struct io_window **p = &bus->windows; *p; p = &(*p)->next) {
        if (*p != w)
            continue;
        *p = w->next;
        w->next = NULL;
        w->mapped = false;
        find_overlaps(bus);
        return;
    }
}

static struct io_window *find(struct io_bus *bus, uint64_t addr)
{
    struct io_window *last = bus->last;
    if (last && addr - last->base < last->size)
        return last;
    struct io_window *best = NULL;
    for (struct io_window *w = bus->windows; w && w->base <= addr; w = w->next) {
        if (addr - w->base < w->size && (!best || w->priority > best->priority))
            best = w;
    }
    if (best && !bus->overlaps)
        bus->last = best;
    return best;
}

/*
 * The window for the next piece of an access and the piece's size: as much of `left` as the window takes at
 * once, a power of two.
 */
static struct io_window *piece(struct io_bus *bus, uint64_t addr, unsigned left, unsigned *size)
{
    struct io_window *w = find(bus, addr);
    if (!w) {
        *size = 1;
        return NULL;
    }
    uint64_t most = MIN((uint64_t)left, w->size - (addr - w->base));
    most = MIN(most, w->max_access ? w->max_access : 4u);
    *size = most >= 8 ? 8 : most >= 4 ? 4 : most >= 2 ? 2 : 1;
    return w;
}

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : BIT(8 * size) - 1;
}

/*
 * Where windows compete, a piece could run into a window of higher priority that begins inside it. No device
 * of the board is laid out so: an overlay covers whole registers.
 */
uint64_t bus_read(struct io_bus *bus, uint64_t addr, unsigned size)
{
    uint64_t value = 0;
    unsigned n;
    for (unsigned done = 0; done < size; done += n) {
        struct io_window *w = piece(bus, addr + done, size - done, &n);
        uint64_t v = w && w->read ? w->read(w->opaque, addr + done - w->base, n) : UINT64_MAX;
        value |= (v & size_mask(n)) << (8 * done);
    }
    return value;
}

void bus_write(struct io_bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
    unsigned n;
    for (unsigned done = 0; done < size; done += n) {
        struct io_window *w = piece(bus, addr + done, size - done, &n);
        if (w && w->write)
            w->write(w->opaque, addr + done - w->base, n, (value >> (8 * done)) & size_mask(n));
    }
}
