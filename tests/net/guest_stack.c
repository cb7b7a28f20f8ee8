/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See guest_stack.h. */
#include "guest_stack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/util.h"
#include "os/loop.h"

#define ETH      14
#define IP       20
#define TCP      20
#define MSS_IN   1460
#define WINDOW   65535
#define TRY_MS   1000
#define GIVE_UP  30000000000ull
#define F_FIN    1
#define F_SYN    2
#define F_RST    4
#define F_ACK    16
#define NO_REPLY "no answer in time"

uint16_t reference_sum(const uint8_t *data, size_t len, uint32_t start)
{
    uint32_t sum = start;
    for (size_t i = 0; i < len; i++) {
        sum += i % 2 ? data[i] : (uint32_t)data[i] << 8;
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    return (uint16_t)sum;
}

/* --- Ethernet and IP --- */

static void eth_header(struct stack *s, const uint8_t *to, unsigned type)
{
    memcpy(s->tx, to, 6);
    memcpy(s->tx + 6, s->mac, 6);
    store_be16(s->tx + 12, (uint16_t)type);
}

static uint32_t pseudo(const uint8_t *ip, size_t len)
{
    uint8_t tail[4] = {0, ip[9]};
    store_be16(tail + 2, (uint16_t)len);
    return reference_sum(ip + 12, 8, reference_sum(tail, 4, 0));
}

static void ip_send(struct stack *s, const uint8_t *to_mac, uint8_t proto, uint32_t from, uint32_t to,
                    size_t len)
{
    eth_header(s, to_mac, 0x0800);
    uint8_t *ip = s->tx + ETH;
    memset(ip, 0, IP);
    ip[0] = 0x45;
    store_be16(ip + 2, (uint16_t)(IP + len));
    ip[8] = 64;
    ip[9] = proto;
    store_be32(ip + 12, from);
    store_be32(ip + 16, to);
    store_be16(ip + 10, (uint16_t)~reference_sum(ip, IP, 0));
    s->send(s->opaque, s->tx, ETH + IP + len);
}

static bool for_us(struct stack *s)
{
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    return memcmp(s->rx, s->mac, 6) == 0 || memcmp(s->rx, all, 6) == 0;
}

static void answer_arp(struct stack *s)
{
    const uint8_t *a = s->rx + ETH;
    if (s->rx_len < ETH + 28 || load_be16(a + 6) != 1 || load_be32(a + 24) != s->ip || !s->ip)
        return;
    eth_header(s, a + 8, 0x0806);
    uint8_t *r = s->tx + ETH;
    memcpy(r, a, 8);
    store_be16(r + 6, 2);
    memcpy(r + 8, s->mac, 6);
    store_be32(r + 14, s->ip);
    memcpy(r + 18, a + 8, 10);
    s->send(s->opaque, s->tx, ETH + 28);
}

/* Checks what every IPv4 packet must have right. */
static void check_ip(const uint8_t *ip, size_t len)
{
    size_t header = 4u * (ip[0] & 15);
    size_t total = load_be16(ip + 2);
    assert_true(len >= IP && ip[0] >> 4 == 4 && header >= IP && total >= header && total <= len);
    assert_int_equal(reference_sum(ip, header, 0), 0xFFFF);
    const uint8_t *part = ip + header;
    size_t part_len = total - header;
    if (ip[9] == 6 || (ip[9] == 17 && load_be16(part + 6)))
        assert_int_equal(reference_sum(part, part_len, pseudo(ip, part_len)), 0xFFFF);
}

/* The next frame for us, ARP requests answered on the way; false: none in time. */
static bool next_frame(struct stack *s, uint64_t end)
{
    for (uint64_t now; (now = monotonic_ns()) < end;) {
        s->rx_len = s->recv(s->opaque, s->rx, sizeof(s->rx), (int)((end - now) / 1000000) + 1);
        if (s->rx_len < ETH || !for_us(s))
            continue;
        unsigned type = load_be16(s->rx + 12);
        if (type == 0x0806)
            answer_arp(s);
        if (type == 0x0800)
            check_ip(s->rx + ETH, s->rx_len - ETH);
        return true;
    }
    return false;
}

static uint64_t in_ms(unsigned ms)
{
    return monotonic_ns() + ms * 1000000ull;
}

/* Waits for an IPv4 packet of a protocol; what follows its header, or NULL. */
static const uint8_t *wait_ip(struct stack *s, uint8_t proto, uint64_t end, size_t *len)
{
    while (next_frame(s, end)) {
        const uint8_t *ip = s->rx + ETH;
        if (load_be16(s->rx + 12) != 0x0800 || ip[9] != proto)
            continue;
        size_t header = 4u * (ip[0] & 15);
        *len = load_be16(ip + 2) - header;
        return ip + header;
    }
    return NULL;
}

bool stack_arp(struct stack *s, uint32_t ip, uint8_t mac[6])
{
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    for (int tries = 0; tries < 5; tries++) {
        eth_header(s, all, 0x0806);
        uint8_t *a = s->tx + ETH;
        memset(a, 0, 28);
        const uint8_t head[] = {0, 1, 8, 0, 6, 4, 0, 1};
        memcpy(a, head, sizeof(head));
        memcpy(a + 8, s->mac, 6);
        store_be32(a + 14, s->ip);
        store_be32(a + 24, ip);
        s->send(s->opaque, s->tx, ETH + 28);
        for (uint64_t end = in_ms(TRY_MS); next_frame(s, end);) {
            const uint8_t *r = s->rx + ETH;
            if (load_be16(s->rx + 12) == 0x0806 && load_be16(r + 6) == 2 && load_be32(r + 14) == ip) {
                memcpy(mac, r + 8, 6);
                return true;
            }
        }
    }
    return false;
}

bool stack_ping(struct stack *s, uint32_t ip)
{
    uint8_t data[64];
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    const uint8_t head[8] = {8, 0, 0, 0, 0x12, 0x34, 0, 1};
    memcpy(data, head, 8);
    store_be16(data + 2, (uint16_t)~reference_sum(data, sizeof(data), 0));
    memcpy(s->tx + ETH + IP, data, sizeof(data));
    ip_send(s, s->gateway_mac, 1, s->ip, ip, sizeof(data));
    size_t len;
    const uint8_t *r = wait_ip(s, 1, in_ms(3000), &len);
    return r && len == sizeof(data) && r[0] == 0 && memcmp(r + 4, data + 4, len - 4) == 0 &&
           reference_sum(r, len, 0) == 0xFFFF;
}

/* --- UDP and DHCP --- */

static void udp_out(struct stack *s, const uint8_t *mac, uint32_t from, uint16_t from_port, uint32_t to,
                    uint16_t to_port, const uint8_t *data, size_t len)
{
    uint8_t *udp = s->tx + ETH + IP;
    store_be16(udp, from_port);
    store_be16(udp + 2, to_port);
    store_be16(udp + 4, (uint16_t)(8 + len));
    store_be16(udp + 6, 0); /* none */
    memcpy(udp + 8, data, len);
    ip_send(s, mac, 17, from, to, 8 + len);
}

void stack_udp_send(struct stack *s, uint16_t port, uint32_t to_ip, uint16_t to_port, const uint8_t *data,
                    size_t len)
{
    udp_out(s, s->gateway_mac, s->ip, port, to_ip, to_port, data, len);
}

size_t stack_udp_wait(struct stack *s, uint16_t port, uint8_t *data, size_t size, int timeout_ms,
                      uint32_t *from_ip, uint16_t *from_port)
{
    size_t len;
    uint64_t end = in_ms((unsigned)timeout_ms);
    for (const uint8_t *udp; (udp = wait_ip(s, 17, end, &len));) {
        if (len < 8 || load_be16(udp + 2) != port)
            continue;
        assert_int_equal(load_be16(udp + 4), len);
        *from_ip = load_be32(s->rx + ETH + 12);
        *from_port = load_be16(udp);
        size_t n = MIN(len - 8, size);
        memcpy(data, udp + 8, n);
        return n;
    }
    return 0;
}

static const uint8_t *dhcp_option(const uint8_t *m, size_t len, uint8_t code)
{
    for (size_t at = 240; at + 1 < len && m[at] != 255; at += m[at] ? 2u + m[at + 1] : 1u)
        if (m[at] == code)
            return m + at + 2;
    return NULL;
}

static size_t dhcp_message(struct stack *s, uint8_t *m, uint8_t type, uint32_t ask)
{
    memset(m, 0, 300);
    const uint8_t head[] = {1, 1, 6, 0, 0xCA, 0xFE, 0xBA, 0xBE};
    memcpy(m, head, sizeof(head));
    memcpy(m + 28, s->mac, 6);
    const uint8_t options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, type};
    memcpy(m + 236, options, sizeof(options));
    size_t at = 236 + sizeof(options);
    if (ask) {
        m[at] = 50;
        m[at + 1] = 4;
        store_be32(m + at + 2, ask);
        at += 6;
    }
    m[at] = 255;
    return 300;
}

/* Sends one message and waits for the answer of type `expect`; the address in it, or 0. */
static uint32_t dhcp_step(struct stack *s, uint8_t type, uint8_t expect, uint32_t ask)
{
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    uint8_t m[600];
    for (int tries = 0; tries < 5; tries++) {
        udp_out(s, all, 0, 68, 0xFFFFFFFF, 67, m, dhcp_message(s, m, type, ask));
        uint32_t from;
        uint16_t port;
        size_t len = stack_udp_wait(s, 68, m, sizeof(m), TRY_MS, &from, &port);
        const uint8_t *kind = len > 240 ? dhcp_option(m, len, 53) : NULL;
        if (!kind || *kind != expect || from != STACK_GATEWAY)
            continue;
        const uint8_t *router = dhcp_option(m, len, 3), *dns = dhcp_option(m, len, 6);
        assert_true(router && load_be32(router) == STACK_GATEWAY);
        assert_true(dns && load_be32(dns) == STACK_NAMESERVER);
        return load_be32(m + 16);
    }
    return 0;
}

uint32_t stack_dhcp(struct stack *s)
{
    uint32_t offer = dhcp_step(s, 1, 2, 0);
    if (!offer || dhcp_step(s, 3, 5, offer) != offer)
        fail_msg("DHCP: " NO_REPLY);
    s->ip = offer;
    if (!stack_arp(s, STACK_GATEWAY, s->gateway_mac))
        fail_msg("ARP: " NO_REPLY);
    return offer;
}

/* --- TCP --- */

static void tcp_send(struct stack *s, uint32_t seq, uint8_t flags, const uint8_t *options, size_t options_len,
                     size_t len)
{
    uint8_t *tcp = s->tx + ETH + IP;
    store_be16(tcp, s->local_port);
    store_be16(tcp + 2, s->remote_port);
    store_be32(tcp + 4, seq);
    store_be32(tcp + 8, s->rcv_nxt);
    tcp[12] = (uint8_t)((TCP + options_len) / 4 << 4);
    tcp[13] = flags;
    store_be16(tcp + 14, WINDOW);
    store_be32(tcp + 16, 0);
    if (options_len)
        memcpy(tcp + TCP, options, options_len);
    size_t part = TCP + options_len + len;
    uint8_t ip[IP] = {[9] = 6};
    store_be32(ip + 12, s->ip);
    store_be32(ip + 16, s->remote_ip);
    uint32_t sum = pseudo(ip, part);
    store_be16(tcp + 16, s->skip_sums ? (uint16_t)sum : (uint16_t)~reference_sum(tcp, part, sum));
    ip_send(s, s->gateway_mac, 6, s->ip, s->remote_ip, part);
}

static void tcp_ack(struct stack *s)
{
    tcp_send(s, s->snd_nxt, F_ACK, NULL, 0, 0);
}

/* The next segment of the connection, its acknowledgement taken in; NULL: none in time. */
static const uint8_t *tcp_next(struct stack *s, uint64_t end, size_t *len)
{
    for (const uint8_t *tcp; (tcp = wait_ip(s, 6, end, len));) {
        if (*len < TCP || load_be16(tcp + 2) != s->local_port ||
            (s->open && (load_be16(tcp) != s->remote_port || load_be32(s->rx + ETH + 12) != s->remote_ip)))
            continue;
        if (tcp[13] & F_RST)
            fail_msg("the connection was reset");
        if (s->open && tcp[13] & F_ACK) {
            uint32_t ack = load_be32(tcp + 8);
            if (ack - s->snd_una <= s->snd_nxt - s->snd_una)
                s->snd_una = ack;
            s->snd_wnd = load_be16(tcp + 14);
        }
        return tcp;
    }
    return NULL;
}

bool stack_tcp_accept(struct stack *s, uint16_t port, int timeout_ms)
{
    static const uint8_t mss[] = {2, 4, MSS_IN >> 8, MSS_IN & 255};
    size_t len;
    s->local_port = port;
    s->open = s->remote_fin = false;
    uint64_t end = in_ms((unsigned)timeout_ms);
    for (const uint8_t *tcp; (tcp = tcp_next(s, end, &len));) {
        if (!(tcp[13] & F_SYN))
            continue;
        s->remote_port = load_be16(tcp);
        s->remote_ip = load_be32(s->rx + ETH + 12);
        s->rcv_nxt = load_be32(tcp + 4) + 1;
        s->snd_una = 0x1000;
        s->snd_nxt = 0x1001;
        s->snd_wnd = load_be16(tcp + 14);
        s->open = true;
        tcp_send(s, 0x1000, F_SYN | F_ACK, mss, sizeof(mss), 0);
        while (s->snd_una != s->snd_nxt && tcp_next(s, end, &len))
            ;
        return s->snd_una == s->snd_nxt;
    }
    return false;
}

/* Takes in-order data and FIN of a segment; the data's length. */
static size_t tcp_data(struct stack *s, const uint8_t *tcp, size_t len, const uint8_t **data)
{
    size_t header = 4u * (tcp[12] >> 4);
    size_t n = len - header;
    uint32_t seq = load_be32(tcp + 4);
    *data = tcp + header;
    if (seq != s->rcv_nxt)
        return 0; /* a repetition, or after a gap: acknowledged again, and sent again */
    s->rcv_nxt += (uint32_t)n;
    if (tcp[13] & F_FIN && !s->remote_fin) {
        s->remote_fin = true;
        s->rcv_nxt++;
    }
    return n;
}

bool stack_tcp_read(struct stack *s, uint64_t total,
                    void (*sink)(void *opaque, const uint8_t *data, size_t len), void *opaque)
{
    uint64_t got = 0;
    unsigned unacked = 0;
    for (uint64_t end = monotonic_ns() + GIVE_UP; got < total;) {
        size_t len;
        const uint8_t *data, *tcp = tcp_next(s, MIN(end, in_ms(20)), &len);
        if (!tcp) {
            if (monotonic_ns() >= end)
                return false;
            if (unacked)
                tcp_ack(s);
            unacked = 0;
            continue;
        }
        size_t n = tcp_data(s, tcp, len, &data);
        if (n) {
            sink(opaque, data, n);
            got += n;
            end = monotonic_ns() + GIVE_UP;
        }
        if (++unacked >= 4 || !n || got == total) {
            tcp_ack(s);
            unacked = 0;
        }
    }
    return got == total;
}

bool stack_tcp_write(struct stack *s, uint64_t total,
                     void (*source)(uint64_t offset, uint8_t *data, size_t len))
{
    uint32_t first = s->snd_nxt;
    uint64_t acked = 0, sent = 0, end = monotonic_ns() + GIVE_UP;
    while (acked < total) {
        uint64_t in_flight = sent - acked;
        size_t n = (size_t)MIN(total - sent, s->snd_wnd > in_flight ? s->snd_wnd - in_flight : 0);
        n = MIN(n, s->mss_out);
        if (n && (n == s->mss_out || sent + n == total || !in_flight)) {
            source(sent, s->tx + ETH + IP + TCP, n);
            tcp_send(s, first + (uint32_t)sent, F_ACK, NULL, 0, n);
            sent += n;
            s->snd_nxt = first + (uint32_t)sent;
            continue;
        }
        size_t len;
        uint32_t before = s->snd_una;
        bool heard = tcp_next(s, in_ms(300), &len);
        acked += s->snd_una - before;
        if (s->snd_una != before)
            end = monotonic_ns() + GIVE_UP;
        if (!heard)
            sent = acked; /* something was lost: again from there */
        if (monotonic_ns() >= end)
            return false;
    }
    return true;
}

void stack_tcp_close(struct stack *s)
{
    size_t len;
    const uint8_t *data, *tcp;
    uint32_t seq = s->snd_nxt;
    for (int tries = 0; tries < 20 && (s->snd_una != seq + 1 || !s->remote_fin); tries++) {
        s->snd_nxt = seq + 1;
        tcp_send(s, s->snd_una == seq + 1 ? seq + 1 : seq, s->snd_una == seq + 1 ? F_ACK : F_FIN | F_ACK,
                 NULL, 0, 0);
        for (uint64_t end = in_ms(200); (tcp = tcp_next(s, end, &len));) {
            tcp_data(s, tcp, len, &data);
            if (s->snd_una == seq + 1 && s->remote_fin)
                break;
        }
    }
    tcp_ack(s);
    s->open = false;
}
