/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The control socket's listener, clients and their buffers: see qmp.h. */
#include "vmm/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/util.h"
#include "os/loop.h"
#include "vmm/qmp_message.h"

struct client {
    struct qmp *qmp;
    struct client *next;
    int fd; /* -1: cut off, to be freed */
    bool negotiated, input_ended;
    bool mute;       /* it does not listen any more; what it sent before is still done */
    uint32_t events; /* what the loop watches for */
    struct qmp_scan scan;
    size_t in_len;
    char in[QMP_INPUT_MAX];
    char *out; /* [out_start, out_len) is still to be sent */
    size_t out_start, out_len, out_cap;
};

struct qmp {
    struct loop *loop;
    const struct control_ops *ops;
    void *opaque;
    int listener;
    bool accepting;
    char *path; /* owned; NULL: the socket was handed over */
    struct client *clients;
    unsigned client_count;
    unsigned busy; /* inside functions that hold client pointers: nothing is freed */
};

static void cut_off(struct client *c)
{
    if (c->fd < 0)
        return;
    loop_fd_remove(c->qmp->loop, c->fd);
    close(steal_fd(&c->fd));
}

static void listen_on(struct qmp *qmp, bool on);

/* Frees clients that are cut off, unless someone up the stack still looks at them. */
static void reap(struct qmp *qmp)
{
    if (qmp->busy)
        return;
    for (struct client **p = &qmp->clients; *p;) {
        struct client *c = *p;
        if (c->fd >= 0) {
            p = &c->next;
            continue;
        }
        *p = c->next;
        free(c->out);
        free(c);
        qmp->client_count--;
    }
    if (qmp->client_count < QMP_CLIENT_MAX)
        listen_on(qmp, true);
}

static void watch(struct client *c)
{
    bool backlog = c->out_len > c->out_start;
    bool full = c->out_len - c->out_start > QMP_OUTPUT_HIGH;
    uint32_t events = (backlog ? EPOLLOUT : 0) | (full || c->input_ended ? 0 : EPOLLIN);

    if (c->fd < 0 || events == c->events)
        return;
    c->events = events;
    loop_fd_change(c->qmp->loop, c->fd, events);
}

static void flush(struct client *c)
{
    while (c->fd >= 0 && c->out_start < c->out_len) {
        ssize_t n =
            send(c->fd, c->out + c->out_start, c->out_len - c->out_start, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            c->mute = true;
            c->out_start = c->out_len = 0;
        } else {
            c->out_start += (size_t)n;
        }
    }
    if (c->out_start == c->out_len) {
        c->out_start = c->out_len = 0;
        if (c->input_ended)
            cut_off(c);
    }
    watch(c);
}

static bool make_room(struct client *c, size_t len)
{
    if (c->out_start > 0) {
        memmove(c->out, c->out + c->out_start, c->out_len - c->out_start);
        c->out_len -= c->out_start;
        c->out_start = 0;
    }
    if (c->out_cap - c->out_len >= len)
        return true;
    if (c->out_len + len > QMP_OUTPUT_MAX)
        return false;
    size_t cap = MIN(MAX(c->out_cap * 2, round_up(c->out_len + len, 4 * KIB)), (size_t)QMP_OUTPUT_MAX);
    char *grown = realloc(c->out, cap);
    if (!grown)
        return false;
    c->out = grown;
    c->out_cap = cap;
    return true;
}

/* Queues and sends one message; takes `message` over. A client that does not read is cut off. */
static void send_message(struct client *c, json_t *message)
{
    cleanup(mem) char *text = message ? json_dumps(message, 0) : NULL;
    size_t len = text ? strlen(text) : 0;

    json_decref(message);
    if (c->fd < 0 || c->mute)
        return;
    if (!text || !make_room(c, len + 2)) {
        log_line(LOG_WARN, "control socket: a client that does not read was cut off");
        cut_off(c);
        return;
    }
    memcpy(c->out + c->out_len, text, len);
    memcpy(c->out + c->out_len + len, "\r\n", 2);
    c->out_len += len + 2;
    flush(c);
}

static void drop_input(struct client *c, size_t n)
{
    memmove(c->in, c->in + n, c->in_len - n);
    c->in_len -= n;
}

/* Answers the complete messages in the input, as far as the client reads the replies. */
static void answer(struct client *c)
{
    while (c->fd >= 0 && c->out_len - c->out_start <= QMP_OUTPUT_HIGH) {
        if (c->scan.seen == 0) {
            size_t blank = 0;
            while (blank < c->in_len && strchr(" \t\r\n", c->in[blank]) && c->in[blank])
                blank++;
            drop_input(c, blank);
        }
        size_t n = qmp_scan(&c->scan, c->in, c->in_len);
        if (n == 0)
            break;
        json_t *reply = qmp_answer(c->qmp->ops, c->qmp->opaque, c->in, n, &c->negotiated);
        drop_input(c, n);
        send_message(c, reply);
    }
    if (c->fd >= 0 && c->in_len == sizeof(c->in) && c->scan.seen == c->in_len) {
        log_line(LOG_WARN, "control socket: a client that sent a message without end was cut off");
        cut_off(c);
    }
}

static void receive(struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_len, sizeof(c->in) - c->in_len, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        cut_off(c);
        return;
    }
    c->in_len += (size_t)n;
    c->input_ended = n == 0;
}

static void client_ready(void *opaque, int fd, uint32_t events)
{
    struct client *c = opaque;
    struct qmp *qmp = c->qmp;

    qmp->busy++;
    if (events & ~(uint32_t)EPOLLIN)
        flush(c);
    if (c->fd >= 0 && !c->input_ended && c->in_len < sizeof(c->in) && (c->events & EPOLLIN))
        receive(c);
    if (c->fd >= 0)
        answer(c);
    if (c->fd >= 0)
        flush(c);
    qmp->busy--;
    reap(qmp);
}

static void greet(struct client *c)
{
    send_message(c, json_pack("{s:{s:o, s:[]}}", "QMP", "version", qmp_version(), "capabilities"));
}

static void add_client(struct qmp *qmp, int fd)
{
    struct client *c = calloc(1, sizeof(*c));

    if (!c || !loop_fd_add(qmp->loop, fd, EPOLLIN, client_ready, c, NULL)) {
        free(c);
        close(fd);
        return;
    }
    c->qmp = qmp;
    c->fd = fd;
    c->events = EPOLLIN;
    c->next = qmp->clients;
    qmp->clients = c;
    qmp->client_count++;
    qmp->busy++;
    greet(c);
    qmp->busy--;
    reap(qmp);
}

static void client_arrives(void *opaque, int fd, uint32_t events)
{
    struct qmp *qmp = opaque;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (client >= 0)
        add_client(qmp, client);
    else if (qmp->client_count > 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        listen_on(qmp, false); /* until a client goes */
    if (qmp->client_count >= QMP_CLIENT_MAX)
        listen_on(qmp, false);
}

/* Further clients wait in the socket's backlog while it is off. */
static void listen_on(struct qmp *qmp, bool on)
{
    if (on == qmp->accepting || qmp->listener < 0)
        return;
    qmp->accepting = on;
    loop_fd_change(qmp->loop, qmp->listener, on ? EPOLLIN : 0);
}

void qmp_event(struct qmp *qmp, const char *name, json_t *data)
{
    struct timeval now;

    if (!qmp) {
        json_decref(data);
        return;
    }
    gettimeofday(&now, NULL);
    json_t *event = json_pack("{s:s, s:{s:I, s:I}}", "event", name, "timestamp", "seconds",
                              (json_int_t)now.tv_sec, "microseconds", (json_int_t)now.tv_usec);
    if (data)
        json_object_set_new(event, "data", data);
    qmp->busy++;
    for (struct client *c = qmp->clients; c; c = c->next)
        if (c->fd >= 0 && c->negotiated)
            send_message(c, json_incref(event));
    qmp->busy--;
    json_decref(event);
    reap(qmp);
}

/* Is a server behind the socket file? */
static bool is_live(const struct sockaddr_un *addr)
{
    cleanup(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd >= 0 && (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN);
}

/* Makes way for a new socket: removes one that nobody listens on, touches nothing else. */
static bool clear_path(const struct sockaddr_un *addr, struct error **err)
{
    struct stat st;

    if (lstat(addr->sun_path, &st) < 0)
        return true;
    if (!S_ISSOCK(st.st_mode)) {
        error_set(err, EEXIST, "cannot make the control socket %s: a file of that name exists",
                  addr->sun_path);
        return false;
    }
    if (is_live(addr)) {
        error_set(err, EADDRINUSE, "cannot make the control socket %s: another machine is using it",
                  addr->sun_path);
        return false;
    }
    unlink(addr->sun_path);
    return true;
}

static bool make_socket(struct qmp *qmp, const char *path, struct error **err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(addr.sun_path)) {
        error_set(err, ENAMETOOLONG,
                  "cannot make the control socket %s: the path is longer than %zu characters", path,
                  sizeof(addr.sun_path) - 1);
        return false;
    }
    memcpy(addr.sun_path, path, strlen(path) + 1);
    if (!clear_path(&addr, err))
        return false;
    cleanup(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* The mode of the socket's inode becomes the file's: there is no moment at which others could connect. */
    if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        error_set_errno(err, errno, "cannot make the control socket %s", path);
        return false;
    }
    if (listen(fd, SOMAXCONN) < 0 || !(qmp->path = strdup(path))) {
        error_set_errno(err, errno, "cannot make the control socket %s", path);
        unlink(path);
        return false;
    }
    qmp->listener = steal_fd(&fd);
    return true;
}

static bool adopt_socket(struct qmp *qmp, const char *number, struct error **err)
{
    uint64_t n;
    int listening = 0;
    socklen_t len = sizeof(listening);

    if (!parse_uint(number, &n) || n > INT32_MAX ||
        getsockopt((int)n, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening) {
        error_set(err, EINVAL, "cannot use control socket fd:%s: not a listening socket", number);
        return false;
    }
    qmp->listener = (int)n;
    fcntl(qmp->listener, F_SETFD, FD_CLOEXEC);
    fcntl(qmp->listener, F_SETFL, fcntl(qmp->listener, F_GETFL) | O_NONBLOCK);
    return true;
}

struct qmp *qmp_open(const char *where, struct loop *loop, const struct control_ops *ops, void *opaque,
                     struct error **err)
{
    struct qmp *qmp = calloc(1, sizeof(*qmp));

    if (!qmp) {
        error_set_errno(err, ENOMEM, "cannot make the control socket %s", where);
        return NULL;
    }
    *qmp = (struct qmp){.loop = loop, .ops = ops, .opaque = opaque, .listener = -1, .accepting = true};
    bool ok = strncmp(where, "fd:", 3) ? make_socket(qmp, where, err) : adopt_socket(qmp, where + 3, err);
    if (ok && loop_fd_add(loop, qmp->listener, EPOLLIN, client_arrives, qmp, err))
        return qmp;
    if (qmp->path)
        unlink(qmp->path);
    fd_cleanup(&qmp->listener);
    free(qmp->path);
    free(qmp);
    return NULL;
}

void qmp_close(struct qmp *qmp)
{
    if (!qmp)
        return;
    for (struct client *c = qmp->clients; c; c = c->next) {
        flush(c);
        cut_off(c);
    }
    loop_fd_remove(qmp->loop, qmp->listener);
    close(steal_fd(&qmp->listener));
    reap(qmp);
    if (qmp->path)
        unlink(qmp->path);
    free(qmp->path);
    free(qmp);
}
