/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The start of a named machine. The command forks a keeper: a small process in a session of its own that
 * starts ruche-vmm, waits for its end, and writes that down in the machine's folder. Both hold the machine's
 * lock. When the keeper is killed the machine goes on; only nobody writes down how it ends.
 */
#ifndef CLI_KEEPER_H
#define CLI_KEEPER_H

#include <stdbool.h>

#include "base/error.h"
#include "catalog/machine.h"

/* Returns once the machine runs, or with false and *err (EBUSY: it runs already). No catalogue may be open.
 */
bool keeper_start(const struct machine *m, struct error **err);
/* The same of a machine that comes from elsewhere, at an address that ruche-vmm --incoming takes. */
bool keeper_receive(const struct machine *m, const char *address, struct error **err);
/* The same for a caller that holds layers_lock. */
bool keeper_start_at_snapshots(const struct machine *m, struct error **err);

/* What ruche-vmm and the keeper say is in a file in the machine's folder, what the guest says on its first
 * serial line in another; a path that the caller owns. */
char *machine_log(const struct machine *m);
char *machine_serial_log(const struct machine *m);

#endif
