/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Other programs that Ruche has do a part of its work. One thread. */
#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

#include <stddef.h>

struct error;

struct program {
    const char *package;        /* of Debian, for whoever lacks the program */
    char *out;                  /* gets what it prints; NULL: that is not wanted */
    size_t size;                /* of `out` */
    void (*tick)(void *opaque); /* called some times a second while it runs; NULL: nothing is */
    void *opaque;
};

/* Runs words[0] to its end; it ends with the caller. Gives its exit status: when not 0, *err is the first
 * line of its complaints without its name in front. -1 and *err when it did not end by itself. */
int program_run(const char *const words[], const struct program *p, struct error **err);

#endif
