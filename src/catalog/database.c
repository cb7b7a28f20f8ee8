/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The catalogue's database: see database.h. */
#include "catalog/database.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "catalog/file.h"

/* Others hold it for moments only; a whole command's time would be a bug. */
#define BUSY_MS     20000
#define WAL_POLL_MS 10

struct database {
    sqlite3 *handle;
    char *path;
};

/* Entry N leads from form N to form N + 1. They are never changed, only added to. */
static const char *const migrations[] = {
    "CREATE TABLE machine ("
    " uuid TEXT PRIMARY KEY NOT NULL,"
    " name TEXT NOT NULL UNIQUE,"
    " created TEXT NOT NULL," /* UTC, as 2026-01-31T12:00:00Z */
    " config TEXT NOT NULL"   /* as machine.schema.json has it */
    ") STRICT;",
    "CREATE TABLE snapshot ("
    " id TEXT PRIMARY KEY NOT NULL," /* a UUID; also of its folder */
    " machine TEXT NOT NULL REFERENCES machine (uuid) ON DELETE CASCADE,"
    " parent TEXT REFERENCES snapshot (id)," /* NULL: none */
    " name TEXT NOT NULL,"
    " created TEXT NOT NULL,"
    " description TEXT NOT NULL,"
    " config TEXT NOT NULL,"
    " disk TEXT NOT NULL,"      /* the layer that it ends with, a name in the machine's folder */
    " memory INTEGER NOT NULL," /* whether there is a saved machine in its folder */
    " UNIQUE (machine, name)"
    ") STRICT;"
    /* The layer that it writes to; the snapshot that it is based on; whether its next start goes on from
     * there. */
    "ALTER TABLE machine ADD COLUMN disk TEXT NOT NULL DEFAULT 'disk.qcow2';"
    "ALTER TABLE machine ADD COLUMN snapshot TEXT REFERENCES snapshot (id);"
    "ALTER TABLE machine ADD COLUMN resume INTEGER NOT NULL DEFAULT 0;",
};
const int database_version = ARRAY_SIZE(migrations);

/* SQLite's words, or the system's where those say more; with what to do where that is not clear. */
static void set_error(struct database *db, struct error **err)
{
    int code = sqlite3_extended_errcode(db->handle), cause = sqlite3_system_errno(db->handle), number = 0;
    const char *text = sqlite3_errmsg(db->handle), *advice = "";
    switch (code & 0xff) {
    case SQLITE_FULL:
        number = ENOSPC;
        text = strerror(ENOSPC);
        break;
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
        number = cause;
        text = cause ? strerror(cause) : text;
        break;
    case SQLITE_CONSTRAINT:
        number = EEXIST;
        break;
    case SQLITE_BUSY:
        text = "another command has held it for too long";
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        advice = "; put a good copy in its place, or move it away: the machines' disks are in the folder "
                 "'machines' beside it";
        break;
    }
    error_set(err, number, "use the catalogue '%s': %s%s", db->path, text, advice);
}

static bool execute(struct database *db, const char *sql, struct error **err)
{
    if (sqlite3_exec(db->handle, sql, NULL, NULL, NULL) == SQLITE_OK)
        return true;
    set_error(db, err);
    return false;
}

static int version_of(struct database *db, struct error **err)
{
    cleanup(statement) sqlite3_stmt *s = database_query(db, "PRAGMA user_version", NULL, 0, err);
    return s && database_step(db, s, err) == 1 ? sqlite3_column_int(s, 0) : -1;
}

static bool migrate_from(struct database *db, int version, struct error **err)
{
    char set_version[64];
    snprintf(set_version, sizeof(set_version), "PRAGMA user_version = %d", database_version);
    for (int i = version; i < database_version; i++)
        if (!execute(db, migrations[i], err))
            return false;
    return execute(db, set_version, err);
}

static bool migrate(struct database *db, struct error **err)
{
    int version = version_of(db, err);
    if (version > database_version)
        return error_set(err, 0,
                         "use the catalogue '%s': it is of a newer Ruche (form %d, this one knows %d); use "
                         "that one",
                         db->path, version, database_version),
               false;
    if (version < 0 || version == database_version)
        return version >= 0;
    if (!database_begin(db, err))
        return false;
    version = version_of(db, err); /* another command may have been faster */
    if (version >= 0 && (version >= database_version || migrate_from(db, version, err)) &&
        database_commit(db, err))
        return true;
    database_rollback(db);
    return false;
}

static char *database_path(struct error **err)
{
    cleanup(mem) char *dir = catalog_data_dir(NULL, err);
    return dir ? catalog_format("%s/catalog.db", dir) : NULL;
}

bool database_exists(void)
{
    cleanup(mem) char *path = database_path(NULL);
    return path && access(path, F_OK) == 0;
}

/* For this one step, of a new file, SQLite does not wait for others that are at it. */
static bool use_wal(struct database *db, struct error **err)
{
    static const char sql[] = "PRAGMA journal_mode = WAL";
    for (int waited = 0; waited < BUSY_MS; waited += WAL_POLL_MS) {
        if (sqlite3_exec(db->handle, sql, NULL, NULL, NULL) != SQLITE_BUSY)
            break;
        usleep(WAL_POLL_MS * 1000);
    }
    return execute(db, sql, err);
}

struct database *database_open(struct error **err)
{
    char *path = database_path(err);
    struct database *db = path ? calloc(1, sizeof(*db)) : NULL;
    if (!db) {
        free(path);
        return NULL;
    }
    db->path = path;
    if (sqlite3_open_v2(path, &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK) {
        set_error(db, err);
        database_close(db);
        return NULL;
    }
    /* The file for readers stays, so that machines can be looked at when the disk is full. */
    int keep = 1;
    sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
    sqlite3_busy_timeout(db->handle, BUSY_MS);
    if (execute(db, "PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 0",
                err) &&
        use_wal(db, err) && migrate(db, err))
        return db;
    database_close(db);
    return NULL;
}

void database_close(struct database *db)
{
    if (!db)
        return;
    sqlite3_close(db->handle);
    free(db->path);
    free(db);
}

void database_cleanup(struct database **db)
{
    database_close(*db);
}

bool database_begin(struct database *db, struct error **err)
{
    return execute(db, "BEGIN IMMEDIATE", err);
}

bool database_commit(struct database *db, struct error **err)
{
    return execute(db, "COMMIT", err);
}

void database_rollback(struct database *db)
{
    if (!sqlite3_get_autocommit(db->handle))
        execute(db, "ROLLBACK", NULL);
}

sqlite3_stmt *database_query(struct database *db, const char *sql, const char *const text[], int count,
                             struct error **err)
{
    sqlite3_stmt *s = NULL;
    bool ok = sqlite3_prepare_v2(db->handle, sql, -1, &s, NULL) == SQLITE_OK;
    for (int i = 0; ok && i < count; i++)
        ok = sqlite3_bind_text(s, i + 1, text[i], -1, SQLITE_TRANSIENT) == SQLITE_OK;
    if (ok)
        return s;
    set_error(db, err);
    sqlite3_finalize(s);
    return NULL;
}

int database_step(struct database *db, sqlite3_stmt *statement, struct error **err)
{
    switch (sqlite3_step(statement)) {
    case SQLITE_ROW:
        return 1;
    case SQLITE_DONE:
        return 0;
    default:
        set_error(db, err);
        return -1;
    }
}

bool database_run(struct database *db, const char *sql, const char *const text[], int count,
                  struct error **err)
{
    cleanup(statement) sqlite3_stmt *s = database_query(db, sql, text, count, err);
    return s && database_step(db, s, err) >= 0;
}

char *database_text(sqlite3_stmt *row, int index)
{
    const unsigned char *text = sqlite3_column_text(row, index);
    return text ? catalog_format("%s", (const char *)text) : NULL;
}

void statement_cleanup(sqlite3_stmt **statement)
{
    sqlite3_finalize(*statement);
}
