/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The claim to run a machine that moves: who has it may run, and only one can have it. It is a name of the
 * host's kernel, where both ends see the same names (one host), and the locks of the disks that are written,
 * where there are any; both end with the process that has them. docs/migration.md says who takes it when.
 */
#ifndef VMM_MIGRATE_CLAIM_H
#define VMM_MIGRATE_CLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/migrate_stream.h"

struct board;
struct error;

struct migrate_claim {
    uint8_t session[MIGRATE_SESSION];
    int name;    /* the socket that has the name; -1: not held */
    bool shared; /* both ends see the same names */
};

/* The source, which runs, makes a session and takes its name. */
bool migrate_claim_begin(struct migrate_claim *c, struct error **err);
/* The destination, while the source has the name: finds out whether it is seen here. */
void migrate_claim_look(struct migrate_claim *c);

/* Whether there is anything that both ends see. Lock held, as at the next two. */
bool migrate_claim_is_decisive(const struct migrate_claim *c, const struct board *b);
/* Lets go of all of it. On failure nothing has been let go of. Frozen. */
bool migrate_claim_let_go(struct migrate_claim *c, struct board *b, struct error **err);
/* Takes all of it. On failure nothing is taken; EBUSY or other codes when somebody else has it. Frozen. */
bool migrate_claim_take(struct migrate_claim *c, struct board *b, struct error **err);

/*
 * The end of the migration: a name that was needed is kept until the process ends, as the other end may try
 * to take it for as long as it lives.
 */
void migrate_claim_settle(struct migrate_claim *c, bool needed);

#endif
