/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's network stack, as small as testing a network allows: ARP, DHCP, ICMP echo, UDP, and one TCP
 * connection that the other side opens. Over any carrier of Ethernet frames. Failures go through cmocka.
 */
#ifndef TESTS_NET_GUEST_STACK_H
#define TESTS_NET_GUEST_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STACK_FRAME_MAX (65536 + 64)

struct stack {
    /* The carrier. recv waits up to timeout_ms and returns the length, 0 when nothing came. */
    void (*send)(void *opaque, const uint8_t *frame, size_t len);
    size_t (*recv)(void *opaque, uint8_t *frame, size_t size, int timeout_ms);
    void *opaque;
    uint8_t mac[6], gateway_mac[6];
    uint32_t ip; /* host order; 0 before DHCP */
    size_t
        mss_out; /* payload in one TCP frame; past 1460 is what a card with segmentation offload would do */
    bool skip_sums; /* TCP frames leave with only the pseudo header summed: the card completes them */
    uint8_t rx[STACK_FRAME_MAX], tx[STACK_FRAME_MAX];
    size_t rx_len;
    /* TCP */
    uint16_t local_port, remote_port;
    uint32_t remote_ip;
    uint32_t snd_nxt, snd_una, rcv_nxt, snd_wnd;
    bool open, remote_fin;
};

#define STACK_GATEWAY    0x0A000202u
#define STACK_NAMESERVER 0x0A000203u

/* Gets an address by DHCP and returns it; resolves the gateway. */
uint32_t stack_dhcp(struct stack *s);
bool stack_arp(struct stack *s, uint32_t ip, uint8_t mac[6]);
/* Pings; true when the answer carries the same data. */
bool stack_ping(struct stack *s, uint32_t ip);
/* Waits for a UDP datagram to `port`; its length, 0: none. The sender goes to the last two. */
size_t stack_udp_wait(struct stack *s, uint16_t port, uint8_t *data, size_t size, int timeout_ms,
                      uint32_t *from_ip, uint16_t *from_port);
void stack_udp_send(struct stack *s, uint16_t port, uint32_t to_ip, uint16_t to_port, const uint8_t *data,
                    size_t len);

/* Accepts one connection to `port`. */
bool stack_tcp_accept(struct stack *s, uint16_t port, int timeout_ms);
/* Receives exactly `total` bytes, handing pieces to `sink`. */
bool stack_tcp_read(struct stack *s, uint64_t total,
                    void (*sink)(void *opaque, const uint8_t *data, size_t len), void *opaque);
/* Sends `total` bytes made by `source` (which must make the same bytes again for the same offset). */
bool stack_tcp_write(struct stack *s, uint64_t total,
                     void (*source)(uint64_t offset, uint8_t *data, size_t len));
/* Sends FIN and waits until it and the other side's are acknowledged. */
void stack_tcp_close(struct stack *s);

/* The internet checksum by the book, one 16-bit word after the other. */
uint16_t reference_sum(const uint8_t *data, size_t len, uint32_t start);

#endif
