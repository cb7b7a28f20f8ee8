/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the board and the ACPI tables need of the power management block. */
#ifndef DEVICE_PLATFORM_ICH9_PM_H
#define DEVICE_PLATFORM_ICH9_PM_H

#include <stdbool.h>

struct device;

#define ICH9_PM_BASE    0x600
#define ICH9_PM_EVENT   (ICH9_PM_BASE + 0x00) /* 4 bytes */
#define ICH9_PM_CONTROL (ICH9_PM_BASE + 0x04) /* 2 bytes */
#define ICH9_PM_TIMER                                                                                        \
    (ICH9_PM_BASE + 0x08) /* 4 bytes, counts 24 bits: FADT flag TMR_VAL_EXT must be clear                    \
                           */
#define ICH9_PM_GPE0       (ICH9_PM_BASE + 0x20) /* 16 bytes: 8 of status, 8 of enable */
#define ICH9_SMI_COMMAND   0xb2
#define ICH9_ACPI_ENABLE   0x02
#define ICH9_ACPI_DISABLE  0x03
#define ICH9_SCI_GSI       9
#define ICH9_SLEEP_TYPE_S5 0 /* what \_S5 must say */

/* Machine lock held. Sets a bit of GPE0's status, 0 to 63. */
void ich9_pm_raise_gpe(struct device *dev, unsigned bit);

/* Machine lock held. Presses the power button; false when the guest has not asked to hear of it. */
bool ich9_pm_power_button(struct device *dev);

#endif
