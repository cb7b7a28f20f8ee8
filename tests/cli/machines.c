/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Units of the catalogue of machines: identities, settings, schemas, the database, locks and states,
 * leftovers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"
#include "base/util.h"
#include "catalog/config.h"
#include "catalog/file.h"
#include "catalog/identity.h"
#include "catalog/machine.h"
#include "catalog/machine_state.h"
#include "catalog/schema.h"

static char folder[] = "/tmp/ruche-machines-XXXXXX";

static json_t *small_config(void)
{
    return json_pack("{s:i, s:i, s:[], s:[], s:s}", "cpus", 1, "memory", 1 << 20, "nets", "disks", "kernel",
                     "/k");
}

/* *err is set and has the words; it is freed. */
static void expect_error(struct error **err, int code, const char *words)
{
    if (!*err || (*err)->code != code || !strstr(error_text(*err), words) || strchr(error_text(*err), '\n'))
        fail_msg("'%s' (code %d), not '%s' (%d)", error_text(*err), *err ? (*err)->code : 0, words, code);
    error_free(*err);
    *err = NULL;
}

static void make(struct database *db, const char *name, struct machine *m)
{
    struct error *err = NULL;
    json_t *config = small_config();
    if (!machine_create(db, name, config, NULL, NULL, m, &err))
        fail_msg("%s", error_text(err));
    json_decref(config);
}

static void test_identities(void **state)
{
    char uuid[2][UUID_TEXT_SIZE], mac[2][MAC_TEXT_SIZE];
    uint8_t bytes[16];
    for (unsigned i = 0; i < 100; i++) {
        assert_true(identity_uuid(uuid[i % 2], NULL) && identity_mac(mac[i % 2], NULL));
        assert_true(parse_uuid(uuid[i % 2], bytes));
        assert_int_equal(bytes[6] >> 4, 4);
        assert_int_equal(bytes[8] >> 6, 2);
        assert_true(parse_mac(mac[i % 2], bytes));
        assert_int_equal(bytes[0] & 3, 2);
    }
    assert_string_not_equal(uuid[0], uuid[1]);
    assert_string_not_equal(mac[0], mac[1]);
}

static void test_settings(void **state)
{
    static const struct {
        const char *key, *text, *json; /* NULL: it is gone */
    } table[] = {
        {"cpus", "4", "4"},
        {"cpus", "0x10", "16"},
        {"memory", "64", "67108864"},
        {"memory", "2G", "2147483648"},
        {"engine", "bt", "\"bt\""},
        {"engine", "", NULL},
        {"autostart", "on", "true"},
        {"autostart", "no", "false"},
        {"kernel", "/a/b", "\"/a/b\""},
        {"cmdline", "a=b c", "\"a=b c\""},
        {"disks", "/a,,b,c", NULL}, /* refused: see below */
        {"disks", "/a,,b,format=raw", "[{\"file\":\"/a,b\",\"format\":\"raw\"}]"},
        {"disks", "/c,readonly",
         "[{\"file\":\"/a,b\",\"format\":\"raw\"},{\"file\":\"/c\",\"readonly\":true}]"},
        {"modules", "/m x", "[\"/m x\"]"},
        {"devices", "virtio-rng", "[\"virtio-rng\"]"},
    };
    json_t *config = json_object();
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        struct error *err = NULL;
        bool ok = config_set(config, table[i].key, table[i].text, &err);
        cleanup(mem) char *text = json_dumps(json_object_get(config, table[i].key),
                                             JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
        if (!ok)
            expect_error(&err, EINVAL, "disks: 'c' is no setting");
        else if (table[i].json ? !text || strcmp(text, table[i].json) != 0 : text != NULL)
            fail_msg("%s=%s gives %s", table[i].key, table[i].text, text);
    }
    struct error *err = NULL;
    assert_false(config_set(config, "cpus", "many", &err));
    expect_error(&err, EINVAL, "cpus: 'many' is no number");
    assert_false(config_set(config, "memory", "99999999T", &err));
    expect_error(&err, EINVAL, "memory: '99999999T' is no size");
    assert_false(config_set(config, "cmdline", "\xff", &err));
    expect_error(&err, EINVAL, "UTF-8");
    assert_false(config_set(config, "colour", "red", &err));
    expect_error(&err, EINVAL, "no setting 'colour'");
    json_decref(config);
}

/* The card's address stays when its back end changes, and may be chosen. */
static void test_net_settings(void **state)
{
    json_t *config = small_config();
    assert_true(config_add_net(config, "user", NULL));
    assert_true(config_add_net(config, "user,mac=02:00:00:00:00:01,restrict=on", NULL));
    const json_t *nets = json_object_get(config, "nets");
    assert_string_equal(json_string_value(json_object_get(json_array_get(nets, 1), "mac")),
                        "02:00:00:00:00:01");
    assert_string_equal(json_string_value(json_object_get(json_array_get(nets, 1), "backend")),
                        "user,restrict=on");
    cleanup(mem) char *mac =
        catalog_format("%s", json_string_value(json_object_get(json_array_get(nets, 0), "mac")));
    assert_true(config_set(config, "net", "user,hostname=x", NULL));
    nets = json_object_get(config, "nets");
    assert_int_equal(json_array_size(nets), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(nets, 0), "mac")), mac);
    assert_true(config_check(config, NULL));
    assert_true(config_set(config, "net", "none", NULL));
    assert_int_equal(json_array_size(json_object_get(config, "nets")), 0);
    json_decref(config);
}

/* A keyword that is not known would be a check that cannot refuse. */
static void test_unknown_keywords(void **state)
{
    static const char *const bad[] = {"{\"const\": 1}", "{\"additionalProperties\": true}",
                                      "{\"pattern\": \"[\"}",
                                      "{\"properties\": {\"a\": {\"format\": \"uuid\"}}}"};
    json_t *value = json_pack("{s:i}", "a", 1), *text = json_string("x");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error *err = NULL;
        json_t *schema = json_loads(bad[i], 0, NULL);
        assert_false(schema_check(schema, i == 2 ? text : value, &err));
        expect_error(&err, EINVAL, "the schema");
        json_decref(schema);
    }
    json_decref(value);
    json_decref(text);
}

static void test_rows(void **state)
{
    struct error *err = NULL;
    struct machine a, b, c, found;
    cleanup(database) struct database *db = database_open(&err);
    assert_non_null(db);
    make(db, "alpha", &a);
    make(db, "beta", &b);
    json_t *config = small_config();
    assert_false(machine_create(db, "alpha", config, NULL, NULL, &c, &err));
    expect_error(&err, EEXIST, "'alpha'");
    assert_false(machine_create(db, "a/b", config, NULL, NULL, &c, &err));
    expect_error(&err, EINVAL, "no name");
    json_object_set_new(config, "cpus", json_integer(99));
    assert_false(machine_create(db, "gamma", config, NULL, NULL, &c, &err));
    expect_error(&err, EINVAL, "cpus: 99");
    json_decref(config);

    assert_true(machine_find(db, "al", &found, NULL));
    assert_string_equal(found.uuid, a.uuid);
    assert_true(json_equal(found.config, a.config));
    machine_release(&found);
    assert_false(machine_find(db, "gamma", &found, &err));
    expect_error(&err, ENOENT, "ruche ls -a");
    json_object_set_new(a.config, "cpus", json_integer(2));
    assert_true(machine_update(db, &a, NULL) && machine_rename(db, &a, "betamax", NULL));
    assert_false(machine_rename(db, &a, "beta", &err));
    expect_error(&err, EEXIST, "'beta'");
    assert_true(machine_find(db, a.uuid, &found, NULL));
    assert_string_equal(found.name, "betamax");
    assert_int_equal(json_integer_value(json_object_get(found.config, "cpus")), 2);
    machine_release(&found);
    assert_true(machine_find(db, "beta", &found, NULL)); /* although it begins another one */
    assert_string_equal(found.uuid, b.uuid);
    machine_release(&found);
    assert_false(machine_find(db, "bet", &found, &err));
    expect_error(&err, EINVAL, "'beta' or 'betamax'");

    struct machine *list;
    size_t count;
    assert_true(machine_list(db, &list, &count, NULL));
    assert_int_equal(count, 2);
    assert_string_equal(list[1].name, "betamax");
    machine_list_free(list, count);
    assert_true(machine_remove(db, &a, NULL) && machine_remove(db, &b, NULL));
    assert_int_equal(access(a.dir, F_OK), -1);
    machine_release(&a);
    machine_release(&b);
}

/* What is not committed is not there; another connection sees the state before. */
static void test_transactions(void **state)
{
    struct machine m, found;
    cleanup(database) struct database *db = database_open(NULL), *other = database_open(NULL);
    make(db, "one", &m);
    assert_true(database_begin(db, NULL) && machine_rename(db, &m, "two", NULL));
    assert_true(machine_find(other, "one", &found, NULL));
    machine_release(&found);
    database_rollback(db);
    assert_true(machine_find(db, "one", &found, NULL));
    machine_release(&found);
    assert_true(machine_remove(db, &m, NULL));
    machine_release(&m);
}

static void test_leftovers(void **state)
{
    static const char *const uuids[] = {"00000000-0000-4000-8000-000000000001",
                                        "00000000-0000-4000-8000-000000000002"};
    struct machine m, other[2] = {0};
    cleanup(database) struct database *db = database_open(NULL);
    make(db, "one", &m);
    for (unsigned i = 0; i < 2; i++) {
        other[i].dir = catalog_format("%s/ruche/machines/%s", folder, uuids[i]);
        assert_int_equal(mkdir(other[i].dir, 0700), 0);
    }
    int lock = machine_lock(&other[1], NULL);
    assert_true(lock >= 0);
    machine_sweep(db);
    assert_int_equal(access(m.dir, F_OK), 0);
    assert_int_equal(access(other[0].dir, F_OK), -1);
    assert_int_equal(access(other[1].dir, F_OK), 0); /* a process still has to do with it */
    close(lock);
    machine_sweep(db);
    assert_int_equal(access(other[1].dir, F_OK), -1);
    assert_true(machine_remove(db, &m, NULL));
    machine_release(&m);
    for (unsigned i = 0; i < 2; i++)
        machine_release(&other[i]);
}

static void test_lock_and_state(void **state)
{
    struct error *err = NULL;
    struct machine m;
    struct machine_state s, read = {.life = MACHINE_ENDED};
    cleanup(database) struct database *db = database_open(NULL);
    make(db, "one", &m);
    machine_state_read(&m, &read);
    assert_int_equal(read.life, MACHINE_NEVER);
    int lock = machine_lock(&m, NULL);
    assert_true(machine_is_live(&m));
    assert_int_equal(machine_lock(&m, &err), -1);
    expect_error(&err, EBUSY, m.dir);
    machine_state_read(&m, &read);
    assert_int_equal(read.life, MACHINE_STARTING);

    s = (struct machine_state){.life = MACHINE_RUNNING,
                               .pid = 77,
                               .keeper = 78,
                               .since = 1234567890123,
                               .control = "/c",
                               .serial = "/s"};
    assert_true(machine_state_write(&m, &s, NULL));
    machine_state_read(&m, &read);
    assert_int_equal(read.life, MACHINE_RUNNING);
    assert_int_equal(read.pid, 77);
    assert_int_equal(read.keeper, 78);
    assert_int_equal(read.since, 1234567890123);
    assert_string_equal(read.control, "/c");
    assert_string_equal(read.serial, "/s");
    /* A start whose keeper is gone: nobody would say any more that it has succeeded. */
    pid_t gone = fork();
    if (gone == 0)
        _exit(0);
    waitpid(gone, NULL, 0);
    for (unsigned i = 0; i < 2; i++) {
        s.life = MACHINE_STARTING;
        s.keeper = i ? gone : getpid();
        assert_true(machine_state_write(&m, &s, NULL));
        machine_state_read(&m, &read);
        assert_int_equal(read.life, i ? MACHINE_RUNNING : MACHINE_STARTING);
    }

    /* It is inherited, and free once the last process is gone. */
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    close(lock);
    assert_true(machine_is_live(&m));
    assert_false(machine_wait_end(&m, 0));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_true(machine_wait_end(&m, -1));
    machine_state_read(&m, &read);
    assert_int_equal(read.life, MACHINE_VANISHED);
    assert_int_equal(read.pid, 0);
    assert_true(machine_died(&read));
    assert_true(machine_remove(db, &m, NULL));
    machine_release(&m);
}

static void test_ends(void **state)
{
    static const struct {
        bool killed;
        int status;
        const char *reason;
        bool died;
        const char *text;
    } table[] = {
        {false, 0, "x", false, "the guest powered off"},
        {false, 130, "", false, "was ended"},
        {false, 7, "", false, "exit status 7"},
        {false, 125, "no disk", true, "no disk"},
        {false, 2, "no such device", true, "no such device"},
        {false, 125, "", true, "exit status 125"},
        {false, 126, "", true, "the guest crashed"},
        {true, 11, "oops", true, "killed by signal 11 (Segmentation fault): oops"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        char text[128];
        struct machine_state s = {
            .life = MACHINE_ENDED, .killed = table[i].killed, .status = table[i].status};
        snprintf(s.reason, sizeof(s.reason), "%s", table[i].reason);
        machine_end_text(&s, text, sizeof(text));
        assert_string_equal(text, table[i].text);
        assert_int_equal(machine_died(&s), table[i].died);
    }
}

static int make_folder(void **state)
{
    return mkdtemp(folder) && setenv("XDG_DATA_HOME", folder, 1) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
    return catalog_remove_tree(folder, NULL) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identities),   cmocka_unit_test(test_settings),
        cmocka_unit_test(test_net_settings), cmocka_unit_test(test_unknown_keywords),
        cmocka_unit_test(test_rows),         cmocka_unit_test(test_transactions),
        cmocka_unit_test(test_leftovers),    cmocka_unit_test(test_lock_and_state),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
