/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Near transfers and stack instructions with every check, for where segments are not flat or the stack is 16
 * bits wide; the translator does its own in the common modes. Operand sizes 2, 4 and 8. gpr-only.
 */
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

/* Whether the near target fits its code segment; else #GP(0). */
static bool target_ok(struct bt_cpu *cpu, uint64_t rip)
{
    return bt_code_target(cpu, &cpu->seg[SEG_CS], rip, 0);
}

static bool jump_to(struct bt_cpu *cpu, uint64_t rip)
{
    if (!target_ok(cpu, rip))
        return false;
    cpu->rip = rip;
    return true;
}

static uint64_t relative_target(const struct bt_cpu *cpu, const struct bt_op *op)
{
    return bt_zext(bt_next_rip(cpu, op) + (uint64_t)op->insn.imm[0], op->insn.opsize);
}

/* Pushes one value; the caller sets RIP. */
static bool push_value(struct bt_cpu *cpu, unsigned size, uint64_t value)
{
    struct bt_stack s;
    bt_stack_open(cpu, &s, size);
    bt_stack_push(&s, value);
    if (!bt_stack_commit(cpu, &s, 0))
        return false;
    bt_set_sp(cpu, s.sp, s.mask);
    return true;
}

static bool call_to(struct bt_cpu *cpu, const struct bt_op *op, uint64_t rip)
{
    if (!target_ok(cpu, rip) || !push_value(cpu, op->insn.opsize, bt_next_rip(cpu, op)))
        return false;
    cpu->rip = rip;
    return true;
}

static bool op_call_relative(struct bt_cpu *cpu, const struct bt_op *op)
{
    return call_to(cpu, op, relative_target(cpu, op));
}

static bool op_call_indirect(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t rip;
    return bt_rm_read(cpu, op, op->insn.opsize, &rip) && call_to(cpu, op, rip);
}

static bool op_jmp_relative(struct bt_cpu *cpu, const struct bt_op *op)
{
    return jump_to(cpu, relative_target(cpu, op));
}

static bool op_jmp_indirect(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t rip;
    return bt_rm_read(cpu, op, op->insn.opsize, &rip) && jump_to(cpu, rip);
}

static bool op_ret(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned size = op->insn.opsize;
    uint64_t rip, release = op->insn.opcode == 0xc2 ? (uint16_t)op->insn.imm[0] : 0;
    if (!bt_stack_peek(cpu, 0, size, &rip) || !jump_to(cpu, rip))
        return false;
    bt_stack_drop(cpu, size + release);
    return true;
}

/* Condition `cc` as in the low four bits of Jcc's opcode. */
static bool condition(const struct bt_cpu *cpu, unsigned cc)
{
    uint64_t f = bt_status(cpu);
    bool less = !(f & FLAG_SF) != !(f & FLAG_OF), value = false;
    switch (cc >> 1) {
    case 0:
        value = f & FLAG_OF;
        break;
    case 1:
        value = f & FLAG_CF;
        break;
    case 2:
        value = f & FLAG_ZF;
        break;
    case 3:
        value = f & (FLAG_CF | FLAG_ZF);
        break;
    case 4:
        value = f & FLAG_SF;
        break;
    case 5:
        value = f & FLAG_PF;
        break;
    case 6:
        value = less;
        break;
    case 7:
        value = less || (f & FLAG_ZF);
        break;
    }
    return value != (cc & 1);
}

static bool op_jcc(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (condition(cpu, op->insn.opcode & 0xf))
        return jump_to(cpu, relative_target(cpu, op));
    return bt_op_next(cpu, op);
}

static bool op_jcxz(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (bt_zext(cpu->gpr[R_RCX], op->insn.addrsize) == 0)
        return jump_to(cpu, relative_target(cpu, op));
    return bt_op_next(cpu, op);
}

/* LOOPNE E0, LOOPE E1, LOOP E2. */
static bool op_loop(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t count = bt_zext(cpu->gpr[R_RCX] - 1, op->insn.addrsize);
    bool zf = bt_status(cpu) & FLAG_ZF;
    bool taken = count != 0 && (op->insn.opcode == 0xe2 || zf == (op->insn.opcode == 0xe1));
    if (taken ? !jump_to(cpu, relative_target(cpu, op)) : !bt_op_next(cpu, op))
        return false;
    bt_gpr_write(cpu, R_RCX, op->insn.addrsize, count);
    return true;
}

static bool op_push_reg(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned size = op->insn.opsize;
    return push_value(cpu, size, bt_reg_read(cpu, &op->insn.opreg, size)) && bt_op_next(cpu, op);
}

static bool op_push_imm(struct bt_cpu *cpu, const struct bt_op *op)
{
    return push_value(cpu, op->insn.opsize, (uint64_t)op->insn.imm[0]) && bt_op_next(cpu, op);
}

static bool op_push_rm(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t value;
    return bt_rm_read(cpu, op, op->insn.opsize, &value) && push_value(cpu, op->insn.opsize, value) &&
           bt_op_next(cpu, op);
}

static bool op_pop_reg(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t value;
    if (!bt_stack_peek(cpu, 0, op->insn.opsize, &value))
        return false;
    bt_stack_drop(cpu, op->insn.opsize);
    bt_reg_write(cpu, &op->insn.opreg, op->insn.opsize, value);
    return bt_op_next(cpu, op);
}

/* An address off the stack pointer counts from after the pop. */
static bool op_pop_rm(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t value, rsp = cpu->gpr[R_RSP];
    if (!bt_stack_peek(cpu, 0, op->insn.opsize, &value))
        return false;
    bt_stack_drop(cpu, op->insn.opsize);
    if (!bt_rm_write(cpu, op, op->insn.opsize, value)) {
        cpu->gpr[R_RSP] = rsp;
        return false;
    }
    return bt_op_next(cpu, op);
}

static bool op_leave(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned size = op->insn.opsize;
    uint64_t mask = bt_stack_mask(cpu), frame = cpu->gpr[R_RBP] & mask, value = 0;
    if (!bt_read_seg(cpu, SEG_SS, frame, &value, size))
        return false;
    bt_set_sp(cpu, frame + size, mask);
    bt_gpr_write(cpu, R_RBP, size, value);
    return bt_op_next(cpu, op);
}

const struct bt_op_entry bt_ops_near[] = {
    {ZYDIS_MNEMONIC_CALL, 0xe8, op_call_relative},
    {ZYDIS_MNEMONIC_CALL, 0xff, op_call_indirect, false, BT_OP_GROUP(2)},
    {ZYDIS_MNEMONIC_JMP, 0xe9, op_jmp_relative},
    {ZYDIS_MNEMONIC_JMP, 0xeb, op_jmp_relative},
    {ZYDIS_MNEMONIC_JMP, 0xff, op_jmp_indirect, false, BT_OP_GROUP(4)},
    {ZYDIS_MNEMONIC_RET, 0xc2, op_ret},
    {ZYDIS_MNEMONIC_RET, 0xc3, op_ret},
    {ZYDIS_MNEMONIC_JO, 0, op_jcc},
    {ZYDIS_MNEMONIC_JNO, 0, op_jcc},
    {ZYDIS_MNEMONIC_JB, 0, op_jcc},
    {ZYDIS_MNEMONIC_JNB, 0, op_jcc},
    {ZYDIS_MNEMONIC_JZ, 0, op_jcc},
    {ZYDIS_MNEMONIC_JNZ, 0, op_jcc},
    {ZYDIS_MNEMONIC_JBE, 0, op_jcc},
    {ZYDIS_MNEMONIC_JNBE, 0, op_jcc},
    {ZYDIS_MNEMONIC_JS, 0, op_jcc},
    {ZYDIS_MNEMONIC_JNS, 0, op_jcc},
    {ZYDIS_MNEMONIC_JP, 0, op_jcc},
    {ZYDIS_MNEMONIC_JNP, 0, op_jcc},
    {ZYDIS_MNEMONIC_JL, 0, op_jcc},
    {ZYDIS_MNEMONIC_JNL, 0, op_jcc},
    {ZYDIS_MNEMONIC_JLE, 0, op_jcc},
    {ZYDIS_MNEMONIC_JNLE, 0, op_jcc},
    {ZYDIS_MNEMONIC_JCXZ, 0, op_jcxz},
    {ZYDIS_MNEMONIC_JECXZ, 0, op_jcxz},
    {ZYDIS_MNEMONIC_JRCXZ, 0, op_jcxz},
    {ZYDIS_MNEMONIC_LOOP, 0, op_loop},
    {ZYDIS_MNEMONIC_LOOPE, 0, op_loop},
    {ZYDIS_MNEMONIC_LOOPNE, 0, op_loop},
    {ZYDIS_MNEMONIC_PUSH, 0x68, op_push_imm},
    {ZYDIS_MNEMONIC_PUSH, 0x6a, op_push_imm},
    {ZYDIS_MNEMONIC_PUSH, 0xff, op_push_rm},
    {ZYDIS_MNEMONIC_PUSH, 0, op_push_reg},
    {ZYDIS_MNEMONIC_POP, 0x8f, op_pop_rm},
    {ZYDIS_MNEMONIC_POP, 0, op_pop_reg},
    {ZYDIS_MNEMONIC_LEAVE, 0, op_leave},
    {0},
};
