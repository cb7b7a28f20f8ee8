/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Byte-stream back ends for serial ports and consoles: none, a pair of file descriptors (stdio or a socket
 * handed over), a file (output only), a listening Unix socket (one client at a time, others are turned away).
 */
#ifndef OS_CHARDEV_H
#define OS_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct loop;
struct chardev;

/* The front end. Called on the loop's thread with its lock held. */
struct chardev_client {
    void *opaque;
    /* How many bytes it can take now. When it was 0, the front end calls chardev_accept_input later. */
    size_t (*can_receive)(void *opaque);
    void (*receive)(void *opaque, const uint8_t *data, size_t len);
    /* The peer came or went. May be NULL. */
    void (*connected)(void *opaque, bool yes);
    /* Output that had to wait has gone out, so chardev_backlog is 0. May be NULL. */
    void (*drained)(void *opaque);
};

/* spec: "none", "stdio", "fd:N", "file:PATH", "unix:PATH". An existing stale socket is replaced, a live one
 * is an error. */
struct chardev *chardev_open(const char *spec, struct loop *loop, struct error **err);
void chardev_attach(struct chardev *c, const struct chardev_client *client);
void chardev_accept_input(struct chardev *c);
/*
 * Has all output from now on kept in a log (os/text_log.h) as well; a client that connects to a listening
 * socket then first gets the end of it. To be called once, before there is output.
 */
bool chardev_log(struct chardev *c, const char *path, struct error **err);
/* Bytes of output that wait for the peer. A front end whose guest can wait gives no more when they are many.
 */
size_t chardev_backlog(const struct chardev *c);
/*
 * Output never blocks the guest. Single bytes are gathered for up to half a millisecond; what the peer does
 * not take is kept up to 1 MiB, then the oldest is dropped; with no peer it vanishes, but for a log.
 */
void chardev_write(struct chardev *c, const uint8_t *data, size_t len);
/* Writes out what can be written within 100 ms, closes, removes a socket it made. */
void chardev_close(struct chardev *c);
/* For query-chardev. Owned by c. */
const char *chardev_spec(const struct chardev *c);

#endif
