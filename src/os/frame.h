/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames over a connected stream socket, in both directions: each has a kind and a number, and its header and
 * its contents have a checksum, so that what was damaged, left out or mixed up with another stream is found
 * and named. docs/migration.md describes every byte. One thread at a time uses a stream.
 */
#ifndef OS_FRAME_H
#define OS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct error;

#define FRAME_HEADER 24u

struct frame_stream {
    int fd;           /* not owned */
    int stop_fd;      /* readable: gives up with ECANCELED; -1: none */
    int timeout_ms;   /* of each wait for the peer; -1: none */
    const char *peer; /* for messages, as "the destination" */
    /* The largest length of a frame of that kind, bytes; 0: there is no such kind. */
    uint32_t (*limit)(uint32_t kind);
    uint32_t seed;           /* that checksums begin with */
    uint32_t sent, received; /* frames so far */
    uint64_t bytes_sent;     /* atomic */
    uint8_t *buf;            /* of the frame last received */
    size_t cap;
};

/* Contents stay valid until the next call. */
struct frame {
    uint32_t kind, length;
    const uint8_t *data;
};

void frame_stream_release(struct frame_stream *s);
/*
 * Sends one frame, whose contents are the pieces one after the other and must not change meanwhile. False and
 * *err: ECANCELED when it was told to stop, ETIMEDOUT, or what the connection ended with.
 */
bool frame_send(struct frame_stream *s, uint32_t kind, const struct iovec *piece, unsigned count,
                struct error **err);
/* One of a single piece. */
bool frame_send_bytes(struct frame_stream *s, uint32_t kind, const void *data, size_t len,
                      struct error **err);
/* The next frame. As above, and EBADMSG for one that is damaged. */
bool frame_receive(struct frame_stream *s, struct frame *f, struct error **err);
/* Whether something has been received that frame_receive would look at. */
bool frame_waits(const struct frame_stream *s);

#endif
