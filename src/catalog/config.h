/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration of a machine, as JSON: its form is machine.schema.json, which is part of the program.
 * What the values mean beyond that (does the engine exist here, does the file) is for the machine's own
 * process to say. One thread.
 */
#ifndef CATALOG_CONFIG_H
#define CATALOG_CONFIG_H

#include <jansson.h>
#include <stdbool.h>

struct error;

/* The schema's text. */
extern const char config_schema[];

/* Whether it has the form; *err names the first place that has not. */
bool config_check(const json_t *config, struct error **err);

/*
 * Sets what is written as KEY=TEXT. A list (`disks`, `modules`, `devices`) grows by one; `net` replaces the
 * network cards, where the first keeps its address, and "none" leaves none; an empty text takes away what
 * may be missing. Files are made absolute. The code of *err is EINVAL when the words are wrong.
 */
bool config_set(json_t *config, const char *key, const char *text, struct error **err);
/* Adds a network card. */
bool config_add_net(json_t *config, const char *text, struct error **err);

/* The keys that config_set takes and that may be set at any time, one after the other; NULL at the end. */
const char *config_key(unsigned index);

#endif
