/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Raw mode: see terminal.h. */
#include "cli/terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <termios.h>

#include "base/util.h"

static struct termios before;
static int terminal_fd = -1;
static volatile sig_atomic_t is_raw;

/* Also runs in a signal handler: tcsetattr is safe there. */
void terminal_restore(void)
{
    if (!is_raw)
        return;
    is_raw = 0;
    tcsetattr(terminal_fd, TCSADRAIN, &before);
}

static void on_fatal(int number)
{
    terminal_restore();
    signal(number, SIG_DFL);
    raise(number);
}

bool terminal_raw(int fd)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT};
    if (terminal_fd < 0) {
        if (tcgetattr(fd, &before) < 0)
            return false;
        terminal_fd = fd;
        atexit(terminal_restore);
        for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
            signal(fatal[i], on_fatal);
    }
    struct termios raw = before;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    is_raw = 1;
    if (tcsetattr(terminal_fd, TCSADRAIN, &raw) == 0)
        return true;
    is_raw = 0;
    return false;
}
