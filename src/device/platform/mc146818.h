/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What other devices call of the real-time clock. Machine lock held. */
#ifndef DEVICE_PLATFORM_MC146818_H
#define DEVICE_PLATFORM_MC146818_H

#include <stdbool.h>

struct machine;

/* The HPET's legacy replacement takes IRQ 8 over from the machine's real-time clock (no-op without one). */
void mc146818_connect_irq(struct machine *m, bool connected);

#endif
