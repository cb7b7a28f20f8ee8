/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A catalogue of its own for unit tests, and a machine on a very small image in it. Failures go through
 * cmocka. */
#ifndef TESTS_CLI_SMALL_MACHINE_H
#define TESTS_CLI_SMALL_MACHINE_H

#include <stdbool.h>

#include "catalog/layers.h"
#include "catalog/machine.h"

/* The data folder, for cmocka_run_group_tests. */
extern char small_folder[];
int small_folder_make(void **state);
int small_folder_remove(void **state);

/* Makes the machine "web". */
void small_make(struct database *db, struct machine *m);
void small_remove(struct database *db, struct machine *m);
/* As it is in the catalogue now. */
void small_again(struct database *db, struct machine *m);

/* Something was written to its top layer. */
void small_touch(const struct machine *m);
/* Whether that file is in its folder. */
bool small_has(const struct machine *m, const char *name);
void small_load(struct database *db, const struct machine *m, struct layers *l);

#endif
