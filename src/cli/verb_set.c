/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche set */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "catalog/config.h"
#include "cli/args.h"
#include "cli/machines.h"
#include "cli/verb.h"

static bool may_set(const char *key)
{
    const char *known;
    for (unsigned i = 0; (known = config_key(i)); i++)
        if (strcmp(known, key) == 0)
            return true;
    return false;
}

/* "KEY=VALUE" */
static bool set_one(json_t *config, char *word, struct error **err)
{
    char *value = strchr(word, '=');
    if (!value)
        return error_set(err, EINVAL, "'%s' is not KEY=VALUE", word), false;
    *value++ = 0;
    if (may_set(word))
        return config_set(config, word, value, err);
    return error_set(err, EINVAL, "there is no setting '%s' (see ruche set --help)", word), false;
}

/* All of it or nothing, and nobody else's changes are lost. */
static bool set_all(const char *name, char **words, int count, struct machine *m, struct error **err)
{
    cleanup(database) struct database *db = machines_open(err);
    if (!db || !database_begin(db, err) || !machine_find(db, name, m, err))
        return false;
    for (int i = 0; i < count; i++)
        if (!set_one(m->config, words[i], err))
            return false;
    return config_check(m->config, err) && machine_update(db, m, err) && database_commit(db, err);
}

static int run(int argc, char **argv)
{
    struct error *err = NULL;
    cleanup(machine) struct machine m = {0};
    int count = args_take(argc, argv, NULL, 0);
    if (count < 0)
        return EXIT_USAGE;
    if (count < 2)
        return usage_error("set", "a machine and KEY=VALUE are wanted");
    if (!set_all(argv[0], argv + 1, count - 1, &m, &err)) {
        bool usage = err->code == EINVAL;
        failure(err);
        return usage ? EXIT_USAGE : EXIT_RUCHE;
    }
    if (machine_is_live(&m))
        printf("%s: takes effect when it is started the next time\n", m.name);
    return EXIT_OK;
}

const struct verb verb_set = {
    .name = "set",
    .summary = "change the settings of a machine",
    .help =
        "usage: ruche set NAME KEY=VALUE...\n"
        "\n"
        "Changes settings, all of them or none. A machine that runs has them when it is started the next\n"
        "time. An empty value takes a setting back.\n"
        "\n"
        "  engine, cpu, cpus, memory, kernel, initrd, cmdline    as the options of ruche run\n"
        "  net=none|user[,forward=...]    its network card; the address stays\n"
        "  reboot=on|off                  whether it goes on when the guest resets it\n"
        "  autostart=on|off               whether ruche start --autostart starts it\n",
    .run = run,
};
