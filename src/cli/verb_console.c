/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche console */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/args.h"
#include "cli/attach.h"
#include "cli/control.h"
#include "cli/machines.h"
#include "cli/verb.h"

#define END_MS 30000 /* from the end of its serial line to that of the machine */

/* A connection to the serial line; -1 and *err when there is none. */
static int open_line(const struct machine *m, const struct machine_state *state, struct error **err)
{
    struct error *why = NULL;
    int fd = -1;
    if (state->life == MACHINE_RUNNING)
        fd = control_connect(state->serial, &why);
    else
        error_set(&why, ESRCH, "it does not run (ruche start %s starts it)", m->name);
    if (fd < 0)
        error_prefix(err, why, "console of machine '%s'", m->name);
    return fd;
}

static int visit(const struct machine *m, struct error **err)
{
    struct machine_state state;
    machine_state_read(m, &state);
    cleanup(fd) int line = open_line(m, &state, err);
    cleanup(fd) int signals = line >= 0 ? session_signals() : -1;
    if (line < 0)
        return EXIT_RUCHE;
    if (signals < 0)
        return error_set_errno(err, errno, "watch for signals"), EXIT_RUCHE;
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "ruche: console of '%s'; Ctrl-] d detaches, Ctrl-] h lists the other keys\n",
                m->name);
    struct machine_session session = {.signal_fd = signals,
                                      .ready_fd = -1,
                                      .serial_fd = line,
                                      .error_fd = -1,
                                      .control = state.control,
                                      .visitor = true};
    int status = session_serve(&session);
    if (session.serial_fd >= 0 || status != EXIT_OK)
        return status;
    /* A machine that closes the line and still answers has turned us away. */
    struct machine_look look;
    machine_look(m, &look);
    bool answers = strcmp(look.status, "running") == 0 || strcmp(look.status, "paused") == 0;
    if (!answers && machine_wait_end(m, END_MS))
        return machine_exit_status(m);
    error_set(err, EBUSY, "console of machine '%s': another one is attached to it", m->name);
    return EXIT_RUCHE;
}

static int run(int argc, char **argv)
{
    struct error *err = NULL;
    cleanup(machine) struct machine m = {0};
    int count = args_take(argc, argv, NULL, 0);
    if (count < 0)
        return EXIT_USAGE;
    if (count != 1)
        return usage_error("console", "one machine is wanted");
    int status = machine_named(argv[0], &m);
    if (status == EXIT_OK)
        status = visit(&m, &err);
    return err ? failure(err) : status;
}

const struct verb verb_console = {
    .name = "console",
    .summary = "attach the terminal to a machine's console",
    .help =
        "usage: ruche console NAME\n"
        "\n"
        "Shows the end of what the guest has said on its first serial line and attaches the terminal to\n"
        "it. Detaching leaves the machine running. When the machine ends, the exit status is that of\n"
        "ruche wait.\n"
        "\n"
        "On a terminal, Ctrl-] then: d detach, q end the machine, p power button, r reset, c send Ctrl-],\n"
        "h help.\n",
    .run = run,
};
