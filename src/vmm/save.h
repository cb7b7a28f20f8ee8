/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Saving a machine, and waking it up in another process. docs/saved-machine.md describes the file.
 *
 * A save has three parts: memory is written while the machine runs, and again what it writes meanwhile; then
 * the machine is frozen for the moment that it takes to write the rest and to take the states; then the file
 * is made durable and takes its name.
 */
#ifndef VMM_SAVE_H
#define VMM_SAVE_H

#include <stdbool.h>

#include "vmm/control.h"
#include "vmm/options.h"
#include "vmm/save_config.h"
#include "vmm/save_file.h"
#include "vmm/save_memory.h"

struct board;
struct error;
struct save_job;

/* Saving; main loop with the machine lock held. */

/*
 * Looks whether this machine can be saved so, and opens the file and the overlays; the machine may run. NULL
 * and *err when it cannot.
 */
struct save_job *save_prepare(struct board *b, const struct control_save_order *order, struct error **err);
/* What a save asks of the machine's life; on the main loop. */
struct save_ops {
    /* No vCPU runs between these two. */
    void (*hold)(struct board *b);
    void (*let_go)(struct board *b);
    /* It is time to freeze the machine and call save_take. */
    bool (*take)(struct board *b, struct error **err);
    /* The end, with an error when it failed; save_free is due. */
    void (*done)(struct board *b, const struct error *failure);
};
/* Begins, on a thread of its own. False and *err when it could not; then neither `take` nor `done` is called.
 */
bool save_start(struct save_job *job, const struct save_ops *ops, struct error **err);
/* Takes what changes when the machine goes on, and puts the overlays on its disks. Frozen. */
bool save_take(struct save_job *job, struct error **err);
/* Makes it end soon, as cancelled. */
void save_cancel(struct save_job *job);
void save_progress(const struct save_job *job, struct control_save *out);
/* Cancels, waits, releases; nothing is called any more. NULL is fine. */
void save_free(struct save_job *job);

/* save_disks.c: the disks of a saved machine must be as they were. */

/* Refuses disks that a later process would not find. */
bool save_disks_check(struct board *b, struct error **err);
/* Writes back what the disks hold. */
bool save_disks_flush(struct board *b, struct error **err);
/* The same, and marks them: frozen. Fills in id->disk. */
bool save_disks_settle(struct board *b, struct saved_identity *id, struct error **err);
/* Marks them as the machine has found them: until it runs it does not change what they hold. */
void save_disks_remember(struct board *b);
/* What the disks are while the machine runs: sizes, and of those that it only reads the time of the last
 * write. Fills in id->disk. */
void save_disks_identify(const struct board *b, struct saved_identity *id);
/* The machine goes on: the marks mean nothing any more. */
void save_disks_forget(struct board *b);
/* Closes the images, which may write to them without changing what the guest sees: the marks stay. */
void save_disks_close(struct board *b);

/* save_overlays.c: new top layers for disks, at the moment that is saved. */

/* Opens those that are asked for; none is open on failure. */
bool save_overlays_open(struct board *b, const struct control_save_order *order, struct error **err);
/* Puts them on their disks, after everything else has been taken. Frozen. */
bool save_overlays_put(struct board *b, struct error **err);
/* Those that were not put. */
void save_overlays_close(struct board *b);

/* Restoring. */

/* A saved machine, open: everything in it but the pages of memory is checked. */
struct saved_machine {
    struct save_file file;
    struct saved_identity id;
    struct save_page_table table;
    uint8_t *state;
    size_t state_len;
};

/*
 * Opens it, checks it against this host, and completes *config (see saved_read_description). NULL and *err,
 * one line, when anything does not fit; nothing but the file has been opened then. *config must outlive it.
 */
struct saved_machine *saved_open(const char *path, struct machine_config *config, struct error **err);
void saved_free(struct saved_machine *s);

/* Whether the disks are there, and were not written to since. */
bool saved_check_disks(const struct machine_config *config, const struct saved_identity *id,
                       struct error **err);
/* Whether the machine's disks, which are open, have the size that the guest knows. */
bool saved_check_sizes(const struct board *b, const struct saved_identity *id, struct error **err);

/* Guest memory as it was saved; read from the file when it is touched. */
struct guest_memory *saved_memory(const struct saved_machine *s, uint64_t size, struct error **err);
/* Puts a machine that was made from the configuration, is frozen and has not run, into the saved state. Lock
 * held. */
bool saved_restore(const struct saved_machine *s, struct board *b, struct error **err);

/*
 * Checks the memory's checksums while the machine runs, on a thread with what the host has to spare;
 * `damaged` is called on the main loop when one is wrong. NULL and *err when there can be no thread.
 */
struct saved_check;
struct saved_check *saved_check_start(const struct saved_machine *s, struct board *b,
                                      void (*damaged)(struct board *b, const struct error *why),
                                      struct error **err);
void saved_check_free(struct saved_check *c);

#endif
