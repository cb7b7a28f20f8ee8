/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Progress display: see progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

#define BAR_WIDTH 24u

static long elapsed(const struct progress *p)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec - p->start.tv_sec;
}

void progress_start(struct progress *p, const char *what)
{
    *p = (struct progress){.what = what, .terminal = isatty(STDERR_FILENO)};
    clock_gettime(CLOCK_MONOTONIC, &p->start);
}

void progress_tick(const struct progress *p)
{
    if (!p->terminal || !p->steps)
        return;
    char bar[BAR_WIDTH + 1];
    unsigned done = MIN((p->step ? p->step - 1 : 0) * BAR_WIDTH / p->steps, BAR_WIDTH);
    memset(bar, '#', done);
    memset(bar + done, '.', BAR_WIDTH - done);
    bar[BAR_WIDTH] = 0;
    long s = elapsed(p);
    fprintf(stderr, "\r%s [%s] %u/%u %s  %ld:%02ld\033[K", p->what, bar, p->step, p->steps, p->title, s / 60,
            s % 60);
}

void progress_step(struct progress *p, const char *title)
{
    p->step++;
    snprintf(p->title, sizeof(p->title), "%s", title);
    if (p->terminal)
        progress_tick(p);
    else
        fprintf(stderr, "%s: %u/%u %s\n", p->what, p->step, p->steps, p->title);
}

void progress_end(struct progress *p, bool ok)
{
    if (p->terminal)
        fputs("\r\033[K", stderr);
    long s = elapsed(p);
    if (ok)
        fprintf(stderr, "%s: done in %ld:%02ld\n", p->what, s / 60, s % 60);
}
