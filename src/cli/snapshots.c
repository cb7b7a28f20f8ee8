/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Snapshots of machines: see snapshots.h. */
#include "cli/snapshots.h"

#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/machine_state.h"
#include "cli/machines.h"

bool visit_refresh(struct visit *v, struct error **err)
{
    struct machine now = {0};
    layers_cleanup(&v->layers);
    if (!machine_find(v->db, v->m.uuid, &now, err))
        return false;
    machine_release(&v->m);
    v->m = now;
    return layers_load(v->db, &v->m, &v->layers, err) && layers_sweep(&v->layers, err);
}

bool visit_begin(struct visit *v, const char *machine, struct error **err)
{
    *v = (struct visit){.at_snapshots = -1, .lock = -1};
    v->db = machines_open(err);
    if (!v->db || !machine_find(v->db, machine, &v->m, err))
        return false;
    v->at_snapshots = layers_lock(&v->m, err);
    return v->at_snapshots >= 0 && visit_refresh(v, err);
}

void visit_end(struct visit *v)
{
    layers_cleanup(&v->layers);
    machine_release(&v->m);
    database_close(v->db);
    fd_cleanup(&v->lock);
    fd_cleanup(&v->at_snapshots);
}

bool visit_lock(struct visit *v, struct error **err)
{
    struct error *why = NULL;
    v->lock = machine_lock(&v->m, &why);
    if (v->lock >= 0)
        return machine_is_here(&v->m, err);
    int code = why->code;
    error_set(err, code, "%s", code == EBUSY ? "another command has its hands on it" : error_text(why));
    error_free(why);
    return false;
}

const struct snapshot *visit_find(const struct visit *v, const char *name, struct error **err)
{
    const struct snapshot *s = snapshot_named(&v->layers.snapshots, name);
    if (!s)
        error_set(err, ENOENT, "there is no snapshot '%s' (ruche snapshot ls %s lists those there are)", name,
                  v->m.name);
    return s;
}

bool snapshots_none(const struct machine *m, const char *hint, struct error **err)
{
    cleanup(snapshot_list) struct snapshot_list list = {0};
    cleanup(database) struct database *db = database_open(err);
    if (!db || !snapshot_list(db, m, &list, err))
        return false;
    if (list.n)
        error_set(err, EBUSY, "it has %zu snapshot%s (%s)", list.n, list.n == 1 ? "" : "s", hint);
    return !list.n;
}
