/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Named machines: a row each in the catalogue's database, and a folder machines/UUID in the data folder with
 * the machine's own disk and logs. The folder is there before the row and goes after it, so a folder without
 * a row is a leftover of a command that was killed; machine_sweep removes those.
 *
 * Whether a machine lives is decided by the lock of its folder alone, which the processes of a running
 * machine hold (machine_state.h). One thread.
 */
#ifndef CATALOG_MACHINE_H
#define CATALOG_MACHINE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "catalog/database.h"
#include "catalog/image.h"
#include "catalog/seed.h"

struct machine {
    char *uuid;
    char *name;
    char *created;  /* UTC, as 2026-01-31T12:00:00Z */
    char *dir;      /* its folder, absolute */
    json_t *config; /* has the form of machine.schema.json */
    char *disk;     /* the layer of its disk that it writes to, a name in the folder */
    char *snapshot; /* that it is based on, by its id; NULL: none */
    bool resume;    /* its next start goes on from saved memory: machine_memory */
};

/* NULL members are fine. */
void machine_release(struct machine *m);
void machine_cleanup(struct machine *m); /* for `cleanup(machine)` */

/* By its name or UUID, or by the beginning of one of them that no other has. The code of *err is ENOENT when
 * there is none. `m` is filled on success only. */
bool machine_find(struct database *db, const char *word, struct machine *m, struct error **err);

/* All of them by name. One whose configuration does not have the form is left out, with a warning in the
 * log. */
bool machine_list(struct database *db, struct machine **machines, size_t *count, struct error **err);
void machine_list_free(struct machine *machines, size_t count);

/*
 * Makes a machine, with a disk on top of `image` (may be NULL: none) of which the configuration has name and
 * checksum, and with the volume of a seed (may be NULL: none), of which the configuration says that it is
 * there. Nothing is left on failure; the code of *err is EEXIST when the name is taken.
 */
bool machine_create(struct database *db, const char *name, const json_t *config, const struct image *image,
                    const struct seed *seed, struct machine *m, struct error **err);

/* The same of a machine that comes from elsewhere and keeps its UUID, without a disk of its own. EEXIST also
 * when there is one of that UUID. */
bool machine_adopt(struct database *db, const char *name, const char *uuid, const json_t *config,
                   struct machine *m, struct error **err);

/* machine_create's two steps apart, for who makes the folder itself: a machine of that name with a new UUID,
 * which is nowhere yet; and its row, within a transaction, once its folder is complete. */
bool machine_draft(const char *name, const json_t *config, struct machine *m, struct error **err);
bool machine_insert(struct database *db, const struct machine *m, struct error **err);

/*
 * machine_create in two steps, for whoever makes the disk himself: a machine that only has its folder and,
 * with *lock, its lock; the caller fills both folder and m->config, then has it entered. What is not entered
 * is removed by machine_abandon, or, of a command that was killed, by machine_sweep.
 */
bool machine_prepare(struct database *db, const char *name, const json_t *config, struct machine *m,
                     int *lock, struct error **err);
void machine_abandon(struct machine *m, int *lock);

/* A configuration as the catalogue has it; owned by the caller. NULL and *err when it has not the form. */
char *machine_config_text(const json_t *config, struct error **err);

/* Writes m->config to the catalogue. Between reading and writing the caller has a transaction open. */
bool machine_update(struct database *db, const struct machine *m, struct error **err);
bool machine_rename(struct database *db, const struct machine *m, const char *name, struct error **err);
/* With its folder. The caller holds the machine's lock. */
bool machine_remove(struct database *db, const struct machine *m, struct error **err);

/* Removes folders that belong to no machine. What cannot be removed stays, with a warning in the log. */
void machine_sweep(struct database *db);

/* Whether a machine of that configuration has a disk of its own: one with an image, or that was restored. */
bool machine_has_disk(const json_t *config);
/* The machine's disk on its image, by the layer that is written to; a path that the caller owns. */
char *machine_disk(const struct machine *m);
/* The volume of its seed, if it has one; a path that the caller owns. */
char *machine_seed(const struct machine *m);

/* The name of a machine whose disk stands on the image, owned by the caller; NULL when there is none, or with
 * *err set when the catalogue cannot be read. */
char *machine_on_image(struct database *db, const char *image, struct error **err);

#endif
