/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making clones of machines: what `ruche clone` does. docs/clones.md says why so. One thread. */
#ifndef CLI_CLONES_H
#define CLI_CLONES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "catalog/machine.h"

struct clone_order {
    const char *machine;
    const char *snapshot; /* NULL: as it is now */
    char **names;         /* of the clones */
    size_t count;         /* at most AT_ONCE_MAX */
    bool full;            /* copies of the disk */
    bool cold;            /* without memory */
};

/* What was made. */
struct clone_result {
    struct machine *machines;
    size_t count;
    json_t *nets;      /* of the machine that they are clones of, as its configuration has them */
    char *of;          /* its name */
    unsigned forwards; /* as clone_config */
};

/* All of them or none. They do not run yet. The result is to be released on success only. */
bool clones_make(const struct clone_order *o, struct clone_result *r, struct error **err);
void clone_result_release(struct clone_result *r);

/* Starts those that have memory, and lets guests with an agent know who they are. Gives an exit status, after
 * a line on stderr for each that did not start. */
int clones_start(struct clone_result *r);

/* clone_renew.c: has the guest of a running clone take up an identity of its own. 0: it has; 1: it runs no
 * agent; 2: it failed at a part, after a line on stderr. */
enum { RENEWED, RENEWED_NOTHING, RENEWED_IN_PART };
int clone_renew(const struct machine *m, const json_t *old_nets);

#endif
