/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses of memory operands, and the inline soft TLB look-up. */
#include "engine/bt/translate.h"

uint8_t tr_gpr(struct tr *t, unsigned guest, uint8_t scratch)
{
    if (bt_host_reg[guest] != H_NONE)
        return bt_host_reg[guest];
    emit_load(&t->e, 8, scratch, CPU_GPR(guest));
    return scratch;
}

/* T0 = RIP that page offset `off` has, plus disp. */
static void load_pc(struct tr *t, int64_t off_disp, unsigned size)
{
    emit_load(&t->e, 8, T0, CPU(pc_base));
    if (off_disp == (int32_t)off_disp) {
        emit_lea(&t->e, size, T0, MEM_DISP(T0, (int32_t)off_disp));
    } else {
        emit_mov_imm(&t->e, T1, (uint64_t)off_disp);
        emit_lea(&t->e, size, T0, (struct host_mem){T0, T1, 1, 0});
    }
}

void tr_address(struct tr *t, const struct x86_insn *insn)
{
    const struct x86_mem *m = &insn->mem;
    struct emitter *e = &t->e;
    unsigned size = insn->addrsize == 8 ? 8 : 4;
    if (m->base == REG_PC) {
        load_pc(t, tr_next_off(t) + m->disp, size);
    } else if (m->base == REG_NONE && m->index == REG_NONE) {
        emit_mov_imm(e, T0, size == 8 ? (uint64_t)m->disp : (uint32_t)m->disp);
    } else {
        struct host_mem a = {H_NONE, H_NONE, m->scale, (int32_t)m->disp};
        if (m->base != REG_NONE)
            a.base = tr_gpr(t, m->base, T0);
        if (m->index != REG_NONE)
            a.index = tr_gpr(t, m->index, T1);
        if (a.base == H_NONE && a.scale == 1) {
            a.base = a.index;
            a.index = H_NONE;
        }
        emit_lea(e, size, T0, a);
    }
    if (insn->addrsize == 2) {
        const uint8_t movzx_t0d_t0w[] = {0x45, 0x0f, 0xb7, 0xd2};
        emit_bytes(e, movzx_t0d_t0w, sizeof(movzx_t0d_t0w));
    }
    if (tr_direct_mem(t, insn) && (m->seg == SEG_FS || m->seg == SEG_GS)) {
        emit_load(e, 8, T1, CPU_AT(offsetof(struct bt_cpu, seg_base) + 8u * m->seg));
        emit_lea(e, 8, T0, (struct host_mem){T0, T1, 1, 0});
    }
}

_Static_assert(sizeof(struct bt_tlb_entry) == 32, "the look-up scales by 32");

void tr_check(struct tr *t, unsigned size, bool write, unsigned seg)
{
    tr_check_desc(t, DESC(tr_this_off(t), size, write, seg));
}

void tr_check_desc(struct tr *t, uint32_t desc)
{
    struct emitter *e = &t->e;
    bool write = DESC_WRITE(desc);
    int32_t tag =
        (int32_t)(write ? offsetof(struct bt_tlb_entry, write_tag) : offsetof(struct bt_tlb_entry, read_tag));
    emit_mov(e, 8, T1, T0);
    emit_shift(e, SHIFT_SHR, 8, T1, GUEST_PAGE_SHIFT - 5);
    emit_alu_imm(e, ALU_AND, 4, T1, (int32_t)((BT_TLB_SIZE - 1) << 5));
    emit_alu_mem(e, ALU_ADD, 8, T1, CPU(tlb));
    emit_alu_mem(e, ALU_SUB, 8, T0, MEM_DISP(T1, tag));
    emit_alu_imm(e, ALU_CMP, 8, T0, (int32_t)(GUEST_PAGE_SIZE - DESC_SIZE(desc)));
    struct stub *s = tr_stub(t, STUB_ACCESS, emit_jcc(e, CC_A));
    emit_alu_mem(e, ALU_ADD, 8, T0, MEM_DISP(T1, (int32_t)offsetof(struct bt_tlb_entry, host)));
    if (!s)
        return;
    s->desc = desc;
    s->resume = e->p;
    s->target = tag;
}
