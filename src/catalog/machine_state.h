/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a named machine lives, and how its last life ended. Two things in its folder tell:
 *
 *   lock        held (a lock of the open file, not of a process) by whoever starts, runs or removes the
 *               machine; a running machine's processes inherit it, so it is free once the last is gone
 *   state.json  what the holder of the lock last said about the machine
 *
 * A state that says "running" under a free lock is that of a machine whose processes were all killed.
 */
#ifndef CATALOG_MACHINE_STATE_H
#define CATALOG_MACHINE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;
struct machine;

enum machine_life {
    MACHINE_NEVER,    /* has not been started yet */
    MACHINE_STARTING, /* its process is there, but has not said that it runs */
    MACHINE_RUNNING,
    MACHINE_ENDED,
    MACHINE_VANISHED, /* ended without a word */
};

struct machine_state {
    enum machine_life life;
    pid_t pid;                                  /* of ruche-vmm, while it lives and is watched; else 0 */
    pid_t keeper;                               /* of the process that watches over it */
    int64_t since;                              /* Unix time at which that life began */
    char control[128], serial[128], agent[128]; /* its sockets; the last may be empty: there is none */
    /* The end. */
    bool killed;      /* by a signal, */
    int status;       /* with this number; else the exit status */
    char reason[512]; /* what it said last; may be empty */
};

/* Takes the lock; a descriptor, or -1 with *err, whose code is EBUSY when it is held. */
int machine_lock(const struct machine *m, struct error **err);
/* Whether somebody holds it. */
bool machine_is_live(const struct machine *m);
/* Waits until nobody holds it, for `timeout_ms` (-1: as long as it takes). */
bool machine_wait_end(const struct machine *m, int timeout_ms);

/* Never fails: what cannot be read is the state of a machine that has vanished, with the reason. */
void machine_state_read(const struct machine *m, struct machine_state *state);
/* For the holder of the lock. NEVER and VANISHED are not written. */
bool machine_state_write(const struct machine *m, const struct machine_state *state, struct error **err);

/* Whether it is in the middle of a life. */
bool machine_lives(const struct machine_state *state);
/* Whether the last life ended as nobody wanted. */
bool machine_died(const struct machine_state *state);
/* Whether the last life goes on elsewhere. */
/*
 * Whether its disk is its own to use: it was not moved to another host, which has it still, and no other
 * program writes to it. The caller holds its lock. Before it is started, and before its layers are changed or
 * removed.
 */
bool machine_is_here(const struct machine *m, struct error **err);
bool machine_moved(const struct machine_state *state);
/* The end in words, such as "killed by signal 9 (Killed)". */
void machine_end_text(const struct machine_state *state, char *text, size_t size);

#endif
