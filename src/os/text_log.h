/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bounded log of a byte stream: PATH holds what came last, PATH.1 what came before; together they stay
 * below a limit. Writing never fails for the caller: what a full disk does not take is lost, and that is said
 * once. One thread.
 */
#ifndef OS_TEXT_LOG_H
#define OS_TEXT_LOG_H

#include <stddef.h>
#include <stdint.h>

struct error;
struct text_log;

/* Both files together. */
#define TEXT_LOG_MAX ((size_t)1 << 20)

/* Goes on with an existing log. NULL and *err on failure. */
struct text_log *text_log_open(const char *path, struct error **err);
/* NULL is fine. Writes out what was gathered. */
void text_log_close(struct text_log *log);

/* Gathers small pieces; text_log_flush has them in the file. */
void text_log_write(struct text_log *log, const uint8_t *data, size_t len);
void text_log_flush(struct text_log *log);

/* The last bytes written, at most `size` and only of PATH; gives how many. */
size_t text_log_tail(struct text_log *log, uint8_t *data, size_t size);

#endif
