/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pvpanic: one port by which a guest says that it has crashed. QEMU docs/specs/pvpanic.rst. */
#include "base/util.h"
#include "core/device.h"

#define EVENT_PANICKED    BIT(0)
#define EVENT_CRASHLOADED BIT(1)

static uint64_t pvpanic_read(struct device *dev, uint64_t offset, unsigned size)
{
    return EVENT_PANICKED | EVENT_CRASHLOADED;
}

static void pvpanic_write(struct device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    if (value & EVENT_PANICKED)
        dev->machine->event(dev->machine, MACHINE_PANICKED, 0);
    else if (value & EVENT_CRASHLOADED)
        dev->machine->event(dev->machine, MACHINE_CRASHLOADED, 0);
}

static const struct window_desc pvpanic_windows[] = {
    {WINDOW_PORT, "pvpanic", 0x505, 1, .read = pvpanic_read, .write = pvpanic_write, .max_access = 1},
    {WINDOW_END},
};

const struct device_class pvpanic_class = {
    .name = "pvpanic",
    .help = "tells the host when the guest has panicked",
    .flags = DEVICE_SINGLETON,
    .size = sizeof(struct device),
    .windows = pvpanic_windows,
    .state = &STATELESS,
};
