/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exporting snapshots: a folder with all that one holds, which needs nothing else of the host's. It is made
 * under another name and appears by one rename.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "catalog/file.h"
#include "cli/progress.h"
#include "cli/qemu_img.h"
#include "cli/snapshots.h"

static bool export_disk(const struct visit *v, const struct snapshot *s, const char *dir, struct error **err)
{
    cleanup(mem) char *from = layer_path(&v->m, s->disk);
    cleanup(mem) char *to = catalog_format("%s/disk.qcow2", dir);
    return !machine_has_disk(s->config) || qemu_img_flatten(from, to, err);
}

static bool export_file(const char *from, const char *dir, const char *name, struct error **err)
{
    cleanup(mem) char *to = catalog_format("%s/%s", dir, name);
    return catalog_copy(from, to, err) && catalog_sync(to, err);
}

static bool describe(const struct visit *v, const struct snapshot *s, const char *dir, struct error **err)
{
    cleanup(mem) char *path = catalog_format("%s/snapshot.json", dir);
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s, s:b, s:O}", "machine", v->m.name, "name", s->name, "created",
                  s->created, "description", s->description, "memory", s->memory, "config", s->config);
    bool ok = catalog_write_json(path, o, err) && catalog_sync(path, err);
    json_decref(o);
    return ok;
}

static bool fill(const struct visit *v, const struct snapshot *s, const char *dir, struct error **err)
{
    cleanup(mem) char *memory = snapshot_memory(&v->m, s->id);
    cleanup(mem) char *seed = machine_seed(&v->m);
    struct progress progress;
    progress_start(&progress, "export");
    progress.steps = 2;
    progress_step(&progress, "disk");
    bool ok = export_disk(v, s, dir, err);
    if (ok)
        progress_step(&progress, "memory and settings");
    ok = ok && (!s->memory || export_file(memory, dir, "memory", err)) &&
         (!json_is_true(json_object_get(s->config, "seed")) || export_file(seed, dir, "seed.iso", err)) &&
         describe(v, s, dir, err) && catalog_sync(dir, err);
    progress_end(&progress, ok);
    return ok;
}

bool snapshot_export(struct visit *v, const char *name, const char *to, struct error **err)
{
    const struct snapshot *s = visit_find(v, name, err);
    cleanup(mem) char *dir = s ? catalog_absolute(to, err) : NULL;
    struct stat st;
    if (!dir)
        return false;
    if (lstat(dir, &st) == 0)
        return error_set(err, EEXIST, "'%s' is there already", dir), false;
    cleanup(mem) char *draft = catalog_format("%s.XXXXXX", dir);
    if (!mkdtemp(draft))
        return error_set_errno(err, errno, "make folder '%s'", draft), false;
    bool ok = fill(v, s, draft, err);
    if (ok && rename(draft, dir) < 0) {
        error_set_errno(err, errno, "make folder '%s'", dir);
        ok = false;
    }
    if (!ok)
        catalog_remove_tree(draft, NULL);
    return ok;
}
