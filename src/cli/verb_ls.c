/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche ls */
#include <stdio.h>

#include "base/util.h"
#include "cli/agent_guest.h"
#include "cli/args.h"
#include "cli/machines.h"
#include "cli/print.h"
#include "cli/verb.h"

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static void print_row(const struct machine *m, const struct machine_look *look, const json_t *addresses)
{
    const json_t *config = m->config;
    const char *image = text_of(json_object_get(config, "image"), "name"),
               *kernel = text_of(config, "kernel");
    const char *address = json_string_value(json_array_get(addresses, 0));
    char age[32];
    printf("%-16s %-10s %-9s %4.0f %6.0fM  %-15s %s%s%s\n", m->name, look->status,
           look->state.since ? age_text(look->state.since, age) : "-",
           json_number_value(json_object_get(config, "cpus")),
           json_number_value(json_object_get(config, "memory")) / (double)MIB, address ? address : "-",
           image[0] ? image : kernel, look->text[0] ? "  " : "", look->text);
}

static int list(bool all, bool json)
{
    struct error *err = NULL;
    struct machine *list;
    size_t count;
    bool titled = false;
    if (!machines_all(&list, &count, &err))
        return failure(err);
    json_t *array = json ? json_array() : NULL;
    for (size_t i = 0; i < count; i++) {
        struct machine_look look;
        machine_look(&list[i], &look);
        if (!all && !machine_lives(&look.state) && !machine_died(&look.state))
            continue;
        json_t *addresses = guest_addresses(&list[i]);
        if (json) {
            json_t *o = machine_look_json(&list[i], &look);
            json_object_set_new(o, "addresses", addresses);
            json_array_append_new(array, o);
            continue;
        }
        if (!titled)
            printf("%-16s %-10s %-9s %4s %7s  %-15s %s\n", "NAME", "STATUS", "FOR", "CPUS", "MEMORY",
                   "ADDRESS", "BOOTS");
        titled = true;
        print_row(&list[i], &look, addresses);
        json_decref(addresses);
    }
    machine_list_free(list, count);
    return json ? print_json(array) : EXIT_OK;
}

static int run(int argc, char **argv)
{
    bool all = false, json = false;
    const struct arg args[] = {{"all", 'a', &all, NULL}, {"json", 0, &json, NULL}};
    int count = args_take(argc, argv, args, ARRAY_SIZE(args));
    if (count < 0)
        return EXIT_USAGE;
    if (count)
        return usage_error("ls", "unexpected argument '%s'", argv[0]);
    return list(all, json);
}

const struct verb verb_ls = {
    .name = "ls",
    .summary = "list machines",
    .help = "usage: ruche ls [-a] [--json]\n"
            "\n"
            "Lists the machines that run, with an address where a guest agent tells one, and those that\n"
            "died, with the reason.\n"
            "\n"
            "  -a, --all   also those that are stopped\n"
            "  --json      print JSON\n",
    .run = run,
};
