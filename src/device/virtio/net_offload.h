/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a network card does for its driver, in software: completing checksums, and splitting long TCP packets.
 * Pure functions over a frame in memory that the guest cannot change meanwhile; whatever the frame and the
 * header say, nothing outside of the frame is touched.
 */
#ifndef DEVICE_VIRTIO_NET_OFFLOAD_H
#define DEVICE_VIRTIO_NET_OFFLOAD_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The one's complement sum (RFC 1071) of bytes, added to `sum`; and the 16-bit checksum that it comes to. */
uint64_t net_sum(const uint8_t *data, size_t len, uint64_t sum);
uint16_t net_checksum(uint64_t sum);

/*
 * Completes the checksum at start + offset over [start, len), where the driver left the sum of the pseudo
 * header. False when that is not within the frame.
 */
bool net_complete_checksum(uint8_t *frame, size_t len, size_t start, size_t offset);

/* Where the headers of a TCP frame are. */
struct net_tcp_frame {
    bool ipv6;
    size_t ip, tcp, payload; /* offsets */
};

/* Finds them (VLAN tags and IPv6 extension headers are passed over); false: not a whole, unfragmented TCP
 * packet. */
bool net_parse_tcp(const uint8_t *frame, size_t len, struct net_tcp_frame *out);

typedef void net_emit_fn(void *opaque, const struct iovec *iov, int count);

/*
 * Turns the long TCP frame into frames of at most `limit` bytes, with lengths and checksums right: one when
 * it fits, else pieces of `mss` bytes of payload. The headers in `frame` are overwritten. False when it is
 * not TCP over `ipv6` or IPv4 as said, or mss is absurd.
 */
bool net_segment(uint8_t *frame, size_t len, bool ipv6, size_t mss, size_t limit, net_emit_fn *emit,
                 void *opaque);

/* A number for the flow that a frame belongs to, the same for both directions; 0 for what is not TCP or UDP
 * over IP. */
uint32_t net_flow_hash(const uint8_t *frame, size_t len);

#endif
