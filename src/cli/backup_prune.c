/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Removing old backups. The oldest one that is kept must stand by itself: what it holds of its disks, with
 * all that it stands on, becomes a new file, which takes the old one's place. Later backups do not notice.
 * Only then the older ones go.
 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "catalog/backup.h"
#include "catalog/file.h"
#include "cli/backups.h"
#include "cli/progress.h"
#include "cli/qemu_img.h"

static bool merge(struct backup_folder *f, json_t *file, struct error **err)
{
    const char *name = json_string_value(json_object_get(file, "name"));
    cleanup(mem) char *by = catalog_format("%s.part", name);
    cleanup(mem) char *from = backup_path(f, name);
    cleanup(mem) char *to = backup_path(f, by);
    return qemu_img_flatten(from, to, err) && backup_replace(f, file, by, err);
}

/* Those of its files that stand on others. */
static unsigned count_merges(const json_t *files)
{
    json_t *file;
    unsigned n = 0;
    size_t i;
    json_array_foreach(files, i, file)
    {
        n += json_object_get(file, "backing") != NULL;
    }
    return n;
}

static bool make_first(struct backup_folder *f, const json_t *backup, struct error **err)
{
    json_t *files = json_object_get(backup, "files"), *file;
    size_t i;
    struct progress progress;
    json_array_foreach(files, i, file)
    {
        /* What is damaged must not get a checksum that says it is not. */
        if (!backup_check_chain(f, file, err))
            return false;
    }
    progress_start(&progress, "prune");
    progress.steps = count_merges(files);
    json_array_foreach(files, i, file)
    {
        if (!json_object_get(file, "backing"))
            continue;
        progress_step(&progress, json_string_value(json_object_get(file, "name")));
        if (!merge(f, file, err))
            return progress_end(&progress, false), false;
    }
    progress_end(&progress, true);
    return true;
}

bool backup_prune(const char *dir, unsigned keep, struct error **err)
{
    cleanup(backup_folder) struct backup_folder f;
    if (!backup_open(dir, true, &f, err))
        return false;
    json_t *list = backup_list(&f);
    size_t n = json_array_size(list), surplus = n > keep ? n - keep : 0;
    if (!surplus)
        return true;
    json_t *first = json_array_get(list, surplus);
    bool ok = make_first(&f, first, err);
    if (!ok) {
        backup_sweep(&f, NULL);
        return false;
    }
    json_object_set_new(first, "kind", json_string("full"));
    for (size_t i = 0; i < surplus; i++)
        json_array_remove(list, 0);
    return backup_save(&f, err) && backup_sweep(&f, err);
}
