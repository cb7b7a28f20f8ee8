/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The configuration of a saved machine as JSON: see save_config.h. */
#include "vmm/save_config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "core/memory.h"

/* Writing. */

/* Names stay right when the machine wakes up in another folder. */
static json_t *absolute(const char *path)
{
    if (*path == '/')
        return json_string(path);
    cleanup(mem) char *folder = getcwd(NULL, 0);
    return folder ? json_sprintf("%s/%s", folder, path) : NULL;
}

/* The list, or NULL when something could not be put into it. */
static json_t *complete(json_t *list, size_t count)
{
    if (json_array_size(list) == count)
        return list;
    json_decref(list);
    return NULL;
}

/* FILE and its command line; only the file's name is looked at. */
static json_t *describe_modules(const struct machine_config *c)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < c->module_count; i++)
        json_array_append_new(list, absolute(c->module[i]));
    return complete(list, c->module_count);
}

static json_t *describe_disks(const struct machine_config *c, const struct saved_identity *id,
                              const struct block_info disk[])
{
    json_t *list = json_array();

    for (unsigned i = 0; i < c->disk_count; i++)
        json_array_append_new(list, json_pack("{s:o, s:s, s:b, s:I, s:I}", "file", absolute(disk[i].path),
                                              "format", disk[i].format, "readonly", c->disk[i].readonly,
                                              "size", (json_int_t)id->disk[i].size, "changed",
                                              (json_int_t)id->disk[i].changed));
    return complete(list, c->disk_count);
}

static json_t *describe_nets(const struct machine_config *c)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < c->net_count; i++)
        json_array_append_new(list, json_string(c->net[i]));
    return complete(list, c->net_count);
}

static json_t *describe_devices(const struct machine_config *c)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < c->device_count; i++) {
        const struct device_config *d = &c->device[i];
        json_t *props = json_array();
        for (unsigned k = 0; k < d->prop_count; k++)
            json_array_append_new(props, json_pack("[s, s]", d->prop[k].name, d->prop[k].value));
        json_array_append_new(
            list, json_pack("{s:s, s:o}", "class", d->cls, "properties", complete(props, d->prop_count)));
    }
    return complete(list, c->device_count);
}

static json_t *describe_uuid(const uint8_t uuid[16])
{
    char text[33];

    for (unsigned i = 0; i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", uuid[i]);
    return json_string(text);
}

static json_t *describe_machine(const struct machine_config *c, const struct saved_identity *id,
                                const struct block_info disk[])
{
    /* A descriptor means nothing to another process. */
    const char *serial = c->serial && strncmp(c->serial, "fd:", 3) != 0 ? c->serial : "stdio";
    json_t *o =
        json_pack("{s:o, s:i, s:I, s:o, s:o, s:o, s:o, s:s, s:b}", "uuid", describe_uuid(id->uuid),
                  "processors", (int)c->cpus, "memory", (json_int_t)c->memory, "modules", describe_modules(c),
                  "disks", describe_disks(c, id, disk), "networks", describe_nets(c), "devices",
                  describe_devices(c), "serial", serial, "no-reboot", c->no_reboot);
    bool ok = o != NULL;

    /* Where it leads to is an affair of each life. */
    if (ok && c->agent)
        ok = json_object_set_new(o, "agent", json_true()) == 0;
    if (ok && c->name)
        ok = json_object_set_new(o, "name", json_string(c->name)) == 0;
    if (ok && c->kernel)
        ok = json_object_set_new(o, "kernel", absolute(c->kernel)) == 0;
    if (ok && c->initrd)
        ok = json_object_set_new(o, "initrd", absolute(c->initrd)) == 0;
    if (ok && c->cmdline)
        ok = json_object_set_new(o, "cmdline", json_string(c->cmdline)) == 0;
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

char *save_describe(const struct machine_config *config, const struct saved_identity *id,
                    const struct block_info disk[], struct error **err)
{
    cleanup(json) json_t *o =
        json_pack("{s:s, s:o, s:o}", "ruche", RUCHE_VERSION, "machine", describe_machine(config, id, disk),
                  "processor", save_describe_cpu(&id->cpu));
    char *text = o ? json_dumps(o, JSON_INDENT(1) | JSON_ENSURE_ASCII) : NULL;

    if (!text)
        error_set(err, EINVAL, "cannot describe the machine: a file name or other text of it is not UTF-8");
    return text;
}

/* Reading. */

/* The values of "machine"; strings and lists are borrowed from the JSON. */
struct fields {
    const char *name, *uuid, *kernel, *initrd, *cmdline, *serial;
    json_t *modules, *disks, *nets, *devices;
    int processors, no_reboot, agent;
    json_int_t memory;
};

static bool wrong(struct error **err, const char *what)
{
    error_set(err, EINVAL, "the description of the saved machine is not one that this Ruche reads: %s", what);
    return false;
}

/* Puts a copy of `value` into *field, unless something is there or there is no value. */
static bool fill(char **field, const char *value, struct error **err)
{
    if (*field || !value)
        return true;
    *field = strdup(value);
    return *field || (error_set_errno(err, ENOMEM, "cannot keep the saved machine's configuration"), false);
}

static bool read_uuid(const char *text, uint8_t uuid[16], struct error **err)
{
    if (strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32)
        return wrong(err, "uuid");
    for (unsigned i = 0; i < 16; i++) {
        const char byte[3] = {text[2 * i], text[2 * i + 1], 0};
        uuid[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
    return true;
}

static bool read_modules(json_t *list, struct machine_config *c, struct error **err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text || i >= OPTIONS_LIST_MAX)
            return wrong(err, "modules");
        if (!fill(&c->module[i], text, err))
            return false;
        c->module_count++;
    }
    return true;
}

/* The format must be one of the words that config->disk points to. */
static const char *known_format(const char *text)
{
    return !strcmp(text, "raw") ? "raw" : !strcmp(text, "qcow2") ? "qcow2" : NULL;
}

static bool read_disk(json_t *o, struct disk_config *d, bool replaced, struct saved_disk *saved,
                      struct error **err)
{
    const char *file, *format;
    json_int_t size, changed;
    int readonly;
    json_error_t e;

    if (json_unpack_ex(o, &e, 0, "{s:s, s:s, s:b, s:I, s:I !}", "file", &file, "format", &format, "readonly",
                       &readonly, "size", &size, "changed", &changed) < 0)
        return wrong(err, e.text);
    if (!known_format(format) || size < 0)
        return wrong(err, "disks");
    saved->size = (uint64_t)size;
    saved->changed = replaced ? 0 : changed;
    d->readonly = readonly;
    if (replaced)
        return true;
    d->format = known_format(format);
    return fill(&d->path, file, err);
}

static bool read_disks(json_t *list, struct machine_config *c, struct saved_identity *id, struct error **err)
{
    bool replaced = c->disk_count > 0;
    size_t n = json_array_size(list);

    if (n > OPTIONS_LIST_MAX)
        return wrong(err, "disks");
    if (replaced && n != c->disk_count)
        return error_set(err, EINVAL, "the saved machine has %zu disks, and --disk is given %u times", n,
                         c->disk_count),
               false;
    for (size_t i = 0; i < n; i++) {
        if (!read_disk(json_array_get(list, i), &c->disk[i], replaced, &id->disk[i], err))
            return false;
        c->disk_count = replaced ? c->disk_count : (unsigned)i + 1;
    }
    id->disk_count = (unsigned)n;
    return true;
}

static bool read_nets(json_t *list, struct machine_config *c, struct error **err)
{
    size_t n = json_array_size(list);

    if (c->net_count && n != c->net_count)
        return error_set(err, EINVAL, "the saved machine has %zu networks, and --net is given %u times", n,
                         c->net_count),
               false;
    for (size_t i = 0; !c->net_count && i < n; i++)
        if (i >= OPTIONS_LIST_MAX || !json_is_string(json_array_get(list, i)))
            return wrong(err, "networks");
    for (size_t i = c->net_count; i < n; i++) {
        if (!fill(&c->net[i], json_string_value(json_array_get(list, i)), err))
            return false;
        c->net_count++;
    }
    c->no_net = c->net_count == 0;
    return true;
}

static bool read_device(json_t *o, struct device_config *d, struct error **err)
{
    const char *cls;
    json_t *props;
    json_error_t e;

    if (json_unpack_ex(o, &e, 0, "{s:s, s:o !}", "class", &cls, "properties", &props) < 0)
        return wrong(err, e.text);
    if (!json_is_array(props) || json_array_size(props) > OPTIONS_PROPS_MAX)
        return wrong(err, "devices");
    if (!fill(&d->cls, cls, err))
        return false;
    for (size_t i = 0; i < json_array_size(props); i++) {
        const char *name, *value;
        if (json_unpack_ex(json_array_get(props, i), &e, 0, "[s, s !]", &name, &value) < 0)
            return wrong(err, e.text);
        struct device_prop *p = &d->prop[d->prop_count++];
        if (!fill(&p->name, name, err) || !fill(&p->value, value, err))
            return false;
    }
    return true;
}

static bool read_devices(json_t *list, struct machine_config *c, struct error **err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (i >= OPTIONS_LIST_MAX)
            return wrong(err, "devices");
        c->device_count++;
        if (!read_device(json_array_get(list, i), &c->device[i], err))
            return false;
    }
    return true;
}

static bool read_fields(json_t *o, struct fields *f, struct error **err)
{
    json_error_t e;

    if (json_unpack_ex(o, &e, 0, "{s?s, s:s, s:i, s:I, s?s, s?s, s:o, s?s, s:o, s:o, s:o, s:s, s:b, s?b !}",
                       "name", &f->name, "uuid", &f->uuid, "processors", &f->processors, "memory", &f->memory,
                       "kernel", &f->kernel, "initrd", &f->initrd, "modules", &f->modules, "cmdline",
                       &f->cmdline, "disks", &f->disks, "networks", &f->nets, "devices", &f->devices,
                       "serial", &f->serial, "no-reboot", &f->no_reboot, "agent", &f->agent) < 0)
        return wrong(err, e.text);
    if (f->processors < 1 || f->processors > OPTIONS_CPUS_MAX)
        return wrong(err, "processors");
    if (f->memory < (json_int_t)MIB || f->memory % GUEST_PAGE_SIZE)
        return wrong(err, "memory");
    return true;
}

/* A machine that was saved with the port has it, one without has not, whatever is asked for now. */
static bool read_agent(bool saved, struct machine_config *c, struct error **err)
{
    if (saved)
        return fill(&c->agent, "none", err);
    free(c->agent);
    c->agent = NULL;
    return true;
}

static bool read_machine(json_t *o, struct machine_config *c, struct saved_identity *id, struct error **err)
{
    struct fields f = {0};

    if (!read_fields(o, &f, err))
        return false;
    c->cpus = (unsigned)f.processors;
    c->memory = (uint64_t)f.memory;
    c->no_reboot |= f.no_reboot;
    return read_uuid(f.uuid, id->uuid, err) && fill(&c->name, f.name, err) &&
           fill(&c->kernel, f.kernel, err) && fill(&c->initrd, f.initrd, err) &&
           fill(&c->cmdline, f.cmdline, err) && fill(&c->serial, f.serial, err) &&
           read_modules(f.modules, c, err) && read_disks(f.disks, c, id, err) && read_nets(f.nets, c, err) &&
           read_devices(f.devices, c, err) && read_agent(f.agent, c, err);
}

bool saved_read_description(const char *text, size_t len, struct machine_config *config,
                            struct saved_identity *id, struct error **err)
{
    json_error_t e;
    cleanup(json) json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    const char *version;
    json_t *machine, *processor;

    if (!o || json_unpack_ex(o, &e, 0, "{s:s, s:o, s:o !}", "ruche", &version, "machine", &machine,
                             "processor", &processor) < 0)
        return wrong(err, e.text);
    struct error *why = NULL;
    if (read_machine(machine, config, id, &why) && saved_read_cpu(processor, &id->cpu, &why) &&
        (id->cpu.cpu_count == config->cpus || wrong(&why, "processors")))
        return true;
    error_prefix(err, why, "it was saved by Ruche %.40s, this is %s", version, RUCHE_VERSION);
    return false;
}
