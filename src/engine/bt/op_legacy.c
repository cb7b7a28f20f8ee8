/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions without a 64-bit encoding, or too rare to translate: PUSHA, POPA, ENTER, BOUND, decimal
 * adjustment, SALC, XLAT (SDM vol. 2). Flags that the manual leaves undefined are cleared. gpr-only.
 */
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

static bool op_pusha(struct bt_cpu *cpu, const struct bt_op *op)
{
    struct bt_stack s;
    bt_stack_open(cpu, &s, op->insn.opsize);
    for (unsigned i = 0; i < 8; i++)
        bt_stack_push(&s, cpu->gpr[i]);
    if (!bt_stack_commit(cpu, &s, 0))
        return false;
    bt_set_sp(cpu, s.sp, s.mask);
    return bt_op_next(cpu, op);
}

static bool op_popa(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned size = op->insn.opsize;
    uint64_t value[8];
    for (unsigned i = 0; i < 8; i++)
        if (!bt_stack_peek(cpu, i * size, size, &value[7 - i]))
            return false;
    bt_stack_drop(cpu, 8 * size);
    for (unsigned i = 0; i < 8; i++)
        if (i != R_RSP)
            bt_gpr_write(cpu, i, size, value[i]);
    return bt_op_next(cpu, op);
}

/* What was pushed already but is not in memory yet shows in a value read from there. */
static void see_pushed(const struct bt_stack *s, uint64_t from, uint64_t *value, unsigned size)
{
    uint8_t *bytes = (uint8_t *)value;
    for (unsigned i = 0; i < size; i++) {
        uint64_t below = (s->sp - (from + i)) & s->mask; /* distance from the old top of the stack */
        if (below && below <= s->used)
            bytes[i] = s->buf[BT_STACK_MAX - below];
    }
}

static bool op_enter(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned size = op->insn.opsize, level = (unsigned)op->insn.imm[1] & 31;
    uint64_t mask = bt_stack_mask(cpu), value, lin, gpa;
    uint64_t frame = (cpu->gpr[R_RSP] - size) & mask, rbp = cpu->gpr[R_RBP];
    struct bt_stack s;
    bt_stack_open(cpu, &s, size);
    bt_stack_push(&s, rbp);
    for (unsigned i = 1; i < level; i++) {
        rbp -= size;
        value = 0;
        if (!bt_read_seg(cpu, SEG_SS, rbp & mask, &value, size))
            return false;
        see_pushed(&s, rbp & mask, &value, size);
        bt_stack_push(&s, value);
    }
    if (level)
        bt_stack_push(&s, frame);
    /* The new top of stack has to be writable although nothing goes there. */
    uint64_t top = (s.sp - s.used - (uint16_t)op->insn.imm[0]) & mask;
    if (!bt_seg_linear(cpu, SEG_SS, top, size, BT_WRITE, &lin) ||
        !bt_translate(cpu, lin, BT_WRITE, &gpa, NULL) || !bt_stack_commit(cpu, &s, 0))
        return false;
    bt_set_sp(cpu, top, mask);
    bt_gpr_write(cpu, R_RBP, size, frame);
    return bt_op_next(cpu, op);
}

static bool op_bound(struct bt_cpu *cpu, const struct bt_op *op)
{
    const struct x86_insn *in = &op->insn;
    unsigned size = in->opsize;
    uint64_t low = 0, high = 0, ea = bt_effective_address(cpu, in);
    if (!bt_read_seg(cpu, in->mem.seg, ea, &low, size) ||
        !bt_read_seg(cpu, in->mem.seg, bt_zext(ea + size, in->addrsize), &high, size))
        return false;
    unsigned shift = 64 - size * 8;
    int64_t index = (int64_t)(bt_reg_read(cpu, &in->reg, size) << shift);
    if (index < (int64_t)(low << shift) || index > (int64_t)(high << shift))
        return bt_raise(cpu, VEC_BR);
    return bt_op_next(cpu, op);
}

/* SF, ZF and PF of a byte. */
static uint64_t byte_flags(uint8_t v)
{
    return (v & FLAG_SF) | (v ? 0 : FLAG_ZF) | (__builtin_parity(v) ? 0 : FLAG_PF);
}

static void set_al(struct bt_cpu *cpu, uint8_t al)
{
    cpu->gpr[R_RAX] = (cpu->gpr[R_RAX] & ~UINT64_C(0xff)) | al;
}

/* AAA and AAS: delta is what AX changes by when the digit overflowed. */
static bool ascii_adjust(struct bt_cpu *cpu, const struct bt_op *op, int delta)
{
    uint16_t ax = (uint16_t)cpu->gpr[R_RAX];
    bool adjust = (ax & 0xf) > 9 || (bt_status(cpu) & FLAG_AF);
    if (adjust)
        ax = (uint16_t)(ax + delta);
    ax &= 0xff0f;
    bt_gpr_write(cpu, R_RAX, 2, ax);
    bt_set_status(cpu, byte_flags((uint8_t)ax) | (adjust ? FLAG_AF | FLAG_CF : 0));
    return bt_op_next(cpu, op);
}

static bool op_aaa(struct bt_cpu *cpu, const struct bt_op *op)
{
    return ascii_adjust(cpu, op, 0x106);
}

static bool op_aas(struct bt_cpu *cpu, const struct bt_op *op)
{
    return ascii_adjust(cpu, op, -0x106);
}

/* DAA (sign 1) and DAS (sign -1). */
static bool decimal_adjust(struct bt_cpu *cpu, const struct bt_op *op, int sign)
{
    uint64_t flags = bt_status(cpu);
    uint8_t old = (uint8_t)cpu->gpr[R_RAX];
    int al = old;
    bool carry = flags & FLAG_CF, half = (old & 0xf) > 9 || (flags & FLAG_AF), cf = false;
    if (half) {
        al += sign * 6;
        cf = carry || al < 0 || al > 0xff;
    }
    if (old > 0x99 || carry) {
        al += sign * 0x60;
        cf = true;
    }
    set_al(cpu, (uint8_t)al);
    bt_set_status(cpu, byte_flags((uint8_t)al) | (half ? FLAG_AF : 0) | (cf ? FLAG_CF : 0));
    return bt_op_next(cpu, op);
}

static bool op_daa(struct bt_cpu *cpu, const struct bt_op *op)
{
    return decimal_adjust(cpu, op, 1);
}

static bool op_das(struct bt_cpu *cpu, const struct bt_op *op)
{
    return decimal_adjust(cpu, op, -1);
}

static bool op_aam(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned base = (uint8_t)op->insn.imm[0], al = (uint8_t)cpu->gpr[R_RAX];
    if (!base)
        return bt_raise(cpu, VEC_DE);
    bt_gpr_write(cpu, R_RAX, 2, (al / base) << 8 | al % base);
    bt_set_status(cpu, byte_flags((uint8_t)(al % base)));
    return bt_op_next(cpu, op);
}

static bool op_aad(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t ax = cpu->gpr[R_RAX];
    uint8_t al = (uint8_t)(ax + (ax >> 8 & 0xff) * (uint8_t)op->insn.imm[0]);
    bt_gpr_write(cpu, R_RAX, 2, al);
    bt_set_status(cpu, byte_flags(al));
    return bt_op_next(cpu, op);
}

static bool op_salc(struct bt_cpu *cpu, const struct bt_op *op)
{
    set_al(cpu, (bt_status(cpu) & FLAG_CF) ? 0xff : 0);
    return bt_op_next(cpu, op);
}

static bool op_xlat(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t ea = bt_zext(cpu->gpr[R_RBX] + (uint8_t)cpu->gpr[R_RAX], op->insn.addrsize);
    uint8_t al;
    if (!bt_read_seg(cpu, bt_segment_override(&op->insn), ea, &al, 1))
        return false;
    set_al(cpu, al);
    return bt_op_next(cpu, op);
}

const struct bt_op_entry bt_ops_legacy[] = {
    {ZYDIS_MNEMONIC_PUSHA, 0, op_pusha},
    {ZYDIS_MNEMONIC_PUSHAD, 0, op_pusha},
    {ZYDIS_MNEMONIC_POPA, 0, op_popa},
    {ZYDIS_MNEMONIC_POPAD, 0, op_popa},
    {ZYDIS_MNEMONIC_ENTER, 0, op_enter},
    {ZYDIS_MNEMONIC_BOUND, 0, op_bound},
    {ZYDIS_MNEMONIC_AAA, 0, op_aaa},
    {ZYDIS_MNEMONIC_AAS, 0, op_aas},
    {ZYDIS_MNEMONIC_DAA, 0, op_daa},
    {ZYDIS_MNEMONIC_DAS, 0, op_das},
    {ZYDIS_MNEMONIC_AAM, 0, op_aam},
    {ZYDIS_MNEMONIC_AAD, 0, op_aad},
    {ZYDIS_MNEMONIC_SALC, 0, op_salc},
    {ZYDIS_MNEMONIC_XLAT, 0, op_xlat},
    {0},
};
