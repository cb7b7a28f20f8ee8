/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON Schema: see schema.h. A keyword is a function of its own; each speaks only about the types it is for.
 */
#include "catalog/schema.h"

#include <errno.h>
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"

/* The way down to the value being checked, for messages. */
struct place {
    const struct place *up; /* NULL: the whole document */
    const char *key;        /* NULL: an element of a list, */
    size_t index;           /* with this number */
};

typedef bool keyword_fn(const json_t *argument, const json_t *schema, const json_t *value,
                        const struct place *place, struct error **err);

static bool check(const json_t *schema, const json_t *value, const struct place *place, struct error **err);

static size_t print_place(const struct place *p, char *text, size_t size)
{
    if (!p->up)
        return 0;
    size_t at = print_place(p->up, text, size);
    if (at >= size)
        return at;
    int n = p->key ? snprintf(text + at, size - at, "%s%s", at ? "." : "", p->key)
                   : snprintf(text + at, size - at, "[%zu]", p->index);
    return at + (size_t)n;
}

/* Gives false, for the caller to return. */
__attribute__((format(printf, 3, 4))) static bool refuse(struct error **err, const struct place *place,
                                                         const char *fmt, ...)
{
    char where[256] = "", what[512];
    va_list ap;
    print_place(place, where, sizeof(where));
    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    error_set(err, EINVAL, "%s%s%s", where, where[0] ? ": " : "", what);
    return false;
}

static bool has_type(const char *name, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return strcmp(name, "object") == 0;
    case JSON_ARRAY:
        return strcmp(name, "array") == 0;
    case JSON_STRING:
        return strcmp(name, "string") == 0;
    case JSON_INTEGER:
        return strcmp(name, "integer") == 0;
    case JSON_REAL: /* 2.0 is an integer, too */
        return strcmp(name, "integer") == 0 && floor(json_real_value(value)) == json_real_value(value);
    case JSON_TRUE:
    case JSON_FALSE:
        return strcmp(name, "boolean") == 0;
    default:
        return false;
    }
}

static bool check_type(const json_t *name, const json_t *schema, const json_t *value,
                       const struct place *place, struct error **err)
{
    if (has_type(json_string_value(name), value))
        return true;
    return refuse(err, place, "not of type %s", json_string_value(name));
}

static bool check_enum(const json_t *words, const json_t *schema, const json_t *value,
                       const struct place *place, struct error **err)
{
    char list[256] = "";
    size_t i, at = 0;
    json_t *word;
    json_array_foreach(words, i, word)
    {
        if (json_equal(word, value))
            return true;
        if (at < sizeof(list))
            at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "",
                                   json_string_value(word));
    }
    const char *text = json_string_value(value);
    return refuse(err, place, "'%.80s' is none of %s", text ? text : "", list);
}

static bool check_any_of(const json_t *schemas, const json_t *schema, const json_t *value,
                         const struct place *place, struct error **err)
{
    struct error *why = NULL;
    size_t i;
    json_t *one;
    json_array_foreach(schemas, i, one)
    {
        error_cleanup(&why);
        why = NULL;
        if (check(one, value, place, &why))
            return true;
    }
    error_prefix(err, why, "none of %zu possibilities, not even the last", i);
    return false;
}

static bool check_minimum(const json_t *limit, const json_t *schema, const json_t *value,
                          const struct place *place, struct error **err)
{
    if (!json_is_number(value) || json_number_value(value) >= json_number_value(limit))
        return true;
    return refuse(err, place, "%.15g is less than %.15g", json_number_value(value), json_number_value(limit));
}

static bool check_maximum(const json_t *limit, const json_t *schema, const json_t *value,
                          const struct place *place, struct error **err)
{
    if (!json_is_number(value) || json_number_value(value) <= json_number_value(limit))
        return true;
    return refuse(err, place, "%.15g is more than %.15g", json_number_value(value), json_number_value(limit));
}

static bool check_multiple(const json_t *unit, const json_t *schema, const json_t *value,
                           const struct place *place, struct error **err)
{
    if (!json_is_number(value) || fmod(json_number_value(value), json_number_value(unit)) == 0)
        return true;
    return refuse(err, place, "%.15g is no multiple of %.15g", json_number_value(value),
                  json_number_value(unit));
}

/* In characters, not bytes. */
static json_int_t length(const json_t *value)
{
    json_int_t n = 0;
    for (const char *p = json_string_value(value); *p; p++)
        n += (*p & 0xc0) != 0x80;
    return n;
}

static bool check_min_length(const json_t *limit, const json_t *schema, const json_t *value,
                             const struct place *place, struct error **err)
{
    if (!json_is_string(value) || length(value) >= json_integer_value(limit))
        return true;
    return refuse(err, place, "'%.80s' is too short", json_string_value(value));
}

static bool check_max_length(const json_t *limit, const json_t *schema, const json_t *value,
                             const struct place *place, struct error **err)
{
    if (!json_is_string(value) || length(value) <= json_integer_value(limit))
        return true;
    return refuse(err, place, "'%.80s' is longer than %lld characters", json_string_value(value),
                  (long long)json_integer_value(limit));
}

static bool check_pattern(const json_t *pattern, const json_t *schema, const json_t *value,
                          const struct place *place, struct error **err)
{
    regex_t expression;
    if (!json_is_string(value))
        return true;
    if (regcomp(&expression, json_string_value(pattern), REG_EXTENDED | REG_NOSUB) != 0)
        return refuse(err, place, "the schema's pattern %s is none", json_string_value(pattern));
    bool fits = regexec(&expression, json_string_value(value), 0, NULL, 0) == 0;
    regfree(&expression);
    return fits || refuse(err, place, "'%.80s' does not match %s", json_string_value(value),
                          json_string_value(pattern));
}

static bool check_properties(const json_t *schemas, const json_t *schema, const json_t *value,
                             const struct place *place, struct error **err)
{
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        const json_t *one = json_object_get(schemas, key);
        const struct place there = {.up = place, .key = key};
        if (one && !check(one, member, &there, err))
            return false;
    }
    return true;
}

static bool check_required(const json_t *keys, const json_t *schema, const json_t *value,
                           const struct place *place, struct error **err)
{
    size_t i;
    json_t *key;
    json_array_foreach(keys, i, key)
    {
        if (json_is_object(value) && !json_object_get(value, json_string_value(key)))
            return refuse(err, place, "'%s' is missing", json_string_value(key));
    }
    return true;
}

/* Only `false` has a meaning that we know. */
static bool check_additional(const json_t *allowed, const json_t *schema, const json_t *value,
                             const struct place *place, struct error **err)
{
    const json_t *known = json_object_get(schema, "properties");
    const char *key;
    json_t *member;
    if (!json_is_false(allowed))
        return refuse(err, place, "the schema has additionalProperties other than false");
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        if (!json_object_get(known, key))
            return refuse(err, place, "'%.80s' is unknown", key);
    }
    return true;
}

static bool check_items(const json_t *one, const json_t *schema, const json_t *value,
                        const struct place *place, struct error **err)
{
    size_t i;
    json_t *item;
    json_array_foreach(value, i, item)
    {
        const struct place there = {.up = place, .index = i};
        if (!check(one, item, &there, err))
            return false;
    }
    return true;
}

static bool check_max_items(const json_t *limit, const json_t *schema, const json_t *value,
                            const struct place *place, struct error **err)
{
    if (json_array_size(value) <= (size_t)json_integer_value(limit))
        return true;
    return refuse(err, place, "more than %lld", (long long)json_integer_value(limit));
}

/* NULL: says nothing about values. */
static const struct {
    const char *name;
    keyword_fn *check;
} keywords[] = {
    {"$schema", NULL},
    {"title", NULL},
    {"description", NULL},
    {"type", check_type},
    {"enum", check_enum},
    {"anyOf", check_any_of},
    {"minimum", check_minimum},
    {"maximum", check_maximum},
    {"multipleOf", check_multiple},
    {"minLength", check_min_length},
    {"maxLength", check_max_length},
    {"pattern", check_pattern},
    {"properties", check_properties},
    {"required", check_required},
    {"additionalProperties", check_additional},
    {"items", check_items},
    {"maxItems", check_max_items},
};

static bool check(const json_t *schema, const json_t *value, const struct place *place, struct error **err)
{
    const char *key;
    json_t *argument;
    json_object_foreach((json_t *)(uintptr_t)schema, key, argument)
    {
        size_t i = 0;
        while (i < ARRAY_SIZE(keywords) && strcmp(keywords[i].name, key) != 0)
            i++;
        if (i == ARRAY_SIZE(keywords))
            return refuse(err, place, "the schema's keyword '%s' is not one that we know", key);
        if (keywords[i].check && !keywords[i].check(argument, schema, value, place, err))
            return false;
    }
    return true;
}

bool schema_check(const json_t *schema, const json_t *value, struct error **err)
{
    const struct place whole = {0};
    return check(schema, value, &whole, err);
}
