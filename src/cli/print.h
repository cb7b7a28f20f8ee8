/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Output for people and for programs. Any thread. */
#ifndef CLI_PRINT_H
#define CLI_PRINT_H

#include <jansson.h>
#include <stdint.h>

/* "3h 20m": the time since a moment, given in seconds since 1970. */
const char *age_text(int64_t since, char text[32]);

/* "1.5 GiB": three digits that matter are enough for reading. */
const char *size_text(uint64_t bytes, char text[32]);

/*
 * Text of a guest's, for a message: at most one line of some hundred characters, with what a terminal would
 * take for a command written as \xNN. Owned by the caller.
 */
char *print_harmless(const char *text);

/* Prints and frees JSON; gives an exit status. */
int print_json(json_t *value);

#endif
