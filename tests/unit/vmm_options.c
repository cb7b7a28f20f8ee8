/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of ruche-vmm: what is taken, and what is refused with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/util.h"
#include "vmm/options.h"

#define WORDS_MAX 40

/* Words are separated by single spaces; '_' in them stands for a space. */
static enum options_result parse(struct machine_config *config, const char *line, struct error **err)
{
    static char buf[4096];
    char *argv[WORDS_MAX + 1] = {NULL};
    char *rest = buf;
    int argc = 0;

    snprintf(buf, sizeof(buf), "ruche-vmm%s%s", *line ? " " : "", line);
    while (argc < WORDS_MAX && (argv[argc] = strsep(&rest, " "))) {
        for (char *p = argv[argc]; *p; p++)
            *p = *p == '_' ? ' ' : *p;
        argc++;
    }
    return options_parse(config, argc, argv, err);
}

static void defaults(void **state)
{
    struct machine_config c;
    struct error *err = NULL;

    assert_int_equal(parse(&c, "--kernel k", &err), OPTIONS_RUN);
    assert_int_equal(c.cpus, 1);
    assert_int_equal(c.memory, 512 * MIB);
    assert_string_equal(c.serial, "stdio");
    assert_int_equal(c.net_count, 1);
    assert_string_equal(c.net[0], "user");
    assert_null(c.engine);
    assert_null(c.control);
    assert_int_equal(c.ready_fd, -1);
    assert_false(c.no_reboot || c.paused);
    options_free(&c);
}

static void everything_at_once(void **state)
{
    struct machine_config c;
    struct error *err = NULL;

    assert_int_equal(
        parse(&c,
              "--name web-1 --engine bt,native=off,jitdump=/j --trace t --cpu v3 --cpus=4 "
              "--memory 1G --kernel a "
              "--initrd b --module m_x=1 "
              "--module n --cmdline console=ttyS0_quiet --no-reboot --paused --serial-log l --agent unix:a "
              "--uuid 01234567-89ab-4cde-8f01-23456789abcd",
              &err),
        OPTIONS_RUN);
    assert_string_equal(c.name, "web-1");
    assert_string_equal(c.engine, "bt");
    assert_int_equal(c.native, ENGINE_NATIVE_OFF);
    assert_string_equal(c.jitdump, "/j");
    assert_string_equal(c.trace, "t");
    assert_string_equal(c.cpu, "v3");
    assert_int_equal(c.cpus, 4);
    assert_int_equal(c.memory, GIB);
    assert_string_equal(c.initrd, "b");
    assert_int_equal(c.module_count, 2);
    assert_string_equal(c.module[0], "m x=1");
    assert_string_equal(c.cmdline, "console=ttyS0 quiet");
    assert_true(c.no_reboot && c.paused);
    assert_string_equal(c.serial_log, "l");
    assert_string_equal(c.agent, "unix:a");
    assert_int_equal(c.uuid[0], 0x01);
    assert_int_equal(c.uuid[15], 0xcd);
    options_free(&c);
}

static void disks_nets_devices(void **state)
{
    struct machine_config c;
    struct error *err = NULL;

    assert_int_equal(
        parse(&c,
              "--kernel k --disk a.img --disk b,,c.qcow2,format=qcow2,readonly --net "
              "user,forward=tcp::2222:22 --device virtio-rng,rate=1M,x= --serial none --control fd:0",
              &err),
        OPTIONS_RUN);
    assert_int_equal(c.disk_count, 2);
    assert_string_equal(c.disk[0].path, "a.img");
    assert_null(c.disk[0].format);
    assert_false(c.disk[0].readonly);
    assert_string_equal(c.disk[1].path, "b,c.qcow2");
    assert_string_equal(c.disk[1].format, "qcow2");
    assert_true(c.disk[1].readonly);
    assert_int_equal(c.net_count, 1);
    assert_string_equal(c.net[0], "user,forward=tcp::2222:22");
    assert_int_equal(c.device_count, 1);
    assert_string_equal(c.device[0].cls, "virtio-rng");
    assert_int_equal(c.device[0].prop_count, 2);
    assert_string_equal(c.device[0].prop[0].name, "rate");
    assert_string_equal(c.device[0].prop[0].value, "1M");
    assert_string_equal(c.device[0].prop[1].value, "");
    options_free(&c);
}

static void memory_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t size;
    } table[] = {
        {"64", 64 * MIB}, {"1M", MIB}, {"1536K", 1536 * KIB}, {"3g", 3 * GIB}, {"512MiB", 512 * MIB}};
    struct machine_config c;
    struct error *err = NULL;
    char line[64];

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        snprintf(line, sizeof(line), "--kernel k --memory %s", table[i].text);
        assert_int_equal(parse(&c, line, &err), OPTIONS_RUN);
        assert_int_equal(c.memory, table[i].size);
        options_free(&c);
    }
}

static void refused(void **state)
{
    static const struct {
        const char *line, *words;
    } table[] = {
        {"", "--kernel FILE is missing"},
        {"--kernel", "--kernel wants a value"},
        {"--kernel k --frob", "unknown option '--frob'"},
        {"--kernel k -x", "unknown option '-x'"},
        {"--kernel k image", "unexpected argument 'image'"},
        {"--kernel k --no-reboot=1", "unknown option"},
        {"--kernel k --engine bt,native", "native=auto|off|always"},
        {"--kernel k --engine bt,native=maybe", "'maybe': not auto, off or always"},
        {"--kernel k --engine bt,jitdump=", "jitdump"},
        {"--kernel k --engine bt,native=off,fast=yes", "native=auto|off|always"},
        {"--kernel k --cpus 0", "--cpus '0'"},
        {"--kernel k --cpus 33", "from 1 to 32"},
        {"--kernel k --cpus two", "--cpus 'two'"},
        {"--kernel k --memory 0", "at least 1M"},
        {"--kernel k --memory 1025G", "more than 1T"},
        {"--kernel k --memory 1X", "--memory '1X'"},
        {"--kernel k --memory -1", "--memory '-1'"},
        {"--kernel k --memory 1000001K", "not a multiple of 4K"},
        {"--kernel k --memory 99999999999999999999", "--memory"},
        {"--kernel k --memory 18446744073709551615", "--memory"},
        {"--kernel k --disk ,readonly", "no file is named"},
        {"--kernel k --disk a,format=vmdk", "unknown setting 'format=vmdk'"},
        {"--kernel k --disk a,", "unknown setting ''"},
        {"--kernel k --device ,x=1", "no class is named"},
        {"--kernel k --device a,x", "not PROP=VALUE"},
        {"--kernel k --device a,=1", "not PROP=VALUE"},
        {"--kernel k --net none --net user", "--net none"},
        {"--kernel k --name a/b", "--name 'a/b'"},
        {"--kernel k --name .x", "--name '.x'"},
        {"--kernel k --uuid 1234", "--uuid '1234'"},
        {"--kernel k --control fd:999", "not an open file descriptor"},
        {"--kernel k --ready-fd x", "not an open file descriptor"},
        {"--kernel k --serial=", "empty value"},
        {"--kernel k --agent=", "empty value"},
        {"--kernel k --verify", "--restore FILE is missing"},
        {"--restore s --kernel k", "--kernel does not go with --restore"},
        {"--restore s --memory 1G", "--memory does not go with --restore"},
        {"--restore s --cpus 2", "--cpus does not go with --restore"},
        {"--restore s --device virtio-rng", "--device does not go with --restore"},
        {"--restore s --net none", "--net none does not go with --restore"},
        {"--restore=", "empty value"},
        {"--incoming nowhere", "--incoming 'nowhere': not unix:PATH"},
        {"--incoming unix:/x --kernel k", "--kernel does not go with --incoming"},
        {"--incoming unix:/x --net none", "--net none does not go with --incoming"},
        {"--incoming unix:/x --restore s", "--incoming does not go with --restore"},
        {"--incoming unix:/x --verify", "--restore FILE is missing"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        struct machine_config c;
        struct error *err = NULL;
        if (parse(&c, table[i].line, &err) != OPTIONS_WRONG || !err ||
            !strstr(error_text(err), table[i].words) || strchr(error_text(err), '\n'))
            fail_msg("'%s' gives '%s', not '%s'", table[i].line, error_text(err), table[i].words);
        error_free(err);
        options_free(&c);
    }
}

static void restore(void **state)
{
    struct machine_config c;
    struct error *err = NULL;

    assert_int_equal(
        parse(&c, "--restore s --verify --engine bt --disk d --net user --serial none --name n", &err),
        OPTIONS_RUN);
    assert_string_equal(c.restore, "s");
    assert_true(c.verify);
    assert_int_equal(c.net_count, 1);
    options_free(&c);
    /* What the saved machine has is not decided here. */
    assert_int_equal(parse(&c, "--restore s", &err), OPTIONS_RUN);
    assert_null(c.serial);
    assert_int_equal(c.net_count, 0);
    options_free(&c);
}

static void help(void **state)
{
    struct machine_config c;
    struct error *err = NULL;

    assert_int_equal(parse(&c, "--help", &err), OPTIONS_HELP);
    options_free(&c);
    assert_int_equal(parse(&c, "--version", &err), OPTIONS_VERSION);
    options_free(&c);
    assert_int_equal(parse(&c, "--kernel k --device virtio-net --device help", &err), OPTIONS_DEVICE_HELP);
    assert_null(c.device[0].cls);
    options_free(&c);
    assert_int_equal(parse(&c, "--device virtio-net --device virtio-rng,help", &err), OPTIONS_DEVICE_HELP);
    assert_string_equal(c.device[0].cls, "virtio-rng");
    options_free(&c);
}

static void too_many(void **state)
{
    struct machine_config c;
    struct error *err = NULL;
    static char program[] = "ruche-vmm", option[] = "--disk", value[] = "x";
    char *argv[2 * (OPTIONS_LIST_MAX + 1) + 2] = {program};
    int argc = 1;

    for (int i = 0; i <= OPTIONS_LIST_MAX; i++) {
        argv[argc++] = option;
        argv[argc++] = value;
    }
    assert_int_equal(options_parse(&c, argc, argv, &err), OPTIONS_WRONG);
    assert_non_null(strstr(error_text(err), "more than 64 times"));
    error_free(err);
    options_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(everything_at_once),
        cmocka_unit_test(disks_nets_devices),
        cmocka_unit_test(memory_sizes),
        cmocka_unit_test(refused),
        cmocka_unit_test(restore),
        cmocka_unit_test(help),
        cmocka_unit_test(too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
