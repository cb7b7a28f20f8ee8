/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See net_offload.h. Header layouts: RFC 791 (IPv4), RFC 8200 (IPv6), RFC 9293 (TCP). */
#include "device/virtio/net_offload.h"

#include "base/util.h"

#define ETH_HEADER   14
#define TYPE_IPV4    0x0800
#define TYPE_IPV6    0x86DD
#define TYPE_VLAN    0x8100
#define TYPE_QINQ    0x88A8
#define VLAN_TAG     4
#define IPV6_HEADER  40
#define PROTO_TCP    6
#define PROTO_UDP    17
#define TCP_HEADER   20
#define TCP_CHECKSUM 16
#define TCP_FLAGS    13
#define FLAG_FIN     0x01
#define FLAG_PSH     0x08
#define FLAG_CWR     0x80
#define MSS_MIN      48 /* no TCP goes below; a smaller one would only make work */

uint64_t net_sum(const uint8_t *data, size_t len, uint64_t sum)
{
    /* Any word size gives the same sum; 32-bit pieces in 64 bits cannot overflow for any frame. */
    for (; len >= 4; data += 4, len -= 4)
        sum += load_le32(data);
    if (len >= 2) {
        sum += load_le16(data);
        data += 2;
        len -= 2;
    }
    return len ? sum + data[0] : sum;
}

uint16_t net_checksum(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)~sum; /* in the byte order of the frame, as the words were summed up in that */
}

bool net_complete_checksum(uint8_t *frame, size_t len, size_t start, size_t offset)
{
    if (!range_fits(start, offset, len) || len - start - offset < 2)
        return false;
    uint16_t check = net_checksum(net_sum(frame + start, len - start, 0));
    /* Zero would mean "none" to UDP; for others both forms are the same number. */
    store_le16(frame + start + offset, check ? check : 0xFFFF);
    return true;
}

/* Finds the IP header; its EtherType, or 0. */
static unsigned find_ip(const uint8_t *frame, size_t len, size_t *ip)
{
    size_t at = ETH_HEADER;
    if (len < at)
        return 0;
    unsigned type = load_be16(frame + at - 2);
    for (int tags = 0; tags < 2 && (type == TYPE_VLAN || type == TYPE_QINQ); tags++) {
        at += VLAN_TAG;
        if (len < at)
            return 0;
        type = load_be16(frame + at - 2);
    }
    *ip = at;
    return type;
}

/* Finds what follows the IP header; its protocol number, or -1 (not IP, a fragment, cut short). */
static int find_transport(const uint8_t *frame, size_t len, bool *ipv6, size_t *ip, size_t *at)
{
    unsigned type = find_ip(frame, len, ip);
    if (type == TYPE_IPV4) {
        if (len - *ip < 20 || frame[*ip] >> 4 != 4)
            return -1;
        size_t header = 4 * (size_t)(frame[*ip] & 15);
        if (header < 20 || len - *ip < header || load_be16(frame + *ip + 6) & 0x3FFF)
            return -1;
        *ipv6 = false;
        *at = *ip + header;
        return frame[*ip + 9];
    }
    if (type != TYPE_IPV6 || len - *ip < IPV6_HEADER || frame[*ip] >> 4 != 6)
        return -1;
    *ipv6 = true;
    *at = *ip + IPV6_HEADER;
    uint8_t next = frame[*ip + 6];
    while (next == 0 || next == 43 || next == 60) { /* hop-by-hop, routing, destination options */
        if (len - *at < 8)
            return -1;
        size_t header = 8 * ((size_t)frame[*at + 1] + 1);
        next = frame[*at];
        if (len - *at < header)
            return -1;
        *at += header;
    }
    return next;
}

bool net_parse_tcp(const uint8_t *frame, size_t len, struct net_tcp_frame *out)
{
    if (find_transport(frame, len, &out->ipv6, &out->ip, &out->tcp) != PROTO_TCP ||
        len - out->tcp < TCP_HEADER)
        return false;
    size_t header = 4 * (size_t)(frame[out->tcp + 12] >> 4);
    out->payload = out->tcp + header;
    return header >= TCP_HEADER && out->payload <= len;
}

/* The sum over the addresses, the protocol and the length of the TCP part. */
static uint64_t pseudo_sum(const uint8_t *frame, const struct net_tcp_frame *f, size_t tcp_len)
{
    uint8_t tail[8] = {0};
    store_be32(tail, (uint32_t)tcp_len);
    tail[7] = PROTO_TCP;
    uint64_t sum = net_sum(tail, sizeof(tail), 0);
    return f->ipv6 ? net_sum(frame + f->ip + 8, 32, sum) : net_sum(frame + f->ip + 12, 8, sum);
}

/* Makes the headers right for a segment with `len` bytes of payload at `data`. */
static void finish_headers(uint8_t *frame, const struct net_tcp_frame *f, const uint8_t *data, size_t len)
{
    size_t after_ip = f->payload - f->ip + len;
    uint8_t *ip = frame + f->ip, *tcp = frame + f->tcp;
    if (f->ipv6) {
        store_be16(ip + 4, (uint16_t)(after_ip - IPV6_HEADER));
    } else {
        store_be16(ip + 2, (uint16_t)after_ip);
        store_le16(ip + 10, 0);
        store_le16(ip + 10, net_checksum(net_sum(ip, f->tcp - f->ip, 0)));
    }
    size_t header = f->payload - f->tcp;
    store_le16(tcp + TCP_CHECKSUM, 0);
    /* The TCP header is a multiple of 4 bytes, so that the payload's sum just adds up. */
    uint64_t sum = net_sum(tcp, header, pseudo_sum(frame, f, header + len));
    store_le16(tcp + TCP_CHECKSUM, net_checksum(net_sum(data, len, sum)));
}

bool net_segment(uint8_t *frame, size_t len, bool ipv6, size_t mss, size_t limit, net_emit_fn *emit,
                 void *opaque)
{
    struct net_tcp_frame f;
    if (!net_parse_tcp(frame, len, &f) || f.ipv6 != ipv6 || mss < MSS_MIN)
        return false;
    size_t total = len - f.payload;
    size_t ip_max = 65535 + (ipv6 ? IPV6_HEADER : 0);
    size_t chunk = len <= limit && len - f.ip <= ip_max ? total : mss;
    if (f.payload + chunk > limit || f.payload - f.ip + chunk > ip_max)
        return false;

    uint32_t seq = load_be32(frame + f.tcp + 4);
    uint16_t id = load_be16(frame + f.ip + 4);
    uint8_t flags = frame[f.tcp + TCP_FLAGS];
    size_t done = 0;
    do {
        size_t n = MIN(chunk, total - done);
        bool last = done + n == total;
        uint8_t drop = (uint8_t)((done ? FLAG_CWR : 0) | (last ? 0 : FLAG_FIN | FLAG_PSH));
        store_be32(frame + f.tcp + 4, seq + (uint32_t)done);
        frame[f.tcp + TCP_FLAGS] = flags & (uint8_t)~drop;
        if (!ipv6)
            store_be16(frame + f.ip + 4, id++);
        uint8_t *data = frame + f.payload + done;
        finish_headers(frame, &f, data, n);
        const struct iovec iov[] = {{.iov_base = frame, .iov_len = f.payload},
                                    {.iov_base = data, .iov_len = n}};
        emit(opaque, iov, 2);
        done += n;
    } while (done < total);
    return true;
}

uint32_t net_flow_hash(const uint8_t *frame, size_t len)
{
    bool ipv6;
    size_t ip, at;
    int proto = find_transport(frame, len, &ipv6, &ip, &at);
    if ((proto != PROTO_TCP && proto != PROTO_UDP) || len - at < 4)
        return 0;
    /* Adding the two ends up makes both directions alike. */
    uint64_t sum = (uint64_t)load_be16(frame + at) + load_be16(frame + at + 2);
    const uint8_t *addr = frame + ip + (ipv6 ? 8 : 12);
    for (unsigned i = 0; i < (ipv6 ? 8u : 2u); i++)
        sum += load_be32(addr + 4 * (size_t)i);
    uint32_t hash = (uint32_t)((sum + (uint64_t)proto) * 0x9E3779B97F4A7C15u >> 32);
    return hash ? hash : 1;
}
