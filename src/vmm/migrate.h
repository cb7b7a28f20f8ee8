/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Live migration: a running machine goes on in another process. docs/migration.md describes the stream and
 * who may run when.
 *
 * The source (migrate.c, on a thread of its own, and its turns on the main loop) sends memory while the
 * machine runs, and again what it writes meanwhile, until that takes no longer than the machine may stand
 * still; then it freezes the machine, sends the rest and the states, and hands over. The destination
 * (incoming.c) makes the machine before memory comes.
 */
#ifndef VMM_MIGRATE_H
#define VMM_MIGRATE_H

#include <stdbool.h>

#include "vmm/control.h"
#include "vmm/options.h"

struct board;
struct error;
struct incoming;
struct migration;
struct saved_identity;

/* The source. Main loop, machine lock held. */

extern const struct control_migrate_settings migrate_defaults;

/* Where the machine is in the end. */
enum migrate_end {
    MIGRATE_STAYED,   /* here */
    MIGRATE_MOVED,    /* there */
    MIGRATE_IN_DOUBT, /* nobody here can know */
    MIGRATE_LOST,     /* not there, and what it needs cannot be had here any more */
};

/* What a migration asks of the machine's life; on the main loop. */
struct migrate_ops {
    /* Freezes the machine for the end. False and *err, EAGAIN when something else has to happen first. */
    bool (*freeze)(struct board *b, struct error **err);
    /* It goes on here, as it was. */
    void (*go_on)(struct board *b);
    /* The status has changed. */
    void (*status)(struct board *b, const char *status);
    /* The end; migrate_free is due. Unless it has moved `failure` says why. */
    void (*done)(struct board *b, enum migrate_end end, const struct error *failure);
};

/* Begins to move the machine to `address`. NULL and *err when it cannot be moved. */
struct migration *migrate_start(struct board *b, const char *address, const struct migrate_ops *ops,
                                struct error **err);
/* Settings that hold from now on. */
void migrate_set(struct migration *m, const struct control_migrate_settings *settings);
/* The guest's memory was changed past the engine's log, as by a reset. */
void migrate_memory_changed(struct migration *m);
/* Makes it end soon; harmless once the other end may run. */
void migrate_cancel(struct migration *m);
void migrate_progress(const struct migration *m, struct control_migration *out);
/* Cancels, waits, releases; nothing is called any more. NULL is fine. */
void migrate_free(struct migration *m);

/*
 * The destination: waits for a source, hears what machine it has and completes *config with it (see
 * saved_read_description). NULL and *err when there comes none that could be taken.
 */
struct incoming *incoming_open(struct machine_config *config, struct error **err);
const struct saved_identity *incoming_identity(const struct incoming *in);
/*
 * Puts a machine that was made from it, is frozen and has not run, into the state in which the source has
 * frozen its own, and takes it over. False and *err: the source has it, or nobody. Lock not held.
 */
bool incoming_take(struct incoming *in, struct board *b, struct error **err);
/* The machine runs: tells the source. */
void incoming_took(struct incoming *in);
/* Tells the source that there will be no machine here, and why. */
void incoming_give_up(struct incoming *in, const struct error *why);
/* NULL is fine. */
void incoming_free(struct incoming *in);

#endif
