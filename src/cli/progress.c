/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Progress display: see progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/print.h"

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

static void draw(const struct progress *p, uint64_t part, uint64_t whole, const char *text)
{
    char bar[BAR_WIDTH + 1];
    size_t done = whole ? (size_t)MIN((double)part / (double)whole * BAR_WIDTH, BAR_WIDTH) : 0;
    memset(bar, '#', done);
    memset(bar + done, '.', BAR_WIDTH - done);
    bar[BAR_WIDTH] = 0;
    long s = elapsed(p);
    fprintf(stderr, "\r%s [%s] %s  %ld:%02ld\033[K", p->what, bar, text, s / 60, s % 60);
}

void progress_tick(const struct progress *p)
{
    char text[sizeof(p->title) + 32];
    if (!p->terminal || !p->steps)
        return;
    snprintf(text, sizeof(text), "%u/%u %s", p->step, p->steps, p->title);
    draw(p, p->step ? p->step - 1 : 0, p->steps, text);
}

void progress_bytes(struct progress *p, uint64_t done, uint64_t total)
{
    char text[80], done_text[32], total_text[32];
    size_text(done, done_text);
    snprintf(text, sizeof(text), "%s%s%s", done_text, total ? " of " : "",
             total ? size_text(total, total_text) : "");
    unsigned tenths = total ? (unsigned)((double)done / (double)total * 10) : 0;
    if (p->terminal)
        draw(p, done, total, text);
    else if (tenths > p->step)
        fprintf(stderr, "%s: %u%%, %s\n", p->what, tenths * 10, text);
    p->step = MAX(p->step, tenths);
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
