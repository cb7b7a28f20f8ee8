/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clones of machines, as far as the catalogue goes. A clone's folder is made first, by hard links to what it
 * shares with the machine that it is one of: layers of the disk that nobody writes to, and a saved machine.
 * So each has all that it needs, whatever becomes of the other, and a file goes with the last that has it.
 * Then all clones of one command come into the catalogue by one transaction.
 *
 * The folder's lock is held meanwhile, so that no other command takes it for a leftover; that of a killed
 * command is one. Whoever makes clones holds layers_lock of the machine. One thread.
 */
#ifndef CATALOG_CLONE_H
#define CATALOG_CLONE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "catalog/machine.h"

struct clone {
    struct machine m; /* as it will be in the catalogue */
    int lock;         /* -1: there is no folder yet */
};

/* The configuration of a clone, a new reference: network cards have new addresses, and no ports of the host
 * lead to them, of which *forwards is the number. NULL and *err on failure. */
json_t *clone_config(const json_t *config, unsigned *forwards, struct error **err);

/* The UUID in the form of systemd's machine-id: without signs; owned by the caller. */
char *clone_machine_id(const char *uuid);
/* Has the guest's systemd take up that machine-id at its next boot, by the kernel's command line. `cmdline`
 * is the one that the machine has. */
void clone_set_machine_id(struct clone *c, const char *cmdline);

/* A clone to be, with an empty folder. The code of *err is EEXIST when the name is taken. Once begun, also
 * without success, clone_let_go is due, and then machine_release. */
bool clone_begin(struct database *db, const char *name, const json_t *config, struct clone *c,
                 struct error **err);
/* Unlocks the folder; `discard`: after removing it. */
void clone_let_go(struct clone *c, bool discard);

/* It shares the layer of `of`, and what that stands on, and has a top of its own. */
bool clone_share_disk(struct clone *c, const struct machine *of, const char *layer, struct error **err);
/* Gives it an untouched top on a layer that is in its folder. */
bool clone_add_top(struct clone *c, const char *layer, struct error **err);
/* Its first start goes on from that saved machine. */
bool clone_share_memory(struct clone *c, const char *path, struct error **err);
/* A seed of its own, if the machine has one. */
bool clone_copy_seed(struct clone *c, const struct machine *of, struct error **err);

/* One transaction: they are machines; `of` writes to the layer `top` from then on (NULL: to the same). */
bool clone_commit(struct database *db, const struct clone *clones, size_t count, const struct machine *of,
                  const char *top, struct error **err);

#endif
