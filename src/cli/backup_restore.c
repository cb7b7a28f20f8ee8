/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Restoring: a new machine whose folder has all that the backup holds, so that it needs neither the backup
 * nor the image any more. It is entered in the catalogue once it is complete.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "catalog/backup.h"
#include "catalog/file.h"
#include "cli/backups.h"
#include "cli/machines.h"
#include "cli/progress.h"
#include "cli/qemu_img.h"

static bool check_files(const struct backup_folder *f, const json_t *backup, struct error **err)
{
    json_t *file;
    size_t i;
    json_array_foreach(json_object_get(backup, "files"), i, file)
    {
        if (!backup_check_chain(f, file, err))
            return false;
    }
    return true;
}

static bool copy_disk(const struct backup_folder *f, const json_t *file, const char *to, struct error **err)
{
    cleanup(mem) char *from = backup_path(f, backup_text(file, "name"));
    return qemu_img_flatten(from, to, err);
}

/* Disks that had been given to the machine are its own now. */
static bool copy_disks(const struct backup_folder *f, const json_t *backup, struct machine *m,
                       struct error **err)
{
    bool own = machine_has_disk(json_object_get(backup, "config"));
    json_t *disk;
    size_t i;
    cleanup(mem) char *first = machine_disk(m);
    const json_t *file = own ? backup_file(backup, "disk0") : NULL;
    if (own && !file)
        return error_set(err, EBADMSG, "the backup does not have the machine's disk"), false;
    if (own && !copy_disk(f, file, first, err))
        return false;
    json_array_foreach(json_object_get(m->config, "disks"), i, disk)
    {
        cleanup(mem) char *role = catalog_format("disk%zu", i + own);
        cleanup(mem) char *to = catalog_format("%s/given-%zu.qcow2", m->dir, i);
        file = backup_file(backup, role);
        if (!file && json_is_true(json_object_get(disk, "readonly")))
            continue;
        if (!file)
            return error_set(err, EBADMSG, "the backup does not have disk %zu", i + own), false;
        if (!copy_disk(f, file, to, err))
            return false;
        json_object_set_new(disk, "file", json_string(to));
        json_object_set_new(disk, "format", json_string("qcow2"));
    }
    return true;
}

/* A file that is taken over as it is; `key` of the configuration names it then (NULL: none does). */
static bool copy_small(const struct backup_folder *f, const json_t *backup, const char *role, const char *to,
                       const char *key, struct machine *m, struct error **err)
{
    const json_t *file = backup_file(backup, role);
    if (!file)
        return true;
    cleanup(mem) char *from = backup_path(f, backup_text(file, "name"));
    if (!catalog_copy(from, to, err) || !catalog_sync(to, err))
        return false;
    if (key)
        json_object_set_new(m->config, key, json_string(to));
    return true;
}

static bool fill(const struct backup_folder *f, const json_t *backup, struct machine *m, struct error **err)
{
    cleanup(mem) char *kernel = catalog_format("%s/kernel", m->dir);
    cleanup(mem) char *initrd = catalog_format("%s/initrd", m->dir);
    cleanup(mem) char *seed = machine_seed(m);
    if (!copy_disks(f, backup, m, err) || !copy_small(f, backup, "kernel", kernel, "kernel", m, err) ||
        !copy_small(f, backup, "initrd", initrd, "initrd", m, err) ||
        !copy_small(f, backup, "seed", seed, NULL, m, err))
        return false;
    if (machine_has_disk(m->config))
        json_object_set_new(m->config, "disk", json_true());
    json_object_del(m->config, "image");
    return catalog_sync(m->dir, err);
}

static bool name_is_free(struct database *db, const char *name, struct error **err)
{
    cleanup(machine) struct machine other = {0};
    if (!machine_find(db, name, &other, NULL) || strcmp(other.name, name) != 0)
        return true;
    return error_set(err, EEXIST, "there is a machine '%s' (--name gives it another name)", name), false;
}

bool backup_restore(const char *dir, const char *number, const char *name, struct error **err)
{
    cleanup(backup_folder) struct backup_folder f;
    cleanup(machine) struct machine m = {0};
    cleanup(fd) int lock = -1;
    struct progress progress;
    const json_t *backup = backup_open(dir, false, &f, err) ? backup_numbered(&f, number, err) : NULL;
    cleanup(database) struct database *db = backup ? machines_open(err) : NULL;
    if (!db)
        return false;
    if (!name)
        name = backup_text(f.content, "machine");
    if (!name_is_free(db, name, err))
        return false;
    progress_start(&progress, "restore");
    bool ok = check_files(&f, backup, err) &&
              machine_prepare(db, name, json_object_get(backup, "config"), &m, &lock, err);
    if (ok && (!fill(&f, backup, &m, err) || !machine_insert(db, &m, err))) {
        machine_abandon(&m, &lock);
        ok = false;
    }
    progress_end(&progress, ok);
    return ok;
}
