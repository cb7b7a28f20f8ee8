/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory as the kernel sees it, and which of it was written. The kernel logs what guests write; what
 * devices write is logged here.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"

static size_t region_pages(const struct guest_region *r)
{
    return r->size >> GUEST_PAGE_SHIFT;
}

/* Where a region's bits begin in dirty_bits, in words; for region_count: the size of the whole. */
static size_t region_start(const struct guest_memory *mem, unsigned region)
{
    size_t words = 0;
    for (unsigned i = 0; i < region; i++)
        words += (region_pages(&mem->region[i]) + 63) / 64;
    return words;
}

static bool set_slot(struct kvm_machine *m, unsigned i, bool log, struct error **err)
{
    const struct guest_region *r = &m->config.memory->region[i];
    struct kvm_userspace_memory_region slot = {
        .slot = i,
        .flags = (r->flags == REGION_ROM ? KVM_MEM_READONLY : 0) | (log ? KVM_MEM_LOG_DIRTY_PAGES : 0),
        .guest_phys_addr = r->gpa,
        .memory_size = r->size,
        .userspace_addr = (uintptr_t)r->host,
    };
    return KVM_TRY(m->fd, KVM_SET_USER_MEMORY_REGION, &slot, err);
}

static bool set_slots(struct kvm_machine *m, bool log, struct error **err)
{
    for (unsigned i = 0; i < m->config.memory->region_count; i++)
        if (!set_slot(m, i, log && m->config.memory->region[i].flags != REGION_ROM, err))
            return false;
    return true;
}

static void mark(struct kvm_machine *m, uint64_t *bits, uint64_t gpa)
{
    const struct guest_memory *mem = m->config.memory;
    const struct guest_region *r = guest_region_find(mem, gpa);
    if (!r)
        return;
    size_t page = (gpa - r->gpa) >> GUEST_PAGE_SHIFT;
    uint64_t *words = bits + region_start(mem, (unsigned)(r - mem->region));
    __atomic_fetch_or(&words[page / 64], BIT(page % 64), __ATOMIC_RELAXED);
}

void kvm_dirty_mark(struct kvm_machine *m, unsigned slot, uint64_t page)
{
    const struct guest_memory *mem = m->config.memory;
    uint64_t *bits = atomic_load(&m->dirty);
    if (!bits || slot >= mem->region_count || page >= region_pages(&mem->region[slot]))
        return;
    uint64_t *words = bits + region_start(mem, slot);
    __atomic_fetch_or(&words[page / 64], BIT(page % 64), __ATOMIC_RELAXED);
}

/* Devices wrote guest memory. */
static void on_written(void *opaque, uint64_t gpa, uint64_t len)
{
    struct kvm_machine *m = opaque;
    uint64_t *bits = atomic_load(&m->dirty);
    if (!bits)
        return;
    for (uint64_t at = round_down(gpa, GUEST_PAGE_SIZE); at < gpa + len; at += GUEST_PAGE_SIZE)
        mark(m, bits, at);
}

bool kvm_memory_set(struct kvm_machine *m, struct error **err)
{
    struct guest_memory *mem = m->config.memory;
    struct kvm_enable_cap manual = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                    .args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE}};
    kvm_ring_init(m);
    m->manual_protect = !m->rings && kvm_ioctl(m->fd, KVM_ENABLE_CAP, (uintptr_t)&manual) >= 0;
    if (!set_slots(m, false, err))
        return false;
    mem->written = on_written;
    mem->written_opaque = m;
    return true;
}

void kvm_memory_free(struct kvm_machine *m)
{
    struct guest_memory *mem = m->config.memory;
    if (mem->written_opaque == m) {
        mem->written = NULL;
        mem->written_opaque = NULL;
    }
    free(m->dirty_bits);
}

bool kvm_dirty_start(struct engine *e, struct error **err)
{
    struct kvm_machine *m = kvm_machine_of(e);
    size_t words = region_start(m->config.memory, m->config.memory->region_count);
    if (!m->dirty_bits)
        m->dirty_bits = calloc(words, sizeof(uint64_t));
    if (!m->dirty_bits) {
        error_set_errno(err, ENOMEM, "cannot make a dirty log");
        return false;
    }
    /* Off and on again: what was logged before is forgotten. */
    atomic_store(&m->dirty, NULL);
    if (!set_slots(m, false, err) || (m->rings && !kvm_ring_collect(m, err)) || !set_slots(m, true, err))
        return false;
    for (size_t i = 0; i < words; i++)
        __atomic_store_n(&m->dirty_bits[i], 0, __ATOMIC_RELAXED);
    atomic_store(&m->dirty, m->dirty_bits);
    return true;
}

void kvm_dirty_stop(struct engine *e)
{
    struct kvm_machine *m = kvm_machine_of(e);
    struct error *err = NULL;
    atomic_store(&m->dirty, NULL);
    if (!set_slots(m, false, &err))
        kvm_fail(m, err);
}

/* The kernel's log of one region, cleared there; that of rings goes to dirty_bits. */
static bool fetch_slot(struct kvm_machine *m, unsigned region, uint64_t *bitmap, size_t pages,
                       struct error **err)
{
    struct kvm_dirty_log log = {.slot = region, .dirty_bitmap = bitmap};
    struct kvm_clear_dirty_log clear = {
        .slot = region, .num_pages = (uint32_t)pages, .first_page = 0, .dirty_bitmap = bitmap};
    if (m->rings)
        return kvm_ring_collect(m, err);
    if (!KVM_TRY(m->fd, KVM_GET_DIRTY_LOG, &log, err))
        return false;
    return !m->manual_protect || KVM_TRY(m->fd, KVM_CLEAR_DIRTY_LOG, &clear, err);
}

void kvm_dirty_fetch(struct engine *e, unsigned region, uint64_t *bitmap, size_t words)
{
    struct kvm_machine *m = kvm_machine_of(e);
    const struct guest_memory *mem = m->config.memory;
    const struct guest_region *r = &mem->region[region];
    uint64_t *bits = atomic_load(&m->dirty);
    size_t have = (region_pages(r) + 63) / 64;
    struct error *err = NULL;
    memset(bitmap, 0, words * sizeof(*bitmap));
    if (!bits || r->flags == REGION_ROM || words < have)
        return;
    if (!fetch_slot(m, region, bitmap, region_pages(r), &err)) {
        memset(bitmap, 0xff, have * sizeof(*bitmap)); /* whoever copies memory must not miss anything */
        kvm_fail(m, err);
        return;
    }
    bits += region_start(mem, region);
    for (size_t i = 0; i < have; i++)
        bitmap[i] |= __atomic_exchange_n(&bits[i], 0, __ATOMIC_RELAXED);
}
