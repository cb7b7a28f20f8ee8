/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Taking snapshots. The catalogue says first that the machine writes to the new, untouched layer: as that
 * shows what the layer below shows, it is true whether the running machine comes to change over to it or not,
 * and whoever is killed when. The snapshot is there once its memory is complete.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/file.h"
#include "catalog/machine_state.h"
#include "catalog/overlay.h"
#include "cli/control.h"
#include "cli/machine_words.h"
#include "cli/machines.h"
#include "cli/qemu_img.h"
#include "cli/saving.h"
#include "cli/snapshots.h"

bool freeze_check_disks(const struct machine *m, struct error **err)
{
    size_t i;
    json_t *item;
    struct image image = {0};
    json_array_foreach(json_object_get(m->config, "disks"), i, item)
    {
        if (!json_is_true(json_object_get(item, "readonly")))
            return error_set(err, ENOTSUP,
                             "its disk '%s' is a file that was given to it, not a disk of Ruche's",
                             json_string_value(json_object_get(item, "file"))),
                   false;
    }
    json_array_foreach(json_object_get(m->config, "devices"), i, item)
    {
        const char *device = json_string_value(item);
        if (strncmp(device, "virtio-blk", strlen("virtio-blk")) == 0)
            return error_set(err, ENOTSUP, "its device '%s' is not a disk of Ruche's", device), false;
    }
    if (!machine_image(m, &image, err))
        return false;
    image_release(&image);
    return true;
}

/* The first free one; owned by the caller. */
static char *free_name(const struct visit *v)
{
    for (unsigned i = 1;; i++) {
        char *name = catalog_format("s%u", i);
        if (!snapshot_named(&v->layers.snapshots, name))
            return name;
        free(name);
    }
}

/* --- a machine that does not run --- */

char *freeze_stopped(struct visit *v, struct error **err)
{
    cleanup(mem) char *top = machine_disk(&v->m);
    /* It is not opened for writing again, so its counts are put right now. */
    const char *const repair[] = {"qemu-img", "check", "-q", "-r", "all", top, NULL};
    if (overlay_dirty(top) && !qemu_img(repair, NULL, 0, err))
        return NULL;
    return layers_new(&v->m, v->m.disk, err);
}

static bool take_stopped(struct visit *v, struct snapshot *s, struct error **err)
{
    if (!layers_drop_untouched(v->db, &v->m, err))
        return false;
    s->disk = catalog_format("%s", v->m.disk);
    if (!machine_has_disk(v->m.config))
        return snapshot_add(v->db, &v->m, s, v->m.disk, err);
    cleanup(mem) char *layer = freeze_stopped(v, err);
    return layer && snapshot_add(v->db, &v->m, s, layer, err);
}

/* --- one that runs --- */

static bool check_idle(struct control *c, struct error **err)
{
    json_t *o = control_call(c, "query-ruche-save", NULL, err);
    const char *status = json_string_value(json_object_get(o, "status"));
    bool active = status && strcmp(status, "active") == 0;
    if (active)
        error_set(err, EBUSY, "it is just being saved");
    json_decref(o);
    return o && !active;
}

/* The machine's name for its own disk, and the layer that it writes to, owned by the caller. */
static bool find_disk(const struct visit *v, struct control *c, char **device, char **layer,
                      struct error **err)
{
    json_t *list = control_call(c, "query-block", NULL, err), *item;
    size_t i;
    json_array_foreach(list, i, item)
    {
        const char *file = NULL, *name = NULL;
        size_t dir = strlen(v->m.dir);
        json_unpack(item, "{s:s, s:{s:s}}", "device", &name, "inserted", "file", &file);
        if (*layer || !file || strncmp(file, v->m.dir, dir) != 0 || file[dir] != '/')
            continue;
        *device = catalog_format("%s", name);
        *layer = catalog_format("%s", file + dir + 1);
    }
    json_decref(list);
    /* Its top, or what an untouched top stands on. */
    for (i = 0; *layer && i < v->layers.current.n && i < 2; i++)
        if (strcmp(v->layers.current.v[i], *layer) == 0)
            return true;
    if (list)
        error_set(err, 0, "it does not write to the disk that the catalogue knows of");
    return false;
}

/* A new layer for the disk that it writes to now, which the snapshot then ends with. */
static json_t *give_layer(struct visit *v, struct control *c, struct snapshot *s, struct error **err)
{
    cleanup(mem) char *device = NULL;
    cleanup(mem) char *now = NULL;
    if (!find_disk(v, c, &device, &now, err))
        return NULL;
    cleanup(mem) char *layer = layers_new(&v->m, now, err);
    if (!layer || !layers_set_top(v->db, &v->m, layer, err))
        return NULL;
    s->disk = steal_ptr(&now);
    free(v->m.disk);
    v->m.disk = catalog_format("%s", layer);
    cleanup(mem) char *path = layer_path(&v->m, layer);
    return json_pack("[{s:s, s:s}]", "device", device, "snapshot-file", path);
}

static bool make_folder(const struct machine *m, const struct snapshot *s, struct error **err)
{
    cleanup(mem) char *all = catalog_format("%s/snapshots", m->dir);
    cleanup(mem) char *folder = snapshot_folder(m, s->id);
    if ((mkdir(all, 0700) < 0 && errno != EEXIST) || mkdir(folder, 0700) < 0)
        return error_set_errno(err, errno, "make folder '%s'", folder), false;
    return catalog_sync(all, err);
}

static bool save(struct visit *v, struct control *c, const char *what, struct snapshot *s, struct error **err)
{
    if (!check_idle(c, err) || !make_folder(&v->m, s, err))
        return false;
    bool disk = machine_has_disk(v->m.config);
    json_t *overlays = disk ? give_layer(v, c, s, err) : json_array();
    if (!disk)
        s->disk = catalog_format("%s", v->m.disk);
    cleanup(mem) char *memory = snapshot_memory(&v->m, s->id);
    return overlays &&
           saving_run(c, what, json_pack("{s:s, s:o}", "path", memory, "overlays", overlays), err);
}

bool freeze_running(struct visit *v, const char *control, const char *what, struct snapshot *s,
                    struct error **err)
{
    struct control *c = control_open(control, SAVING_ANSWER_MS, err);
    bool ok = c && save(v, c, what, s, err);
    control_close(c);
    return ok;
}

static bool take_running(struct visit *v, const char *control, struct snapshot *s, struct error **err)
{
    return freeze_running(v, control, "snapshot", s, err) && snapshot_add(v->db, &v->m, s, v->m.disk, err);
}

/* --- both --- */

static bool take(struct visit *v, struct snapshot *s, struct error **err)
{
    struct machine_state state;
    machine_state_read(&v->m, &state);
    if (state.life == MACHINE_STARTING)
        return error_set(err, EAGAIN, "it is just being started"), false;
    if (state.life == MACHINE_RUNNING) {
        s->memory = true;
        return take_running(v, state.control, s, err);
    }
    if (v->m.resume)
        return error_set(err, EBUSY, "its next start goes on from its saved memory (ruche start %s)",
                         v->m.name),
               false;
    return visit_lock(v, err) && take_stopped(v, s, err);
}

bool snapshot_take(struct visit *v, const char *name, const char *description, struct error **err)
{
    cleanup(mem) char *chosen = name ? catalog_format("%s", name) : free_name(v);
    struct snapshot s = {0};
    if (v->layers.current.n >= LAYERS_MAX)
        return error_set(err, ELOOP,
                         "its disk has %zu layers, and no more than %d are opened (ruche snapshot rm "
                         "makes them fewer)",
                         v->layers.current.n, LAYERS_MAX),
               false;
    if (snapshot_named(&v->layers.snapshots, chosen))
        return error_set(err, EEXIST, "there is a snapshot '%s' (ruche snapshot rm %s %s removes it)", chosen,
                         v->m.name, chosen),
               false;
    bool ok = freeze_check_disks(&v->m, err) && snapshot_prepare(&v->m, chosen, description, &s, err) &&
              take(v, &s, err);
    snapshot_release(&s);
    visit_refresh(v, NULL); /* what this command, or an earlier one, has failed at; else the next one does */
    if (ok && !name)
        printf("%s\n", chosen);
    return ok;
}
