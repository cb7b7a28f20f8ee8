/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The catalogue's database: one SQLite file, catalog.db in catalog_data_dir(NULL), in WAL mode, so that
 * readers and a writer do not wait for each other and a process may die at any instant. The form of its
 * tables has a number; an older one is brought up to date on opening, a newer one refused. One thread; not
 * across fork.
 */
#ifndef CATALOG_DATABASE_H
#define CATALOG_DATABASE_H

#include <sqlite3.h>
#include <stdbool.h>

struct error;
struct database;

/* The number of the tables' form. */
extern const int database_version;

/* Makes it when there is none. NULL and *err on failure. */
struct database *database_open(struct error **err);
/* NULL is fine. What was begun and not committed is undone. */
void database_close(struct database *db);
void database_cleanup(struct database **db); /* for `cleanup(database)` */

/* Whether there is one, without making it. */
bool database_exists(void);

/* A transaction that writes: nobody else does until its end. */
bool database_begin(struct database *db, struct error **err);
bool database_commit(struct database *db, struct error **err);
/* Harmless without a transaction. */
void database_rollback(struct database *db);

/* A statement with `sql`; its parameters ?1, ?2, ... get the texts, as far as they are not NULL. The caller
 * finalizes it. NULL and *err on failure. */
sqlite3_stmt *database_query(struct database *db, const char *sql, const char *const text[], int count,
                             struct error **err);
/* 1: a row, 0: done, -1: *err. */
int database_step(struct database *db, sqlite3_stmt *statement, struct error **err);
/* Both at once, for statements without rows. The code of *err is EEXIST for what is there already, ENOSPC
 * when the disk is full. */
bool database_run(struct database *db, const char *sql, const char *const text[], int count,
                  struct error **err);

/* A column of the row that the statement is at; owned by the caller. NULL stays NULL. */
char *database_text(sqlite3_stmt *row, int index);

/* For `cleanup(statement)`. */
void statement_cleanup(sqlite3_stmt **statement);

#endif
