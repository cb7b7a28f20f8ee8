/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What other devices call of the 8254 timer. Machine lock held. */
#ifndef DEVICE_PLATFORM_I8254_H
#define DEVICE_PLATFORM_I8254_H

#include <stdbool.h>

struct machine;

/* The HPET's legacy replacement takes IRQ 0 over from the machine's 8254 (no-op without one). */
void i8254_connect_irq(struct machine *m, bool connected);

#endif
