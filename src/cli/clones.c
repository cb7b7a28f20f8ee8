/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making clones. First the machine is frozen, once, as for a snapshot: a saved machine and a layer of the
 * disk that nobody writes to any more. Then each clone's folder is made of links to these, or copies. At last
 * all clones come into the catalogue at once. Whoever is killed before leaves folders that belong to no
 * machine, and the machine with a layer more than it needs.
 */
#include "cli/clones.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/clone.h"
#include "catalog/file.h"
#include "catalog/machine_state.h"
#include "catalog/overlay.h"
#include "cli/at_once.h"
#include "cli/keeper.h"
#include "cli/machine_words.h"
#include "cli/progress.h"
#include "cli/qemu_img.h"
#include "cli/snapshots.h"
#include "cli/verb.h"

/* What is cloned, and what of it is ready. */
struct work {
    const struct clone_order *order;
    struct visit v;
    struct snapshot
        frozen;           /* the snapshot, or one that is in no catalogue; its disk is NULL: there is none */
    char *top;            /* the machine's new top; NULL: it stays */
    char *cmdline;        /* of its kernel, if it boots an image; else NULL */
    struct clone *clones; /* as many as are ordered */
    size_t begun;
};

static bool has_disk(const struct work *w)
{
    return machine_has_disk(w->frozen.config);
}

/* --- what is cloned --- */

/* One with neither memory nor a place in the tree, but with the machine's settings. */
static bool choose(struct work *w, struct error **err)
{
    const char *name = w->order->snapshot;
    const struct snapshot *s = name ? visit_find(&w->v, name, err) : NULL;
    if (!name)
        return snapshot_prepare(&w->v.m, "clone", "", &w->frozen, err);
    if (!s)
        return false;
    w->frozen = (struct snapshot){.id = catalog_format("%s", s->id),
                                  .config = json_incref(s->config),
                                  .disk = catalog_format("%s", s->disk),
                                  .memory = s->memory};
    return true;
}

static bool check(struct work *w, struct error **err)
{
    struct machine m = w->v.m;
    struct image image = {0};
    m.config = w->frozen.config;
    cleanup(mem) char *memory = snapshot_memory(&w->v.m, w->frozen.id);
    if (!freeze_check_disks(&m, err))
        return false;
    if (w->order->snapshot && w->frozen.memory && access(memory, R_OK) < 0)
        return error_set_errno(err, errno, "open its memory '%s'", memory), false;
    if (!machine_image(&m, &image, err))
        return false;
    const char *own = json_string_value(json_object_get(m.config, "cmdline"));
    if (machine_has_disk(m.config) && (image.name || own))
        w->cmdline = catalog_format("%s", own ? own : image.cmdline ? image.cmdline : "");
    image_release(&image);
    return true;
}

/* The layer below an untouched top shows the same as that, and is frozen already. */
static bool freeze_off(struct work *w, struct error **err)
{
    struct visit *v = &w->v;
    if (v->m.resume)
        return error_set(err, EBUSY, "its next start goes on from its saved memory (ruche start %s)",
                         v->m.name),
               false;
    if (!visit_lock(v, err) || !layers_drop_untouched(v->db, &v->m, err) || !visit_refresh(v, err))
        return false;
    w->frozen.disk = catalog_format("%s", v->m.disk);
    if (!has_disk(w) || w->order->full)
        return true;
    cleanup(mem) char *top = machine_disk(&v->m);
    int untouched = overlay_untouched(top, err);
    if (untouched > 0 && v->layers.current.n > 1) {
        free(w->frozen.disk);
        w->frozen.disk = catalog_format("%s", v->layers.current.v[1]);
        return true;
    }
    w->top = untouched < 0 ? NULL : freeze_stopped(v, err);
    return w->top != NULL;
}

static bool freeze(struct work *w, struct error **err)
{
    struct machine_state state;
    struct visit *v = &w->v;
    if (w->order->snapshot)
        return true;
    machine_state_read(&v->m, &state);
    if (state.life == MACHINE_STARTING)
        return error_set(err, EAGAIN, "it is just being started"), false;
    if (state.life != MACHINE_RUNNING)
        return freeze_off(w, err);
    if (v->layers.current.n >= LAYERS_MAX)
        return error_set(
                   err, ELOOP,
                   "its disk has %zu layers, and no more than %d are opened (stop it, and clone it --full)",
                   v->layers.current.n, LAYERS_MAX),
               false;
    w->frozen.memory = true;
    return freeze_running(v, state.control, "clone", &w->frozen, err);
}

/* --- the clones --- */

static bool begin(struct work *w, unsigned *forwards, struct error **err)
{
    w->clones = calloc(w->order->count, sizeof(*w->clones));
    bool ok = w->clones != NULL;
    if (!ok)
        error_set_errno(err, ENOMEM, "make clones");
    while (ok && w->begun < w->order->count) {
        json_t *config = clone_config(w->frozen.config, forwards, err);
        ok = config && clone_begin(w->v.db, w->order->names[w->begun], config, &w->clones[w->begun], err);
        if (ok && w->cmdline)
            clone_set_machine_id(&w->clones[w->begun], w->cmdline);
        w->begun += config != NULL;
        json_decref(config);
    }
    return ok;
}

/* A memory is gone on from only with an untouched layer on top. */
static bool copy_disk(const struct work *w, struct clone *c, struct error **err)
{
    cleanup(mem) char *from = layer_path(&w->v.m, w->frozen.disk);
    cleanup(mem) char *to = machine_disk(&c->m);
    const char *const words[] = {"qemu-img", "convert", "-q", "-f", "qcow2", "-O", "qcow2", from, to, NULL};
    if (!qemu_img(words, NULL, 0, err))
        return false;
    if (chmod(to, 0600) < 0)
        return error_set_errno(err, errno, "keep '%s' from others", to), false;
    return catalog_sync(to, err) && catalog_sync(c->m.dir, err) &&
           (!c->m.resume || clone_add_top(c, c->m.disk, err));
}

static bool fill(struct work *w, struct clone *c, struct error **err)
{
    cleanup(mem) char *memory = snapshot_memory(&w->v.m, w->frozen.id);
    if (w->frozen.memory && !w->order->cold && !clone_share_memory(c, memory, err))
        return false;
    if (has_disk(w) &&
        !(w->order->full ? copy_disk(w, c, err) : clone_share_disk(c, &w->v.m, w->frozen.disk, err)))
        return false;
    return clone_copy_seed(c, &w->v.m, err);
}

/* Copies of disks take their time, and are told of. */
static bool fill_all(struct work *w, struct error **err)
{
    struct progress progress;
    bool tell = w->order->full && has_disk(w), ok = true;
    if (tell)
        progress_start(&progress, "clone");
    progress.steps = (unsigned)w->order->count;
    for (size_t i = 0; ok && i < w->order->count; i++) {
        if (tell)
            progress_step(&progress, w->clones[i].m.name);
        ok = fill(w, &w->clones[i], err);
    }
    if (tell)
        progress_end(&progress, ok);
    return ok;
}

static bool make(struct work *w, unsigned *forwards, struct error **err)
{
    return visit_begin(&w->v, w->order->machine, err) && choose(w, err) && check(w, err) &&
           begin(w, forwards, err) && freeze(w, err) && fill_all(w, err) &&
           clone_commit(w->v.db, w->clones, w->order->count, &w->v.m, w->top, err);
}

/* The clones' machines go over to the result. */
static bool hand_over(struct work *w, struct clone_result *r, struct error **err)
{
    r->machines = calloc(w->order->count, sizeof(*r->machines));
    if (!r->machines)
        return error_set_errno(err, ENOMEM, "start the clones"), false;
    r->count = w->order->count;
    r->of = catalog_format("%s", w->v.m.name);
    r->nets = json_incref(json_object_get(w->frozen.config, "nets"));
    for (size_t i = 0; i < r->count; i++) {
        r->machines[i] = w->clones[i].m;
        w->clones[i].m = (struct machine){0};
    }
    return true;
}

bool clones_make(const struct clone_order *o, struct clone_result *r, struct error **err)
{
    struct work w = {.order = o};
    struct error *why = NULL;
    *r = (struct clone_result){0};
    bool made = make(&w, &r->forwards, &why);
    for (size_t i = 0; i < w.begun; i++)
        clone_let_go(&w.clones[i], !made);
    bool ok = made && hand_over(&w, r, &why);
    if (w.v.db && w.v.at_snapshots >= 0)
        visit_refresh(&w.v,
                      NULL); /* what was frozen for the clones is no snapshot; else the next command does */
    for (size_t i = 0; i < w.begun; i++)
        machine_release(&w.clones[i].m);
    free(w.clones);
    free(w.top);
    free(w.cmdline);
    snapshot_release(&w.frozen);
    visit_end(&w.v);
    if (why)
        error_prefix(err, why, "clone machine '%s'", o->machine);
    return ok;
}

void clone_result_release(struct clone_result *r)
{
    machine_list_free(r->machines, r->count);
    json_decref(r->nets);
    free(r->of);
    *r = (struct clone_result){0};
}

/* --- starting them --- */

static int start_one(size_t index, void *opaque)
{
    const struct clone_result *r = opaque;
    struct error *err = NULL;
    const struct machine *m = &r->machines[index];
    return !m->resume || keeper_start(m, &err) ? EXIT_OK : failure(err);
}

static int renew_one(size_t index, void *opaque)
{
    const struct clone_result *r = opaque;
    const struct machine *m = &r->machines[index];
    return m->resume && machine_is_live(m) ? clone_renew(m, r->nets) : RENEWED;
}

/* How many have nothing of their own in the guest; the first of them goes to *first. */
static size_t renew(struct clone_result *r, const struct machine **first)
{
    int status[AT_ONCE_MAX];
    size_t nothing = 0;
    at_once(r->count, renew_one, r, status);
    for (size_t i = 0; i < r->count; i++)
        if (status[i] == RENEWED_NOTHING && nothing++ == 0)
            *first = &r->machines[i];
    return nothing;
}

int clones_start(struct clone_result *r)
{
    int status[AT_ONCE_MAX], all = EXIT_OK;
    const struct machine *first = NULL;
    at_once(r->count, start_one, r, status);
    for (size_t i = 0; i < r->count; i++)
        all = status[i] == EXIT_OK ? all : EXIT_RUCHE;
    size_t nothing = renew(r, &first);
    if (nothing)
        fprintf(stderr,
                "ruche: no guest agent answers in '%s'%s, so its guest still has the host name, machine-id, "
                "network address, ssh keys and time of '%s'\n",
                first->name, nothing > 1 ? " and others" : "", r->of);
    return all;
}
