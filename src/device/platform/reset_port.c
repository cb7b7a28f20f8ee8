/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The chipset's two reset ports: the reset control register 0xCF9, and port 0x92 with its fast INIT and A20
 * bits (address line 20 is never masked; the bit is only remembered). ICH9 datasheet sections 13.7.4
 * and 13.7.5.
 */
#include "base/util.h"
#include "core/device.h"

#define RCR_RESET 0x04 /* a rising bit resets; bit 1 says how thoroughly, which makes no difference here */
#define RCR_KEPT  0x0a
#define FAST_INIT 0x01
#define FAST_A20  0x02

struct reset_port {
    struct device dev;
    uint8_t rcr, port92;
};

static const struct state_field reset_port_fields[] = {
    STATE_FIELD_U8(struct reset_port, rcr),
    STATE_FIELD_U8(struct reset_port, port92),
    STATE_FIELD_END,
};

static const struct state_desc reset_port_state = {
    .name = "reset-port", .version = 1, .min_version = 1, .fields = reset_port_fields};

static void rcr_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    DEVICE_OF(struct reset_port, dev)->rcr = value & RCR_KEPT;
    if (value & RCR_RESET)
        dev->machine->event(dev->machine, MACHINE_RESET, 0);
}

static uint64_t rcr_read(struct device *dev, uint64_t offset, unsigned size)
{
    return DEVICE_OF(struct reset_port, dev)->rcr;
}

static void port92_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct reset_port *s = DEVICE_OF(struct reset_port, dev);
    bool rises = (value & FAST_INIT) && !(s->port92 & FAST_INIT);
    s->port92 = value & (FAST_INIT | FAST_A20);
    if (rises)
        dev->machine->event(dev->machine, MACHINE_RESET, 0);
}

static uint64_t port92_read(struct device *dev, uint64_t offset, unsigned size)
{
    return DEVICE_OF(struct reset_port, dev)->port92;
}

static void reset_port_reset(struct device *dev)
{
    struct reset_port *s = DEVICE_OF(struct reset_port, dev);
    s->rcr = 0;
    s->port92 = FAST_A20;
}

static const struct window_desc reset_port_windows[] = {
    /* One byte inside PCI's configuration address register, which is only accessed as a whole. */
    {WINDOW_PORT, "reset control", 0xcf9, 1, .read = rcr_read, .write = rcr_write, .max_access = 1,
     .priority = 1},
    {WINDOW_PORT, "port 92", 0x92, 1, .read = port92_read, .write = port92_write, .max_access = 1},
    {WINDOW_END},
};

const struct device_class reset_port_class = {
    .name = "reset-port",
    .help = "reset ports 0xCF9 and 0x92",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct reset_port),
    .windows = reset_port_windows,
    .state = &reset_port_state,
    .reset = reset_port_reset,
};
