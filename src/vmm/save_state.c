/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Records of state: see save_state.h. */
#include "vmm/save_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "core/device.h"
#include "core/state_x86.h"
#include "vmm/board.h"

#define NAME_LEN    256
#define RECORDS_MAX 1024
#define CLOCK_MAX   ((uint64_t)1 << 62)

/* What the machine itself keeps. */
struct board_state {
    uint64_t clock_ns;
};

static bool board_post_load(void *object, struct error **err)
{
    const struct board_state *s = object;

    if (s->clock_ns < CLOCK_MAX)
        return true;
    error_set(err, EINVAL, "the saved machine's clock is out of range");
    return false;
}

static const struct state_field board_fields[] = {
    STATE_FIELD_U64(struct board_state, clock_ns),
    STATE_FIELD_END,
};

static const struct state_desc board_desc = {
    .name = "board", .version = 1, .min_version = 1, .fields = board_fields, .post_load = board_post_load};

/* Saving. */

static bool put(struct state_buf *out, const void *data, size_t len)
{
    if (out->cap - out->len < len) {
        size_t cap = MAX(out->cap * 2, out->len + len + 4096);
        uint8_t *bigger = realloc(out->data, cap);
        if (!bigger)
            return false;
        out->data = bigger;
        out->cap = cap;
    }
    memcpy(out->data + out->len, data, len);
    out->len += len;
    return true;
}

bool save_state_put(struct state_buf *out, const void *data, size_t len, struct error **err)
{
    return put(out, data, len) || (error_set_errno(err, ENOMEM, "cannot save a state"), false);
}

static bool put_name(struct state_buf *out, const char *name)
{
    uint8_t len = (uint8_t)MIN(strlen(name), (size_t)NAME_LEN - 1);

    return put(out, &len, 1) && put(out, name, len);
}

/* Record: name and class, each a length byte and bytes; the state's length, 32 bits; the state. */
static bool put_record(struct state_buf *out, const char *name, const char *cls,
                       const struct state_desc *desc, void *object, struct error **err)
{
    uint32_t length = 0;

    if (!put_name(out, name) || !put_name(out, cls) || !put(out, &length, sizeof(length)))
        return error_set_errno(err, ENOMEM, "cannot save the state of %s", name), false;
    size_t at = out->len;
    state_save(desc, object, out);
    store_le32(out->data + at - 4, (uint32_t)(out->len - at));
    return true;
}

static struct x86_state *new_cpu_state(struct error **err)
{
    struct x86_state *s = aligned_alloc(_Alignof(struct x86_state), sizeof(*s));

    if (!s)
        error_set_errno(err, ENOMEM, "cannot keep the state of a processor");
    return s;
}

static void cpu_name(char name[16], unsigned index)
{
    snprintf(name, 16, "cpu%u", index);
}

bool save_state(struct board *b, struct state_buf *out, struct error **err)
{
    struct board_state board = {.clock_ns = vm_clock_now(&b->m.clock)};
    cleanup(mem) struct x86_state *cpu = new_cpu_state(err);
    char name[16];

    if (!cpu || !put_record(out, "board", "board", &board_desc, &board, err))
        return false;
    for (unsigned i = 0; i < b->m.cpu_count; i++) {
        cpu_name(name, i);
        b->ops->get_state(vcpus_get(b->vcpus, i), cpu);
        if (!put_record(out, name, "x86-cpu", &x86_cpu_state, cpu, err))
            return false;
    }
    for (struct device *d = b->m.devices; d; d = d->next)
        if (!put_record(out, d->id, d->cls->name, d->cls->state, d, err))
            return false;
    return true;
}

void save_state_each(const struct board *b,
                     void (*fn)(void *opaque, const char *name, const char *cls,
                                const struct state_desc *desc),
                     void *opaque)
{
    char name[16];

    fn(opaque, "board", "board", &board_desc);
    for (unsigned i = 0; i < b->m.cpu_count; i++) {
        cpu_name(name, i);
        fn(opaque, name, "x86-cpu", &x86_cpu_state);
    }
    for (const struct device *d = b->m.devices; d; d = d->next)
        fn(opaque, d->id, d->cls->name, d->cls->state);
}

/* Loading. */

struct record {
    char name[NAME_LEN], cls[NAME_LEN];
    const uint8_t *state;
    size_t length;
};

struct records {
    const uint8_t *data;
    size_t len, pos;
    const char *what;
};

static const uint8_t *take(struct records *r, size_t len)
{
    if (r->len - r->pos < len)
        return NULL;
    r->pos += len;
    return r->data + r->pos - len;
}

static bool take_name(struct records *r, char name[NAME_LEN])
{
    const uint8_t *len = take(r, 1), *text = len ? take(r, *len) : NULL;

    if (!text || !*len || memchr(text, 0, *len))
        return false;
    memcpy(name, text, *len);
    name[*len] = 0;
    return true;
}

/* The next record; false and *err at something else. Not to be called at the end. */
static bool next_record(struct records *r, struct record *out, struct error **err)
{
    const uint8_t *length = take_name(r, out->name) && take_name(r, out->cls) ? take(r, 4) : NULL;

    out->length = length ? load_le32(length) : 0;
    out->state = length ? take(r, out->length) : NULL;
    if (!out->state)
        error_set(err, EINVAL, "saved machine '%s' is damaged: a record of its state is cut short", r->what);
    return out->state != NULL;
}

bool saved_check_state(const uint8_t *data, size_t len, const char *what, struct error **err)
{
    struct records r = {.data = data, .len = len, .what = what};
    struct record record;

    for (unsigned n = 0; r.pos < r.len; n++) {
        if (!next_record(&r, &record, err))
            return false;
        if (n == RECORDS_MAX)
            return error_set(err, EINVAL, "saved machine '%s' has more than %d devices", what, RECORDS_MAX),
                   false;
        bool own = !strcmp(record.cls, "board") || !strcmp(record.cls, "x86-cpu");
        if (!own && !device_class_find(record.cls))
            return error_set(
                       err, ENOTSUP,
                       "saved machine '%s' has a device %s of a class that this Ruche does not know: %s",
                       what, record.name, record.cls),
                   false;
    }
    return true;
}

/* Finds a record by name and checks its class. */
static bool find(const struct records *all, const char *name, const char *cls, struct record *out,
                 struct error **err)
{
    struct records r = {.data = all->data, .len = all->len, .what = all->what};

    while (r.pos < r.len) {
        if (!next_record(&r, out, err))
            return false;
        if (!strcmp(out->name, name) && !strcmp(out->cls, cls))
            return true;
    }
    error_set(err, EINVAL, "saved machine '%s' has no state of %s (%s)", all->what, name, cls);
    return false;
}

static bool load(const struct records *all, const char *name, const char *cls, const struct state_desc *desc,
                 void *object, size_t size, struct error **err)
{
    struct record record;
    struct error *why = NULL;

    if (!find(all, name, cls, &record, err))
        return false;
    long used = state_load(desc, object, size, record.state, record.length, &why);
    if (used >= 0 && (size_t)used != record.length)
        error_set(&why, EINVAL, "there is more of it than that");
    if (!why)
        return true;
    error_prefix(err, why, "saved machine '%s': %s", all->what, name);
    return false;
}

static bool load_devices(struct board *b, const struct records *all, struct error **err)
{
    for (struct device *d = b->m.devices; d; d = d->next)
        if (!load(all, d->id, d->cls->name, d->cls->state, d, d->cls->size, err))
            return false;
    return true;
}

/* Processors come last: what devices did to interrupt lines while they were loaded is undone by their local
 * APICs' states. */
static bool load_cpus(struct board *b, const struct records *all, struct error **err)
{
    cleanup(mem) struct x86_state *cpu = new_cpu_state(err);
    struct error *why = NULL;
    char name[16];

    if (!cpu)
        return false;
    for (unsigned i = 0; i < b->m.cpu_count; i++) {
        cpu_name(name, i);
        memset(cpu, 0, sizeof(*cpu));
        if (!load(all, name, "x86-cpu", &x86_cpu_state, cpu, sizeof(*cpu), err))
            return false;
        if (!b->ops->set_state(vcpus_get(b->vcpus, i), cpu, &why)) {
            error_prefix(err, why, "saved machine '%s'", all->what);
            return false;
        }
    }
    return true;
}

/* As each object has found its record, only the numbers can differ. */
static bool count_matches(struct board *b, const struct records *all, struct error **err)
{
    struct records r = {.data = all->data, .len = all->len, .what = all->what};
    struct record record;
    unsigned records = 0, objects = 1 + b->m.cpu_count;

    for (; r.pos < r.len; records++)
        if (!next_record(&r, &record, err))
            return false;
    for (struct device *d = b->m.devices; d; d = d->next)
        objects++;
    if (records == objects)
        return true;
    error_set(err, EINVAL, "saved machine '%s' has the state of %u objects, and the machine has %u",
              all->what, records, objects);
    return false;
}

bool saved_load_state(struct board *b, const uint8_t *data, size_t len, const char *what, struct error **err)
{
    const struct records all = {.data = data, .len = len, .what = what};
    struct board_state board = {0};

    if (!load(&all, "board", "board", &board_desc, &board, sizeof(board), err))
        return false;
    vm_clock_set(&b->m.clock, board.clock_ns);
    return load_devices(b, &all, err) && load_cpus(b, &all, err) && count_matches(b, &all, err);
}
