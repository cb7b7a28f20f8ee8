/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ctrl-C and its like for commands that have something to undo: the signal is noted, whoever waits gives up,
 * and the command cleans up before it ends. One thread.
 */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

/* From now on SIGINT, SIGTERM and SIGHUP, unless they are ignored, do no more than be noted. */
void interrupt_watch(void);
/* Whether one is noted. */
bool interrupt_pending(void);
/* Its number, which is forgotten by that, so that the cleaning can be interrupted, too; 0: none. */
int interrupt_take(void);

#endif
