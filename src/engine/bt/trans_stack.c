/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stack instructions in flat modes, operand size 4 or 8: PUSH, POP, CALL, RET, LEAVE. */
#include "engine/bt/translate.h"

/* T0 = host address of the `size` bytes below the stack pointer. */
static void below_stack(struct tr *t, unsigned size)
{
    tr_clobber_flags(t);
    emit_lea(&t->e, size, T0, MEM_DISP(H_GRSP, -(int32_t)size));
    tr_check(t, size, true, SEG_SS);
}

/* T0 = host address of the top of the stack. */
static void at_stack(struct tr *t, unsigned size)
{
    tr_clobber_flags(t);
    emit_mov(&t->e, size, T0, H_GRSP);
    tr_check(t, size, false, SEG_SS);
}

static void move_stack(struct tr *t, unsigned size, int32_t by)
{
    emit_lea(&t->e, size, H_GRSP, MEM_DISP(H_GRSP, by));
}

void tr_push_gpr(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    unsigned guest = insn->opreg.kind == FIELD_GPR ? insn->opreg.reg : insn->rm.reg;
    below_stack(t, size);
    emit_store(&t->e, size, MEM_AT(T0), tr_gpr(t, guest, T1));
    move_stack(t, size, -(int32_t)size);
}

void tr_push_imm(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    below_stack(t, size);
    emit_op_mem(&t->e, 0xc7, size, 0, MEM_AT(T0));
    emit_u32(&t->e, (uint32_t)insn->imm[0]);
    move_stack(t, size, -(int32_t)size);
}

void tr_push_mem(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    tr_clobber_flags(t);
    tr_address(t, insn);
    tr_check(t, size, false, insn->mem.seg);
    emit_load(&t->e, size, T0, MEM_AT(T0));
    emit_store(&t->e, 8, CPU(spill), T0);
    below_stack(t, size);
    emit_load(&t->e, 8, T1, CPU(spill));
    emit_store(&t->e, size, MEM_AT(T0), T1);
    move_stack(t, size, -(int32_t)size);
}

void tr_pop_gpr(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    unsigned guest = insn->opreg.kind == FIELD_GPR ? insn->opreg.reg : insn->rm.reg;
    at_stack(t, size);
    if (guest == R_RSP) {
        emit_load(&t->e, size, H_GRSP, MEM_AT(T0));
        return;
    }
    uint8_t host = bt_host_reg[guest];
    emit_load(&t->e, size, host == H_NONE ? T0 : host, MEM_AT(T0));
    if (host == H_NONE)
        emit_store(&t->e, 8, CPU_GPR(guest), T0);
    move_stack(t, size, (int32_t)size);
}

/* The target of an indirect CALL or JMP into cpu->spill[1], before anything is pushed. */
static void load_target(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    if (insn->mem.present) {
        tr_clobber_flags(t);
        tr_address(t, insn);
        tr_check(t, size, false, insn->mem.seg);
        emit_load(&t->e, size, T0, MEM_AT(T0));
        emit_store(&t->e, 8, CPU_AT(offsetof(struct bt_cpu, spill) + 8), T0);
    } else {
        uint8_t host = tr_gpr(t, insn->rm.reg, T0);
        emit_mov(&t->e, size, T0, host);
        emit_store(&t->e, 8, CPU_AT(offsetof(struct bt_cpu, spill) + 8), T0);
    }
}

void tr_call(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    if (!insn->imm_relative)
        load_target(t, insn);
    below_stack(t, size);
    emit_load(&t->e, 8, T1, CPU(pc_base));
    emit_lea(&t->e, size, T1, MEM_DISP(T1, tr_next_off(t)));
    emit_store(&t->e, size, MEM_AT(T0), T1);
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
    at_stack(t, size);
    emit_load(&t->e, size, T0, MEM_AT(T0));
    int32_t popped = (int32_t)size + (insn->imm_count ? (int32_t)(uint16_t)insn->imm[0] : 0);
    move_stack(t, size, popped);
    tr_exit_indirect(t, -popped);
}

void tr_leave(struct tr *t, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    tr_clobber_flags(t);
    emit_mov(&t->e, size, T0, H_RBP);
    tr_check(t, size, false, SEG_SS);
    emit_lea(&t->e, size, H_GRSP, MEM_DISP(H_RBP, (int32_t)size));
    emit_load(&t->e, size, H_RBP, MEM_AT(T0));
}
