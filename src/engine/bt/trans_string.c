/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * REP STOS and REP MOVS in place, where they are all in one page each that the TLB knows and go upwards: the
 * usual case in kernels and the C library, and far cheaper than the way to C, which does the rest.
 *
 *     rep stosq          cmp gs:df, 0; jne slow
 *                        cmp rcx, 512; ja slow
 *                        (T0 = rdi's offset in its page, T1 = TLB entry; not there: slow)
 *                        lea t0, [t0 + 8 * rcx]; cmp t0, 4096; ja slow
 *                        mov t1, [t1 + addend]; add rdi, t1; rep stosq; sub rdi, t1; jmp link1
 *                 slow:  (to C)
 */
#include "engine/bt/ops.h"
#include "engine/bt/translate.h"

#define IS_STOS  8u /* bit of the opcode: A4, A5 are MOVS, AA, AB STOS */
#define SLOW_MAX 8u

bool tr_is_string(const struct tr *t, const struct x86_insn *insn)
{
    bool opcode = insn->encoding == ENC_LEGACY && insn->map == 0 &&
                  ((insn->opcode & 0xfe) == 0xa4 || (insn->opcode & 0xfe) == 0xaa);
    unsigned seg = bt_segment_override(insn);
    return BT_STRINGS && opcode && insn->rep && tr_flat(t) && (t->mode & MODE_CODE64) &&
           insn->addrsize == 8 && seg != SEG_FS && seg != SEG_GS;
}

/* Jumps that lead to C. */
struct slow {
    uint8_t *at[SLOW_MAX];
    unsigned count;
};

static void slow_if(struct tr *t, struct slow *slow, uint8_t cc)
{
    slow->at[slow->count++] = emit_jcc(&t->e, cc);
}

/* T1 becomes the addend of `reg`'s page, in which all RCX elements lie. */
static void look_up_run(struct tr *t, struct slow *slow, uint8_t reg, size_t tag, unsigned size)
{
    struct emitter *e = &t->e;
    emit_mov(e, 8, T0, reg);
    tr_tlb_entry(t, reg);
    emit_alu_mem(e, ALU_SUB, 8, T0, MEM_DISP(T1, (int32_t)tag));
    emit_alu_imm(e, ALU_CMP, 8, T0, (int32_t)GUEST_PAGE_SIZE - 1);
    slow_if(t, slow, CC_A);
    emit_lea(e, 8, T0, (struct host_mem){T0, H_RCX, (uint8_t)size, 0});
    emit_alu_imm(e, ALU_CMP, 8, T0, (int32_t)GUEST_PAGE_SIZE);
    slow_if(t, slow, CC_A);
    emit_load(e, 8, T1, MEM_DISP(T1, (int32_t)offsetof(struct bt_tlb_entry, addend)));
}

static void emit_rep(struct emitter *e, const struct x86_insn *insn, unsigned size)
{
    emit_u8(e, 0xf3);
    if (size == 2)
        emit_u8(e, 0x66);
    if (size == 8)
        emit_u8(e, 0x48);
    emit_u8(e, insn->opcode);
}

void tr_string(struct tr *t, const struct x86_insn *insn)
{
    struct emitter *e = &t->e;
    struct slow slow = {.count = 0};
    bool moves = !(insn->opcode & IS_STOS);
    unsigned size = insn->opcode & 1 ? insn->opsize : 1;
    tr_need_saved_flags(t);
    t->flags_host = false;
    emit_cmp_mem_imm8(e, 4, CPU(df), 0);
    slow_if(t, &slow, CC_NE);
    emit_alu_imm(e, ALU_CMP, 8, H_RCX, (int32_t)(GUEST_PAGE_SIZE / size));
    slow_if(t, &slow, CC_A);
    if (moves) {
        look_up_run(t, &slow, H_RSI, offsetof(struct bt_tlb_entry, read_tag), size);
        emit_store(e, 8, CPU(spill[0]), T1);
    }
    look_up_run(t, &slow, H_RDI, offsetof(struct bt_tlb_entry, write_tag), size);
    if (moves) {
        emit_load(e, 8, T0, CPU(spill[0]));
        emit_alu_op(e, ALU_ADD, 8, H_RSI, T0);
    }
    emit_alu_op(e, ALU_ADD, 8, H_RDI, T1);
    emit_rep(e, insn, size);
    emit_alu_op(e, ALU_SUB, 8, H_RDI, T1);
    if (moves)
        emit_alu_op(e, ALU_SUB, 8, H_RSI, T0);
    tr_exit_direct(t, 1, tr_next_off(t));
    for (unsigned i = 0; i < slow.count && !e->full; i++)
        emit_patch(slow.at[i], e->p);
    tr_exit_op(t, insn, t->op[t->i], t->heavy[t->i]);
}
