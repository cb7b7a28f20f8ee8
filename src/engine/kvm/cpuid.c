/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CPUID: what this host's KVM offers against what a model has. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"
#include "os/sys.h"

enum { EAX, EBX, ECX, EDX };

struct offer {
    struct kvm_cpuid2 *cpuid;
    bool tsc_deadline;
};

/*
 * Bits that describe rather than enable, so that they hold whatever the kernel says of them: SS; HTT with the
 * number of processors; a hypervisor is there; fast string instructions; x87 pointers that nobody relies on;
 * and topology leaves, which are the model's.
 */
static const struct {
    uint32_t function;
    unsigned reg;
    uint32_t bits;
} harmless[] = {
    {1, EDX, BIT(27) | BIT(28)}, {1, ECX, BIT(31)}, {7, EBX, BIT(6) | BIT(9) | BIT(13)}, {7, EDX, BIT(4)},
    {0x80000001, ECX, BIT(22)},
};

static uint32_t reg_of(const struct kvm_cpuid_entry2 *e, unsigned reg)
{
    return reg == EAX ? e->eax : reg == EBX ? e->ebx : reg == ECX ? e->ecx : e->edx;
}

static uint32_t offered(void *opaque, uint32_t function, uint32_t index, unsigned reg)
{
    const struct offer *o = opaque;
    uint32_t bits = 0;
    for (unsigned i = 0; i < o->cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &o->cpuid->entries[i];
        if (e->function == function && (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index))
            bits |= reg_of(e, reg);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(harmless); i++)
        if (harmless[i].function == function && harmless[i].reg == reg && index == 0)
            bits |= harmless[i].bits;
    if (function == 1 && reg == ECX && o->tsc_deadline)
        bits |= (uint32_t)BIT(24);
    return bits;
}

static bool read_offer(int device_fd, struct offer *o, struct error **err)
{
    o->cpuid = calloc(1, sizeof(*o->cpuid) + KVM_CPUID_MAX * sizeof(o->cpuid->entries[0]));
    if (!o->cpuid) {
        error_set_errno(err, ENOMEM, "cannot read what KVM offers");
        return false;
    }
    o->cpuid->nent = KVM_CPUID_MAX;
    o->tsc_deadline = kvm_ioctl(device_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    if (KVM_TRY(device_fd, KVM_GET_SUPPORTED_CPUID, o->cpuid, err))
        return true;
    free(o->cpuid);
    return false;
}

bool kvm_cpu_fit(struct cpuid_model *model, struct error **err)
{
    struct offer o;
    int fd = kvm_open_device(err);
    if (fd < 0)
        return false;
    bool ok = read_offer(fd, &o, err);
    sys.close(fd);
    if (!ok)
        return false;
    ok = cpuid_model_limit(model, offered, &o, err);
    free(o.cpuid);
    return ok;
}

bool kvm_cpuid_check(int device_fd, const struct cpuid_model *model, struct error **err)
{
    struct offer o;
    if (!read_offer(device_fd, &o, err))
        return false;
    bool ok = cpuid_model_within(model, offered, &o, err);
    free(o.cpuid);
    return ok;
}

static void add(struct kvm_cpuid2 *table, const struct kvm_cpu *cpu, uint32_t function, uint32_t index,
                bool indexed)
{
    uint32_t r[4];
    cpuid_model_query(cpu->machine->config.cpu, function, index, cpu->index, 0, 1, r);
    table->entries[table->nent++] =
        (struct kvm_cpuid_entry2){.function = function,
                                  .index = index,
                                  .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
                                  .eax = r[EAX],
                                  .ebx = r[EBX],
                                  .ecx = r[ECX],
                                  .edx = r[EDX]};
}

bool kvm_cpuid_set(struct kvm_cpu *cpu, struct error **err)
{
    const struct cpuid_model *model = cpu->machine->config.cpu;
    cleanup(mem) struct kvm_cpuid2 *table =
        calloc(1, sizeof(*table) + KVM_CPUID_MAX * sizeof(table->entries[0]));
    if (!table) {
        error_set_errno(err, ENOMEM, "cannot set CPUID");
        return false;
    }
    _Static_assert(CPUID_LEAF_MAX + 3 <= KVM_CPUID_MAX, "the table holds a model and its topology");
    for (unsigned i = 0; i < model->count; i++)
        add(table, cpu, model->leaf[i].function, model->leaf[i].index, model->leaf[i].indexed);
    for (unsigned level = 0; level < 3; level++) /* topology: made by the query */
        add(table, cpu, 0xb, level, true);
    if (!KVM_TRY(cpu->fd, KVM_SET_CPUID2, table, err))
        return false;
    /* Paravirtual registers that CPUID does not show raise #GP. Older kernels have them all. */
    struct kvm_enable_cap enforce = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = {1}};
    kvm_ioctl(cpu->fd, KVM_ENABLE_CAP, (uintptr_t)&enforce);
    return true;
}
