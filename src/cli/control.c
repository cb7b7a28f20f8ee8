/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Client of the control socket: see control.h. */
#include "cli/control.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

struct control {
    int fd;
    int timeout_ms;
    size_t used;
    char buf[16384]; /* an answer of ours fits many times */
};

/* The next line as JSON; NULL and *err when there is none in time. The caller owns the reference. */
static json_t *read_message(struct control *r, struct error **err)
{
    for (;;) {
        char *end = memchr(r->buf, '\n', r->used);
        if (end) {
            size_t len = (size_t)(end - r->buf) + 1;
            json_t *o = json_loadb(r->buf, len - 1, 0, NULL);
            memmove(r->buf, r->buf + len, r->used - len);
            r->used -= len;
            if (!o)
                error_set(err, EPROTO, "the machine's answer is no JSON");
            return o;
        }
        struct pollfd p = {.fd = r->fd, .events = POLLIN};
        int ready = poll(&p, 1, r->timeout_ms);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return error_set(err, ETIMEDOUT, "the machine does not answer"), NULL;
        ssize_t n = recv(r->fd, r->buf + r->used, sizeof(r->buf) - r->used, 0);
        if (n <= 0)
            return error_set(err, ECONNRESET, "the machine closed the connection"), NULL;
        r->used += (size_t)n;
    }
}

static bool send_line(struct control *r, json_t *request, struct error **err)
{
    cleanup(mem) char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    if (!text)
        return error_set(err, EINVAL, "send to the machine: the command is no JSON"), false;
    size_t len = strlen(text);
    text[len] = '\n'; /* ends the message as well as the NUL did */
    if (send(r->fd, text, len + 1, MSG_NOSIGNAL) != (ssize_t)(len + 1))
        return error_set_errno(err, errno, "send to the machine"), false;
    return true;
}

json_t *control_call(struct control *r, const char *command, json_t *arguments, struct error **err)
{
    json_t *request = json_pack("{s:s, s:o*}", "execute", command, "arguments", arguments);
    bool sent = send_line(r, request, err);
    json_decref(request);
    while (sent) {
        json_t *o = read_message(r, err);
        if (!o)
            return NULL;
        json_t *value = json_incref(json_object_get(o, "return"));
        const json_t *refusal = json_object_get(o, "error");
        if (refusal) {
            const char *text = json_string_value(json_object_get(refusal, "desc"));
            error_set(err, 0, "%s", text ? text : "the machine refused");
        }
        bool done = value || refusal; /* else it is an event */
        json_decref(o);
        if (done)
            return value;
    }
    return NULL;
}

bool control_command(struct control *c, const char *command, struct error **err)
{
    json_t *value = control_call(c, command, NULL, err);
    json_decref(value);
    return value != NULL;
}

int control_connect(const char *socket_path, struct error **err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof(addr.sun_path))
        return error_set(err, ENAMETOOLONG, "connect to '%s': the path is too long", socket_path), -1;
    memcpy(addr.sun_path, socket_path, strlen(socket_path) + 1);
    cleanup(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return error_set_errno(err, errno, "connect to '%s'", socket_path), -1;
    return steal_fd(&fd);
}

struct control *control_open(const char *socket_path, int timeout_ms, struct error **err)
{
    cleanup(fd) int fd = control_connect(socket_path, err);
    if (fd < 0)
        return NULL;
    struct control *r = calloc(1, sizeof(*r));
    if (!r)
        return error_set_errno(err, ENOMEM, "connect to '%s'", socket_path), NULL;
    r->fd = steal_fd(&fd);
    r->timeout_ms = timeout_ms;
    json_t *greeting = read_message(r, err);
    json_t *agreed = greeting ? control_call(r, "qmp_capabilities", NULL, err) : NULL;
    json_decref(greeting);
    json_decref(agreed);
    if (agreed)
        return r;
    control_close(r);
    return NULL;
}

void control_close(struct control *r)
{
    if (!r)
        return;
    close(r->fd);
    free(r);
}

bool control_execute(const char *socket_path, const char *command, int timeout_ms, struct error **err)
{
    struct error *why = NULL;
    struct control *r = control_open(socket_path, timeout_ms, &why);
    if (r)
        control_command(r, command, &why);
    control_close(r);
    if (!why)
        return true;
    return error_prefix(err, why, "%s", command), false;
}
