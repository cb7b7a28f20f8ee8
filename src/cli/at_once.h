/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The same for many things at the same time. One thread. */
#ifndef CLI_AT_ONCE_H
#define CLI_AT_ONCE_H

#include <stddef.h>

/* The largest number of things. */
#define AT_ONCE_MAX 500

/*
 * Calls `fn` for each index below `count`, each in a process of its own, as many at a time as the host has
 * processors, at least two. What it gives, an exit status, is in status[index] afterwards. No catalogue is
 * open.
 */
void at_once(size_t count, int (*fn)(size_t index, void *opaque), void *opaque, int status[]);

#endif
