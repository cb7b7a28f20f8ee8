/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the board asks of a virtio-console. */
#ifndef DEVICE_VIRTIO_CONSOLE_H
#define DEVICE_VIRTIO_CONSOLE_H

#include <stdbool.h>

struct device;

/* Whether a program of the guest has the port (0 to 7) open. With the machine lock held. */
bool virtio_console_guest_open(const struct device *dev, unsigned port);

#endif
