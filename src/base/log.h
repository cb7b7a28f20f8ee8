/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Leveled logging to one stream (stderr unless log_to was called). Any thread. A line is written with one
 * write(2). */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* What is written from now on; the default is LOG_WARN. */
void log_set_level(enum log_level level);

/* Directs the log to `fd`, which the caller keeps open. */
void log_to(int fd);

/* Writes "PROGRAM: LEVEL: text\n"; `fmt` has no newline. */
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * As log_line, but a guest that causes the same message over and over gets at most `10` lines a second per
 * call site, then one line saying how many were left out. Every message that a guest can cause uses this one.
 */
#define log_guest(level, ...)                                                                                \
    do {                                                                                                     \
        static struct log_limit log_limit_;                                                                  \
        log_limited(&log_limit_, level, __VA_ARGS__);                                                        \
    } while (0)

struct log_limit {
    long long window_start_ns;
    unsigned count;
};

void log_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
