/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine's configuration as the options of ruche-vmm. One thread. */
#ifndef CLI_MACHINE_WORDS_H
#define CLI_MACHINE_WORDS_H

#include <stdbool.h>

#include "catalog/image.h"
#include "catalog/machine.h"
#include "cli/machine_process.h"

/* Adds an option, with its value unless that is NULL. */
void words_option(struct words *w, const char *name, const char *value);

/* Whether one of its devices has the guest agent's port, which then is its user's affair. */
bool machine_has_own_agent(const struct machine *m);

/* The image that the machine's disk stands on, as it was when that was put on it; anything else would read as
 * a ruined disk. `image` is filled on success only, and left as it is when the machine has none. */
bool machine_image(const struct machine *m, struct image *image, struct error **err);

/* What it boots, its own or the image's (NULL: it has none), borrowed from both; NULL: there is none. */
struct machine_boot {
    const char *kernel, *initrd, *cmdline;
};
struct machine_boot machine_boot(const struct machine *m, const struct image *image);

/* Its disks alone. */
void machine_disk_words(const struct machine *m, struct words *w);

/* All that the configuration has, or what a machine has that goes on from its snapshot's memory, and the
 * machine's name and UUID. Reads its image, which must be the one that the machine's disk stands on; false
 * and *err otherwise. */
bool machine_words(const struct machine *m, struct words *w, struct error **err);

#endif
