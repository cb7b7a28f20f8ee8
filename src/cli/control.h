/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A client of the control socket of one machine (QMP form, see docs/ARCHITECTURE.md). */
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

struct control;

/* Connects and negotiates; `timeout_ms` bounds each wait for an answer. NULL and *err on failure. */
struct control *control_open(const char *socket_path, int timeout_ms, struct error **err);
/* NULL is fine. */
void control_close(struct control *c);
/*
 * Executes a command; `arguments` (may be NULL) are taken over. What it returned, owned by the caller; NULL
 * and *err also when the machine answers with an error.
 */
json_t *control_call(struct control *c, const char *command, json_t *arguments, struct error **err);

/* One without arguments whose answer is thrown away. */
bool control_command(struct control *c, const char *command, struct error **err);

/* A connection to a Unix socket; -1 and *err on failure. */
int control_connect(const char *socket_path, struct error **err);

/* Connects, executes one command without arguments, and waits for its answer. */
bool control_execute(const char *socket_path, const char *command, int timeout_ms, struct error **err);

#endif
