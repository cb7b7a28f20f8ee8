/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Byte-stream back ends: see chardev.h. All of them come down to one input descriptor and one output
 * descriptor (the same for a socket, which comes and goes). A descriptor is watched only while there is
 * something to wait for, since a hung-up one would report that for ever.
 *
 * Single bytes, as a serial port gives them, are gathered for a moment. Output is never written in a way that
 * could block:
 *
 * - to a socket, by send(MSG_DONTWAIT);
 * - to a terminal or pipe, through a description of our own, reopened with O_NONBLOCK (setting that flag on
 * what we were handed would change it for everyone who shares it); where that fails, by small writes after
 * poll;
 * - to a regular file, by plain writes: it never waits for a peer, and epoll does not take it.
 */
#include "os/chardev.h"

#include "base/error.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/util.h"
#include "os/loop.h"
#include "os/text_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define OUTPUT_MAX    ((size_t)MIB)
#define INPUT_CHUNK   4096
#define POLLED_WRITE  4096 /* a pipe that polls writable takes this much without blocking */
#define CLOSE_WAIT_NS 100000000u
#define GATHER_SIZE   4096    /* so many single bytes go out together, */
#define GATHER_NS     500000u /* or as many as came within this time */
#define REPLAY_SIZE   16384   /* of the log, for who connects */

enum output_kind { OUTPUT_WRITE, OUTPUT_SEND, OUTPUT_POLLED };

struct end {
    int fd; /* -1: none */
    bool own;
    bool pollable;   /* epoll takes it */
    uint32_t events; /* watched for; 0: not with the loop */
};

struct chardev {
    struct loop *loop;
    char *spec;
    struct chardev_client client;
    bool attached;
    bool duplex; /* one socket: only `in` is watched, `out` has the same fd and owns nothing */
    struct end in, out;
    enum output_kind out_kind;

    int listen_fd;
    char *socket_path; /* to be removed at close */

    struct loop_timer pump; /* reads input that epoll does not take */

    uint8_t *ring; /* OUTPUT_MAX bytes, made when first needed */
    size_t ring_start, ring_len;
    bool blocked; /* the peer takes no more for now */
    bool losing;  /* output was lost, and that has been said */
    struct loop_timer gather;
    struct text_log *log; /* NULL: none */
};

static void on_fd(void *opaque, int fd, uint32_t events);

/* Watching. */

static size_t room(const struct chardev *c)
{
    return c->attached && c->client.can_receive ? c->client.can_receive(c->client.opaque) : 0;
}

static void watch_end(struct chardev *c, struct end *e, uint32_t events)
{
    if (e->fd < 0 || !e->pollable || events == e->events)
        return;
    if (!events) {
        loop_fd_remove(c->loop, e->fd);
    } else if (e->events) {
        loop_fd_change(c->loop, e->fd, events);
    } else {
        struct error *err = NULL;
        if (!loop_fd_add(c->loop, e->fd, events, on_fd, c, &err)) {
            log_line(LOG_ERROR, "%s: %s", c->spec, error_text(err));
            error_free(err);
            return;
        }
    }
    e->events = events;
}

/* Brings the loop in line with what there is to wait for now. */
static void update(struct chardev *c)
{
    bool hungry = c->in.fd >= 0 && room(c) > 0;
    uint32_t in = hungry ? EPOLLIN : 0;
    uint32_t out = c->blocked ? EPOLLOUT : 0;
    if (c->duplex) {
        watch_end(c, &c->in, in | out);
    } else {
        watch_end(c, &c->in, in);
        watch_end(c, &c->out, out);
    }
    if (hungry && !c->in.pollable && !c->pump.heap_index)
        loop_timer_arm(&c->pump, 0);
}

/* Whether epoll takes it: sockets, pipes, terminals, but no regular files, no /dev/null. */
static bool is_pollable(int fd)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    if (ep < 0)
        return false;
    struct epoll_event ev = {.events = EPOLLIN};
    bool yes = epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0;
    close(ep);
    return yes;
}

static bool is_socket(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

static void close_end(struct chardev *c, struct end *e)
{
    watch_end(c, e, 0);
    if (e->own && e->fd >= 0)
        close(e->fd);
    *e = (struct end){.fd = -1};
}

static void tell_connected(struct chardev *c, bool yes)
{
    if (c->attached && c->client.connected)
        c->client.connected(c->client.opaque, yes);
}

/* The peer is gone, in the direction `e`; a socket goes as a whole. */
static void drop(struct chardev *c, struct end *e)
{
    bool duplex = c->duplex;
    if (duplex || e == &c->out) {
        c->ring_len = 0;
        c->blocked = false;
    }
    if (duplex) {
        c->duplex = false;
        close_end(c, &c->in);
        close_end(c, &c->out);
        tell_connected(c, false);
    } else {
        close_end(c, e);
    }
}

/* Input. */

static void read_input(struct chardev *c)
{
    uint8_t buf[INPUT_CHUNK];
    size_t want = MIN(room(c), sizeof(buf));
    if (c->in.fd < 0 || !want)
        return;
    struct pollfd pfd = {.fd = c->in.fd, .events = POLLIN};
    if (poll(&pfd, 1, 0) <= 0)
        return; /* someone else who shares it was faster */
    ssize_t n = read(c->in.fd, buf, want);
    if (n > 0)
        c->client.receive(c->client.opaque, buf, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        drop(c, &c->in);
}

static void pump(void *opaque)
{
    struct chardev *c = opaque;
    read_input(c);
    update(c);
}

void chardev_accept_input(struct chardev *c)
{
    update(c);
}

/* Output. */

/* Bytes taken, 0 when it would block, -1 when the peer is gone. */
static ssize_t write_some(struct chardev *c, const uint8_t *data, size_t len)
{
    ssize_t n;
    if (c->out_kind == OUTPUT_SEND) {
        n = send(c->out.fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if (c->out_kind == OUTPUT_POLLED) {
        struct pollfd pfd = {.fd = c->out.fd, .events = POLLOUT};
        if (poll(&pfd, 1, 0) <= 0)
            return 0;
        n = write(c->out.fd, data, MIN(len, (size_t)POLLED_WRITE));
    } else {
        n = write(c->out.fd, data, len);
    }
    if (n >= 0)
        return n;
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    if (c->out.pollable || c->duplex)
        return -1;
    /* A full disk loses the text, it does not pile it up: what epoll does not take never becomes "writable".
     */
    if (!c->losing)
        log_line(LOG_WARN, "cannot write to %s, so output is lost: %s", c->spec, strerror(errno));
    c->losing = true;
    return (ssize_t)len;
}

static void flush(struct chardev *c)
{
    bool waited = c->blocked;
    c->blocked = false;
    while (c->out.fd >= 0 && c->ring_len) {
        size_t run = MIN(c->ring_len, OUTPUT_MAX - c->ring_start);
        ssize_t n = write_some(c, c->ring + c->ring_start, run);
        if (n < 0) {
            drop(c, &c->out);
            return;
        }
        if (n == 0) {
            c->blocked = true;
            return;
        }
        c->ring_start = (c->ring_start + (size_t)n) % OUTPUT_MAX;
        c->ring_len -= (size_t)n;
    }
    if (waited && c->attached && c->client.drained)
        c->client.drained(c->client.opaque);
}

static void gathered(void *opaque)
{
    struct chardev *c = opaque;
    if (c->log)
        text_log_flush(c->log);
    if (!c->blocked)
        flush(c);
    update(c);
}

/* Appends to the ring; the oldest goes when it is full. */
static void keep(struct chardev *c, const uint8_t *data, size_t len)
{
    if (!c->ring && !(c->ring = malloc(OUTPUT_MAX)))
        return;
    if (len > OUTPUT_MAX) {
        data += len - OUTPUT_MAX;
        len = OUTPUT_MAX;
    }
    if (c->ring_len + len > OUTPUT_MAX) {
        size_t oldest = c->ring_len + len - OUTPUT_MAX;
        c->ring_start = (c->ring_start + oldest) % OUTPUT_MAX;
        c->ring_len -= oldest;
    }
    size_t end = (c->ring_start + c->ring_len) % OUTPUT_MAX;
    size_t first = MIN(len, OUTPUT_MAX - end);
    memcpy(c->ring + end, data, first);
    memcpy(c->ring, data + first, len - first);
    c->ring_len += len;
}

size_t chardev_backlog(const struct chardev *c)
{
    return c->ring_len;
}

void chardev_write(struct chardev *c, const uint8_t *data, size_t len)
{
    if (!len || (c->out.fd < 0 && !c->log))
        return;
    if (c->log)
        text_log_write(c->log, data, len);
    if (c->out.fd >= 0)
        keep(c, data, len);
    if (c->blocked && !c->log)
        return;
    if (len > 1 || (!c->blocked && c->ring_len >= GATHER_SIZE))
        gathered(c);
    else if (!c->gather.heap_index)
        loop_timer_arm(&c->gather, monotonic_ns() + GATHER_NS);
}

static void on_fd(void *opaque, int fd, uint32_t events)
{
    struct chardev *c = opaque;
    if (fd == c->out.fd && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) && c->blocked)
        flush(c);
    if (fd == c->in.fd && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        read_input(c);
    update(c);
}

/* Opening. */

static void set_duplex(struct chardev *c, int fd)
{
    c->in = (struct end){.fd = fd, .own = true, .pollable = true};
    c->out = (struct end){.fd = fd};
    c->out_kind = OUTPUT_SEND;
    c->duplex = true;
}

/* Uses a descriptor that was handed to us for output. */
static void set_output(struct chardev *c, int fd, bool own)
{
    c->out = (struct end){.fd = fd, .own = own, .pollable = is_pollable(fd)};
    c->out_kind = OUTPUT_WRITE;
    if (is_socket(fd)) {
        c->out_kind = OUTPUT_SEND;
    } else if (c->out.pollable) {
        char path[32];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        int mine = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (mine < 0) {
            c->out_kind = OUTPUT_POLLED;
            return;
        }
        if (own)
            close(fd);
        c->out.fd = mine;
        c->out.own = true;
    }
}

static bool open_fd(struct chardev *c, const char *text, struct error **err)
{
    uint64_t fd;
    if (!parse_uint(text, &fd) || fd > INT32_MAX || fcntl((int)fd, F_GETFD) < 0) {
        error_set(err, EBADF, "cannot use %s: no such file descriptor", c->spec);
        return false;
    }
    if (is_socket((int)fd)) {
        set_duplex(c, (int)fd);
        return true;
    }
    int mode = fcntl((int)fd, F_GETFL) & O_ACCMODE;
    if (mode != O_WRONLY)
        c->in = (struct end){.fd = (int)fd, .own = true, .pollable = is_pollable((int)fd)};
    if (mode != O_RDONLY)
        set_output(c, (int)fd, mode == O_WRONLY);
    return true;
}

static bool open_file(struct chardev *c, const char *path, struct error **err)
{
    if (!*path) {
        error_set(err, EINVAL, "cannot use %s: it names no file", c->spec);
        return false;
    }
    /* Non-blocking, so that a FIFO without a reader is an error now and not a hang. */
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    if (fd < 0) {
        error_set_errno(err, errno, "cannot open %s", path);
        return false;
    }
    c->out = (struct end){.fd = fd, .own = true, .pollable = is_pollable(fd)};
    c->out_kind = is_socket(fd) ? OUTPUT_SEND : OUTPUT_WRITE;
    return true;
}

bool chardev_log(struct chardev *c, const char *path, struct error **err)
{
    c->log = text_log_open(path, err);
    return c->log != NULL;
}

/* What the peer would have seen had it been there; it comes before all that follows. */
static void replay(struct chardev *c)
{
    uint8_t end[REPLAY_SIZE];
    keep(c, end, text_log_tail(c->log, end, sizeof(end)));
}

static void on_listen(void *opaque, int fd, uint32_t events)
{
    struct chardev *c = opaque;
    int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (peer < 0)
        return;
    /* While the front end takes no input nobody reads the old peer's end of stream: ask. */
    struct pollfd old = {.fd = c->in.fd};
    if (c->in.fd >= 0 && poll(&old, 1, 0) > 0 && (old.revents & (POLLHUP | POLLERR)))
        drop(c, &c->in);
    if (c->in.fd >= 0) {
        close(peer); /* one at a time */
        return;
    }
    set_duplex(c, peer);
    if (c->log)
        replay(c);
    tell_connected(c, true);
    gathered(c);
}

/* Whether someone listens at the socket. */
static bool is_alive(const struct sockaddr_un *addr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true;
    bool alive = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN;
    close(fd);
    return alive;
}

/* Binds; a socket file that nobody listens at any more is replaced. */
static bool bind_socket(int fd, const struct sockaddr_un *addr)
{
    mode_t mask = umask(0177);
    bool ok = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0;
    struct stat st;
    if (!ok && errno == EADDRINUSE && lstat(addr->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
        !is_alive(addr)) {
        unlink(addr->sun_path);
        ok = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0;
    } else if (!ok && errno != EADDRINUSE) {
        umask(mask);
        return false;
    }
    umask(mask);
    if (!ok)
        errno = EADDRINUSE;
    return ok;
}

static bool open_unix(struct chardev *c, const char *path, struct error **err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof(addr.sun_path)) {
        error_set(err, ENAMETOOLONG, "cannot listen at %s: the path must have 1 to %zu bytes", c->spec,
                  sizeof(addr.sun_path) - 1);
        return false;
    }
    memcpy(addr.sun_path, path, strlen(path));
    c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listen_fd < 0 || !bind_socket(c->listen_fd, &addr)) {
        error_set_errno(err, errno, "cannot listen at %s", path);
        return false;
    }
    c->socket_path = strdup(path);
    if (!c->socket_path || listen(c->listen_fd, 1) < 0) {
        error_set_errno(err, errno, "cannot listen at %s", path);
        return false;
    }
    return loop_fd_add(c->loop, c->listen_fd, EPOLLIN, on_listen, c, err);
}

static const char *after(const char *spec, const char *prefix)
{
    size_t len = strlen(prefix);
    return strncmp(spec, prefix, len) == 0 ? spec + len : NULL;
}

static bool open_spec(struct chardev *c, struct error **err)
{
    const char *rest;
    if (strcmp(c->spec, "none") == 0)
        return true;
    if (strcmp(c->spec, "stdio") == 0) {
        c->in = (struct end){.fd = STDIN_FILENO, .pollable = is_pollable(STDIN_FILENO)};
        set_output(c, STDOUT_FILENO, false);
        return true;
    }
    if ((rest = after(c->spec, "fd:")))
        return open_fd(c, rest, err);
    if ((rest = after(c->spec, "file:")))
        return open_file(c, rest, err);
    if ((rest = after(c->spec, "unix:")))
        return open_unix(c, rest, err);
    error_set(err, EINVAL, "cannot use \"%s\": not one of none, stdio, fd:N, file:PATH, unix:PATH", c->spec);
    return false;
}

struct chardev *chardev_open(const char *spec, struct loop *loop, struct error **err)
{
    struct chardev *c = calloc(1, sizeof(*c));
    char *copy = strdup(spec);
    if (!c || !copy) {
        error_set_errno(err, ENOMEM, "cannot open %s", spec);
        free(c);
        free(copy);
        return NULL;
    }
    *c = (struct chardev){.loop = loop, .spec = copy, .listen_fd = -1, .in.fd = -1, .out.fd = -1};
    loop_timer_init(&c->pump, loop, pump, c);
    loop_timer_init(&c->gather, loop, gathered, c);
    if (!open_spec(c, err)) {
        chardev_close(c);
        return NULL;
    }
    return c;
}

void chardev_attach(struct chardev *c, const struct chardev_client *client)
{
    c->client = *client;
    c->attached = true;
    if (c->in.fd >= 0 || c->out.fd >= 0)
        tell_connected(c, true);
    update(c);
}

static void flush_within(struct chardev *c, uint64_t ns)
{
    uint64_t end = monotonic_ns() + ns;
    for (;;) {
        flush(c);
        uint64_t now = monotonic_ns();
        if (c->out.fd < 0 || !c->ring_len || now >= end)
            return;
        struct pollfd pfd = {.fd = c->out.fd, .events = POLLOUT};
        if (poll(&pfd, 1, (int)((end - now) / 1000000u) + 1) < 0 && errno != EINTR)
            return;
    }
}

void chardev_close(struct chardev *c)
{
    if (!c)
        return;
    c->attached = false;
    flush_within(c, CLOSE_WAIT_NS);
    loop_timer_cancel(&c->pump);
    loop_timer_cancel(&c->gather);
    close_end(c, &c->in);
    close_end(c, &c->out);
    if (c->listen_fd >= 0) {
        loop_fd_remove(c->loop, c->listen_fd);
        close(c->listen_fd);
    }
    if (c->socket_path)
        unlink(c->socket_path);
    text_log_close(c->log);
    free(c->socket_path);
    free(c->ring);
    free(c->spec);
    free(c);
}

const char *chardev_spec(const struct chardev *c)
{
    return c->spec;
}
