/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Snapshots of named machines: see snapshot.h. */
#include "catalog/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "catalog/config.h"
#include "catalog/file.h"
#include "catalog/identity.h"

void snapshot_release(struct snapshot *s)
{
    free(s->id);
    free(s->parent);
    free(s->name);
    free(s->created);
    free(s->description);
    json_decref(s->config);
    free(s->disk);
    *s = (struct snapshot){0};
}

void snapshot_list_cleanup(struct snapshot_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        snapshot_release(&list->v[i]);
    free(list->v);
    *list = (struct snapshot_list){0};
}

static bool read_row(sqlite3_stmt *row, struct snapshot *s, struct error **err)
{
    cleanup(mem) char *config = database_text(row, 5);
    *s = (struct snapshot){.id = database_text(row, 0),
                           .parent = database_text(row, 1),
                           .name = database_text(row, 2),
                           .created = database_text(row, 3),
                           .description = database_text(row, 4),
                           .config = json_loads(config, 0, NULL),
                           .disk = database_text(row, 6),
                           .memory = sqlite3_column_int(row, 7) != 0};
    struct error *why = NULL;
    if (!s->config)
        error_set(&why, EINVAL, "its configuration is no JSON");
    if (!why && config_check(s->config, &why))
        return true;
    error_prefix(err, why, "read snapshot '%s' in the catalogue", s->name);
    snapshot_release(s);
    return false;
}

static bool add_row(struct snapshot_list *list, sqlite3_stmt *row, struct error **err)
{
    struct snapshot *grown = reallocarray(list->v, list->n + 1, sizeof(*grown));
    if (!grown)
        return error_set_errno(err, ENOMEM, "read the catalogue"), false;
    list->v = grown;
    if (!read_row(row, &list->v[list->n], err))
        return false;
    list->n++;
    return true;
}

bool snapshot_list(struct database *db, const struct machine *m, struct snapshot_list *list,
                   struct error **err)
{
    const char *uuid = m->uuid;
    struct snapshot_list new = {0};
    cleanup(statement) sqlite3_stmt *s =
        database_query(db,
                       "SELECT id, parent, name, created, description, config, disk, memory FROM snapshot "
                       "WHERE machine = ?1 ORDER BY rowid",
                       &uuid, 1, err);
    int more = s ? database_step(db, s, err) : -1;
    while (more > 0)
        more = add_row(&new, s, err) ? database_step(db, s, err) : -1;
    if (more == 0)
        *list = new;
    else
        snapshot_list_cleanup(&new);
    return more == 0;
}

const struct snapshot *snapshot_named(const struct snapshot_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->v[i].name, name) == 0)
            return &list->v[i];
    return NULL;
}

const struct snapshot *snapshot_by_id(const struct snapshot_list *list, const char *id)
{
    for (size_t i = 0; id && i < list->n; i++)
        if (strcmp(list->v[i].id, id) == 0)
            return &list->v[i];
    return NULL;
}

bool snapshot_prepare(const struct machine *m, const char *name, const char *description, struct snapshot *s,
                      struct error **err)
{
    char id[UUID_TEXT_SIZE], created[CATALOG_TIME_SIZE];
    if (!identity_uuid(id, err))
        return false;
    catalog_time(created);
    *s = (struct snapshot){.id = catalog_format("%s", id),
                           .parent = m->snapshot ? catalog_format("%s", m->snapshot) : NULL,
                           .name = catalog_format("%s", name),
                           .created = catalog_format("%s", created),
                           .description = catalog_format("%s", description),
                           .config = json_incref(m->config)};
    return true;
}

/* --- changes --- */

static bool insert(struct database *db, const struct machine *m, const struct snapshot *s, struct error **err)
{
    cleanup(mem) char *config = machine_config_text(s->config, err);
    const char *const values[] = {s->id,   m->uuid,    s->parent,
                                  s->name, s->created, s->description,
                                  config,  s->disk,    s->memory ? "1" : "0"};
    return config && database_run(db,
                                  "INSERT INTO snapshot (id, machine, parent, name, created, description, "
                                  "config, disk, memory) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                                  values, ARRAY_SIZE(values), err);
}

/* What runs in a transaction; it is undone on failure. */
static bool committed(struct database *db, bool ok, struct error **err)
{
    if (ok && database_commit(db, err))
        return true;
    database_rollback(db);
    return false;
}

bool snapshot_add(struct database *db, const struct machine *m, const struct snapshot *s, const char *disk,
                  struct error **err)
{
    const char *const values[] = {m->uuid, disk, s->id};
    if (!database_begin(db, err))
        return false;
    return committed(
        db,
        insert(db, m, s, err) &&
            database_run(db, "UPDATE machine SET disk = ?2, snapshot = ?3, resume = 0 WHERE uuid = ?1",
                         values, ARRAY_SIZE(values), err),
        err);
}

#define PARENT "(SELECT parent FROM snapshot WHERE id = ?1)"

bool snapshot_remove(struct database *db, const struct machine *m, const struct snapshot *s,
                     struct error **err)
{
    const char *id = s->id;
    if (!database_begin(db, err))
        return false;
    return committed(
        db,
        database_run(db, "UPDATE snapshot SET parent = " PARENT " WHERE parent = ?1", &id, 1, err) &&
            database_run(db, "UPDATE machine SET snapshot = " PARENT " WHERE snapshot = ?1", &id, 1, err) &&
            database_run(db, "DELETE FROM snapshot WHERE id = ?1", &id, 1, err),
        err);
}

bool snapshot_go_back(struct database *db, const struct machine *m, const struct snapshot *s,
                      const char *disk, bool resume, struct error **err)
{
    cleanup(mem) char *config = machine_config_text(s->config, err);
    const char *const values[] = {m->uuid, disk, s->id, resume ? "1" : "0", config};
    return config &&
           database_run(
               db, "UPDATE machine SET disk = ?2, snapshot = ?3, resume = ?4, config = ?5 WHERE uuid = ?1",
               values, ARRAY_SIZE(values), err);
}

bool snapshot_resumed(struct database *db, const struct machine *m, struct error **err)
{
    const char *const values[] = {m->uuid, m->disk};
    return database_run(db, "UPDATE machine SET resume = 0 WHERE uuid = ?1 AND disk = ?2", values,
                        ARRAY_SIZE(values), err);
}

/* --- files --- */

char *snapshot_folder(const struct machine *m, const char *id)
{
    return catalog_format("%s/snapshots/%s", m->dir, id);
}

char *snapshot_memory(const struct machine *m, const char *id)
{
    return catalog_format("%s/snapshots/%s/memory", m->dir, id);
}

char *machine_memory(const struct machine *m)
{
    return m->snapshot ? snapshot_memory(m, m->snapshot) : catalog_format("%s/memory", m->dir);
}
