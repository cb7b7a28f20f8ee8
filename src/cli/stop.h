/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The end of a named machine at the user's wish. One thread. */
#ifndef CLI_STOP_H
#define CLI_STOP_H

#include <stdbool.h>

#include "base/error.h"
#include "catalog/machine.h"

#define STOP_TIMEOUT_S 60

/* Presses the power button. Harmless on a machine that does not run. With `force` a machine that the button
 * cannot reach (paused, without an answer) is no error. */
bool stop_ask(const struct machine *m, bool force, struct error **err);
/* Waits for the end, for so long; then ends the machine by force, or is an error. */
bool stop_wait(const struct machine *m, int timeout_ms, bool force, struct error **err);
/* Ends it at once: first by its control socket, then by signals. */
bool stop_force(const struct machine *m, struct error **err);

/* --timeout's value as milliseconds; false when it is no number of seconds. */
bool stop_timeout(const char *text, int *ms);

#endif
