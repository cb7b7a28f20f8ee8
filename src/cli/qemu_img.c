/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running qemu-img: see qemu_img.h. */
#include "cli/qemu_img.h"

#include "catalog/file.h"
#include "cli/program.h"

bool qemu_img(const char *const words[], char *out, size_t size, struct error **err)
{
    const struct program p = {.package = "qemu-utils", .out = out, .size = size};
    return program_run(words, &p, err) == 0;
}

bool qemu_img_flatten(const char *from, const char *to, struct error **err)
{
    const char *const words[] = {"qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", from, to, NULL};
    return qemu_img(words, NULL, 0, err) && catalog_sync(to, err);
}
