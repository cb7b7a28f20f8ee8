/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP without sockets: how a byte stream is cut into messages, and what each message is answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "qmp_fake.h"
#include "vmm/qmp_message.h"

static void scan_finds_ends(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } table[] = {
        {"{}", 2},          {"{}{}", 2},    {"[1,2]x", 5},        {"{\"a\":{\"b\":[1]}} ", 15},
        {"{", 0},           {"{\"}\"", 0},  {"{\"a\":\"}\"}", 9}, {"{\"\\\"}\"}", 7},
        {"garbage\n{}", 8}, {"garbage", 0}, {"}\n", 2},           {"{\"open\n}", 7},
        {"{]", 2},          {"{\n}", 3},    {"{\"\\\\\"}", 6},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        struct qmp_scan s = {0};
        if (qmp_scan(&s, table[i].text, strlen(table[i].text)) != table[i].len)
            fail_msg("'%s'", table[i].text);
        /* The same a byte at a time. */
        size_t found = 0;
        s = (struct qmp_scan){0};
        for (size_t n = 1; n <= strlen(table[i].text) && !found; n++)
            found = qmp_scan(&s, table[i].text, n);
        assert_int_equal(found, table[i].len);
    }
}

/* Answers in a session that has negotiated already (unless told), and compares the reply's text. */
static void expect(bool negotiated, const char *request, const char *reply)
{
    struct fake_machine fake = {.running = true};
    json_t *o = qmp_answer(&fake_ops, &fake, request, strlen(request), &negotiated);
    assert_non_null(o);
    char *text = json_dumps(o, JSON_SORT_KEYS);
    if (!strstr(text, reply))
        fail_msg("'%s' is answered '%s', not '%s'", request, text, reply);
    free(text);
    json_decref(o);
}

static void errors(void **state)
{
    expect(
        true, "{\"execute\": \"frob\"}",
        "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command frob has not been found\"}}");
    expect(true, "nonsense\n", "\"class\": \"GenericError\", \"desc\": \"JSON parse error");
    expect(true, "[]", "QMP input must be a JSON object");
    expect(true, "{}", "QMP input lacks member 'execute'");
    expect(true, "{\"execute\": 1}", "QMP input member 'execute' must be a string");
    expect(true, "{\"execute\": \"stop\", \"x\": 1}", "QMP input member 'x' is unexpected");
    expect(true, "{\"execute\": \"stop\", \"arguments\": 1}",
           "QMP input member 'arguments' must be an object");
    expect(true, "{\"execute\": \"stop\", \"arguments\": {\"y\": 1}}", "Parameter 'y' is unexpected");
}

static void negotiation(void **state)
{
    expect(false, "{\"execute\": \"query-status\"}",
           "Expecting capabilities negotiation with 'qmp_capabilities'");
    expect(false, "{\"execute\": \"qmp_capabilities\"}", "{\"return\": {}}");
    expect(false, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": []}}", "{\"return\": {}}");
    expect(false, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}",
           "GenericError");
    expect(true, "{\"execute\": \"qmp_capabilities\"}", "Capabilities negotiation is already complete");
}

static void id_is_echoed(void **state)
{
    expect(true, "{\"execute\": \"query-status\", \"id\": {\"a\": [1]}}", "\"id\": {\"a\": [1]}");
    expect(true, "{\"execute\": \"frob\", \"id\": 7}", "\"id\": 7");
    expect(true, "{\"id\": \"x\"}", "\"id\": \"x\"");
}

static void queries(void **state)
{
    expect(true, "{\"execute\": \"query-version\"}", "\"qemu\": {\"major\": ");
    expect(true, "{\"execute\": \"query-commands\"}", "{\"name\": \"query-cpus-fast\"}");
    expect(true, "{\"execute\": \"query-commands\"}", "{\"name\": \"qmp_capabilities\"}");
    expect(true, "{\"execute\": \"query-status\"}",
           "{\"return\": {\"running\": true, \"singlestep\": false, \"status\": \"running\"}}");
    expect(
        true, "{\"execute\": \"query-cpus-fast\"}",
        "{\"cpu-index\": 1, \"props\": {\"core-id\": 1, \"socket-id\": 0, \"thread-id\": 0}, \"qom-path\": "
        "\"/machine/unattached/device[1]\", \"target\": \"x86_64\", \"thread-id\": 101}");
    expect(true, "{\"execute\": \"query-block\"}", "\"device\": \"disk0\"");
    expect(true, "{\"execute\": \"query-block\"}", "\"virtual-size\": 1073741824");
    expect(true, "{\"execute\": \"query-block\"}", "\"ro\": true");
    expect(true, "{\"execute\": \"query-chardev\"}",
           "{\"return\": [{\"filename\": \"unix:/x\", \"frontend-open\": true, \"label\": \"serial0\"}]}");
}

static void statistics(void **state)
{
#define STATS "{\"execute\": \"query-stats\", \"arguments\": {"
    expect(true, STATS "\"target\": \"vcpu\"}}",
           "[{\"provider\": \"bt\", \"qom-path\": \"/machine/unattached/device[0]\", \"stats\": "
           "[{\"name\": \"translations\", \"value\": 7}, {\"name\": \"halt-cycles\", \"value\": 9}]}, ");
    expect(true,
           STATS "\"target\": \"vcpu\", \"vcpus\": [\"/machine/unattached/device[1]\"], "
                 "\"providers\": [{\"provider\": \"bt\", \"names\": [\"translations\"]}]}}",
           "{\"return\": [{\"provider\": \"bt\", \"qom-path\": \"/machine/unattached/device[1]\", "
           "\"stats\": [{\"name\": \"translations\", \"value\": 8}]}]}");
    expect(true, STATS "\"target\": \"vcpu\", \"providers\": [{\"provider\": \"kvm\"}]}}",
           "{\"return\": []}");
    expect(true, STATS "\"target\": \"vm\"}}", "{\"return\": []}");
    expect(true, STATS "\"target\": \"host\"}}", "expects 'vm' or 'vcpu'");
    expect(true, "{\"execute\": \"query-stats\"}", "expects 'vm' or 'vcpu'");
    expect(true, STATS "\"target\": \"vcpu\", \"vcpus\": 1}}", "'vcpus' expects an array");
    expect(true, STATS "\"target\": \"vcpu\", \"targets\": 1}}", "Parameter 'targets' is unexpected");
    expect(true, "{\"execute\": \"query-stats-schemas\"}",
           "{\"return\": [{\"provider\": \"bt\", \"stats\": [{\"exponent\": 0, \"name\": \"translations\", "
           "\"type\": \"cumulative\"}, {\"exponent\": 0, \"name\": \"halt-cycles\", \"type\": "
           "\"cumulative\", \"unit\": \"cycles\"}], \"target\": \"vcpu\"}]}");
    expect(true, "{\"execute\": \"query-stats-schemas\", \"arguments\": {\"provider\": \"kvm\"}}",
           "{\"return\": []}");
}

static void saving(void **state)
{
    struct fake_machine fake = {.running = true};
    bool negotiated = true;
    const char *request = "{\"execute\": \"ruche-save\", \"arguments\": {\"path\": \"/x/y\"}}";

    json_decref(qmp_answer(&fake_ops, &fake, request, strlen(request), &negotiated));
    assert_string_equal(fake.calls, "save /x/y");
    expect(true, request, "{\"return\": {}}");
    expect(true, "{\"execute\": \"ruche-save\"}", "wants the argument 'path'");
    expect(true, "{\"execute\": \"ruche-save\", \"arguments\": {\"path\": \"x\"}}", "an absolute file name");
    expect(true, "{\"execute\": \"ruche-save\", \"arguments\": {\"path\": 1}}", "wants the argument 'path'");
    expect(true, "{\"execute\": \"ruche-save\", \"arguments\": {\"path\": \"/x\", \"y\": 1}}",
           "Parameter 'y' is unexpected");
    request = "{\"execute\": \"ruche-save\", \"arguments\": {\"path\": \"/x/y\", \"overlays\": [{\"device\": "
              "\"disk0\", \"snapshot-file\": \"/new\"}]}}";
    json_decref(qmp_answer(&fake_ops, &fake, request, strlen(request), &negotiated));
    assert_string_equal(fake.calls, "save /x/ysave /x/y disk0/new");
    expect(true, "{\"execute\": \"ruche-save\", \"arguments\": {\"path\": \"/x\", \"overlays\": 1}}",
           "'overlays' is no list of at most 64");
    expect(
        true,
        "{\"execute\": \"ruche-save\", \"arguments\": {\"path\": \"/x\", \"overlays\": [{\"device\": \"d\", "
        "\"snapshot-file\": \"relative\"}]}}",
        "an absolute file name");
    expect(true, "{\"execute\": \"ruche-save-cancel\"}", "{\"return\": {}}");
    expect(true, "{\"execute\": \"query-ruche-save\"}",
           "{\"bytes\": 5, \"error\": \"the disk is full\", \"path\": \"/saved\", \"pause\": 3, "
           "\"status\": \"failed\", \"total\": 7}");
}

static void disks(void **state)
{
    struct fake_machine fake = {.running = true};
    bool negotiated = true;
    static const char *const requests[] = {
        "{\"execute\": \"block-dirty-bitmap-remove\", \"arguments\": {\"node\": \"d\", \"name\": \"b\"}}",
        "{\"execute\": \"block-dirty-bitmap-clear\", \"arguments\": {\"node\": \"d\", \"name\": \"b\"}}",
        "{\"execute\": \"transaction\", \"arguments\": {\"actions\": [{\"type\": \"block-dirty-bitmap-add\", "
        "\"data\": {\"node\": \"d\", \"name\": \"b\", \"persistent\": true}}, {\"type\": \"drive-backup\", "
        "\"data\": {\"device\": \"d\", \"target\": \"/t\", \"sync\": \"bitmap\", \"bitmap\": \"a\", "
        "\"bitmap-mode\": \"never\", \"mode\": \"existing\", \"auto-dismiss\": false}}]}}",
        "{\"execute\": \"block-job-cancel\", \"arguments\": {\"device\": \"j\"}}",
        "{\"execute\": \"block-job-dismiss\", \"arguments\": {\"id\": \"j\"}}",
        "{\"execute\": \"block-job-set-speed\", \"arguments\": {\"device\": \"j\", \"speed\": 7}}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        json_t *answer = qmp_answer(&fake_ops, &fake, requests[i], strlen(requests[i]), &negotiated);
        assert_non_null(json_object_get(answer, "return"));
        json_decref(answer);
    }
    assert_string_equal(fake.calls,
                        "removedb cleardb adddb backupda/t kept job-cancel jjob-dismiss jjob-speed 7 j");
    expect(true, "{\"execute\": \"query-block-jobs\"}", "\"error\": \"full\"");
    expect(true, "{\"execute\": \"query-block-jobs\"}", "\"status\": \"concluded\"");
    expect(
        true, "{\"execute\": \"query-block\"}",
        "\"dirty-bitmaps\": [{\"busy\": false, \"count\": 131072, \"granularity\": 65536, \"name\": \"b0\", "
        "\"persistent\": true, \"recording\": true}]");
}

static void wrong_disks(void **state)
{
#define BACKUP "{\"execute\": \"drive-backup\", \"arguments\": {\"device\": \"d\", "
    expect(true,
           "{\"execute\": \"block-dirty-bitmap-add\", \"arguments\": {\"node\": \"d\", \"name\": \"b\"}}",
           "all bitmaps are persistent");
    expect(true,
           "{\"execute\": \"block-dirty-bitmap-remove\", \"arguments\": {\"node\": 1, \"name\": \"b\"}}",
           "'node' and 'name' are wanted");
    expect(true, BACKUP "\"target\": \"t\", \"sync\": \"full\", \"mode\": \"existing\"}}",
           "an absolute file name");
    expect(true, BACKUP "\"target\": \"/t\", \"sync\": \"top\", \"mode\": \"existing\"}}",
           "'sync' is wanted");
    expect(true, BACKUP "\"target\": \"/t\", \"sync\": \"bitmap\", \"mode\": \"existing\"}}",
           "only with that");
    expect(true, BACKUP "\"target\": \"/t\", \"sync\": \"full\", \"bitmap\": \"b\", \"mode\": \"existing\"}}",
           "only with that");
    expect(true, BACKUP "\"target\": \"/t\", \"sync\": \"full\"}}", "the target is an image that exists");
    expect(true,
           BACKUP "\"target\": \"/t\", \"sync\": \"full\", \"mode\": \"existing\", \"format\": \"raw\"}}",
           "the target is an image that exists");
    expect(true, BACKUP "\"target\": \"/t\", \"sync\": \"full\", \"mode\": \"existing\", \"speed\": -1}}",
           "'speed' is negative");
    expect(true, "{\"execute\": \"transaction\"}", "'actions' is no list");
    expect(true, "{\"execute\": \"transaction\", \"arguments\": {\"actions\": [1]}}", "a 'type' and 'data'");
    expect(true,
           "{\"execute\": \"transaction\", \"arguments\": {\"actions\": [{\"type\": \"x\", \"data\": {}}]}}",
           "there is no action 'x'");
    expect(true, "{\"execute\": \"block-job-cancel\"}", "'device' is wanted");
    expect(true, "{\"execute\": \"block-job-set-speed\", \"arguments\": {\"device\": \"j\"}}",
           "'speed' is wanted");
}

static void ask(struct fake_machine *fake, const char *request, const char *reply)
{
    bool negotiated = true;
    json_t *o = qmp_answer(&fake_ops, fake, request, strlen(request), &negotiated);
    char *text = json_dumps(o, JSON_SORT_KEYS);

    if (!strstr(text, reply))
        fail_msg("'%s' is answered '%s', not '%s'", request, text, reply);
    free(text);
    json_decref(o);
}

static void migration(void **state)
{
    struct fake_machine fake = {.running = true};

    ask(&fake, "{\"execute\": \"migrate\", \"arguments\": {\"uri\": \"unix:/x\", \"detach\": true}}",
        "{\"return\": {}}");
    ask(&fake, "{\"execute\": \"migrate_cancel\"}", "{\"return\": {}}");
    assert_string_equal(fake.calls, "migrate unix:/x migrate-cancel");
    ask(&fake, "{\"execute\": \"migrate\"}", "wants the argument 'uri'");
    ask(&fake, "{\"execute\": \"migrate\", \"arguments\": {\"uri\": \"unix:/x\", \"blk\": true}}",
        "disks do not go with the machine");
    ask(&fake, "{\"execute\": \"query-migrate\"}",
        "{\"return\": {\"cpu-throttle-percentage\": 20, \"downtime\": 3, \"error-desc\": \"the line "
        "broke\", ");
    ask(&fake, "{\"execute\": \"query-migrate\"}", "\"remaining\": 5");
    ask(&fake, "{\"execute\": \"query-migrate\"}", "\"status\": \"failed\", \"total-time\": 7}");
    fake.running = false;
    ask(&fake, "{\"execute\": \"query-migrate\"}", "{\"return\": {}}");
    fake.refuse = true;
    ask(&fake, "{\"execute\": \"migrate\", \"arguments\": {\"uri\": \"unix:/x\"}}", "refused");
}

static void set_capability(struct fake_machine *fake, const char *name, const char *state, const char *reply)
{
    char request[256];

    snprintf(
        request, sizeof(request),
        "{\"execute\": \"migrate-set-capabilities\", \"arguments\": {\"capabilities\": [{\"capability\": "
        "\"%s\", \"state\": %s}]}}",
        name, state);
    ask(fake, request, reply);
}

static void set_parameter(struct fake_machine *fake, const char *name, const char *value, const char *reply)
{
    char request[256];

    snprintf(request, sizeof(request),
             "{\"execute\": \"migrate-set-parameters\", \"arguments\": {\"%s\": %s}}", name, value);
    ask(fake, request, reply);
}

static void migration_settings(void **state)
{
    struct fake_machine fake = {.settings.downtime_limit = 50};

    set_capability(&fake, "auto-converge", "true", "{\"return\": {}}");
    set_capability(&fake, "xbzrle", "false", "{\"return\": {}}"); /* what is not there is off */
    set_capability(&fake, "xbzrle", "true", "there is no capability 'xbzrle'");
    set_capability(&fake, "events", "1", "there is no capability");
    ask(&fake, "{\"execute\": \"query-migrate-capabilities\"}",
        "{\"return\": [{\"capability\": \"auto-converge\", \"state\": true}, {\"capability\": \"events\", "
        "\"state\": false}, {\"capability\": \"ruche-end\", \"state\": false}]}");
    set_parameter(&fake, "max-bandwidth", "1000000", "{\"return\": {}}");
    set_parameter(&fake, "max-bandwidth", "-1", "'max-bandwidth' is a number from 0");
    set_parameter(&fake, "max-cpu-throttle", "100", "'max-cpu-throttle' is a number from 1 to 99");
    set_parameter(&fake, "downtime-limit", "\"5\"", "'downtime-limit' is a number");
    set_parameter(&fake, "ruche-compression", "\"zstd\"", "{\"return\": {}}");
    set_parameter(&fake, "ruche-compression", "\"lzo\"", "is 'none' or 'zstd'");
    set_parameter(&fake, "tls-creds", "\"x\"", "Parameter 'tls-creds' is unexpected");
    ask(&fake, "{\"execute\": \"query-migrate-parameters\"}",
        "\"downtime-limit\": 50, \"max-bandwidth\": 1000000");
    assert_true(fake.settings.compress);
}

static void power(void **state)
{
    struct fake_machine fake = {.running = true};
    bool negotiated = true;
    static const char *const requests[] = {
        "{\"execute\": \"stop\"}",         "{\"execute\": \"cont\"}",
        "{\"execute\": \"system_reset\"}", "{\"execute\": \"system_powerdown\"}",
        "{\"execute\": \"quit\"}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
        json_decref(qmp_answer(&fake_ops, &fake, requests[i], strlen(requests[i]), &negotiated));
    assert_string_equal(fake.calls, "stop cont reset powerdown quit ");
    fake.refuse = true;
    json_t *o = qmp_answer(&fake_ops, &fake, requests[1], strlen(requests[1]), &negotiated);
    assert_string_equal(json_string_value(json_object_get(json_object_get(o, "error"), "class")),
                        "GenericError");
    assert_string_equal(json_string_value(json_object_get(json_object_get(o, "error"), "desc")), "refused");
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scan_finds_ends),
        cmocka_unit_test(errors),
        cmocka_unit_test(negotiation),
        cmocka_unit_test(id_is_echoed),
        cmocka_unit_test(queries),
        cmocka_unit_test(statistics),
        cmocka_unit_test(saving),
        cmocka_unit_test(disks),
        cmocka_unit_test(wrong_disks),
        cmocka_unit_test(migration),
        cmocka_unit_test(migration_settings),
        cmocka_unit_test(power),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
