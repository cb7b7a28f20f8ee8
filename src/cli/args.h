/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The options of a verb as a table. */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>

struct arg {
    const char *name;   /* without dashes */
    char letter;        /* 0: there is none */
    bool *flag;         /* set to true; NULL: it has a value, */
    const char **value; /* which goes here */
};

/*
 * Takes the options in argv[1..argc) and moves the other words to argv[0..]; "--" ends the options. Gives the
 * number of other words, or -1 after a line on stderr about wrong usage of the verb argv[0].
 */
int args_take(int argc, char **argv, const struct arg *args, size_t count);

#endif
