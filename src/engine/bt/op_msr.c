/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RDMSR and WRMSR (SDM vol. 4, APM vol. 2 appendix A): what Linux, the BSDs and firmware use. Registers that
 * a processor of the model would not have raise #GP. gpr-only.
 */
#include "base/util.h"
#include "engine/bt/lapic.h"
#include "engine/bt/ops.h"
#include "engine/bt/pvclock.h"
#include "engine/bt/seg.h"

enum msr {
    MSR_TSC = 0x10,
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_UCODE_REV = 0x8b,
    MSR_PLATFORM_INFO = 0xce,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_MTRR_PHYS = 0x200,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K = 0x258,
    MSR_MTRR_FIX4K = 0x268,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
    MSR_EFER = 0xc0000080,
    MSR_FS_BASE = 0xc0000100,
    MSR_GS_BASE = 0xc0000101,
};

/* Features that decide whether a register exists. */
#define FEATURE_SPEC_CTRL_INTEL X86_FEATURE(7, 3, 26)
#define FEATURE_ARCH_CAP        X86_FEATURE(7, 3, 29)
#define FEATURE_IBPB_AMD        X86_FEATURE(0x80000008, 1, 12)
#define FEATURE_IBRS_AMD        X86_FEATURE(0x80000008, 1, 14)
#define FEATURE_AUTO_IBRS       X86_FEATURE(0x80000021, 0, 8)
#define FEATURE_TOPOEXT         X86_FEATURE(0x80000001, 2, 22)

#define EFER_AUTO_IBRS BIT(21)

/*
 * What an Intel model is not affected by: RDCL, IBRS_ALL, L1D flush not needed, SSB, MDS, page size change
 * machine checks, TAA, SBDR/FBSDP/PSDP, BHI, PBRSB, GDS, RFDS, ITS.
 */
#define ARCH_CAPABILITIES                                                                                    \
    (BIT(0) | BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | BIT(15) | BIT(20) |  \
     BIT(24) | BIT(26) | BIT(27) | BIT(62))

/* Microcode revisions recent enough that no guest looks for a better one. */
#define UCODE_REV_AMD   UINT64_C(0x0b0021ff)
#define UCODE_REV_INTEL UINT64_C(0x2b0006ff00000000)

enum plain_kind {
    KEEP,           /* any value is kept */
    KEEP_32,        /* upper half must be zero */
    KEEP_CANONICAL, /* #GP for other addresses */
    FIXED,          /* reads as `value`, writes are ignored */
    READ_ONLY,      /* reads as `value`, writes are #GP */
    AMD_FIXED,      /* FIXED on AMD models, #GP on others */
};

struct plain_msr {
    uint32_t first, last;
    enum plain_kind kind;
    size_t offset; /* in struct bt_cpu */
    uint64_t value;
};

#define FIELD(name) offsetof(struct bt_cpu, name)

static const struct plain_msr plain[] = {
    {0xc0000081, 0xc0000081, KEEP, FIELD(star), 0},
    {0xc0000082, 0xc0000082, KEEP_CANONICAL, FIELD(lstar), 0},
    {0xc0000083, 0xc0000083, KEEP_CANONICAL, FIELD(cstar), 0},
    {0xc0000084, 0xc0000084, KEEP_32, FIELD(sfmask), 0},
    {0xc0000102, 0xc0000102, KEEP_CANONICAL, FIELD(kernel_gs_base), 0},
    {0xc0000103, 0xc0000103, KEEP_32, FIELD(tsc_aux), 0},
    {0x174, 0x174, KEEP_32, FIELD(sysenter_cs), 0},
    {0x175, 0x175, KEEP_CANONICAL, FIELD(sysenter_esp), 0},
    {0x176, 0x176, KEEP_CANONICAL, FIELD(sysenter_eip), 0},
    {0x1a0, 0x1a0, KEEP, FIELD(misc_enable), 0},
    {0x17a, 0x17a, KEEP, FIELD(mcg_status), 0},
    {0x00, 0x01, FIXED, 0, 0}, /* P5 machine check */
    {0x17, 0x17, FIXED, 0, 0}, /* platform id */
    {0x2a, 0x2a, FIXED, 0, 0}, /* power-on configuration */
    {0x3a, 0x3a, FIXED, 0, 1}, /* feature control: locked, nothing enabled */
    {0x79, 0x79, FIXED, 0, 0}, /* microcode update trigger */
    {0xfe, 0xfe, READ_ONLY, 0, X86_VAR_MTRRS | BIT(8) | BIT(10)}, /* MTRRCAP: fixed ranges, WC */
    {0x179, 0x179, READ_ONLY, 0, 0},                              /* MCG_CAP: no banks */
    {0x1d9, 0x1d9, FIXED, 0, 0},                                  /* DEBUGCTL: no branch records */
    {0x1db, 0x1de, FIXED, 0, 0},                                  /* last branch and exception records */
    {0x1fc, 0x1fc, FIXED, 0, 0},                                  /* power control */
    {0x345, 0x345, READ_ONLY, 0, 0},                              /* performance capabilities */
    {0xc0010000, 0xc0010007, AMD_FIXED, 0, 0},                    /* K7 performance counters: checked apart */
    {0xc0010010, 0xc0010010, AMD_FIXED, 0, 0},                    /* SYSCFG */
    {0xc0010015, 0xc0010015, AMD_FIXED, 0, BIT(24)},              /* HWCR: the TSC counts at P0 frequency */
    {0xc001001a, 0xc001001a, AMD_FIXED, 0, 0},                    /* TOP_MEM */
    {0xc001001d, 0xc001001d, AMD_FIXED, 0, 0},                    /* TOP_MEM2 */
    {0xc001001f, 0xc001001f, AMD_FIXED, 0, BIT(46)}, /* NB_CFG: extended configuration by ports enabled */
    {0xc0010055, 0xc0010055, AMD_FIXED, 0, 0},       /* interrupt pending message */
    {0xc0010058, 0xc0010058, AMD_FIXED, 0, 0},       /* MMIO configuration base */
    {0xc0010114, 0xc0010114, AMD_FIXED, 0, BIT(4)},  /* VM_CR: SVM disabled */
    {0xc0011020, 0xc0011023, AMD_FIXED, 0, 0},       /* LS_CFG IC_CFG DC_CFG BU_CFG */
    {0xc0011029, 0xc0011029, AMD_FIXED, 0, BIT(1)},  /* DE_CFG: LFENCE serialises */
    {0xc001102a, 0xc001102d, AMD_FIXED, 0, 0},
    {0xc00110e3, 0xc00110e3, AMD_FIXED, 0, 0},
};

static bool has(struct bt_cpu *cpu, struct x86_feature feature)
{
    bt_vec_save(cpu); /* the model's code is not gpr-only */
    return cpuid_model_has(cpu->engine->config.cpu, feature);
}

static bool is_amd(struct bt_cpu *cpu)
{
    return has(cpu, FEATURE_TOPOEXT);
}

static const struct plain_msr *find_plain(struct bt_cpu *cpu, uint32_t msr)
{
    for (unsigned i = 0; i < ARRAY_SIZE(plain); i++)
        if (msr >= plain[i].first && msr <= plain[i].last)
            return plain[i].kind != AMD_FIXED || is_amd(cpu) ? &plain[i] : NULL;
    return NULL;
}

static uint64_t *plain_field(struct bt_cpu *cpu, const struct plain_msr *p)
{
    return (uint64_t *)(void *)((char *)cpu + p->offset);
}

static bool read_plain(struct bt_cpu *cpu, uint32_t msr, uint64_t *value)
{
    const struct plain_msr *p = find_plain(cpu, msr);
    if (!p)
        return false;
    *value = p->kind >= FIXED ? p->value : *plain_field(cpu, p);
    return true;
}

static bool write_plain(struct bt_cpu *cpu, uint32_t msr, uint64_t value)
{
    const struct plain_msr *p = find_plain(cpu, msr);
    if (!p || p->kind == READ_ONLY)
        return false;
    if (p->kind >= FIXED) /* a counter that would not count is refused when it is programmed */
        return p->first != 0xc0010000 || !value;
    if ((p->kind == KEEP_32 && value >> 32) || (p->kind == KEEP_CANONICAL && !bt_canonical(value)))
        return false;
    *plain_field(cpu, p) = value;
    return true;
}

/* ---- memory types ---- */

static bool valid_type(uint64_t type)
{
    return type <= 6 && type != 2 && type != 3;
}

static bool valid_pat(uint64_t pat)
{
    for (unsigned i = 0; i < 64; i += 8) {
        uint64_t type = pat >> i & 0xff;
        if (type != 7 && !valid_type(type))
            return false;
    }
    return true;
}

/* The variable or fixed range register at an address, or NULL. */
static uint64_t *mtrr(struct bt_cpu *cpu, uint32_t msr)
{
    if (msr - MSR_MTRR_PHYS < 2 * X86_VAR_MTRRS) {
        unsigned n = (msr - MSR_MTRR_PHYS) / 2;
        return msr & 1 ? &cpu->mtrr_mask[n] : &cpu->mtrr_base[n];
    }
    if (msr == MSR_MTRR_FIX64K)
        return &cpu->mtrr_fixed[0];
    if (msr - MSR_MTRR_FIX16K < 2)
        return &cpu->mtrr_fixed[1 + msr - MSR_MTRR_FIX16K];
    if (msr - MSR_MTRR_FIX4K < 8)
        return &cpu->mtrr_fixed[3 + msr - MSR_MTRR_FIX4K];
    return NULL;
}

static bool valid_mtrr(const struct bt_cpu *cpu, uint32_t msr, uint64_t value)
{
    if (msr - MSR_MTRR_PHYS < 2 * X86_VAR_MTRRS) {
        uint64_t address = (BIT(cpu->engine->config.cpu->phys_bits) - 1) & ~UINT64_C(0xfff);
        if (msr & 1)
            return !(value & ~(address | BIT(11)));
        return !(value & ~(address | 0xff)) && valid_type(value & 0xff);
    }
    for (unsigned i = 0; i < 64; i += 8)
        if (!valid_type(value >> i & 0xff))
            return false;
    return true;
}

/* ---- time ---- */

static void move_tsc(struct bt_cpu *cpu, uint64_t delta)
{
    cpu->tsc_offset += delta;
    bt_vec_save(cpu);
    bt_lapic_tsc_changed(cpu->lapic);
    bt_pvclock_publish(cpu);
}

static bool write_efer(struct bt_cpu *cpu, uint64_t value)
{
    uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    if (has(cpu, FEATURE_AUTO_IBRS))
        allowed |= EFER_AUTO_IBRS;
    uint64_t changed = value ^ cpu->efer;
    if ((value & ~allowed) || ((changed & EFER_LME) && (cpu->cr0 & CR0_PG)))
        return false;
    cpu->efer = (value & ~EFER_LMA) | (cpu->efer & EFER_LMA);
    if (changed & EFER_NXE)
        bt_tlb_flush(cpu, true);
    bt_mode_update(cpu);
    return true;
}

static bool write_spec_ctrl(struct bt_cpu *cpu, uint64_t value)
{
    if ((!has(cpu, FEATURE_SPEC_CTRL_INTEL) && !has(cpu, FEATURE_IBRS_AMD)) || value & ~(uint64_t)7)
        return false;
    cpu->spec_ctrl = value;
    return true;
}

/* ---- dispatch ---- */

static bool is_lapic_msr(uint32_t msr)
{
    return msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE || msr - MSR_X2APIC < 0x100;
}

static bool read_msr(struct bt_cpu *cpu, uint32_t msr, uint64_t *value)
{
    if (is_lapic_msr(msr))
        return bt_lapic_rdmsr(cpu->lapic, msr, value);
    switch (msr) {
    case MSR_TSC:
        *value = bt_rdtsc(cpu);
        return true;
    case MSR_TSC_ADJUST:
        *value = cpu->tsc_adjust;
        return true;
    case MSR_EFER:
        *value = cpu->efer;
        return true;
    case MSR_FS_BASE:
        *value = cpu->seg[SEG_FS].base;
        return true;
    case MSR_GS_BASE:
        *value = cpu->seg[SEG_GS].base;
        return true;
    case MSR_PAT:
        *value = cpu->pat;
        return true;
    case MSR_MTRR_DEF_TYPE:
        *value = cpu->mtrr_def_type;
        return true;
    case MSR_SPEC_CTRL:
        *value = cpu->spec_ctrl;
        return has(cpu, FEATURE_SPEC_CTRL_INTEL) || has(cpu, FEATURE_IBRS_AMD);
    case MSR_ARCH_CAPABILITIES:
        *value = ARCH_CAPABILITIES;
        return has(cpu, FEATURE_ARCH_CAP);
    case MSR_UCODE_REV:
        *value = is_amd(cpu) ? UCODE_REV_AMD : UCODE_REV_INTEL;
        return true;
    case MSR_PLATFORM_INFO:
        *value = (cpu->engine->config.cpu->tsc_hz / 100000000 & 0xff) << 8;
        return !is_amd(cpu);
    default:
        break;
    }
    uint64_t *range = mtrr(cpu, msr);
    if (range)
        return *value = *range, true;
    return bt_pvclock_rdmsr(cpu, msr, value) || read_plain(cpu, msr, value);
}

static bool write_msr(struct bt_cpu *cpu, uint32_t msr, uint64_t value)
{
    if (is_lapic_msr(msr))
        return bt_lapic_wrmsr(cpu->lapic, msr, value);
    switch (msr) {
    case MSR_TSC: {
        uint64_t delta = value - bt_rdtsc(cpu);
        cpu->tsc_adjust += delta;
        move_tsc(cpu, delta);
        return true;
    }
    case MSR_TSC_ADJUST: {
        uint64_t delta = value - cpu->tsc_adjust;
        cpu->tsc_adjust = value;
        move_tsc(cpu, delta);
        return true;
    }
    case MSR_EFER:
        return write_efer(cpu, value);
    case MSR_FS_BASE:
    case MSR_GS_BASE:
        if (!bt_canonical(value))
            return false;
        bt_seg_set_base(cpu, msr == MSR_FS_BASE ? SEG_FS : SEG_GS, value);
        return true;
    case MSR_PAT:
        if (!valid_pat(value))
            return false;
        cpu->pat = value;
        return true;
    case MSR_MTRR_DEF_TYPE:
        if ((value & ~UINT64_C(0xcff)) || !valid_type(value & 0xff))
            return false;
        cpu->mtrr_def_type = value;
        return true;
    case MSR_SPEC_CTRL:
        return write_spec_ctrl(cpu, value);
    case MSR_PRED_CMD: /* indirect branches of translated code go through looked-up addresses anyway */
        return value <= 1 && (has(cpu, FEATURE_SPEC_CTRL_INTEL) || has(cpu, FEATURE_IBPB_AMD));
    case MSR_UCODE_REV:
        return true; /* Intel's manual has software write 0 before reading it */
    default:
        break;
    }
    uint64_t *range = mtrr(cpu, msr);
    if (range) {
        if (!valid_mtrr(cpu, msr, value))
            return false;
        *range = value;
        return true;
    }
    return bt_pvclock_wrmsr(cpu, msr, value) || write_plain(cpu, msr, value);
}

static bool op_rdmsr(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t value = 0;
    if (cpu->cpl || !read_msr(cpu, (uint32_t)cpu->gpr[R_RCX], &value))
        return bt_raise_error(cpu, VEC_GP, 0);
    cpu->gpr[R_RAX] = (uint32_t)value;
    cpu->gpr[R_RDX] = value >> 32;
    return bt_op_next(cpu, op);
}

static bool op_wrmsr(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t value = (uint64_t)(uint32_t)cpu->gpr[R_RDX] << 32 | (uint32_t)cpu->gpr[R_RAX];
    if (cpu->cpl || !write_msr(cpu, (uint32_t)cpu->gpr[R_RCX], value))
        return bt_raise_error(cpu, VEC_GP, 0);
    return bt_op_next(cpu, op);
}

const struct bt_op_entry bt_ops_msr[] = {
    {.mnemonic = ZYDIS_MNEMONIC_RDMSR, .fn = op_rdmsr},
    {.mnemonic = ZYDIS_MNEMONIC_WRMSR, .fn = op_wrmsr},
    {0},
};
