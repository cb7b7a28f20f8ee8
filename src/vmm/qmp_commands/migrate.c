/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Live migration (QEMU qapi/migration.json). Of QEMU's capabilities and parameters there are those that mean
 * something here; "ruche-compression" ("none", "zstd") and "ruche-end" (the process ends soon after the
 * machine has moved) are Ruche's own. The event is MIGRATION.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "vmm/qmp.h"

#define NS_PER_MS 1000000u

static json_t *migrate(struct qmp_call *call, struct error **err)
{
    const char *uri = json_string_value(json_object_get(call->arguments, "uri"));

    if (!uri) {
        error_set(err, EINVAL, "migrate wants the argument 'uri', as unix:PATH or tcp:HOST:PORT");
        return NULL;
    }
    if (json_is_true(json_object_get(call->arguments, "blk")) ||
        json_is_true(json_object_get(call->arguments, "inc"))) {
        error_set(err, ENOTSUP, "migrate: disks do not go with the machine");
        return NULL;
    }
    return call->ops->migrate(call->opaque, uri, err) ? json_object() : NULL;
}

static json_t *cancel(struct qmp_call *call, struct error **err)
{
    call->ops->migrate_cancel(call->opaque);
    return json_object();
}

static json_t *ram(const struct control_migration *m)
{
    const json_int_t page = 4096;

    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I}", "transferred", (json_int_t)m->transferred,
        "remaining", (json_int_t)m->remaining, "total", (json_int_t)m->total, "duplicate",
        (json_int_t)m->zero_pages, "skipped", (json_int_t)0, "normal", (json_int_t)m->full_pages,
        "normal-bytes", (json_int_t)m->full_pages * page, "dirty-pages-rate", (json_int_t)m->dirty_pages_rate,
        "mbps", (double)m->bandwidth * 8 / 1e6, "dirty-sync-count", (json_int_t)m->rounds, "page-size", page);
}

static json_t *query(struct qmp_call *call, struct error **err)
{
    struct control_migration m;

    call->ops->migrate_info(call->opaque, &m);
    json_t *o = json_object();
    if (!strcmp(m.status, "none"))
        return o;
    json_object_set_new(o, "status", json_string(m.status));
    json_object_set_new(o, "total-time", json_integer((json_int_t)(m.total_ns / NS_PER_MS)));
    json_object_set_new(o, "setup-time", json_integer((json_int_t)(m.setup_ns / NS_PER_MS)));
    if (m.downtime_ns)
        json_object_set_new(o, "downtime", json_integer((json_int_t)(m.downtime_ns / NS_PER_MS)));
    if (m.expected_downtime_ns)
        json_object_set_new(o, "expected-downtime",
                            json_integer((json_int_t)(m.expected_downtime_ns / NS_PER_MS)));
    json_object_set_new(o, "ram", ram(&m));
    if (m.throttle)
        json_object_set_new(o, "cpu-throttle-percentage", json_integer(m.throttle));
    if (*m.error)
        json_object_set_new(o, "error-desc", json_string(m.error));
    return o;
}

/* Capabilities. */

static const struct capability {
    const char *name;
    size_t offset;
} capabilities[] = {
    {"auto-converge", offsetof(struct control_migrate_settings, auto_converge)},
    {"events", offsetof(struct control_migrate_settings, events)},
    {"ruche-end", offsetof(struct control_migrate_settings, end)},
};

static bool *flag_of(struct control_migrate_settings *s, const struct capability *c)
{
    return (bool *)(void *)((char *)s + c->offset);
}

/* NULL: there is none of that name. */
static bool *capability(struct control_migrate_settings *s, const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
        if (!strcmp(name, capabilities[i].name))
            return flag_of(s, &capabilities[i]);
    return NULL;
}

static json_t *query_capabilities(struct qmp_call *call, struct error **err)
{
    struct control_migrate_settings s;
    json_t *list = json_array();

    call->ops->migrate_settings(call->opaque, &s);
    for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
        json_array_append_new(list, json_pack("{s:s, s:b}", "capability", capabilities[i].name, "state",
                                              *flag_of(&s, &capabilities[i])));
    return list;
}

static json_t *set_capabilities(struct qmp_call *call, struct error **err)
{
    json_t *list = json_object_get(call->arguments, "capabilities"), *item;
    struct control_migrate_settings s;
    size_t i;

    if (!json_is_array(list)) {
        error_set(err, EINVAL, "migrate-set-capabilities wants the argument 'capabilities', a list");
        return NULL;
    }
    call->ops->migrate_settings(call->opaque, &s);
    json_array_foreach(list, i, item)
    {
        const char *name = "";
        int state = 0;
        bool known = json_unpack(item, "{s:s, s:b !}", "capability", &name, "state", &state) == 0;
        bool *value = known ? capability(&s, name) : NULL;
        if (!value && (!known || state)) {
            error_set(err, EINVAL, "migrate-set-capabilities: there is no capability '%.40s'", name);
            return NULL;
        }
        if (value)
            *value = state;
    }
    call->ops->migrate_set(call->opaque, &s);
    return json_object();
}

/* Parameters. */

/* A number, its least and largest value. */
struct parameter {
    const char *name;
    size_t offset;
    json_int_t min, max;
};

static const struct parameter parameters[] = {
    {"max-bandwidth", offsetof(struct control_migrate_settings, max_bandwidth), 0, INT64_MAX},
    {"downtime-limit", offsetof(struct control_migrate_settings, downtime_limit), 0, 2000000},
    {"cpu-throttle-initial", offsetof(struct control_migrate_settings, throttle_initial), 1, 99},
    {"cpu-throttle-increment", offsetof(struct control_migrate_settings, throttle_increment), 1, 99},
    {"max-cpu-throttle", offsetof(struct control_migrate_settings, throttle_max), 1, 99},
};

static uint64_t *value_of(struct control_migrate_settings *s, const struct parameter *p)
{
    return (uint64_t *)(void *)((char *)s + p->offset);
}

static json_t *query_parameters(struct qmp_call *call, struct error **err)
{
    struct control_migrate_settings s;

    call->ops->migrate_settings(call->opaque, &s);
    json_t *o = json_pack("{s:s}", "ruche-compression", s.compress ? "zstd" : "none");
    for (size_t i = 0; i < ARRAY_SIZE(parameters); i++)
        json_object_set_new(o, parameters[i].name, json_integer((json_int_t)*value_of(&s, &parameters[i])));
    return o;
}

static bool take_compression(json_t *value, struct control_migrate_settings *s, struct error **err)
{
    const char *word = json_string_value(value);

    if (!value)
        return true;
    if (!word || (strcmp(word, "none") != 0 && strcmp(word, "zstd") != 0))
        return error_set(err, EINVAL, "migrate-set-parameters: 'ruche-compression' is 'none' or 'zstd'"),
               false;
    s->compress = !strcmp(word, "zstd");
    return true;
}

static json_t *set_parameters(struct qmp_call *call, struct error **err)
{
    struct control_migrate_settings s;

    call->ops->migrate_settings(call->opaque, &s);
    for (size_t i = 0; i < ARRAY_SIZE(parameters); i++) {
        const struct parameter *p = &parameters[i];
        const json_t *value = json_object_get(call->arguments, p->name);
        json_int_t n = json_integer_value(value);
        if (!value)
            continue;
        if (!json_is_integer(value) || n < p->min || n > p->max) {
            error_set(err, EINVAL, "migrate-set-parameters: '%s' is a number from %lld to %lld", p->name,
                      (long long)p->min, (long long)p->max);
            return NULL;
        }
        *value_of(&s, p) = (uint64_t)n;
    }
    if (!take_compression(json_object_get(call->arguments, "ruche-compression"), &s, err))
        return NULL;
    call->ops->migrate_set(call->opaque, &s);
    return json_object();
}

const struct qmp_command qmp_migrate_commands[] = {
    {"migrate", migrate, "uri,blk,inc,detach"},
    {"migrate_cancel", cancel},
    {"query-migrate", query},
    {"migrate-set-capabilities", set_capabilities, "capabilities"},
    {"query-migrate-capabilities", query_capabilities},
    {"migrate-set-parameters", set_parameters,
     "max-bandwidth,downtime-limit,cpu-throttle-initial,cpu-throttle-increment,max-cpu-throttle,"
     "ruche-compression"},
    {"query-migrate-parameters", query_parameters},
    {NULL, NULL},
};
