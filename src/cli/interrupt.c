/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupted commands: see interrupt.h. */
#include "cli/interrupt.h"

#include <signal.h>
#include <stddef.h>

#include "base/util.h"

static volatile sig_atomic_t noted;

static void on_signal(int number)
{
    noted = number;
}

void interrupt_watch(void)
{
    static const int watched[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction act = {.sa_handler = on_signal}, before;
    for (size_t i = 0; i < ARRAY_SIZE(watched); i++)
        if (sigaction(watched[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(watched[i], &act, NULL);
}

bool interrupt_pending(void)
{
    return noted != 0;
}

int interrupt_take(void)
{
    int number = noted;
    noted = 0;
    return number;
}
