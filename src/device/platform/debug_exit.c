/* SPDX-License-Identifier: GPL-2.0-or-later */
/* debug-exit: a port that ends the machine with a status, for test programs. Compatible with QEMU's
 * isa-debug-exit. */
#include "base/util.h"
#include "core/device.h"

struct debug_exit {
    struct device dev;
    uint64_t iobase, iosize;
};

static void debug_exit_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    dev->machine->event(dev->machine, MACHINE_DEBUG_EXIT, (uint32_t)value);
}

static uint64_t debug_exit_read(struct device *dev, uint64_t offset, unsigned size)
{
    return 0;
}

static bool debug_exit_realize(struct device *dev, struct error **err)
{
    const struct debug_exit *s = DEVICE_OF(struct debug_exit, dev);
    struct window_desc window = {
        WINDOW_PORT, "debug-exit", s->iobase, s->iosize, .read = debug_exit_read, .write = debug_exit_write};
    return device_map_window(dev, &window, err);
}

static const struct prop debug_exit_props[] = {
    {"iobase", PROP_UINT, offsetof(struct debug_exit, iobase), "0x501", 0, 0xffff, "first port"},
    {"iosize", PROP_UINT, offsetof(struct debug_exit, iosize), "2", 1, 4, "number of ports"},
    {.type = PROP_END},
};

const struct device_class debug_exit_class = {
    .name = "debug-exit",
    .help = "port that ends the machine with exit status (value << 1) | 1",
    .flags = DEVICE_USER,
    .size = sizeof(struct debug_exit),
    .props = debug_exit_props,
    .state = &STATELESS,
    .realize = debug_exit_realize,
};
