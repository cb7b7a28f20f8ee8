/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine's configuration as the options of ruche-vmm. One thread. */
#ifndef CLI_MACHINE_WORDS_H
#define CLI_MACHINE_WORDS_H

#include <stdbool.h>

#include "catalog/machine.h"
#include "cli/machine_process.h"

/* Adds an option, with its value unless that is NULL. */
void words_option(struct words *w, const char *name, const char *value);

/* All that the configuration has, and the machine's name and UUID. Reads its image, which must be the one
 * that the machine's disk stands on; false and *err otherwise. */
bool machine_words(const struct machine *m, struct words *w, struct error **err);

#endif
