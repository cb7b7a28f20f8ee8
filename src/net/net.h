/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Network back ends: Ethernet frames in and out. A back end never knows what is in front of it. One back end
 * is one file with one struct net_ops (backend.h), listed in src/net/meson.build.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct error;
struct net;

#define NET_FRAME_MAX (65536 + 64)

/* What the front end gives at open. */
struct net_client {
    void *opaque;
    /*
     * A frame for the guest, complete with checksums. The back end's own thread, no lock held; the callee
     * takes its locks. Returns false when there is no room now: the back end keeps the frame, within bounds,
     * and goes on after net_rx_ready.
     */
    bool (*receive)(void *opaque, const uint8_t *frame, size_t len);
    /* The link came up or went down, after net_attach returned; same thread. May be NULL. */
    void (*link)(void *opaque, bool up);
};

/* Opens from the text of --net, e.g. "user,forward=tcp:127.0.0.1:2222:22". NULL and *err (a busy port is
 * named). */
struct net *net_open(const char *spec, struct error **err);
/* Connects the front end (once, before frames flow). */
void net_attach(struct net *net, const struct net_client *client);
/* Is the link up when attached? */
bool net_link_up(const struct net *net);
/*
 * Stops the back end's thread and frees; may be NULL. `receive` may be called until it returns, so the caller
 * holds no lock that receive waits for without end.
 */
void net_close(struct net *net);

/* The longest frame that net_send takes: TCP segments larger than that must be split. At most NET_FRAME_MAX.
 */
size_t net_frame_limit(const struct net *net);
/*
 * A frame from the guest; copied before it returns. Any thread. Frames must be complete: no offloads left to
 * do. What the back end has no room for is dropped, as on a wire.
 */
void net_send(struct net *net, const struct iovec *iov, int count);
/* The front end has room again. Any thread. */
void net_rx_ready(struct net *net);

#endif
