/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies of files between host and guest, by the guest's agent. The copy is made beside the place where it is
 * to be, compared by its SHA-256 when the guest has the program sha256sum, and then takes its name: under
 * that there is never half of it. One thread.
 */
#ifndef CLI_COPY_H
#define CLI_COPY_H

#include <stdbool.h>

#include "base/error.h"
#include "cli/agent.h"

/*
 * A target that is a folder, or ends with a slash, gets a file of the source's name. Permissions go along.
 * False and *err on failure, with what was half made removed; then *interrupted is the signal (interrupt.h)
 * that was the cause, or 0.
 */
bool copy_to_guest(struct agent *a, const char *host_path, const char *guest_path, int *interrupted,
                   struct error **err);
bool copy_from_guest(struct agent *a, const char *guest_path, const char *host_path, int *interrupted,
                     struct error **err);

#endif
