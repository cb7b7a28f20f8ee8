/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Saved state: see state.h. One object on the wire, all numbers little-endian:
 *
 *     name     u8 length, bytes        the descriptor's
 *     version  u32
 *     body     u32 length, bytes       the fields, in the descriptor's order:
 *         name   u8 length, bytes
 *         type   u8                    enum state_type
 *         count  u32
 *         the elements; a struct element is an object as above
 *
 * Loading decodes into a scratch copy of the object, then exchanges the described fields between the two, so
 * that post_load sees the real object (it may arm timers in it); when it refuses, the exchange is undone.
 */
#include "core/state.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define NAME_MAX_LEN 255

static const struct state_field no_fields[] = {STATE_FIELD_END};

const struct state_desc STATELESS = {
    .name = "stateless", .version = 1, .min_version = 1, .fields = no_fields};

static size_t element_size(enum state_type type)
{
    switch (type) {
    case STATE_BOOL:
    case STATE_U8:
    case STATE_BYTES:
        return 1;
    case STATE_U16:
        return 2;
    case STATE_U32:
        return 4;
    case STATE_U64:
        return 8;
    case STATE_END:
    case STATE_STRUCT:
        break;
    }
    return 0;
}

/* Saving. */

void state_buf_free(struct state_buf *buf)
{
    free(buf->data);
    *buf = (struct state_buf){0};
}

static void append(struct state_buf *out, const void *data, size_t len)
{
    if (out->cap - out->len < len) {
        size_t cap = MAX(out->cap * 2, out->len + len + 256);
        uint8_t *bigger = realloc(out->data, cap);
        if (!bigger)
            abort(); /* the size comes from descriptors, not from a guest */
        out->data = bigger;
        out->cap = cap;
    }
    if (len)
        memcpy(out->data + out->len, data, len);
    out->len += len;
}

static void append_u8(struct state_buf *out, uint8_t v)
{
    append(out, &v, 1);
}

static void append_u32(struct state_buf *out, uint32_t v)
{
    append(out, &v, 4);
}

static void append_name(struct state_buf *out, const char *name)
{
    size_t len = MIN(strlen(name), (size_t)NAME_MAX_LEN);
    append_u8(out, (uint8_t)len);
    append(out, name, len);
}

static void save_field(const struct state_field *f, void *object, struct state_buf *out)
{
    append_name(out, f->name);
    append_u8(out, (uint8_t)f->type);
    append_u32(out, (uint32_t)f->count);
    uint8_t *first = (uint8_t *)object + f->offset;
    for (size_t i = 0; i < f->count; i++) {
        uint8_t *element = first + i * f->stride;
        if (f->type == STATE_STRUCT)
            state_save(f->nested, element, out);
        else
            append(out, element, element_size(f->type));
    }
}

void state_save(const struct state_desc *desc, void *object, struct state_buf *out)
{
    if (desc->pre_save)
        desc->pre_save(object);
    append_name(out, desc->name);
    append_u32(out, desc->version);
    size_t length_at = out->len;
    append_u32(out, 0);
    for (const struct state_field *f = desc->fields; f->type != STATE_END; f++)
        save_field(f, object, out);
    store_le32(out->data + length_at, (uint32_t)(out->len - length_at - 4));
}

/* Loading. */

struct reader {
    const uint8_t *data;
    size_t len, pos;
    const char *object; /* whose state it is, for messages */
    struct error **err;
};

static const uint8_t *take(struct reader *r, size_t len)
{
    if (r->len - r->pos < len) {
        error_set(r->err, EINVAL, "cannot load the state of %s: it is cut short", r->object);
        return NULL;
    }
    const uint8_t *p = r->data + r->pos;
    r->pos += len;
    return p;
}

static bool take_name(struct reader *r, const char *expected, const char *what)
{
    const uint8_t *len = take(r, 1);
    if (!len)
        return false;
    const uint8_t *name = take(r, *len);
    if (!name)
        return false;
    if (strlen(expected) == *len && memcmp(name, expected, *len) == 0)
        return true;
    error_set(r->err, EINVAL, "cannot load the state of %s: it has no %s %s", r->object, what, expected);
    return false;
}

static bool take_u32(struct reader *r, uint32_t *v)
{
    const uint8_t *p = take(r, 4);
    if (p)
        *v = load_le32(p);
    return p != NULL;
}

static bool load_object(const struct state_desc *desc, uint8_t *object, struct reader *r);

static bool load_elements(const struct state_field *f, uint8_t *first, struct reader *r)
{
    size_t size = element_size(f->type);
    for (size_t i = 0; i < f->count; i++) {
        uint8_t *element = first + i * f->stride;
        if (f->type == STATE_STRUCT) {
            if (!load_object(f->nested, element, r))
                return false;
            continue;
        }
        const uint8_t *p = take(r, size);
        if (!p)
            return false;
        if (f->type == STATE_BOOL && *p > 1) {
            error_set(r->err, EINVAL, "cannot load the state of %s: %s is no truth value", r->object,
                      f->name);
            return false;
        }
        memcpy(element, p, size);
    }
    return true;
}

static bool load_field(const struct state_field *f, uint8_t *object, struct reader *r)
{
    if (!take_name(r, f->name, "field"))
        return false;
    const uint8_t *type = take(r, 1);
    uint32_t count;
    if (!type || !take_u32(r, &count))
        return false;
    if (*type != f->type || count != f->count) {
        error_set(r->err, EINVAL,
                  "cannot load the state of %s: field %s has type %u and count %" PRIu32 ", not %u and %zu",
                  r->object, f->name, *type, count, f->type, f->count);
        return false;
    }
    return load_elements(f, object + f->offset, r);
}

static bool load_object(const struct state_desc *desc, uint8_t *object, struct reader *outer)
{
    outer->object = desc->name;
    uint32_t version, length;
    if (!take_name(outer, desc->name, "object") || !take_u32(outer, &version) || !take_u32(outer, &length))
        return false;
    if (version < desc->min_version || version > desc->version) {
        error_set(outer->err, EINVAL,
                  "cannot load the state of %s: version %" PRIu32 " is not between %" PRIu32 " and %" PRIu32,
                  desc->name, version, desc->min_version, desc->version);
        return false;
    }
    const uint8_t *body = take(outer, length);
    if (!body)
        return false;
    struct reader r = {.data = body, .len = length, .object = desc->name, .err = outer->err};
    for (const struct state_field *f = desc->fields; f->type != STATE_END; f++) {
        r.object = desc->name;
        if (f->since <= version && !load_field(f, object, &r))
            return false;
    }
    if (r.pos != r.len) {
        error_set(outer->err, EINVAL, "cannot load the state of %s: it has fields that are not known",
                  desc->name);
        return false;
    }
    return true;
}

static void exchange(uint8_t *a, uint8_t *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t v = a[i];
        a[i] = b[i];
        b[i] = v;
    }
}

static void exchange_fields(const struct state_desc *desc, uint8_t *a, uint8_t *b)
{
    for (const struct state_field *f = desc->fields; f->type != STATE_END; f++) {
        for (size_t i = 0; i < f->count; i++) {
            size_t at = f->offset + i * f->stride;
            if (f->type == STATE_STRUCT)
                exchange_fields(f->nested, a + at, b + at);
            else
                exchange(a + at, b + at, element_size(f->type));
        }
    }
}

/* Innermost first, so that an outer check may rely on the inner ones. */
static bool run_post_load(const struct state_desc *desc, uint8_t *object, struct error **err)
{
    for (const struct state_field *f = desc->fields; f->type != STATE_END; f++) {
        if (f->type != STATE_STRUCT)
            continue;
        for (size_t i = 0; i < f->count; i++) {
            if (!run_post_load(f->nested, object + f->offset + i * f->stride, err))
                return false;
        }
    }
    return !desc->post_load || desc->post_load(object, err);
}

long state_load(const struct state_desc *desc, void *object, size_t object_size, const uint8_t *data,
                size_t len, struct error **err)
{
    cleanup(mem) uint8_t *scratch = malloc(object_size);
    if (!scratch) {
        error_set_errno(err, ENOMEM, "cannot load the state of %s", desc->name);
        return -1;
    }
    memcpy(scratch, object, object_size);
    struct reader r = {.data = data, .len = len, .object = desc->name, .err = err};
    if (!load_object(desc, scratch, &r))
        return -1;
    exchange_fields(desc, object, scratch);
    if (!run_post_load(desc, object, err)) {
        exchange_fields(desc, object, scratch);
        return -1;
    }
    return (long)r.pos;
}
