/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one error convention. A fallible function takes `struct error **err` last and returns bool, a pointer
 * or a negative number. On failure it sets *err once; on success it leaves *err untouched. `err` may be NULL
 * when the caller does not want the reason. The message is one sentence without a final period: what was
 * tried, on what, why it failed.
 *
 *     struct error *err = NULL;
 *     if (!disk_open(&d, path, &err))
 *         return error_prefix(&err_out, err, "drive 0"), false;
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdarg.h>

struct error {
    int code;   /* a positive errno value, or 0 when none applies */
    char *text; /* owned, never NULL */
};

/* Creates an error in *err (no-op when err is NULL). *err must be NULL before. */
void error_set(struct error **err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As error_set, with ": " and the text of errno value `code` appended. */
void error_set_errno(struct error **err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Moves `src` (may be NULL: no-op) into *dst with "prefix: " put in front. Takes ownership of src. */
void error_prefix(struct error **dst, struct error *src, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The text of an error; "unknown error" for NULL. Owned by the error. */
const char *error_text(const struct error *err);

void error_free(struct error *err);

/* For `cleanup(error)`. */
void error_cleanup(struct error **err);

#endif
