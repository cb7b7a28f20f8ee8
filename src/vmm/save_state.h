/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The states of a machine's processors, devices and clock, one record each: the object's name and class, and
 * its state in the form of core/state.h.
 */
#ifndef VMM_SAVE_STATE_H
#define VMM_SAVE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/state.h"

struct board;
struct error;

/* Appends the records of the whole machine. Frozen, machine lock held. False and *err when memory is short.
 */
bool save_state(struct board *b, struct state_buf *out, struct error **err);

/* Calls `fn` for each object of which there will be a record. Lock held. */
void save_state_each(const struct board *b,
                     void (*fn)(void *opaque, const char *name, const char *cls,
                                const struct state_desc *desc),
                     void *opaque);

/* Appends bytes that are no record. */
bool save_state_put(struct state_buf *out, const void *data, size_t len, struct error **err);

/*
 * Whether these are records of classes that this Ruche has; says nothing of their contents. `what` is the
 * file's name, for messages.
 */
bool saved_check_state(const uint8_t *data, size_t len, const char *what, struct error **err);

/*
 * Loads the records into a machine that is frozen and has not run; machine lock held. Each object must have
 * its record and each record its object. After a failure the machine can only be freed.
 */
bool saved_load_state(struct board *b, const uint8_t *data, size_t len, const char *what, struct error **err);

#endif
