/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The back end "user": network address translation in user space by libslirp, which needs no rights on the
 * host. The guest sees QEMU's usual network: 10.0.2.0/24 with the gateway (the host) at .2, a name server at
 * .3, DHCP giving .15; fec0::/64 likewise.
 *
 * libslirp knows nothing of threads: after net_attach only this back end's own thread calls it. Frames from
 * the guest come to that thread through `tx`; frames that the guest has no room for wait in `held`. Both are
 * bounded. While much is held, sockets are not polled, so that the pressure reaches the peers instead of
 * piling up here.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "net/backend.h"
#include "net/frame_ring.h"
#include "net/user_options.h"
#include "os/loop.h"

#define TX_BYTES        (2 * MIB)
#define HELD_BYTES      (2 * MIB)
#define HELD_STALL      (512 * KIB) /* above this, sockets wait */
#define FRAMES_PER_TURN 256         /* from the guest, before sockets get their turn */

struct user_timer {
    SlirpTimerCb fn;
    void *opaque;
    int64_t expire_ms; /* INT64_MAX: not armed */
    struct user_timer *next;
};

struct net_user {
    struct net net;
    Slirp *slirp;
    pthread_t thread;
    bool started;
    int wake_fd;

    /* The back end's thread only. */
    struct frame_ring held;
    struct user_timer *timers;
    struct pollfd *fds;
    unsigned fd_count, fd_cap;

    /* Guarded by the mutex. */
    pthread_mutex_t mutex;
    struct frame_ring tx;
    bool awake;    /* the thread looks here again before it sleeps */
    bool rx_ready; /* the guest has room again */
    bool stop;
};

/* --- what libslirp calls --- */

static ssize_t send_packet(const void *frame, size_t len, void *opaque)
{
    struct net_user *u = opaque;
    const struct net_client *client = &u->net.client;
    if (!client->receive)
        return (ssize_t)len; /* before net_attach there is no one */
    if (frame_ring_used(&u->held) == 0 && client->receive(client->opaque, frame, len))
        return (ssize_t)len;
    union {
        const void *in;
        void *out;
    } piece = {.in = frame}; /* only read from */
    const struct iovec iov = {.iov_base = piece.out, .iov_len = len};
    frame_ring_put(&u->held, &iov, 1); /* no room: lost, as on a wire */
    return (ssize_t)len;
}

static void guest_error(const char *text, void *opaque)
{
    log_guest(LOG_INFO, "network: %s", text);
}

static int64_t clock_get_ns(void *opaque)
{
    return (int64_t)monotonic_ns();
}

static void *timer_new(SlirpTimerCb fn, void *fn_opaque, void *opaque)
{
    struct net_user *u = opaque;
    struct user_timer *t = malloc(sizeof(*t));
    if (!t)
        abort(); /* a few bytes while the network is being set up */
    *t = (struct user_timer){.fn = fn, .opaque = fn_opaque, .expire_ms = INT64_MAX, .next = u->timers};
    u->timers = t;
    return t;
}

static void timer_free(void *timer, void *opaque)
{
    struct net_user *u = opaque;
    for (struct user_timer **p = &u->timers; *p; p = &(*p)->next) {
        if (*p == timer) {
            *p = (*p)->next;
            break;
        }
    }
    free(timer);
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    ((struct user_timer *)timer)->expire_ms = expire_ms;
}

/* The set of descriptors is made anew for every poll, and the thread always polls again after calling
 * libslirp. */
static void poll_fd_changed(int fd, void *opaque)
{
}

static void notify(void *opaque)
{
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = clock_get_ns,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = poll_fd_changed,
    .unregister_poll_fd = poll_fd_changed,
    .notify = notify,
};

/* --- the thread --- */

static int add_fd(struct net_user *u, int fd, short events)
{
    if (u->fd_count == u->fd_cap) {
        unsigned cap = u->fd_cap ? 2 * u->fd_cap : 64;
        struct pollfd *fds = realloc(u->fds, cap * sizeof(*fds));
        if (!fds)
            return -1; /* libslirp takes it as "nothing happened" */
        u->fds = fds;
        u->fd_cap = cap;
    }
    u->fds[u->fd_count] = (struct pollfd){.fd = fd, .events = events};
    return (int)u->fd_count++;
}

static const struct {
    int slirp;
    short poll;
} event_bits[] = {
    {SLIRP_POLL_IN, POLLIN},   {SLIRP_POLL_OUT, POLLOUT}, {SLIRP_POLL_PRI, POLLPRI},
    {SLIRP_POLL_ERR, POLLERR}, {SLIRP_POLL_HUP, POLLHUP},
};

static int add_poll(int fd, int slirp_events, void *opaque)
{
    short events = 0;
    for (size_t i = 0; i < ARRAY_SIZE(event_bits); i++)
        if (slirp_events & event_bits[i].slirp)
            events |= event_bits[i].poll;
    return add_fd(opaque, fd, events);
}

static int get_revents(int index, void *opaque)
{
    const struct net_user *u = opaque;
    int events = 0;
    if (index < 0 || (unsigned)index >= u->fd_count)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(event_bits); i++)
        if (u->fds[index].revents & event_bits[i].poll)
            events |= event_bits[i].slirp;
    return events;
}

/* Hands the guest's frames to libslirp. */
static void take_frames(struct net_user *u)
{
    for (unsigned n = 0; n < FRAMES_PER_TURN; n++) {
        size_t len;
        pthread_mutex_lock(&u->mutex);
        const uint8_t *frame = frame_ring_first(&u->tx, &len);
        pthread_mutex_unlock(&u->mutex);
        if (!frame)
            return;
        slirp_input(u->slirp, frame, (int)len);
        pthread_mutex_lock(&u->mutex);
        frame_ring_drop(&u->tx);
        pthread_mutex_unlock(&u->mutex);
    }
}

static void give_held(struct net_user *u)
{
    pthread_mutex_lock(&u->mutex);
    bool ready = u->rx_ready;
    u->rx_ready = false;
    pthread_mutex_unlock(&u->mutex);
    const uint8_t *frame;
    size_t len;
    while (ready && (frame = frame_ring_first(&u->held, &len))) {
        ready = u->net.client.receive(u->net.client.opaque, frame, len);
        if (ready)
            frame_ring_drop(&u->held);
    }
}

static void run_timers(struct net_user *u)
{
    int64_t now = (int64_t)(monotonic_ns() / 1000000);
    for (struct user_timer *t = u->timers; t; t = t->next) {
        if (t->expire_ms > now)
            continue;
        t->expire_ms = INT64_MAX; /* the function may arm it again */
        t->fn(t->opaque);
    }
}

static uint32_t until_timer(const struct net_user *u, uint32_t timeout)
{
    int64_t now = (int64_t)(monotonic_ns() / 1000000);
    for (const struct user_timer *t = u->timers; t; t = t->next) {
        if (t->expire_ms != INT64_MAX)
            timeout = (uint32_t)MIN((int64_t)timeout, MAX(t->expire_ms - now, 0));
    }
    return timeout;
}

/* False: asked to stop. Otherwise `timeout` becomes 0 when something already waits. */
static bool begin_sleep(struct net_user *u, uint32_t *timeout)
{
    size_t len;
    pthread_mutex_lock(&u->mutex);
    bool work = frame_ring_first(&u->tx, &len) || u->rx_ready;
    bool go_on = !u->stop;
    u->awake = work;
    pthread_mutex_unlock(&u->mutex);
    if (work)
        *timeout = 0;
    return go_on;
}

static void end_sleep(struct net_user *u)
{
    pthread_mutex_lock(&u->mutex);
    u->awake = true;
    pthread_mutex_unlock(&u->mutex);
    uint64_t count;
    if (u->fds[0].revents && read(u->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_guest(LOG_ERROR, "network: cannot read the wake-up descriptor: %m");
}

static void *user_thread(void *opaque)
{
    struct net_user *u = opaque;
    prctl(PR_SET_NAME, "net-user");
    for (;;) {
        take_frames(u);
        give_held(u);
        uint32_t timeout = UINT32_MAX;
        bool sockets = frame_ring_used(&u->held) < HELD_STALL;
        u->fd_count = 0;
        add_fd(u, u->wake_fd, POLLIN);
        if (sockets)
            slirp_pollfds_fill(u->slirp, &timeout, add_poll, u);
        timeout = until_timer(u, timeout);
        if (!begin_sleep(u, &timeout))
            return NULL;
        int n = poll(u->fds, u->fd_count, timeout > INT32_MAX ? -1 : (int)timeout);
        bool failed = n < 0 && errno != EINTR;
        end_sleep(u);
        if (sockets)
            slirp_pollfds_poll(u->slirp, failed, get_revents, u);
        run_timers(u);
    }
}

/* With the mutex held: should the caller wake the thread, once it has let go? */
static bool must_wake(struct net_user *u)
{
    bool asleep = !u->awake;
    u->awake = true;
    return asleep;
}

static void wake(struct net_user *u)
{
    const uint64_t one = 1;
    if (write(u->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_guest(LOG_ERROR, "network: cannot wake the thread: %m");
}

/* --- calls from the front end --- */

static void user_send(struct net *net, const struct iovec *iov, int count)
{
    struct net_user *u = CONTAINER_OF(net, struct net_user, net);
    pthread_mutex_lock(&u->mutex);
    bool asleep = frame_ring_put(&u->tx, iov, count) && must_wake(u);
    pthread_mutex_unlock(&u->mutex);
    if (asleep)
        wake(u);
}

static void user_rx_ready(struct net *net)
{
    struct net_user *u = CONTAINER_OF(net, struct net_user, net);
    pthread_mutex_lock(&u->mutex);
    u->rx_ready = true;
    bool asleep = must_wake(u);
    pthread_mutex_unlock(&u->mutex);
    if (asleep)
        wake(u);
}

static void user_attach(struct net *net)
{
    struct net_user *u = CONTAINER_OF(net, struct net_user, net);
    /* No signal is this thread's business; SIGPIPE from a socket in particular must not end the process. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    u->started = pthread_create(&u->thread, NULL, user_thread, u) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!u->started)
        log_line(LOG_ERROR, "network: cannot start a thread; the network is dead");
}

static void user_close(struct net *net)
{
    struct net_user *u = CONTAINER_OF(net, struct net_user, net);
    if (u->started) {
        pthread_mutex_lock(&u->mutex);
        u->stop = true;
        pthread_mutex_unlock(&u->mutex);
        wake(u);
        pthread_join(u->thread, NULL);
    }
    u->net.client.receive = NULL;
    if (u->slirp)
        slirp_cleanup(u->slirp);
    frame_ring_free(&u->tx);
    frame_ring_free(&u->held);
    if (u->wake_fd >= 0)
        close(u->wake_fd);
    pthread_mutex_destroy(&u->mutex);
    free(u->fds);
    free(u);
}

/* --- opening --- */

static struct in_addr ipv4(uint32_t host_order)
{
    return (struct in_addr){.s_addr = htonl(host_order)};
}

static Slirp *start_slirp(struct net_user *u, const struct user_options *options)
{
    SlirpConfig config = {
        .version = 3,
        .restricted = options->restricted,
        .in_enabled = true,
        .vnetwork = ipv4(0x0A000200),
        .vnetmask = ipv4(0xFFFFFF00),
        .vhost = ipv4(0x0A000202),
        .vnameserver = ipv4(0x0A000203),
        .vdhcp_start = ipv4(0x0A00020F),
        .in6_enabled = true,
        .vprefix_len = 64,
        .vhostname = options->hostname[0] ? options->hostname : NULL,
    };
    inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &config.vhost6);
    inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
    return slirp_new(&config, &callbacks, u);
}

/*
 * libslirp lets two sockets share a UDP port; another program's claim is only seen by a socket that does not
 * share. Returns 0 or the errno value of the attempt.
 */
static int probe_udp(const struct user_forward *f)
{
    cleanup(fd) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in addr = {
        .sin_family = AF_INET,
        .sin_port = htons(f->host_port),
        .sin_addr = f->host_addr,
    };
    if (fd < 0 || bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
        return errno;
    return 0;
}

static bool add_forward(struct net_user *u, const struct user_forward *f, struct error **err)
{
    int code = f->udp ? probe_udp(f) : 0;
    errno = 0;
    if (!code && slirp_add_hostfwd(u->slirp, f->udp, f->host_addr, f->host_port, (struct in_addr){0},
                                   f->guest_port) < 0)
        code = errno ? errno : EADDRINUSE;
    if (!code)
        return true;
    char addr[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &f->host_addr, addr, sizeof(addr));
    error_set_errno(err, code, "cannot forward %s port %s:%u of the host", f->udp ? "udp" : "tcp", addr,
                    f->host_port);
    return false;
}

static struct net *user_open(const char *text, struct error **err)
{
    struct user_options options;
    if (!user_options_parse(text, &options, err))
        return NULL;
    struct net_user *u = calloc(1, sizeof(*u));
    if (!u) {
        error_set_errno(err, ENOMEM, "cannot open the user network");
        return NULL;
    }
    pthread_mutex_init(&u->mutex, NULL);
    u->awake = true;
    u->net.link_up = true;
    u->net.frame_limit =
        14 + 65535; /* libslirp takes any IP packet; its own MTU matters only towards the guest */
    u->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (u->wake_fd < 0 || !frame_ring_init(&u->tx, TX_BYTES) || !frame_ring_init(&u->held, HELD_BYTES)) {
        error_set_errno(err, errno, "cannot open the user network");
        goto fail;
    }
    u->slirp = start_slirp(u, &options);
    if (!u->slirp) {
        error_set(err, 0, "cannot open the user network: libslirp does not start");
        goto fail;
    }
    for (unsigned i = 0; i < options.forward_count; i++)
        if (!add_forward(u, &options.forward[i], err))
            goto fail;
    return &u->net;

fail:
    user_close(&u->net);
    return NULL;
}

extern const struct net_ops net_user_ops;
const struct net_ops net_user_ops = {
    .name = "user",
    .open = user_open,
    .attach = user_attach,
    .send = user_send,
    .rx_ready = user_rx_ready,
    .close = user_close,
};
