/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Clones in the catalogue: see clone.h. */
#include "catalog/clone.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "catalog/file.h"
#include "catalog/identity.h"
#include "catalog/layers.h"
#include "catalog/machine_state.h"
#include "catalog/overlay.h"

/* --- the configuration --- */

/* What a network card leads to without its forwarded ports, which are counted. Owned by the caller. */
static char *without_forwards(const char *backend, unsigned *forwards)
{
    char *kept = catalog_format("%s", backend), *to = kept;
    for (const char *item = backend; *item;) {
        size_t len = strcspn(item, ",");
        len += item[len] == ',';
        if (strncmp(item, "forward=", strlen("forward=")) == 0) {
            ++*forwards;
        } else {
            memcpy(to, item, len);
            to += len;
        }
        item += len;
    }
    to -= to > kept && to[-1] == ',';
    *to = 0;
    return kept;
}

json_t *clone_config(const json_t *config, unsigned *forwards, struct error **err)
{
    json_t *copy = json_deep_copy(config), *net;
    size_t i;
    *forwards = 0;
    json_array_foreach(json_object_get(copy, "nets"), i, net)
    {
        char mac[MAC_TEXT_SIZE];
        const char *leads_to = json_string_value(json_object_get(net, "backend"));
        cleanup(mem) char *backend = without_forwards(leads_to, forwards);
        if (!identity_mac(mac, err)) {
            json_decref(copy);
            return NULL;
        }
        json_object_set_new(net, "backend", json_string(backend));
        json_object_set_new(net, "mac", json_string(mac));
    }
    return copy;
}

char *clone_machine_id(const char *uuid)
{
    char *id = catalog_format("%s", uuid), *to = id;
    for (const char *from = uuid; *from; from++)
        if (*from != '-')
            *to++ = *from;
    *to = 0;
    return id;
}

/* In place of the one that a clone has which is cloned. */
void clone_set_machine_id(struct clone *c, const char *cmdline)
{
    static const char key[] = "systemd.machine_id=";
    cleanup(mem) char *old = catalog_format("%s", cmdline);
    cleanup(mem) char *id = clone_machine_id(c->m.uuid);
    cleanup(mem) char *text = catalog_format("%s", "");
    char *rest = old;
    for (char *word; (word = strsep(&rest, " "));) {
        if (strncmp(word, key, strlen(key)) == 0)
            continue;
        char *longer = catalog_format("%s%s ", text, word);
        free(text);
        text = longer;
    }
    json_object_set_new(c->m.config, "cmdline", json_sprintf("%s%s%s", text, key, id));
}

/* --- the folder --- */

/* With a transaction open nobody looks for leftovers, so none finds it without its lock. */
static bool make_folder(struct database *db, struct clone *c, struct error **err)
{
    if (!database_begin(db, err))
        return false;
    if (mkdir(c->m.dir, 0700) < 0)
        error_set_errno(err, errno, "make folder '%s'", c->m.dir);
    else
        c->lock = machine_lock(&c->m, err);
    database_rollback(db);
    return c->lock >= 0;
}

/* Long before the transaction that finds it out at the latest. */
static bool check_name(struct database *db, const char *name, struct error **err)
{
    cleanup(statement) sqlite3_stmt *s =
        database_query(db, "SELECT 1 FROM machine WHERE name = ?1", &name, 1, err);
    int taken = s ? database_step(db, s, err) : -1;
    if (taken > 0)
        error_set(err, EEXIST, "there is a machine '%s' (ruche rm %s removes it)", name, name);
    return taken == 0;
}

bool clone_begin(struct database *db, const char *name, const json_t *config, struct clone *c,
                 struct error **err)
{
    *c = (struct clone){.lock = -1};
    return check_name(db, name, err) && machine_draft(name, config, &c->m, err) && make_folder(db, c, err);
}

void clone_let_go(struct clone *c, bool discard)
{
    if (c->lock < 0)
        return;
    if (discard)
        catalog_remove_tree(c->m.dir, NULL); /* else the next command does */
    close(steal_fd(&c->lock));
}

/* `else_option` does without. */
static bool share(const char *from, const char *to, const char *else_option, struct error **err)
{
    if (link(from, to) == 0)
        return true;
    bool cannot = errno == EPERM || errno == EOPNOTSUPP || errno == EXDEV;
    error_set_errno(err, errno, "share '%s'%s%s", from,
                    cannot ? " by a hard link, without which it takes " : "", cannot ? else_option : "");
    return false;
}

bool clone_add_top(struct clone *c, const char *layer, struct error **err)
{
    char *top = layers_new(&c->m, layer, err);
    if (!top)
        return false;
    free(c->m.disk);
    c->m.disk = top;
    return true;
}

/* A layer that names the one below otherwise, as one does that was rebased by hand, would lead the clone into
 * the other's folder. */
static bool check_below(const struct clone *c, const char *layer, struct error **err)
{
    cleanup(mem) char *path = layer_path(&c->m, layer);
    cleanup(mem) char *below = overlay_base(path, err);
    if (below && strchr(below, '/'))
        error_set(err, EINVAL, "its layer '%s' names the one below by its path, '%s' (--full copies them)",
                  layer, below);
    return below && !strchr(below, '/');
}

bool clone_share_disk(struct clone *c, const struct machine *of, const char *layer, struct error **err)
{
    cleanup(name_list) struct name_list chain = {0};
    if (!layers_chain(of, layer, &chain, err))
        return false;
    if (chain.n >= LAYERS_MAX)
        return error_set(err, ELOOP, "its disk has %zu layers, and no more than %d are opened", chain.n,
                         LAYERS_MAX),
               false;
    for (size_t i = 0; i < chain.n; i++) {
        cleanup(mem) char *from = layer_path(of, chain.v[i]);
        cleanup(mem) char *to = layer_path(&c->m, chain.v[i]);
        if (!share(from, to, "--full", err) || (i + 1 < chain.n && !check_below(c, chain.v[i], err)))
            return false;
    }
    return clone_add_top(c, layer, err);
}

bool clone_share_memory(struct clone *c, const char *path, struct error **err)
{
    c->m.resume = true;
    cleanup(mem) char *to = machine_memory(&c->m);
    return share(path, to, "--cold", err) && catalog_sync(c->m.dir, err);
}

bool clone_copy_seed(struct clone *c, const struct machine *of, struct error **err)
{
    cleanup(mem) char *from = machine_seed(of);
    cleanup(mem) char *to = machine_seed(&c->m);
    return !json_is_true(json_object_get(c->m.config, "seed")) ||
           seed_copy(from, of->uuid, c->m.name, c->m.uuid, to, err);
}

/* --- the catalogue --- */

bool clone_commit(struct database *db, const struct clone *clones, size_t count, const struct machine *of,
                  const char *top, struct error **err)
{
    if (!database_begin(db, err))
        return false;
    bool ok = !top || layers_set_top(db, of, top, err);
    for (size_t i = 0; ok && i < count; i++)
        ok = machine_insert(db, &clones[i].m, err);
    if (ok && database_commit(db, err))
        return true;
    database_rollback(db);
    return false;
}
