/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche save: has a running machine write itself to a file, from which `ruche run --restore` goes on. */
#include <string.h>

#include "base/cleanup.h"
#include "catalog/file.h"
#include "catalog/machine.h"
#include "catalog/machine_state.h"
#include "cli/control.h"
#include "cli/saving.h"
#include "cli/verb.h"

/* Of a machine in the catalogue that runs under just that name; NULL when there is none. */
static char *socket_in_catalogue(const char *name)
{
    cleanup(machine) struct machine m = {0};
    struct machine_state state;
    cleanup(database) struct database *db = database_exists() ? database_open(NULL) : NULL;
    if (!db || !machine_find(db, name, &m, NULL) || strcmp(m.name, name) != 0)
        return NULL;
    machine_state_read(&m, &state);
    return state.life == MACHINE_RUNNING ? catalog_format("%s", state.control) : NULL;
}

/* A machine is named as in the catalogue, as ruche run named it, or by its control socket. */
static char *socket_of(const char *machine, struct error **err)
{
    if (strchr(machine, '/'))
        return catalog_format("%s", machine);
    char *known = socket_in_catalogue(machine);
    if (known)
        return known;
    cleanup(mem) char *dir = catalog_runtime_dir(err);
    return dir ? catalog_format("%s/%s.sock", dir, machine) : NULL;
}

/* With `end` the guest does not run between the saved moment and its end. */
static bool save(struct control *c, const char *path, bool end, struct error **err)
{
    if (end && !control_command(c, "stop", err))
        return false;
    if (saving_run(c, "save", json_pack("{s:s}", "path", path), err))
        return !end || control_command(c, "quit", err);
    if (end)
        control_command(c, "cont", NULL);
    return false;
}

static int run(int argc, char **argv)
{
    bool end = argc > 1 && strcmp(argv[1], "--end") == 0;
    char **words = argv + 1 + end;
    int count = argc - 1 - end;
    struct error *err = NULL;

    for (int i = 0; i < count; i++)
        if (words[i][0] == '-')
            return usage_error("save", "unknown option '%s'", words[i]);
    if (count != 2)
        return usage_error("save", "a machine and a file are wanted");
    cleanup(mem) char *socket_path = socket_of(words[0], &err);
    cleanup(mem) char *path = socket_path ? catalog_absolute(words[1], &err) : NULL;
    if (!path)
        return failure(err);
    struct error *why = NULL;
    struct control *c = control_open(socket_path, SAVING_ANSWER_MS, &why);
    if (c)
        save(c, path, end, &why);
    control_close(c);
    if (!why)
        return EXIT_OK;
    error_prefix(&err, why, "save '%s'", words[0]);
    return failure(err);
}

const struct verb verb_save = {
    .name = "save",
    .summary = "save a running machine to a file",
    .help = "usage: ruche save [--end] MACHINE FILE\n"
            "\n"
            "Writes the machine's memory and the state of its processors and devices to FILE, in place of an "
            "earlier\n"
            "one once it is complete. The machine stands still for that time, then goes on. MACHINE is its "
            "name or\n"
            "its control socket. ruche run --restore FILE goes on from there, as often as one likes, as long "
            "as the\n"
            "machine's disks are not written to; they are not part of the file.\n"
            "\n"
            "  --end    the machine does not go on but ends once it is saved\n",
    .run = run,
};
