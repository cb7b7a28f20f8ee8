/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The user network, with a tiny guest: DHCP, ARP, ICMP, forwarded UDP and TCP both ways with every byte
 * checked, a guest that has no room, bounds of the queues, and options that are refused.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/util.h"
#include "guest_stack.h"
#include "net/frame_ring.h"
#include "net/net.h"
#include "os/loop.h"

#define TCP_BYTES (24 * MIB)
#define GUEST_TCP 2222
#define GUEST_UDP 5353

/* --- the carrier: a bounded queue of frames --- */

#define QUEUE_FRAMES 256

struct guest {
    struct net *net;
    struct stack stack;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct {
        uint8_t *data;
        size_t len;
    } queue[QUEUE_FRAMES];
    unsigned head, tail, room; /* free running; room: how many it takes */
    bool refused;
    unsigned refusals, refuse_every; /* every so many frames it has no room for a moment */
};

static bool guest_receive(void *opaque, const uint8_t *frame, size_t len)
{
    struct guest *g = opaque;
    pthread_mutex_lock(&g->mutex);
    bool taken = g->tail - g->head < g->room;
    if (g->refuse_every && ++g->refusals % g->refuse_every == 0)
        taken = false;
    if (taken) {
        uint8_t *copy = malloc(len);
        if (copy)
            memcpy(copy, frame, len);
        g->queue[g->tail % QUEUE_FRAMES].data = copy;
        g->queue[g->tail++ % QUEUE_FRAMES].len = len;
        pthread_cond_signal(&g->cond);
    } else {
        g->refused = true;
    }
    pthread_mutex_unlock(&g->mutex);
    return taken;
}

static void guest_send(void *opaque, const uint8_t *frame, size_t len)
{
    struct guest *g = opaque;
    uint8_t copy[STACK_FRAME_MAX];
    memcpy(copy, frame, len);
    size_t half = len / 2;
    const struct iovec iov[] = {{copy, half}, {copy + half, len - half}};
    net_send(g->net, iov, 2);
}

static size_t guest_recv(void *opaque, uint8_t *frame, size_t size, int timeout_ms)
{
    struct guest *g = opaque;
    size_t len = 0;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&g->mutex);
    int rc = 0;
    while (g->head == g->tail && !rc) {
        if (g->refused) { /* all taken out: there is room again */
            g->refused = false;
            net_rx_ready(g->net);
        }
        rc = pthread_cond_timedwait(&g->cond, &g->mutex, &until);
    }
    if (g->head != g->tail) {
        uint8_t *data = g->queue[g->head % QUEUE_FRAMES].data;
        len = g->queue[g->head++ % QUEUE_FRAMES].len;
        assert_true(data && len <= size);
        memcpy(frame, data, len);
        free(data);
    }
    pthread_mutex_unlock(&g->mutex);
    return len;
}

static uint16_t free_port(int type)
{
    int fd = socket(AF_INET, type, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void guest_open(struct guest *g, const char *spec)
{
    struct error *err = NULL;
    *g = (struct guest){.room = QUEUE_FRAMES};
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->cond, NULL);
    g->net = net_open(spec, &err);
    if (!g->net)
        fail_msg("%s", error_text(err));
    assert_true(net_link_up(g->net));
    const uint8_t mac[] = {0x52, 0x54, 0, 1, 2, 3};
    memcpy(g->stack.mac, mac, 6);
    g->stack.mss_out = 1460;
    g->stack.send = guest_send;
    g->stack.recv = guest_recv;
    g->stack.opaque = g;
    const struct net_client client = {.opaque = g, .receive = guest_receive};
    net_attach(g->net, &client);
}

static void guest_close(struct guest *g)
{
    net_close(g->net);
    for (; g->head != g->tail; g->head++)
        free(g->queue[g->head % QUEUE_FRAMES].data);
    pthread_cond_destroy(&g->cond);
    pthread_mutex_destroy(&g->mutex);
}

static void test_basics(void **state)
{
    struct guest g;
    uint8_t mac[6];
    guest_open(&g, "user");
    assert_int_equal(stack_dhcp(&g.stack), 0x0A00020F);
    assert_true(stack_ping(&g.stack, STACK_GATEWAY));
    assert_true(stack_arp(&g.stack, STACK_NAMESERVER, mac));
    guest_close(&g);
}

static int client_socket(int type, uint16_t port)
{
    int fd = socket(AF_INET, type, 0);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    struct timeval patience = {.tv_sec = 30};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    return fd;
}

static void test_udp_forward(void **state)
{
    struct guest g;
    char spec[64];
    uint16_t port = free_port(SOCK_DGRAM);
    snprintf(spec, sizeof(spec), "user,forward=udp:127.0.0.1:%u:%u", port, GUEST_UDP);
    guest_open(&g, spec);
    stack_dhcp(&g.stack);
    int fd = client_socket(SOCK_DGRAM, port);
    for (unsigned size = 1; size <= 1400; size += 233) {
        uint8_t out[1500], in[1500];
        uint32_t from;
        uint16_t from_port;
        for (unsigned i = 0; i < size; i++)
            out[i] = (uint8_t)(i + size);
        assert_int_equal(send(fd, out, size, 0), size);
        assert_int_equal(stack_udp_wait(&g.stack, GUEST_UDP, in, sizeof(in), 5000, &from, &from_port), size);
        assert_memory_equal(in, out, size);
        assert_int_equal(from, STACK_GATEWAY);
        stack_udp_send(&g.stack, GUEST_UDP, from, from_port, in, size);
        assert_int_equal(recv(fd, in, sizeof(in), 0), size);
        assert_memory_equal(in, out, size);
    }
    close(fd);
    guest_close(&g);
}

/* --- TCP --- */

static uint8_t pattern(uint64_t i)
{
    return (uint8_t)((i * 0x9E3779B97F4A7C15u) >> 40);
}

static void source(uint64_t offset, uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data[i] = pattern(offset + i);
}

static void sink(void *opaque, const uint8_t *data, size_t len)
{
    uint64_t *at = opaque;
    for (size_t i = 0; i < len; i++)
        if (data[i] != pattern(*at + i))
            fail_msg("byte %llu is wrong", (unsigned long long)(*at + i));
    *at += len;
}

struct host {
    uint16_t port;
    uint64_t bytes;
    bool ok;
};

/* Sends the pattern, then expects it back. */
static void *host_thread(void *opaque)
{
    struct host *h = opaque;
    int fd = client_socket(SOCK_STREAM, h->port);
    uint8_t buf[65536];
    uint64_t at = 0;
    while (at < h->bytes) {
        size_t n = MIN(sizeof(buf), h->bytes - at);
        source(at, buf, n);
        ssize_t done = send(fd, buf, n, 0);
        if (done <= 0)
            return NULL;
        at += (size_t)done;
    }
    for (at = 0; at < h->bytes;) {
        ssize_t n = recv(fd, buf, sizeof(buf), 0);
        if (n <= 0)
            return NULL;
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != pattern(at + (uint64_t)i))
                return NULL;
        at += (uint64_t)n;
    }
    shutdown(fd, SHUT_WR);
    h->ok = recv(fd, buf, sizeof(buf), 0) == 0;
    close(fd);
    return NULL;
}

static void run_tcp(size_t mss_out, unsigned refuse_every, uint64_t bytes)
{
    struct guest g;
    char spec[64];
    struct host h = {.port = free_port(SOCK_STREAM), .bytes = bytes};
    snprintf(spec, sizeof(spec), "user,forward=tcp:%u:%u", h.port, GUEST_TCP);
    guest_open(&g, spec);
    assert_true(net_frame_limit(g.net) >= 54 + mss_out);
    g.stack.mss_out = mss_out;
    g.refuse_every = refuse_every;
    g.room = refuse_every ? 8 : QUEUE_FRAMES;
    stack_dhcp(&g.stack);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, host_thread, &h), 0);
    assert_true(stack_tcp_accept(&g.stack, GUEST_TCP, 5000));
    uint64_t got = 0, t0 = monotonic_ns();
    assert_true(stack_tcp_read(&g.stack, bytes, sink, &got));
    uint64_t t1 = monotonic_ns();
    assert_true(stack_tcp_write(&g.stack, bytes, source));
    uint64_t t2 = monotonic_ns();
    stack_tcp_close(&g.stack);
    pthread_join(thread, NULL);
    assert_true(h.ok);
    printf("to the guest %.0f MB/s, from the guest %.0f MB/s (segments of %zu)\n",
           (double)bytes * 1e3 / (double)(t1 - t0), (double)bytes * 1e3 / (double)(t2 - t1), mss_out);
    guest_close(&g);
}

static void test_tcp_forward(void **state)
{
    run_tcp(1460, 0, TCP_BYTES);
}

/* What a card with segmentation offload hands over: packets far longer than the MTU. */
static void test_tcp_long_packets(void **state)
{
    run_tcp(32000, 0, TCP_BYTES);
}

static void test_tcp_without_room(void **state)
{
    run_tcp(1460, 7, 2 * MIB);
}

/* A guest that takes nothing: memory stays bounded, closing works, and nothing waits for it. */
static void test_stalled_guest(void **state)
{
    struct guest g;
    char spec[64];
    uint16_t port = free_port(SOCK_DGRAM);
    snprintf(spec, sizeof(spec), "user,forward=udp:%u:%u", port, GUEST_UDP);
    guest_open(&g, spec);
    stack_dhcp(&g.stack);
    pthread_mutex_lock(&g.mutex);
    g.room = 0;
    pthread_mutex_unlock(&g.mutex);
    int fd = client_socket(SOCK_DGRAM, port);
    uint8_t data[1400] = {0};
    for (unsigned i = 0; i < 20000; i++) {
        if (send(fd, data, sizeof(data), MSG_DONTWAIT) < 0)
            assert_true(errno == EAGAIN || errno == ECONNREFUSED || errno == ENOBUFS);
        guest_send(&g, data, sizeof(data)); /* and junk towards the network, as fast as can be */
    }
    close(fd);
    pthread_mutex_lock(&g.mutex);
    g.room = QUEUE_FRAMES;
    g.refused = false;
    pthread_mutex_unlock(&g.mutex);
    net_rx_ready(g.net);
    uint32_t from;
    uint16_t from_port;
    assert_int_equal(stack_udp_wait(&g.stack, GUEST_UDP, data, sizeof(data), 5000, &from, &from_port),
                     sizeof(data));
    guest_close(&g);
}

/* Frames of noise, and of every length, harm nothing. */
static void test_noise(void **state)
{
    struct guest g;
    uint64_t x = 88172645463325252u;
    guest_open(&g, "user");
    stack_dhcp(&g.stack);
    uint8_t f[1600];
    for (unsigned n = 0; n < 20000; n++) {
        size_t len = n % sizeof(f);
        for (size_t i = 0; i < len; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            f[i] = (uint8_t)x;
        }
        if (len > 34) {
            memcpy(f, g.stack.gateway_mac, 6);
            store_be16(f + 12, n % 3 ? 0x0800 : n % 2 ? 0x86DD : 0x0806);
            f[14] = n % 3 ? 0x45 : f[14];
            store_be16(f + 16, (uint16_t)(len - 14));
            store_be16(f + 20, 0);
            f[23] = (uint8_t[]){1, 6, 17}[n % 3];
            store_be32(f + 30, STACK_GATEWAY);
            store_be16(f + 24, 0);
            store_be16(f + 24, (uint16_t)~reference_sum(f + 14, 20, 0));
        }
        guest_send(&g, f, len);
    }
    assert_true(stack_ping(&g.stack, STACK_GATEWAY) || stack_ping(&g.stack, STACK_GATEWAY));
    guest_close(&g);
}

/* --- opening --- */

static void expect_refused(const char *spec, const char *mentions)
{
    struct error *err = NULL;
    struct net *net = net_open(spec, &err);
    if (net)
        fail_msg("%s: accepted", spec);
    if (!strstr(error_text(err), mentions))
        fail_msg("%s: \"%s\" does not mention %s", spec, error_text(err), mentions);
    error_free(err);
}

static void test_busy_port(void **state)
{
    for (int udp = 0; udp < 2; udp++) {
        int type = udp ? SOCK_DGRAM : SOCK_STREAM;
        int fd = socket(AF_INET, type, 0), one = 1;
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof(a);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
        if (!udp)
            assert_int_equal(listen(fd, 1), 0);
        char spec[64], port[32];
        snprintf(spec, sizeof(spec), "user,forward=%s:%u:22", udp ? "udp" : "tcp", ntohs(a.sin_port));
        snprintf(port, sizeof(port), "%s port 127.0.0.1:%u", udp ? "udp" : "tcp", ntohs(a.sin_port));
        expect_refused(spec, port);
        expect_refused(spec, "in use");
        close(fd);
    }
}

static void test_options(void **state)
{
    expect_refused("usr", "usr");
    expect_refused("", "back end");
    expect_refused("none,x=1", "x=1");
    expect_refused("user,nonsense=1", "nonsense");
    expect_refused("user,forward", "forward");
    expect_refused("user,restrict=maybe", "maybe");
    static const char *const forwards[] = {
        "tcp",         "tcp:22",   "sctp:1:2",      "tcp:0:22",          "tcp:22:0",
        "tcp:65536:1", "tcp:x:22", "tcp:1.2.3:1:2", "tcp:1.2.3.4:1:2:3", "tcp::22"};
    for (size_t i = 0; i < ARRAY_SIZE(forwards); i++) {
        char spec[64];
        snprintf(spec, sizeof(spec), "user,forward=%s", forwards[i]);
        expect_refused(spec, forwards[i]);
    }
    expect_refused("user,forward=tcp:203.0.113.1:40000:22",
                   "203.0.113.1:40000"); /* not an address of this host */

    struct error *err = NULL;
    struct net *net = net_open("none", &err);
    assert_non_null(net);
    assert_false(net_link_up(net));
    const struct iovec iov = {.iov_base = (char[]){"x"}, .iov_len = 1};
    net_send(net, &iov, 1);
    net_close(net);
    net = net_open("user,restrict=on,hostname=bee", &err); /* closed without ever being attached */
    assert_non_null(net);
    net_close(net);
}

/* --- the ring of frames --- */

static void test_frame_ring(void **state)
{
    struct frame_ring r;
    uint64_t x = 1, put = 0, got = 0;
    assert_true(frame_ring_init(&r, 4096));
    for (unsigned n = 0; n < 200000; n++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint8_t frame[1500];
        size_t len = (size_t)(x >> 33) % sizeof(frame);
        const uint8_t *first;
        if (x >> 63) {
            memset(frame, (int)(put & 255), len);
            const struct iovec iov[] = {{frame, len / 3}, {frame + len / 3, len - len / 3}};
            size_t before = frame_ring_used(&r);
            if (frame_ring_put(&r, iov, 2))
                put++;
            else
                assert_true(before + len + 8 > 4096 / 2 - 1500); /* only when really filled */
        } else if ((first = frame_ring_first(&r, &len))) {
            for (size_t i = 0; i < len; i++)
                assert_int_equal(first[i], got & 255);
            frame_ring_drop(&r);
            got++;
        } else {
            assert_int_equal(put, got);
            assert_int_equal(frame_ring_used(&r), 0);
        }
    }
    assert_true(got > 1000);
    frame_ring_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_ring),       cmocka_unit_test(test_options),
        cmocka_unit_test(test_busy_port),        cmocka_unit_test(test_basics),
        cmocka_unit_test(test_udp_forward),      cmocka_unit_test(test_tcp_forward),
        cmocka_unit_test(test_tcp_long_packets), cmocka_unit_test(test_tcp_without_room),
        cmocka_unit_test(test_stalled_guest),    cmocka_unit_test(test_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
