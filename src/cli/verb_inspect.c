/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche inspect */
#include <stdio.h>

#include "base/cleanup.h"
#include "catalog/file.h"
#include "cli/agent_guest.h"
#include "cli/args.h"
#include "cli/keeper.h"
#include "cli/machines.h"
#include "cli/print.h"
#include "cli/verb.h"

/* All of it: how it is, where its things are, and the configuration as the catalogue has it. */
static json_t *whole(const struct machine *m)
{
    struct machine_look look;
    cleanup(mem) char *log = machine_log(m);
    cleanup(mem) char *console = machine_serial_log(m);
    machine_look(m, &look);
    json_t *o = machine_look_json(m, &look);
    json_object_set_new(o, "addresses", guest_addresses(m));
    json_object_set_new(o, "folder", json_string(m->dir));
    json_object_set_new(o, "log", json_string(log));
    json_object_set_new(o, "console", json_string(console));
    json_object_set(o, "config", m->config);
    return o;
}

/* A member a line; the name of one within another has that in front. */
static void print_text(const char *prefix, const json_t *o)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)o, key, value)
    {
        cleanup(mem) char *name = catalog_format("%s%s", prefix, key);
        cleanup(mem) char *inner = catalog_format("%s.", name);
        cleanup(mem) char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        if (json_is_object(value))
            print_text(inner, value);
        else
            printf("%-24s %s\n", name, json_is_string(value) ? json_string_value(value) : text ? text : "");
    }
}

static int run(int argc, char **argv)
{
    bool json = false;
    const struct arg args[] = {{"json", 0, &json, NULL}};
    int count = args_take(argc, argv, args, 1), status = EXIT_OK;
    if (count < 0)
        return EXIT_USAGE;
    if (count < 1)
        return usage_error("inspect", "which machine?");
    json_t *array = json_array();
    for (int i = 0; i < count; i++) {
        cleanup(machine) struct machine m = {0};
        int found = machine_named(argv[i], &m);
        status = found ? found : status;
        if (found == EXIT_OK)
            json_array_append_new(array, whole(&m));
    }
    if (json)
        return status | print_json(array);
    for (size_t i = 0; i < json_array_size(array); i++) {
        printf(i ? "\n" : "");
        print_text("", json_array_get(array, i));
    }
    json_decref(array);
    return status;
}

const struct verb verb_inspect = {
    .name = "inspect",
    .summary = "show all about machines",
    .help = "usage: ruche inspect [--json] NAME...\n"
            "\n"
            "Shows how machines are, where their files are, and their configuration. With --json that is a\n"
            "list with an element a machine, whose member \"config\" has the form of machine.schema.json.\n",
    .run = run,
};
