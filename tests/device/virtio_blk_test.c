/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk from the driver's side: random requests over every kind of ring against a copy of the disk, what
 * requests may not say, the write cache, resets and quiescing with requests in flight, a machine saved in the
 * middle.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_blk.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "block/aio.h"
#include "block/block.h"
#include "device/virtio/virtio_blk.h"
#include "os/sys.h"
#include "virtio_driver.h"

#define SECTOR    512u
#define DISK_SIZE (8u << 20)
#define DATA_MAX  (64u << 10)
#define SLOTS     12
#define REQUESTS  600

static char image[] = "/tmp/ruche-virtio-blk-XXXXXX";

struct slot {
    uint64_t header, data, status; /* guest addresses */
    uint32_t type;
    uint64_t sector;
    uint32_t length; /* of the data, or of the disk's part */
    bool busy, indirect;
};

struct rig {
    struct test_machine *t;
    struct block *block;
    struct device *dev;
    struct drv drv;
    struct drv_ring ring;
    struct slot slot[SLOTS];
    uint8_t *model;
    uint64_t rng;
};

static uint64_t seed;

static void make_image(const char *format)
{
    struct error *err = NULL;
    unlink(image);
    if (!block_create(image, format, DISK_SIZE, NULL, NULL, &err))
        fail_msg("%s", error_text(err));
}

static void rig_init_with(struct rig *r, const char *props, uint64_t features, unsigned flags)
{
    struct error *err = NULL;
    r->rng = seed;
    r->t = pci_machine_new();
    r->block = block_open(image, NULL, flags, r->t->m.loop, &err);
    if (!r->block)
        fail_msg("%s", error_text(err));
    machine_lock(&r->t->m);
    r->dev = device_new(&r->t->m, "virtio-blk", NULL, &err);
    assert_non_null(r->dev);
    virtio_blk_set_block(r->dev, r->block);
    assert_true(device_set(r->dev, "packed", "on", &err));
    assert_true(device_set(r->dev, "serial", "bee-0001", &err));
    if (props)
        assert_true(device_set(r->dev, "num-queues", props, &err));
    assert_true(device_realize(r->dev, &err));
    pci_assign_resources(&r->t->m);
    machine_unlock(&r->t->m);
    drv_init(&r->drv, r->t, r->dev, features | BIT(VIRTIO_F_VERSION_1));
    drv_ring_init(&r->ring, &r->drv, 0, DRV_RING_MAX); /* room for all slots, each in many pieces */
    drv_ok(&r->drv);
    for (int i = 0; i < SLOTS; i++) {
        r->slot[i].header = drv_alloc(&r->drv, 4096, 16);
        r->slot[i].data = drv_alloc(&r->drv, DATA_MAX, 4096);
        r->slot[i].status = drv_alloc(&r->drv, 16, 16);
    }
}

static void rig_init(struct rig *r, uint64_t features)
{
    *r = (struct rig){0};
    rig_init_with(r, NULL, features, 0);
}

/* The device goes first, then the disk, then the machine that has the loop. */
static void rig_close(struct rig *r)
{
    machine_lock(&r->t->m);
    device_free(r->dev);
    block_close(r->block);
    machine_unlock(&r->t->m);
    test_machine_free(r->t);
    free(r->model);
}

static void fill_header(struct rig *r, const struct slot *s)
{
    struct virtio_blk_outhdr h = {.type = s->type, .sector = s->sector};
    memcpy(drv_ptr(&r->drv, s->header, sizeof(h)), &h, sizeof(h));
    *(uint8_t *)drv_ptr(&r->drv, s->status, 1) = 0x55;
}

/* Cuts [gpa, gpa + len) into pieces, as drivers may. */
static unsigned add_pieces(struct rig *r, struct drv_buf *buf, unsigned n, unsigned most, uint64_t gpa,
                           uint32_t len, bool write)
{
    while (len) {
        uint32_t take =
            n + 1 >= most || test_random(&r->rng) % 2 ? len : (uint32_t)(test_random(&r->rng) % len + 1);
        buf[n++] = (struct drv_buf){gpa, take, write};
        gpa += take;
        len -= take;
    }
    return n;
}

static bool submit(struct rig *r, struct slot *s)
{
    struct drv_buf buf[DRV_TABLE_MAX];
    fill_header(r, s);
    bool has_data = s->type != VIRTIO_BLK_T_FLUSH;
    bool from_device = s->type == VIRTIO_BLK_T_IN || s->type == VIRTIO_BLK_T_GET_ID;
    bool ranges = s->type == VIRTIO_BLK_T_DISCARD || s->type == VIRTIO_BLK_T_WRITE_ZEROES;
    uint32_t length = ranges ? sizeof(struct virtio_blk_discard_write_zeroes) : s->length;
    unsigned n = add_pieces(r, buf, 0, 3, s->header, sizeof(struct virtio_blk_outhdr), false);
    if (has_data)
        n = add_pieces(r, buf, n, 10, s->data, length, from_device);
    buf[n++] = (struct drv_buf){s->status, 1, true};
    s->indirect = r->drv.features & BIT(VIRTIO_RING_F_INDIRECT_DESC) && test_random(&r->rng) % 2;
    s->busy = drv_add(&r->ring, buf, n, s->indirect, s);
    return s->busy;
}

static uint8_t status_of(struct rig *r, const struct slot *s)
{
    return *(uint8_t *)drv_ptr(&r->drv, s->status, 1);
}

/* Waits for one completion. */
static struct slot *complete(struct rig *r)
{
    for (int i = 0; i < 2000; i++) {
        uint32_t length;
        struct slot *s = drv_get(&r->ring, &length);
        if (s) {
            s->busy = false;
            return s;
        }
        if (drv_enable_cb(&r->ring))
            continue;
        test_machine_run(r->t, 1);
    }
    fail_msg("a request was never answered");
    return NULL;
}

static uint8_t do_request(struct rig *r, uint32_t type, uint64_t sector, uint32_t length)
{
    struct slot *s = &r->slot[0];
    s->type = type;
    s->sector = sector;
    s->length = length;
    assert_true(submit(r, s));
    drv_kick(&r->ring);
    assert_ptr_equal(complete(r), s);
    return status_of(r, s);
}

static void set_range(struct rig *r, const struct slot *s, uint64_t sector, uint32_t count, uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes range = {.sector = sector, .num_sectors = count, .flags = flags};
    memcpy(drv_ptr(&r->drv, s->data, sizeof(range)), &range, sizeof(range));
}

/* --- random requests --- */

static bool clashes(const struct rig *r, uint64_t sector, uint32_t length)
{
    for (int i = 0; i < SLOTS; i++) {
        const struct slot *s = &r->slot[i];
        if (s->busy && sector < s->sector + s->length / SECTOR && s->sector < sector + length / SECTOR)
            return true;
    }
    return false;
}

static void submit_random(struct rig *r, struct slot *s)
{
    static const uint32_t types[] = {VIRTIO_BLK_T_IN,          VIRTIO_BLK_T_IN,    VIRTIO_BLK_T_OUT,
                                     VIRTIO_BLK_T_OUT,         VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_DISCARD,
                                     VIRTIO_BLK_T_WRITE_ZEROES};
    uint32_t count = (uint32_t)(test_random(&r->rng) % (DATA_MAX / SECTOR) + 1);
    uint64_t sector = test_random(&r->rng) % (DISK_SIZE / SECTOR - count + 1);
    if (clashes(r, sector, count * SECTOR))
        return;
    s->type = types[test_random(&r->rng) % ARRAY_SIZE(types)];
    s->sector = sector;
    s->length = count * SECTOR;
    if (s->type == VIRTIO_BLK_T_OUT) {
        uint8_t *p = drv_ptr(&r->drv, s->data, s->length);
        for (uint32_t i = 0; i < s->length; i += 8)
            store_le64(p + i, test_random(&r->rng));
    } else if (s->type == VIRTIO_BLK_T_DISCARD) {
        set_range(r, s, sector, count, 0);
    } else if (s->type == VIRTIO_BLK_T_WRITE_ZEROES) {
        set_range(r, s, sector, count, test_random(&r->rng) % 2 ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0);
    } else if (s->type == VIRTIO_BLK_T_FLUSH) {
        s->length = 0;
    }
    submit(r, s);
}

static void check_done(struct rig *r, const struct slot *s)
{
    uint8_t *disk = r->model + s->sector * SECTOR;
    assert_int_equal(status_of(r, s), VIRTIO_BLK_S_OK);
    switch (s->type) {
    case VIRTIO_BLK_T_IN:
        assert_memory_equal(drv_ptr(&r->drv, s->data, s->length), disk, s->length);
        break;
    case VIRTIO_BLK_T_OUT:
        memcpy(disk, drv_ptr(&r->drv, s->data, s->length), s->length);
        break;
    case VIRTIO_BLK_T_WRITE_ZEROES:
    case VIRTIO_BLK_T_DISCARD: /* a raw file: holes read as zeroes */
        memset(disk, 0, s->length);
        break;
    default:
        break;
    }
}

static unsigned busy_count(const struct rig *r)
{
    unsigned n = 0;
    for (int i = 0; i < SLOTS; i++)
        n += r->slot[i].busy;
    return n;
}

static void finish_all(struct rig *r)
{
    while (busy_count(r))
        check_done(r, complete(r));
}

static void random_requests(struct rig *r, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct slot *s = &r->slot[test_random(&r->rng) % SLOTS];
        if (!s->busy)
            submit_random(r, s);
        drv_kick(&r->ring);
        if (s->busy && test_random(&r->rng) % 2)
            check_done(r, complete(r));
    }
}

static void test_random_requests(void **state)
{
    static const uint64_t rings[] = {
        0,
        BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX),
        BIT(VIRTIO_F_RING_PACKED),
        BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX),
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rings); i++) {
        struct rig r = {0};
        make_image("raw");
        rig_init(&r, rings[i] | BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_DISCARD) |
                         BIT(VIRTIO_BLK_F_WRITE_ZEROES));
        r.model = calloc(1, DISK_SIZE);
        random_requests(&r, REQUESTS);
        finish_all(&r);
        assert_true(r.t->written_count > 0);
        rig_close(&r);
    }
}

/* --- configuration and simple requests --- */

static void test_config(void **state)
{
    struct rig r = {0};
    make_image("qcow2");
    rig_init_with(&r, "3", BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_BLK_F_FLUSH), 0);
    assert_int_equal(drv_read(&r.drv, r.drv.config, 4), DISK_SIZE / SECTOR);
    assert_int_equal(drv_read(&r.drv, r.drv.config + offsetof(struct virtio_blk_config, num_queues), 2), 3);
    assert_int_equal(drv_read(&r.drv, r.drv.config + offsetof(struct virtio_blk_config, seg_max), 4), 254);
    /* Discarding less than a cluster frees nothing. */
    assert_int_equal(
        drv_read(&r.drv, r.drv.config + offsetof(struct virtio_blk_config, discard_sector_alignment), 4),
        65536 / SECTOR);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES), VIRTIO_BLK_S_OK);
    assert_string_equal(drv_ptr(&r.drv, r.slot[0].data, VIRTIO_BLK_ID_BYTES), "bee-0001");
    rig_close(&r);
}

static void test_readonly(void **state)
{
    struct rig r = {0};
    make_image("raw");
    rig_init_with(&r, NULL, BIT(VIRTIO_BLK_F_RO), BLOCK_READONLY);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_IN, 0, 4096), VIRTIO_BLK_S_OK);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_OUT, 0, 4096), VIRTIO_BLK_S_IOERR);
    set_range(&r, &r.slot[0], 0, 8, 0);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_DISCARD, 0, 0), VIRTIO_BLK_S_IOERR);
    rig_close(&r);
}

static void test_bad_requests(void **state)
{
    struct rig r = {0};
    make_image("raw");
    rig_init(&r, BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES));
    uint64_t end = DISK_SIZE / SECTOR;
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_IN, end, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_IN, end - 1, 1024), VIRTIO_BLK_S_IOERR);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_OUT, UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_OUT, BIT(55), 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_IN, 0, 100), VIRTIO_BLK_S_IOERR);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_IN, 0, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(do_request(&r, 99, 0, 512), VIRTIO_BLK_S_UNSUPP);
    const struct {
        uint64_t sector;
        uint32_t count, flags, type;
        uint8_t status;
    } ranges[] = {
        {0, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_S_UNSUPP},
        {0, 8, 2, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_S_UNSUPP},
        {end, 1, 0, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_S_IOERR},
        {UINT64_MAX, 2, 0, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_S_IOERR},
        {0, UINT32_MAX, 0, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_S_IOERR},
        {0, 0, 0, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_S_OK},
        {0, (uint32_t)end, 0, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_S_OK},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++) {
        set_range(&r, &r.slot[0], ranges[i].sector, ranges[i].count, ranges[i].flags);
        assert_int_equal(do_request(&r, ranges[i].type, 0, 0), ranges[i].status);
    }
    rig_close(&r);
}

/* What leaves no place for an answer breaks the device, and a reset heals it. */
static void test_no_status(void **state)
{
    for (int kind = 0; kind < 3; kind++) {
        struct rig r = {0};
        make_image("raw");
        rig_init(&r, BIT(VIRTIO_BLK_F_FLUSH));
        struct slot *s = &r.slot[0];
        fill_header(&r, s);
        const struct drv_buf buf[3][2] = {
            {{s->header, 16, false}, {s->data, 512, false}},
            {{s->header, 15, false}, {s->status, 1, true}},
            {{s->status, 1, true}, {s->data, 512, true}},
        };
        assert_true(drv_add(&r.ring, buf[kind], 2, false, s));
        drv_kick(&r.ring);
        test_machine_run(r.t, 5);
        assert_true(drv_status(&r.drv) & VIRTIO_CONFIG_S_NEEDS_RESET);
        drv_set_status(&r.drv, 0);
        assert_int_equal(drv_status(&r.drv), 0);
        rig_close(&r);
    }
}

/* --- write cache and failing hosts --- */

static unsigned syncs;

static int count_sync(int fd)
{
    syncs++;
    return 0;
}

static ssize_t full_disk(int fd, const struct iovec *iov, int n, off_t off)
{
    errno = ENOSPC;
    return -1;
}

/* Without a cache each write is durable before it is answered. */
static void test_write_cache(void **state)
{
    struct rig r = {0};
    int (*real)(int) = sys.fdatasync;
    sys.fdatasync = count_sync;
    aio_select(AIO_BACKEND_THREADS);
    make_image("raw");
    rig_init(&r, BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE));
    syncs = 0;
    uint64_t wce = r.drv.config + offsetof(struct virtio_blk_config, wce);
    assert_int_equal(drv_read(&r.drv, wce, 1), 1);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_OUT, 0, 4096), VIRTIO_BLK_S_OK);
    assert_int_equal(syncs, 0);
    drv_write(&r.drv, wce, 1, 0);
    assert_int_equal(drv_read(&r.drv, wce, 1), 0);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_OUT, 0, 4096), VIRTIO_BLK_S_OK);
    assert_int_equal(syncs, 1);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(syncs, 2);
    rig_close(&r);
    sys.fdatasync = real;
    aio_select(AIO_BACKEND_AUTO);
}

static void test_full_disk(void **state)
{
    struct rig r = {0};
    aio_select(AIO_BACKEND_THREADS);
    make_image("raw");
    rig_init(&r, BIT(VIRTIO_BLK_F_FLUSH));
    ssize_t (*real)(int, const struct iovec *, int, off_t) = sys.pwritev;
    sys.pwritev = full_disk;
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_OUT, 0, 4096), VIRTIO_BLK_S_IOERR);
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_IN, 0, 4096), VIRTIO_BLK_S_OK);
    sys.pwritev = real;
    assert_int_equal(do_request(&r, VIRTIO_BLK_T_OUT, 0, 4096), VIRTIO_BLK_S_OK);
    rig_close(&r);
    aio_select(AIO_BACKEND_AUTO);
}

/* --- life cycle with requests in flight --- */

static void fill_queue(struct rig *r)
{
    for (int i = 0; i < SLOTS; i++) {
        struct slot *s = &r->slot[i];
        s->type = i % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
        s->sector = (uint64_t)i * (DATA_MAX / SECTOR);
        s->length = DATA_MAX;
        memset(drv_ptr(&r->drv, s->data, DATA_MAX), i + 1, DATA_MAX);
        assert_true(submit(r, s));
    }
    drv_kick(&r->ring);
    pump(r->t); /* the device has them now */
}

static void test_driver_reset(void **state)
{
    struct rig r = {0};
    make_image("qcow2");
    rig_init(&r, BIT(VIRTIO_BLK_F_FLUSH));
    fill_queue(&r);
    drv_set_status(&r.drv, 0);
    for (int i = 0; i < 1000 && drv_status(&r.drv); i++)
        test_machine_run(r.t, 1);
    assert_int_equal(drv_status(&r.drv), 0);
    /* From now on nothing of the old driver's memory is touched. */
    for (int i = 0; i < SLOTS; i++) {
        memset(drv_ptr(&r.drv, r.slot[i].data, DATA_MAX), 0xEE, DATA_MAX);
        *(uint8_t *)drv_ptr(&r.drv, r.slot[i].status, 1) = 0xEE;
    }
    test_machine_run(r.t, 20);
    for (int i = 0; i < SLOTS; i++) {
        const uint8_t *p = drv_ptr(&r.drv, r.slot[i].data, DATA_MAX);
        for (unsigned k = 0; k < DATA_MAX; k++)
            assert_int_equal(p[k], 0xEE);
        assert_int_equal(status_of(&r, &r.slot[i]), 0xEE);
    }
    rig_close(&r);
}

static void test_machine_reset(void **state)
{
    struct rig r = {0};
    make_image("qcow2");
    rig_init(&r, BIT(VIRTIO_BLK_F_FLUSH));
    fill_queue(&r);
    machine_lock(&r.t->m);
    devices_reset(&r.t->m);
    machine_unlock(&r.t->m);
    struct block_info info;
    block_get_info(r.block, &info);
    assert_int_equal(info.size, DISK_SIZE);
    rig_close(&r);
}

static void test_quiesce(void **state)
{
    struct rig r = {0};
    make_image("qcow2");
    rig_init(&r, BIT(VIRTIO_BLK_F_FLUSH));
    fill_queue(&r);
    machine_lock(&r.t->m);
    devices_quiesce(&r.t->m);
    machine_unlock(&r.t->m);
    uint32_t length;
    unsigned answered = 0;
    while (drv_get(&r.ring, &length))
        answered++;
    assert_int_equal(answered, SLOTS);
    /* A request that comes meanwhile waits for resume. */
    struct slot *s = &r.slot[0];
    s->busy = false;
    assert_true(submit(&r, s));
    drv_kick(&r.ring);
    test_machine_run(r.t, 5);
    assert_null(drv_get(&r.ring, &length));
    machine_lock(&r.t->m);
    devices_resume(&r.t->m);
    machine_unlock(&r.t->m);
    assert_ptr_equal(complete(&r), s);
    assert_int_equal(status_of(&r, s), VIRTIO_BLK_S_OK);
    rig_close(&r);
}

/* The device is taken away and another goes on from its saved state. */
static void test_save_restore(void **state)
{
    struct rig r = {0};
    make_image("raw");
    rig_init(&r, BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_BLK_F_DISCARD) |
                     BIT(VIRTIO_BLK_F_WRITE_ZEROES));
    r.model = calloc(1, DISK_SIZE);
    struct state_buf saved = {0};
    struct error *err = NULL;
    for (int i = 0; i < 5; i++) {
        random_requests(&r, 60);
        machine_lock(&r.t->m);
        devices_quiesce(&r.t->m);
        saved.len = 0;
        state_save(r.dev->cls->state, r.dev, &saved);
        device_reset(r.dev);
        if (state_load(r.dev->cls->state, r.dev, r.dev->cls->size, saved.data, saved.len, &err) < 0)
            fail_msg("%s", error_text(err));
        devices_resume(&r.t->m);
        machine_unlock(&r.t->m);
        finish_all(&r);
    }
    state_buf_free(&saved);
    rig_close(&r);
}

static void test_refusals(void **state)
{
    struct test_machine *t = pci_machine_new();
    struct error *err = NULL;
    machine_lock(&t->m);
    struct device *dev = device_new(&t->m, "virtio-blk", NULL, &err);
    assert_false(device_realize(dev, &err));
    assert_non_null(strstr(error_text(err), "no disk"));
    error_free(err);
    err = NULL;
    dev = device_new(&t->m, "virtio-blk", NULL, &err);
    assert_true(device_set(dev, "file", "/nonexistent/disk", &err));
    assert_false(device_realize(dev, &err));
    assert_non_null(strstr(error_text(err), "No such file"));
    error_free(err);
    machine_unlock(&t->m);
    test_machine_free(t);
}

int main(void)
{
    log_set_level(LOG_ERROR); /* what drivers do wrong is the point here */
    seed = test_seed();
    int fd = mkstemp(image);
    if (fd < 0)
        return 1;
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),        cmocka_unit_test(test_random_requests),
        cmocka_unit_test(test_readonly),      cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_no_status),     cmocka_unit_test(test_write_cache),
        cmocka_unit_test(test_full_disk),     cmocka_unit_test(test_driver_reset),
        cmocka_unit_test(test_machine_reset), cmocka_unit_test(test_quiesce),
        cmocka_unit_test(test_save_restore),  cmocka_unit_test(test_refusals),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(image);
    return failed;
}
