/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host fails at the n-th call that writes: for good, as a full disk does, or that once. Requests may fail
 * then, but what was acknowledged stays, and once the host works again everything works: an image is damaged
 * by what is in it, not by what could not be written.
 */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "block/aio.h"
#include "os/sys.h"

static struct sys_table real_sys;
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;
static int calls_left, fault; /* fault: an errno; 0: all is well */
static bool once, hit;

static bool out_of_luck(void)
{
    pthread_mutex_lock(&fault_lock);
    bool fail = fault && (once ? calls_left-- == 0 : calls_left-- <= 0);
    hit |= fail;
    pthread_mutex_unlock(&fault_lock);
    errno = fault;
    return fail;
}

static ssize_t faulty_pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
    return out_of_luck() ? -1 : real_sys.pwritev(fd, iov, n, off);
}

static int faulty_ftruncate(int fd, off_t len)
{
    return out_of_luck() ? -1 : real_sys.ftruncate(fd, len);
}

static int faulty_fallocate(int fd, int mode, off_t off, off_t len)
{
    return out_of_luck() ? -1 : real_sys.fallocate(fd, mode, off, len);
}

static int faulty_fdatasync(int fd)
{
    return out_of_luck() ? -1 : real_sys.fdatasync(fd);
}

/* From now on: `call` more calls that write succeed, then they fail with `error`. */
static void arm(int call, int error, bool only_once)
{
    calls_left = call;
    fault = error;
    once = only_once;
    hit = false;
    sys.pwritev = faulty_pwritev;
    sys.ftruncate = faulty_ftruncate;
    sys.fallocate = faulty_fallocate;
    sys.fdatasync = faulty_fdatasync;
}

/* Also after a test that failed in the middle: the others need a host that works. */
static int disarm(void **state)
{
    (void)state;
    fault = 0;
    sys = real_sys;
    aio_select(AIO_BACKEND_AUTO);
    return 0;
}

static int arm_threads(void **state)
{
    (void)state;
    aio_select(AIO_BACKEND_THREADS); /* whose calls go through `sys` */
    return 0;
}

/* A disk of which is known what it holds. */
struct disk {
    struct block *b;
    uint64_t size;
    uint8_t *model;
    bool *certain; /* for each sector: no request failed there since it was last written */
};

static struct disk disk_new(uint64_t size)
{
    struct disk d = {.size = size, .model = calloc(1, size), .certain = malloc(size / 512)};
    memset(d.certain, 1, size / 512);
    return d;
}

static void disk_free(struct disk *d)
{
    free(d->model);
    free(d->certain);
}

static bool disk_request(struct disk *d, enum block_op op, uint64_t at, uint8_t *data, uint64_t n)
{
    int r = do_io(d->b, op, at, op == BLOCK_WRITE ? data : NULL, n, true);
    if (op == BLOCK_WRITE)
        memcpy(d->model + at, data, n);
    else
        memset(d->model + at, 0, n);
    for (uint64_t s = at / 512; s < (at + n) / 512; s++)
        d->certain[s] = r == 0;
    return r == 0;
}

static void disk_check(const struct disk *d)
{
    uint8_t *got = malloc(d->size);
    assert_int_equal(do_io(d->b, BLOCK_READ, 0, got, d->size, false), 0);
    for (uint64_t s = 0; s < d->size / 512; s++)
        if (d->certain[s])
            assert_memory_equal(got + s * 512, d->model + s * 512, 512);
    free(got);
}

/* Clusters may be lost (3), but nothing is wrong, and nothing that was acknowledged is gone. */
static void close_and_check(struct disk *d)
{
    block_close(d->b);
    int status = run("qemu-img check faulty");
    assert_true(status == 0 || status == 3);
    d->b = must_open("faulty", NULL, 0);
    disk_check(d);
    block_close(d->b);
}

/* --- For good, until there is space again. --- */

enum { SERIES_DISK = 2 << 20, SERIES_STEPS = 30 };

/* Returns how many requests failed. */
static unsigned run_series(struct disk *d, struct random *random)
{
    static uint8_t buf[128 << 10];
    unsigned failed = 0;
    for (int i = 0; i < SERIES_STEPS; i++) {
        uint64_t n = (random_below(random, sizeof(buf) / 512) + 1) * 512;
        uint64_t at = random_below(random, (d->size - n) / 512 + 1) * 512;
        random_fill(random, buf, n);
        failed += !disk_request(d, i % 5 == 4 ? BLOCK_WRITE_ZEROES : BLOCK_WRITE, at, buf, n);
    }
    return failed;
}

/* True when the fault came within the series. */
static bool fails_from(const char *create, int call, int error, uint64_t seed)
{
    struct random random = {.state = seed};
    struct disk d = disk_new(SERIES_DISK);
    must_run("rm -f faulty && qemu-img create -f qcow2 %s", create);
    d.b = must_open("faulty", NULL, 0);
    arm(call, error, false);
    unsigned failed = run_series(&d, &random);
    fault = 0;
    disk_check(&d);
    assert_int_equal(run_series(&d, &random), 0);
    disk_check(&d);
    sys = real_sys;
    close_and_check(&d);
    disk_free(&d);
    return failed > 0;
}

static void host_fails(void **state)
{
    (void)state;
    static const char *const images[] = {
        "faulty 2M",
        "-o cluster_size=512 faulty 2M",
        "-o cluster_size=4096,compat=0.10 faulty 2M",
        "-b zero -F raw faulty",
    };
    struct random random;
    random_init(&random, "host_fails");
    must_run("truncate -s 2M zero");
    unsigned hits = 0;
    for (int i = 0; i < 60; i++)
        hits += fails_from(images[i % ARRAY_SIZE(images)], i / 4 * (i % 4 == 1 ? 25 : 7),
                           i % 3 ? ENOSPC : EIO, random_below(&random, UINT32_MAX) + 1);
    assert_true(hits > 20);
}

/* --- Once, at each call in turn. --- */

/*
 * Images in which a few requests meet every kind of change. Small clusters with wide refcounts: a table entry
 * for each 32K, a refcount block for each 32K, a refcount table for 2M, of which 1.9M are used up.
 */
static const struct {
    const char *make;
    uint64_t filled, size, grown; /* bytes */
} once_images[] = {
    {"qemu-img create -f qcow2 -o cluster_size=512,refcount_bits=64 start 4M && "
     "qemu-io -c 'write -P 1 0 1856k' start",
     1856 * KIB, 4 * MIB, 8 * MIB},
    {"qemu-img create -f qcow2 -o cluster_size=4096 start 12M && qemu-io -c 'write -P 1 0 8000k' start && "
     "qemu-img snapshot -c s start",
     8000 * KIB, 12 * MIB, 2048 * MIB},
    {"qemu-img create -f qcow2 -o cluster_size=4096,compat=0.10 start 12M && "
     "qemu-io -c 'write -P 1 0 8000k' start",
     8000 * KIB, 12 * MIB, 2048 * MIB},
};

/* Returns how many of the requests failed. */
static unsigned change_all(struct disk *d, uint64_t filled, uint64_t grown)
{
    static uint8_t buf[48 << 10];
    struct random random = {.state = 1};
    struct error *err = NULL;
    unsigned failed = 0;
    for (unsigned i = 0; i < 4; i++) {
        random_fill(&random, buf, sizeof(buf));
        failed += !disk_request(d, BLOCK_WRITE, filled + i * sizeof(buf), buf, sizeof(buf));
    }
    failed += !disk_request(d, BLOCK_WRITE, 64 * KIB, buf, 12 * KIB);
    failed += !disk_request(d, BLOCK_WRITE_ZEROES, 128 * KIB, NULL, 40 * KIB);
    failed += !block_resize(d->b, grown, &err);
    error_free(err);
    return failed;
}

/* False when the requests take less than `call` calls. */
static bool fails_once_at(size_t image, int call)
{
    struct disk d = disk_new(once_images[image].size);
    uint64_t filled = once_images[image].filled, grown = once_images[image].grown;
    memset(d.model, 1, filled);
    must_run("cp start faulty");
    d.b = must_open("faulty", NULL, 0);
    arm(call, EIO, true);
    unsigned failed = change_all(&d, filled, grown);
    bool reached = hit;
    assert_true(failed <= 1);
    fault = 0;
    disk_check(&d);
    assert_int_equal(change_all(&d, filled, grown), 0);
    disk_check(&d);
    sys = real_sys;
    close_and_check(&d);
    disk_free(&d);
    return reached;
}

static void host_fails_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(once_images); i++) {
        int calls = 0;
        must_run("rm -f start && %s", once_images[i].make);
        while (fails_once_at(i, calls))
            calls++;
        assert_true(calls >= 20);
    }
}

int main(void)
{
    log_set_level(LOG_ERROR);
    real_sys = sys;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(host_fails, arm_threads, disarm),
        cmocka_unit_test_setup_teardown(host_fails_once, arm_threads, disarm),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
