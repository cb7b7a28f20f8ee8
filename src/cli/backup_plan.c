/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plans of backups: see backup_plan.h. Each attempt gives its bitmaps a name that no other one has, and the
 * manifest says the name of each backup's. So whatever became of commands in between, of copies of the folder
 * and of going back to snapshots, the one of the manifest's last backup is the right one, if it is there.
 */
#include "cli/backup_plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/identity.h"

/* Of this attempt and no other. */
static char *new_bitmap_name(const struct backup_folder *f, struct error **err)
{
    char id[UUID_TEXT_SIZE];
    return identity_uuid(id, err) ? catalog_format("ruche-%s-%s", backup_chain(f), id) : NULL;
}

static const json_t *find_bitmap(const json_t *inserted, const char *name)
{
    json_t *bitmap;
    size_t i;
    json_array_foreach(json_object_get(inserted, "dirty-bitmaps"), i, bitmap)
    {
        if (strcmp(backup_text(bitmap, "name"), name) == 0)
            return bitmap;
    }
    return NULL;
}

/* Why only what has changed cannot be copied; NULL: it can. */
static const char *obstacle(const struct backup_folder *f, const json_t *inserted, const json_t *last,
                            const json_t *before, const char *bitmap)
{
    const json_t *b = bitmap ? find_bitmap(inserted, bitmap) : NULL;
    if (!last)
        return "";
    if (!before)
        return "the last backup does not have it";
    if (strcmp(backup_text(inserted, "drv"), "qcow2") != 0)
        return "nothing notes what changes on a raw disk";
    if (!b)
        return "what has changed since the last backup is not known, as after going back to a snapshot";
    if (json_is_true(json_object_get(b, "inconsistent")) || !json_is_true(json_object_get(b, "recording")))
        return "what has changed since the last backup is not known, as the machine was killed";
    return backup_check_file(f, before, false, NULL) ? NULL : "the last backup's file is missing or damaged";
}

static void choose_base(const struct backup_folder *f, const json_t *inserted, bool full,
                        struct backup_plan *p, struct disk_plan *d)
{
    const json_t *last = backup_last(f);
    json_t *before = last ? backup_file(last, d->role) : NULL;
    const char *bitmap = backup_text(last, "bitmap");
    const char *why = full ? "" : obstacle(f, inserted, last, before, bitmap);
    if (!why) {
        d->before = catalog_format("%s", bitmap);
        d->backing = backup_text(before, "name");
        p->incremental = true;
    } else if (*why && !*p->why) {
        snprintf(p->why, sizeof(p->why), "%s: %s", d->role, why);
    }
}

/* A bitmap that records from about now on; it is cleared at the very instant. An old image has none. */
static void add_bitmap(struct backup_source *s, const char *name, struct disk_plan *d)
{
    json_t *done =
        control_call(s->control, "block-dirty-bitmap-add",
                     json_pack("{s:s, s:s, s:b}", "node", d->device, "name", name, "persistent", true), NULL);
    json_decref(done);
    d->after = done ? catalog_format("%s", name) : NULL;
}

static void plan_disk(const struct backup_folder *f, struct backup_source *s, const json_t *entry,
                      size_t index, bool full, struct backup_plan *p)
{
    const json_t *inserted = json_object_get(entry, "inserted");
    struct disk_plan *d = &p->disk[p->count++];
    *d = (struct disk_plan){.device = catalog_format("%s", backup_text(entry, "device")),
                            .role = catalog_format("disk%zu", index),
                            .name = catalog_format("%lld-disk%zu.qcow2", (long long)p->number, index),
                            .part = catalog_format("%lld-disk%zu.qcow2.part", (long long)p->number, index),
                            .size = (uint64_t)json_integer_value(
                                json_object_get(json_object_get(inserted, "image"), "virtual-size"))};
    choose_base(f, inserted, full, p, d);
    if (strcmp(backup_text(inserted, "drv"), "qcow2") == 0)
        add_bitmap(s, p->bitmap, d);
}

static bool check_devices(const struct machine *m, struct error **err)
{
    json_t *item;
    size_t i;
    json_array_foreach(json_object_get(m->config, "devices"), i, item)
    {
        const char *device = json_string_value(item);
        if (strncmp(device, "virtio-blk", strlen("virtio-blk")) == 0)
            return error_set(err, ENOTSUP, "its device '%s' is not a disk of Ruche's", device), false;
    }
    return true;
}

/* The list of query-block, each entry of which has what is looked at. */
static json_t *query_disks(struct backup_source *s, struct error **err)
{
    json_t *list = control_call(s->control, "query-block", NULL, err), *entry;
    size_t i;
    json_array_foreach(list, i, entry)
    {
        const json_t *inserted = json_object_get(entry, "inserted");
        if (backup_text(entry, "device") && backup_text(inserted, "drv"))
            continue;
        json_decref(list);
        return error_set(err, EPROTO, "the machine's answer is not understood"), NULL;
    }
    return list;
}

bool backup_plan_make(const struct backup_folder *f, struct backup_source *s, bool full,
                      struct backup_plan *p, struct error **err)
{
    *p = (struct backup_plan){.number = json_integer_value(json_object_get(f->content, "next"))};
    p->bitmap = new_bitmap_name(f, err);
    json_t *list = p->bitmap && check_devices(s->m, err) ? query_disks(s, err) : NULL, *entry;
    size_t i;
    if (!list)
        return false;
    p->disk = calloc(json_array_size(list) + 1, sizeof(*p->disk));
    if (!p->disk) {
        json_decref(list);
        return error_set_errno(err, ENOMEM, "look at its disks"), false;
    }
    json_array_foreach(list, i, entry)
    {
        if (!json_is_true(json_object_get(json_object_get(entry, "inserted"), "ro")))
            plan_disk(f, s, entry, i, full, p);
    }
    json_decref(list);
    if (!p->count)
        error_set(err, EINVAL, "it has no disk that it writes to");
    return p->count > 0;
}

void backup_plan_free(struct backup_plan *p)
{
    for (size_t i = 0; i < p->count; i++) {
        struct disk_plan *d = &p->disk[i];
        char *const texts[] = {d->device, d->role, d->name, d->part, d->before, d->after};
        for (size_t k = 0; k < ARRAY_SIZE(texts); k++)
            free(texts[k]);
    }
    free(p->disk);
    free(p->bitmap);
    *p = (struct backup_plan){0};
}

/* Those of one disk. */
static bool tidy_disk(struct backup_source *s, const json_t *entry, const char *prefix, const char *keep,
                      struct error **err)
{
    json_t *bitmap;
    size_t i;
    json_array_foreach(json_object_get(json_object_get(entry, "inserted"), "dirty-bitmaps"), i, bitmap)
    {
        const char *name = backup_text(bitmap, "name");
        if (strncmp(name, prefix, strlen(prefix)) != 0 || (keep && strcmp(name, keep) == 0))
            continue;
        json_t *done =
            control_call(s->control, "block-dirty-bitmap-remove",
                         json_pack("{s:s, s:s}", "node", backup_text(entry, "device"), "name", name), err);
        json_decref(done);
        if (!done)
            return false;
    }
    return true;
}

bool backup_plan_tidy(const struct backup_folder *f, struct backup_source *s, const char *keep,
                      struct error **err)
{
    cleanup(mem) char *prefix = catalog_format("ruche-%s-", backup_chain(f));
    json_t *list = query_disks(s, err), *entry;
    bool ok = list != NULL;
    size_t i;
    json_array_foreach(list, i, entry)
    {
        ok = ok && tidy_disk(s, entry, prefix, keep, err);
    }
    json_decref(list);
    return ok;
}
