/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A verb of the command line: `ruche NAME ...`. Each has a file of its own with one struct verb; the table
 * verbs[] is generated from the list in meson.build.
 */
#ifndef CLI_VERB_H
#define CLI_VERB_H

#include <stdbool.h>

#include "base/error.h"

enum exit_status {
    EXIT_OK = 0,
    EXIT_USAGE = 2,
    EXIT_RUCHE = 125, /* Ruche failed; one line on stderr says what, on what, why */
    EXIT_SIGNAL = 128 /* plus the signal's number */
};

struct verb {
    const char *name;
    const char *summary; /* one line for `ruche help` */
    const char *help;    /* the whole text for `ruche NAME --help`, ending with a newline */
    /* argv[0] is the verb. Returns the exit status. */
    int (*run)(int argc, char **argv);
};

extern const struct verb *const verbs[]; /* ends with NULL */
const struct verb *verb_find(const char *name);

/* One line "ruche: ..." on stderr; gives EXIT_USAGE. */
int usage_error(const char *verb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One line "ruche: ..." on stderr, frees the error; gives EXIT_RUCHE. */
int failure(struct error *err);

/*
 * Takes the option NAME (without dashes) at argv[*i] as "--NAME VALUE" or "--NAME=VALUE". Gives true and the
 * value, with *i at the last word of it; *value is NULL when the value is missing. False for any other word.
 */
bool option_value(int argc, char **argv, int *i, const char *name, const char **value);

#endif
