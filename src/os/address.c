/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stream sockets by name: see address.h. */
#include "os/address.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"

static void addrinfo_cleanup(struct addrinfo **a)
{
    if (*a)
        freeaddrinfo(*a);
}

const char *address_path(const char *address)
{
    return strncmp(address, "unix:", 5) == 0 ? address + 5 : NULL;
}

/* HOST and PORT of "tcp:HOST:PORT", which the caller frees. False when it is none. */
static bool split_tcp(const char *address, char **host, char **port)
{
    uint64_t number;

    if (strncmp(address, "tcp:", 4) != 0)
        return false;
    const char *from = address + 4, *colon = strrchr(from, ':');
    if (!colon || !parse_uint(colon + 1, &number) || number > UINT16_MAX)
        return false;
    bool brackets = *from == '[' && colon > from && colon[-1] == ']';
    *host = strndup(from + brackets, (size_t)(colon - from) - 2 * brackets);
    *port = strdup(colon + 1);
    return *host && *port;
}

char *address_host(const char *address)
{
    cleanup(mem) char *port = NULL;
    char *host = NULL;

    if (split_tcp(address, &host, &port))
        return host;
    free(host);
    return NULL;
}

static bool take_fd(const char *address, int *fd)
{
    uint64_t n;

    if (strncmp(address, "fd:", 3) != 0 || !parse_uint(address + 3, &n) || n > INT_MAX)
        return false;
    *fd = (int)n;
    return true;
}

bool address_is_connected(const char *address)
{
    int fd;

    return take_fd(address, &fd) || (strncmp(address, "pass:", 5) == 0 && address[5]);
}

bool address_check(const char *address, struct error **err)
{
    cleanup(mem) char *host = NULL;
    cleanup(mem) char *port = NULL;

    if ((address_path(address) && *address_path(address)) || split_tcp(address, &host, &port) ||
        address_is_connected(address))
        return true;
    error_set(err, EINVAL, "'%.200s' is no address: unix:PATH or tcp:HOST:PORT is wanted", address);
    return false;
}

static bool unix_address(const char *path, struct sockaddr_un *addr, struct error **err)
{
    *addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr->sun_path))
        return error_set(err, ENAMETOOLONG, "the path '%s' is too long for a socket", path), false;
    memcpy(addr->sun_path, path, strlen(path) + 1);
    return true;
}

static int connect_unix(const char *path, struct error **err)
{
    struct sockaddr_un addr;
    cleanup(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (!unix_address(path, &addr, err))
        return -1;
    if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
        return error_set_errno(err, errno, "cannot connect to unix:%s", path), -1;
    return steal_fd(&fd);
}

/* Makes way for a socket: only for one whose owner is gone. */
static int listen_unix(const char *path, struct error **err)
{
    struct sockaddr_un addr;
    struct stat st;
    cleanup(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cleanup(fd) int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (!unix_address(path, &addr, err))
        return -1;
    if (stat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        if (connect(probe, (const struct sockaddr *)&addr, sizeof(addr)) == 0 || errno == EAGAIN)
            return error_set(err, EADDRINUSE, "cannot listen at unix:%s: another program does", path), -1;
        unlink(path);
    }
    if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        listen(fd, 1) < 0)
        return error_set_errno(err, errno, "cannot listen at unix:%s", path), -1;
    return steal_fd(&fd);
}

/* One socket for one of the addresses of a host; -1 and errno. */
static int open_tcp(const struct addrinfo *a, bool listening)
{
    /* A peer whose host is gone is found out within a minute; connections that are accepted inherit that. */
    const int on = 1, idle = 30, interval = 10, count = 3;
    const struct timeval patience = {.tv_sec = 10};
    cleanup(fd) int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);

    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    if (listening)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    else
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)); /* of connect */
    if (listening ? bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 1) < 0
                  : connect(fd, a->ai_addr, a->ai_addrlen) < 0)
        return -1;
    return steal_fd(&fd);
}

static int use_tcp(const char *address, bool listening, struct error **err)
{
    const char *what = listening ? "cannot listen at" : "cannot connect to";
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = listening ? AI_PASSIVE : 0};
    cleanup(mem) char *host = NULL;
    cleanup(mem) char *port = NULL;
    cleanup(addrinfo) struct addrinfo *all = NULL;

    if (!split_tcp(address, &host, &port))
        return error_set_errno(err, EINVAL, "%s %s", what, address), -1;
    int code = getaddrinfo(*host ? host : NULL, port, &hints, &all);
    if (code != 0)
        return error_set(err, EHOSTUNREACH, "%s %s: %s", what, address, gai_strerror(code)), -1;
    for (const struct addrinfo *a = all; a; a = a->ai_next) {
        int fd = open_tcp(a, listening);
        if (fd >= 0)
            return fd;
    }
    error_set_errno(err, errno, "%s %s", what, address);
    return -1;
}

/* Room for one descriptor. */
union passed {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

bool address_pass(int client, int fd, struct error **err)
{
    char byte = 0;
    struct iovec iov = {&byte, 1};
    union passed control = {0};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);

    *c = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    if (sendmsg(client, &m, MSG_NOSIGNAL) == 1)
        return true;
    error_set_errno(err, errno, "cannot pass a connection on");
    return false;
}

static int take_passed(const char *path, struct error **err)
{
    char byte;
    struct iovec iov = {&byte, 1};
    union passed control = {0};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    cleanup(fd) int from = connect_unix(path, err);
    int fd = -1;

    if (from < 0)
        return -1;
    ssize_t n = recvmsg(from, &m, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    if (fd < 0)
        error_set(err, EPROTO, "no connection was passed on at '%s'", path);
    return fd;
}

int address_connect(const char *address, struct error **err)
{
    int fd;

    if (!address_check(address, err))
        return -1;
    if (address_path(address))
        return connect_unix(address_path(address), err);
    if (strncmp(address, "pass:", 5) == 0)
        return take_passed(address + 5, err);
    if (!take_fd(address, &fd))
        return use_tcp(address, false, err);
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return error_set_errno(err, errno, "cannot use %s", address), -1;
    return fd;
}

int address_listen(const char *address, struct error **err)
{
    if (!address_check(address, err))
        return -1;
    return address_path(address) ? listen_unix(address_path(address), err) : use_tcp(address, true, err);
}
