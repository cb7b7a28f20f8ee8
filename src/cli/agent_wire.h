/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A conversation with QEMU's guest agent over its port's socket: a line of JSON each way at a time.
 *
 * The other side is the guest, which may be anyone: it may say nothing, nonsense, or no end of something. So
 * each wait ends, each reply has a largest size, and text from it is made harmless before it gets into a
 * message. One thread; ends early when the command is interrupted (interrupt.h).
 */
#ifndef CLI_AGENT_WIRE_H
#define CLI_AGENT_WIRE_H

#include <jansson.h>

#include "base/error.h"

/* The largest replies: of most commands; of those that return what a program has said, two streams of at most
 * 16 MiB in base64. */
#define AGENT_REPLY       ((size_t)1 << 20)
#define AGENT_REPLY_BULKY ((size_t)48 << 20)

struct agent_wire;

/* Connects and waits, at most so long, until the agent answers to this conversation and no earlier one.
 * NULL and *err on failure. */
struct agent_wire *agent_wire_open(const char *socket_path, int timeout_ms, struct error **err);
/* NULL is fine. */
void agent_wire_close(struct agent_wire *w);

/*
 * Executes a command; `arguments` (may be NULL: none) are taken over. What it returned, owned by the caller;
 * NULL and *err on failure. The code of *err is EREMOTEIO when the agent refused, and the conversation goes
 * on; else it is over and only to be closed: EINTR, ETIMEDOUT, ECONNRESET, EPROTO for nonsense.
 */
json_t *agent_wire_call(struct agent_wire *w, const char *command, json_t *arguments, size_t reply_max,
                        int timeout_ms, struct error **err);

#endif
