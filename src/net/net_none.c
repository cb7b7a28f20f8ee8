/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The back end "none": a cable that is not plugged in. */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "net/backend.h"

static struct net *none_open(const char *options, struct error **err)
{
    if (*options) {
        error_set(err, EINVAL, "the network \"none\" has no option \"%s\"", options);
        return NULL;
    }
    struct net *net = calloc(1, sizeof(*net));
    if (!net) {
        error_set_errno(err, ENOMEM, "cannot open the network \"none\"");
        return NULL;
    }
    net->frame_limit = NET_FRAME_MAX;
    return net;
}

static void none_attach(struct net *net)
{
}

static void none_send(struct net *net, const struct iovec *iov, int count)
{
}

static void none_rx_ready(struct net *net)
{
}

static void none_close(struct net *net)
{
    free(net);
}

extern const struct net_ops net_none_ops;
const struct net_ops net_none_ops = {
    .name = "none",
    .open = none_open,
    .attach = none_attach,
    .send = none_send,
    .rx_ready = none_rx_ready,
    .close = none_close,
};
