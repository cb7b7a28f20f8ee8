/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See virtio_driver.h. */
#include "virtio_driver.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <linux/virtio_pci.h>

#include "base/util.h"

#define MSI_ADDR 0xFEE00000u

/* --- machine --- */

struct test_machine *pci_machine_new(void)
{
    struct test_machine *t = test_machine_new();
    test_machine_add(t, "q35-host", NULL);
    pci_machine_add(t, "ich9-lpc", NULL);
    return t;
}

struct device *pci_machine_add(struct test_machine *t, const char *cls, const char *props)
{
    struct device *dev = test_machine_add(t, cls, props);
    machine_lock(&t->m);
    pci_assign_resources(&t->m);
    machine_unlock(&t->m);
    return dev;
}

static void stop(void *opaque)
{
    loop_stop(opaque);
}

void pump(struct test_machine *t)
{
    /* Two rounds, as what a kick handler asks for runs in the next. */
    for (int i = 0; i < 2; i++) {
        loop_post(t->m.loop, stop, t->m.loop);
        loop_run(t->m.loop);
    }
}

uint32_t cfg_read(struct test_machine *t, uint8_t devfn, unsigned reg, unsigned size)
{
    test_out(t, 0xCF8, 4, 0x80000000u | (uint32_t)devfn << 8 | (reg & ~3u));
    return test_in(t, (uint16_t)(0xCFC + (reg & 3)), size);
}

void cfg_write(struct test_machine *t, uint8_t devfn, unsigned reg, unsigned size, uint32_t value)
{
    test_out(t, 0xCF8, 4, 0x80000000u | (uint32_t)devfn << 8 | (reg & ~3u));
    test_out(t, (uint16_t)(0xCFC + (reg & 3)), size, value);
}

/* --- driver --- */

uint64_t drv_read(struct drv *d, uint64_t addr, unsigned size)
{
    return test_read(d->t, addr, size);
}

void drv_write(struct drv *d, uint64_t addr, unsigned size, uint64_t value)
{
    test_write(d->t, addr, size, value);
}

void *drv_ptr(struct drv *d, uint64_t gpa, uint64_t size)
{
    void *p = guest_ptr(d->t->m.memory, gpa, size, true);
    assert_non_null(p);
    return p;
}

uint64_t drv_alloc(struct drv *d, uint64_t size, uint64_t align)
{
    uint64_t at = round_up(d->next_free, align);
    d->next_free = at + size;
    if (d->next_free > TEST_RAM_SIZE)
        fail_msg("the test needs more guest memory");
    memset(drv_ptr(d, at, size), 0, size);
    return at;
}

uint8_t drv_status(struct drv *d)
{
    return (uint8_t)drv_read(d, d->common + VIRTIO_PCI_COMMON_STATUS, 1);
}

void drv_set_status(struct drv *d, uint8_t status)
{
    drv_write(d, d->common + VIRTIO_PCI_COMMON_STATUS, 1, status);
}

static uint64_t bar_base(struct drv *d, unsigned bar)
{
    uint32_t lo = cfg_read(d->t, d->devfn, PCI_BASE_ADDRESS_0 + 4 * bar, 4);
    uint64_t hi = (lo & 6) == 4 ? cfg_read(d->t, d->devfn, PCI_BASE_ADDRESS_0 + 4 * bar + 4, 4) : 0;
    return hi << 32 | (lo & ~15u);
}

static void find_structures(struct drv *d)
{
    for (unsigned at = cfg_read(d->t, d->devfn, PCI_CAPABILITY_LIST, 1); at;
         at = cfg_read(d->t, d->devfn, at + 1, 1)) {
        uint8_t id = (uint8_t)cfg_read(d->t, d->devfn, at, 1);
        if (id == PCI_CAP_ID_MSIX) {
            uint32_t table = cfg_read(d->t, d->devfn, at + PCI_MSIX_TABLE, 4);
            d->msix_table = bar_base(d, table & 7) + (table & ~7u);
            cfg_write(d->t, d->devfn, at + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
        }
        if (id != PCI_CAP_ID_VNDR)
            continue;
        uint8_t type = (uint8_t)cfg_read(d->t, d->devfn, at + 3, 1);
        uint64_t addr =
            bar_base(d, cfg_read(d->t, d->devfn, at + 4, 1)) + cfg_read(d->t, d->devfn, at + 8, 4);
        if (type == VIRTIO_PCI_CAP_COMMON_CFG)
            d->common = addr;
        else if (type == VIRTIO_PCI_CAP_ISR_CFG)
            d->isr = addr;
        else if (type == VIRTIO_PCI_CAP_DEVICE_CFG)
            d->config = addr;
        else if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
            d->notify = addr;
            d->notify_multiplier = cfg_read(d->t, d->devfn, at + 16, 4);
        }
    }
}

void drv_init(struct drv *d, struct test_machine *t, struct device *dev, uint64_t features)
{
    *d = (struct drv){.t = t,
                      .next_free = 0x10000,
                      .devfn = ((struct pci_device *)(void *)dev)->devfn,
                      .features = features};
    cfg_write(t, d->devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    find_structures(d);
    assert_true(d->common && d->isr && d->notify && d->msix_table);
    drv_set_status(d, 0);
    assert_int_equal(drv_status(d), 0);
    drv_set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    drv_set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    for (uint32_t i = 0; i < 2; i++) {
        drv_write(d, d->common + VIRTIO_PCI_COMMON_DFSELECT, 4, i);
        uint32_t offered = (uint32_t)drv_read(d, d->common + VIRTIO_PCI_COMMON_DF, 4);
        uint32_t want = (uint32_t)(features >> (32 * i));
        assert_int_equal(want & ~offered, 0);
        drv_write(d, d->common + VIRTIO_PCI_COMMON_GFSELECT, 4, i);
        drv_write(d, d->common + VIRTIO_PCI_COMMON_GF, 4, want);
    }
    const uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;
    drv_set_status(d, status);
    assert_int_equal(drv_status(d), status);
    unsigned queues = (unsigned)drv_read(d, d->common + VIRTIO_PCI_COMMON_NUMQ, 2);
    for (unsigned v = 0; v <= queues; v++) {
        drv_write(d, d->msix_table + 16 * v + PCI_MSIX_ENTRY_LOWER_ADDR, 4, MSI_ADDR);
        drv_write(d, d->msix_table + 16 * v + PCI_MSIX_ENTRY_DATA, 4, 0x40 + v);
        drv_write(d, d->msix_table + 16 * v + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 0);
    }
    drv_write(d, d->common + VIRTIO_PCI_COMMON_MSIX, 2, queues);
}

void drv_ok(struct drv *d)
{
    drv_set_status(d, drv_status(d) | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void write_addr(struct drv *d, unsigned lo, uint64_t addr)
{
    drv_write(d, d->common + lo, 4, (uint32_t)addr);
    drv_write(d, d->common + lo + 4, 4, addr >> 32);
}

void drv_ring_init(struct drv_ring *r, struct drv *d, unsigned index, unsigned size)
{
    *r = (struct drv_ring){
        .drv = d,
        .index = index,
        .size = size,
        .packed = d->features & BIT(VIRTIO_F_RING_PACKED),
        .event_idx = d->features & BIT(VIRTIO_RING_F_EVENT_IDX),
        .free_count = size,
        .wrap = true,
        .used_wrap = true,
        .free_id_count = size,
    };
    assert_true(size <= DRV_RING_MAX);
    uint64_t avail_size = r->packed ? 4 : 6 + 2 * size, used_size = r->packed ? 4 : 6 + 8 * size;
    r->desc = drv_alloc(d, 16 * size, 16);
    r->avail = drv_alloc(d, avail_size, 4);
    r->used = drv_alloc(d, used_size, 4);
    r->tables = drv_alloc(d, size * DRV_TABLE_MAX * 16, 16);
    r->d = drv_ptr(d, r->desc, 16 * size);
    r->a = drv_ptr(d, r->avail, avail_size);
    r->u = drv_ptr(d, r->used, used_size);
    for (unsigned i = 0; i < size; i++) {
        r->free_id[i] = (uint16_t)(size - 1 - i);
        if (!r->packed)
            store_le16(r->d + 16 * i + 14, (uint16_t)(i + 1));
    }
    drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SELECT, 2, index);
    drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_MSIX, 2, index);
    assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_MSIX, 2), index);
    write_addr(d, VIRTIO_PCI_COMMON_Q_DESCLO, r->desc);
    write_addr(d, VIRTIO_PCI_COMMON_Q_AVAILLO, r->avail);
    write_addr(d, VIRTIO_PCI_COMMON_Q_USEDLO, r->used);
    r->notify = d->notify + d->notify_multiplier * drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_NOFF, 2);
    drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
}

static uint16_t *word(uint8_t *p)
{
    return (uint16_t *)(void *)p;
}

static void write_desc(uint8_t *d, const struct drv_buf *b, uint16_t flags)
{
    store_le64(d, b->gpa);
    store_le32(d + 8, b->len);
    store_le16(d + 12, flags);
}

static uint64_t indirect_table(struct drv_ring *r, const struct drv_buf *buf, unsigned count)
{
    /* The slot whose head or id the chain will get owns the table. */
    unsigned slot = r->packed ? r->free_id[r->free_id_count - 1] : r->free_head;
    uint64_t table = r->tables + slot * DRV_TABLE_MAX * 16;
    assert_true(count <= DRV_TABLE_MAX);
    uint8_t *p = drv_ptr(r->drv, table, 16 * count);
    for (unsigned i = 0; i < count; i++, p += 16) {
        uint16_t flags = buf[i].write ? VRING_DESC_F_WRITE : 0;
        if (r->packed) {
            write_desc(p, &buf[i], 0);
            store_le16(p + 14, flags);
        } else {
            write_desc(p, &buf[i], (uint16_t)(flags | (i + 1 < count ? VRING_DESC_F_NEXT : 0)));
            store_le16(p + 14, (uint16_t)(i + 1));
        }
    }
    return table;
}

static void add_split(struct drv_ring *r, const struct drv_buf *buf, unsigned count, uint16_t extra,
                      void *cookie)
{
    uint16_t head = r->free_head, at = head;
    for (unsigned i = 0; i < count; i++) {
        uint8_t *d = r->d + 16 * at;
        uint16_t flags =
            (uint16_t)((buf[i].write ? VRING_DESC_F_WRITE : 0) | (i + 1 < count ? VRING_DESC_F_NEXT : 0));
        write_desc(d, &buf[i], flags | extra);
        at = load_le16(d + 14);
    }
    r->free_head = at;
    r->slots_of[head] = (uint16_t)count;
    r->cookie[head] = cookie;
    store_le16(r->a + 4 + 2 * (r->avail_idx % r->size), head);
    r->avail_idx++;
    __atomic_store_n(word(r->a + 2), r->avail_idx, __ATOMIC_RELEASE);
}

static void add_packed(struct drv_ring *r, const struct drv_buf *buf, unsigned count, uint16_t extra,
                       void *cookie)
{
    uint16_t id = r->free_id[--r->free_id_count], first = r->next, first_flags = 0;
    for (unsigned i = 0; i < count; i++) {
        uint8_t *d = r->d + 16 * r->next;
        uint16_t flags =
            (uint16_t)((buf[i].write ? VRING_DESC_F_WRITE : 0) | (i + 1 < count ? VRING_DESC_F_NEXT : 0) |
                       (r->wrap ? 0x80 : 0x8000) | extra);
        store_le64(d, buf[i].gpa);
        store_le32(d + 8, buf[i].len);
        store_le16(d + 12, id);
        if (i == 0)
            first_flags = flags;
        else
            __atomic_store_n(word(d + 14), flags, __ATOMIC_RELAXED);
        if (++r->next == r->size) {
            r->next = 0;
            r->wrap = !r->wrap;
        }
    }
    r->slots_of[id] = (uint16_t)count;
    r->cookie[id] = cookie;
    r->added += count;
    __atomic_store_n(word(r->d + 16 * first + 14), first_flags, __ATOMIC_RELEASE);
}

bool drv_add(struct drv_ring *r, const struct drv_buf *buf, unsigned count, bool indirect, void *cookie)
{
    struct drv_buf table;
    uint16_t extra = 0;
    if ((indirect ? 1 : count) > r->free_count)
        return false;
    if (indirect) {
        table = (struct drv_buf){.gpa = indirect_table(r, buf, count), .len = 16 * count};
        buf = &table;
        count = 1;
        extra = VRING_DESC_F_INDIRECT;
    }
    r->free_count -= count;
    if (r->packed)
        add_packed(r, buf, count, extra, cookie);
    else
        add_split(r, buf, count, extra, cookie);
    return true;
}

void drv_force_kick(struct drv_ring *r)
{
    drv_write(r->drv, r->notify, 2, r->index);
}

static bool need_event(uint16_t event_at, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event_at - 1) < (uint16_t)(now - old);
}

static bool packed_kick_wanted(struct drv_ring *r)
{
    uint32_t e = __atomic_load_n((uint32_t *)(void *)r->u, __ATOMIC_RELAXED);
    unsigned flags = e >> 16 & 3;
    unsigned added = r->added;
    r->added = 0;
    if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
        return false;
    if (flags != VRING_PACKED_EVENT_FLAG_DESC)
        return true;
    uint16_t off = e & 0x7FFF;
    if ((bool)(e >> 15 & 1) != r->wrap)
        off = (uint16_t)(off - r->size);
    return need_event(off, r->next, (uint16_t)(r->next - added));
}

bool drv_kick(struct drv_ring *r)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bool wanted;
    if (r->packed) {
        wanted = packed_kick_wanted(r);
    } else {
        uint16_t old = r->kicked_idx;
        r->kicked_idx = r->avail_idx;
        if (r->event_idx)
            wanted = need_event(__atomic_load_n(word(r->u + 4 + 8 * r->size), __ATOMIC_RELAXED), r->avail_idx,
                                old);
        else
            wanted = !(__atomic_load_n(word(r->u), __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
    }
    if (wanted)
        drv_force_kick(r);
    return wanted;
}

static bool used_waiting(struct drv_ring *r)
{
    if (!r->packed)
        return __atomic_load_n(word(r->u + 2), __ATOMIC_ACQUIRE) != r->last_used;
    uint16_t flags = __atomic_load_n(word(r->d + 16 * r->used_at + 14), __ATOMIC_ACQUIRE);
    return !!(flags & 0x80) == r->used_wrap && !!(flags & 0x8000) == r->used_wrap;
}

static uint32_t get_split(struct drv_ring *r, uint32_t *len)
{
    const uint8_t *e = r->u + 4 + 8 * (r->last_used % r->size);
    uint32_t id = load_le32(e);
    *len = load_le32(e + 4);
    assert_true(id < r->size && r->slots_of[id]);
    r->last_used++;
    uint16_t tail = (uint16_t)id;
    for (unsigned i = 1; i < r->slots_of[id]; i++)
        tail = load_le16(r->d + 16 * tail + 14);
    store_le16(r->d + 16 * tail + 14, r->free_head);
    r->free_head = (uint16_t)id;
    return id;
}

static uint32_t get_packed(struct drv_ring *r, uint32_t *len)
{
    const uint8_t *d = r->d + 16 * r->used_at;
    uint32_t id = load_le16(d + 12);
    *len = load_le32(d + 8);
    assert_true(id < r->size && r->slots_of[id]);
    r->used_at = (uint16_t)(r->used_at + r->slots_of[id]);
    if (r->used_at >= r->size) {
        r->used_at = (uint16_t)(r->used_at - r->size);
        r->used_wrap = !r->used_wrap;
    }
    r->free_id[r->free_id_count++] = (uint16_t)id;
    return id;
}

void *drv_get(struct drv_ring *r, uint32_t *len)
{
    if (!used_waiting(r))
        return NULL;
    uint32_t id = r->packed ? get_packed(r, len) : get_split(r, len);
    r->free_count += r->slots_of[id];
    r->slots_of[id] = 0;
    return r->cookie[id];
}

bool drv_enable_cb(struct drv_ring *r)
{
    if (r->packed) {
        uint16_t off = (uint16_t)(r->used_at | (r->used_wrap ? 0x8000 : 0));
        __atomic_store_n(word(r->a), off, __ATOMIC_RELAXED);
        uint16_t flags = r->event_idx ? VRING_PACKED_EVENT_FLAG_DESC : VRING_PACKED_EVENT_FLAG_ENABLE;
        __atomic_store_n(word(r->a + 2), flags, __ATOMIC_RELEASE);
    } else if (r->event_idx) {
        __atomic_store_n(word(r->a + 4 + 2 * r->size), r->last_used, __ATOMIC_RELAXED);
    } else {
        __atomic_store_n(word(r->a), 0, __ATOMIC_RELAXED);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return used_waiting(r);
}

void drv_disable_cb(struct drv_ring *r)
{
    if (r->packed)
        __atomic_store_n(word(r->a + 2), VRING_PACKED_EVENT_FLAG_DISABLE, __ATOMIC_RELAXED);
    else if (!r->event_idx)
        __atomic_store_n(word(r->a), VRING_AVAIL_F_NO_INTERRUPT, __ATOMIC_RELAXED);
}
