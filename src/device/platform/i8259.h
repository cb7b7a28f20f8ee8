/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the board calls of the pair of 8259A interrupt controllers. Machine lock held throughout. */
#ifndef DEVICE_PLATFORM_I8259_H
#define DEVICE_PLATFORM_I8259_H

#include <stdbool.h>

struct device;

/* `intr` is called at every change of the INTR output, and once now with its level. */
void i8259_connect(struct device *dev, void (*intr)(void *opaque, bool level), void *opaque);

/* Input lines 0..15; 2 is the cascade and is ignored, as are higher numbers. */
void i8259_set_irq(struct device *dev, unsigned irq, bool level);

/* The processor's INTA cycle: the vector, or -1 when nothing is pending any more. */
int i8259_acknowledge(struct device *dev);

#endif
