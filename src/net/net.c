/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Choosing a network back end by name, and passing calls on to it. */
#include "net/net.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "net/backend.h"

struct net *net_open(const char *spec, struct error **err)
{
    size_t len = strcspn(spec, ",");
    for (const struct net_ops *const *ops = net_backends; *ops; ops++) {
        if (strlen((*ops)->name) != len || strncmp((*ops)->name, spec, len) != 0)
            continue;
        struct net *net = (*ops)->open(spec[len] ? spec + len + 1 : "", err);
        if (net)
            net->ops = *ops;
        return net;
    }
    error_set(err, EINVAL, "there is no network back end \"%.*s\"", (int)len, spec);
    return NULL;
}

void net_attach(struct net *net, const struct net_client *client)
{
    net->client = *client;
    net->ops->attach(net);
}

bool net_link_up(const struct net *net)
{
    return net->link_up;
}

void net_close(struct net *net)
{
    if (net)
        net->ops->close(net);
}

size_t net_frame_limit(const struct net *net)
{
    return net->frame_limit;
}

void net_send(struct net *net, const struct iovec *iov, int count)
{
    net->ops->send(net, iov, count);
}

void net_rx_ready(struct net *net)
{
    net->ops->rx_ready(net);
}
