/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Saved state as data. A state_desc names the fields of a struct; save and load walk it. The form on the wire
 * is self-describing (names, types, counts; little-endian), so unknown versions, short streams and wrong
 * types are found before the object is touched: load decodes into a scratch copy first.
 */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

enum state_type {
    STATE_END,
    STATE_BOOL,
    STATE_U8,
    STATE_U16,
    STATE_U32,
    STATE_U64,
    STATE_BYTES,
    STATE_STRUCT
};

struct state_desc;

struct state_field {
    const char *name;
    enum state_type type;
    size_t offset;                   /* in the object */
    size_t count;                    /* elements; 1 for a scalar; bytes for STATE_BYTES */
    size_t stride;                   /* bytes from one element to the next */
    const struct state_desc *nested; /* for STATE_STRUCT */
    uint32_t since; /* version that added it; a stream older than that leaves the reset value */
};

struct state_desc {
    const char *name;
    uint32_t version, min_version;
    const struct state_field *fields; /* ends with STATE_END */
    /*
     * Checks a decoded object (guest-independent bounds!) before it is accepted; then recomputes what is
     * derived. It is given the real object, with the new fields in place; when it returns false it must have
     * changed nothing, as the old fields come back. That of a nested object comes before its owner's, which
     * may still refuse: it only checks.
     */
    bool (*post_load)(void *object, struct error **err);
    void (*pre_save)(void *object);
};

#define STATE_FIELD_(T, type_, f, n, str)                                                                    \
    {                                                                                                        \
        .name = #f, .type = (type_), .offset = offsetof(T, f), .count = (n), .stride = (str), .since = 1     \
    }
#define STATE_FIELD_BOOL(T, f)         STATE_FIELD_(T, STATE_BOOL, f, 1, sizeof(bool))
#define STATE_FIELD_U8(T, f)           STATE_FIELD_(T, STATE_U8, f, 1, 1)
#define STATE_FIELD_U16(T, f)          STATE_FIELD_(T, STATE_U16, f, 1, 2)
#define STATE_FIELD_U32(T, f)          STATE_FIELD_(T, STATE_U32, f, 1, 4)
#define STATE_FIELD_U64(T, f)          STATE_FIELD_(T, STATE_U64, f, 1, 8)
#define STATE_FIELD_U8_ARRAY(T, f, n)  STATE_FIELD_(T, STATE_U8, f, n, 1)
#define STATE_FIELD_U16_ARRAY(T, f, n) STATE_FIELD_(T, STATE_U16, f, n, 2)
#define STATE_FIELD_U32_ARRAY(T, f, n) STATE_FIELD_(T, STATE_U32, f, n, 4)
#define STATE_FIELD_U64_ARRAY(T, f, n) STATE_FIELD_(T, STATE_U64, f, n, 8)
#define STATE_FIELD_BYTES(T, f, n)     STATE_FIELD_(T, STATE_BYTES, f, n, 1)
#define STATE_FIELD_STRUCT(T, f, n, desc)                                                                    \
    {                                                                                                        \
        .name = #f, .type = STATE_STRUCT, .offset = offsetof(T, f), .count = (n),                            \
        .stride = sizeof(((T *)0)->f) / (n), .nested = (desc), .since = 1                                    \
    }
#define STATE_FIELD_END                                                                                      \
    {                                                                                                        \
        .type = STATE_END                                                                                    \
    }

/* A device that keeps nothing between accesses says so. */
extern const struct state_desc STATELESS;

/* A growing buffer. */
struct state_buf {
    uint8_t *data;
    size_t len, cap;
};

void state_buf_free(struct state_buf *buf);

/* Appends the object's state. */
void state_save(const struct state_desc *desc, void *object, struct state_buf *out);

/*
 * Reads one object from data[0, len) and returns the bytes used, or -1 and *err with the object untouched.
 * `object_size` is the size of the whole object (for the scratch copy).
 */
long state_load(const struct state_desc *desc, void *object, size_t object_size, const uint8_t *data,
                size_t len, struct error **err);

#endif
