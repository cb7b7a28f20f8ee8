/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * freeze NAME LIMIT-MS: freezes a machine's file systems, says "frozen", waits for a line, thaws, says how
 * that went. For agent_test.py, which kills it meanwhile.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "catalog/database.h"
#include "cli/agent.h"
#include "cli/agent_freeze.h"

int main(int argc, char **argv)
{
    struct error *err = NULL;
    signal(SIGPIPE, SIG_IGN);
    cleanup(machine) struct machine m = {0};
    cleanup(database) struct database *db = argc == 3 ? database_open(&err) : NULL;
    struct agent *a =
        db && machine_find(db, argv[1], &m, &err) ? agent_open(&m, AGENT_PATIENCE_MS, &err) : NULL;
    struct agent_freeze *f = a ? agent_freeze(a, &m, (int)strtol(argv[2], NULL, 10), &err) : NULL;
    bool ok = false;
    if (f) {
        puts("frozen");
        fflush(stdout);
        getchar();
        ok = agent_thaw(a, f, &err);
    }
    agent_close(a);
    puts(ok ? "thawed" : error_text(err));
    error_free(err);
    return !ok;
}
