/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stream sockets by name: "unix:PATH", "tcp:HOST:PORT" (an IPv6 address in brackets); "fd:N", a descriptor
 * that is connected already; "pass:PATH", one that whoever listens at that Unix socket passes on. Any thread.
 */
#ifndef OS_ADDRESS_H
#define OS_ADDRESS_H

#include <stdbool.h>

struct error;

/* Whether the text is one of the three forms; says nothing of whether there is such a host or path. */
bool address_check(const char *address, struct error **err);
/* Whether it is one of the last two forms. */
bool address_is_connected(const char *address);
/* A connection, close-on-exec, which the caller closes. -1 and *err on failure. `fd:N` is taken over. */
int address_connect(const char *address, struct error **err);
/*
 * A listening socket, close-on-exec. A socket file that nobody listens on is replaced; the new one is for its
 * owner only, and the caller removes it. Not for what is
 * connected. -1 and *err on failure.
 */
int address_listen(const char *address, struct error **err);
/* Passes a descriptor on to who connects as "pass:PATH" and was accepted as `client`. False and *err. */
bool address_pass(int client, int fd, struct error **err);
/* HOST of "tcp:HOST:PORT", without brackets, owned by the caller; NULL for another form. */
char *address_host(const char *address);
/* The path of "unix:PATH"; NULL for another form. Points into `address`. */
const char *address_path(const char *address);

#endif
