/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks JSON against a JSON Schema, in the part of the language (draft 2020-12) that Ruche's own schemas
 * use: type, enum, anyOf, minimum, maximum, multipleOf, minLength, maxLength, pattern (an extended regular
 * expression), properties, required, additionalProperties false, items, maxItems. A schema with any other
 * keyword that would refuse something is refused itself. Any thread.
 */
#ifndef CATALOG_SCHEMA_H
#define CATALOG_SCHEMA_H

#include <jansson.h>
#include <stdbool.h>

struct error;

/* False and *err, which names the place in the value and what is wrong there, when it does not fit. */
bool schema_check(const json_t *schema, const json_t *value, struct error **err);

#endif
