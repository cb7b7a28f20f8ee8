/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random requests, many at a time, against images that qemu-img made in every shape, with a copy in memory as
 * the model. Between rounds qemu-img checks the image and compares it with the model, takes snapshots, and
 * resizes happen.
 */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "block/aio.h"

enum { IN_FLIGHT_MAX = 12, ROUNDS = 3, OPS = 400, SECTOR = 512 };

struct shape {
    const char *name;
    const char *options; /* for qemu-img create -o */
    uint64_t size;
    unsigned cluster;
    bool v2;
    enum { NO_BACKING, RAW_BACKING, QCOW2_BACKING, ZLIB_BACKING, ZSTD_BACKING, ZLIB_SELF, ZSTD_SELF } content;
    bool snapshots;
    bool threads; /* without io_uring */
};

static const struct shape shapes[] = {
    {"plain", "", 24 * MIB, 65536},
    {"plain without io_uring", "", 24 * MIB, 65536, .threads = true},
    {"smallest clusters", "cluster_size=512", 3 * MIB + 512, 512},
    {"smallest clusters, widest refcounts", "cluster_size=512,refcount_bits=64", 2 * MIB, 512},
    {"4K clusters, 1-bit refcounts", "cluster_size=4096,refcount_bits=1", 9 * MIB, 4096},
    {"2-bit refcounts", "cluster_size=1024,refcount_bits=2", 3 * MIB, 1024, .snapshots = true},
    {"4-bit refcounts", "cluster_size=2048,refcount_bits=4", 5 * MIB, 2048, .snapshots = true},
    {"8-bit refcounts", "cluster_size=8192,refcount_bits=8", 9 * MIB, 8192, .snapshots = true},
    {"32-bit refcounts", "cluster_size=16384,refcount_bits=32", 9 * MIB, 16384, .content = RAW_BACKING},
    {"largest clusters", "cluster_size=2M", 40 * MIB + 1536, 2 << 20, .content = RAW_BACKING},
    {"1M clusters", "cluster_size=1M", 20 * MIB, 1 << 20, .snapshots = true},
    {"lazy refcounts", "lazy_refcounts=on,cluster_size=32K", 20 * MIB, 32768},
    {"preallocated", "preallocation=metadata", 10 * MIB, 65536},
    {"on raw", "", 16 * MIB + 4096, 65536, .content = RAW_BACKING, .snapshots = true},
    {"on qcow2", "cluster_size=4096", 12 * MIB, 4096, .content = QCOW2_BACKING, .snapshots = true},
    {"on compressed (zlib)", "", 12 * MIB, 65536, .content = ZLIB_BACKING},
    {"on compressed (zstd)", "cluster_size=128K", 12 * MIB, 131072, .content = ZSTD_BACKING, .threads = true},
    {"compressed itself (zlib)", "", 12 * MIB, 65536, .content = ZLIB_SELF, .snapshots = true},
    {"compressed itself (zstd)", "compression_type=zstd,cluster_size=4096", 6 * MIB, 4096,
     .content = ZSTD_SELF},
    {"version 2", "compat=0.10", 12 * MIB, 65536, .v2 = true, .snapshots = true},
    {"version 2, small clusters", "compat=0.10,cluster_size=512", 3 * MIB, 512, .v2 = true},
    {"version 2 on raw", "compat=0.10,cluster_size=4096", 8 * MIB, 4096, .v2 = true, .content = RAW_BACKING},
    {"version 2, compressed", "compat=0.10", 8 * MIB, 65536, .v2 = true, .content = ZLIB_SELF},
};

struct slot {
    struct block_request req;
    struct iovec iov[5];
    uint8_t *buf;
    bool busy;
};

struct run {
    const struct shape *shape;
    struct block *b;
    uint8_t *model;
    uint64_t size;
    struct slot slot[IN_FLIGHT_MAX];
    struct random random;
};

enum { BUF_MAX = 3 << 20 };

static bool has_backing(const struct shape *s)
{
    return s->content >= RAW_BACKING && s->content <= ZSTD_BACKING;
}

static void save(const char *path, const void *data, uint64_t length)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, length, f), length);
    assert_int_equal(fclose(f), 0);
}

/* Half of it compressible, some of it zero, so that compressed images hold all kinds of clusters. */
static void fill_model(struct run *r)
{
    for (uint64_t at = 0; at < r->size; at += 4096) {
        uint64_t n = MIN(4096, r->size - at);
        switch (random_below(&r->random, 4)) {
        case 0:
            memset(r->model + at, 0, n);
            break;
        case 1:
            random_fill(&r->random, r->model + at, n);
            break;
        default:
            memset(r->model + at, (int)random_below(&r->random, 256), n);
        }
    }
}

static void make_image(struct run *r)
{
    const struct shape *s = r->shape;
    const char *o = *s->options ? "-o" : "";
    must_run("rm -f img base base2 model");
    if (s->content == NO_BACKING) {
        must_run("qemu-img create -f qcow2 %s %s img %llu", o, s->options, (unsigned long long)r->size);
        return;
    }
    fill_model(r);
    save("model", r->model, r->size);
    switch (s->content) {
    case RAW_BACKING:
        must_run("cp model base && qemu-img create -f qcow2 %s %s -b base -F raw img", o, s->options);
        break;
    case QCOW2_BACKING:
        /* The middle of three holds nothing: the chain must be followed to its end. */
        must_run("qemu-img convert -f raw -O qcow2 model base && qemu-img create -f qcow2 -b base -F qcow2 "
                 "base2 && "
                 "qemu-img create -f qcow2 %s %s -b base2 -F qcow2 img",
                 o, s->options);
        break;
    case ZLIB_BACKING:
    case ZSTD_BACKING:
        must_run("qemu-img convert -c -f raw -O qcow2 -o compression_type=%s model base && "
                 "qemu-img create -f qcow2 %s %s -b base -F qcow2 img",
                 s->content == ZLIB_BACKING ? "zlib" : "zstd", o, s->options);
        break;
    default:
        must_run("qemu-img convert -c -f raw -O qcow2 %s %s model img", o, s->options);
    }
}

static void apply(struct run *r, const struct slot *slot)
{
    const struct block_request *req = &slot->req;
    uint64_t from = req->offset, to = req->offset + req->length;
    if (req->op == BLOCK_WRITE) {
        memcpy(r->model + from, slot->buf, req->length);
        return;
    }
    if (req->op == BLOCK_DISCARD) {
        if (r->shape->v2 && has_backing(r->shape))
            return;
        from = round_up(from, r->shape->cluster);
        to = to == r->size ? to : round_down(to, r->shape->cluster);
    }
    if (from < to && req->op != BLOCK_FLUSH)
        memset(r->model + from, 0, to - from);
}

static void op_done(struct block_request *req, int result)
{
    struct run *r = req->opaque;
    struct slot *slot = CONTAINER_OF(req, struct slot, req);
    slot->busy = false;
    assert_int_equal(result, 0);
    if (req->op == BLOCK_READ)
        assert_memory_equal(slot->buf, r->model + req->offset, req->length);
    else
        apply(r, slot);
}

/* Requests in flight that overlap have no order, unless both only read. */
static bool clashes(const struct run *r, uint64_t offset, uint64_t length, enum block_op op)
{
    for (int i = 0; i < IN_FLIGHT_MAX; i++) {
        const struct block_request *q = &r->slot[i].req;
        if (r->slot[i].busy && offset < q->offset + q->length && q->offset < offset + length &&
            !(op == BLOCK_READ && q->op == BLOCK_READ))
            return true;
    }
    return false;
}

static void split_iov(struct run *r, struct slot *s, uint64_t length)
{
    uint8_t *at = s->buf;
    int n = 0;
    while (length) {
        uint64_t take = n == 4 ? length : random_below(&r->random, length) + 1;
        s->iov[n++] = (struct iovec){at, take};
        at += take;
        length -= take;
    }
    s->req.iov_count = n;
}

static enum block_op pick_op(struct random *r)
{
    uint64_t dice = random_below(r, 100);
    return dice < 40   ? BLOCK_WRITE
           : dice < 75 ? BLOCK_READ
           : dice < 85 ? BLOCK_WRITE_ZEROES
           : dice < 95 ? BLOCK_DISCARD
                       : BLOCK_FLUSH;
}

static void submit_random(struct run *r, struct slot *s)
{
    enum block_op op = pick_op(&r->random);
    uint64_t sectors = r->size / SECTOR, most = BUF_MAX / SECTOR;
    uint64_t scale = 1ull << random_below(&r->random, 13);
    uint64_t n = random_below(&r->random, scale) + 1;
    n = MIN(n, MIN(most, sectors));
    uint64_t at = random_below(&r->random, sectors - n + 1);
    if (random_below(&r->random, 3) == 0)
        at = round_down(at * SECTOR, r->shape->cluster) / SECTOR;
    if (random_below(&r->random, 20) == 0)
        at = sectors - n;
    uint64_t offset = at * SECTOR, length = n * SECTOR;
    if (op == BLOCK_FLUSH)
        offset = length = 0;
    if (clashes(r, offset, length, op))
        return;
    s->req = (struct block_request){.op = op,
                                    .offset = offset,
                                    .length = length,
                                    .may_unmap = random_below(&r->random, 2),
                                    .iov = s->iov,
                                    .done = op_done,
                                    .opaque = r,
                                    .block = r->b};
    if (op == BLOCK_WRITE)
        random_fill(&r->random, s->buf, length);
    if (op == BLOCK_WRITE || op == BLOCK_READ)
        split_iov(r, s, length);
    s->busy = true;
    block_submit(&s->req);
}

static void check_with_qemu(struct run *r)
{
    save("model", r->model, r->size);
    must_run("qemu-img check img");
    must_run("qemu-img compare -f raw -F qcow2 model img");
}

static void resize(struct run *r, uint64_t limit)
{
    struct error *err = NULL;
    uint64_t size = (random_below(&r->random, limit / SECTOR) + 1) * SECTOR;
    if (r->shape->snapshots && (r->shape->v2 || size < r->size))
        return;
    if (!block_resize(r->b, size, &err))
        fail_msg("%s", error_text(err));
    if (size > r->size)
        memset(r->model + r->size, 0, size - r->size);
    r->size = size;
}

static void run_shape(const struct shape *shape, struct random *random)
{
    struct run r = {.shape = shape, .size = shape->size, .random = *random};
    uint64_t limit = shape->size * 3 / 2;
    fprintf(stderr, "  %s\n", shape->name);
    r.model = calloc(1, limit);
    for (int i = 0; i < IN_FLIGHT_MAX; i++)
        r.slot[i].buf = malloc(BUF_MAX);
    make_image(&r);
    aio_select(shape->threads ? AIO_BACKEND_THREADS : AIO_BACKEND_AUTO);
    for (int round = 0; round < ROUNDS; round++) {
        r.b = must_open("img", "qcow2", 0);
        for (int i = 0; i < OPS; i++) {
            struct slot *s = &r.slot[random_below(&r.random, IN_FLIGHT_MAX)];
            if (s->busy || random_below(&r.random, 8) == 0)
                block_drain(r.b);
            submit_random(&r, s);
        }
        block_drain(r.b);
        if (round != 1)
            resize(&r, limit);
        block_close(r.b);
        check_with_qemu(&r);
        /* Two, as 2-bit refcounts can count no more than three users of a cluster. */
        if (shape->snapshots && round < 2)
            must_run("qemu-img snapshot -c s%d img", round);
    }
    if (shape->snapshots) {
        /* The first snapshot is still what it was, and dropping all leaves a sound image. */
        must_run("for i in 0 1; do qemu-img snapshot -d s$i img || exit 1; done && qemu-img check img");
        must_run("qemu-img compare -f raw -F qcow2 model img");
    }
    aio_select(AIO_BACKEND_AUTO);
    for (int i = 0; i < IN_FLIGHT_MAX; i++)
        free(r.slot[i].buf);
    free(r.model);
    *random = r.random;
}

static void random_requests(void **state)
{
    (void)state;
    struct random random;
    random_init(&random, "qcow2_model");
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        run_shape(&shapes[i], &random);
}

/* What a snapshot holds does not change when the disk does. */
static void snapshot_keeps_content(void **state)
{
    (void)state;
    struct random random;
    random_init(&random, "snapshot");
    uint64_t size = 4 * MIB;
    uint8_t *before = malloc(size), *after = malloc(size);
    random_fill(&random, before, size);
    random_fill(&random, after, size);
    must_run("qemu-img create -f qcow2 -o cluster_size=4096 snap %llu", (unsigned long long)size);
    struct block *b = must_open("snap", NULL, 0);
    assert_int_equal(do_io(b, BLOCK_WRITE, 0, before, size, false), 0);
    block_close(b);
    must_run("qemu-img snapshot -c old snap");
    b = must_open("snap", NULL, 0);
    for (uint64_t at = 0; at < size; at += 8192)
        assert_int_equal(do_io(b, BLOCK_WRITE, at + 512, after + at + 512, 5120, false), 0);
    assert_int_equal(do_io(b, BLOCK_DISCARD, 0, NULL, MIB, false), 0);
    block_close(b);
    must_run("qemu-img check snap && qemu-img snapshot -a old snap && qemu-img check snap");
    save("model", before, size);
    must_run("qemu-img compare -f raw -F qcow2 model snap");
    free(before);
    free(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_requests),
        cmocka_unit_test(snapshot_keeps_content),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
