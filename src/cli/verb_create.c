/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche create: a machine that stays, from the options that ruche run has. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "catalog/config.h"
#include "catalog/image.h"
#include "cli/machines.h"
#include "cli/verb.h"

#define MEMORY_IMAGE  "1G"
#define MEMORY_KERNEL "512M"

/* Options with a value, and the settings of the configuration that they are. */
static const struct {
    const char *option, *key;
} settings[] = {
    {"engine", "engine"}, {"cpu", "cpu"},        {"cpus", "cpus"},       {"memory", "memory"},
    {"kernel", "kernel"}, {"initrd", "initrd"},  {"cmdline", "cmdline"}, {"module", "modules"},
    {"disk", "disks"},    {"device", "devices"},
};

struct request {
    json_t *config;
    const char *name, *image;
    struct seed seed;
    bool no_net; /* --net none was given */
};

/* EINVAL is the user's mistake. */
static int refuse(struct error *err)
{
    bool usage = err->code == EINVAL;
    failure(err);
    return usage ? EXIT_USAGE : EXIT_RUCHE;
}

static bool take_net(struct request *r, const char *value, struct error **err)
{
    if (strcmp(value, "none") != 0)
        return config_add_net(r->config, value, err);
    r->no_net = true;
    return true;
}

/* An option with a value. EXIT_OK, or a status after a line on stderr; -1: it is none. */
static int take_setting(struct request *r, int argc, char **argv, int *i)
{
    const char *value = NULL, *word = argv[*i];
    struct error *err = NULL;
    size_t k = 0;
    bool net = option_value(argc, argv, i, "net", &value);
    while (!net && k < ARRAY_SIZE(settings) && !option_value(argc, argv, i, settings[k].option, &value))
        k++;
    if (!net && k == ARRAY_SIZE(settings))
        return -1;
    if (!value)
        return usage_error("create", "%s wants a value", word);
    if (net ? take_net(r, value, &err) : config_set(r->config, settings[k].key, value, &err))
        return EXIT_OK;
    return refuse(err);
}

/* The same for what is said to the guest. */
static int take_seed(struct request *r, int argc, char **argv, int *i)
{
    const char *value = NULL, *word = argv[*i];
    struct error *err = NULL;
    unsigned k = 0;
    while (seed_option(k) && !option_value(argc, argv, i, seed_option(k), &value))
        k++;
    if (!seed_option(k))
        return -1;
    if (!value)
        return usage_error("create", "%s wants a value", word);
    return seed_set(&r->seed, seed_option(k), value, &err) ? EXIT_OK : refuse(err);
}

static int parse(struct request *r, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int status = take_setting(r, argc, argv, &i);
        if (status < EXIT_OK)
            status = take_seed(r, argc, argv, &i);
        if (status > EXIT_OK)
            return status;
        if (status == EXIT_OK)
            continue;
        if (strcmp(argv[i], "--no-reboot") == 0)
            json_object_set_new(r->config, "reboot", json_false());
        else if (strcmp(argv[i], "--autostart") == 0)
            json_object_set_new(r->config, "autostart", json_true());
        else if (argv[i][0] == '-')
            return usage_error("create", "unknown option '%s'", argv[i]);
        else if (r->image)
            return usage_error("create", "a name and one image: '%s' is too much", argv[i]);
        else
            *(r->name ? &r->image : &r->name) = argv[i];
    }
    if (!r->name)
        return usage_error("create", "the machine wants a name");
    if (!r->image && !json_object_get(r->config, "kernel"))
        return usage_error("create", "nothing to boot: name an image or give --kernel FILE");
    if (r->no_net && json_array_size(json_object_get(r->config, "nets")))
        return usage_error("create", "--net none: another --net asks for a network");
    return EXIT_OK;
}

/* What was not said. */
static bool fill(struct request *r, const struct image *image, struct error **err)
{
    if (image)
        json_object_set_new(r->config, "image",
                            json_pack("{s:s, s:s}", "name", image->name, "disk_sha256", image->disk_sha256));
    if (!seed_is_empty(&r->seed))
        json_object_set_new(r->config, "seed", json_true());
    if (!json_object_get(r->config, "cpus") && !config_set(r->config, "cpus", "1", err))
        return false;
    if (!json_object_get(r->config, "memory") &&
        !config_set(r->config, "memory", image ? MEMORY_IMAGE : MEMORY_KERNEL, err))
        return false;
    if (!r->no_net && !json_array_size(json_object_get(r->config, "nets")) &&
        !config_add_net(r->config, "user", err))
        return false;
    return config_check(r->config, err);
}

static bool create(struct request *r, struct error **err)
{
    struct image image = {0};
    cleanup(machine) struct machine m = {0};
    if (r->image && !image_load(r->image, &image, err))
        return false;
    cleanup(database) struct database *db = NULL;
    bool ok = fill(r, r->image ? &image : NULL, err) && (db = machines_open(err)) &&
              machine_create(db, r->name, r->config, r->image ? &image : NULL,
                             seed_is_empty(&r->seed) ? NULL : &r->seed, &m, err);
    if (r->image)
        image_release(&image);
    return ok;
}

static int run(int argc, char **argv)
{
    struct request r = {.config = json_pack("{s:[], s:[]}", "nets", "disks")};
    struct error *err = NULL;
    int status = parse(&r, argc, argv);
    if (status == EXIT_OK && !create(&r, &err))
        status = refuse(err);
    json_decref(r.config);
    seed_release(&r.seed);
    return status;
}

const struct verb verb_create = {
    .name = "create",
    .summary = "make a machine that stays",
    .help =
        "usage: ruche create NAME [OPTION]... IMAGE\n"
        "       ruche create NAME [OPTION]... --kernel FILE\n"
        "\n"
        "Makes a machine with a name, a disk of its own on top of the image's, and network addresses of its\n"
        "own; ruche start starts it. The options are those of ruche run:\n"
        "\n"
        "  --engine, --cpu, --cpus, --memory, --no-reboot     the machine\n"
        "  --kernel, --initrd, --module, --cmdline            what it boots\n"
        "  --disk, --net, --device                            devices; --net also takes mac=ADDRESS\n"
        "  --autostart                                        ruche start --autostart starts it\n"
        "\n"
        "What the guest is told at its first boot, if it has cloud-init or is the image debian:\n"
        "\n"
        "  --hostname NAME        its name (default: the machine's, as soon as one of these is given)\n"
        "  --user NAME            a user, who may do anything by sudo; the next two are for root without it\n"
        "  --password-hash HASH   the user's password, as openssl passwd -6 prints it\n"
        "  --ssh-key FILE|KEY     lets the user in by ssh; may be repeated\n"
        "  --user-data FILE       a script (#!) or settings (#cloud-config)\n"
        "  --network-config FILE  settings of the network, in cloud-init's form\n"
        "\n"
        "Files stay where they are and are not copied. ruche set changes what was said here.\n",
    .run = run,
};
