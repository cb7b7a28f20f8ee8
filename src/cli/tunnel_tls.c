/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS by GnuTLS: see tunnel.h. Version 1.3 and nothing older. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "catalog/file.h"
#include "cli/tunnel.h"

#define PRIORITY_PSK  "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+DHE-PSK"
#define PRIORITY_X509 "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define PSK_NAME      "ruche"
#define PSK_TEXT_MAX  1024
#define PSK_MIN       16 /* bytes: what is shorter can be guessed */
#define HANDSHAKE_MS  10000
#define CHUNK         (64 * 1024)

static bool tls_error(int code, const char *what, struct error **err)
{
    error_set(err, EPROTO, "%s: %s", what, gnutls_strerror(code));
    return false;
}

/* The key of a file. Owned by the caller: gnutls_free(key->data). */
static bool read_psk(const char *path, gnutls_datum_t *key, struct error **err)
{
    cleanup(mem) char *text = catalog_read_text(path, PSK_TEXT_MAX, err);
    if (!text)
        return false;
    text[strcspn(text, " \t\r\n")] = 0;
    const gnutls_datum_t hex = {(unsigned char *)text, (unsigned)strlen(text)};
    int code = gnutls_hex_decode2(&hex, key);
    explicit_bzero(text, hex.size);
    if (code == 0 && key->size >= PSK_MIN)
        return true;
    if (code == 0)
        gnutls_free(key->data);
    error_set(err, EINVAL,
              "'%s' is no key: at least %d bytes in hexadecimal are wanted (openssl rand -hex 32)", path,
              PSK_MIN);
    return false;
}

/* The server is asked for the key of whoever comes; there is the one. */
static int give_psk(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
    const struct tunnel_identity *who = gnutls_session_get_ptr(session);
    (void)name;
    return read_psk(who->psk, key, NULL) ? 0 : GNUTLS_E_INTERNAL_ERROR;
}

static bool use_psk(struct tunnel *t, bool server, const struct tunnel_identity *who, struct error **err)
{
    gnutls_datum_t key;
    int code = 0;
    if (!read_psk(who->psk, &key, err))
        return false;
    if (server) {
        code = gnutls_psk_allocate_server_credentials(&t->psk_server);
        if (code == 0) {
            gnutls_psk_set_server_credentials_function(t->psk_server, give_psk);
            code = gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, t->psk_server);
        }
    } else {
        code = gnutls_psk_allocate_client_credentials(&t->psk_client);
        if (code == 0)
            code = gnutls_psk_set_client_credentials(t->psk_client, PSK_NAME, &key, GNUTLS_PSK_KEY_RAW);
        if (code == 0)
            code = gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, t->psk_client);
    }
    gnutls_memset(key.data, 0, key.size);
    gnutls_free(key.data);
    return code == 0 || tls_error(code, "cannot use the key", err);
}

static bool use_certificates(struct tunnel *t, bool server, const struct tunnel_identity *who,
                             struct error **err)
{
    int code = gnutls_certificate_allocate_credentials(&t->certificates);
    if (code == 0)
        code = gnutls_certificate_set_x509_trust_file(t->certificates, who->ca, GNUTLS_X509_FMT_PEM);
    if (code <= 0)
        return tls_error(code ? code : GNUTLS_E_NO_CERTIFICATE_FOUND, who->ca, err);
    code = gnutls_certificate_set_x509_key_file(t->certificates, who->cert, who->key, GNUTLS_X509_FMT_PEM);
    if (code < 0)
        return tls_error(code, who->cert, err);
    code = gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, t->certificates);
    if (server)
        gnutls_certificate_server_set_request(t->session, GNUTLS_CERT_REQUIRE);
    if (who->host)
        gnutls_server_name_set(t->session, GNUTLS_NAME_DNS, who->host, strlen(who->host));
    gnutls_session_set_verify_cert(t->session, who->host, 0);
    return code == 0 || tls_error(code, who->cert, err);
}

static bool shake_hands(struct tunnel *t, struct error **err)
{
    int code;
    do
        code = gnutls_handshake(t->session);
    while (code < 0 && !gnutls_error_is_fatal(code));
    if (code == 0)
        return true;
    if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
        gnutls_datum_t why = {0};
        gnutls_certificate_verification_status_print(gnutls_session_get_verify_cert_status(t->session),
                                                     GNUTLS_CRT_X509, &why, 0);
        error_set(err, EACCES, "the other end's certificate: %s", why.data ? (char *)why.data : "not valid");
        gnutls_free(why.data);
        return false;
    }
    return tls_error(code, "the two ends do not agree on who they are", err);
}

bool tunnel_open(struct tunnel *t, int net, bool server, const struct tunnel_identity *who,
                 struct error **err)
{
    *t = (struct tunnel){0};
    int code = gnutls_init(&t->session, server ? GNUTLS_SERVER : GNUTLS_CLIENT);
    if (code < 0)
        return tls_error(code, "cannot begin TLS", err);
    gnutls_session_set_ptr(t->session, (void *)(uintptr_t)who);
    code = gnutls_priority_set_direct(t->session, who->psk ? PRIORITY_PSK : PRIORITY_X509, NULL);
    gnutls_transport_set_int(t->session, net);
    gnutls_handshake_set_timeout(t->session, HANDSHAKE_MS);
    bool ok = (code == 0 || tls_error(code, "cannot begin TLS", err)) &&
              (who->psk ? use_psk(t, server, who, err) : use_certificates(t, server, who, err)) &&
              shake_hands(t, err);
    if (!ok)
        tunnel_close(t);
    return ok;
}

void tunnel_close(struct tunnel *t)
{
    if (t->session)
        gnutls_deinit(t->session);
    if (t->certificates)
        gnutls_certificate_free_credentials(t->certificates);
    if (t->psk_client)
        gnutls_psk_free_client_credentials(t->psk_client);
    if (t->psk_server)
        gnutls_psk_free_server_credentials(t->psk_server);
    *t = (struct tunnel){0};
}

/* One direction: bytes that were read and not yet written. */
struct flow {
    char data[CHUNK];
    size_t from, to;
    bool ended, told; /* no more will be read; the other side knows it */
};

static bool waits(int code)
{
    return code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED;
}

static bool from_net(struct tunnel *t, struct flow *f, struct error **err)
{
    if (f->to || f->ended)
        return true;
    ssize_t n = gnutls_record_recv(t->session, f->data, sizeof(f->data));
    if (n < 0 && gnutls_error_is_fatal((int)n))
        return tls_error((int)n, "the connection broke", err);
    f->to = n > 0 ? (size_t)n : 0;
    f->ended = n == 0;
    return true;
}

static bool to_net(struct tunnel *t, struct flow *f, struct error **err)
{
    while (f->from < f->to) {
        ssize_t n = gnutls_record_send(t->session, f->data + f->from, f->to - f->from);
        if (n < 0 && waits((int)n))
            return true;
        if (n < 0)
            return tls_error((int)n, "the connection broke", err);
        f->from += (size_t)n;
    }
    f->from = f->to = 0;
    if (f->ended && !f->told)
        f->told = !waits(gnutls_bye(t->session, GNUTLS_SHUT_WR));
    return true;
}

static bool from_local(int fd, struct flow *f, struct error **err)
{
    if (f->to || f->ended)
        return true;
    ssize_t n = recv(fd, f->data, sizeof(f->data), MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return error_set_errno(err, errno, "the machine's end broke"), false;
    f->to = n > 0 ? (size_t)n : 0;
    f->ended = n == 0;
    return true;
}

static bool to_local(int fd, struct flow *f, struct error **err)
{
    while (f->from < f->to) {
        ssize_t n = send(fd, f->data + f->from, f->to - f->from, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n < 0)
            return error_set_errno(err, errno, "the machine's end broke"), false;
        f->from += (size_t)n;
    }
    f->from = f->to = 0;
    if (f->ended && !f->told) {
        shutdown(fd, SHUT_WR);
        f->told = true;
    }
    return true;
}

/* Until there is something to do. */
static void wait_for_work(struct tunnel *t, int net, int local, const struct flow *in, const struct flow *out)
{
    struct pollfd p[2] = {{.fd = net}, {.fd = local}};
    p[0].events = (short)((in->to || in->ended ? 0 : POLLIN) | (out->to ? POLLOUT : 0));
    p[1].events = (short)((out->to || out->ended ? 0 : POLLIN) | (in->to ? POLLOUT : 0));
    bool lies_ready = !in->to && !in->ended && gnutls_record_check_pending(t->session);
    /* One that has ended on both sides would wake us for ever. */
    for (size_t i = 0; i < ARRAY_SIZE(p); i++)
        if (!p[i].events)
            p[i].fd = -1;
    poll(p, 2, lies_ready ? 0 : -1);
}

bool tunnel_carry(struct tunnel *t, int net, int local, struct error **err)
{
    static struct flow in, out;
    while (!in.told || !out.told) {
        if (!from_net(t, &in, err) || !to_local(local, &in, err) || !from_local(local, &out, err) ||
            !to_net(t, &out, err))
            return false;
        if (!in.told || !out.told)
            wait_for_work(t, net, local, &in, &out);
    }
    return true;
}
