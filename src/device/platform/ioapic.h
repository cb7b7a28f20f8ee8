/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the board calls of the I/O APIC. Machine lock held throughout. */
#ifndef DEVICE_PLATFORM_IOAPIC_H
#define DEVICE_PLATFORM_IOAPIC_H

#include <stdbool.h>
#include <stdint.h>

struct device;

#define IOAPIC_BASE 0xfec00000u
#define IOAPIC_PINS 24

/* An interrupt line of the machine (machine.h): 0 is wired to pin 2, the others to their own pin. Others are
 * ignored. */
void ioapic_set_gsi(struct device *dev, unsigned gsi, bool level);

/* A local APIC has seen the end of a level-triggered interrupt with this vector. */
void ioapic_eoi(struct device *dev, uint8_t vector);

#endif
