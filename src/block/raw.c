/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raw images: the file is the disk. Files and block devices. Discard punches holes; zeroes are written by the
 * file system where it can, by us where it cannot.
 */
#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "block/block_int.h"
#include "block/io.h"
#include "os/sys.h"

enum { ZERO_IOVS = 64 };

struct raw_request {
    struct io_group group;
    struct block_request *req;
    struct layer *layer;
    uint64_t zeroed; /* bytes of a WRITE_ZEROES that are written, when the file system could not */
    bool by_hand;
};

static bool raw_probe(const uint8_t *head, size_t len)
{
    (void)head;
    (void)len;
    return true;
}

static bool file_size(struct layer *l, uint64_t *size, struct error **err)
{
    struct stat st;
    if (fstat(l->fd, &st) < 0 || (S_ISBLK(st.st_mode) && ioctl(l->fd, BLKGETSIZE64, size) < 0)) {
        error_set_errno(err, errno, "cannot find the size of '%s'", l->path);
        return false;
    }
    if (!S_ISBLK(st.st_mode))
        *size = (uint64_t)st.st_size;
    return true;
}

static bool raw_open(struct layer *l, struct error **err)
{
    uint64_t size = 0;
    if (!file_size(l, &size, err))
        return false;
    if (size == 0) {
        error_set(err, EINVAL, "cannot use '%s' as a disk: it is empty", l->path);
        return false;
    }
    if (size > BLOCK_SIZE_MAX) {
        error_set(err, EFBIG, "cannot use '%s' as a disk: it is too large", l->path);
        return false;
    }
    l->size = round_up(size, 512);
    return true;
}

static int raw_map(struct layer *l, uint64_t offset, uint64_t length, struct extent *out)
{
    *out = (struct extent){.kind = EXTENT_DATA, .layer = l, .offset = offset, .length = length};
    return 0;
}

/*
 * Whoever writes another format's first bytes into an image whose format is guessed would have it opened as
 * that format next time, with a backing file of its choice: a guest could read the host's files.
 */
static bool forges_format(const struct layer *l, const struct block_request *req)
{
    uint8_t head[512] = {0};
    size_t have = 0;
    if (!l->probed || req->offset != 0)
        return false;
    for (int i = 0; i < req->iov_count && have < sizeof(head); i++) {
        size_t n = MIN(sizeof(head) - have, req->iov[i].iov_len);
        memcpy(head + have, req->iov[i].iov_base, n);
        have += n;
    }
    return qcow2_ops.probe(head, have);
}

static void start_zeroes(struct raw_request *r);

static void raw_done(struct io_group *g)
{
    struct raw_request *r = CONTAINER_OF(g, struct raw_request, group);
    struct block_request *req = r->req;
    int result = g->result;
    if (req->op == BLOCK_WRITE_ZEROES) {
        if (!r->by_hand && (result == -EOPNOTSUPP || result == -ENOSYS)) {
            r->by_hand = true;
            result = 0;
        }
        if (r->by_hand && result == 0 && r->zeroed < req->length) {
            start_zeroes(r);
            return;
        }
    }
    free(r);
    block_complete(req, result);
}

/* One portion of zeroes by writing; raw_done comes back for the next. */
static void start_zeroes(struct raw_request *r)
{
    struct iovec iov[ZERO_IOVS];
    void *zeroes;
    const uint8_t *from = zero_block;
    memcpy(&zeroes, &from, sizeof(zeroes)); /* writing only reads it */
    for (int i = 0; i < ZERO_IOVS; i++)
        iov[i] = (struct iovec){zeroes, ZERO_BLOCK};
    uint64_t len = MIN(r->req->length - r->zeroed, (uint64_t)ZERO_IOVS * ZERO_BLOCK);
    uint64_t offset = r->req->offset + r->zeroed;
    r->zeroed += len;
    io_group_begin(&r->group, r->layer->block, raw_done);
    io_transfer(&r->group, AIO_WRITE, r->layer->fd, offset,
                (struct io_slice){.iov = iov, .iov_count = ZERO_IOVS, .length = len});
    io_group_end(&r->group);
}

static void raw_submit(struct layer *l, struct block_request *req)
{
    if (req->op == BLOCK_WRITE && forges_format(l, req)) {
        block_complete(req, -EPERM);
        return;
    }
    struct raw_request *r = calloc(1, sizeof(*r));
    if (!r) {
        block_complete(req, -ENOMEM);
        return;
    }
    r->req = req;
    r->layer = l;
    io_group_begin(&r->group, l->block, raw_done);
    if (req->op == BLOCK_WRITE)
        io_transfer(&r->group, AIO_WRITE, l->fd, req->offset,
                    (struct io_slice){.iov = req->iov, .iov_count = req->iov_count, .length = req->length});
    else if (req->op == BLOCK_DISCARD)
        io_command(&r->group, AIO_PUNCH, l->fd, req->offset, req->length, EOPNOTSUPP);
    else
        io_command(&r->group, req->may_unmap ? AIO_PUNCH : AIO_ZERO, l->fd, req->offset, req->length, 0);
    io_group_end(&r->group);
}

static bool raw_resize(struct layer *l, uint64_t size, struct error **err)
{
    struct stat st;
    if (fstat(l->fd, &st) == 0 && S_ISBLK(st.st_mode)) {
        error_set(err, EINVAL, "cannot resize '%s': it is a block device", l->path);
        return false;
    }
    if (sys.ftruncate(l->fd, (off_t)size) < 0) {
        error_set_errno(err, errno, "cannot resize '%s'", l->path);
        return false;
    }
    l->size = size;
    return true;
}

static void raw_close(struct layer *l)
{
    (void)l;
}

static bool raw_create(int fd, const char *path, uint64_t size, const char *backing,
                       const char *backing_format, struct error **err)
{
    (void)backing_format;
    if (backing) {
        error_set(err, EINVAL, "cannot make '%s': a raw image has no backing file", path);
        return false;
    }
    if (sys.ftruncate(fd, (off_t)size) < 0) {
        error_set_errno(err, errno, "cannot make disk image '%s'", path);
        return false;
    }
    return true;
}

const struct block_ops raw_ops = {
    .name = "raw",
    .probe = raw_probe,
    .open = raw_open,
    .map = raw_map,
    .submit = raw_submit,
    .resize = raw_resize,
    .close = raw_close,
    .create = raw_create,
};
