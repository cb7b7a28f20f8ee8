/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IRET and far RET in every mode (SDM vol. 2, "IRET" and "RET"). gpr-only. */
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

/* A return being checked: what came off the stack, and how much. */
struct far_return {
    unsigned size;    /* of each value */
    uint64_t bytes;   /* stack bytes below SS:RSP, immediate included */
    uint64_t release; /* RET imm16: also added to the outer stack pointer */
    bool iret;
    uint64_t rip, cs, rflags, rsp, ss;
};

/* Whether code in `cs` runs in 64-bit mode. */
static bool is_code64(const struct bt_cpu *cpu, const struct x86_segment *cs)
{
    return bt_long_mode(cpu) && (cs->attr & ATTR_L);
}

/* Protected mode: the code segment that is returned to. */
static bool return_segment(struct bt_cpu *cpu, uint16_t sel, struct x86_segment *cs)
{
    if (bt_selector_null(sel))
        return bt_raise_error(cpu, VEC_GP, 0);
    struct bt_desc d;
    if (!bt_desc_read(cpu, sel, VEC_GP, 0, &d))
        return false;
    unsigned rpl = sel & 3, dpl = bt_desc_dpl(&d);
    bool dpl_ok = bt_desc_conforming(&d) ? dpl <= rpl : dpl == rpl;
    uint32_t attr = bt_desc_attr(&d);
    bool size_ok = !bt_long_mode(cpu) || (attr & (ATTR_L | ATTR_DB)) != (ATTR_L | ATTR_DB);
    if (!bt_desc_code(&d) || rpl < cpu->cpl || !dpl_ok || !size_ok)
        return bt_raise_error(cpu, VEC_GP, sel & 0xfffc);
    if (!bt_desc_present(&d))
        return bt_raise_error(cpu, VEC_NP, sel & 0xfffc);
    if (!bt_desc_mark_accessed(cpu, &d))
        return false;
    bt_desc_segment(&d, sel, cs);
    return true;
}

/* RFLAGS as IRET at the current CPL may change them. */
static uint64_t iret_flags(const struct bt_cpu *cpu, uint64_t popped, unsigned size)
{
    uint64_t mask = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT;
    if (size >= 4)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    if (cpu->cpl <= bt_iopl(cpu))
        mask |= FLAG_IF;
    if (cpu->cpl == 0)
        mask |= FLAG_IOPL | (size >= 4 ? FLAG_VIF | FLAG_VIP : 0);
    return (bt_rflags(cpu) & ~mask) | (popped & mask);
}

/* The stack pointer of where we return to; cpu->seg[SEG_CS] and SS are its already. */
static void set_return_sp(struct bt_cpu *cpu, uint64_t rsp)
{
    if (is_code64(cpu, &cpu->seg[SEG_CS])) {
        cpu->gpr[R_RSP] = rsp;
        return;
    }
    /* A 16-bit stack takes SP only; ESP's upper half stays what it was, as on the processor. */
    bt_set_sp(cpu, rsp, (cpu->seg[SEG_SS].attr & ATTR_DB) ? UINT32_MAX : UINT16_MAX);
    cpu->gpr[R_RSP] = (uint32_t)cpu->gpr[R_RSP];
}

/* Checks and makes a return in protected mode whose values are all read but SS:RSP. */
static bool return_protected(struct bt_cpu *cpu, struct far_return *r, bool have_stack)
{
    struct x86_segment cs, ss;
    if (!return_segment(cpu, (uint16_t)r->cs, &cs))
        return false;
    unsigned level = r->cs & 3, old_level = cpu->cpl;
    bool new_stack = have_stack || level > old_level;
    if (new_stack) {
        if (!have_stack && (!bt_stack_peek(cpu, r->bytes, r->size, &r->rsp) ||
                            !bt_stack_peek(cpu, r->bytes + r->size, r->size, &r->ss)))
            return false;
        if (!bt_seg_check(cpu, SEG_SS, (uint16_t)r->ss, level, is_code64(cpu, &cs), VEC_GP, 0, &ss))
            return false;
    }
    if (!bt_code_target(cpu, &cs, r->rip, 0))
        return false;

    if (!new_stack)
        bt_stack_drop(cpu, r->bytes);
    if (r->iret)
        bt_flags_store(cpu, iret_flags(cpu, r->rflags, r->size));
    bt_cs_set(cpu, &cs, level);
    cpu->rip = r->rip;
    if (new_stack) {
        cpu->seg[SEG_SS] = ss;
        set_return_sp(cpu, r->rsp + r->release);
    }
    if (level > old_level)
        bt_seg_drop_inner(cpu);
    bt_mode_update(cpu);
    return true;
}

static bool read_frame(struct bt_cpu *cpu, struct far_return *r)
{
    return bt_stack_peek(cpu, 0, r->size, &r->rip) && bt_stack_peek(cpu, r->size, r->size, &r->cs) &&
           (!r->iret || bt_stack_peek(cpu, r->size * 2, r->size, &r->rflags));
}

/* IRETQ's whole frame in one read: every return of a 64-bit kernel. */
static bool iret_64(struct bt_cpu *cpu, struct far_return *r)
{
    uint64_t frame[5], lin;
    if (r->size == 8) {
        if (!bt_seg_linear(cpu, SEG_SS, cpu->gpr[R_RSP], sizeof(frame), BT_READ, &lin) ||
            !bt_read_lin(cpu, lin, frame, sizeof(frame), BT_READ))
            return false;
    } else {
        for (unsigned i = 0; i < ARRAY_SIZE(frame); i++)
            if (!bt_stack_peek(cpu, i * r->size, r->size, &frame[i]))
                return false;
    }
    r->rip = frame[0];
    r->cs = frame[1];
    r->rflags = frame[2];
    r->rsp = frame[3];
    r->ss = frame[4];
    return return_protected(cpu, r, true);
}

/* IRET in real mode, and in virtual-8086 mode with IOPL 3. */
static bool iret_real(struct bt_cpu *cpu, struct far_return *r)
{
    if (!read_frame(cpu, r))
        return false;
    if (r->rip > cpu->seg[SEG_CS].limit)
        return bt_raise_error(cpu, VEC_GP, 0);
    uint64_t keep = FLAG_VM | FLAG_VIF | FLAG_VIP;
    if (cpu->sysflags & FLAG_VM)
        keep |= FLAG_IOPL;
    if (r->size == 2)
        keep |= ~UINT64_C(0xffff);
    bt_stack_drop(cpu, r->size * 3);
    bt_flags_store(cpu, (bt_rflags(cpu) & keep) | (r->rflags & ~keep));
    bt_seg_set_real(cpu, SEG_CS, (uint16_t)r->cs);
    cpu->rip = r->rip;
    bt_mode_update(cpu);
    return true;
}

/* IRET at CPL 0 with VM set in the image. */
static bool iret_to_v86(struct bt_cpu *cpu, struct far_return *r)
{
    static const uint8_t order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    uint64_t esp, sel[ARRAY_SIZE(order)];
    if (!bt_stack_peek(cpu, 12, 4, &esp))
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        if (!bt_stack_peek(cpu, 16 + i * 4, 4, &sel[i]))
            return false;
    if (r->rip > 0xffff)
        return bt_raise_error(cpu, VEC_GP, 0);
    bt_flags_store(cpu, r->rflags);
    bt_seg_set_real(cpu, SEG_CS, (uint16_t)r->cs);
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        bt_seg_set_real(cpu, order[i], (uint16_t)sel[i]);
    cpu->gpr[R_RSP] = esp;
    cpu->rip = r->rip;
    cpu->cpl = 3;
    bt_mode_update(cpu);
    return true;
}

/* IRET with NT: back to the task whose TSS the current one links to. */
static bool iret_task(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (bt_long_mode(cpu))
        return bt_raise_error(cpu, VEC_GP, 0);
    uint16_t link;
    if (!bt_read_lin(cpu, cpu->seg[SEG_TR].base, &link, 2, BT_READ | BT_IMPLICIT))
        return false;
    struct bt_task_switch how = {.cause = TASK_IRET, .rip = bt_next_rip(cpu, op), .rflags = bt_rflags(cpu)};
    return bt_task_switch(cpu, link, &how);
}

static void unblock_nmi(struct bt_cpu *cpu)
{
    cpu->nmi_blocked = false;
    if (cpu->nmi_pending) {
        atomic_fetch_or(&cpu->requests, BT_REQ_EVENT);
        atomic_store(&cpu->kick, 1);
    }
}

static bool op_iret(struct bt_cpu *cpu, const struct bt_op *op)
{
    struct far_return r = {.size = op->insn.opsize, .iret = true, .bytes = op->insn.opsize * 3};
    if ((cpu->sysflags & FLAG_VM) && bt_iopl(cpu) < 3)
        return bt_raise_error(cpu, VEC_GP, 0);
    /* NMIs come again from here on, even where IRET faults. */
    unblock_nmi(cpu);
    if (!bt_protected(cpu))
        return iret_real(cpu, &r);
    if (cpu->sysflags & FLAG_NT)
        return iret_task(cpu, op);
    if (bt_code64(cpu))
        return iret_64(cpu, &r);
    if (!read_frame(cpu, &r))
        return false;
    if (r.size == 4 && (r.rflags & FLAG_VM) && cpu->cpl == 0 && !bt_long_mode(cpu))
        return iret_to_v86(cpu, &r);
    return return_protected(cpu, &r, false);
}

static bool op_ret_far(struct bt_cpu *cpu, const struct bt_op *op)
{
    struct far_return r = {.size = op->insn.opsize};
    r.release = op->insn.opcode == 0xca ? (uint16_t)op->insn.imm[0] : 0;
    r.bytes = r.size * 2 + r.release;
    if (!read_frame(cpu, &r))
        return false;
    if (bt_protected(cpu))
        return return_protected(cpu, &r, false);
    if (r.rip > cpu->seg[SEG_CS].limit)
        return bt_raise_error(cpu, VEC_GP, 0);
    bt_stack_drop(cpu, r.bytes);
    bt_seg_set_real(cpu, SEG_CS, (uint16_t)r.cs);
    cpu->rip = r.rip;
    bt_mode_update(cpu);
    return true;
}

const struct bt_op_entry bt_ops_return[] = {
    {ZYDIS_MNEMONIC_IRET, 0, op_iret},      {ZYDIS_MNEMONIC_IRETD, 0, op_iret},
    {ZYDIS_MNEMONIC_IRETQ, 0, op_iret},     {ZYDIS_MNEMONIC_RET, 0xca, op_ret_far},
    {ZYDIS_MNEMONIC_RET, 0xcb, op_ret_far}, {0},
};
