/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program qemu-img, for work on disks that no machine has open. */
#ifndef CLI_QEMU_IMG_H
#define CLI_QEMU_IMG_H

#include <stdbool.h>

#include "base/error.h"

/* Runs it with the words (NULL at the end) to its end. Killed with this process. False and *err, with what it
 * said last, when it fails. */
bool qemu_img(const char *const words[], struct error **err);

#endif
