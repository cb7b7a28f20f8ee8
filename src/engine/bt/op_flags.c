/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions on RFLAGS that depend on privilege: PUSHF, POPF, CLI, STI, CLAC, STAC; and CLD, STD. VME and
 * PVI are not offered, so virtual-8086 mode goes by IOPL alone. gpr-only.
 */
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

static bool v86_refused(const struct bt_cpu *cpu)
{
    return (cpu->sysflags & FLAG_VM) && bt_iopl(cpu) < 3;
}

static bool op_pushf(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (v86_refused(cpu))
        return bt_raise_error(cpu, VEC_GP, 0);
    struct bt_stack s;
    bt_stack_open(cpu, &s, op->insn.opsize);
    bt_stack_push(&s, bt_rflags(cpu) & ~(FLAG_VM | FLAG_RF));
    if (!bt_stack_commit(cpu, &s, 0))
        return false;
    bt_set_sp(cpu, s.sp, s.mask);
    return bt_op_next(cpu, op);
}

static bool op_popf(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (v86_refused(cpu))
        return bt_raise_error(cpu, VEC_GP, 0);
    unsigned size = op->insn.opsize;
    uint64_t popped;
    if (!bt_stack_peek(cpu, 0, size, &popped))
        return false;
    uint64_t mask = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT;
    if (size >= 4)
        mask |= FLAG_AC | FLAG_ID;
    if (cpu->cpl <= bt_iopl(cpu) || (cpu->sysflags & FLAG_VM))
        mask |= FLAG_IF;
    if (cpu->cpl == 0)
        mask |= FLAG_IOPL;
    bt_stack_drop(cpu, size);
    bt_set_rflags(cpu, ((bt_rflags(cpu) & ~mask) | (popped & mask)) & ~FLAG_RF);
    return bt_op_next(cpu, op);
}

/* CLI and STI: CPL within IOPL; virtual-8086 mode runs at CPL 3. */
static bool may_change_if(const struct bt_cpu *cpu)
{
    return !(cpu->cr0 & CR0_PE) || cpu->cpl <= bt_iopl(cpu);
}

static bool op_cli(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (!may_change_if(cpu))
        return bt_raise_error(cpu, VEC_GP, 0);
    cpu->iflag = 0;
    return bt_op_next(cpu, op);
}

static bool op_sti(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (!may_change_if(cpu))
        return bt_raise_error(cpu, VEC_GP, 0);
    if (!cpu->iflag)
        cpu->shadow = true;
    cpu->iflag = FLAG_IF;
    return bt_op_next(cpu, op);
}

static bool set_ac(struct bt_cpu *cpu, const struct bt_op *op, bool ac)
{
    if (cpu->cpl != 0)
        return bt_raise(cpu, VEC_UD);
    uint64_t old = cpu->sysflags;
    cpu->sysflags = ac ? old | FLAG_AC : old & ~FLAG_AC;
    if (cpu->sysflags != old)
        bt_mode_update(cpu);
    return bt_op_next(cpu, op);
}

static bool op_clac(struct bt_cpu *cpu, const struct bt_op *op)
{
    return set_ac(cpu, op, false);
}

static bool op_stac(struct bt_cpu *cpu, const struct bt_op *op)
{
    return set_ac(cpu, op, true);
}

static bool op_cld(struct bt_cpu *cpu, const struct bt_op *op)
{
    cpu->df = 0;
    return bt_op_next(cpu, op);
}

static bool op_std(struct bt_cpu *cpu, const struct bt_op *op)
{
    cpu->df = (uint32_t)FLAG_DF;
    return bt_op_next(cpu, op);
}

const struct bt_op_entry bt_ops_flags[] = {
    {ZYDIS_MNEMONIC_PUSHF, 0, op_pushf},
    {ZYDIS_MNEMONIC_PUSHFD, 0, op_pushf},
    {ZYDIS_MNEMONIC_PUSHFQ, 0, op_pushf},
    {ZYDIS_MNEMONIC_POPF, 0, op_popf},
    {ZYDIS_MNEMONIC_POPFD, 0, op_popf},
    {ZYDIS_MNEMONIC_POPFQ, 0, op_popf},
    {ZYDIS_MNEMONIC_CLI, 0, op_cli},
    {ZYDIS_MNEMONIC_STI, 0, op_sti},
    {ZYDIS_MNEMONIC_CLAC, 0, op_clac},
    {ZYDIS_MNEMONIC_STAC, 0, op_stac},
    {ZYDIS_MNEMONIC_CLD, 0, op_cld},
    {ZYDIS_MNEMONIC_STD, 0, op_std},
    {0},
};
