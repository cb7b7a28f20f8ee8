/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Named machines: see machine.h. */
#include "catalog/machine.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/util.h"
#include "catalog/config.h"
#include "catalog/file.h"
#include "catalog/identity.h"
#include "catalog/machine_state.h"
#include "catalog/overlay.h"

#define COLUMNS    "SELECT uuid, name, created, config, disk, snapshot, resume FROM machine "
#define FIRST_DISK "disk.qcow2"

void machine_release(struct machine *m)
{
    free(m->uuid);
    free(m->name);
    free(m->created);
    free(m->dir);
    free(m->disk);
    free(m->snapshot);
    json_decref(m->config);
    *m = (struct machine){0};
}

void machine_cleanup(struct machine *m)
{
    machine_release(m);
}

static char *folder_of(const char *uuid, struct error **err)
{
    cleanup(mem) char *dir = catalog_data_dir("machines", err);
    return dir ? catalog_format("%s/%s", dir, uuid) : NULL;
}

/* From a row of COLUMNS. */
static bool read_row(sqlite3_stmt *row, struct machine *m, struct error **err)
{
    struct machine new = {.uuid = database_text(row, 0),
                          .name = database_text(row, 1),
                          .created = database_text(row, 2),
                          .disk = database_text(row, 4),
                          .snapshot = database_text(row, 5),
                          .resume = sqlite3_column_int(row, 6) != 0};
    cleanup(mem) char *text = database_text(row, 3);
    struct error *why = NULL;
    json_error_t bad;
    new.config = json_loads(text, 0, &bad);
    if (!new.config)
        error_set(&why, 0, "configuration: %s", bad.text);
    else if (config_check(new.config, &why))
        new.dir = folder_of(new.uuid, &why);
    if (!why) {
        *m = new;
        return true;
    }
    error_prefix(err, why, "read machine '%s' in the catalogue", new.name);
    machine_release(&new);
    return false;
}

/* The one row that the beginning fits; more than one is an error that names two. */
static bool find_by_beginning(struct database *db, const char *word, struct machine *m, struct error **err)
{
    static const char sql[] =
        COLUMNS "WHERE substr(name, 1, length(?1)) = ?1 OR substr(uuid, 1, length(?1)) = "
                "?1 ORDER BY name LIMIT 2";
    cleanup(statement) sqlite3_stmt *s = database_query(db, sql, &word, 1, err);
    int found = s ? database_step(db, s, err) : -1;
    if (found == 0)
        error_set(err, ENOENT, "there is no machine '%s' (ruche ls -a lists those there are)", word);
    if (found <= 0)
        return false;
    cleanup(mem) char *first = database_text(s, 1);
    struct error *why = NULL;
    struct machine one = {0};
    bool ok = read_row(s, &one, &why);
    if (database_step(db, s, NULL) == 1) {
        error_cleanup(&why);
        why = NULL;
        error_set(&why, EINVAL, "'%s' may be '%s' or '%s': say more of the name", word, first,
                  (const char *)sqlite3_column_text(s, 1));
        ok = false;
    }
    if (ok)
        *m = one;
    else
        machine_release(&one);
    if (why)
        error_prefix(err, why, "find the machine");
    return ok;
}

bool machine_find(struct database *db, const char *word, struct machine *m, struct error **err)
{
    cleanup(statement) sqlite3_stmt *s =
        database_query(db, COLUMNS "WHERE name = ?1 OR uuid = ?1 ORDER BY name <> ?1 LIMIT 1", &word, 1, err);
    int found = s ? database_step(db, s, err) : -1;
    if (found < 0)
        return false;
    if (found)
        return read_row(s, m, err);
    if (!*word)
        return error_set(err, EINVAL, "'' is no machine's name"), false;
    return find_by_beginning(db, word, m, err);
}

bool machine_list(struct database *db, struct machine **machines, size_t *count, struct error **err)
{
    cleanup(statement) sqlite3_stmt *s = database_query(db, COLUMNS "ORDER BY name", NULL, 0, err);
    struct machine *list = NULL;
    size_t n = 0;
    int more;
    while (s && (more = database_step(db, s, err)) > 0) {
        struct error *why = NULL;
        struct machine *grown = reallocarray(list, n + 1, sizeof(*list));
        list = grown ? grown : list;
        if (grown && read_row(s, &list[n], &why))
            n++;
        else
            log_line(LOG_WARN, "%s, so it is left out", error_text(why));
        error_free(why);
    }
    if (!s || more < 0) {
        machine_list_free(list, n);
        return false;
    }
    *machines = list;
    *count = n;
    return true;
}

void machine_list_free(struct machine *machines, size_t count)
{
    for (size_t i = 0; i < count; i++)
        machine_release(&machines[i]);
    free(machines);
}

bool machine_has_disk(const json_t *config)
{
    return json_object_get(config, "image") || json_is_true(json_object_get(config, "disk"));
}

char *machine_disk(const struct machine *m)
{
    return catalog_format("%s/%s", m->dir, m->disk);
}

char *machine_seed(const struct machine *m)
{
    return catalog_format("%s/seed.iso", m->dir);
}

char *machine_config_text(const json_t *config, struct error **err)
{
    if (!config_check(config, err))
        return NULL;
    char *text = json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text)
        error_set(err, EINVAL, "write the configuration: it is no JSON");
    return text;
}

bool machine_insert(struct database *db, const struct machine *m, struct error **err)
{
    cleanup(mem) char *config = machine_config_text(m->config, err);
    const char *const values[] = {m->uuid, m->name, m->created, config, m->disk, m->resume ? "1" : "0"};
    struct error *why = NULL;
    if (!config)
        return false;
    if (database_run(db,
                     "INSERT INTO machine (uuid, name, created, config, disk, resume) "
                     "VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                     values, ARRAY_SIZE(values), &why))
        return true;
    if (why->code != EEXIST)
        return error_prefix(err, why, "create machine '%s'", m->name), false;
    error_free(why);
    error_set(err, EEXIST, "create machine '%s': there is one of that name (ruche rm %s removes it)", m->name,
              m->name);
    return false;
}

static bool make_folder(const struct machine *m, const struct image *image, const struct seed *seed,
                        struct error **err)
{
    cleanup(mem) char *disk = machine_disk(m);
    cleanup(mem) char *volume = machine_seed(m);
    if (mkdir(m->dir, 0700) < 0)
        return error_set_errno(err, errno, "make folder '%s'", m->dir), false;
    return (!image || overlay_create(disk, image->disk, err)) &&
           (!seed || seed_write(seed, m->name, m->uuid, volume, err));
}

/* The row first, as it refuses a name that is taken; nobody sees it before the transaction's end. */
static bool make(struct database *db, const struct machine *m, const struct image *image,
                 const struct seed *seed, struct error **err)
{
    if (!database_begin(db, err))
        return false;
    if (machine_insert(db, m, err)) {
        if (make_folder(m, image, seed, err) && database_commit(db, err))
            return true;
        catalog_remove_tree(m->dir, NULL);
    }
    database_rollback(db);
    return false;
}

/* One that is nowhere yet. */
static bool draft(const char *name, const char *uuid, const json_t *config, struct machine *m,
                  struct error **err)
{
    char created[CATALOG_TIME_SIZE];
    if (!catalog_name_check(name, err))
        return false;
    catalog_time(created);
    struct machine new = {.uuid = catalog_format("%s", uuid),
                          .name = catalog_format("%s", name),
                          .created = catalog_format("%s", created),
                          .dir = folder_of(uuid, err),
                          .disk = catalog_format(FIRST_DISK),
                          .config = json_deep_copy(config)};
    if (new.dir) {
        *m = new;
        return true;
    }
    machine_release(&new);
    return false;
}

bool machine_draft(const char *name, const json_t *config, struct machine *m, struct error **err)
{
    char uuid[UUID_TEXT_SIZE];
    return identity_uuid(uuid, err) && draft(name, uuid, config, m, err);
}

/* A draft becomes *m and the catalogue's, or is released. */
static bool enter(struct database *db, struct machine *new, const struct image *image,
                  const struct seed *seed, struct machine *m, struct error **err)
{
    if (make(db, new, image, seed, err)) {
        *m = *new;
        return true;
    }
    machine_release(new);
    return false;
}

bool machine_create(struct database *db, const char *name, const json_t *config, const struct image *image,
                    const struct seed *seed, struct machine *m, struct error **err)
{
    struct machine new;
    return machine_draft(name, config, &new, err) && enter(db, &new, image, seed, m, err);
}

bool machine_adopt(struct database *db, const char *name, const char *uuid, const json_t *config,
                   struct machine *m, struct error **err)
{
    struct machine new;
    return draft(name, uuid, config, &new, err) && enter(db, &new, NULL, NULL, m, err);
}

/* Nobody sweeps while a transaction is open, and a locked folder not at all. */
static bool make_locked_folder(struct database *db, struct machine *m, int *lock, struct error **err)
{
    if (!database_begin(db, err))
        return false;
    bool ok = mkdir(m->dir, 0700) == 0;
    if (!ok)
        error_set_errno(err, errno, "make folder '%s'", m->dir);
    *lock = ok ? machine_lock(m, err) : -1;
    database_rollback(db);
    return *lock >= 0;
}

bool machine_prepare(struct database *db, const char *name, const json_t *config, struct machine *m,
                     int *lock, struct error **err)
{
    *lock = -1;
    if (!machine_draft(name, config, m, err))
        return false;
    if (make_locked_folder(db, m, lock, err))
        return true;
    machine_release(m);
    return false;
}

void machine_abandon(struct machine *m, int *lock)
{
    catalog_remove_tree(m->dir, NULL);
    fd_cleanup(lock);
    *lock = -1;
}

bool machine_update(struct database *db, const struct machine *m, struct error **err)
{
    cleanup(mem) char *config = machine_config_text(m->config, err);
    const char *const values[] = {m->uuid, config};
    return config && database_run(db, "UPDATE machine SET config = ?2 WHERE uuid = ?1", values, 2, err);
}

bool machine_rename(struct database *db, const struct machine *m, const char *name, struct error **err)
{
    const char *const values[] = {m->uuid, name};
    struct error *why = NULL;
    if (!catalog_name_check(name, err))
        return false;
    if (database_run(db, "UPDATE machine SET name = ?2 WHERE uuid = ?1", values, 2, &why))
        return true;
    if (why->code != EEXIST)
        return error_prefix(err, why, "rename machine '%s'", m->name), false;
    error_free(why);
    return error_set(err, EEXIST, "rename machine '%s': there is one named '%s'", m->name, name), false;
}

bool machine_remove(struct database *db, const struct machine *m, struct error **err)
{
    static const char sql[] = "DELETE FROM machine WHERE uuid = ?1";
    const char *uuid = m->uuid;
    struct error *why = NULL;
    if (database_run(db, sql, &uuid, 1, &why))
        return catalog_remove_tree(m->dir, err);
    if (why->code != ENOSPC)
        return error_prefix(err, why, "remove machine '%s'", m->name), false;
    /* Removing must be possible on a full disk. Killed now, it leaves a machine that can only be removed. */
    error_free(why);
    return catalog_remove_tree(m->dir, err) && database_run(db, sql, &uuid, 1, err);
}

/* --- leftovers --- */

static bool has_row(struct database *db, const char *uuid)
{
    cleanup(statement) sqlite3_stmt *s =
        database_query(db, "SELECT 1 FROM machine WHERE uuid = ?1", &uuid, 1, NULL);
    return !s || database_step(db, s, NULL) != 0;
}

/* With a transaction open no machine is half made, so what has no row now will never have one. */
static void remove_leftover(struct database *db, const char *dir, const char *uuid)
{
    struct machine m = {.dir = catalog_format("%s/%s", dir, uuid)};
    struct error *why = NULL;
    if (database_begin(db, &why)) {
        if (!has_row(db, uuid) && !machine_is_live(&m))
            catalog_remove_tree(m.dir, &why);
        database_rollback(db);
    }
    if (why)
        log_line(LOG_WARN, "%s", error_text(why));
    error_free(why);
    machine_release(&m);
}

void machine_sweep(struct database *db)
{
    cleanup(mem) char *dir = catalog_data_dir("machines", NULL);
    DIR *d = dir ? opendir(dir) : NULL;
    if (!d)
        return;
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        uint8_t uuid[16];
        if (parse_uuid(e->d_name, uuid) && !has_row(db, e->d_name))
            remove_leftover(db, dir, e->d_name);
    }
    closedir(d);
}

char *machine_on_image(struct database *db, const char *image, struct error **err)
{
    cleanup(statement) sqlite3_stmt *s = database_query(
        db, "SELECT name FROM machine WHERE json_extract(config, '$.image.name') = ?1 ORDER BY name LIMIT 1",
        &image, 1, err);
    return s && database_step(db, s, err) == 1 ? database_text(s, 0) : NULL;
}
