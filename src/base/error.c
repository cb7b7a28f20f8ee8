/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The error value: see error.h for the convention. */
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char out_of_memory[] = "out of memory";

__attribute__((format(printf, 2, 0))) static struct error *error_new(int code, const char *prefix, va_list ap,
                                                                     const char *suffix)
{
    struct error *e = calloc(1, sizeof(*e));
    if (!e)
        abort(); /* a few bytes: there is no one left to tell */
    e->code = code;
    char *head = NULL;
    if (vasprintf(&head, prefix, ap) < 0)
        head = NULL;
    if (!head) {
        e->text = out_of_memory;
    } else if (!suffix) {
        e->text = head;
    } else {
        if (asprintf(&e->text, "%s: %s", head, suffix) < 0)
            e->text = out_of_memory;
        free(head);
    }
    return e;
}

void error_set(struct error **err, int code, const char *fmt, ...)
{
    if (!err)
        return;
    va_list ap;
    va_start(ap, fmt);
    *err = error_new(code, fmt, ap, NULL);
    va_end(ap);
}

void error_set_errno(struct error **err, int code, const char *fmt, ...)
{
    if (!err)
        return;
    char buf[128];
    va_list ap;
    va_start(ap, fmt);
    *err = error_new(code, fmt, ap, strerror_r(code, buf, sizeof(buf)));
    va_end(ap);
}

void error_prefix(struct error **dst, struct error *src, const char *fmt, ...)
{
    if (!src)
        return;
    if (dst) {
        va_list ap;
        va_start(ap, fmt);
        *dst = error_new(src->code, fmt, ap, src->text);
        va_end(ap);
    }
    error_free(src);
}

const char *error_text(const struct error *err)
{
    return err ? err->text : "unknown error";
}

void error_free(struct error *err)
{
    if (!err)
        return;
    if (err->text != out_of_memory)
        free(err->text);
    free(err);
}

void error_cleanup(struct error **err)
{
    error_free(*err);
}
