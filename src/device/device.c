/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Looking up a class in the generated table. */
#include "core/device.h"

#include <string.h>

const struct device_class *device_class_find(const char *name)
{
    for (const struct device_class *const *c = device_classes; *c; c++) {
        if (strcmp((*c)->name, name) == 0)
            return *c;
    }
    return NULL;
}
