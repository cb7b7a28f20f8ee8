/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What `ruche doctor` finds. One thread. */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include <stddef.h>

enum finding_status {
    FINDING_OK,
    FINDING_ABSENT, /* Ruche works without it, but less well */
    FINDING_BROKEN, /* Ruche cannot run a machine without it */
};

struct finding {
    const char *name;
    enum finding_status status;
    char text[256];   /* what is the case */
    char remedy[320]; /* how to have it; empty: nothing to be done */
};

#define FINDING_MAX 16

/* Looks at one thing on this host and fills in *f, all but the name. */
typedef void doctor_check(struct finding *f);

struct doctor_entry {
    const char *name;
    doctor_check *check;
};

/* doctor_host.c: what the host's kernel offers. Ends with a NULL name. */
extern const struct doctor_entry doctor_host_checks[];

/* Sets the outcome; the remedy is empty. */
void finding_set(struct finding *f, enum finding_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void finding_remedy(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The first line of a file, without its end; empty when it cannot be read. */
void doctor_read(const char *path, char *text, size_t size);

#endif
