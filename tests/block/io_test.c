/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The I/O layer under both implementations, raw images, hosts that refuse io_uring, images that others left
 * dirty or damaged.
 */
#include "support.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "block/aio.h"
#include "block/qcow2.h"
#include "os/loop.h"
#include "os/sys.h"

static const enum aio_backend backends[] = {AIO_BACKEND_URING, AIO_BACKEND_THREADS};

static uint64_t blocks_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* More iovecs than one system call takes, of odd sizes, and the part past the end of the file. */
static void many_iovecs(void **state)
{
    (void)state;
    enum { COUNT = 3001, PIECE = 341 }; /* 3001 * 341 is no multiple of 512: the last one fills up */
    uint64_t length = round_up(COUNT * PIECE, 512);
    uint8_t *out = malloc(length), *in = malloc(length);
    struct iovec *iov = malloc((COUNT + 1) * sizeof(*iov));
    for (size_t k = 0; k < ARRAY_SIZE(backends); k++) {
        struct random random;
        random_init(&random, "many_iovecs");
        random_fill(&random, out, length);
        memset(in, 0xEE, length);
        aio_select(backends[k]);
        must_run("rm -f many && truncate -s 2M many");
        struct block *b = must_open("many", "raw", 0);
        for (int pass = 0; pass < 2; pass++) {
            uint8_t *buf = pass ? in : out;
            for (int i = 0; i < COUNT; i++)
                iov[i] = (struct iovec){buf + i * PIECE, PIECE};
            iov[COUNT] = (struct iovec){buf + COUNT * PIECE, length - COUNT * PIECE};
            assert_int_equal(do_io(b, BLOCK_FLUSH, 0, NULL, 0, false), 0);
            struct block_request req = {.op = pass ? BLOCK_READ : BLOCK_WRITE,
                                        .offset = 512,
                                        .length = length,
                                        .iov = iov,
                                        .iov_count = COUNT + 1,
                                        .block = b};
            assert_int_equal(do_request(&req), 0);
        }
        assert_memory_equal(in, out, length);
        block_close(b);
    }
    aio_select(AIO_BACKEND_AUTO);
    free(out);
    free(in);
    free(iov);
}

/* A file whose size is no multiple of a sector: the rest of the last one is zero, and can be written. */
static void odd_size(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(backends); k++) {
        uint8_t sector[512], expected[512] = "x";
        aio_select(backends[k]);
        must_run("printf x >odd");
        struct block *b = must_open("odd", "raw", 0);
        struct block_info info;
        block_get_info(b, &info);
        assert_int_equal(info.size, 512);
        assert_int_equal(do_io(b, BLOCK_READ, 0, sector, 512, false), 0);
        assert_memory_equal(sector, expected, 512);
        memset(sector, 'y', 512);
        assert_int_equal(do_io(b, BLOCK_WRITE, 0, sector, 512, false), 0);
        block_close(b);
        must_run("test $(stat -c %%s odd) = 512");
    }
    aio_select(AIO_BACKEND_AUTO);
}

static void out_of_range(void **state)
{
    (void)state;
    uint8_t buf[1024];
    static const char *const names[] = {"r.raw", "r.qcow2"};
    must_run("truncate -s 1M r.raw && qemu-img create -f qcow2 r.qcow2 1M");
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct block *b = must_open(names[i], NULL, 0);
        assert_int_equal(do_io(b, BLOCK_READ, MIB, buf, 512, false), -EINVAL);
        assert_int_equal(do_io(b, BLOCK_WRITE, MIB - 512, buf, 1024, false), -EINVAL);
        assert_int_equal(do_io(b, BLOCK_WRITE, UINT64_MAX - 511, buf, 1024, false), -EINVAL);
        assert_int_equal(do_io(b, BLOCK_READ, 1, buf, 512, false), -EINVAL);
        assert_int_equal(do_io(b, BLOCK_READ, 0, buf, 511, false), -EINVAL);
        assert_int_equal(do_io(b, BLOCK_DISCARD, 0, NULL, 2 * MIB, false), -EINVAL);
        assert_int_equal(do_io(b, BLOCK_READ, 0, buf, 0, false), 0);
        block_close(b);
        b = must_open(names[i], NULL, BLOCK_READONLY);
        assert_int_equal(do_io(b, BLOCK_WRITE, 0, buf, 512, false), -EROFS);
        assert_int_equal(do_io(b, BLOCK_DISCARD, 0, NULL, 512, false), -EROFS);
        assert_int_equal(do_io(b, BLOCK_READ, 0, buf, 512, false), 0);
        assert_int_equal(do_io(b, BLOCK_FLUSH, 0, NULL, 0, false), 0);
        block_close(b);
    }
}

static int no_fallocate(int fd, int mode, off_t off, off_t len)
{
    errno = EOPNOTSUPP;
    return -1;
}

static void check_bytes(struct block *b, uint64_t offset, uint64_t length, uint8_t byte)
{
    uint8_t *buf = malloc(length);
    assert_int_equal(do_io(b, BLOCK_READ, offset, buf, length, false), 0);
    for (uint64_t i = 0; i < length; i++)
        assert_int_equal(buf[i], byte);
    free(buf);
}

static void raw_zeroes(void **state)
{
    (void)state;
    uint8_t *data = malloc(8 * MIB);
    memset(data, 7, 8 * MIB);
    aio_select(AIO_BACKEND_THREADS);
    must_run("rm -f z && truncate -s 8M z");
    struct block *b = must_open("z", "raw", 0);
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, data, 8 * MIB, false), 0);
    assert_true(blocks_of("z") >= 8 * MIB);
    assert_int_equal(do_io(b, BLOCK_DISCARD, MIB, NULL, MIB, false), 0);
    check_bytes(b, MIB, MIB, 0);
    assert_int_equal(do_io(b, BLOCK_WRITE_ZEROES, 2 * MIB, NULL, MIB, true), 0);
    check_bytes(b, 2 * MIB, MIB, 0);
    assert_int_equal(do_io(b, BLOCK_FLUSH, 0, NULL, 0, false), 0);
    assert_true(blocks_of("z") <= 6 * MIB + 64 * 1024);
    assert_int_equal(do_io(b, BLOCK_WRITE_ZEROES, 3 * MIB + 512, NULL, MIB, false), 0);
    check_bytes(b, 3 * MIB + 512, MIB, 0);
    check_bytes(b, 3 * MIB, 512, 7);
    /* A file system that can do none of it. */
    int (*real)(int, int, off_t, off_t) = sys.fallocate;
    sys.fallocate = no_fallocate;
    assert_int_equal(do_io(b, BLOCK_DISCARD, 5 * MIB, NULL, MIB, false), 0);
    assert_int_equal(do_io(b, BLOCK_WRITE_ZEROES, MIB / 2, NULL, 7 * MIB, true), 0);
    sys.fallocate = real;
    check_bytes(b, MIB / 2, 7 * MIB, 0);
    check_bytes(b, 0, MIB / 2, 7);
    check_bytes(b, 15 * MIB / 2, MIB / 2, 7);
    block_close(b);
    aio_select(AIO_BACKEND_AUTO);
    free(data);
}

/* A guest must not turn its raw disk, whose format is guessed, into an image that names a file of the host.
 */
static void no_forged_format(void **state)
{
    (void)state;
    uint8_t head[1024] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3};
    must_run("rm -f forge && truncate -s 1M forge");
    struct block *b = must_open("forge", NULL, 0);
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, head, sizeof(head), false), -EPERM);
    assert_int_equal(do_io(b, BLOCK_WRITE, 512, head, 512, false), 0);
    head[0] = 0;
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, head, sizeof(head), false), 0);
    block_close(b);
    /* Who says that it is raw gets it raw, whatever is in it. */
    head[0] = 'Q';
    b = must_open("forge", "raw", 0);
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, head, sizeof(head), false), 0);
    block_close(b);
    b = must_open("forge", "raw", 0);
    block_close(b);
}

/* --- io_uring refused, as containers do. --- */

static _Noreturn void without_uring(int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {.len = ARRAY_SIZE(code), .filter = code};
    struct error *err = NULL;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
        _exit(2);
    struct aio *aio = aio_new(0, &err);
    if (!aio || strcmp(aio_name(aio), "threads") != 0)
        _exit(3);
    aio_free(aio);
    uint8_t buf[4096];
    memset(buf, 5, sizeof(buf));
    struct block *b = must_open("fallback", NULL, 0);
    if (do_io(b, BLOCK_WRITE, 0, buf, sizeof(buf), false) || do_io(b, BLOCK_READ, 0, buf, sizeof(buf), false))
        _exit(4);
    block_close(b);
    _exit(0);
}

static void uring_refused(void **state)
{
    (void)state;
    static const int errors[] = {ENOSYS, EPERM, ENOMEM};
    must_run("qemu-img create -f qcow2 fallback 1M");
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        int status;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            without_uring(errors[i]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    must_run("qemu-img check fallback");
}

/* --- Images that others left behind. --- */

static void dirty_image(void **state)
{
    (void)state;
    must_run("rm -f lazy && qemu-img create -f qcow2 -o lazy_refcounts=on lazy 8M");
    /* qemu-io aborts: its refcounts are behind, the dirty bit is set. */
    (void)run("ulimit -c 0; qemu-io -c 'write -P 9 1M 3M' -c flush -c abort lazy");
    assert_int_equal(peek_be64("lazy", HEADER_INCOMPATIBLE), INCOMPAT_DIRTY);
    must_run("! qemu-img check lazy");
    struct block *b = must_open("lazy", NULL, BLOCK_READONLY);
    struct block_info info;
    block_get_info(b, &info);
    assert_true(info.dirty);
    check_bytes(b, MIB, 3 * MIB, 9);
    block_close(b);
    b = must_open("lazy", NULL, 0);
    block_get_info(b, &info);
    assert_false(info.dirty);
    check_bytes(b, MIB, 3 * MIB, 9);
    block_close(b);
    assert_int_equal(peek_be64("lazy", HEADER_INCOMPATIBLE), 0);
    must_run("qemu-img check lazy");
}

/* No dirty bit, but refcounts that are too low: writing without recounting would overwrite data. */
static void uncounted_image(void **state)
{
    (void)state;
    static const uint8_t zeroes[65536];
    must_run("rm -f low && qemu-img create -f qcow2 low 8M && qemu-io -c 'write -P 3 0 4M' low && "
             "qemu-img snapshot -c s low && qemu-io -c 'write -P 4 1M 1M' low");
    uint64_t refblock = peek_be64("low", peek_be64("low", HEADER_REFTABLE_OFFSET));
    poke("low", refblock, zeroes, sizeof(zeroes));
    struct block *b = must_open("low", NULL, 0);
    uint8_t *data = malloc(MIB);
    memset(data, 5, MIB);
    assert_int_equal(do_io(b, BLOCK_WRITE, 6 * MIB, data, MIB, false), 0);
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, data, 65536, false), 0);
    check_bytes(b, 65536, MIB - 65536, 3);
    check_bytes(b, MIB, MIB, 4);
    block_close(b);
    must_run("qemu-img check low && qemu-img snapshot -a s low && qemu-img check low && qemu-io -c 'read -P "
             "3 0 4M' low");
    /* The refcount table leads nowhere at all. */
    poke_be64("low", peek_be64("low", HEADER_REFTABLE_OFFSET), 0);
    block_close(must_open("low", NULL, 0));
    must_run("qemu-img check low && qemu-io -c 'read -P 3 0 4M' low");
    free(data);
}

/* An L2 entry goes bad while the image is open: the request fails, the image is marked, the rest still reads.
 */
static void damage_while_open(void **state)
{
    (void)state;
    uint8_t buf[4096] = {1};
    must_run("rm -f hurt && qemu-img create -f qcow2 -o cluster_size=4096 hurt 64M && "
             "qemu-io -c 'write -P 2 0 64k' -c 'write -P 2 32M 64k' hurt");
    struct block *b = must_open("hurt", NULL, 0);
    uint64_t l1 = peek_be64("hurt", HEADER_L1_OFFSET), reftable = peek_be64("hurt", HEADER_REFTABLE_OFFSET);
    uint64_t l2 = peek_be64("hurt", l1 + 8 * 16) & ENTRY_OFFSET;
    block_close(b);
    /* Tables beyond what is checked at opening are checked when used; here the reserved bits. */
    poke_be64("hurt", l2, reftable | ENTRY_COPIED);
    must_refuse("hurt", NULL, 0, "data lies in the same place as a table");
    b = must_open("hurt", NULL, BLOCK_READONLY | BLOCK_NO_LOCK);
    assert_int_equal(do_io(b, BLOCK_READ, 0, buf, sizeof(buf), false), 0);
    block_close(b);
}

/* Of what others vouch for only the bitmaps are kept up to date. */
static void autoclear(void **state)
{
    (void)state;
    uint8_t buf[512] = {1};
    must_run("rm -f bm && qemu-img create -f qcow2 bm 8M && qemu-img bitmap --add bm b0");
    assert_int_equal(peek_be64("bm", HEADER_AUTOCLEAR), 1);
    poke_be64("bm", HEADER_AUTOCLEAR, 1 | 32);
    struct block *b = must_open("bm", NULL, BLOCK_READONLY);
    block_close(b);
    assert_int_equal(peek_be64("bm", HEADER_AUTOCLEAR), 1 | 32);
    b = must_open("bm", NULL, 0);
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, buf, 512, false), 0);
    block_close(b);
    assert_int_equal(peek_be64("bm", HEADER_AUTOCLEAR), 1);
}

/* Compressed data that does not unpack is an error, not a crash. */
static void bad_compressed(void **state)
{
    (void)state;
    static const char *const types[] = {"zlib", "zstd"};
    struct random random;
    random_init(&random, "bad_compressed");
    for (size_t k = 0; k < ARRAY_SIZE(types); k++) {
        uint8_t buf[65536], garbage[40];
        must_run("seq 100000 >text && truncate -s 640k text && "
                 "qemu-img convert -c -f raw -O qcow2 -o compression_type=%s text packed",
                 types[k]);
        uint64_t l2 = peek_be64("packed", peek_be64("packed", HEADER_L1_OFFSET)) & ENTRY_OFFSET;
        uint64_t entry = peek_be64("packed", l2), data = entry & ((1ull << 54) - 1);
        assert_true(entry & ENTRY_COMPRESSED);
        for (int i = 0; i < 30; i++) {
            random_fill(&random, garbage, sizeof(garbage));
            poke("packed", data + (i ? random_below(&random, 2) * 100 : 0), garbage, sizeof(garbage));
            struct block *b = must_open("packed", NULL, BLOCK_READONLY);
            int r = do_io(b, BLOCK_READ, 0, buf, sizeof(buf), false);
            assert_true(r == -EIO || r == 0);
            if (i == 0)
                assert_int_equal(r, -EIO);
            assert_int_equal(do_io(b, BLOCK_READ, 65536, buf, sizeof(buf), false), 0);
            block_close(b);
        }
    }
}

static int (*real_fdatasync)(int fd);
static unsigned syncs;

static int counting_fdatasync(int fd)
{
    syncs++;
    return real_fdatasync(fd);
}

/* An overlay that nobody can open again is not worth waiting for the disk; any other is. */
static void thrown_away(void **state)
{
    (void)state;
    aio_select(AIO_BACKEND_THREADS);
    for (int deleted = 0; deleted <= 1; deleted++) {
        uint8_t buf[4096] = {1};
        must_run("rm -f overlay && qemu-img create -f qcow2 overlay 8M");
        struct block *b = must_open("overlay", NULL, 0);
        if (deleted)
            must_run("rm overlay");
        real_fdatasync = sys.fdatasync;
        sys.fdatasync = counting_fdatasync;
        syncs = 0;
        assert_int_equal(do_io(b, BLOCK_WRITE, 0, buf, sizeof(buf), false), 0);
        assert_int_equal(do_io(b, BLOCK_FLUSH, 0, NULL, 0, false), 0);
        check_bytes(b, 512, 512, 0);
        block_close(b);
        sys.fdatasync = real_fdatasync;
        /* The dirty bit on, the flush, the dirty bit off. */
        assert_int_equal(syncs, deleted ? 0 : 3);
    }
    aio_select(AIO_BACKEND_AUTO);
}

/* --- With a running loop. --- */

struct loop_run {
    struct loop *loop;
    struct block_request req;
    pthread_t thread;
    int left, result;
};

static void loop_done(struct block_request *req, int result)
{
    struct loop_run *run = req->opaque;
    assert_true(pthread_equal(pthread_self(), run->thread));
    run->result |= result;
    if (--run->left)
        block_submit(req);
    else
        loop_stop(run->loop);
}

static void on_loop(void **state)
{
    (void)state;
    struct error *err = NULL;
    uint8_t buf[4096];
    struct iovec iov = {buf, sizeof(buf)};
    must_run("rm -f looped && truncate -s 1M looped");
    struct loop_run run = {.loop = loop_new(NULL, &err), .thread = pthread_self(), .left = 1000};
    assert_non_null(run.loop);
    struct block *b = block_open("looped", "raw", 0, run.loop, &err);
    assert_non_null(b);
    run.req = (struct block_request){.op = BLOCK_WRITE,
                                     .length = sizeof(buf),
                                     .iov = &iov,
                                     .iov_count = 1,
                                     .done = loop_done,
                                     .opaque = &run,
                                     .block = b};
    memset(buf, 1, sizeof(buf));
    block_submit(&run.req);
    loop_run(run.loop);
    assert_int_equal(run.left, 0);
    assert_int_equal(run.result, 0);
    block_close(b);
    loop_free(run.loop);
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_iovecs),       cmocka_unit_test(odd_size),
        cmocka_unit_test(out_of_range),      cmocka_unit_test(raw_zeroes),
        cmocka_unit_test(no_forged_format),  cmocka_unit_test(uring_refused),
        cmocka_unit_test(dirty_image),       cmocka_unit_test(uncounted_image),
        cmocka_unit_test(damage_while_open), cmocka_unit_test(autoclear),
        cmocka_unit_test(bad_compressed),    cmocka_unit_test(thrown_away),
        cmocka_unit_test(on_loop),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
