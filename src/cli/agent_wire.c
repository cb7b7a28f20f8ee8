/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Conversations with guest agents: see agent_wire.h; QEMU's docs/interop/qemu-ga-ref. */
#include "cli/agent_wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/control.h"
#include "cli/interrupt.h"
#include "cli/print.h"
#include "os/loop.h"

#define MARK          '\xff' /* stands in no JSON: begins a conversation */
#define STRUCTURE_MAX 20000u /* members in a reply, each of which takes memory many times its text's */
#define RATE_MIN      256    /* bytes a millisecond: what is no slower may take its time */
#define SLICE_MS      200

struct agent_wire {
    int fd;
    int64_t deadline; /* in ms */
    size_t reply_max;
    char *buf;
    size_t used, size, scanned; /* in buf[0..scanned) there is no end of a line */
};

static int64_t now_ms(void)
{
    return (int64_t)(monotonic_ns() / 1000000);
}

static bool wait_ready(const struct agent_wire *w, short events, struct error **err)
{
    struct pollfd p = {.fd = w->fd, .events = events};
    for (;;) {
        int64_t left = w->deadline - now_ms();
        if (interrupt_pending())
            return error_set(err, EINTR, "interrupted"), false;
        if (left <= 0)
            return error_set(err, ETIMEDOUT, "it does not answer"), false;
        if (poll(&p, 1, (int)MIN(left, SLICE_MS)) > 0)
            return true;
    }
}

static bool send_bytes(struct agent_wire *w, const char *data, size_t len, struct error **err)
{
    while (len) {
        if (!wait_ready(w, POLLOUT, err))
            return false;
        ssize_t n = send(w->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return error_set_errno(err, ECONNRESET, "send to it"), false;
        n = MAX(n, 0);
        data += n;
        len -= (size_t)n;
        w->deadline += n / RATE_MIN;
    }
    return true;
}

static bool grow(struct agent_wire *w, struct error **err)
{
    size_t size = w->size ? 2 * w->size : 16384;
    char *buf = realloc(w->buf, size);
    if (!buf)
        return error_set_errno(err, ENOMEM, "keep its reply"), false;
    w->buf = buf;
    w->size = size;
    return true;
}

static bool receive(struct agent_wire *w, struct error **err)
{
    if (w->used > w->reply_max)
        return error_set(err, EPROTO, "its reply is longer than any should be"), false;
    if ((w->used == w->size && !grow(w, err)) || !wait_ready(w, POLLIN, err))
        return false;
    ssize_t n = recv(w->fd, w->buf + w->used, w->size - w->used, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        return error_set(err, ECONNRESET,
                         "the connection was closed: another program uses it, or the machine has ended"),
               false;
    w->used += (size_t)MAX(n, 0);
    return true;
}

static void drop(struct agent_wire *w, size_t n)
{
    memmove(w->buf, w->buf + n, w->used - n);
    w->used -= n;
    w->scanned = 0;
}

/* A reply as JSON; NULL for what is none or could cost more memory than a reply is worth. */
static json_t *parse(const char *text, size_t len)
{
    size_t members = 0;
    for (size_t i = 0; i < len; i++)
        members += text[i] == ',' || text[i] == '[' || text[i] == '{';
    return members > STRUCTURE_MAX ? NULL : json_loadb(text, len, 0, NULL);
}

/* The next line as an object; NULL and *err when there is none in time. */
static json_t *read_reply(struct agent_wire *w, struct error **err)
{
    for (;;) {
        char *end = memchr(w->buf + w->scanned, '\n', w->used - w->scanned);
        if (end) {
            size_t len = (size_t)(end - w->buf);
            json_t *o = parse(w->buf, len);
            drop(w, len + 1);
            if (!json_is_object(o)) {
                json_decref(o);
                error_set(err, EPROTO, "its reply is not what the protocol has");
                return NULL;
            }
            return o;
        }
        w->scanned = w->used;
        if (!receive(w, err))
            return NULL;
        w->deadline += (int64_t)(w->used - w->scanned) / RATE_MIN;
    }
}

/* Throws away all up to the mark and it, however much that is within the time. */
static bool skip_to_mark(struct agent_wire *w, struct error **err)
{
    for (;;) {
        const char *mark = w->used ? memchr(w->buf, MARK, w->used) : NULL;
        drop(w, mark ? (size_t)(mark - w->buf) + 1 : w->used);
        if (mark)
            return true;
        if (!receive(w, err))
            return false;
    }
}

static bool send_request(struct agent_wire *w, const json_t *request, struct error **err)
{
    cleanup(mem) char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    if (!text)
        return error_set(err, EINVAL, "send to it: the request is no JSON"), false;
    size_t len = strlen(text);
    text[len] = '\n'; /* ends the message as well as the NUL did */
    return send_bytes(w, text, len + 1, err);
}

/* The mark makes the agent forget what half a request it may have of an earlier conversation; in front of its
 * reply it ends what the agent may have had to say in that. */
static bool synchronise(struct agent_wire *w, struct error **err)
{
    json_int_t id = (json_int_t)(monotonic_ns() & INT32_MAX);
    json_t *request = json_pack("{s:s, s:{s:I}}", "execute", "guest-sync-delimited", "arguments", "id", id);
    const char mark = MARK;
    bool ok = send_bytes(w, &mark, 1, err) && send_request(w, request, err), same = false;
    json_decref(request);
    while (ok && !same) {
        int64_t deadline = w->deadline; /* no reply here is long enough to move it */
        json_t *o = NULL;
        struct error *why = NULL;
        ok = skip_to_mark(w, err) && ((o = read_reply(w, &why)) || why->code == EPROTO);
        same = json_integer_value(json_object_get(o, "return")) == id;
        w->deadline = deadline;
        json_decref(o);
        if (ok)
            error_free(why);
        else if (why)
            error_prefix(err, why, "begin");
    }
    return ok;
}

struct agent_wire *agent_wire_open(const char *socket_path, int timeout_ms, struct error **err)
{
    cleanup(fd) int fd = control_connect(socket_path, err);
    struct agent_wire *w = fd >= 0 ? calloc(1, sizeof(*w)) : NULL;
    if (fd < 0)
        return NULL;
    if (!w)
        return error_set_errno(err, ENOMEM, "connect to '%s'", socket_path), NULL;
    w->fd = steal_fd(&fd);
    w->reply_max = AGENT_REPLY;
    w->deadline = now_ms() + timeout_ms;
    if (grow(w, err) && synchronise(w, err))
        return w;
    agent_wire_close(w);
    return NULL;
}

void agent_wire_close(struct agent_wire *w)
{
    if (!w)
        return;
    close(w->fd);
    free(w->buf);
    free(w);
}

json_t *agent_wire_call(struct agent_wire *w, const char *command, json_t *arguments, size_t reply_max,
                        int timeout_ms, struct error **err)
{
    json_t *request = json_pack("{s:s, s:o*}", "execute", command, "arguments", arguments);
    w->reply_max = reply_max;
    w->deadline = now_ms() + timeout_ms;
    bool sent = send_request(w, request, err);
    json_decref(request);
    json_t *o = sent ? read_reply(w, err) : NULL;
    if (!o)
        return NULL;
    json_t *value = json_incref(json_object_get(o, "return"));
    const char *refusal = json_string_value(json_object_get(json_object_get(o, "error"), "desc"));
    cleanup(mem) char *text = refusal ? print_harmless(refusal) : NULL;
    if (!value && text)
        error_set(err, EREMOTEIO, "it says: %s", text);
    else if (!value)
        error_set(err, EPROTO, "its reply is not what the protocol has");
    json_decref(o);
    return value;
}
