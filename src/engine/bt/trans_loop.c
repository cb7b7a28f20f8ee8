/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Blocks that branch to their own beginning. The first round is the ordinary block's; its branch is chained
 * to this other form (MODE_LOOP), which goes round by itself:
 *
 *     enter:  look up each page that the rounds will touch, and how far the registers may move within it
 *             jmp body
 *     head:   cpu->kick set? leave
 *             a register beyond its limit? enter
 *     body:   the block, without the checks made before
 *             jcc head
 *
 * An access takes part when its registers are, at the end of the block, what they were plus a constant, and
 * only one of them moves. Where the flags at the head can be had again from registers they are not saved.
 */
#include "base/util.h"
#include "engine/bt/translate.h"

#define STRIDE_MAX 1024 /* bytes a round; the longer, the less is gained */

/* The instruction whose flags the branch takes with it; -1: none of this block. */
static int last_producer(const struct tr *t)
{
    for (unsigned i = t->count; i-- > 0;)
        if ((t->insn[i].flags_written | t->insn[i].flags_maybe) & FLAGS_STATUS)
            return (int)i;
    return -1;
}

bool tr_loops(const struct tr *t)
{
    const struct x86_insn *last = &t->insn[t->count - 1];
    return BT_LOOPS && tr_flat(t) && (t->mode & MODE_CODE64) && !(t->mode & MODE_PRECISE) &&
           tr_is_jcc(last) && t->off[t->count] + last->imm[0] == 0 && !t->live[0] && last_producer(t) >= 0;
}

/* Whether a register of an access stays or moves evenly, counted from what it is at the block's beginning. */
static bool is_even(const struct tr *t, uint8_t reg, uint16_t number)
{
    return reg >= 16 || ((t->strided & BIT(reg)) && number == reg + 1);
}

static void plan_group(struct tr *t, struct tr_group *g)
{
    const struct tr_access *a = &t->access[g->insn][g->which];
    if (g->alone || !is_even(t, a->base, g->base) || !is_even(t, a->index, g->index))
        return;
    int64_t base = a->base < 16 ? t->stride[a->base] : 0;
    int64_t index = a->index < 16 ? t->stride[a->index] * a->scale : 0, stride = base + index;
    if ((base && index) || stride > STRIDE_MAX || stride < -STRIDE_MAX)
        return;
    if (!g->kept && t->kept_count == BT_MERGED_MAX)
        return;
    if (!g->kept)
        g->slot = (uint8_t)t->kept_count++;
    g->kept = g->looped = true;
    g->moving = base ? a->base : index ? a->index : REG_NONE;
    g->down = stride < 0;
}

void tr_plan_loop(struct tr *t)
{
    for (unsigned n = 0; n < t->group_count; n++)
        plan_group(t, &t->group[n]);
}

/* Whether the flags that the branch carries to the head can be had again there and later. */
static bool carried_flags_hold(const struct tr *t, unsigned k)
{
    uint16_t sources = tr_regen_sources(t, k);
    for (unsigned i = k + 1; i < t->count; i++)
        if (t->insn[i].gpr_written & sources)
            return false;
    return t->regen[k] != REGEN_NONE && tr_regen_holds(t, sources, 0);
}

/* Jumps to `again` when a page must be checked. */
static void emit_head(struct tr *t, const uint8_t *again)
{
    struct emitter *e = &t->e;
    emit_cmp_mem_imm8(e, 4, CPU(kick), 0);
    tr_stub(t, STUB_POLL, emit_jcc(e, CC_NE));
    for (unsigned n = 0; n < t->group_count; n++) {
        const struct tr_group *g = &t->group[n];
        if (!g->looped || g->moving == REG_NONE)
            continue;
        uint8_t reg = tr_gpr(t, g->moving, T0);
        emit_alu_mem(e, ALU_CMP, 8, reg, CPU_AT(offsetof(struct bt_cpu, limit) + 8u * g->slot));
        uint8_t *at = emit_jcc(e, g->down ? CC_L : CC_G);
        if (!e->full)
            emit_patch(at, again);
    }
}

void tr_loop_entry(struct tr *t)
{
    struct emitter *e = &t->e;
    struct bt_block *b = t->block;
    unsigned k = (unsigned)last_producer(t);
    bool saved = !carried_flags_hold(t, k);
    tr_indirect_entry(t); /* nobody comes by it; a killed block's code begins with one */
    b->entry_saved = tr_code_offset(t, e->p);
    emit_restore_flags(e, T1);
    b->entry = b->entry_poll = tr_code_offset(t, e->p);
    if (saved)
        emit_save_flags(e, T1);
    t->flags_host = false;
    t->flags_saved = saved;
    t->producer = (int)k;
    t->i = 0;
    const uint8_t *enter = e->p;
    for (unsigned n = 0; n < t->group_count; n++)
        if (t->group[n].looped)
            tr_check_loop(t, n);
    uint8_t *body = emit_jmp(e);
    t->loop_head = e->p;
    if (saved)
        emit_save_flags(e, T1);
    emit_head(t, enter);
    if (!e->full)
        emit_patch(body, e->p);
    t->t1_group = TR_NO_GROUP;
}
