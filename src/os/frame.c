/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames: see frame.h. The header's own checksum comes first, so that a damaged length is found before
 * anybody waits for that many bytes.
 */
#include "os/frame.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/util.h"

/* Offsets in the header. */
enum { AT_MAGIC = 0, AT_KIND = 4, AT_NUMBER = 8, AT_LENGTH = 12, AT_CONTENTS = 16, AT_CHECKSUM = 20 };

#define MAGIC      0x4d665275u /* "uRfM" */
#define PIECES_MAX 320u

void frame_stream_release(struct frame_stream *s)
{
    free(s->buf);
    s->buf = NULL;
    s->cap = 0;
}

/* Waits until the socket is ready for `events`. */
static bool wait_for(struct frame_stream *s, short events, struct error **err)
{
    struct pollfd p[2] = {{.fd = s->fd, .events = events}, {.fd = s->stop_fd, .events = POLLIN}};
    int n;

    do
        n = poll(p, 2, s->timeout_ms);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_set_errno(err, errno, "cannot wait for %s", s->peer), false;
    if (n == 0)
        return error_set(err, ETIMEDOUT, "%s has not answered for %d seconds", s->peer, s->timeout_ms / 1000),
               false;
    if (p[1].revents)
        return error_set(err, ECANCELED, "it was cancelled"), false;
    return true;
}

static bool told_to_stop(const struct frame_stream *s)
{
    struct pollfd p = {.fd = s->stop_fd, .events = POLLIN};

    return s->stop_fd >= 0 && poll(&p, 1, 0) > 0;
}

/* Drops the first `n` bytes of the pieces. */
static void advance(struct iovec **piece, unsigned *count, size_t n)
{
    while (*count && n >= (*piece)->iov_len) {
        n -= (*piece)->iov_len;
        ++*piece;
        --*count;
    }
    if (*count) {
        (*piece)->iov_base = (uint8_t *)(*piece)->iov_base + n;
        (*piece)->iov_len -= n;
    }
}

static bool send_all(struct frame_stream *s, struct iovec *piece, unsigned count, struct error **err)
{
    while (count) {
        struct msghdr m = {.msg_iov = piece, .msg_iovlen = count};
        ssize_t n = sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return error_set_errno(err, errno, "the connection to %s broke", s->peer), false;
        if (n < 0 && !wait_for(s, POLLOUT, err))
            return false;
        if (n > 0) {
            __atomic_fetch_add(&s->bytes_sent, (uint64_t)n, __ATOMIC_RELAXED);
            advance(&piece, &count, (size_t)n);
        }
    }
    return true;
}

bool frame_send(struct frame_stream *s, uint32_t kind, const struct iovec *piece, unsigned count,
                struct error **err)
{
    uint8_t header[FRAME_HEADER];
    struct iovec all[PIECES_MAX + 1] = {{header, sizeof(header)}};
    uint32_t sum = s->seed;
    size_t length = 0;

    if (count > PIECES_MAX)
        return error_set(err, EINVAL, "a frame of %u pieces", count), false;
    if (told_to_stop(s))
        return error_set(err, ECANCELED, "it was cancelled"), false;
    for (unsigned i = 0; i < count; i++) {
        sum = crc32c(sum, piece[i].iov_base, piece[i].iov_len);
        length += piece[i].iov_len;
        all[i + 1] = piece[i];
    }
    if (length > s->limit(kind))
        return error_set(err, EFBIG, "a frame of kind %u and %zu bytes is too large", kind, length), false;
    store_le32(header + AT_MAGIC, MAGIC);
    store_le32(header + AT_KIND, kind);
    store_le32(header + AT_NUMBER, s->sent++);
    store_le32(header + AT_LENGTH, (uint32_t)length);
    store_le32(header + AT_CONTENTS, sum);
    store_le32(header + AT_CHECKSUM, crc32c(s->seed, header, AT_CHECKSUM));
    return send_all(s, all, count + 1, err);
}

bool frame_send_bytes(struct frame_stream *s, uint32_t kind, const void *data, size_t len, struct error **err)
{
    /* sendmsg only reads it */
    const struct iovec piece = {(void *)(uintptr_t)data, len};

    return frame_send(s, kind, &piece, len ? 1 : 0, err);
}

static bool receive_all(struct frame_stream *s, uint8_t *to, size_t len, struct error **err)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = recv(s->fd, to + done, len - done, MSG_DONTWAIT);
        if (n == 0)
            return error_set(err, ECONNRESET, "%s has closed the connection", s->peer), false;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return error_set_errno(err, errno, "the connection to %s broke", s->peer), false;
        if (n < 0 && !wait_for(s, POLLIN, err))
            return false;
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool damaged(struct frame_stream *s, const char *what, struct error **err)
{
    error_set(err, EBADMSG, "what %s sent is damaged: %s of frame %u is wrong", s->peer, what, s->received);
    return false;
}

static bool make_room(struct frame_stream *s, size_t len, struct error **err)
{
    if (len <= s->cap)
        return true;
    uint8_t *bigger = realloc(s->buf, len);
    if (!bigger)
        return error_set_errno(err, ENOMEM, "cannot take %zu bytes from %s", len, s->peer), false;
    s->buf = bigger;
    s->cap = len;
    return true;
}

bool frame_receive(struct frame_stream *s, struct frame *f, struct error **err)
{
    uint8_t header[FRAME_HEADER];

    if (!receive_all(s, header, sizeof(header), err))
        return false;
    if (load_le32(header + AT_MAGIC) != MAGIC && s->received == 0)
        return error_set(err, EBADMSG, "%s speaks another language", s->peer), false;
    if (load_le32(header + AT_CHECKSUM) != crc32c(s->seed, header, AT_CHECKSUM))
        return damaged(s, "the checksum of the header", err);
    *f = (struct frame){.kind = load_le32(header + AT_KIND), .length = load_le32(header + AT_LENGTH)};
    if (load_le32(header + AT_MAGIC) != MAGIC || load_le32(header + AT_NUMBER) != s->received)
        return damaged(s, "the number", err);
    if (!s->limit(f->kind))
        return error_set(err, EBADMSG, "%s sent a frame of kind %u, which is not known", s->peer, f->kind),
               false;
    if (f->length > s->limit(f->kind))
        return damaged(s, "the length", err);
    if (!make_room(s, f->length, err) || !receive_all(s, s->buf, f->length, err))
        return false;
    if (load_le32(header + AT_CONTENTS) != crc32c(s->seed, s->buf, f->length))
        return damaged(s, "the checksum of the contents", err);
    f->data = s->buf;
    s->received++;
    return true;
}

bool frame_waits(const struct frame_stream *s)
{
    struct pollfd p = {.fd = s->fd, .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}
