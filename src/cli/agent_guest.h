/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest agent says of its guest, and the guest's clock. One thread. */
#ifndef CLI_AGENT_GUEST_H
#define CLI_AGENT_GUEST_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "catalog/machine.h"
#include "cli/agent.h"

/* The addresses at which others may reach a running machine, IPv4 before IPv6, as a list of texts, each of
 * which is an address whatever the guest says. Empty when no agent answers at once. */
json_t *guest_addresses(const struct machine *m);

/* Has the guest's clock show the host's time. */
bool guest_set_time(struct agent *a, struct error **err);
/* The same by a process of its own, without a word, for a machine that has just gone on: its agent may have
 * other things to do first, and it may have none. */
void guest_set_time_apart(const char *name, const char *socket_path);

#endif
