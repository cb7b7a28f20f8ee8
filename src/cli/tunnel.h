/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ruche-tunnel: TLS between two hosts that move a machine. A program of its own, so that `ruche` need not
 * load what it takes. It speaks TLS on one connected socket and carries what comes out of it to another.
 */
#ifndef CLI_TUNNEL_H
#define CLI_TUNNEL_H

#include <gnutls/gnutls.h>
#include <stdbool.h>

struct error;

/* How the ends prove who they are: by a key that both have, or by certificates of one authority. */
struct tunnel_identity {
    const char *psk;             /* file with the key in hexadecimal; NULL: certificates */
    const char *cert, *key, *ca; /* PEM files */
    const char *host; /* the client's: what the server's certificate must be for; NULL: not looked at */
};

struct tunnel {
    gnutls_session_t session;
    gnutls_certificate_credentials_t certificates; /* one of these three, or NULL */
    gnutls_psk_client_credentials_t psk_client;
    gnutls_psk_server_credentials_t psk_server;
};

/* Makes the connection on `net` a safe one; both ends have shown who they are. False and *err, with nothing
 * to release. */
bool tunnel_open(struct tunnel *t, int net, bool server, const struct tunnel_identity *who,
                 struct error **err);
/* Carries bytes both ways until both directions have ended, or false and *err when one broke. */
bool tunnel_carry(struct tunnel *t, int net, int local, struct error **err);
void tunnel_close(struct tunnel *t);

#endif
