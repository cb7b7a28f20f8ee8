/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Leveled logging: see log.h. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LINES_PER_SECOND 10

static _Atomic int level_now = LOG_WARN;
static _Atomic int log_fd = STDERR_FILENO;

void log_set_level(enum log_level level)
{
    level_now = (int)level;
}

void log_to(int fd)
{
    log_fd = fd;
}

__attribute__((format(printf, 2, 0))) static void log_v(enum log_level level, const char *fmt, va_list ap)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[1024];
    int saved = errno;
    int n = snprintf(line, sizeof(line), "%s: %s: ", program_invocation_short_name, names[level]);
    int m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
    size_t len = (size_t)n + (m < 0 ? 0 : (size_t)m);
    if (len > sizeof(line) - 2)
        len = sizeof(line) - 2;
    line[len++] = '\n';
    if (write(log_fd, line, len) < 0)
        errno = 0; /* a log that cannot be written has nowhere to say so */
    errno = saved;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    if ((int)level > level_now)
        return;
    va_list ap;
    va_start(ap, fmt);
    log_v(level, fmt, ap);
    va_end(ap);
}

void log_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
{
    if ((int)level > level_now)
        return;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    long long now = ts.tv_sec * 1000000000LL + ts.tv_nsec;
    long long start = __atomic_load_n(&limit->window_start_ns, __ATOMIC_RELAXED);
    if (start == 0 || now - start > 1000000000LL) {
        unsigned count = __atomic_exchange_n(&limit->count, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&limit->window_start_ns, now, __ATOMIC_RELAXED);
        if (count > LINES_PER_SECOND)
            log_line(level, "(the next message came %u more times)", count - LINES_PER_SECOND);
    }
    if (__atomic_fetch_add(&limit->count, 1, __ATOMIC_RELAXED) >= LINES_PER_SECOND)
        return;
    va_list ap;
    va_start(ap, fmt);
    log_v(level, fmt, ap);
    va_end(ap);
}
