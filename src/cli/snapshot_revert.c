/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Going back to a snapshot. What is discarded stays until the catalogue says where the machine goes on. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/machine_state.h"
#include "cli/keeper.h"
#include "cli/machine_words.h"
#include "cli/snapshots.h"
#include "cli/stop.h"

static bool check(const struct visit *v, const struct snapshot *s, bool resume, struct error **err)
{
    struct image image = {0};
    cleanup(mem) char *memory = snapshot_memory(&v->m, s->id);
    if (resume && access(memory, R_OK) < 0)
        return error_set_errno(err, errno, "open its memory '%s'", memory), false;
    if (!machine_image(&v->m, &image, err))
        return false;
    image_release(&image);
    return true;
}

static bool go_back(struct visit *v, const struct snapshot *s, bool resume, struct error **err)
{
    bool disk = machine_has_disk(s->config);
    cleanup(mem) char *layer = disk ? layers_new(&v->m, s->disk, err) : strdup(s->disk);
    if (!layer)
        return false;
    if (machine_is_live(&v->m) && !stop_force(&v->m, err))
        return false;
    return visit_lock(v, err) && snapshot_go_back(v->db, &v->m, s, layer, resume, err);
}

bool snapshot_revert(struct visit *v, const char *name, bool cold, struct error **err)
{
    const struct snapshot *s = visit_find(v, name, err);
    bool resume = s && s->memory && !cold;
    if (!s || !check(v, s, resume, err))
        return false;
    bool ok = go_back(v, s, resume, err);
    if (!visit_refresh(v, ok ? err : NULL)) /* of a failure the next command removes what it left */
        return false;
    if (!ok || !resume)
        return ok;
    fd_cleanup(&v->lock);
    v->lock = -1;
    database_close(v->db);
    v->db = NULL;
    return keeper_start_at_snapshots(&v->m, err);
}
