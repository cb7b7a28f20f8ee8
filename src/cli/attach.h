/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A running machine in the foreground: its serial line on this process's standard input and output, the
 * escape keys, signals, and the wait for its end. One thread.
 */
#ifndef CLI_ATTACH_H
#define CLI_ATTACH_H

#include <stdbool.h>
#include <sys/types.h>

struct machine_session {
    pid_t pid;
    int signal_fd;       /* as session_signals gives it */
    int ready_fd;        /* see machine_start; -1 once it has been read */
    int serial_fd;       /* our end of the serial line; -1: the machine has it elsewhere */
    int error_fd;        /* what the machine says on its standard error; -1: goes where ours goes */
    const char *control; /* path of the control socket */
    bool visitor;        /* the machine is no child of ours and goes on without us */

    /* The machine's end, which may be wanted before it runs. Zero at first, then the session's own. */
    int stopped_by;     /* the signal that made us end the machine, or 0 */
    int stop_step;      /* how hard we have asked it to end: 0 not at all, 1 quit, 2 SIGTERM, 3 SIGKILL */
    long long deadline; /* when to ask harder, in ms; 0: never */
};

/*
 * Blocks the signals that a session answers and gives a descriptor that reports them. To be called before the
 * machine is started, so that none is lost. -1 with errno on failure.
 */
int session_signals(void);

/* True once the machine says that it runs; false with the exit status in *status when it ended, or was ended,
 * first. */
bool session_wait_ready(struct machine_session *s, int *status);

/*
 * Serves the session until the machine ends. Returns the exit status. Closes nothing. A visitor's session
 * ends with the user's wish to leave or a signal, too, or when the serial line does; then serial_fd is -1.
 */
int session_serve(struct machine_session *s);

#endif
