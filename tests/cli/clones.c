/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Units of clones in the catalogue: settings, shared layers, leftovers, one transaction, seeds. */
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
#include "catalog/clone.h"
#include "catalog/file.h"
#include "catalog/overlay.h"
#include "small_machine.h"

static void begin(struct database *db, const struct machine *of, const char *name, struct clone *c)
{
    struct error *err = NULL;
    if (!clone_begin(db, name, of->config, c, &err))
        fail_msg("%s", error_text(err));
}

/* A clone of the machine's top, which then is no longer its top. */
static void make_clone(struct database *db, struct machine *of, const char *name, struct machine *clone)
{
    struct clone c;
    struct error *err = NULL;
    cleanup(mem) char *top = layers_new(of, of->disk, &err);
    begin(db, of, name, &c);
    if (!top || !clone_share_disk(&c, of, of->disk, &err) || !clone_commit(db, &c, 1, of, top, &err))
        fail_msg("%s", error_text(err));
    clone_let_go(&c, false);
    *clone = c.m;
    small_again(db, of);
    small_again(db, clone);
}

static nlink_t links(const struct machine *m, const char *name)
{
    cleanup(mem) char *path = layer_path(m, name);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_nlink;
}

static void test_settings(void **state)
{
    static const struct {
        const char *backend, *clone;
        unsigned forwards;
    } table[] = {
        {"user", "user", 0},
        {"user,forward=tcp:1:2", "user", 1},
        {"user,hostname=a,forward=tcp:1:2,restrict=on,forward=udp:3:4", "user,hostname=a,restrict=on", 2},
        {"user,forward=tcp:1:2,hostname=a", "user,hostname=a", 1},
        {"none", "none", 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        unsigned forwards = 0;
        json_t *config =
            json_pack("{s:[{s:s,s:s}]}", "nets", "mac", "02:00:00:00:00:01", "backend", table[i].backend);
        json_t *clone = clone_config(config, &forwards, NULL);
        const char *mac = NULL, *backend = NULL;
        assert_int_equal(json_unpack(clone, "{s:[{s:s,s:s}]}", "nets", "mac", &mac, "backend", &backend), 0);
        assert_string_equal(backend, table[i].clone);
        assert_string_not_equal(mac, "02:00:00:00:00:01");
        assert_int_equal(forwards, table[i].forwards);
        json_decref(config);
        json_decref(clone);
    }
}

static void test_shared_layers(void **state)
{
    struct machine m = {0}, clone = {0};
    struct layers l;
    const char *above;
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    small_touch(&m);
    make_clone(db, &m, "copy", &clone);
    assert_int_equal(links(&m, "disk.qcow2"), 2);
    assert_string_not_equal(clone.uuid, m.uuid);
    small_load(db, &clone, &l);
    assert_int_equal(l.current.n, 2);
    assert_string_equal(l.current.v[1], "disk.qcow2");
    assert_null(layers_surplus(&l, true, &above)); /* it is shared */
    layers_cleanup(&l);

    /* An untouched top stays on a layer that another machine needs, and goes once it does not. */
    cleanup(mem) char *top = catalog_format("%s", m.disk);
    assert_true(layers_drop_untouched(db, &m, NULL));
    assert_string_equal(m.disk, top);
    cleanup(mem) char *base = machine_disk(&clone);
    cleanup(mem) char *name = overlay_base(base, NULL);
    assert_string_equal(name, "disk.qcow2");
    small_remove(db, &clone);
    assert_int_equal(links(&m, "disk.qcow2"), 1);
    assert_true(layers_drop_untouched(db, &m, NULL));
    assert_string_equal(m.disk, "disk.qcow2");
    small_remove(db, &m);
}

/* What a layer names by a path would be gone with the machine. */
static void test_layer_by_path(void **state)
{
    struct machine m = {0};
    struct clone c;
    struct error *err = NULL;
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    cleanup(mem) char *below = machine_disk(&m);
    cleanup(mem) char *above = layer_path(&m, "disk-above.qcow2");
    assert_true(overlay_create(above, below, NULL));
    begin(db, &m, "copy", &c);
    assert_false(clone_share_disk(&c, &m, "disk-above.qcow2", &err));
    assert_non_null(strstr(error_text(err), "by its path"));
    error_free(err);
    clone_let_go(&c, true);
    machine_release(&c.m);
    small_remove(db, &m);
}

/* The machine goes, its clone has all that it needs. */
static void test_machine_removed(void **state)
{
    struct machine m = {0}, clone = {0};
    struct layers l;
    const char *above;
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    small_touch(&m);
    make_clone(db, &m, "copy", &clone);
    small_remove(db, &m);
    small_load(db, &clone, &l);
    assert_int_equal(l.current.n, 2);
    assert_string_equal(layers_surplus(&l, true, &above), "disk.qcow2");
    layers_cleanup(&l);
    small_remove(db, &clone);
}

/* A memory is gone on from on its untouched top, whoever else has the layers. */
static void test_memory(void **state)
{
    struct machine m = {0}, clone = {0};
    struct clone c;
    struct layers l;
    struct error *err = NULL;
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    cleanup(mem) char *saved = layer_path(&m, "saved");
    FILE *f = fopen(saved, "w");
    assert_non_null(f);
    fclose(f);
    begin(db, &m, "copy", &c);
    assert_true(clone_share_memory(&c, saved, &err) && clone_share_disk(&c, &m, m.disk, &err));
    assert_true(clone_commit(db, &c, 1, &m, NULL, &err));
    clone_let_go(&c, false);
    clone = c.m;
    small_again(db, &clone);
    small_remove(db, &m);
    assert_true(clone.resume);
    assert_null(clone.snapshot);
    cleanup(mem) char *top = catalog_format("%s", clone.disk);
    assert_true(layers_drop_untouched(db, &clone, NULL));
    assert_string_equal(clone.disk, top);
    for (unsigned resumed = 0; resumed < 2; resumed++) {
        small_load(db, &clone, &l);
        assert_true(layers_sweep(&l, NULL));
        layers_cleanup(&l);
        assert_int_equal(small_has(&clone, "memory"), !resumed);
        assert_true(snapshot_resumed(db, &clone, NULL));
        small_again(db, &clone);
    }
    small_remove(db, &clone);
}

/* All or none, and the machine's top with them. */
static void test_one_transaction(void **state)
{
    struct machine m = {0}, found = {0};
    struct clone c[2];
    struct error *err = NULL;
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    begin(db, &m, "one", &c[0]);
    begin(db, &m, "two", &c[1]);
    free(c[1].m.name);
    c[1].m.name = catalog_format("web"); /* another command was faster */
    assert_false(clone_commit(db, c, 2, &m, "elsewhere", &err));
    assert_int_equal(err->code, EEXIST);
    error_free(err);
    assert_false(machine_find(db, "one", &found, NULL));
    small_again(db, &m);
    assert_string_equal(m.disk, "disk.qcow2");
    for (unsigned i = 0; i < 2; i++) {
        clone_let_go(&c[i], true);
        assert_int_equal(access(c[i].m.dir, F_OK), -1);
        machine_release(&c[i].m);
    }
    err = NULL;
    assert_false(clone_begin(db, "web", m.config, &c[0], &err));
    assert_int_equal(err->code, EEXIST);
    error_free(err);
    small_remove(db, &m);
}

/* A folder is no leftover while its maker lives. */
static void test_leftovers(void **state)
{
    struct machine m = {0};
    struct clone c;
    cleanup(database) struct database *db = database_open(NULL);
    small_make(db, &m);
    begin(db, &m, "copy", &c);
    machine_sweep(db);
    assert_int_equal(access(c.m.dir, F_OK), 0);
    clone_let_go(&c, false);
    machine_sweep(db);
    assert_int_equal(access(c.m.dir, F_OK), -1);
    machine_release(&c.m);
    small_remove(db, &m);
}

static void test_seed(void **state)
{
    static const char old[] = "11111111-1111-4111-8111-111111111111",
                      new[] = "22222222-2222-4222-8222-222222222222";
    struct seed seed = {0};
    struct error *err = NULL;
    char text[8192 + 1] = "";
    cleanup(mem) char *from = catalog_format("%s/from", small_folder);
    cleanup(mem) char *to = catalog_format("%s/to", small_folder);
    cleanup(mem) char *again = catalog_format("%s/again", small_folder);
    assert_true(seed_set(&seed, "hostname", "first", NULL));
    assert_true(seed_write(&seed, "web", old, from, NULL));
    seed_release(&seed);
    assert_true(seed_copy(from, old, "a-much-longer-name", new, to, NULL));
    cleanup(fd) int fd = open(to, O_RDONLY | O_CLOEXEC);
    struct stat before, after;
    assert_int_equal(stat(from, &before) | fstat(fd, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    unsigned found = 0;
    for (off_t at = 0; pread(fd, text, 2048, at) > 0; at += 2048)
        if (text[0] == '{') {
            assert_non_null(strstr(text, new));
            assert_non_null(strstr(text, "\"a-much-longer-name\""));
            assert_null(strstr(text, old));
            found++;
        }
    assert_int_equal(found, 1);
    assert_false(seed_copy(from, new, "x", old, again, &err)); /* it is not that machine's */
    assert_int_equal(err->code, EINVAL);
    error_free(err);
    assert_int_equal(access(again, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings),        cmocka_unit_test(test_shared_layers),
        cmocka_unit_test(test_machine_removed), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_one_transaction), cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_layer_by_path),   cmocka_unit_test(test_seed),
    };
    return cmocka_run_group_tests(tests, small_folder_make, small_folder_remove);
}
