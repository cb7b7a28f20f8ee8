/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query-stats and query-stats-schemas (QEMU qapi/stats.json): the engine's counters of each virtual
 * processor. The provider is the engine; there are none of the whole machine.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "vmm/qmp.h"

static bool has_word(const json_t *list, const char *word)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        if (json_is_string(item) && !strcmp(json_string_value(item), word))
            return true;
    }
    return false;
}

/* Whether `providers` wants the engine's; *names then are those wanted of it, NULL for all. */
static bool provider_wanted(const json_t *providers, const char *engine, const json_t **names)
{
    size_t i;
    const json_t *filter;
    *names = NULL;
    if (!providers)
        return true;
    json_array_foreach(providers, i, filter)
    {
        const char *provider = json_string_value(json_object_get(filter, "provider"));
        if (provider && !strcmp(provider, engine)) {
            *names = json_object_get(filter, "names");
            return true;
        }
    }
    return false;
}

static json_t *stats_of(struct qmp_call *call, unsigned index, const json_t *names)
{
    struct engine_stat stat[ENGINE_STATS_MAX];
    unsigned count = call->ops->cpu_stats(call->opaque, index, stat);
    json_t *list = json_array();

    for (unsigned i = 0; i < count; i++)
        if (!names || has_word(names, stat[i].name))
            json_array_append_new(
                list, json_pack("{s:s, s:I}", "name", stat[i].name, "value", (json_int_t)stat[i].value));
    return list;
}

static json_t *query_stats(struct qmp_call *call, struct error **err)
{
    const char *target = json_string_value(json_object_get(call->arguments, "target"));
    const json_t *vcpus = json_object_get(call->arguments, "vcpus"), *names;
    const json_t *providers = json_object_get(call->arguments, "providers");
    const char *engine = call->ops->engine_name(call->opaque);

    if (!target || (strcmp(target, "vcpu") != 0 && strcmp(target, "vm") != 0)) {
        error_set(err, EINVAL, "Parameter 'target' expects 'vm' or 'vcpu'");
        return NULL;
    }
    if ((vcpus && !json_is_array(vcpus)) || (providers && !json_is_array(providers))) {
        error_set(err, EINVAL, "Parameter '%s' expects an array", vcpus ? "vcpus" : "providers");
        return NULL;
    }
    json_t *list = json_array();
    if (!strcmp(target, "vm") || !provider_wanted(providers, engine, &names))
        return list;
    unsigned count = call->ops->cpu_count(call->opaque);
    for (unsigned i = 0; i < count; i++) {
        char path[QMP_CPU_PATH_MAX];
        qmp_cpu_path(path, i);
        if (!vcpus || has_word(vcpus, path))
            json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "provider", engine, "qom-path", path,
                                                  "stats", stats_of(call, i, names)));
    }
    return list;
}

static json_t *query_stats_schemas(struct qmp_call *call, struct error **err)
{
    struct engine_stat stat[ENGINE_STATS_MAX];
    const char *engine = call->ops->engine_name(call->opaque);
    const char *provider = json_string_value(json_object_get(call->arguments, "provider"));
    json_t *list = json_array(), *schema = json_array();
    unsigned count =
        provider && strcmp(provider, engine) != 0 ? 0 : call->ops->cpu_stats(call->opaque, 0, stat);

    for (unsigned i = 0; i < count; i++) {
        json_t *value =
            json_pack("{s:s, s:s, s:i}", "name", stat[i].name, "type", "cumulative", "exponent", 0);
        if (stat[i].unit == ENGINE_STAT_CYCLES)
            json_object_set_new(value, "unit", json_string("cycles"));
        json_array_append_new(schema, value);
    }
    if (count)
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:O}", "provider", engine, "target", "vcpu", "stats", schema));
    json_decref(schema);
    return list;
}

const struct qmp_command qmp_stats_commands[] = {
    {"query-stats", query_stats, "target,vcpus,providers"},
    {"query-stats-schemas", query_stats_schemas, "provider"},
    {NULL, NULL},
};
