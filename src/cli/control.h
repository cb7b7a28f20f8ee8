/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A client of the control socket of one machine (QMP form, see docs/ARCHITECTURE.md). */
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include <stdbool.h>

#include "base/error.h"

/*
 * Connects, negotiates, executes one command without arguments, and waits for its answer; `timeout_ms` bounds
 * each wait. False and *err also when the machine answers with an error.
 */
bool control_execute(const char *socket_path, const char *command, int timeout_ms, struct error **err);

#endif
