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

struct reader {
    int fd;
    int timeout_ms;
    size_t used;
    char buf[16384]; /* an answer of ours fits many times */
};

/* The next line as JSON; NULL and *err when there is none in time. The caller owns the reference. */
static json_t *read_message(struct reader *r, struct error **err)
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

/* Sends {"execute": command} and skips events up to the answer. */
static bool execute(struct reader *r, const char *command, struct error **err)
{
    char line[128];
    int len = snprintf(line, sizeof(line), "{\"execute\": \"%s\"}\n", command);
    if (send(r->fd, line, (size_t)len, MSG_NOSIGNAL) != len)
        return error_set_errno(err, errno, "send to the machine"), false;
    for (;;) {
        json_t *o = read_message(r, err);
        if (!o)
            return false;
        bool done = json_object_get(o, "return") != NULL;
        const json_t *refusal = json_object_get(o, "error");
        if (refusal) {
            const char *text = json_string_value(json_object_get(refusal, "desc"));
            error_set(err, 0, "%s", text ? text : "the machine refused");
        }
        json_decref(o);
        if (done || refusal)
            return done;
    }
}

bool control_execute(const char *socket_path, const char *command, int timeout_ms, struct error **err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof(addr.sun_path))
        return error_set(err, ENAMETOOLONG, "connect to '%s': the path is too long", socket_path), false;
    memcpy(addr.sun_path, socket_path, strlen(socket_path) + 1);
    cleanup(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return error_set_errno(err, errno, "connect to '%s'", socket_path), false;
    struct reader r = {.fd = fd, .timeout_ms = timeout_ms};
    struct error *why = NULL;
    json_t *greeting = read_message(&r, &why);
    json_decref(greeting);
    if (greeting && execute(&r, "qmp_capabilities", &why) && execute(&r, command, &why))
        return true;
    return error_prefix(err, why, "%s", command), false;
}
