/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting `ruche-vmm`, the process of one machine. One thread. */
#ifndef CLI_MACHINE_PROCESS_H
#define CLI_MACHINE_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

/* Words of a command line; the strings are owned. */
struct words {
    char **v; /* ends with NULL once there is a word */
    size_t n;
};

void words_add(struct words *w, const char *word);
void words_free(struct words *w);

/* The path of ruche-vmm: $RUCHE_VMM, the one of the same build folder, or the installed one. Owned by the
 * caller. */
char *machine_program(struct error **err);
/* The path of ruche-tunnel: beside this program, or the installed one. Owned by the caller. */
char *tunnel_program(struct error **err);

struct machine_process {
    pid_t pid;
    int ready_fd; /* read end: the machine says here that it runs, or in one line why not */
};

/*
 * Starts `program` with `args`, adding --ready-fd. `serial_fd` (or -1) stays open in the machine under its
 * number; `error_fd` becomes its standard error. A detached machine gets a session of its own; another one is
 * told to end when this process dies.
 */
bool machine_start(const char *program, const struct words *args, int serial_fd, int error_fd, bool detach,
                   struct machine_process *out, struct error **err);

/* The end of a machine's life as an exit status: its own, or EXIT_RUCHE with a line on stderr when a signal
 * ended it. */
int machine_status(int wait_status);

#endif
