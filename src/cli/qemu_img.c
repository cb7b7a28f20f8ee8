/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running qemu-img: see qemu_img.h. */
#include "cli/qemu_img.h"

#include "cli/program.h"

bool qemu_img(const char *const words[], char *out, size_t size, struct error **err)
{
    const struct program p = {.package = "qemu-utils", .out = out, .size = size};
    return program_run(words, &p, err) == 0;
}
