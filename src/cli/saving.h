/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A running machine saves itself to a file: what `ruche save` and snapshots share. One thread. */
#ifndef CLI_SAVING_H
#define CLI_SAVING_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "cli/control.h"

#define SAVING_ANSWER_MS 60000 /* disks are written back before the answer */

/* Has the machine execute ruche-save with the arguments, which are taken over, and waits for the end; shows
 * on a terminal how far `what` is. */
bool saving_run(struct control *c, const char *what, json_t *arguments, struct error **err);

#endif
