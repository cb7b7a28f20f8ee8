/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-net from end to end: a driver model and a tiny guest stack on one side, the user network and a
 * program of the host on the other, every byte checked; with and without mergeable buffers, offloads and
 * packed rings. And the control queue, filters, stopping and resuming.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_net.h>

#include "base/error.h"
#include "base/util.h"
#include "guest_stack.h"
#include "virtio_driver.h"

#define HEADER    12
#define RX_COUNT  32
#define RX_SIZE   2048
#define TX_COUNT  8
#define TX_SIZE   (HEADER + 40000)
#define GUEST_TCP 2222

struct card {
    struct test_machine *t;
    struct device *dev;
    struct drv d;
    struct drv_ring rx, tx, control;
    struct stack stack;
    pthread_t loop;
    bool mergeable, checksum, segmentation, indirect;
    unsigned pieces; /* a receive buffer is offered in so many */
    unsigned merged; /* frames that came in several buffers */
    bool tx_busy[TX_COUNT];
    uint64_t tx_gpa[TX_COUNT], rx_gpa[RX_COUNT];
    uint32_t rx_size;
    uint16_t port;
};

static void *loop_thread(void *opaque)
{
    loop_run(opaque);
    return NULL;
}

/* --- the carrier --- */

static void card_send(void *opaque, const uint8_t *frame, size_t len)
{
    struct card *c = opaque;
    unsigned i = 0;
    uint32_t used;
    for (uint64_t end = monotonic_ns() + 10000000000u; c->tx_busy[i];) {
        for (bool *done; (done = drv_get(&c->tx, &used));)
            *done = false;
        i = c->tx_busy[i] ? (i + 1) % TX_COUNT : i;
        assert_true(monotonic_ns() < end);
    }
    uint8_t *p = drv_ptr(&c->d, c->tx_gpa[i], TX_SIZE);
    assert_true(HEADER + len <= TX_SIZE);
    struct virtio_net_hdr_v1 h = {0};
    if (c->checksum && load_be16(frame + 12) == 0x0800 && frame[23] == 6) {
        h.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        h.csum_start = 34;
        h.csum_offset = 16;
        if (len > 1514) {
            h.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
            h.gso_size = 1460;
            h.hdr_len = 54;
        }
    }
    memcpy(p, &h, HEADER);
    memcpy(p + HEADER, frame, len);
    const struct drv_buf buf[] = {
        {c->tx_gpa[i], HEADER, false},
        {c->tx_gpa[i] + HEADER, 20, false},
        {c->tx_gpa[i] + HEADER + 20, (uint32_t)len - 20, false},
    };
    c->tx_busy[i] = true;
    assert_true(drv_add(&c->tx, buf, len > 20 ? 3 : 2, c->indirect && i % 2, &c->tx_busy[i]));
    drv_kick(&c->tx);
}

static void offer_rx(struct card *c, unsigned i)
{
    struct drv_buf buf[4];
    uint32_t piece = c->rx_size / c->pieces, at = 0;
    for (unsigned n = 0; n < c->pieces; n++, at += piece)
        buf[n] = (struct drv_buf){c->rx_gpa[i] + at, n + 1 == c->pieces ? c->rx_size - at : piece, true};
    assert_true(drv_add(&c->rx, buf, c->pieces, c->indirect, &c->rx_gpa[i]));
    drv_kick(&c->rx);
}

/* Waits for the next used receive buffer: its number and length, -1: none in time. */
static int take_rx(struct card *c, uint32_t *len, uint64_t end)
{
    for (;;) {
        const uint64_t *gpa = drv_get(&c->rx, len);
        if (gpa)
            return (int)(gpa - c->rx_gpa);
        if (monotonic_ns() > end)
            return -1;
        if (!drv_enable_cb(&c->rx))
            sched_yield();
    }
}

static size_t card_recv(void *opaque, uint8_t *frame, size_t size, int timeout_ms)
{
    struct card *c = opaque;
    uint32_t len;
    uint64_t end = monotonic_ns() + (uint64_t)timeout_ms * 1000000;
    int i = take_rx(c, &len, end);
    if (i < 0)
        return 0;
    struct virtio_net_hdr_v1 h;
    const uint8_t *p = drv_ptr(&c->d, c->rx_gpa[i], c->rx_size);
    memcpy(&h, p, HEADER);
    assert_true(len >= HEADER && len <= c->rx_size);
    assert_int_equal(h.flags, c->checksum ? VIRTIO_NET_HDR_F_DATA_VALID : 0);
    assert_int_equal(h.gso_type, VIRTIO_NET_HDR_GSO_NONE);
    assert_true(h.num_buffers == 1 || (c->mergeable && h.num_buffers > 1));
    size_t got = len - HEADER;
    memcpy(frame, p + HEADER, got);
    offer_rx(c, (unsigned)i);
    for (unsigned n = 1; n < h.num_buffers; n++) {
        /* All buffers of a frame are there at once. */
        const uint64_t *gpa = drv_get(&c->rx, &len);
        assert_non_null(gpa);
        assert_true(got + len <= size);
        memcpy(frame + got, drv_ptr(&c->d, *gpa, c->rx_size), len);
        got += len;
        offer_rx(c, (unsigned)(gpa - c->rx_gpa));
    }
    c->merged += h.num_buffers > 1;
    return got;
}

/* --- set-up --- */

static uint16_t free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static struct device *add_card(struct test_machine *t, const char *net, const char *props)
{
    struct error *err = NULL;
    machine_lock(&t->m);
    struct device *dev = device_new(&t->m, "virtio-net", NULL, &err);
    bool ok = dev && device_set(dev, "net", net, &err) && device_set(dev, "packed", "on", &err) &&
              (!props || device_set(dev, props, "4", &err)) && device_realize(dev, &err);
    if (!ok)
        fail_msg("%s", error_text(err));
    pci_assign_resources(&t->m);
    machine_unlock(&t->m);
    return dev;
}

static void card_rings(struct card *c, uint64_t features)
{
    drv_init(&c->d, c->t, c->dev, features | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MAC));
    for (unsigned i = 0; i < 6; i++)
        c->stack.mac[i] = (uint8_t)drv_read(&c->d, c->d.config + i, 1);
    drv_ring_init(&c->rx, &c->d, 0, 64);
    drv_ring_init(&c->tx, &c->d, 1, 64);
    for (unsigned i = 0; i < TX_COUNT; i++)
        c->tx_gpa[i] = drv_alloc(&c->d, TX_SIZE, 1);
    for (unsigned i = 0; i < RX_COUNT; i++)
        c->rx_gpa[i] = drv_alloc(&c->d, RX_SIZE, 1);
    drv_ok(&c->d);
    for (unsigned i = 0; i < RX_COUNT; i++)
        offer_rx(c, i);
    drv_disable_cb(&c->tx);
}

static void card_open(struct card *c, uint64_t features, uint32_t rx_size, unsigned pieces)
{
    char net[64];
    *c = (struct card){
        .t = pci_machine_new(),
        .mergeable = features & BIT(VIRTIO_NET_F_MRG_RXBUF),
        .checksum = features & BIT(VIRTIO_NET_F_CSUM),
        .indirect = features & BIT(VIRTIO_RING_F_INDIRECT_DESC),
        .segmentation = features & BIT(VIRTIO_NET_F_HOST_TSO4),
        .pieces = pieces,
        .rx_size = rx_size,
        .port = free_port(),
    };
    snprintf(net, sizeof(net), "user,forward=tcp:%u:%u", c->port, GUEST_TCP);
    c->dev = add_card(c->t, net, NULL);
    c->stack.mss_out = c->segmentation ? 32000 : 1460;
    c->stack.skip_sums = c->checksum;
    c->stack.send = card_send;
    c->stack.recv = card_recv;
    c->stack.opaque = c;
    card_rings(c, features);
    assert_int_equal(pthread_create(&c->loop, NULL, loop_thread, c->t->m.loop), 0);
}

static void card_close(struct card *c)
{
    loop_stop(c->t->m.loop);
    pthread_join(c->loop, NULL);
    test_machine_free(c->t);
}

/* --- traffic --- */

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

static void *host_thread(void *opaque)
{
    struct host *h = opaque;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(h->port)};
    struct timeval patience = {.tv_sec = 30};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    uint8_t buf[16384];
    uint64_t in = 0, out = 0;
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
        return NULL;
    while (out < h->bytes) {
        size_t n = MIN(sizeof(buf), h->bytes - out);
        source(out, buf, n);
        ssize_t done = send(fd, buf, n, 0);
        if (done <= 0)
            return NULL;
        out += (uint64_t)done;
    }
    while (in < h->bytes) {
        ssize_t n = recv(fd, buf, sizeof(buf), 0);
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != pattern(in + (uint64_t)i))
                n = 0;
        if (n <= 0)
            return NULL;
        in += (uint64_t)n;
    }
    h->ok = true;
    close(fd);
    return NULL;
}

static void exchange(struct card *c, uint64_t bytes)
{
    struct host h = {.port = c->port, .bytes = bytes};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, host_thread, &h), 0);
    assert_true(stack_tcp_accept(&c->stack, GUEST_TCP, 5000));
    uint64_t got = 0;
    assert_true(stack_tcp_read(&c->stack, bytes, sink, &got));
    assert_true(stack_tcp_write(&c->stack, bytes, source));
    stack_tcp_close(&c->stack);
    pthread_join(thread, NULL);
    assert_true(h.ok);
}

static void run_traffic(uint64_t features, uint32_t rx_size, unsigned pieces)
{
    struct card c;
    card_open(&c, features, rx_size, pieces);
    assert_int_equal(stack_dhcp(&c.stack), 0x0A00020F);
    assert_true(stack_ping(&c.stack, STACK_GATEWAY));
    exchange(&c, 4 * MIB);
    assert_int_equal(c.merged > 0, c.mergeable && rx_size < 1500);
    assert_int_equal(drv_status(&c.d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    card_close(&c);
}

static void test_plain(void **state)
{
    run_traffic(0, RX_SIZE, 1);
}

static void test_plain_pieces(void **state)
{
    run_traffic(BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX), RX_SIZE, 3);
}

#define OFFLOADS                                                                                             \
    (BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) |                   \
     BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX))

static void test_offloads(void **state)
{
    run_traffic(OFFLOADS, RX_SIZE, 1);
}

static void test_mergeable(void **state)
{
    run_traffic(OFFLOADS | BIT(VIRTIO_NET_F_MRG_RXBUF), 300, 2);
}

static void test_mergeable_packed(void **state)
{
    run_traffic(OFFLOADS | BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_F_RING_PACKED), 300, 1);
}

/* The machine stops and goes on in the middle of the traffic, its state saved and loaded in between. */
static void *stopper_thread(void *opaque)
{
    struct card *c = opaque;
    for (unsigned i = 0; i < 20; i++) {
        usleep(3000);
        machine_lock(&c->t->m);
        devices_quiesce(&c->t->m);
        struct state_buf saved = {0};
        state_save(c->dev->cls->state, c->dev, &saved);
        machine_unlock(&c->t->m);
        usleep(2000);
        machine_lock(&c->t->m);
        struct error *err = NULL;
        long used = state_load(c->dev->cls->state, c->dev, c->dev->cls->size, saved.data, saved.len, &err);
        devices_resume(&c->t->m);
        machine_unlock(&c->t->m);
        state_buf_free(&saved);
        if (used <= 0)
            return err;
    }
    return NULL;
}

static void test_stop_and_resume(void **state)
{
    struct card c;
    card_open(&c, OFFLOADS | BIT(VIRTIO_NET_F_MRG_RXBUF), 1000, 1);
    stack_dhcp(&c.stack);
    pthread_t stopper;
    void *err;
    assert_int_equal(pthread_create(&stopper, NULL, stopper_thread, &c), 0);
    exchange(&c, 4 * MIB);
    pthread_join(stopper, &err);
    assert_null(err);
    card_close(&c);
}

/* The driver goes away and comes back, as in a reboot. */
static void test_driver_reset(void **state)
{
    struct card c;
    card_open(&c, OFFLOADS, RX_SIZE, 1);
    for (int i = 0; i < 3; i++) {
        stack_dhcp(&c.stack);
        exchange(&c, 100000);
        drv_set_status(&c.d, 0);
        memset(c.tx_busy, 0, sizeof(c.tx_busy));
        card_rings(&c, OFFLOADS);
    }
    card_close(&c);
}

/* --- control queue --- */

static uint8_t command(struct card *c, uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
    uint64_t gpa = drv_alloc(&c->d, 2 + len + 1, 1);
    uint8_t *p = drv_ptr(&c->d, gpa, 2 + len + 1);
    p[0] = class;
    p[1] = cmd;
    if (len)
        memcpy(p + 2, data, len);
    p[2 + len] = 0xEE;
    const struct drv_buf buf[] = {{gpa, 2, false}, {gpa + 2, len, false}, {gpa + 2 + len, 1, true}};
    const struct drv_buf short_buf[] = {buf[0], buf[2]};
    assert_true(drv_add(&c->control, len ? buf : short_buf, len ? 3 : 2, false, c));
    drv_kick(&c->control);
    pump(c->t);
    uint32_t used;
    assert_ptr_equal(drv_get(&c->control, &used), c);
    assert_int_equal(used, 1);
    return p[2 + len];
}

static void test_control_queue(void **state)
{
    struct card c = {.t = pci_machine_new()};
    c.dev = add_card(c.t, "none", "pairs");
    drv_init(&c.d, c.t, c.dev,
             BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_NET_F_MAC) |
                 BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_CTRL_VQ) |
                 BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR));
    assert_int_equal(drv_read(&c.d, c.d.config + 6, 2), 0); /* no link */
    assert_int_equal(drv_read(&c.d, c.d.config + 8, 2), 4);
    assert_int_equal(drv_read(&c.d, c.d.config, 1), 0x52);
    assert_int_equal(drv_read(&c.d, c.d.config + 64, 4), 0); /* past the structure */
    drv_ring_init(&c.control, &c.d, 8, 16);
    drv_ok(&c.d);
    const uint8_t on = 1, mac[6] = {2, 0, 0, 0, 0, 9};
    uint16_t pairs = 4;
    for (uint8_t mode = 0; mode < 6; mode++)
        assert_int_equal(command(&c, VIRTIO_NET_CTRL_RX, mode, &on, 1), VIRTIO_NET_OK);
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_RX, 6, &on, 1), VIRTIO_NET_ERR);
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_RX, 0, NULL, 0), VIRTIO_NET_ERR);
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6), VIRTIO_NET_OK);
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 5), VIRTIO_NET_ERR);
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), VIRTIO_NET_OK);
    pairs = 5;
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), VIRTIO_NET_ERR);
    pairs = 0;
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), VIRTIO_NET_ERR);
    uint8_t tables[8 + 12] = {1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 1, 0, 0, 0, 1, 0, 0x5E, 1, 2, 3};
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, 20),
                     VIRTIO_NET_OK);
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, 19),
                     VIRTIO_NET_ERR);
    store_le32(tables, 0xFFFFFFFF);
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, 20),
                     VIRTIO_NET_ERR);
    uint8_t many[8 + 6 * 100] = {100};
    assert_int_equal(command(&c, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, many, sizeof(many)),
                     VIRTIO_NET_OK);
    assert_int_equal(command(&c, 77, 0, NULL, 0), VIRTIO_NET_ERR);
    test_machine_free(c.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_control_queue),   cmocka_unit_test(test_plain),
        cmocka_unit_test(test_plain_pieces),    cmocka_unit_test(test_offloads),
        cmocka_unit_test(test_mergeable),       cmocka_unit_test(test_mergeable_packed),
        cmocka_unit_test(test_stop_and_resume), cmocka_unit_test(test_driver_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
