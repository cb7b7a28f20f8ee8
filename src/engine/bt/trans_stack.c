/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stack instructions in flat modes, operand size 4 or 8: PUSH, POP, CALL, RET, LEAVE. */
#include "engine/bt/flags.h"
#include "engine/bt/translate.h"

static void move_stack(struct tr *t, unsigned size, int32_t by)
{
    emit_lea(&t->e, size, H_GRSP, MEM_DISP(H_GRSP, by));
}

/* A scratch register that the operand does not use, after making one. */
static uint8_t free_scratch(struct tr *t, struct host_mem *mem)
{
    if (mem->base != T0 && mem->index != T0)
        return T0;
    if (mem->base == T1 || mem->index == T1) {
        emit_lea(&t->e, 8, T0, *mem);
        *mem = MEM_AT(T0);
    }
    return tr_scratch(t);
}

void tr_push_gpr(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    unsigned guest = insn->opreg.kind == FIELD_GPR ? insn->opreg.reg : insn->rm.reg;
    struct host_mem to = tr_mem(t, TR_STACK);
    emit_store(&t->e, size, to, tr_gpr(t, guest, free_scratch(t, &to)));
    move_stack(t, size, -(int32_t)size);
}

void tr_push_imm(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    struct host_mem to = tr_mem(t, TR_STACK);
    emit_op_mem(&t->e, 0xc7, size, 0, to);
    emit_u32(&t->e, (uint32_t)insn->imm[0]);
    move_stack(t, size, -(int32_t)size);
}

/* The operand's value into cpu->spill[n], before the stack is looked at. */
static void spill_operand(struct tr *t, unsigned size, unsigned n)
{
    emit_load(&t->e, size, T0, tr_mem(t, TR_OPERAND));
    emit_store(&t->e, 8, CPU_AT(offsetof(struct bt_cpu, spill) + 8u * n), T0);
}

void tr_push_mem(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    spill_operand(t, size, 0);
    struct host_mem to = tr_mem(t, TR_STACK);
    uint8_t value = free_scratch(t, &to);
    emit_load(&t->e, 8, value, CPU(spill));
    emit_store(&t->e, size, to, value);
    move_stack(t, size, -(int32_t)size);
}

/* 64-bit PUSHF. RF is clear while blocks run, VM in 64-bit mode. */
void tr_pushf(struct tr *t)
{
    struct emitter *e = &t->e;
    tr_need_saved_flags(t);
    emit_load(e, 4, T0, CPU(status)); /* see flags.h */
    emit_alu_imm(e, ALU_AND, 4, T0, 1);
    emit_shift(e, SHIFT_SHL, 4, T0, 11); /* OF */
    emit_store(e, 8, CPU(spill), T0);
    t->flags_host = false;
    struct host_mem to = tr_mem(t, TR_STACK);
    uint8_t value = free_scratch(t, &to);
    emit_load(e, 4, value, CPU(status));
    emit_shift(e, SHIFT_SHR, 4, value, 8);
    emit_alu_imm(e, ALU_AND, 4, value, BT_STATUS_AH);
    emit_alu_mem(e, ALU_OR, 8, value, CPU(spill));
    emit_alu_mem(e, ALU_OR, 4, value, CPU(df));
    emit_alu_mem(e, ALU_OR, 4, value, CPU(iflag));
    emit_alu_mem(e, ALU_OR, 8, value, CPU(sysflags));
    emit_alu_imm(e, ALU_OR, 4, value, 2);
    emit_store(e, 8, to, value);
    move_stack(t, 8, -8);
}

void tr_pop_gpr(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    unsigned guest = insn->opreg.kind == FIELD_GPR ? insn->opreg.reg : insn->rm.reg;
    struct host_mem from = tr_mem(t, TR_STACK);
    if (guest == R_RSP) {
        emit_load(&t->e, size, H_GRSP, from);
        return;
    }
    uint8_t host = bt_host_reg[guest];
    emit_load(&t->e, size, host == H_NONE ? T0 : host, from);
    if (host == H_NONE)
        emit_store(&t->e, 8, CPU_GPR(guest), T0);
    move_stack(t, size, (int32_t)size);
}

void tr_call(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    if (insn->mem.present) {
        spill_operand(t, size, 1);
    } else if (!insn->imm_relative) {
        emit_mov(&t->e, size, T0, tr_gpr(t, insn->rm.reg, T0));
        emit_store(&t->e, 8, CPU_AT(offsetof(struct bt_cpu, spill) + 8), T0);
    }
    struct host_mem to = tr_mem(t, TR_STACK);
    uint8_t back = free_scratch(t, &to);
    emit_load(&t->e, 8, back, CPU(pc_base));
    emit_lea(&t->e, size, back, MEM_DISP(back, tr_next_off(t)));
    emit_store(&t->e, size, to, back);
    move_stack(t, size, -(int32_t)size);
    if (insn->imm_relative) {
        tr_exit_direct(t, 0, (int32_t)(tr_next_off(t) + insn->imm[0]));
    } else {
        emit_load(&t->e, 8, T0, CPU_AT(offsetof(struct bt_cpu, spill) + 8));
        tr_exit_indirect(t, (int32_t)size);
    }
}

void tr_ret(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    emit_load(&t->e, size, T0, tr_mem(t, TR_STACK));
    int32_t popped = (int32_t)size + (insn->imm_count ? (int32_t)(uint16_t)insn->imm[0] : 0);
    move_stack(t, size, popped);
    tr_exit_indirect(t, -popped);
}

void tr_leave(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    struct host_mem from = tr_mem(t, TR_STACK);
    emit_lea(&t->e, size, H_GRSP, MEM_DISP(H_RBP, (int32_t)size));
    emit_load(&t->e, size, H_RBP, from);
}
