/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzing of qcow2 images: the input is an image file. It is opened for reading and read, then, if it may be,
 * opened for writing, used like a guest's disk, and opened again. Whatever is in it, nothing may crash, hang
 * or grow without bound. Backing files are looked for in an empty folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "block/aio.h"
#include "block/block.h"
#include "os/sys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PIECE = 64 << 10, FILE_MAX = 64 << 20 };

static int image = -1;
static char path[64];
static uint8_t buf[PIECE];

/* A disk of bounded size: an image may say that its parts lie exabytes apart. */
static ssize_t bounded_pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
    return off > FILE_MAX ? (errno = ENOSPC, -1) : pwritev(fd, iov, n, off);
}

static int bounded_ftruncate(int fd, off_t len)
{
    return len > FILE_MAX ? (errno = ENOSPC, -1) : ftruncate(fd, len);
}

static void prepare(void)
{
    char folder[] = "/tmp/fuzz-qcow2-XXXXXX";
    image = memfd_create("image", 0);
    if (image < 0 || !mkdtemp(folder) || chdir(folder) || rmdir(folder))
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", image);
    log_to(open("/dev/null", O_WRONLY));
    aio_select(AIO_BACKEND_THREADS);
    sys.pwritev = bounded_pwritev;
    sys.ftruncate = bounded_ftruncate;
}

static void done(struct block_request *req, int result)
{
    (void)result;
    req->opaque = NULL;
}

static void io(struct block *b, enum block_op op, uint64_t offset, uint64_t length)
{
    struct block_info info;
    block_get_info(b, &info);
    if (offset >= info.size)
        return;
    length = MIN(length, info.size - offset);
    struct iovec iov = {buf, length};
    struct block_request req = {.op = op,
                                .may_unmap = offset & 512,
                                .offset = offset,
                                .length = length,
                                .iov = &iov,
                                .iov_count = 1,
                                .done = done,
                                .opaque = b,
                                .block = b};
    block_submit(&req);
    block_drain(b);
    if (req.opaque)
        abort();
}

static struct block *open_image(unsigned flags)
{
    struct error *err = NULL;
    struct block *b = block_open(path, "qcow2", flags, NULL, &err);
    if (!b && !err)
        abort();
    error_free(err);
    return b;
}

/* The beginning, the end, and some places in between. */
static void for_places(struct block *b, enum block_op op, uint64_t length)
{
    struct block_info info;
    block_get_info(b, &info);
    for (uint64_t i = 0; i < 8; i++) {
        io(b, op, i * PIECE + i * 512, length);
        io(b, op, info.size / 9 * i & ~(uint64_t)511, length);
    }
    io(b, op, (info.size - MIN(info.size, length)) & ~(uint64_t)511, length);
}

/* Looks at all dirty bitmaps and changes some. */
static void use_bitmaps(struct block *b)
{
    struct block_bitmap info = {0};
    for (unsigned i = 0; block_bitmap_info(b, i, &info); i++)
        if (info.granularity < 512 || !*info.name)
            abort();
    block_bitmap_clear(b, info.name, NULL);
    block_bitmap_add(b, "fuzz", PIECE, NULL);
    block_bitmap_remove(b, info.name, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (image < 0)
        prepare();
    if (ftruncate(image, 0) < 0 || pwrite(image, data, size, 0) != (ssize_t)size)
        abort();
    struct block *b = open_image(BLOCK_READONLY);
    if (!b)
        return 0;
    for_places(b, BLOCK_READ, PIECE);
    block_close(b);
    for (int round = 0; round < 2; round++) {
        b = open_image(0);
        if (!b)
            return 0;
        memset(buf, 0xA5, sizeof(buf));
        for_places(b, BLOCK_WRITE, 3 * 512);
        for_places(b, BLOCK_WRITE_ZEROES, 9 * 512);
        for_places(b, BLOCK_DISCARD, PIECE);
        for_places(b, BLOCK_WRITE, PIECE);
        io(b, BLOCK_FLUSH, 0, 0);
        use_bitmaps(b);
        for_places(b, BLOCK_READ, PIECE);
        struct block_info info;
        struct error *err = NULL;
        block_get_info(b, &info);
        if (!block_resize(b, round ? info.size / 2 & ~(uint64_t)511 : info.size + 1536, &err))
            error_free(err);
        block_close(b);
    }
    return 0;
}
