/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtqueues against a driver model: random requests over split and packed rings with every mix of features,
 * where each side tells the other only when asked to, so that one lost notification hangs the test; a driver
 * on a thread of its own; and rings that break the rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "virtio_driver.h"

#define ECHO_HOLD 8

/*
 * A device that answers each request with what it was sent, each byte inverted; it holds some and completes
 * them out of order.
 */
struct echo {
    struct virtio_device v;
    struct virtqueue_element *held[ECHO_HOLD];
    unsigned held_count;
    uint64_t rng;
};

static void echo_complete(struct echo *e, unsigned i)
{
    struct virtqueue_element *el = e->held[i];
    e->held[i] = e->held[--e->held_count];
    uint8_t data[8192];
    size_t n = iov_read(el->out, el->out_count, 0, data, sizeof(data));
    for (size_t k = 0; k < n; k++)
        data[k] ^= 0xFF;
    virtqueue_fill(el, (uint32_t)iov_write(el->in, el->in_count, 0, data, n));
}

static void echo_notify(struct virtio_device *v, struct virtqueue *vq)
{
    struct echo *e = (struct echo *)(void *)v;
    do {
        virtqueue_disable_kicks(vq);
        struct virtqueue_element *el;
        while ((el = virtqueue_pop(vq))) {
            if (test_random(&e->rng) % 8 == 0) { /* changes its mind, and takes it again */
                virtqueue_unpop(el);
                el = virtqueue_pop(vq);
                assert_non_null(el);
            }
            e->held[e->held_count++] = el;
            while (e->held_count == ECHO_HOLD || (e->held_count && test_random(&e->rng) % 2))
                echo_complete(e, (unsigned)(test_random(&e->rng) % e->held_count));
            if (test_random(&e->rng) % 4 == 0) {
                virtqueue_flush(vq);
                virtqueue_notify(vq);
            }
        }
        while (e->held_count)
            echo_complete(e, e->held_count - 1);
        virtqueue_flush(vq);
    } while (virtqueue_enable_kicks(vq));
    virtqueue_notify(vq);
}

static bool echo_reset(struct virtio_device *v, bool wait)
{
    struct echo *e = (struct echo *)(void *)v;
    while (e->held_count)
        virtqueue_discard(e->held[--e->held_count]);
    return true;
}

static const struct virtio_class echo_class = {
    .name = "echo",
    .id = 63,
    .pci_class = 0xFF0000,
    .queue_notify = echo_notify,
    .reset = echo_reset,
};

static char echo_id[] = "echo";

static struct echo *echo_new(struct test_machine *t, uint64_t seed)
{
    struct error *err = NULL;
    struct echo *e = calloc(1, sizeof(*e));
    assert_non_null(e);
    e->v.pci.dev = (struct device){.machine = &t->m, .id = echo_id};
    e->v.packed = e->v.event_idx = e->v.indirect = true;
    e->rng = seed;
    machine_lock(&t->m);
    assert_true(virtio_init(&e->v, &echo_class, 0, &err));
    virtio_add_queue(&e->v, 256);
    virtio_ready(&e->v);
    virtio_device_reset(&e->v);
    pci_assign_resources(&t->m);
    machine_unlock(&t->m);
    return e;
}

static void echo_free(struct echo *e, struct test_machine *t)
{
    machine_lock(&t->m);
    echo_reset(&e->v, true);
    virtio_exit(&e->v);
    machine_unlock(&t->m);
    free(e);
}

/* --- random requests --- */

#define REQUESTS_MAX 32
#define DATA_MAX     600
#define PIECES_MAX   6

struct request {
    bool busy;
    uint64_t gpa; /* DATA_MAX bytes out, as many in */
    uint32_t len;
};

static unsigned split_pieces(uint64_t *rng, uint64_t gpa, uint32_t len, bool write, struct drv_buf *buf)
{
    unsigned n = 0;
    while (len) {
        uint32_t take = n + 1 == PIECES_MAX ? len : 1 + (uint32_t)(test_random(rng) % len);
        buf[n++] = (struct drv_buf){.gpa = gpa, .len = take, .write = write};
        gpa += take;
        len -= take;
    }
    return n;
}

static bool submit(struct drv_ring *r, struct request *q, uint64_t *rng, bool may_indirect)
{
    struct drv_buf buf[2 * PIECES_MAX];
    q->len = 1 + (uint32_t)(test_random(rng) % DATA_MAX);
    uint8_t *out = drv_ptr(r->drv, q->gpa, 2 * DATA_MAX);
    for (uint32_t i = 0; i < q->len; i++)
        out[i] = (uint8_t)test_random(rng);
    memset(out + DATA_MAX, 0, DATA_MAX);
    unsigned n = split_pieces(rng, q->gpa, q->len, false, buf);
    n += split_pieces(rng, q->gpa + DATA_MAX, q->len, true, buf + n);
    bool indirect = may_indirect && test_random(rng) % 2;
    q->busy = drv_add(r, buf, n, indirect, q);
    return q->busy;
}

static void check_answer(struct drv_ring *r, struct request *q, uint32_t len)
{
    const uint8_t *data = drv_ptr(r->drv, q->gpa, 2 * DATA_MAX);
    assert_true(q->busy);
    assert_int_equal(len, q->len);
    for (uint32_t i = 0; i < len; i++)
        if (data[DATA_MAX + i] != 255 - data[i])
            fail_msg("byte %u of %u differs", i, len);
    q->busy = false;
}

static unsigned collect(struct drv_ring *r)
{
    unsigned n = 0;
    uint32_t len;
    for (struct request *q; (q = drv_get(r, &len)); n++)
        check_answer(r, q, len);
    return n;
}

/*
 * The driver sleeps whenever it has nothing to do, and wakes only by an interrupt; the device works only
 * after a kick. So every round must end with all answers, or someone was not told.
 */
static void run_random(uint64_t features, unsigned size, uint64_t *rng, unsigned rounds)
{
    struct test_machine *t = pci_machine_new();
    struct echo *e = echo_new(t, test_random(rng) | 1);
    struct drv d;
    struct drv_ring r;
    struct request q[REQUESTS_MAX] = {0};
    drv_init(&d, t, &e->v.pci.dev, features | BIT(VIRTIO_F_VERSION_1));
    drv_ring_init(&r, &d, 0, size);
    for (unsigned i = 0; i < REQUESTS_MAX; i++)
        q[i].gpa = drv_alloc(&d, 2 * DATA_MAX, 1);
    drv_ok(&d);
    pump(t);

    uint64_t answered = 0, sent = 0;
    for (unsigned round = 0; round < rounds; round++) {
        drv_disable_cb(&r);
        unsigned batch = 1 + (unsigned)(test_random(rng) % REQUESTS_MAX);
        for (unsigned i = 0; i < batch; i++) {
            if (q[i].busy || !submit(&r, &q[i], rng, features & BIT(VIRTIO_RING_F_INDIRECT_DESC)))
                continue;
            sent++;
            if (test_random(rng) % 4 == 0)
                drv_kick(&r);
            if (test_random(rng) % 16 == 0)
                pump(t);
        }
        drv_kick(&r);
        unsigned before = t->msi_count;
        if (!drv_enable_cb(&r)) {
            pump(t);
            if (answered < sent && t->msi_count == before)
                fail_msg("no interrupt: features 0x%llx, ring of %u, round %u", (unsigned long long)features,
                         size, round);
        }
        pump(t);
        answered += collect(&r);
        if (answered != sent)
            fail_msg("%llu requests, %llu answers: features 0x%llx, ring of %u", (unsigned long long)sent,
                     (unsigned long long)answered, (unsigned long long)features, size);
    }
    assert_true(sent > 0);
    assert_int_equal(e->v.vq[0].inuse, 0);
    assert_int_equal(drv_status(&d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    echo_free(e, t);
    test_machine_free(t);
}

static const uint64_t feature_mixes[] = {
    0,
    BIT(VIRTIO_RING_F_EVENT_IDX),
    BIT(VIRTIO_RING_F_INDIRECT_DESC),
    BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC),
};

static void test_random_split(void **state)
{
    uint64_t rng = test_seed();
    static const unsigned sizes[] = {16, 32, 256};
    for (size_t f = 0; f < ARRAY_SIZE(feature_mixes); f++)
        for (size_t s = 0; s < ARRAY_SIZE(sizes); s++)
            run_random(feature_mixes[f], sizes[s], &rng, 300);
}

static void test_random_packed(void **state)
{
    uint64_t rng = test_seed();
    static const unsigned sizes[] = {13, 16, 100, 256};
    for (size_t f = 0; f < ARRAY_SIZE(feature_mixes); f++)
        for (size_t s = 0; s < ARRAY_SIZE(sizes); s++)
            run_random(feature_mixes[f] | BIT(VIRTIO_F_RING_PACKED), sizes[s], &rng, 300);
}

/* The free-running indices of a split ring pass 65535. */
static void test_index_wrap(void **state)
{
    uint64_t rng = test_seed();
    run_random(BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC), 16, &rng, 9000);
}

/* --- two threads --- */

struct parallel {
    struct test_machine *t;
    struct drv d;
    struct drv_ring r;
    struct request q[REQUESTS_MAX];
    uint64_t rng;
    unsigned rounds;
    bool stuck;
};

static unsigned msi_count(struct test_machine *t)
{
    machine_lock(&t->m);
    unsigned n = t->msi_count;
    machine_unlock(&t->m);
    return n;
}

/* Sleeps until an interrupt came after `seen`; false: none did for far too long. */
static bool wait_interrupt(struct test_machine *t, unsigned seen)
{
    for (uint64_t end = monotonic_ns() + 20000000000u; monotonic_ns() < end;) {
        if (msi_count(t) != seen)
            return true;
        sched_yield();
    }
    return false;
}

static void *driver_thread(void *opaque)
{
    struct parallel *p = opaque;
    unsigned busy = 0;
    for (unsigned round = 0; round < p->rounds && !p->stuck; round++) {
        for (unsigned i = 0; i < REQUESTS_MAX; i++)
            if (!p->q[i].busy && test_random(&p->rng) % 2 && submit(&p->r, &p->q[i], &p->rng, true)) {
                busy++;
                drv_kick(&p->r);
            }
        unsigned seen = msi_count(p->t);
        bool more = drv_enable_cb(&p->r);
        if (!more && busy && !wait_interrupt(p->t, seen))
            p->stuck = true;
        busy -= collect(&p->r);
    }
    loop_stop(p->t->m.loop);
    return NULL;
}

static void run_parallel(uint64_t features)
{
    struct parallel p = {.t = pci_machine_new(), .rng = test_seed(), .rounds = 3000};
    struct echo *e = echo_new(p.t, p.rng);
    drv_init(&p.d, p.t, &e->v.pci.dev, features | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC));
    drv_ring_init(&p.r, &p.d, 0, 64);
    for (unsigned i = 0; i < REQUESTS_MAX; i++)
        p.q[i].gpa = drv_alloc(&p.d, 2 * DATA_MAX, 1);
    drv_ok(&p.d);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, driver_thread, &p), 0);
    loop_run(p.t->m.loop);
    pthread_join(thread, NULL);
    assert_false(p.stuck);
    echo_free(e, p.t);
    test_machine_free(p.t);
}

static void test_parallel_split(void **state)
{
    run_parallel(0);
    run_parallel(BIT(VIRTIO_RING_F_EVENT_IDX));
}

static void test_parallel_packed(void **state)
{
    run_parallel(BIT(VIRTIO_F_RING_PACKED));
    run_parallel(BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_RING_F_EVENT_IDX));
}

/* --- rings that break the rules --- */

struct hostile {
    struct test_machine *t;
    struct echo *e;
    struct drv d;
    struct drv_ring r;
    uint64_t data, table;
};

static void hostile_start(struct hostile *h, uint64_t features)
{
    drv_init(&h->d, h->t, &h->e->v.pci.dev,
             features | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC));
    drv_ring_init(&h->r, &h->d, 0, 8);
    h->data = drv_alloc(&h->d, 4096, 4096);
    h->table = drv_alloc(&h->d, 4096, 4096);
    drv_ok(&h->d);
    pump(h->t);
}

/* The device must say NEEDS_RESET by an interrupt, and work again after a reset. */
static void expect_broken(struct hostile *h, const char *what)
{
    unsigned before = h->t->msi_count;
    drv_force_kick(&h->r);
    pump(h->t);
    if (!(drv_status(&h->d) & VIRTIO_CONFIG_S_NEEDS_RESET))
        fail_msg("%s: accepted", what);
    assert_true(h->t->msi_count > before);
    uint64_t features = h->d.features;
    uint32_t len;
    hostile_start(h, features & ~BIT(VIRTIO_F_VERSION_1) & ~BIT(VIRTIO_RING_F_INDIRECT_DESC));
    const struct drv_buf ok[] = {{h->data, 8, false}, {h->data + 8, 8, true}};
    assert_true(drv_add(&h->r, ok, 2, false, h));
    drv_kick(&h->r);
    pump(h->t);
    assert_ptr_equal(drv_get(&h->r, &len), h);
    assert_int_equal(len, 8);
    assert_int_equal(drv_status(&h->d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    hostile_start(h, features & ~BIT(VIRTIO_F_VERSION_1) & ~BIT(VIRTIO_RING_F_INDIRECT_DESC));
}

static void put_desc(struct hostile *h, uint64_t at, uint64_t addr, uint32_t len, uint16_t flags,
                     uint16_t next)
{
    uint8_t *p = drv_ptr(&h->d, at, 16);
    bool packed = h->r.packed;
    store_le64(p, addr);
    store_le32(p + 8, len);
    store_le16(p + (packed ? 14 : 12), flags);
    store_le16(p + (packed ? 12 : 14), next);
}

static void offer(struct hostile *h, uint16_t head, uint16_t count)
{
    store_le16(h->r.a + 4, head);
    store_le16(h->r.a + 2, count);
}

#define F_NEXT     VRING_DESC_F_NEXT
#define F_WRITE    VRING_DESC_F_WRITE
#define F_INDIRECT VRING_DESC_F_INDIRECT

static void hostile_init(struct hostile *h, uint64_t features)
{
    *h = (struct hostile){.t = pci_machine_new()};
    h->e = echo_new(h->t, 1);
    hostile_start(h, features);
}

static void hostile_free(struct hostile *h)
{
    echo_free(h->e, h->t);
    test_machine_free(h->t);
}

static void test_hostile_split(void **state)
{
    struct hostile h;
    hostile_init(&h, 0);
    uint64_t end = TEST_RAM_SIZE;

    put_desc(&h, h.r.desc, h.data, 8, F_NEXT, 0);
    offer(&h, 0, 1);
    expect_broken(&h, "chain that is a loop");

    put_desc(&h, h.r.desc, h.data, 8, F_NEXT, 8);
    offer(&h, 0, 1);
    expect_broken(&h, "next past the ring");

    offer(&h, 8, 1);
    expect_broken(&h, "head past the ring");

    offer(&h, 0, 9);
    expect_broken(&h, "available index too far ahead");

    static const struct {
        uint64_t addr_from_end;
        uint32_t len;
    } outside[] = {{0, 1}, {8, 9}, {4096, UINT32_MAX}};
    for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
        put_desc(&h, h.r.desc, end - outside[i].addr_from_end, outside[i].len, F_WRITE, 0);
        offer(&h, 0, 1);
        expect_broken(&h, "buffer outside of memory");
    }
    put_desc(&h, h.r.desc, UINT64_MAX - 3, 8, 0, 0);
    offer(&h, 0, 1);
    expect_broken(&h, "buffer that wraps around");

    put_desc(&h, h.r.desc, h.data, 8, F_NEXT | F_WRITE, 1);
    put_desc(&h, h.r.desc + 16, h.data, 8, 0, 0);
    offer(&h, 0, 1);
    expect_broken(&h, "readable after writable");

    put_desc(&h, h.r.desc, h.data, 8, 0, 0);
    for (unsigned i = 0; i < 8; i++)
        store_le16(h.r.a + 4 + 2 * i, 0);
    store_le16(h.r.a + 2, 8);
    h.e->rng = 1;
    drv_force_kick(&h.r);
    pump(h.t); /* one head offered eight times: answered or refused, never more held than the ring has */
    assert_true(h.e->held_count == 0);
    hostile_start(&h, 0);

    put_desc(&h, h.r.desc, h.table, 24, F_INDIRECT, 0);
    offer(&h, 0, 1);
    expect_broken(&h, "indirect table of odd size");
    put_desc(&h, h.r.desc, h.table, 0, F_INDIRECT, 0);
    offer(&h, 0, 1);
    expect_broken(&h, "indirect table of size 0");
    put_desc(&h, h.r.desc, h.table, 16, F_INDIRECT | F_NEXT, 1);
    offer(&h, 0, 1);
    expect_broken(&h, "indirect with next");
    put_desc(&h, h.r.desc, end, 16, F_INDIRECT, 0);
    offer(&h, 0, 1);
    expect_broken(&h, "indirect table outside of memory");
    put_desc(&h, h.r.desc, h.table, 32, F_INDIRECT, 0);
    put_desc(&h, h.table, h.table, 16, F_INDIRECT, 0);
    offer(&h, 0, 1);
    expect_broken(&h, "indirect in indirect");
    put_desc(&h, h.r.desc, h.table, 32, F_INDIRECT, 0);
    put_desc(&h, h.table, h.data, 8, F_NEXT, 2);
    offer(&h, 0, 1);
    expect_broken(&h, "next past the indirect table");
    put_desc(&h, h.r.desc, h.table, 32, F_INDIRECT, 0);
    put_desc(&h, h.table, h.data, 8, F_NEXT, 1);
    put_desc(&h, h.table + 16, h.data, 8, F_NEXT, 0);
    offer(&h, 0, 1);
    expect_broken(&h, "loop in the indirect table");
    hostile_free(&h);
}

/* A chain may end in an indirect descriptor (section 2.7.7.2), and hold empty buffers. */
static void test_chain_then_indirect(void **state)
{
    struct hostile h;
    hostile_init(&h, 0);
    uint32_t *data = drv_ptr(&h.d, h.data, 64);
    data[0] = 0x11111111;
    put_desc(&h, h.r.desc, h.data, 4, F_NEXT, 1);
    put_desc(&h, h.r.desc + 16, h.data, 0, F_NEXT, 2);
    put_desc(&h, h.r.desc + 32, h.table, 16, F_INDIRECT, 0);
    put_desc(&h, h.table, h.data + 32, 16, F_WRITE, 0);
    offer(&h, 0, 1);
    drv_force_kick(&h.r);
    pump(h.t);
    assert_int_equal(load_le16(h.r.u + 2), 1);
    assert_int_equal(load_le32(h.r.u + 8), 4);
    assert_int_equal(data[8], 0xEEEEEEEE);
    hostile_free(&h);
}

#define P_AVAIL 0x80

static void test_hostile_packed(void **state)
{
    struct hostile h;
    hostile_init(&h, BIT(VIRTIO_F_RING_PACKED));
    for (unsigned i = 0; i < 8; i++)
        put_desc(&h, h.r.desc + 16 * i, h.data, 8, P_AVAIL | F_NEXT, 0);
    expect_broken(&h, "chain as long as the ring that does not end");
    put_desc(&h, h.r.desc, TEST_RAM_SIZE, 8, P_AVAIL, 0);
    expect_broken(&h, "buffer outside of memory");
    put_desc(&h, h.r.desc + 16, h.data, 8, P_AVAIL, 0);
    put_desc(&h, h.r.desc, h.data, 8, P_AVAIL | F_NEXT | F_WRITE, 0);
    expect_broken(&h, "readable after writable");
    put_desc(&h, h.table, h.table, 16, F_INDIRECT, 0);
    put_desc(&h, h.r.desc, h.table, 16, P_AVAIL | F_INDIRECT, 0);
    expect_broken(&h, "indirect in indirect");
    put_desc(&h, h.r.desc, h.table, 17, P_AVAIL | F_INDIRECT, 0);
    expect_broken(&h, "indirect table of odd size");
    put_desc(&h, h.r.desc, TEST_RAM_SIZE - 16, 4096, P_AVAIL | F_INDIRECT, 0);
    expect_broken(&h, "indirect table outside of memory");
    hostile_free(&h);
}

static void set_ring(struct hostile *h, uint64_t desc, uint64_t avail, uint64_t used, unsigned size)
{
    struct drv *d = &h->d;
    drv_init(d, h->t, &h->e->v.pci.dev, BIT(VIRTIO_F_VERSION_1));
    const uint64_t addr[] = {desc, avail, used};
    drv_write(d, d->common + 22, 2, 0);
    drv_write(d, d->common + 24, 2, size);
    for (unsigned i = 0; i < 3; i++) {
        drv_write(d, d->common + 32 + 8 * i, 4, (uint32_t)addr[i]);
        drv_write(d, d->common + 36 + 8 * i, 4, addr[i] >> 32);
    }
    drv_write(d, d->common + 28, 2, 1);
}

static void test_bad_ring_addresses(void **state)
{
    struct hostile h;
    hostile_init(&h, 0);
    static const struct {
        uint64_t desc, avail, used;
        unsigned size;
    } bad[] = {
        {0x20008, 0x21000, 0x22000, 16},             /* misaligned */
        {0x20000, 0x21001, 0x22000, 16},             /* */
        {0x20000, 0x21000, 0x22002, 16},             /* */
        {TEST_RAM_SIZE, 0x21000, 0x22000, 16},       /* outside of memory */
        {0x20000, TEST_RAM_SIZE - 4, 0x22000, 16},   /* */
        {0x20000, 0x21000, UINT64_MAX - 3, 16},      /* */
        {UINT64_MAX & ~15ull, 0x21000, 0x22000, 16}, /* */
        {0x20000, 0x21000, 0x22000, 24},             /* a split ring's size is a power of two */
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        set_ring(&h, bad[i].desc, bad[i].avail, bad[i].used, bad[i].size);
        assert_true(drv_status(&h.d) & VIRTIO_CONFIG_S_NEEDS_RESET);
        assert_int_equal(drv_read(&h.d, h.d.common + 28, 2), 0);
    }
    set_ring(&h, 0x20000, 0x21000, 0x22000, 16);
    assert_int_equal(drv_read(&h.d, h.d.common + 28, 2), 1);
    set_ring(&h, 0x20000, 0x21000, 0x22000, 5000); /* more than offered: not taken */
    assert_int_equal(drv_read(&h.d, h.d.common + 24, 2), 256);
    hostile_free(&h);
}

/* Ring memory and registers full of noise. */
static void test_noise(void **state)
{
    uint64_t rng = test_seed();
    for (unsigned packed = 0; packed < 2; packed++) {
        struct hostile h;
        hostile_init(&h, packed ? BIT(VIRTIO_F_RING_PACKED) : 0);
        for (unsigned i = 0; i < 3000; i++) {
            for (unsigned k = 0; k < 16 * 8; k++)
                h.r.d[k] = test_random(&rng) % 4 ? h.r.d[k] : (uint8_t)test_random(&rng);
            for (unsigned k = 0; k < 8; k++) {
                uint8_t *d = h.r.d + 16 * k;
                if (test_random(&rng) % 4) { /* often enough plausible */
                    store_le64(d, h.data + test_random(&rng) % 4096);
                    store_le32(d + 8, (uint32_t)(test_random(&rng) % 64));
                    store_le16(d + (packed ? 14 : 12),
                               (uint16_t)(test_random(&rng) % 4 | (packed ? 0x80 : 0)));
                    store_le16(d + (packed ? 12 : 14), (uint16_t)(test_random(&rng) % 9));
                }
            }
            if (!packed)
                offer(&h, (uint16_t)(test_random(&rng) % 9),
                      (uint16_t)(load_le16(h.r.a + 2) + test_random(&rng) % 3));
            drv_force_kick(&h.r);
            pump(h.t);
            if (drv_status(&h.d) & VIRTIO_CONFIG_S_NEEDS_RESET) {
                hostile_start(&h, packed ? BIT(VIRTIO_F_RING_PACKED) : 0);
            }
        }
        hostile_free(&h);
    }
}

int main(void)
{
    log_set_level(LOG_ERROR); /* rule-breaking drivers are logged as warnings */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_split),        cmocka_unit_test(test_random_packed),
        cmocka_unit_test(test_index_wrap),          cmocka_unit_test(test_parallel_split),
        cmocka_unit_test(test_parallel_packed),     cmocka_unit_test(test_hostile_split),
        cmocka_unit_test(test_chain_then_indirect), cmocka_unit_test(test_hostile_packed),
        cmocka_unit_test(test_bad_ring_addresses),  cmocka_unit_test(test_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
