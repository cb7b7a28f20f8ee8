/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stopping machines: see stop.h. */
#include "cli/stop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/parse.h"
#include "base/util.h"
#include "catalog/machine_state.h"
#include "cli/control.h"
#include "cli/machines.h"

#define ANSWER_MS   2000
#define PRESS_MS    5000  /* between one press of the power button and the next */
#define GRACE_MS    5000  /* before the next, harder, means */
#define LAST_MS     20000 /* after SIGKILL: a process that hangs in the kernel */
#define TIMEOUT_MAX 86400

bool stop_timeout(const char *text, int *ms)
{
    uint64_t s;
    if (!parse_uint(text, &s) || s > TIMEOUT_MAX)
        return false;
    *ms = (int)s * 1000;
    return true;
}

bool stop_ask(const struct machine *m, bool force, struct error **err)
{
    struct machine_look look;
    machine_look(m, &look);
    if (!machine_is_live(m))
        return true;
    struct error *why = NULL;
    if (strcmp(look.status, "running") != 0)
        error_set(&why, EBUSY, "no power button reaches it, its status is '%s' (stop --force ends it)",
                  look.status);
    else
        machine_command(m, "system_powerdown", &why);
    bool ok = !why || force || !machine_is_live(m);
    if (ok)
        error_free(why);
    else
        error_prefix(err, why, "stop machine '%s'", m->name);
    return ok;
}

/* A guest that is still starting does not hear the button, so it is pressed again and again. */
static bool wait_pressing(const struct machine *m, int timeout_ms)
{
    while (timeout_ms > PRESS_MS) {
        if (machine_wait_end(m, PRESS_MS))
            return true;
        timeout_ms -= PRESS_MS;
        machine_command(m, "system_powerdown", NULL);
    }
    return machine_wait_end(m, timeout_ms);
}

bool stop_wait(const struct machine *m, int timeout_ms, bool force, struct error **err)
{
    struct machine_look look;
    if (force)
        machine_look(m, &look);
    /* Nobody heard the button. */
    bool hopeless = force && strcmp(look.status, "running") != 0;
    if (hopeless ? machine_wait_end(m, 0) : wait_pressing(m, timeout_ms))
        return true;
    if (force)
        return stop_force(m, err);
    error_set(err, ETIMEDOUT,
              "stop machine '%s': the guest has not powered off in time (stop --force ends it)", m->name);
    return false;
}

/* To the process that is the machine and no other: while the lock is held and the state names it, it cannot
 * have been followed by another of the same number; the descriptor holds on to it. */
static void send_signal(const struct machine *m, int number)
{
    struct machine_state state;
    machine_state_read(m, &state);
    if (!state.pid)
        return;
    pid_t pid = state.pid;
    cleanup(fd) int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    machine_state_read(m, &state);
    if (fd >= 0 && state.pid == pid)
        syscall(SYS_pidfd_send_signal, fd, number, NULL, 0);
}

bool stop_force(const struct machine *m, struct error **err)
{
    static const struct {
        int number, wait_ms;
    } means[] = {{SIGTERM, GRACE_MS}, {SIGKILL, LAST_MS}};
    struct machine_state state;
    machine_state_read(m, &state);
    if (state.control[0] && control_execute(state.control, "quit", ANSWER_MS, NULL) &&
        machine_wait_end(m, GRACE_MS))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(means); i++) {
        if (!machine_is_live(m))
            return true;
        send_signal(m, means[i].number);
        if (machine_wait_end(m, means[i].wait_ms))
            return true;
    }
    return error_set(err, ETIMEDOUT, "end machine '%s': not even SIGKILL ended its process %d", m->name,
                     (int)state.pid),
           false;
}
