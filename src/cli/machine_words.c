/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Configurations as command lines: see machine_words.h. */
#include "cli/machine_words.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/snapshot.h"

void words_option(struct words *w, const char *name, const char *value)
{
    cleanup(mem) char *option = catalog_format("--%s", name);
    words_add(w, option);
    if (value)
        words_add(w, value);
}

static const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void add_texts(const struct machine *m, struct words *w)
{
    static const char *const keys[] = {"engine", "cpu"};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (text_of(m->config, keys[i]))
            words_option(w, keys[i], text_of(m->config, keys[i]));
    cleanup(mem) char *cpus = catalog_format("%.0f", json_number_value(json_object_get(m->config, "cpus")));
    cleanup(mem) char *memory =
        catalog_format("%.0fK", json_number_value(json_object_get(m->config, "memory")) / 1024);
    words_option(w, "cpus", cpus);
    words_option(w, "memory", memory);
    if (json_is_false(json_object_get(m->config, "reboot")))
        words_option(w, "no-reboot", NULL);
}

/* Texts of a list, each for an option. */
static void add_list(const json_t *list, const char *option, struct words *w)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        words_option(w, option, json_string_value(item));
    }
}

/* FILE with each comma twice, and the settings. */
static void add_disk(const char *file, const char *format, bool readonly, struct words *w)
{
    cleanup(mem) char *doubled = malloc(2 * strlen(file) + 1);
    char *to = doubled;
    for (const char *p = file; doubled && *p; p++) {
        *to++ = *p;
        if (*p == ',')
            *to++ = ',';
    }
    if (doubled)
        *to = 0;
    cleanup(mem) char *value = catalog_format("%s%s%s%s", doubled ? doubled : "", format ? ",format=" : "",
                                              format ? format : "", readonly ? ",readonly" : "");
    words_option(w, "disk", value);
}

void machine_disk_words(const struct machine *m, struct words *w)
{
    size_t i;
    json_t *disk;
    cleanup(mem) char *own = machine_disk(m);
    if (machine_has_disk(m->config))
        add_disk(own, "qcow2", false, w);
    json_array_foreach(json_object_get(m->config, "disks"), i, disk)
    {
        add_disk(text_of(disk, "file"), text_of(disk, "format"),
                 json_is_true(json_object_get(disk, "readonly")), w);
    }
    cleanup(mem) char *seed = machine_seed(m);
    if (json_is_true(json_object_get(m->config, "seed")))
        add_disk(seed, "raw", true, w);
}

static void add_nets(const struct machine *m, struct words *w)
{
    const json_t *nets = json_object_get(m->config, "nets");
    size_t i;
    json_t *net;
    json_array_foreach(nets, i, net)
    {
        cleanup(mem) char *value = catalog_format("%s,mac=%s", text_of(net, "backend"), text_of(net, "mac"));
        words_option(w, "net", value);
    }
    if (json_array_size(nets) == 0)
        words_option(w, "net", "none");
}

struct machine_boot machine_boot(const struct machine *m, const struct image *image)
{
    struct machine_boot b = {.kernel = text_of(m->config, "kernel"),
                             .initrd = text_of(m->config, "initrd"),
                             .cmdline = text_of(m->config, "cmdline")};
    if (image && !b.kernel) {
        b.kernel = image->kernel;
        b.initrd = b.initrd ? b.initrd : image->initrd;
    }
    if (image && !b.cmdline)
        b.cmdline = image->cmdline;
    return b;
}

static void add_boot(const struct machine *m, const struct image *image, struct words *w)
{
    struct machine_boot b = machine_boot(m, image);
    words_option(w, "kernel", b.kernel);
    if (b.initrd)
        words_option(w, "initrd", b.initrd);
    if (b.cmdline)
        words_option(w, "cmdline", b.cmdline);
    add_list(json_object_get(m->config, "modules"), "module", w);
}

bool machine_image(const struct machine *m, struct image *image, struct error **err)
{
    const json_t *wanted = json_object_get(m->config, "image");
    if (!wanted)
        return true;
    if (!image_load(text_of(wanted, "name"), image, err))
        return false;
    if (strcmp(image->disk_sha256, text_of(wanted, "disk_sha256")) == 0)
        return true;
    error_set(err, 0, "its disk stands on an earlier build of image '%s'", image->name);
    image_release(image);
    return false;
}

static void add_boot_words(const struct machine *m, const struct image *image, struct words *w)
{
    add_texts(m, w);
    add_boot(m, image->name ? image : NULL, w);
    add_nets(m, w);
    add_list(json_object_get(m->config, "devices"), "device", w);
}

/* A saved machine has the rest itself. Its disks hold what they did then, under new names, and a clone's
 * network cards have addresses of their own. */
static void add_resume_words(const struct machine *m, struct words *w)
{
    cleanup(mem) char *memory = machine_memory(m);
    if (text_of(m->config, "engine"))
        words_option(w, "engine", text_of(m->config, "engine"));
    words_option(w, "restore", memory);
    if (json_array_size(json_object_get(m->config, "nets")))
        add_nets(m, w);
}

bool machine_has_own_agent(const struct machine *m)
{
    size_t i;
    json_t *device;
    json_array_foreach(json_object_get(m->config, "devices"), i, device)
    {
        if (strstr(json_string_value(device), "=org.qemu.guest_agent.0:"))
            return true;
    }
    return false;
}

bool machine_words(const struct machine *m, struct words *w, struct error **err)
{
    struct image image = {0};
    if (!machine_image(m, &image, err))
        return false;
    words_option(w, "name", m->name);
    words_option(w, "uuid", m->uuid);
    if (m->resume)
        add_resume_words(m, w);
    else
        add_boot_words(m, &image, w);
    machine_disk_words(m, w);
    image_release(&image);
    return true;
}
