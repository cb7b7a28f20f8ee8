/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The neutral architectural state of one x86-64 processor: what every engine reads and writes, what is saved
 * and migrated. Names follow the Intel SDM. Plain data; layout is not an interface (saving goes through a
 * state_desc).
 */
#ifndef X86_STATE_H
#define X86_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

enum x86_reg {
    R_RAX,
    R_RCX,
    R_RDX,
    R_RBX,
    R_RSP,
    R_RBP,
    R_RSI,
    R_RDI,
    R_R8,
    R_R9,
    R_R10,
    R_R11,
    R_R12,
    R_R13,
    R_R14,
    R_R15
};
enum x86_seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/* Segment attributes as in the second dword of a descriptor (SDM vol. 3 figure 3-8), shifted right by 8. */
enum x86_seg_attr {
    ATTR_TYPE = 0xf,
    ATTR_S = 1 << 4,
    ATTR_DPL = 3 << 5,
    ATTR_P = 1 << 7,
    ATTR_AVL = 1 << 12,
    ATTR_L = 1 << 13,
    ATTR_DB = 1 << 14,
    ATTR_G = 1 << 15,
    ATTR_UNUSABLE = 1 << 16, /* a null selector was loaded */
};
#define ATTR_DPL_SHIFT 5

struct x86_segment {
    uint16_t selector;
    uint32_t attr;
    uint32_t limit; /* in bytes, inclusive, granularity applied */
    uint64_t base;
};

struct x86_table {
    uint64_t base;
    uint16_t limit;
};

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR4_VME        BIT(0)
#define CR4_PVI        BIT(1)
#define CR4_TSD        BIT(2)
#define CR4_DE         BIT(3)
#define CR4_PSE        BIT(4)
#define CR4_PAE        BIT(5)
#define CR4_MCE        BIT(6)
#define CR4_PGE        BIT(7)
#define CR4_PCE        BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)

#define EFER_SCE   BIT(0)
#define EFER_LME   BIT(8)
#define EFER_LMA   BIT(10)
#define EFER_NXE   BIT(11)
#define EFER_FFXSR BIT(14)

#define FLAG_CF      BIT(0)
#define FLAG_PF      BIT(2)
#define FLAG_AF      BIT(4)
#define FLAG_ZF      BIT(6)
#define FLAG_SF      BIT(7)
#define FLAG_TF      BIT(8)
#define FLAG_IF      BIT(9)
#define FLAG_DF      BIT(10)
#define FLAG_OF      BIT(11)
#define FLAG_IOPL    (BIT(12) | BIT(13))
#define FLAG_NT      BIT(14)
#define FLAG_RF      BIT(16)
#define FLAG_VM      BIT(17)
#define FLAG_AC      BIT(18)
#define FLAG_VIF     BIT(19)
#define FLAG_VIP     BIT(20)
#define FLAG_ID      BIT(21)
#define FLAGS_STATUS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

enum x86_vector {
    VEC_DE = 0,
    VEC_DB = 1,
    VEC_NMI = 2,
    VEC_BP = 3,
    VEC_OF = 4,
    VEC_BR = 5,
    VEC_UD = 6,
    VEC_NM = 7,
    VEC_DF = 8,
    VEC_TS = 10,
    VEC_NP = 11,
    VEC_SS = 12,
    VEC_GP = 13,
    VEC_PF = 14,
    VEC_MF = 16,
    VEC_AC = 17,
    VEC_MC = 18,
    VEC_XM = 19,
};

/* Local APIC registers (SDM vol. 3 table 11-1), the same for xAPIC and x2APIC. */
struct x86_lapic {
    uint64_t base; /* IA32_APIC_BASE */
    uint32_t id;   /* initial APIC id */
    uint32_t tpr, ldr, dfr, svr, esr;
    uint32_t isr[8], tmr[8], irr[8];
    uint32_t icr_low, icr_high;
    uint32_t lvt_cmci, lvt_timer, lvt_thermal, lvt_pmc, lvt_lint0, lvt_lint1, lvt_error;
    uint32_t timer_initial, timer_divide;
    uint64_t timer_start_ns; /* machine time when the count began; 0: not running */
    uint64_t tsc_deadline;   /* IA32_TSC_DEADLINE, guest TSC; 0: disarmed */
};

enum x86_mp_state { MP_RUNNING, MP_HALTED, MP_WAIT_SIPI };

#define X86_XSAVE_MAX 4096u
#define X86_VAR_MTRRS 8

#define X86_PDPTES 4

struct x86_state {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    struct x86_segment seg[SEG_COUNT];
    struct x86_table gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8, xcr0, efer;
    /* PAE paging: the four top entries as they were loaded with CR3, whatever memory has there by now (SDM
     * vol. 3 section 4.4.1). Not valid: those in memory count. */
    bool pdpte_valid;
    uint64_t pdpte[X86_PDPTES];
    uint64_t dr[8]; /* 4 and 5 unused */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, misc_enable, spec_ctrl, mtrr_def_type;
    uint64_t mtrr_fixed[11], mtrr_base[X86_VAR_MTRRS], mtrr_mask[X86_VAR_MTRRS];
    uint64_t mcg_status, tsc_adjust;
    uint64_t tsc; /* guest TSC at machine time clock_ns */
    uint64_t clock_ns;
    uint64_t pv_system_time_msr, pv_wall_clock_msr, pv_eoi_msr, pv_steal_msr, pv_async_msr;
    struct x86_lapic lapic;
    /* XSAVE area in standard (non-compacted) format for the features in xcr0 | x87 | SSE; offsets by CPUID
     * leaf 0xD. */
    uint8_t xsave[X86_XSAVE_MAX] __attribute__((aligned(64)));
    enum x86_mp_state mp_state;
    uint8_t sipi_vector;
    /* Pending events. */
    bool nmi_pending, nmi_blocked, smi_pending, init_pending, sipi_pending;
    bool interrupt_shadow; /* after STI or MOV SS */
    bool exception_pending;
    uint8_t exception_vector;
    bool exception_has_error;
    uint32_t exception_error;
    /* An interrupt of the PIC that was acknowledged and is the next thing to be delivered. */
    bool interrupt_pending;
    uint8_t interrupt_vector;
};

/* Paging in the form with three levels? */
static inline bool x86_state_pae(const struct x86_state *s)
{
    return (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA);
}

#endif
