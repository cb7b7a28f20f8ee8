/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the verbs for named machines share: finding them, looking at them, talking to them. One thread. */
#ifndef CLI_MACHINES_H
#define CLI_MACHINES_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "catalog/machine.h"
#include "catalog/machine_state.h"

/* The catalogue, without what killed commands have left in it. NULL and *err on failure. */
struct database *machines_open(struct error **err);

/* All machines; to be released by machine_list_free. False and *err on failure. */
bool machines_all(struct machine **list, size_t *count, struct error **err);

/* The machine of that name; EXIT_OK, or another exit status after a line on stderr. */
int machine_named(const char *word, struct machine *m);

/* Calls `fn` for each of the named machines, whatever becomes of the others. Gives EXIT_OK, or EXIT_RUCHE
 * after a line on stderr for each that failed. */
int machines_each(const char *verb, char **words, int count,
                  bool (*fn)(struct machine *m, void *opaque, struct error **err), void *opaque);

/* How a machine is just now. */
struct machine_look {
    struct machine_state state;
    char status[32]; /* in a word: running, paused, starting, stopped, died, no-answer, ... */
    char text[640];  /* why, when it died; else empty */
};

void machine_look(const struct machine *m, struct machine_look *look);
/* It as ruche ls --json has it; a new reference. */
json_t *machine_look_json(const struct machine *m, const struct machine_look *look);

/* One command of the control socket, whose answer is thrown away. */
bool machine_command(const struct machine *m, const char *command, struct error **err);

/* The exit status that `ruche run` would have given for a machine that has ended; says why on stderr when it
 * died. */
int machine_exit_status(const struct machine *m);

#endif
