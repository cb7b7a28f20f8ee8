/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The objects of a machine that moves (its clock, processors, devices) with the versions of their states, as
 * JSON: a list of [name, class, version]. With it the other end knows before anything else whether it will be
 * able to read the states.
 */
#ifndef VMM_MIGRATE_OBJECTS_H
#define VMM_MIGRATE_OBJECTS_H

#include <stdbool.h>
#include <stddef.h>

struct board;
struct error;

/* The text, which the caller frees; NULL and *err when memory is short. Lock held, as at the next one. */
char *migrate_objects_describe(const struct board *b, struct error **err);
/* Whether the machine has just those objects and reads those versions. *err names what does not fit. */
bool migrate_objects_fit(const struct board *b, const char *text, size_t len, struct error **err);

#endif
