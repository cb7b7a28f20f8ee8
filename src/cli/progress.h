/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Progress through a known number of steps or bytes: a bar on a terminal, lines elsewhere. On standard error.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct progress {
    const char *what;     /* not owned */
    unsigned step, steps; /* of bytes: tenths that have been told */
    char title[80];
    bool terminal;
    struct timespec start;
};

void progress_start(struct progress *p, const char *what);
void progress_step(struct progress *p, const char *title);
/* Draws again; to be called about every second so that the clock runs. */
void progress_tick(const struct progress *p);
/* Instead of steps; `total` may be 0 while it is not known. To be called some times a second. */
void progress_bytes(struct progress *p, uint64_t done, uint64_t total);
/* Ends the display; `ok` says whether it all went well. */
void progress_end(struct progress *p, bool ok);

#endif
