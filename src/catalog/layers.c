/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Layers of machines' disks: see layers.h. */
#include "catalog/layers.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/identity.h"
#include "catalog/overlay.h"

#define WAIT_MS 5000
#define POLL_MS 20

int layers_lock(const struct machine *m, struct error **err)
{
    cleanup(mem) char *path = catalog_format("%s/snapshots.lock", m->dir);
    for (int waited = 0;; waited += POLL_MS) {
        struct error *why = NULL;
        int fd = catalog_lock(path, &why);
        if (fd >= 0)
            return fd;
        if (why->code != EBUSY || waited >= WAIT_MS) {
            int code = why->code;
            error_set(err, code, "%s",
                      code == EBUSY ? "another command is at its snapshots" : error_text(why));
            error_free(why);
            return -1;
        }
        error_free(why);
        usleep(POLL_MS * 1000);
    }
}

char *layer_path(const struct machine *m, const char *name)
{
    return catalog_format("%s/%s", m->dir, name);
}

/* --- names --- */

static bool has_name(const struct name_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->v[i], name) == 0)
            return true;
    return false;
}

static bool add_name(struct name_list *list, const char *name, struct error **err)
{
    char **grown = reallocarray(list->v, list->n + 1, sizeof(*grown));
    if (!grown)
        return error_set_errno(err, ENOMEM, "look at a machine's layers"), false;
    list->v = grown;
    list->v[list->n++] = catalog_format("%s", name);
    return true;
}

void name_list_cleanup(struct name_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->v[i]);
    free(list->v);
    *list = (struct name_list){0};
}

/* --- chains --- */

/* The name of a file's namesake in the machine's folder, if it is that file: the path may be spelt otherwise.
 * NULL: it is elsewhere, or with *err set. */
static char *name_inside(const struct machine *m, const char *path, struct error **err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    cleanup(mem) char *inside = layer_path(m, name);
    struct stat one, other;
    if (stat(path, &one) < 0)
        return error_set_errno(err, errno, "find '%s', which a disk stands on", path), NULL;
    if (stat(inside, &other) < 0 || one.st_dev != other.st_dev || one.st_ino != other.st_ino)
        return NULL;
    return catalog_format("%s", name);
}

/* The layer below; NULL: it stands on the image, or with *err set. */
static char *layer_below(const struct machine *m, const char *name, struct error **err)
{
    cleanup(mem) char *path = layer_path(m, name);
    cleanup(mem) char *base = overlay_base(path, err);
    if (!base)
        return NULL;
    cleanup(mem) char *base_path = base[0] == '/' ? steal_ptr(&base) : layer_path(m, base);
    return name_inside(m, base_path, err);
}

/* Whether other machines have it too. */
static bool is_shared(const struct machine *m, const char *name)
{
    cleanup(mem) char *path = layer_path(m, name);
    struct stat st;
    return stat(path, &st) == 0 && st.st_nlink > 1;
}

/* Adds the layer and those that it stands on, as far as they are not in the list. */
static bool add_chain(const struct machine *m, const char *top, struct name_list *list, struct error **err)
{
    cleanup(mem) char *name = catalog_format("%s", top);
    while (name && !has_name(list, name)) {
        struct error *why = NULL;
        if (!add_name(list, name, err))
            return false;
        char *below = layer_below(m, name, &why);
        free(name);
        name = below;
        if (why)
            return error_prefix(err, why, "disk of machine '%s'", m->name), false;
    }
    return true;
}

bool layers_chain(const struct machine *m, const char *top, struct name_list *list, struct error **err)
{
    *list = (struct name_list){0};
    if (add_chain(m, top, list, err))
        return true;
    name_list_cleanup(list);
    return false;
}

bool layers_load(struct database *db, const struct machine *m, struct layers *l, struct error **err)
{
    *l = (struct layers){.m = m};
    bool ok = snapshot_list(db, m, &l->snapshots, err);
    bool disk = machine_has_disk(m->config);
    ok = ok && (!disk || add_chain(m, m->disk, &l->current, err));
    for (size_t i = 0; ok && disk && i < l->snapshots.n; i++)
        ok = add_chain(m, l->snapshots.v[i].disk, &l->frozen, err);
    if (!ok)
        layers_cleanup(l);
    return ok;
}

void layers_cleanup(struct layers *l)
{
    snapshot_list_cleanup(&l->snapshots);
    name_list_cleanup(&l->current);
    name_list_cleanup(&l->frozen);
}

bool layers_on_current(const struct layers *l, const char *name)
{
    return has_name(&l->current, name);
}

/* --- what stands on what --- */

static unsigned count_above(const struct layers *l, const struct name_list *list,
                            const struct name_list *counted, const char *name, const char **above)
{
    unsigned n = 0;
    for (size_t i = 0; i < list->n; i++) {
        cleanup(mem) char *below = layer_below(l->m, list->v[i], NULL);
        if (!below || strcmp(below, name) != 0 || (counted && has_name(counted, list->v[i])))
            continue;
        *above = list->v[i];
        n++;
    }
    return n;
}

unsigned layers_above(const struct layers *l, const char *name, const char **above)
{
    return count_above(l, &l->current, NULL, name, above) +
           count_above(l, &l->frozen, &l->current, name, above);
}

static bool of_snapshot(const struct layers *l, const char *name)
{
    for (size_t i = 0; i < l->snapshots.n; i++)
        if (strcmp(l->snapshots.v[i].disk, name) == 0)
            return true;
    return false;
}

const char *layers_surplus(const struct layers *l, bool all, const char **above)
{
    const struct name_list *const lists[] = {&l->frozen, &l->current};
    for (size_t k = 0; k < ARRAY_SIZE(lists); k++)
        for (size_t i = 0; i < lists[k]->n; i++) {
            const char *name = lists[k]->v[i];
            if (strcmp(name, l->m->disk) != 0 && !of_snapshot(l, name) &&
                (all || !layers_on_current(l, name)) && layers_above(l, name, above) == 1 &&
                !is_shared(l->m, name) && !is_shared(l->m, *above))
                return name;
        }
    return NULL;
}

/* --- changes --- */

char *layers_new(const struct machine *m, const char *below, struct error **err)
{
    char id[UUID_TEXT_SIZE];
    if (!identity_uuid(id, err))
        return NULL;
    cleanup(mem) char *name = catalog_format("disk-%s.qcow2", id);
    cleanup(mem) char *path = layer_path(m, name);
    if (!overlay_create(path, below, err))
        return NULL;
    if (catalog_sync(path, err) && catalog_sync(m->dir, err))
        return steal_ptr(&name);
    unlink(path);
    return NULL;
}

bool layers_set_top(struct database *db, const struct machine *m, const char *disk, struct error **err)
{
    const char *const values[] = {m->uuid, disk};
    return database_run(db, "UPDATE machine SET disk = ?2 WHERE uuid = ?1", values, ARRAY_SIZE(values), err);
}

bool layers_drop_untouched(struct database *db, struct machine *m, struct error **err)
{
    for (;;) {
        cleanup(layers) struct layers l;
        if (!layers_load(db, m, &l, err))
            return false;
        if (m->resume || l.current.n < 2 || has_name(&l.frozen, l.current.v[1]) ||
            is_shared(m, l.current.v[1]))
            return true;
        cleanup(mem) char *top = layer_path(m, m->disk);
        int untouched = overlay_untouched(top, err);
        if (untouched <= 0 || !layers_set_top(db, m, l.current.v[1], err))
            return untouched == 0;
        free(m->disk);
        m->disk = catalog_format("%s", l.current.v[1]);
        unlink(top);
    }
}

/* Calls `fn` for what is in a folder; a missing one is empty. */
static bool each_entry(const char *dir,
                       bool (*fn)(const struct layers *l, const char *name, const char *path,
                                  struct error **err),
                       const struct layers *l, struct error **err)
{
    DIR *d = opendir(dir);
    bool ok = d || errno == ENOENT;
    if (!ok)
        error_set_errno(err, errno, "read folder '%s'", dir);
    for (const struct dirent *e = d ? readdir(d) : NULL; ok && e; e = readdir(d)) {
        cleanup(mem) char *path = catalog_format("%s/%s", dir, e->d_name);
        ok = e->d_name[0] == '.' || fn(l, e->d_name, path, err);
    }
    if (d)
        closedir(d);
    return ok;
}

static bool sweep_layer(const struct layers *l, const char *name, const char *path, struct error **err)
{
    if (fnmatch("disk*.qcow2", name, 0) != 0 || has_name(&l->current, name) || has_name(&l->frozen, name))
        return true;
    return unlink(path) == 0 || (error_set_errno(err, errno, "remove '%s'", path), false);
}

static bool sweep_folder(const struct layers *l, const char *name, const char *path, struct error **err)
{
    return snapshot_by_id(&l->snapshots, name) || catalog_remove_tree(path, err);
}

/* The memory of a clone that has gone on from it, or that no longer can. */
static bool sweep_memory(const struct layers *l, struct error **err)
{
    cleanup(mem) char *path = machine_memory(l->m);
    if (l->m->resume || l->m->snapshot || unlink(path) == 0 || errno == ENOENT)
        return true;
    return error_set_errno(err, errno, "remove '%s'", path), false;
}

bool layers_sweep(const struct layers *l, struct error **err)
{
    cleanup(mem) char *folder = catalog_format("%s/snapshots", l->m->dir);
    /* Without a disk of its own a machine has no layers. */
    return (!l->current.n || each_entry(l->m->dir, sweep_layer, l, err)) &&
           each_entry(folder, sweep_folder, l, err) && sweep_memory(l, err);
}
