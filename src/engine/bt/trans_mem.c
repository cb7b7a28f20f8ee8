/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses of memory operands, and the inline soft TLB look-up. */
#include "engine/bt/translate.h"

uint8_t tr_gpr(struct tr *t, unsigned guest, uint8_t scratch)
{
    if (bt_host_reg[guest] != H_NONE)
        return bt_host_reg[guest];
    if (scratch == T1)
        t->t1_group = TR_NO_GROUP;
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
        emit_mov_imm(&t->e, tr_scratch(t), (uint64_t)off_disp);
        emit_lea(&t->e, size, T0, (struct host_mem){T0, T1, 1, 0});
    }
}

/* T0 = base + index * scale + disp of an access, cut to the address size. May clobber T1. */
static void whole_address(struct tr *t, const struct tr_access *a, int64_t disp)
{
    struct emitter *e = &t->e;
    unsigned size = a->addrsize == 8 ? 8 : 4;
    if (a->base == REG_PC) {
        load_pc(t, disp, size);
    } else if (a->base == REG_NONE && a->index == REG_NONE) {
        emit_mov_imm(e, T0, size == 8 ? (uint64_t)disp : (uint32_t)disp);
    } else {
        struct host_mem m = {H_NONE, H_NONE, a->scale, (int32_t)disp};
        if (a->base != REG_NONE)
            m.base = tr_gpr(t, a->base, T0);
        if (a->index != REG_NONE)
            m.index = bt_host_reg[a->index] != H_NONE
                          ? bt_host_reg[a->index]
                          : tr_gpr(t, a->index, m.base == T0 ? tr_scratch(t) : T0);
        if (m.base == H_NONE && m.scale == 1) {
            m.base = m.index;
            m.index = H_NONE;
        }
        emit_lea(e, size, T0, m);
    }
    if (a->addrsize == 2) {
        const uint8_t movzx_t0d_t0w[] = {0x45, 0x0f, 0xb7, 0xd2};
        emit_bytes(e, movzx_t0d_t0w, sizeof(movzx_t0d_t0w));
    }
}

static void add_segment_base(struct tr *t, unsigned seg)
{
    emit_load(&t->e, 8, tr_scratch(t), CPU_AT(offsetof(struct bt_cpu, seg_base) + 8u * seg));
    emit_lea(&t->e, 8, T0, (struct host_mem){T0, T1, 1, 0});
}

void tr_address(struct tr *t, const struct x86_insn *insn)
{
    const struct x86_mem *m = &insn->mem;
    struct tr_access a = {.base = m->base,
                          .index = m->index,
                          .scale = m->index == REG_NONE ? 1 : m->scale,
                          .addrsize = insn->addrsize,
                          .disp = m->disp};
    whole_address(t, &a, m->base == REG_PC ? tr_next_off(t) + m->disp : m->disp);
    if (tr_direct_mem(t, insn) && (m->seg == SEG_FS || m->seg == SEG_GS))
        add_segment_base(t, m->seg);
}

_Static_assert(sizeof(struct bt_tlb_entry) == 32, "the look-up scales by 32");

void tr_tlb_entry(struct tr *t, uint8_t lin)
{
    struct emitter *e = &t->e;
    emit_mov(e, 8, tr_scratch(t), lin);
    emit_shift(e, SHIFT_SHR, 8, T1, GUEST_PAGE_SHIFT - 5);
    emit_alu_imm(e, ALU_AND, 4, T1, (int32_t)((BT_TLB_SIZE - 1) << 5));
    emit_alu_mem(e, ALU_ADD, 8, T1, CPU(tlb));
}

/* T0: linear address; T1 becomes the addend, or a stub sees to it. `keep`: T0 stays the linear address. */
static void look_up(struct tr *t, uint32_t desc, bool keep, unsigned link)
{
    struct emitter *e = &t->e;
    int32_t tag = (int32_t)(DESC_WRITE(desc) ? offsetof(struct bt_tlb_entry, write_tag)
                                             : offsetof(struct bt_tlb_entry, read_tag));
    tr_tlb_entry(t, T0);
    emit_alu_mem(e, ALU_SUB, 8, T0, MEM_DISP(T1, tag));
    emit_alu_imm(e, ALU_CMP, 8, T0, (int32_t)(GUEST_PAGE_SIZE - DESC_SIZE(desc)));
    struct stub *s = tr_stub(t, STUB_ACCESS, emit_jcc(e, CC_A));
    if (keep) /* by the tag that no other thread takes away meanwhile; it is the same */
        emit_alu_mem(e, ALU_ADD, 8, T0, MEM_DISP(T1, (int32_t)offsetof(struct bt_tlb_entry, read_tag)));
    emit_load(e, 8, T1, MEM_DISP(T1, (int32_t)offsetof(struct bt_tlb_entry, addend)));
    if (!s)
        return;
    s->desc = desc;
    s->resume = e->p;
    s->tag = tag;
    s->link = link;
}

void tr_check(struct tr *t, unsigned size, bool write, unsigned seg)
{
    look_up(t, DESC(tr_this_off(t), size, write, seg), true, 0);
    emit_lea(&t->e, 8, T0, (struct host_mem){T0, T1, 1, 0});
}

/*
 * Looks a group's span up before the current instruction, `a` being its first access. Afterwards T1 is what
 * an operand's address lacks. `keep`: T0 is the linear address.
 */
static void check_group(struct tr *t, const struct tr_access *a, uint32_t more, bool keep)
{
    struct emitter *e = &t->e;
    struct tr_group *g = &t->group[a->group];
    bool based = a->seg != SEG_DS;
    tr_clobber_flags(t);
    whole_address(t, a, a->disp + (g->lo - a->rel));
    if (based)
        add_segment_base(t, a->seg);
    uint32_t desc = DESC(tr_this_off(t), (uint32_t)(g->hi - g->lo), g->write, a->seg);
    look_up(t, desc | (g->kept ? DESC_MERGED : more), keep, 2u + g->slot);
    if (based && !keep)
        emit_alu_mem(e, ALU_ADD, 8, T1, CPU_AT(offsetof(struct bt_cpu, seg_base) + 8u * a->seg));
    if (a->base == REG_PC && !keep)
        emit_alu_mem(e, ALU_ADD, 8, T1, CPU(pc_base));
    if (g->kept)
        emit_store(e, 8, CPU_AT(offsetof(struct bt_cpu, addend) + 8u * g->slot), T1);
    g->checked = true;
    t->t1_group = a->group;
}

void tr_check_loop(struct tr *t, unsigned group)
{
    struct emitter *e = &t->e;
    struct tr_group *g = &t->group[group];
    struct tr_access a = t->access[g->insn][g->which];
    uint32_t span = (uint32_t)(g->hi - g->lo);
    a.disp = a.rel = g->lo; /* the registers are as `rel` has them */
    check_group(t, &a, 0, false);
    if (g->moving == REG_NONE)
        return;
    emit_alu_imm(e, ALU_AND, 4, T0, (int32_t)GUEST_PAGE_SIZE - 1);
    if (g->down) {
        emit_mov(e, 4, tr_scratch(t), T0);
    } else {
        emit_mov_imm(e, tr_scratch(t), GUEST_PAGE_SIZE - span);
        emit_alu_op(e, ALU_SUB, 8, T1, T0);
    }
    if (g->moving == a.index && a.scale > 1)
        emit_shift(e, SHIFT_SHR, 8, T1, (uint8_t)__builtin_ctz(a.scale));
    emit_mov(e, 8, T0, tr_gpr(t, g->moving, T0));
    emit_alu_op(e, g->down ? ALU_SUB : ALU_ADD, 8, T0, T1);
    emit_store(e, 8, CPU_AT(offsetof(struct bt_cpu, limit) + 8u * g->slot), T0);
}

void tr_check_early(struct tr *t)
{
    for (unsigned n = 0; n < t->group_count; n++) {
        const struct tr_group *g = &t->group[n];
        if (g->check_at == t->i && g->insn != t->i && !g->looped)
            check_group(t, &t->access[g->insn][g->which], 0, false);
    }
}

struct host_mem tr_mem_desc(struct tr *t, unsigned which, uint32_t more)
{
    const struct tr_access *a = &t->access[t->i][which];
    struct tr_group *g = &t->group[a->group];
    bool whole = tr_whole_address(a);
    struct host_mem m = {T1, H_NONE, 1, 0};
    if (!g->checked) {
        check_group(t, a, more, whole);
        if (whole)
            return (struct host_mem){T0, T1, 1, (int32_t)(a->rel - g->lo)};
    } else {
        if (whole)
            whole_address(t, a, a->disp);
        if (t->t1_group != a->group)
            emit_load(&t->e, 8, T1, CPU_AT(offsetof(struct bt_cpu, addend) + 8u * g->slot));
        t->t1_group = a->group;
        if (whole)
            return (struct host_mem){T0, T1, 1, 0};
    }
    if (a->base < 16)
        m = (struct host_mem){tr_gpr(t, a->base, T0), T1, 1, 0};
    else if (a->index < 16)
        m = (struct host_mem){T1, tr_gpr(t, a->index, T0), a->scale, 0};
    m.disp = (int32_t)a->disp;
    return m;
}

struct host_mem tr_mem(struct tr *t, unsigned which)
{
    return tr_mem_desc(t, which, 0);
}
