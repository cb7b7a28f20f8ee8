/* SPDX-License-Identifier: GPL-2.0-or-later */
/* debugcon: a port to which firmware writes its log, byte by byte. Reads give 0xE9, by which firmware finds
 * it. */
#include "base/util.h"
#include "core/device.h"
#include "os/chardev.h"

struct debugcon {
    struct device dev;
    uint64_t iobase;
    char *chardev_spec;
    struct chardev *chardev;
};

static uint64_t debugcon_read(struct device *dev, uint64_t offset, unsigned size)
{
    return 0xe9;
}

static void debugcon_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    uint8_t byte = (uint8_t)value;
    chardev_write(DEVICE_OF(struct debugcon, dev)->chardev, &byte, 1);
}

static bool debugcon_realize(struct device *dev, struct error **err)
{
    struct debugcon *s = DEVICE_OF(struct debugcon, dev);
    struct window_desc window = {
        WINDOW_PORT,    "debugcon", s->iobase, 1, .read = debugcon_read, .write = debugcon_write,
        .max_access = 1};
    if (!device_map_window(dev, &window, err))
        return false;
    s->chardev = chardev_open(s->chardev_spec, dev->machine->loop, err);
    return s->chardev != NULL;
}

static void debugcon_unrealize(struct device *dev)
{
    chardev_close(DEVICE_OF(struct debugcon, dev)->chardev);
}

static const struct prop debugcon_props[] = {
    {"iobase", PROP_UINT, offsetof(struct debugcon, iobase), "0xe9", 0, 0xffff,
     "the port (OVMF and SeaBIOS use 0x402)"},
    {"chardev", PROP_STRING, offsetof(struct debugcon, chardev_spec), "none",
     .help = "where the bytes go: none, stdio, fd:N, file:PATH, unix:PATH"},
    {.type = PROP_END},
};

const struct device_class debugcon_class = {
    .name = "debugcon",
    .help = "debug console port of firmware",
    .flags = DEVICE_USER,
    .size = sizeof(struct debugcon),
    .props = debugcon_props,
    .state = &STATELESS,
    .realize = debugcon_realize,
    .unrealize = debugcon_unrealize,
};
