/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The user's terminal in raw mode, given back on every way out of the program: return, exit, and fatal
 * signals. One terminal per process; one thread.
 */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stdbool.h>

/* Puts the terminal on `fd` into raw mode, remembering how it was at the first call. False when it cannot be.
 */
bool terminal_raw(int fd);
/* Back to how it was. Harmless at any time. */
void terminal_restore(void);

#endif
