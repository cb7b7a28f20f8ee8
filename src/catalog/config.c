/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Configurations of machines: see config.h. */
#include "catalog/config.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/identity.h"
#include "catalog/schema.h"

bool config_check(const json_t *config, struct error **err)
{
    static const json_t *schema;
    struct error *why = NULL;
    if (!schema)
        schema = json_loads(config_schema, 0, NULL);
    if (schema_check(schema, config, &why))
        return true;
    error_prefix(err, why, "configuration");
    return false;
}

/* --- values from text; a new reference, or NULL and *err --- */

static json_t *wrong(struct error **err, const char *text, const char *wanted)
{
    error_set(err, EINVAL, "'%.80s' is no %s", text, wanted);
    return NULL;
}

static json_t *take_text(const char *text, struct error **err)
{
    json_t *value = json_string(text);
    return value ? value : wrong(err, text, "text in UTF-8");
}

static json_t *take_number(const char *text, struct error **err)
{
    uint64_t n;
    bool ok = parse_uint(text, &n) && n <= INT64_MAX;
    return ok ? json_integer((json_int_t)n) : wrong(err, text, "number");
}

/* A bare number means MiB, as with --memory of ruche run. */
static json_t *take_size(const char *text, struct error **err)
{
    uint64_t n;
    bool bare = parse_uint(text, &n);
    if ((!bare && !parse_size(text, &n)) || n > INT64_MAX / MIB)
        return wrong(err, text, "size such as 512M or 4G");
    return json_integer((json_int_t)(bare ? n * MIB : n));
}

static json_t *take_bool(const char *text, struct error **err)
{
    bool yes;
    return parse_bool(text, &yes) ? json_boolean(yes) : wrong(err, text, "choice of on and off");
}

static json_t *take_path(const char *text, struct error **err)
{
    cleanup(mem) char *path = catalog_absolute(text, err);
    return path ? take_text(path, err) : NULL;
}

/* FILE[,format=raw|qcow2][,readonly]; a comma in the file's name is written twice. */
static json_t *take_disk(const char *text, struct error **err)
{
    cleanup(mem) char *copy = catalog_format("%s", text);
    char *to = copy;
    const char *from = copy;
    while (*from && (*from != ',' || from[1] == ',')) {
        from += *from == ',';
        *to++ = *from++;
    }
    bool more = *from == ',';
    *to = 0;
    json_t *file = *copy ? take_path(copy, err) : wrong(err, text, "disk: no file is named");
    json_t *disk = file ? json_pack("{s:o}", "file", file) : NULL;
    char *settings = copy + (from - copy) + more;
    for (char *item; disk && more && (item = strsep(&settings, ","));) {
        bool known = strcmp(item, "readonly") == 0;
        if (known)
            json_object_set_new(disk, "readonly", json_true());
        else if (strncmp(item, "format=", 7) == 0)
            known = json_object_set_new(disk, "format", json_string(item + 7)) == 0;
        if (!known) {
            wrong(err, item, "setting of a disk (format=raw, format=qcow2, readonly)");
            json_decref(disk);
            disk = NULL;
        }
    }
    return disk;
}

/* BACKEND[,mac=ADDRESS] */
static json_t *take_net(const char *text, const char *default_mac, struct error **err)
{
    char made[MAC_TEXT_SIZE];
    cleanup(mem) char *backend = catalog_format("%s", text);
    cleanup(mem) char *mac = NULL;
    char *item = strstr(backend, ",mac=");
    if (item) {
        size_t len = strcspn(item + 1, ",");
        mac = strndup(item + 5, len - 4);
        memmove(item, item + 1 + len, strlen(item + 1 + len) + 1);
    }
    if (!mac && !default_mac && !identity_mac(made, err))
        return NULL;
    json_t *net = json_pack("{s:s, s:s}", "mac",
                            mac           ? mac
                            : default_mac ? default_mac
                                          : made,
                            "backend", backend);
    return net ? net : wrong(err, text, "text in UTF-8");
}

/* --- keys --- */

enum key_kind { KEY_VALUE, KEY_LIST };

static const struct {
    const char *name;
    json_t *(*take)(const char *text, struct error **err);
    enum key_kind kind;
} keys[] = {
    {"engine", take_text, KEY_VALUE}, {"cpu", take_text, KEY_VALUE},    {"cpus", take_number, KEY_VALUE},
    {"memory", take_size, KEY_VALUE}, {"reboot", take_bool, KEY_VALUE}, {"autostart", take_bool, KEY_VALUE},
    {"kernel", take_path, KEY_VALUE}, {"initrd", take_path, KEY_VALUE}, {"cmdline", take_text, KEY_VALUE},
    {"modules", take_path, KEY_LIST}, {"disks", take_disk, KEY_LIST},   {"devices", take_text, KEY_LIST},
};

const char *config_key(unsigned index)
{
    unsigned at = 0;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (keys[i].kind == KEY_VALUE && at++ == index)
            return keys[i].name;
    return at == index ? "net" : NULL;
}

bool config_add_net(json_t *config, const char *text, struct error **err)
{
    json_t *net = take_net(text, NULL, err);
    return net && json_array_append_new(json_object_get(config, "nets"), net) == 0;
}

static bool set_net(json_t *config, const char *text, struct error **err)
{
    json_t *nets = json_array();
    const json_t *first = json_array_get(json_object_get(config, "nets"), 0);
    if (strcmp(text, "none") != 0) {
        json_t *net = take_net(text, json_string_value(json_object_get(first, "mac")), err);
        if (!net) {
            json_decref(nets);
            return false;
        }
        json_array_append_new(nets, net);
    }
    return json_object_set_new(config, "nets", nets) == 0;
}

static bool set_key(json_t *config, size_t i, const char *text, struct error **err)
{
    const char *name = keys[i].name;
    if (!*text && keys[i].kind == KEY_VALUE) {
        json_object_del(config, name);
        return true;
    }
    json_t *value = keys[i].take(text, err);
    if (!value)
        return false;
    if (keys[i].kind == KEY_VALUE)
        return json_object_set_new(config, name, value) == 0;
    if (!json_object_get(config, name))
        json_object_set_new(config, name, json_array());
    return json_array_append_new(json_object_get(config, name), value) == 0;
}

bool config_set(json_t *config, const char *key, const char *text, struct error **err)
{
    struct error *why = NULL;
    size_t i = 0;
    while (i < ARRAY_SIZE(keys) && strcmp(keys[i].name, key) != 0)
        i++;
    if (strcmp(key, "net") == 0 ? set_net(config, text, &why)
                                : i < ARRAY_SIZE(keys) && set_key(config, i, text, &why))
        return true;
    if (why)
        error_prefix(err, why, "%s", key);
    else
        error_set(err, EINVAL, "there is no setting '%.80s'", key);
    return false;
}
