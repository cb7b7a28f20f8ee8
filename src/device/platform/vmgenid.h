/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the generation ID is, for the ACPI tables and the board, and how it changes. */
#ifndef DEVICE_PLATFORM_VMGENID_H
#define DEVICE_PLATFORM_VMGENID_H

#include <stdbool.h>

struct device;
struct error;

/* Guest address of its 16 bytes, in a page that holds nothing else and that is no operating system's to use.
 */
#define VMGENID_ADDRESS 0xef000u
/* The bit of GPE0 that says that it has changed. */
#define VMGENID_GPE 5

/* Machine lock held. Gives the machine a new one and tells the guest: it goes on in a state in which it, or
 * another, was before. */
bool vmgenid_renew(struct device *dev, struct error **err);

#endif
