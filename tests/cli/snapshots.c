/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Units of the catalogue of snapshots: rows, layers, leftovers, an older catalogue. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "catalog/file.h"
#include "catalog/layers.h"
#include "catalog/overlay.h"
#include "small_machine.h"

/* Takes one of a machine that does not run. */
static void take(struct database *db, struct machine *m, const char *name)
{
    struct error *err = NULL;
    struct snapshot s = {0};
    cleanup(mem) char *layer = layers_new(m, m->disk, &err);
    bool ok = layer && snapshot_prepare(m, name, "words", &s, &err);
    s.disk = catalog_format("%s", m->disk);
    if (!ok || !snapshot_add(db, m, &s, layer, &err))
        fail_msg("%s", error_text(err));
    snapshot_release(&s);
    small_again(db, m);
}

static void test_tree(void **state)
{
    struct machine m = {0};
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    assert_string_equal(m.disk, "disk.qcow2");
    assert_null(m.snapshot);
    take(db, &m, "one");
    take(db, &m, "two");
    take(db, &m, "three");
    cleanup(snapshot_list) struct snapshot_list list = {0};
    assert_true(snapshot_list(db, &m, &list, NULL));
    assert_int_equal(list.n, 3);
    assert_null(list.v[0].parent);
    assert_string_equal(list.v[1].parent, list.v[0].id);
    assert_string_equal(list.v[0].disk, "disk.qcow2");
    assert_string_equal(list.v[2].description, "words");
    assert_string_equal(m.snapshot, list.v[2].id);
    assert_null(snapshot_named(&list, "four"));

    /* The second goes: the third comes after the first then. */
    assert_true(snapshot_remove(db, &m, snapshot_named(&list, "two"), NULL));
    assert_true(snapshot_remove(db, &m, snapshot_named(&list, "three"), NULL));
    small_again(db, &m);
    assert_string_equal(m.snapshot, list.v[0].id);
    assert_true(snapshot_go_back(db, &m, &list.v[0], "elsewhere", true, NULL));
    struct machine before = {.uuid = m.uuid, .disk = m.disk};
    assert_true(snapshot_resumed(db, &before, NULL)); /* that was not this going back */
    small_again(db, &m);
    assert_true(m.resume);
    assert_string_equal(m.disk, "elsewhere");
    assert_true(snapshot_resumed(db, &m, NULL));
    small_again(db, &m);
    assert_false(m.resume);

    /* A new snapshot is where it is then, whatever was to be gone on from. */
    assert_true(snapshot_go_back(db, &m, &list.v[0], "disk.qcow2", true, NULL));
    small_again(db, &m);
    take(db, &m, "four");
    assert_false(m.resume);
    small_remove(db, &m);
}

static void test_one_name_once(void **state)
{
    struct machine m = {0};
    struct snapshot s;
    struct error *err = NULL;
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    take(db, &m, "one");
    assert_true(snapshot_prepare(&m, "one", "", &s, NULL));
    s.disk = catalog_format("%s", m.disk);
    assert_false(snapshot_add(db, &m, &s, "other", &err));
    assert_int_equal(err->code, EEXIST);
    error_free(err);
    snapshot_release(&s);
    cleanup(mem) char *disk = catalog_format("%s", m.disk);
    small_again(db, &m);
    assert_string_equal(m.disk, disk);
    small_remove(db, &m);
}

static void test_layers(void **state)
{
    struct machine m = {0};
    struct layers l;
    const char *above = NULL;
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    take(db, &m, "one");
    small_touch(&m);
    take(db, &m, "two");
    small_touch(&m);
    small_load(db, &m, &l);
    assert_int_equal(l.current.n, 3);
    assert_int_equal(l.frozen.n, 2);
    assert_string_equal(l.current.v[0], m.disk);
    assert_true(layers_on_current(&l, "disk.qcow2"));
    assert_int_equal(layers_above(&l, "disk.qcow2", &above), 1);
    assert_string_equal(above, l.snapshots.v[1].disk);
    assert_int_equal(layers_above(&l, m.disk, &above), 0);
    assert_null(layers_surplus(&l, true, &above));

    /* Without the first snapshot its layer is more than is needed. */
    assert_true(snapshot_remove(db, &m, &l.snapshots.v[0], NULL));
    layers_cleanup(&l);
    small_load(db, &m, &l);
    assert_string_equal(layers_surplus(&l, true, &above), "disk.qcow2");
    assert_string_equal(above, l.snapshots.v[0].disk);
    assert_null(layers_surplus(&l, false, &above)); /* the machine may run on it */
    layers_cleanup(&l);
    small_remove(db, &m);
}

static void test_leftovers(void **state)
{
    struct machine m = {0};
    struct layers l;
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    take(db, &m, "one");
    small_touch(&m);
    cleanup(mem) char *spare = layers_new(&m, m.disk, NULL);
    cleanup(mem) char *all = catalog_format("%s/snapshots", m.dir);
    cleanup(mem) char *gone = catalog_format("%s/gone", all);
    assert_int_equal(mkdir(all, 0700), 0);
    assert_int_equal(mkdir(gone, 0700), 0);
    small_load(db, &m, &l);
    cleanup(mem) char *kept = catalog_format("%s/%s", all, l.snapshots.v[0].id);
    assert_int_equal(mkdir(kept, 0700), 0);
    assert_true(layers_sweep(&l, NULL));
    layers_cleanup(&l);
    assert_false(small_has(&m, spare));
    assert_int_equal(access(gone, F_OK), -1);
    assert_int_equal(access(kept, F_OK), 0);
    assert_true(small_has(&m, "disk.qcow2") && small_has(&m, m.disk));

    /* While what stands on what cannot be told nothing is removed. */
    cleanup(mem) char *first = layer_path(&m, "disk.qcow2");
    cleanup(mem) char *away = layer_path(&m, "away");
    struct error *err = NULL;
    assert_int_equal(rename(first, away), 0);
    assert_false(layers_load(db, &m, &l, &err));
    assert_non_null(strstr(error_text(err), first));
    error_free(err);
    assert_int_equal(rename(away, first), 0);
    small_remove(db, &m);
}

static void test_untouched_top(void **state)
{
    struct machine m = {0};
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    take(db, &m, "one");
    cleanup(mem) char *top = catalog_format("%s", m.disk);
    /* It is on a snapshot's layer, which must not be written to. */
    assert_true(layers_drop_untouched(db, &m, NULL));
    assert_string_equal(m.disk, top);
    /* Two on top of it: one that was never written to goes, another stays. */
    small_touch(&m);
    for (unsigned touched = 0; touched < 2; touched++) {
        cleanup(mem) char *layer = layers_new(&m, m.disk, NULL);
        assert_true(layers_set_top(db, &m, layer, NULL));
        small_again(db, &m);
        if (touched)
            small_touch(&m);
        assert_true(layers_drop_untouched(db, &m, NULL));
        small_again(db, &m);
        assert_string_equal(m.disk, touched ? layer : top);
        assert_int_equal(small_has(&m, layer), touched);
    }
    small_remove(db, &m);
}

static void test_lock(void **state)
{
    struct machine m = {0};
    struct error *err = NULL;
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    int lock = layers_lock(&m, NULL);
    assert_true(lock >= 0);
    assert_int_equal(layers_lock(&m, &err), -1);
    assert_int_equal(err->code, EBUSY);
    error_free(err);
    close(lock);
    lock = layers_lock(&m, NULL);
    assert_true(lock >= 0);
    close(lock);
    small_remove(db, &m);
}

/* A catalogue from before there were snapshots. */
static void test_older_form(void **state)
{
    char path[128];
    sqlite3 *old;
    struct machine m = {0};
    snprintf(path, sizeof(path), "%s/ruche/catalog.db", small_folder);
    for (unsigned i = 0; i < 3; i++) {
        static const char *const ends[] = {"", "-wal", "-shm"};
        cleanup(mem) char *part = catalog_format("%s%s", path, ends[i]);
        unlink(part);
    }
    assert_int_equal(sqlite3_open(path, &old), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(
            old,
            "CREATE TABLE machine (uuid TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, created "
            "TEXT NOT NULL, config TEXT NOT NULL) STRICT; PRAGMA user_version = 1; INSERT INTO machine "
            "VALUES ('11111111-1111-4111-8111-111111111111', 'old', '2026-01-31T12:00:00Z', "
            "'{\"cpus\":1,\"memory\":1048576,\"nets\":[],\"disks\":[],\"kernel\":\"/k\"}')",
            NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(old);
    cleanup(database) struct database *db = database_open(NULL);
    assert_non_null(db);
    assert_true(machine_find(db, "old", &m, NULL));
    assert_string_equal(m.disk, "disk.qcow2");
    assert_null(m.snapshot);
    assert_false(m.resume);
    machine_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),       cmocka_unit_test(test_one_name_once),
        cmocka_unit_test(test_layers),     cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_lock),       cmocka_unit_test(test_untouched_top),
        cmocka_unit_test(test_older_form),
    };
    return cmocka_run_group_tests(tests, small_folder_make, small_folder_remove);
}
