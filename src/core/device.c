/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The life of a device: properties, windows, register tables, reset. See device.h. */
#include "core/device.h"

#include "base/error.h"
#include "base/parse.h"
#include "base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Register tables. */

static void *reg_field(struct device *dev, const struct reg_desc *reg)
{
    return (uint8_t *)dev + reg->field;
}

static uint64_t reg_load(struct device *dev, const struct reg_desc *reg)
{
    uint64_t v = 0;
    memcpy(&v, reg_field(dev, reg), reg->size);
    return v;
}

static void reg_store(struct device *dev, const struct reg_desc *reg, uint64_t v)
{
    memcpy(reg_field(dev, reg), &v, reg->size);
}

/* The part of an access that falls into one register. */
struct reg_part {
    const struct reg_desc *reg; /* NULL: nothing is there */
    unsigned shift;             /* bits of the register below the part */
    unsigned len;               /* bytes */
};

static struct reg_part reg_part_at(const struct reg_desc *regs, uint64_t offset, unsigned left)
{
    for (const struct reg_desc *reg = regs; reg->name; reg++) {
        if (offset - reg->offset < reg->size) {
            unsigned skip = (unsigned)(offset - reg->offset);
            return (struct reg_part){.reg = reg, .shift = 8 * skip, .len = MIN(left, reg->size - skip)};
        }
    }
    return (struct reg_part){.len = 1};
}

static uint64_t byte_mask(unsigned len)
{
    return len >= 8 ? UINT64_MAX : BIT(8 * len) - 1;
}

static uint64_t regs_read(struct device *dev, const struct reg_desc *regs, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned done = 0; done < size;) {
        struct reg_part part = reg_part_at(regs, offset + done, size - done);
        if (part.reg) {
            uint64_t v = part.reg->read ? part.reg->read(dev, part.reg) : reg_load(dev, part.reg);
            value |= (v >> part.shift & byte_mask(part.len)) << (8 * done);
        }
        done += part.len;
    }
    return value;
}

static void reg_write(struct device *dev, const struct reg_desc *reg, uint64_t value, uint64_t mask)
{
    uint64_t old = reg_load(dev, reg);
    uint64_t writable = reg->writable & mask;
    uint64_t v = (old & ~writable) | (value & writable);
    v &= ~(value & reg->clear & mask);
    reg_store(dev, reg, v);
    if (reg->write)
        reg->write(dev, reg, old);
}

static void regs_write(struct device *dev, const struct reg_desc *regs, uint64_t offset, unsigned size,
                       uint64_t value)
{
    for (unsigned done = 0; done < size;) {
        struct reg_part part = reg_part_at(regs, offset + done, size - done);
        uint64_t mask = byte_mask(part.len);
        if (part.reg)
            reg_write(dev, part.reg, (value >> (8 * done) & mask) << part.shift, mask << part.shift);
        done += part.len;
    }
}

/* Windows. */

static uint64_t window_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct device_window *w = opaque;
    if (w->desc.regs)
        return regs_read(w->dev, w->desc.regs, offset, size);
    return w->desc.read ? w->desc.read(w->dev, offset, size) : UINT64_MAX;
}

static void window_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    const struct device_window *w = opaque;
    if (w->desc.regs)
        regs_write(w->dev, w->desc.regs, offset, size, value);
    else if (w->desc.write)
        w->desc.write(w->dev, offset, size, value);
}

static struct io_window *add_window(struct device *dev, const struct window_desc *desc, struct error **err)
{
    if (dev->window_count == DEVICE_WINDOW_MAX) {
        error_set(err, ENOSPC, "%s has more than %d windows", dev->cls->name, DEVICE_WINDOW_MAX);
        return NULL;
    }
    unsigned i = dev->window_count++;
    dev->window_info[i] = (struct device_window){.dev = dev, .desc = *desc};
    dev->window[i] = (struct io_window){
        .name = desc->name,
        .base = desc->base,
        .size = desc->size,
        .read = window_read,
        .write = window_write,
        .opaque = &dev->window_info[i],
        .max_access = desc->max_access ? desc->max_access
                      : desc->regs     ? 8
                                       : 4,
        .priority = desc->priority,
    };
    return &dev->window[i];
}

static struct io_bus *window_bus(struct device *dev, unsigned i)
{
    return dev->window_info[i].desc.space == WINDOW_PORT ? &dev->machine->ports : &dev->machine->mmio;
}

bool device_map_window(struct device *dev, const struct window_desc *desc, struct error **err)
{
    struct io_window *w = add_window(dev, desc, err);
    return w && bus_map(window_bus(dev, dev->window_count - 1), w, err);
}

static bool map_class_windows(struct device *dev, struct error **err)
{
    for (const struct window_desc *desc = dev->cls->windows; desc && desc->space != WINDOW_END; desc++) {
        struct io_window *w = add_window(dev, desc, err);
        if (!w)
            return false;
        /* The PCI function maps its BARs when the guest has placed them. */
        if (desc->space != WINDOW_BAR && !bus_map(window_bus(dev, dev->window_count - 1), w, err))
            return false;
    }
    return true;
}

static void unmap_windows(struct device *dev)
{
    for (unsigned i = 0; i < dev->window_count; i++) {
        if (dev->window[i].mapped)
            bus_unmap(window_bus(dev, i), &dev->window[i]);
    }
    dev->window_count = 0;
}

/* Properties. */

static void *prop_field(struct device *dev, const struct prop *p)
{
    return (uint8_t *)dev + p->offset;
}

static bool set_number(struct device *dev, const struct prop *p, const char *value, struct error **err)
{
    uint64_t v;
    bool ok = p->type == PROP_SIZE ? parse_size(value, &v) : parse_uint(value, &v);
    if (!ok) {
        error_set(err, EINVAL, "%s: property %s: \"%s\" is not a %s", dev->cls->name, p->name, value,
                  p->type == PROP_SIZE ? "size" : "number");
        return false;
    }
    if (v < p->min || (p->max && v > p->max)) {
        error_set(err, ERANGE, "%s: property %s: %s is not between %" PRIu64 " and %" PRIu64, dev->cls->name,
                  p->name, value, p->min, p->max ? p->max : UINT64_MAX);
        return false;
    }
    memcpy(prop_field(dev, p), &v, sizeof(v));
    return true;
}

static bool set_string(struct device *dev, const struct prop *p, const char *value, struct error **err)
{
    char *copy = strdup(value);
    if (!copy) {
        error_set_errno(err, ENOMEM, "%s: property %s", dev->cls->name, p->name);
        return false;
    }
    char **field = prop_field(dev, p);
    free(*field);
    *field = copy;
    return true;
}

static bool set_prop(struct device *dev, const struct prop *p, const char *value, struct error **err)
{
    switch (p->type) {
    case PROP_UINT:
    case PROP_SIZE:
        return set_number(dev, p, value, err);
    case PROP_STRING:
        return set_string(dev, p, value, err);
    case PROP_BOOL:
        if (parse_bool(value, prop_field(dev, p)))
            return true;
        error_set(err, EINVAL, "%s: property %s: \"%s\" is neither on nor off", dev->cls->name, p->name,
                  value);
        return false;
    case PROP_MAC:
        if (parse_mac(value, prop_field(dev, p)))
            return true;
        error_set(err, EINVAL, "%s: property %s: \"%s\" is not a MAC address", dev->cls->name, p->name,
                  value);
        return false;
    case PROP_END:
        break;
    }
    return false;
}

bool device_set(struct device *dev, const char *prop, const char *value, struct error **err)
{
    for (const struct prop *p = dev->cls->props; p && p->type != PROP_END; p++) {
        if (strcmp(p->name, prop) == 0)
            return set_prop(dev, p, value, err);
    }
    error_set(err, EINVAL, "%s has no property \"%s\"", dev->cls->name, prop);
    return false;
}

static bool set_defaults(struct device *dev, struct error **err)
{
    for (const struct prop *p = dev->cls->props; p && p->type != PROP_END; p++) {
        if (p->default_value && !set_prop(dev, p, p->default_value, err))
            return false;
    }
    return true;
}

/* Life cycle. */

struct device *device_find(struct machine *m, const char *id)
{
    for (struct device *d = m->devices; d; d = d->next) {
        if (strcmp(d->id, id) == 0)
            return d;
    }
    return NULL;
}

/* The class name and the lowest number that is free; NULL when there is no memory. */
static char *default_id(struct machine *m, const char *cls)
{
    for (unsigned n = 0;; n++) {
        char *id;
        if (asprintf(&id, "%s%u", cls, n) < 0)
            return NULL;
        if (!device_find(m, id))
            return id;
        free(id);
    }
}

/* What can only be known of the machine as it is now: another singleton, another device of that name. */
static bool check_unique(struct machine *m, const struct device_class *cls, const char *id,
                         struct error **err)
{
    if (id && device_find(m, id)) {
        error_set(err, EEXIST, "%s: there is already a device with the id \"%s\"", cls->name, id);
        return false;
    }
    for (struct device *d = m->devices; d; d = d->next) {
        if (d->cls == cls && (cls->flags & DEVICE_SINGLETON)) {
            error_set(err, EEXIST, "%s: the machine has one already", cls->name);
            return false;
        }
    }
    return true;
}

struct device *device_new(struct machine *m, const char *cls_name, const char *id, struct error **err)
{
    const struct device_class *cls = device_class_find(cls_name);
    if (!cls) {
        error_set(err, ENODEV, "there is no device class \"%s\"", cls_name);
        return NULL;
    }
    if (!check_unique(m, cls, id, err))
        return NULL;
    struct device *dev = calloc(1, cls->size);
    if (!dev) {
        error_set_errno(err, ENOMEM, "cannot make a device of class %s", cls_name);
        return NULL;
    }
    dev->cls = cls;
    dev->machine = m;
    dev->id = id ? strdup(id) : default_id(m, cls_name);
    if (!dev->id) {
        error_set_errno(err, ENOMEM, "cannot make a device of class %s", cls_name);
        device_free(dev);
        return NULL;
    }
    if (!set_defaults(dev, err)) {
        device_free(dev);
        return NULL;
    }
    return dev;
}

static void link_last(struct device *dev)
{
    struct device **p = &dev->machine->devices;
    while (*p)
        p = &(*p)->next;
    *p = dev;
}

static void unlink_device(struct device *dev)
{
    for (struct device **p = &dev->machine->devices; *p; p = &(*p)->next) {
        if (*p == dev) {
            *p = dev->next;
            return;
        }
    }
}

bool device_realize(struct device *dev, struct error **err)
{
    if (!check_unique(dev->machine, dev->cls, dev->id, err) || !map_class_windows(dev, err))
        goto fail;
    if (dev->cls->realize && !dev->cls->realize(dev, err))
        goto fail;
    dev->realized = true;
    link_last(dev);
    device_reset(dev);
    return true;

fail:
    device_free(dev);
    return false;
}

void device_free(struct device *dev)
{
    if (!dev)
        return;
    unmap_windows(dev);
    if (dev->realized) {
        unlink_device(dev);
        if (dev->cls->unrealize)
            dev->cls->unrealize(dev);
    }
    for (const struct prop *p = dev->cls->props; p && p->type != PROP_END; p++) {
        if (p->type == PROP_STRING)
            free(*(char **)prop_field(dev, p));
    }
    free(dev->id);
    free(dev);
}

void device_reset(struct device *dev)
{
    for (unsigned i = 0; i < dev->window_count; i++) {
        const struct reg_desc *reg = dev->window_info[i].desc.regs;
        for (; reg && reg->name; reg++)
            reg_store(dev, reg, reg->reset);
    }
    if (dev->cls->reset)
        dev->cls->reset(dev);
}

void devices_reset(struct machine *m)
{
    for (struct device *d = m->devices; d; d = d->next)
        device_reset(d);
}

void devices_quiesce(struct machine *m)
{
    for (struct device *d = m->devices; d; d = d->next) {
        if (d->cls->quiesce)
            d->cls->quiesce(d);
    }
}

void devices_resume(struct machine *m)
{
    for (struct device *d = m->devices; d; d = d->next) {
        if (d->cls->resume)
            d->cls->resume(d);
    }
}
