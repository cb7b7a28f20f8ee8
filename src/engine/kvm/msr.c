/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The model-specific registers that belong to a processor's state; and single ones. */
#include <errno.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"

struct state_msr {
    uint32_t msr;
    size_t offset; /* in struct x86_state */
    uint64_t rest; /* its value after reset: what a kernel without this register is assumed to have */
};

#define FIELD(msr, field, rest)                                                                              \
    {                                                                                                        \
        msr, offsetof(struct x86_state, field), rest                                                         \
    }
#define VARIABLE_RANGE(n) FIELD(0x200 + 2 * (n), mtrr_base[n], 0), FIELD(0x201 + 2 * (n), mtrr_mask[n], 0)

/* TSC, TSC_DEADLINE and EFER have ways of their own. */
static const struct state_msr table[] = {
    FIELD(0xc0000081, star, 0),
    FIELD(0xc0000082, lstar, 0),
    FIELD(0xc0000083, cstar, 0),
    FIELD(0xc0000084, sfmask, 0),
    FIELD(0xc0000102, kernel_gs_base, 0),
    FIELD(0xc0000103, tsc_aux, 0),
    FIELD(0x174, sysenter_cs, 0),
    FIELD(0x175, sysenter_esp, 0),
    FIELD(0x176, sysenter_eip, 0),
    FIELD(0x277, pat, UINT64_C(0x0007040600070406)),
    FIELD(0x1a0, misc_enable, 1),
    FIELD(0x48, spec_ctrl, 0),
    FIELD(0x17a, mcg_status, 0),
    FIELD(0x3b, tsc_adjust, 0),
    FIELD(0x2ff, mtrr_def_type, 0),
    FIELD(0x250, mtrr_fixed[0], 0),
    FIELD(0x258, mtrr_fixed[1], 0),
    FIELD(0x259, mtrr_fixed[2], 0),
    FIELD(0x268, mtrr_fixed[3], 0),
    FIELD(0x269, mtrr_fixed[4], 0),
    FIELD(0x26a, mtrr_fixed[5], 0),
    FIELD(0x26b, mtrr_fixed[6], 0),
    FIELD(0x26c, mtrr_fixed[7], 0),
    FIELD(0x26d, mtrr_fixed[8], 0),
    FIELD(0x26e, mtrr_fixed[9], 0),
    FIELD(0x26f, mtrr_fixed[10], 0),
    VARIABLE_RANGE(0),
    VARIABLE_RANGE(1),
    VARIABLE_RANGE(2),
    VARIABLE_RANGE(3),
    VARIABLE_RANGE(4),
    VARIABLE_RANGE(5),
    VARIABLE_RANGE(6),
    VARIABLE_RANGE(7),
    /* The paravirtual ones: writing the clock's makes the kernel fill the guest's pages. */
    FIELD(0x4b564d00, pv_wall_clock_msr, 0),
    FIELD(0x4b564d01, pv_system_time_msr, 0),
    FIELD(0x4b564d04, pv_eoi_msr, 0),
    FIELD(0x4b564d03, pv_steal_msr, 0),
    FIELD(0x4b564d02, pv_async_msr, 0),
};
_Static_assert(ARRAY_SIZE(table) <= KVM_STATE_MSRS, "struct kvm_cpu has no room for them");

/* As struct kvm_msrs, with room. */
struct msr_list {
    uint32_t nmsrs, pad;
    struct kvm_msr_entry entry[ARRAY_SIZE(table)];
};
_Static_assert(offsetof(struct msr_list, entry) == offsetof(struct kvm_msrs, entries), "the kernel's layout");

static uint64_t *field(struct x86_state *s, unsigned i)
{
    return (uint64_t *)(void *)((char *)s + table[i].offset);
}

static bool transfer(struct kvm_cpu *cpu, unsigned long request, struct msr_list *list, struct error **err)
{
    int done = kvm_ioctl(cpu->fd, request, (uintptr_t)list);
    const char *name = request == KVM_GET_MSRS ? "KVM_GET_MSRS" : "KVM_SET_MSRS";
    if (done < 0)
        error_set_errno(err, errno, "KVM refuses %s", name);
    else if ((unsigned)done < list->nmsrs)
        error_set(err, EINVAL, "KVM refuses %s of MSR 0x%x, value 0x%llx", name, list->entry[done].index,
                  (unsigned long long)list->entry[done].data);
    return done >= 0 && (unsigned)done == list->nmsrs;
}

bool kvm_msr_read(struct kvm_cpu *cpu, uint32_t msr, uint64_t *value, struct error **err)
{
    struct msr_list list = {.nmsrs = 1, .entry = {{.index = msr}}};
    if (!transfer(cpu, KVM_GET_MSRS, &list, err))
        return false;
    *value = list.entry[0].data;
    return true;
}

bool kvm_msr_write(struct kvm_cpu *cpu, uint32_t msr, uint64_t value, struct error **err)
{
    struct msr_list list = {.nmsrs = 1, .entry = {{.index = msr, .data = value}}};
    return transfer(cpu, KVM_SET_MSRS, &list, err);
}

void kvm_msr_probe(struct kvm_cpu *cpu)
{
    uint64_t value;
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        cpu->msr_known[i] = kvm_msr_read(cpu, table[i].msr, &value, NULL);
}

bool kvm_msr_get(struct kvm_cpu *cpu, struct x86_state *out, struct error **err)
{
    struct msr_list list = {0};
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        *field(out, i) = table[i].rest;
        if (cpu->msr_known[i])
            list.entry[list.nmsrs++].index = table[i].msr;
    }
    if (!transfer(cpu, KVM_GET_MSRS, &list, err))
        return false;
    for (unsigned i = 0, k = 0; i < ARRAY_SIZE(table); i++)
        if (cpu->msr_known[i])
            *field(out, i) = list.entry[k++].data;
    return true;
}

bool kvm_msr_set(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err)
{
    struct msr_list list = {0};
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        uint64_t value;
        memcpy(&value, (const char *)in + table[i].offset, sizeof(value));
        if (cpu->msr_known[i]) {
            list.entry[list.nmsrs++] = (struct kvm_msr_entry){.index = table[i].msr, .data = value};
        } else if (value != table[i].rest) {
            error_set(err, EINVAL, "this KVM has no MSR 0x%x, which the state uses", table[i].msr);
            return false;
        }
    }
    return transfer(cpu, KVM_SET_MSRS, &list, err);
}
