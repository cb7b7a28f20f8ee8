/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far JMP and CALL: direct, through call gates, to tasks (SDM vol. 3 section 5.8, vol. 2 "CALL" and "JMP"),
 * and the software interrupts INT n, INT3, INT1, INTO. gpr-only.
 */
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

static bool selector_gp(struct bt_cpu *cpu, uint16_t sel)
{
    return bt_raise_error(cpu, VEC_GP, sel & 0xfffc);
}

/* Pushes CS and the return address. */
static bool push_return(struct bt_cpu *cpu, const struct bt_op *op, unsigned size)
{
    struct bt_stack s;
    bt_stack_open(cpu, &s, size);
    bt_stack_push(&s, cpu->seg[SEG_CS].selector);
    bt_stack_push(&s, bt_next_rip(cpu, op));
    if (!bt_stack_commit(cpu, &s, 0))
        return false;
    bt_set_sp(cpu, s.sp, s.mask);
    return true;
}

/* A code descriptor's last checks before it is loaded; L and D together mean nothing in long mode. */
static bool code_usable(struct bt_cpu *cpu, struct bt_desc *d, uint16_t sel)
{
    uint32_t both = ATTR_L | ATTR_DB;
    if (bt_long_mode(cpu) && (bt_desc_attr(d) & both) == both)
        return selector_gp(cpu, sel);
    if (!bt_desc_present(d))
        return bt_raise_error(cpu, VEC_NP, sel & 0xfffc);
    return bt_desc_mark_accessed(cpu, d);
}

/* Straight to a code segment: privilege stays. */
static bool far_direct(struct bt_cpu *cpu, const struct bt_op *op, uint16_t sel, struct bt_desc *d,
                       uint64_t rip, bool call)
{
    unsigned dpl = bt_desc_dpl(d);
    bool ok = bt_desc_conforming(d) ? dpl <= cpu->cpl : dpl == cpu->cpl && (sel & 3) <= cpu->cpl;
    if (!ok)
        return selector_gp(cpu, sel);
    if (!code_usable(cpu, d, sel))
        return false;
    struct x86_segment cs;
    bt_desc_segment(d, sel, &cs);
    if (!bt_code_target(cpu, &cs, rip, 0) || (call && !push_return(cpu, op, op->insn.opsize)))
        return false;
    bt_cs_set(cpu, &cs, cpu->cpl);
    cpu->rip = rip;
    bt_mode_update(cpu);
    return true;
}

/* The code segment that a call gate leads to. */
static bool gate_segment(struct bt_cpu *cpu, uint16_t sel, bool call, struct bt_desc *d)
{
    if (bt_selector_null(sel))
        return bt_raise_error(cpu, VEC_GP, 0);
    if (!bt_desc_read(cpu, sel, VEC_GP, 0, d))
        return false;
    unsigned dpl = bt_desc_dpl(d);
    bool inner_ok = call || bt_desc_conforming(d);
    bool size_ok = !bt_long_mode(cpu) || (bt_desc_attr(d) & (ATTR_L | ATTR_DB)) == ATTR_L;
    if (!bt_desc_code(d) || dpl > cpu->cpl || (dpl < cpu->cpl && !inner_ok) || !size_ok)
        return selector_gp(cpu, sel);
    return code_usable(cpu, d, sel);
}

/* CALL to a more privileged level through a 16- or 32-bit gate: `count` parameters move to the new stack. */
static bool call_inner(struct bt_cpu *cpu, const struct bt_op *op, const struct x86_segment *cs,
                       unsigned level, uint64_t rip, unsigned size, unsigned count)
{
    struct x86_segment ss;
    uint64_t sp, value;
    if (!bt_tss_stack(cpu, level, 0, &ss, &sp) || !bt_code_target(cpu, cs, rip, 0))
        return false;
    struct bt_stack s;
    bt_stack_open_at(cpu, &s, &ss, sp, size);
    bt_stack_push(&s, cpu->seg[SEG_SS].selector);
    bt_stack_push(&s, cpu->gpr[R_RSP]);
    while (count--) {
        if (!bt_stack_peek(cpu, count * size, size, &value))
            return false;
        bt_stack_push(&s, value);
    }
    bt_stack_push(&s, cpu->seg[SEG_CS].selector);
    bt_stack_push(&s, bt_next_rip(cpu, op));
    if (!bt_stack_commit(cpu, &s, ss.selector & 0xfffc))
        return false;
    cpu->seg[SEG_SS] = ss;
    cpu->gpr[R_RSP] = sp;
    bt_set_sp(cpu, s.sp, s.mask);
    return true;
}

/* The same through a 64-bit gate. */
static bool call_inner_64(struct bt_cpu *cpu, const struct bt_op *op, unsigned level)
{
    uint64_t rsp;
    if (!bt_tss_stack64(cpu, level, 0, &rsp))
        return false;
    struct bt_stack s;
    bt_stack_open_at(cpu, &s, NULL, rsp, 8);
    bt_stack_push(&s, cpu->seg[SEG_SS].selector);
    bt_stack_push(&s, cpu->gpr[R_RSP]);
    bt_stack_push(&s, cpu->seg[SEG_CS].selector);
    bt_stack_push(&s, bt_next_rip(cpu, op));
    if (!bt_stack_commit(cpu, &s, 0))
        return false;
    bt_seg_null(&cpu->seg[SEG_SS], (uint16_t)level, level);
    cpu->gpr[R_RSP] = s.sp;
    return true;
}

/* A 64-bit gate's stack is a 64-bit one even when the caller is in compatibility mode. */
static bool call_same_64(struct bt_cpu *cpu, const struct bt_op *op)
{
    struct bt_stack s;
    bt_stack_open_at(cpu, &s, NULL, cpu->gpr[R_RSP], 8);
    s.access = BT_WRITE;
    bt_stack_push(&s, cpu->seg[SEG_CS].selector);
    bt_stack_push(&s, bt_next_rip(cpu, op));
    if (!bt_stack_commit(cpu, &s, 0))
        return false;
    cpu->gpr[R_RSP] = s.sp;
    return true;
}

static bool far_gate(struct bt_cpu *cpu, const struct bt_op *op, const struct bt_desc *gate, bool call)
{
    bool long_mode = bt_long_mode(cpu);
    unsigned size = long_mode ? 8 : bt_desc_type(gate) == DESC_CALL32 ? 4 : 2;
    uint16_t sel = (uint16_t)(gate->low >> 16);
    uint64_t rip =
        bt_zext((gate->low & 0xffff) | (gate->high & 0xffff0000) | (uint64_t)gate->top << 32, size);
    struct bt_desc code;
    if (!gate_segment(cpu, sel, call, &code))
        return false;
    struct x86_segment cs;
    bt_desc_segment(&code, sel, &cs);
    if (!bt_code_target(cpu, &cs, rip, 0))
        return false;
    unsigned level = bt_desc_conforming(&code) ? cpu->cpl : bt_desc_dpl(&code);
    if (call && level < cpu->cpl) {
        if (long_mode ? !call_inner_64(cpu, op, level)
                      : !call_inner(cpu, op, &cs, level, rip, size, gate->high & 0x1f))
            return false;
    } else if (call && !(long_mode ? call_same_64(cpu, op) : push_return(cpu, op, size))) {
        return false;
    }
    bt_cs_set(cpu, &cs, level);
    cpu->rip = rip;
    bt_mode_update(cpu);
    return true;
}

/* To something that is no code segment: call gate, task gate or TSS. */
static bool far_system(struct bt_cpu *cpu, const struct bt_op *op, uint16_t sel, struct bt_desc *d, bool call)
{
    struct bt_task_switch how = {
        .cause = call ? TASK_CALL : TASK_JMP, .rip = bt_next_rip(cpu, op), .rflags = bt_rflags(cpu)};
    bool long_mode = bt_long_mode(cpu);
    unsigned type = bt_desc_type(d), dpl = bt_desc_dpl(d);
    uint32_t types = 1u << DESC_CALL32;
    if (!long_mode)
        types |= 1u << DESC_CALL16 | 1u << DESC_TASK_GATE | 1u << DESC_TSS16 | 1u << DESC_TSS32;
    if (!(types & 1u << type) || dpl < cpu->cpl || dpl < (sel & 3))
        return selector_gp(cpu, sel);
    if (!bt_desc_present(d))
        return bt_raise_error(cpu, VEC_NP, sel & 0xfffc);
    switch (type) {
    case DESC_TASK_GATE:
        return bt_task_gate(cpu, d, &how);
    case DESC_TSS16:
    case DESC_TSS32:
        return bt_task_switch(cpu, sel, &how);
    default:
        return bt_desc_read_system(cpu, sel, VEC_GP, 0, d) && far_gate(cpu, op, d, call);
    }
}

static bool far_transfer(struct bt_cpu *cpu, const struct bt_op *op, uint16_t sel, uint64_t rip, bool call)
{
    if (!bt_protected(cpu)) {
        if (rip > cpu->seg[SEG_CS].limit)
            return bt_raise_error(cpu, VEC_GP, 0);
        if (call && !push_return(cpu, op, op->insn.opsize))
            return false;
        bt_seg_set_real(cpu, SEG_CS, sel);
        cpu->rip = rip;
        bt_mode_update(cpu);
        return true;
    }
    if (bt_selector_null(sel))
        return bt_raise_error(cpu, VEC_GP, 0);
    struct bt_desc d;
    if (!bt_desc_read(cpu, sel, VEC_GP, 0, &d))
        return false;
    if (bt_desc_code(&d))
        return far_direct(cpu, op, sel, &d, rip, call);
    if (bt_desc_user(&d))
        return selector_gp(cpu, sel);
    return far_system(cpu, op, sel, &d, call);
}

/* ptr16:16 and ptr16:32. */
static bool far_immediate(struct bt_cpu *cpu, const struct bt_op *op, bool call)
{
    return far_transfer(cpu, op, (uint16_t)op->insn.imm[1],
                        bt_zext((uint64_t)op->insn.imm[0], op->insn.opsize), call);
}

/* m16:16, m16:32, m16:64. */
static bool far_memory(struct bt_cpu *cpu, const struct bt_op *op, bool call)
{
    const struct x86_insn *in = &op->insn;
    uint64_t ea = bt_effective_address(cpu, in), rip = 0;
    uint16_t sel;
    return bt_read_seg(cpu, in->mem.seg, ea, &rip, in->opsize) &&
           bt_read_seg(cpu, in->mem.seg, bt_zext(ea + in->opsize, in->addrsize), &sel, 2) &&
           far_transfer(cpu, op, sel, rip, call);
}

static bool op_jmp_far_immediate(struct bt_cpu *cpu, const struct bt_op *op)
{
    return far_immediate(cpu, op, false);
}

static bool op_call_far_immediate(struct bt_cpu *cpu, const struct bt_op *op)
{
    return far_immediate(cpu, op, true);
}

static bool op_jmp_far_memory(struct bt_cpu *cpu, const struct bt_op *op)
{
    return far_memory(cpu, op, false);
}

static bool op_call_far_memory(struct bt_cpu *cpu, const struct bt_op *op)
{
    return far_memory(cpu, op, true);
}

/* ---- software interrupts ---- */

static bool soft_interrupt(struct bt_cpu *cpu, const struct bt_op *op, unsigned vector)
{
    bt_raise(cpu, vector);
    cpu->exc.soft = true;
    cpu->exc.next_rip = bt_next_rip(cpu, op);
    return false;
}

static bool op_int(struct bt_cpu *cpu, const struct bt_op *op)
{
    if ((cpu->sysflags & FLAG_VM) && bt_iopl(cpu) < 3)
        return bt_raise_error(cpu, VEC_GP, 0);
    return soft_interrupt(cpu, op, (uint8_t)op->insn.imm[0]);
}

static bool op_int3(struct bt_cpu *cpu, const struct bt_op *op)
{
    return soft_interrupt(cpu, op, VEC_BP);
}

/* INT1 is no software interrupt: no DPL check, EXT set; it leaves DR6 alone and returns after itself. */
static bool op_int1(struct bt_cpu *cpu, const struct bt_op *op)
{
    bt_op_next(cpu, op);
    bt_raise(cpu, VEC_DB);
    cpu->exc.external = true;
    return false;
}

static bool op_into(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (bt_status(cpu) & FLAG_OF)
        return soft_interrupt(cpu, op, VEC_OF);
    return bt_op_next(cpu, op);
}

const struct bt_op_entry bt_ops_far[] = {
    {ZYDIS_MNEMONIC_JMP, 0xea, op_jmp_far_immediate},
    {ZYDIS_MNEMONIC_CALL, 0x9a, op_call_far_immediate},
    {ZYDIS_MNEMONIC_JMP, 0xff, op_jmp_far_memory, false, BT_OP_GROUP(5)},
    {ZYDIS_MNEMONIC_CALL, 0xff, op_call_far_memory, false, BT_OP_GROUP(3)},
    {ZYDIS_MNEMONIC_INT, 0, op_int},
    {ZYDIS_MNEMONIC_INT3, 0, op_int3},
    {ZYDIS_MNEMONIC_INT1, 0, op_int1},
    {ZYDIS_MNEMONIC_INTO, 0, op_into},
    {0},
};
