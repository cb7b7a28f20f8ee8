/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reset, and conversion between struct bt_cpu and struct x86_state. */
#include "engine/bt/cpu_state.h"

#include <errno.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/bt/lapic.h"
#include "engine/bt/pvclock.h"
#include "engine/bt/run.h"
#include "engine/bt/vec.h"

/* SDM vol. 3 table 10-1: data segments, LDTR and TR after RESET and INIT. */
static const struct x86_segment reset_data = {.attr = ATTR_P | ATTR_S | 3, .limit = 0xffff};
static const struct x86_segment reset_ldt = {.attr = ATTR_P | 2, .limit = 0xffff};
static const struct x86_segment reset_tss = {.attr = ATTR_P | 11, .limit = 0xffff};

#define RESET_CS_SELECTOR 0xf000
#define RESET_CS_BASE     0xffff0000
#define RESET_RIP         0xfff0
#define RESET_CR0         (CR0_CD | CR0_NW | CR0_ET)
#define RESET_DR6         0xffff0ff0
#define RESET_DR7         0x400
#define RESET_PAT         UINT64_C(0x0007040600070406)
#define RESET_FCW         0x37f
#define RESET_MXCSR       0x1f80

static void reset_vectors(struct bt_cpu *cpu)
{
    memset(cpu->xsave, 0, sizeof(cpu->xsave));
    store_le16(cpu->xsave, RESET_FCW);
    store_le32(cpu->xsave + 24, RESET_MXCSR);
    cpu->xcr0 = 1;
    cpu->vec_live = false;
}

void bt_cpu_reset(struct bt_cpu *cpu, bool init)
{
    bt_vec_save(cpu);
    memset(cpu->gpr, 0, sizeof(cpu->gpr));
    uint32_t identity[4];
    cpuid_model_query(cpu->engine->config.cpu, 1, 0, cpu->index, 0, 1, identity);
    cpu->gpr[R_RDX] = identity[0]; /* family, model, stepping */
    for (unsigned i = 0; i < SEG_COUNT; i++)
        cpu->seg[i] = reset_data;
    cpu->seg[SEG_CS].selector = RESET_CS_SELECTOR;
    cpu->seg[SEG_CS].base = RESET_CS_BASE;
    cpu->seg[SEG_CS].attr |= 8;
    cpu->seg[SEG_LDTR] = reset_ldt;
    cpu->seg[SEG_TR] = reset_tss;
    cpu->gdtr = cpu->idtr = (struct x86_table){.limit = 0xffff};
    cpu->rip = RESET_RIP;
    cpu->status = 0x200;
    cpu->df = 0;
    cpu->sysflags = 0;
    cpu->iflag = 0;
    cpu->cr0 = RESET_CR0;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->efer = 0;
    memset(cpu->dr, 0, sizeof(cpu->dr));
    cpu->dr[6] = RESET_DR6;
    cpu->dr[7] = RESET_DR7;
    cpu->cpl = 0;
    cpu->shadow = cpu->nmi_blocked = cpu->nmi_pending = cpu->shutdown = cpu->failed = false;
    cpu->exc.pending = false;
    cpu->pending_db = 0;
    cpu->interrupt_pending = false;
    cpu->branch_off = BT_NO_BRANCH;
    if (!init) {
        reset_vectors(cpu);
        cpu->pat = RESET_PAT;
        cpu->misc_enable = 1;
        cpu->star = cpu->lstar = cpu->cstar = cpu->sfmask = cpu->kernel_gs_base = 0;
        cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
        cpu->mtrr_def_type = cpu->spec_ctrl = cpu->tsc_aux = cpu->mcg_status = cpu->tsc_adjust = 0;
        cpu->pv_system_time_msr = cpu->pv_wall_clock_msr = cpu->pv_eoi_msr = 0;
        cpu->pv_steal_msr = cpu->pv_async_msr = 0;
        cpu->tsc_offset = 0 - bt_engine_tsc(cpu->engine);
    }
    bt_lapic_reset(cpu->lapic, init);
    cpu->mp_state = cpu->index == 0 ? MP_RUNNING : MP_WAIT_SIPI;
    bt_mode_update(cpu);
    bt_tlb_flush(cpu, true);
}

void bt_cpu_get_state(struct bt_cpu *cpu, struct x86_state *out)
{
    bt_vec_save(cpu);
    memset(out, 0, sizeof(*out));
    memcpy(out->gpr, cpu->gpr, sizeof(out->gpr));
    out->rip = cpu->rip;
    out->rflags = bt_rflags(cpu);
    memcpy(out->seg, cpu->seg, sizeof(out->seg));
    out->gdtr = cpu->gdtr;
    out->idtr = cpu->idtr;
    out->cr0 = cpu->cr0;
    out->cr2 = cpu->cr2;
    out->cr3 = cpu->cr3;
    out->cr4 = cpu->cr4;
    out->cr8 = bt_lapic_cr8(cpu->lapic);
    out->xcr0 = cpu->xcr0;
    out->efer = cpu->efer;
    out->pdpte_valid = x86_state_pae(out);
    if (out->pdpte_valid)
        memcpy(out->pdpte, cpu->pdpte, sizeof(out->pdpte));
    memcpy(out->dr, cpu->dr, sizeof(out->dr));
    out->star = cpu->star;
    out->lstar = cpu->lstar;
    out->cstar = cpu->cstar;
    out->sfmask = cpu->sfmask;
    out->kernel_gs_base = cpu->kernel_gs_base;
    out->sysenter_cs = cpu->sysenter_cs;
    out->sysenter_esp = cpu->sysenter_esp;
    out->sysenter_eip = cpu->sysenter_eip;
    out->pat = cpu->pat;
    out->tsc_aux = cpu->tsc_aux;
    out->misc_enable = cpu->misc_enable;
    out->spec_ctrl = cpu->spec_ctrl;
    out->mtrr_def_type = cpu->mtrr_def_type;
    memcpy(out->mtrr_fixed, cpu->mtrr_fixed, sizeof(out->mtrr_fixed));
    memcpy(out->mtrr_base, cpu->mtrr_base, sizeof(out->mtrr_base));
    memcpy(out->mtrr_mask, cpu->mtrr_mask, sizeof(out->mtrr_mask));
    out->mcg_status = cpu->mcg_status;
    out->tsc_adjust = cpu->tsc_adjust;
    out->tsc = bt_rdtsc(cpu);
    out->clock_ns = cpu->engine->config.host->now(cpu->engine->config.host->opaque);
    out->pv_system_time_msr = cpu->pv_system_time_msr;
    out->pv_wall_clock_msr = cpu->pv_wall_clock_msr;
    out->pv_eoi_msr = cpu->pv_eoi_msr;
    out->pv_steal_msr = cpu->pv_steal_msr;
    out->pv_async_msr = cpu->pv_async_msr;
    bt_lapic_get(cpu->lapic, &out->lapic);
    memcpy(out->xsave, cpu->xsave, sizeof(out->xsave));
    out->mp_state = cpu->mp_state;
    out->sipi_vector = cpu->sipi_vector;
    out->nmi_pending = cpu->nmi_pending || atomic_load(&cpu->nmi_request);
    out->nmi_blocked = cpu->nmi_blocked;
    out->interrupt_shadow = cpu->shadow;
    out->interrupt_pending = cpu->interrupt_pending;
    out->interrupt_vector = cpu->interrupt_vector;
    if (cpu->pending_db) {
        out->exception_pending = true;
        out->exception_vector = VEC_DB;
    }
}

static bool state_valid(const struct bt_cpu *cpu, const struct x86_state *in, struct error **err)
{
    const char *what = NULL;
    if ((in->cr0 & CR0_PG) && !(in->cr0 & CR0_PE))
        what = "CR0.PG without CR0.PE";
    else if ((in->efer & EFER_LMA) && !((in->cr0 & CR0_PG) && (in->cr4 & CR4_PAE) && (in->efer & EFER_LME)))
        what = "EFER.LMA without paging";
    else if (in->xcr0 & ~cpu->engine->config.cpu->xcr0_mask & ~UINT64_C(1))
        what = "XCR0 with features that the CPU model lacks";
    else if (in->mp_state > MP_WAIT_SIPI)
        what = "an unknown activity state";
    if (what)
        error_set(err, EINVAL, "processor state of vCPU %u is not valid: %s", cpu->index, what);
    return !what;
}

/* PAE paging keeps its four top entries in the processor. */
static void load_pdptes(struct bt_cpu *cpu, const struct x86_state *in)
{
    if (!x86_state_pae(in))
        return;
    if (in->pdpte_valid)
        memcpy(cpu->pdpte, in->pdpte, sizeof(cpu->pdpte));
    else
        guest_read(cpu->engine->config.memory, cpu->cr3 & 0xffffffe0, cpu->pdpte, sizeof(cpu->pdpte));
}

bool bt_cpu_set_state(struct bt_cpu *cpu, const struct x86_state *in, struct error **err)
{
    if (!state_valid(cpu, in, err))
        return false;
    bt_vec_save(cpu);
    memcpy(cpu->gpr, in->gpr, sizeof(cpu->gpr));
    cpu->rip = in->rip;
    memcpy(cpu->seg, in->seg, sizeof(cpu->seg));
    cpu->gdtr = in->gdtr;
    cpu->idtr = in->idtr;
    cpu->cr0 = in->cr0;
    cpu->cr2 = in->cr2;
    cpu->cr3 = in->cr3;
    cpu->cr4 = in->cr4;
    cpu->xcr0 = in->xcr0 | 1;
    cpu->efer = in->efer;
    memcpy(cpu->dr, in->dr, sizeof(cpu->dr));
    cpu->star = in->star;
    cpu->lstar = in->lstar;
    cpu->cstar = in->cstar;
    cpu->sfmask = in->sfmask;
    cpu->kernel_gs_base = in->kernel_gs_base;
    cpu->sysenter_cs = in->sysenter_cs;
    cpu->sysenter_esp = in->sysenter_esp;
    cpu->sysenter_eip = in->sysenter_eip;
    cpu->pat = in->pat;
    cpu->tsc_aux = in->tsc_aux;
    cpu->misc_enable = in->misc_enable;
    cpu->spec_ctrl = in->spec_ctrl;
    cpu->mtrr_def_type = in->mtrr_def_type;
    memcpy(cpu->mtrr_fixed, in->mtrr_fixed, sizeof(cpu->mtrr_fixed));
    memcpy(cpu->mtrr_base, in->mtrr_base, sizeof(cpu->mtrr_base));
    memcpy(cpu->mtrr_mask, in->mtrr_mask, sizeof(cpu->mtrr_mask));
    cpu->mcg_status = in->mcg_status;
    cpu->tsc_adjust = in->tsc_adjust;
    cpu->tsc_offset += in->tsc - bt_rdtsc(cpu);
    cpu->pv_system_time_msr = in->pv_system_time_msr;
    cpu->pv_wall_clock_msr = in->pv_wall_clock_msr;
    cpu->pv_eoi_msr = in->pv_eoi_msr;
    cpu->pv_steal_msr = in->pv_steal_msr;
    cpu->pv_async_msr = in->pv_async_msr;
    bt_lapic_set(cpu->lapic, &in->lapic);
    bt_lapic_set_cr8(cpu->lapic, in->cr8);
    memcpy(cpu->xsave, in->xsave, sizeof(cpu->xsave));
    bt_vec_sanitize(cpu);
    cpu->mp_state = in->mp_state;
    cpu->sipi_vector = in->sipi_vector;
    cpu->nmi_pending = in->nmi_pending;
    cpu->nmi_blocked = in->nmi_blocked;
    cpu->shadow = in->interrupt_shadow;
    cpu->interrupt_pending = in->interrupt_pending;
    cpu->interrupt_vector = in->interrupt_vector;
    cpu->pending_db = in->exception_pending && in->exception_vector == VEC_DB ? BIT(14) : 0;
    cpu->cpl = !(in->cr0 & CR0_PE)    ? 0
               : in->rflags & FLAG_VM ? 3
                                      : (uint8_t)((in->seg[SEG_SS].attr & ATTR_DPL) >> ATTR_DPL_SHIFT);
    cpu->exc.pending = cpu->shutdown = cpu->failed = false;
    cpu->event_check = true;
    load_pdptes(cpu, in);
    bt_set_rflags(cpu, in->rflags);
    bt_mode_update(cpu);
    bt_tlb_flush(cpu, true);
    bt_pvclock_publish(cpu);
    return true;
}
