/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Progress through a known number of steps: a bar on a terminal, a line a step elsewhere. On standard error.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <time.h>

struct progress {
    const char *what; /* not owned */
    unsigned step, steps;
    char title[80];
    bool terminal;
    struct timespec start;
};

void progress_start(struct progress *p, const char *what);
void progress_step(struct progress *p, const char *title);
/* Draws again; to be called about every second so that the clock runs. */
void progress_tick(const struct progress *p);
/* Ends the display; `ok` says whether it all went well. */
void progress_end(struct progress *p, bool ok);

#endif
