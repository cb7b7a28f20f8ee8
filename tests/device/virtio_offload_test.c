/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checksums and segmentation of the network card against sums and splits worked out by the book. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/util.h"
#include "device/virtio/net_offload.h"
#include "testmachine.h"

#define FIN 0x01
#define PSH 0x08
#define ACK 0x10
#define CWR 0x80

/* RFC 1071, one 16-bit word after the other. */
static uint16_t sum16(const uint8_t *data, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++) {
        sum += i % 2 ? data[i] : (uint32_t)data[i] << 8;
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    return (uint16_t)sum;
}

static void test_sums(void **state)
{
    /* The example of RFC 1071, section 3. */
    const uint8_t example[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    uint16_t sum = net_checksum(net_sum(example, sizeof(example), 0));
    assert_int_equal(__builtin_bswap16((uint16_t)~sum), 0xddf2);

    uint64_t rng = test_seed();
    uint8_t data[70000];
    for (int round = 0; round < 300; round++) {
        size_t len = round < 64 ? (size_t)round : test_random(&rng) % sizeof(data);
        for (size_t i = 0; i < len; i++)
            data[i] = round % 3 ? (uint8_t)test_random(&rng) : 0xFF;
        sum = net_checksum(net_sum(data, len, 0));
        assert_int_equal((uint16_t)~__builtin_bswap16(sum), sum16(data, len, 0));
    }
}

static void test_completing(void **state)
{
    uint64_t rng = test_seed();
    for (int round = 0; round < 2000; round++) {
        size_t len = 20 + test_random(&rng) % 200, start = test_random(&rng) % len;
        size_t offset = test_random(&rng) % 64;
        uint8_t *frame = malloc(len); /* of the exact size, so that a sanitizer sees a step outside */
        assert_non_null(frame);
        for (size_t i = 0; i < len; i++)
            frame[i] = (uint8_t)test_random(&rng);
        bool fits = start + offset + 2 <= len;
        assert_int_equal(net_complete_checksum(frame, len, start, offset), fits);
        if (fits && offset % 2 == 0) {
            /* The field held the start of the sum: what results sums up to all ones without it. */
            uint16_t check = load_be16(frame + start + offset);
            assert_int_not_equal(check, 0);
        }
        free(frame);
    }
    uint8_t small[4] = {0};
    assert_false(net_complete_checksum(small, 4, 65535, 65535));
    assert_false(net_complete_checksum(small, 4, 4, 0));
    assert_false(net_complete_checksum(small, 0, 0, 0));
    assert_true(net_complete_checksum(small, 4, 0, 2));
    assert_int_equal(load_be16(small + 2), 0xFFFF); /* never zero: UDP would take that for "none" */
}

/* A UDP packet whose checksum was left to the card must come out as the book says. */
static void test_completing_udp(void **state)
{
    uint64_t rng = test_seed();
    for (int round = 0; round < 500; round++) {
        uint8_t f[14 + 20 + 8 + 100];
        size_t data = test_random(&rng) % 100, len = 42 + data, udp_len = 8 + data;
        for (size_t i = 0; i < sizeof(f); i++)
            f[i] = (uint8_t)test_random(&rng);
        store_be16(f + 38, (uint16_t)udp_len);
        uint8_t tail[4] = {0, 17};
        store_be16(tail + 2, (uint16_t)udp_len);
        uint16_t pseudo = sum16(f + 26, 8, sum16(tail, 4, 0));
        store_be16(f + 40, pseudo);
        assert_true(net_complete_checksum(f, len, 34, 6));
        assert_int_equal(sum16(f + 34, udp_len, pseudo), 0xFFFF);
    }
}

/* --- segmentation --- */

struct shape {
    bool ipv6;
    unsigned vlans, ip_options, tcp_options, extensions;
};

struct collected {
    struct shape shape;
    const uint8_t *payload;
    size_t headers, tcp_at, ip_at;
    size_t total, done, limit, count;
    uint32_t seq;
    uint16_t id;
    uint8_t flags;
};

static size_t build(uint8_t *f, const struct shape *s, size_t payload, uint64_t *rng, struct collected *c)
{
    size_t at = 12;
    for (size_t i = 0; i < 14 + 8 + 200 + payload; i++)
        f[i] = (uint8_t)test_random(rng);
    for (unsigned i = 0; i < s->vlans; i++, at += 4)
        store_be16(f + at, i || s->vlans == 1 ? 0x8100 : 0x88A8);
    store_be16(f + at, s->ipv6 ? 0x86DD : 0x0800);
    size_t ip = at + 2, tcp;
    if (s->ipv6) {
        static const uint8_t kinds[] = {0, 60, 43};
        tcp = ip + 40;
        f[ip] = 0x60;
        f[ip + 6] = s->extensions ? kinds[0] : 6;
        for (unsigned i = 0; i < s->extensions; i++, tcp += 16) {
            f[tcp] = i + 1 < s->extensions ? kinds[i + 1] : 6;
            f[tcp + 1] = 1;
        }
    } else {
        f[ip] = (uint8_t)(0x45 + s->ip_options);
        store_be16(f + ip + 6, 0x4000);
        f[ip + 9] = 6;
        tcp = ip + 20 + 4 * s->ip_options;
    }
    size_t end = tcp + 20 + 4 * s->tcp_options;
    f[tcp + 12] = (uint8_t)((5 + s->tcp_options) << 4);
    *c = (struct collected){
        .shape = *s,
        .headers = end,
        .ip_at = ip,
        .tcp_at = tcp,
        .total = payload,
        .seq = load_be32(f + tcp + 4),
        .id = load_be16(f + ip + 4),
        .flags = f[tcp + 13],
    };
    return end + payload;
}

static uint16_t transport_pseudo(const uint8_t *ip, bool ipv6, size_t len)
{
    uint8_t tail[8] = {0};
    store_be32(tail, (uint32_t)len);
    tail[7] = 6;
    uint16_t sum = sum16(tail, 8, 0);
    return ipv6 ? sum16(ip + 8, 32, sum) : sum16(ip + 12, 8, sum);
}

static void check_segment(void *opaque, const struct iovec *iov, int count)
{
    struct collected *c = opaque;
    uint8_t f[70000];
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        memcpy(f + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    size_t n = len - c->headers;
    const uint8_t *ip = f + c->ip_at, *tcp = f + c->tcp_at;
    bool first = c->done == 0, last = c->done + n == c->total;
    assert_true(len <= c->limit);
    assert_memory_equal(f + c->headers, c->payload + c->done, n);
    assert_int_equal(load_be32(tcp + 4), (uint32_t)(c->seq + c->done));
    uint8_t flags = c->flags;
    if (!first)
        flags &= (uint8_t)~CWR;
    if (!last)
        flags &= (uint8_t) ~(FIN | PSH);
    assert_int_equal(tcp[13], flags);
    if (c->shape.ipv6) {
        assert_int_equal(load_be16(ip + 4), len - c->ip_at - 40);
    } else {
        assert_int_equal(load_be16(ip + 2), len - c->ip_at);
        assert_int_equal(load_be16(ip + 4), (uint16_t)(c->id + c->count));
        assert_int_equal(sum16(ip, c->tcp_at - c->ip_at, 0), 0xFFFF);
    }
    size_t tcp_len = len - c->tcp_at;
    assert_int_equal(sum16(tcp, tcp_len, transport_pseudo(ip, c->shape.ipv6, tcp_len)), 0xFFFF);
    c->done += n;
    c->count++;
}

static void test_segments(void **state)
{
    uint64_t rng = test_seed();
    for (int round = 0; round < 600; round++) {
        uint8_t *f = malloc(70000), *payload = malloc(70000);
        assert_true(f && payload);
        struct shape s = {
            .ipv6 = test_random(&rng) % 2,
            .vlans = (unsigned)(test_random(&rng) % 3),
            .ip_options = (unsigned)(test_random(&rng) % 4),
            .tcp_options = (unsigned)(test_random(&rng) % 11),
            .extensions = (unsigned)(test_random(&rng) % 4),
        };
        struct collected c;
        size_t mss = 48 + test_random(&rng) % 1400, data = test_random(&rng) % 60000;
        size_t len = build(f, &s, data, &rng, &c);
        memcpy(payload, f + c.headers, data);
        c.payload = payload;
        c.limit = round % 3 ? c.headers + mss + test_random(&rng) % 20 : 65549;
        assert_false(net_segment(f, len, !s.ipv6, mss, c.limit, check_segment, &c));
        assert_false(net_segment(f, len, s.ipv6, round % 48, c.limit, check_segment, &c));
        assert_true(net_segment(f, len, s.ipv6, mss, c.limit, check_segment, &c));
        assert_int_equal(c.done, data);
        size_t pieces = len <= c.limit ? 1 : (data + mss - 1) / mss;
        assert_int_equal(c.count, pieces);
        free(f);
        free(payload);
    }
}

static void ignore(void *opaque, const struct iovec *iov, int count)
{
}

/* Frames cut short anywhere, and noise: nothing outside of the frame is read (a sanitizer sees it), fragments
 * are left. */
static void test_hostile_frames(void **state)
{
    uint64_t rng = test_seed();
    for (int round = 0; round < 20000; round++) {
        uint8_t f[3000];
        struct shape s = {
            .ipv6 = round % 2,
            .vlans = (unsigned)(test_random(&rng) % 3),
            .ip_options = (unsigned)(test_random(&rng) % 4),
            .tcp_options = (unsigned)(test_random(&rng) % 11),
            .extensions = (unsigned)(test_random(&rng) % 4),
        };
        struct collected c;
        size_t len = build(f, &s, 300, &rng, &c);
        if (round % 3 == 0)
            len = test_random(&rng) % len;
        for (unsigned i = 0; round % 3 == 1 && i < 6; i++)
            f[test_random(&rng) % c.headers] = (uint8_t)test_random(&rng);
        uint8_t *exact = malloc(len ? len : 1);
        assert_non_null(exact);
        memcpy(exact, f, len);
        bool ok = net_segment(exact, len, s.ipv6, 100, 200, ignore, NULL);
        if (round % 3 == 0 && len < c.headers)
            assert_false(ok);
        net_flow_hash(exact, len);
        struct net_tcp_frame parsed;
        if (net_parse_tcp(exact, len, &parsed))
            assert_true(parsed.payload <= len && parsed.tcp < parsed.payload && parsed.ip < parsed.tcp);
        free(exact);
    }
}

static void test_flow_hash(void **state)
{
    uint64_t rng = test_seed();
    uint8_t a[3000], b[3000];
    for (int round = 0; round < 200; round++) {
        struct shape s = {.ipv6 = round % 2};
        struct collected c;
        size_t len = build(a, &s, 10, &rng, &c), addr = s.ipv6 ? 16 : 4, at = c.ip_at + (s.ipv6 ? 8u : 12u);
        memcpy(b, a, len);
        memcpy(b + at, a + at + addr, addr);
        memcpy(b + at + addr, a + at, addr);
        memcpy(b + c.tcp_at, a + c.tcp_at + 2, 2);
        memcpy(b + c.tcp_at + 2, a + c.tcp_at, 2);
        assert_int_not_equal(net_flow_hash(a, len), 0);
        assert_int_equal(net_flow_hash(a, len), net_flow_hash(b, len));
        b[c.tcp_at] ^= 0x10;
        assert_int_not_equal(net_flow_hash(a, len), net_flow_hash(b, len));
    }
    assert_int_equal(net_flow_hash(a, 20), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),           cmocka_unit_test(test_completing),
        cmocka_unit_test(test_completing_udp), cmocka_unit_test(test_segments),
        cmocka_unit_test(test_hostile_frames), cmocka_unit_test(test_flow_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
