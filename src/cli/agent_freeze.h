/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest whose file systems stand still, so that a snapshot of its disks is consistent.
 *
 * The protocol has no time limit for that, and a guest that is left frozen hangs. So before anything freezes
 * a second process, the thawer, is started. It thaws when the first one dies, however, and when the limit is
 * over. When the thawer is killed as well, the guest stays frozen until the next command that talks to its
 * agent, which finds the machine's file "agent.frozen" without the lock that the two held. One thread.
 */
#ifndef CLI_AGENT_FREEZE_H
#define CLI_AGENT_FREEZE_H

#include <stdbool.h>

#include "base/error.h"
#include "catalog/machine.h"

struct agent;
struct agent_freeze;

/* Returns once all that has been written is on the disks and nothing more is. NULL and *err on failure, when
 * nothing is frozen, or is being thawed. The machine must be thawed before its memory is released. */
struct agent_freeze *agent_freeze(struct agent *a, const struct machine *m, int limit_ms, struct error **err);

/* False and *err when it was not frozen all the time, because the limit was over or by the guest's own doing:
 * what was copied meanwhile is not consistent. When the agent does not answer the thawer goes on trying. */
bool agent_thaw(struct agent *a, struct agent_freeze *f, struct error **err);

/* Thaws what was left frozen by commands that were killed. */
void agent_thaw_forgotten(struct agent *a, const struct machine *m);

#endif
