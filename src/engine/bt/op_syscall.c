/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fast system calls and what goes with them: SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, RD/WR FS/GS BASE
 * (SDM vol. 2, APM vol. 3). Intel and AMD differ on SYSCALL outside 64-bit mode and SYSENTER in long mode;
 * the guest gets what the processor that CPUID shows does. gpr-only.
 */
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

#define CPUID_EBX_AUTH 0x68747541u /* "AuthenticAMD" */
#define CPUID_EBX_HYGO 0x6f677948u /* "HygonGenuine" */

/* SYSRET takes these from R11; RF and VM come out clear. */
#define SYSRET_FLAGS UINT64_C(0x3c7fd7)

static bool vendor_is_amd(const struct bt_cpu *cpu)
{
    const struct cpuid_model *model = cpu->engine->config.cpu;
    for (unsigned i = 0; i < model->count; i++)
        if (model->leaf[i].function == 0)
            return model->leaf[i].ebx == CPUID_EBX_AUTH || model->leaf[i].ebx == CPUID_EBX_HYGO;
    return false;
}

static bool op_syscall(struct bt_cpu *cpu, const struct bt_op *op)
{
    bool code64 = bt_code64(cpu), long_mode = bt_long_mode(cpu);
    if (!(cpu->efer & EFER_SCE) || !(cpu->cr0 & CR0_PE) || (!code64 && !vendor_is_amd(cpu)))
        return bt_raise(cpu, VEC_UD);
    uint64_t rflags = bt_rflags(cpu) & ~FLAG_RF;
    cpu->gpr[R_RCX] = bt_next_rip(cpu, op);
    if (long_mode) {
        cpu->gpr[R_R11] = rflags;
        rflags &= ~cpu->sfmask;
        cpu->rip = code64 ? cpu->lstar : cpu->cstar;
    } else {
        rflags &= ~(FLAG_IF | FLAG_VM);
        cpu->rip = (uint32_t)cpu->star;
    }
    uint16_t cs = (uint16_t)(cpu->star >> 32);
    bt_flags_store(cpu, rflags);
    bt_flat_cs_ss(cpu, cs, (uint16_t)(cs + 8), 0, long_mode ? 64 : 32);
    bt_mode_update(cpu);
    return true;
}

static bool op_sysret(struct bt_cpu *cpu, const struct bt_op *op)
{
    bool code64 = bt_code64(cpu), to64 = code64 && op->insn.opsize == 8, amd = vendor_is_amd(cpu);
    if (!(cpu->efer & EFER_SCE) || (!code64 && !amd))
        return bt_raise(cpu, VEC_UD);
    if (cpu->cpl != 0 || !bt_protected(cpu))
        return bt_raise_error(cpu, VEC_GP, 0);
    uint64_t rip = cpu->gpr[R_RCX];
    if (to64 && !bt_canonical(rip) && !amd)
        return bt_raise_error(cpu, VEC_GP, 0);
    uint16_t base = (uint16_t)(cpu->star >> 48);
    if (bt_long_mode(cpu))
        bt_flags_store(cpu, cpu->gpr[R_R11] & SYSRET_FLAGS);
    else
        bt_flags_store(cpu, bt_rflags(cpu) | FLAG_IF);
    bt_flat_cs_ss(cpu, to64 ? (uint16_t)(base + 16) : base, (uint16_t)(base + 8), 3, to64 ? 64 : 32);
    cpu->rip = to64 ? rip : (uint32_t)rip;
    bt_mode_update(cpu);
    return true;
}

static bool op_sysenter(struct bt_cpu *cpu, const struct bt_op *op)
{
    bool long_mode = bt_long_mode(cpu);
    if (long_mode && vendor_is_amd(cpu))
        return bt_raise(cpu, VEC_UD);
    uint16_t cs = (uint16_t)cpu->sysenter_cs;
    if (!(cpu->cr0 & CR0_PE) || bt_selector_null(cs))
        return bt_raise_error(cpu, VEC_GP, 0);
    cpu->sysflags &= ~(FLAG_VM | FLAG_RF);
    cpu->iflag = 0;
    bt_flat_cs_ss(cpu, cs, (uint16_t)((cs & 0xfffc) + 8), 0, long_mode ? 64 : 32);
    cpu->gpr[R_RSP] = bt_zext(cpu->sysenter_esp, long_mode ? 8 : 4);
    cpu->rip = bt_zext(cpu->sysenter_eip, long_mode ? 8 : 4);
    bt_mode_update(cpu);
    return true;
}

static bool op_sysexit(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (bt_long_mode(cpu) && vendor_is_amd(cpu))
        return bt_raise(cpu, VEC_UD);
    uint16_t cs = (uint16_t)(cpu->sysenter_cs & 0xfffc);
    if (!bt_protected(cpu) || cpu->cpl != 0 || bt_selector_null(cs))
        return bt_raise_error(cpu, VEC_GP, 0);
    bool to64 = bt_code64(cpu) && op->insn.opsize == 8;
    uint64_t rip = cpu->gpr[R_RDX], rsp = cpu->gpr[R_RCX];
    if (to64 && (!bt_canonical(rip) || !bt_canonical(rsp)))
        return bt_raise_error(cpu, VEC_GP, 0);
    cs = (uint16_t)(cs + (to64 ? 32 : 16));
    bt_flat_cs_ss(cpu, cs, (uint16_t)(cs + 8), 3, to64 ? 64 : 32);
    cpu->gpr[R_RSP] = bt_zext(rsp, to64 ? 8 : 4);
    cpu->rip = bt_zext(rip, to64 ? 8 : 4);
    bt_mode_update(cpu);
    return true;
}

static bool op_swapgs(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (!bt_code64(cpu))
        return bt_raise(cpu, VEC_UD);
    if (cpu->cpl != 0)
        return bt_raise_error(cpu, VEC_GP, 0);
    uint64_t base = cpu->seg[SEG_GS].base;
    bt_seg_set_base(cpu, SEG_GS, cpu->kernel_gs_base);
    cpu->kernel_gs_base = base;
    return bt_op_next(cpu, op);
}

static bool read_base(struct bt_cpu *cpu, const struct bt_op *op, unsigned seg)
{
    if (!bt_code64(cpu) || !(cpu->cr4 & CR4_FSGSBASE))
        return bt_raise(cpu, VEC_UD);
    cpu->gpr[op->insn.rm.reg] = bt_zext(cpu->seg[seg].base, op->insn.opsize);
    return bt_op_next(cpu, op);
}

static bool write_base(struct bt_cpu *cpu, const struct bt_op *op, unsigned seg)
{
    if (!bt_code64(cpu) || !(cpu->cr4 & CR4_FSGSBASE))
        return bt_raise(cpu, VEC_UD);
    uint64_t base = bt_zext(cpu->gpr[op->insn.rm.reg], op->insn.opsize);
    if (!bt_canonical(base))
        return bt_raise_error(cpu, VEC_GP, 0);
    bt_seg_set_base(cpu, seg, base);
    return bt_op_next(cpu, op);
}

static bool op_rdfsbase(struct bt_cpu *cpu, const struct bt_op *op)
{
    return read_base(cpu, op, SEG_FS);
}

static bool op_rdgsbase(struct bt_cpu *cpu, const struct bt_op *op)
{
    return read_base(cpu, op, SEG_GS);
}

static bool op_wrfsbase(struct bt_cpu *cpu, const struct bt_op *op)
{
    return write_base(cpu, op, SEG_FS);
}

static bool op_wrgsbase(struct bt_cpu *cpu, const struct bt_op *op)
{
    return write_base(cpu, op, SEG_GS);
}

const struct bt_op_entry bt_ops_syscall[] = {
    {ZYDIS_MNEMONIC_SYSCALL, 0, op_syscall},   {ZYDIS_MNEMONIC_SYSRET, 0, op_sysret},
    {ZYDIS_MNEMONIC_SYSENTER, 0, op_sysenter}, {ZYDIS_MNEMONIC_SYSEXIT, 0, op_sysexit},
    {ZYDIS_MNEMONIC_SWAPGS, 0, op_swapgs},     {ZYDIS_MNEMONIC_RDFSBASE, 0, op_rdfsbase},
    {ZYDIS_MNEMONIC_RDGSBASE, 0, op_rdgsbase}, {ZYDIS_MNEMONIC_WRFSBASE, 0, op_wrfsbase},
    {ZYDIS_MNEMONIC_WRGSBASE, 0, op_wrgsbase}, {0},
};
