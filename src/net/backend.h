/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a network back end gives to net.c. `user` in src/net/meson.build stands for the symbol `net_user_ops`.
 */
#ifndef NET_BACKEND_H
#define NET_BACKEND_H

#include "net/net.h"

struct net_ops {
    const char *name;
    /* `options`: what follows "NAME," in the text of --net; "" when nothing does. Frames flow only after
     * attach. */
    struct net *(*open)(const char *options, struct error **err);
    /* net->client is set. */
    void (*attach)(struct net *net);
    /* As in net.h. */
    void (*send)(struct net *net, const struct iovec *iov, int count);
    void (*rx_ready)(struct net *net);
    void (*close)(struct net *net);
};

/* A back end's own struct begins with it. */
struct net {
    const struct net_ops *ops;
    struct net_client client;
    size_t frame_limit;
    bool link_up;
};

/* Generated, ends with NULL. */
extern const struct net_ops *const net_backends[];

#endif
