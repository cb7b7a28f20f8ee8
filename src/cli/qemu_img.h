/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program qemu-img, for work on disks that no machine has open. */
#ifndef CLI_QEMU_IMG_H
#define CLI_QEMU_IMG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/*
 * Runs it to its end: `words` are its name and arguments, NULL at the end; `out` (NULL: is not wanted) gets
 * what it prints. It does not outlive this process. What it complains of becomes the error.
 */
bool qemu_img(const char *const words[], char *out, size_t size, struct error **err);
/* A qcow2 disk with all that it stands on becomes one file, which is made durable. */
bool qemu_img_flatten(const char *from, const char *to, struct error **err);

#endif
