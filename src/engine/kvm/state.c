/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A processor's state between the kernel's many structures and struct x86_state. */
#include <errno.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"

#define XSAVE_HEADER 512
#define MSI_INIT     0x4500u /* delivery mode INIT, asserted */
#define MSI_SIPI     0x4600u

_Static_assert(sizeof(struct kvm_xsave) == X86_XSAVE_MAX, "both are the processor's standard format");

static void segment_out(struct x86_segment *to, const struct kvm_segment *s)
{
    to->selector = s->selector;
    to->base = s->base;
    to->limit = s->limit;
    to->attr = (s->type & ATTR_TYPE) | (s->s ? ATTR_S : 0) | (uint32_t)(s->dpl & 3) << ATTR_DPL_SHIFT |
               (s->present ? ATTR_P : 0) | (s->avl ? ATTR_AVL : 0) | (s->l ? ATTR_L : 0) |
               (s->db ? ATTR_DB : 0) | (s->g ? ATTR_G : 0) | (s->unusable ? ATTR_UNUSABLE : 0);
}

static void segment_in(struct kvm_segment *to, const struct x86_segment *s)
{
    *to = (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .type = s->attr & ATTR_TYPE,
        .present = !!(s->attr & ATTR_P) && !(s->attr & ATTR_UNUSABLE),
        .dpl = (s->attr & ATTR_DPL) >> ATTR_DPL_SHIFT,
        .db = !!(s->attr & ATTR_DB),
        .s = !!(s->attr & ATTR_S),
        .l = !!(s->attr & ATTR_L),
        .g = !!(s->attr & ATTR_G),
        .avl = !!(s->attr & ATTR_AVL),
        .unusable = !!(s->attr & ATTR_UNUSABLE),
    };
}

/* The kernel's struct in the order of enum x86_seg. */
static struct kvm_segment *segment_at(struct kvm_sregs2 *s, unsigned i)
{
    struct kvm_segment *const all[SEG_COUNT] = {
        [SEG_ES] = &s->es, [SEG_CS] = &s->cs, [SEG_SS] = &s->ss,    [SEG_DS] = &s->ds,
        [SEG_FS] = &s->fs, [SEG_GS] = &s->gs, [SEG_LDTR] = &s->ldt, [SEG_TR] = &s->tr,
    };
    return all[i];
}

/* ---- general and system registers ---- */

static void regs_out(struct x86_state *out, const struct kvm_regs *r)
{
    const uint64_t gpr[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                              r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};
    memcpy(out->gpr, gpr, sizeof(gpr));
    out->rip = r->rip;
    out->rflags = r->rflags;
}

static bool regs_in(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err)
{
    const uint64_t *g = in->gpr;
    struct kvm_regs r = {.rax = g[R_RAX],
                         .rcx = g[R_RCX],
                         .rdx = g[R_RDX],
                         .rbx = g[R_RBX],
                         .rsp = g[R_RSP],
                         .rbp = g[R_RBP],
                         .rsi = g[R_RSI],
                         .rdi = g[R_RDI],
                         .r8 = g[R_R8],
                         .r9 = g[R_R9],
                         .r10 = g[R_R10],
                         .r11 = g[R_R11],
                         .r12 = g[R_R12],
                         .r13 = g[R_R13],
                         .r14 = g[R_R14],
                         .r15 = g[R_R15],
                         .rip = in->rip,
                         .rflags = in->rflags};
    return KVM_TRY(cpu->fd, KVM_SET_REGS, &r, err);
}

/* struct kvm_sregs is what older kernels have: the same without PAE paging's top entries. */
#define SREGS_COMMON offsetof(struct kvm_sregs2, flags)
_Static_assert(offsetof(struct kvm_sregs, interrupt_bitmap) == SREGS_COMMON, "the same up to there");

static bool sregs_read(struct kvm_cpu *cpu, struct kvm_sregs2 *s, struct error **err)
{
    struct kvm_sregs old;
    if (cpu->machine->sregs2)
        return KVM_TRY(cpu->fd, KVM_GET_SREGS2, s, err);
    if (!KVM_TRY(cpu->fd, KVM_GET_SREGS, &old, err))
        return false;
    *s = (struct kvm_sregs2){0};
    memcpy(s, &old, SREGS_COMMON);
    return true;
}

static bool sregs_write(struct kvm_cpu *cpu, const struct kvm_sregs2 *s, struct error **err)
{
    struct kvm_sregs old = {0};
    if (cpu->machine->sregs2)
        return KVM_TRY(cpu->fd, KVM_SET_SREGS2, s, err);
    memcpy(&old, s, SREGS_COMMON);
    return KVM_TRY(cpu->fd, KVM_SET_SREGS, &old, err);
}

static void sregs_out(struct x86_state *out, struct kvm_sregs2 *s)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        segment_out(&out->seg[i], segment_at(s, i));
    out->gdtr = (struct x86_table){.base = s->gdt.base, .limit = s->gdt.limit};
    out->idtr = (struct x86_table){.base = s->idt.base, .limit = s->idt.limit};
    out->cr0 = s->cr0;
    out->cr2 = s->cr2;
    out->cr3 = s->cr3;
    out->cr4 = s->cr4;
    out->cr8 = s->cr8;
    out->efer = s->efer;
    out->lapic.base = s->apic_base;
    out->pdpte_valid = s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
    for (unsigned i = 0; i < X86_PDPTES; i++)
        out->pdpte[i] = out->pdpte_valid ? s->pdptrs[i] : 0;
}

static bool sregs_in(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err)
{
    struct kvm_sregs2 s = {
        .gdt = {.base = in->gdtr.base, .limit = in->gdtr.limit},
        .idt = {.base = in->idtr.base, .limit = in->idtr.limit},
        .cr0 = in->cr0,
        .cr2 = in->cr2,
        .cr3 = in->cr3,
        .cr4 = in->cr4,
        .cr8 = in->cr8,
        .efer = in->efer,
        .apic_base = in->lapic.base,
    };
    for (unsigned i = 0; i < SEG_COUNT; i++)
        segment_in(segment_at(&s, i), &in->seg[i]);
    if (in->pdpte_valid && x86_state_pae(in)) {
        s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        for (unsigned i = 0; i < X86_PDPTES; i++)
            s.pdptrs[i] = in->pdpte[i];
    }
    return sregs_write(cpu, &s, err);
}

/* ---- vectors and debug registers ---- */

static bool xsave_out(struct kvm_cpu *cpu, struct x86_state *out, struct error **err)
{
    struct kvm_xcrs xcrs = {0};
    struct kvm_xsave area;
    if (!KVM_TRY(cpu->fd, KVM_GET_XSAVE, &area, err) || !KVM_TRY(cpu->fd, KVM_GET_XCRS, &xcrs, err))
        return false;
    memcpy(out->xsave, &area, sizeof(out->xsave));
    out->xcr0 = 1;
    for (unsigned i = 0; i < xcrs.nr_xcrs; i++)
        if (xcrs.xcrs[i].xcr == 0)
            out->xcr0 = xcrs.xcrs[i].value;
    return true;
}

static bool xsave_in(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err)
{
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = in->xcr0 | 1}}};
    struct kvm_xsave area;
    memcpy(&area, in->xsave, sizeof(area));
    if (cpu->machine->config.cpu->xcr0_mask > 1 && !KVM_TRY(cpu->fd, KVM_SET_XCRS, &xcrs, err))
        return false;
    return KVM_TRY(cpu->fd, KVM_SET_XSAVE, &area, err);
}

static bool debug_out(struct kvm_cpu *cpu, struct x86_state *out, struct error **err)
{
    struct kvm_debugregs d;
    if (!KVM_TRY(cpu->fd, KVM_GET_DEBUGREGS, &d, err))
        return false;
    memcpy(out->dr, d.db, sizeof(d.db));
    out->dr[6] = d.dr6;
    out->dr[7] = d.dr7;
    return true;
}

static bool debug_in(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err)
{
    struct kvm_debugregs d = {.dr6 = in->dr[6], .dr7 = in->dr[7]};
    memcpy(d.db, in->dr, sizeof(d.db));
    return KVM_TRY(cpu->fd, KVM_SET_DEBUGREGS, &d, err);
}

/* ---- activity and events ---- */

/* The kernel takes a pending INIT or SIPI into account here, so this comes before the registers are read. */
static bool mp_out(struct kvm_cpu *cpu, struct x86_state *out, struct error **err)
{
    struct kvm_mp_state mp;
    if (!KVM_TRY(cpu->fd, KVM_GET_MP_STATE, &mp, err))
        return false;
    out->mp_state = mp.mp_state == KVM_MP_STATE_RUNNABLE ? MP_RUNNING
                    : mp.mp_state == KVM_MP_STATE_HALTED ? MP_HALTED
                                                         : MP_WAIT_SIPI;
    return true;
}

static bool mp_in(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err)
{
    static const uint32_t states[] = {[MP_RUNNING] = KVM_MP_STATE_RUNNABLE,
                                      [MP_HALTED] = KVM_MP_STATE_HALTED,
                                      [MP_WAIT_SIPI] = KVM_MP_STATE_INIT_RECEIVED};
    struct kvm_mp_state mp = {.mp_state = states[in->mp_state]};
    return KVM_TRY(cpu->fd, KVM_SET_MP_STATE, &mp, err);
}

/*
 * An interrupt that the kernel has begun to deliver goes back to where it came from: the local APIC has it in
 * service, and its request can be put back as nothing has happened since. One of the PIC's is carried as it
 * is.
 */
static void take_back_interrupt(struct x86_state *out, unsigned vector)
{
    uint32_t bit = 1u << vector % 32;
    if (out->lapic.isr[vector / 32] & bit) {
        out->lapic.isr[vector / 32] &= ~bit;
        out->lapic.irr[vector / 32] |= bit;
    } else {
        out->interrupt_pending = true;
        out->interrupt_vector = (uint8_t)vector;
    }
}

static bool events_out(struct kvm_cpu *cpu, struct x86_state *out, struct error **err)
{
    struct kvm_vcpu_events e;
    if (!KVM_TRY(cpu->fd, KVM_GET_VCPU_EVENTS, &e, err))
        return false;
    out->nmi_pending = e.nmi.pending || e.nmi.injected || atomic_load(&cpu->nmi);
    out->nmi_blocked = e.nmi.masked;
    out->interrupt_shadow = e.interrupt.shadow;
    out->exception_pending = e.exception.injected;
    if (e.exception.injected) {
        out->exception_vector = e.exception.nr;
        out->exception_has_error = e.exception.has_error_code;
        out->exception_error = e.exception.error_code;
    }
    if (e.interrupt.injected)
        take_back_interrupt(out, e.interrupt.nr);
    return true;
}

static bool events_in(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err)
{
    struct kvm_vcpu_events e = {
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        .nmi = {.pending = in->nmi_pending, .masked = in->nmi_blocked},
        .interrupt = {.shadow = in->interrupt_shadow ? KVM_X86_SHADOW_INT_STI : 0},
    };
    if (in->exception_pending) {
        e.exception.injected = 1;
        e.exception.nr = in->exception_vector;
        e.exception.has_error_code = in->exception_has_error;
        e.exception.error_code = in->exception_error;
    }
    if (in->interrupt_pending) {
        e.interrupt.injected = 1;
        e.interrupt.nr = in->interrupt_vector;
    }
    if (!KVM_TRY(cpu->fd, KVM_SET_VCPU_EVENTS, &e, err))
        return false;
    if (in->init_pending && !kvm_signal(cpu->machine, cpu->index, MSI_INIT, err))
        return false;
    return !in->sipi_pending || kvm_signal(cpu->machine, cpu->index, MSI_SIPI | in->sipi_vector, err);
}

/* ---- the whole ---- */

bool kvm_state_get(struct kvm_cpu *cpu, struct x86_state *out, struct error **err)
{
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    memset(out, 0, sizeof(*out));
    if (!mp_out(cpu, out, err) || !KVM_TRY(cpu->fd, KVM_GET_REGS, &regs, err) ||
        !sregs_read(cpu, &sregs, err))
        return false;
    regs_out(out, &regs);
    sregs_out(out, &sregs);
    if (!kvm_msr_get(cpu, out, err) || !xsave_out(cpu, out, err) || !debug_out(cpu, out, err) ||
        !kvm_lapic_get(cpu, &out->lapic, err) || !events_out(cpu, out, err) ||
        !kvm_tsc_get(cpu, &out->tsc, err))
        return false;
    out->clock_ns = kvm_machine_ns(cpu->machine);
    return true;
}

/* What the kernel would not notice, or would notice only after half of the state was set. */
static bool valid(const struct kvm_cpu *cpu, const struct x86_state *in, struct error **err)
{
    const char *what = NULL;
    if ((in->cr0 & CR0_PG) && !(in->cr0 & CR0_PE))
        what = "CR0.PG without CR0.PE";
    else if ((in->efer & EFER_LMA) && !((in->cr0 & CR0_PG) && (in->cr4 & CR4_PAE) && (in->efer & EFER_LME)))
        what = "EFER.LMA without paging";
    else if (in->xcr0 & ~cpu->machine->config.cpu->xcr0_mask & ~UINT64_C(1))
        what = "XCR0 with features that the CPU model lacks";
    else if (in->mp_state > MP_WAIT_SIPI)
        what = "an unknown activity state";
    if (what)
        error_set(err, EINVAL, "processor state of vCPU %u is not valid: %s", cpu->index, what);
    return !what;
}

/* The kernel wants these in this order: a SIPI must find the state set, registers checked against CR4 and
 * EFER. */
static bool set_all(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err)
{
    if (!mp_in(cpu, in, err) || !sregs_in(cpu, in, err) || !xsave_in(cpu, in, err) ||
        !kvm_tsc_set(cpu, in->tsc, err) || !kvm_msr_set(cpu, in, err))
        return false;
    pthread_mutex_lock(&cpu->machine->lock);
    bool ok = kvm_lines_hold(cpu->machine, err) && kvm_lapic_set(cpu, &in->lapic, in->clock_ns, err) &&
              kvm_lines_release(cpu->machine, err);
    pthread_mutex_unlock(&cpu->machine->lock);
    return ok && debug_in(cpu, in, err) && regs_in(cpu, in, err) && events_in(cpu, in, err);
}

bool kvm_state_set(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err)
{
    if (!valid(cpu, in, err))
        return false;
    atomic_store(&cpu->nmi, false);
    cpu->completing = false;
    cpu->run->ready_for_interrupt_injection = 0;
    return set_all(cpu, in, err);
}
