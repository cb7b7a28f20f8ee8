/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dirty log as rings, one a processor, where the kernel offers them: what is collected costs as much as
 * was written, not as much as there is memory. Entries are taken out of the rings into machine->dirty_bits,
 * and the kernel is told at once, which protects those pages anew: what is written between the two is seen by
 * whoever copies the page afterwards.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"
#include "os/sys.h"

#define RING_ENTRIES 2048u
#define RING_BYTES   (RING_ENTRIES * sizeof(struct kvm_dirty_gfn))
#define RING_OFFSET  (KVM_DIRTY_LOG_PAGE_OFFSET * GUEST_PAGE_SIZE)

void kvm_ring_init(struct kvm_machine *m)
{
    struct kvm_enable_cap ring = {.cap = KVM_CAP_DIRTY_LOG_RING, .args = {RING_BYTES}};
    int most = kvm_ioctl(m->fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING);
    m->rings = most >= (int)RING_BYTES && kvm_ioctl(m->fd, KVM_ENABLE_CAP, (uintptr_t)&ring) >= 0;
}

bool kvm_ring_map(struct kvm_cpu *cpu, struct error **err)
{
    if (!cpu->machine->rings)
        return true;
    void *ring = sys.mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, RING_OFFSET);
    if (ring == MAP_FAILED) {
        error_set_errno(err, errno, "cannot map a processor's dirty ring");
        return false;
    }
    cpu->ring = ring;
    return true;
}

void kvm_ring_unmap(struct kvm_cpu *cpu)
{
    if (cpu->ring)
        sys.munmap(cpu->ring, RING_BYTES);
}

/* The number of entries taken. */
static unsigned collect(struct kvm_cpu *cpu)
{
    unsigned n = 0;
    for (;; n++) {
        struct kvm_dirty_gfn *e = &cpu->ring[cpu->ring_next % RING_ENTRIES];
        if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
            return n;
        kvm_dirty_mark(cpu->machine, e->slot, e->offset);
        __atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
        cpu->ring_next++;
    }
}

bool kvm_ring_collect(struct kvm_machine *m, struct error **err)
{
    unsigned n = 0;
    pthread_mutex_lock(&m->ring_lock);
    for (unsigned i = 0; i < m->config.cpu_count; i++)
        if (m->cpu[i])
            n += collect(m->cpu[i]);
    bool ok = !n || KVM_TRY(m->fd, KVM_RESET_DIRTY_RINGS, 0, err);
    pthread_mutex_unlock(&m->ring_lock);
    return ok;
}
