/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest agent of a machine: a program in the guest (Debian's package qemu-guest-agent) that runs
 * commands, reads and writes files and freezes file systems for the host.
 *
 * It answers one request at a time on one connection, so commands take turns: who talks to it holds a lock of
 * the file "agent.lock" in the machine's folder. A turn lasts for a second, then the connection is closed and
 * whoever waits comes next; long commands and copies go on in their next turn. One thread.
 */
#ifndef CLI_AGENT_H
#define CLI_AGENT_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "catalog/machine.h"
#include "cli/agent_wire.h"

#define AGENT_PATIENCE_MS 20000 /* for an answer, on a machine that has much to do */
#define AGENT_GLANCE_MS   700   /* for what may be left out */

struct agent;

/*
 * Finds out that the machine runs with an agent in it, and has the first turn. `patience_ms` bounds each wait
 * for an answer, and for the turn. NULL and *err, which says what to do, when there is none to talk to.
 */
struct agent *agent_open(const struct machine *m, int patience_ms, struct error **err);
/* As agent_open, for a machine of which only the agent's socket is known, and with which nobody takes turns.
 */
struct agent *agent_open_socket(const char *name, const char *socket_path, int patience_ms,
                                struct error **err);
void agent_close(struct agent *a); /* NULL is fine */

/* As agent_wire_call. Unless the agent refused, an error ends the turn, and the next call begins anew. */
json_t *agent_call(struct agent *a, const char *command, json_t *arguments, size_t reply_max,
                   struct error **err);
/* Ends the turn, for who has nothing to ask for a while. The next call begins anew. */
void agent_pause(struct agent *a);
/* As agent_call where only success counts. */
bool agent_do(struct agent *a, const char *command, json_t *arguments, struct error **err);

#endif
