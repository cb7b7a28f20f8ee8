/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is worked out about a block before it is emitted: which memory accesses share one soft TLB look-up,
 * and which status flags matter where.
 *
 * Accesses: each GPR is followed as "unknown value number n, plus a constant", through additions of
 * constants, moves, LEA, pushes and pops. Accesses whose address is the same unknown plus constants that lie
 * close together form a group: the first one checks the span of all of them. When that span is not plain
 * memory of one page, the block is left for one whose accesses are checked each for itself (MODE_PRECISE).
 *
 * Flags: `live` are those that an instruction will read. A fault shows all of them; where they are not live
 * they are worked out in the cold path from the registers that the instruction before them had (`regen`), if
 * those still have their values.
 */
#include <Zydis/Mnemonic.h>

#include "base/util.h"
#include "engine/bt/translate.h"

#define GROUP_SPAN 256 /* bytes: the wider, the more often it is not in one page */

struct value {
    uint16_t number;
    int64_t delta;
};

struct plan {
    struct tr *t;
    struct value value[16];
    uint16_t next;
};

/* ---- groups ---- */

static bool same_value(const struct tr_group *g, uint16_t base, uint16_t index, const struct tr_access *a)
{
    return g->base == base && g->index == index && g->scale == a->scale && g->seg == a->seg && !g->alone;
}

/* Whether the group may grow to take in [lo, hi). */
static bool fits(struct plan *p, const struct tr_group *g, int64_t lo, int64_t hi)
{
    if (MAX(hi, g->hi) - MIN(lo, g->lo) > GROUP_SPAN)
        return false;
    return g->kept || p->t->kept_count < BT_MERGED_MAX;
}

static void join(struct plan *p, unsigned n, struct tr_access *a, int64_t rel)
{
    struct tr_group *g = &p->t->group[n];
    if (!g->kept)
        g->slot = (uint8_t)p->t->kept_count++;
    g->kept = true;
    g->lo = MIN(g->lo, rel);
    g->hi = MAX(g->hi, rel + a->size);
    g->write |= a->write;
    g->count++;
    a->group = (uint8_t)n;
}

static void add_access(struct plan *p, unsigned i, unsigned which, struct tr_access a)
{
    struct tr *t = p->t;
    const struct value none = {0, 0};
    const struct value base = a.base < 16 ? p->value[a.base] : none;
    const struct value index = a.index < 16 ? p->value[a.index] : none;
    uint16_t base_number = a.base == REG_PC ? UINT16_MAX : base.number;
    int64_t rel = a.disp + base.delta + index.delta * a.scale;
    if (a.base == REG_PC) /* `disp` counts from the instruction's end; here from the page's start */
        rel = a.disp = a.disp + (int64_t)(t->page_off + t->off[i + 1]);
    a.rel = rel;
    bool whole = tr_whole_address(&a);
    bool alone = !BT_MERGES || (t->mode & MODE_PRECISE) || !(t->mode & MODE_CODE64) || a.addrsize != 8 ||
                 a.disp > INT32_MAX - GROUP_SPAN || a.disp < INT32_MIN + GROUP_SPAN ||
                 (whole && a.seg != SEG_DS);
    struct tr_access *to = &t->access[i][which];
    *to = a;
    for (unsigned n = 0; n < t->group_count && !alone; n++)
        if (same_value(&t->group[n], base_number, index.number, &a) &&
            fits(p, &t->group[n], MIN(rel, t->group[n].lo), MAX(rel + a.size, t->group[n].hi))) {
            join(p, n, to, rel);
            return;
        }
    to->group = (uint8_t)t->group_count;
    t->group[t->group_count++] = (struct tr_group){.base = base_number,
                                                   .index = index.number,
                                                   .scale = a.scale,
                                                   .seg = a.seg,
                                                   .lo = rel,
                                                   .hi = rel + a.size,
                                                   .write = a.write,
                                                   .count = 1,
                                                   .insn = (uint8_t)i,
                                                   .which = (uint8_t)which,
                                                   .check_at = (uint8_t)i,
                                                   .alone = alone};
}

static void add_operand(struct plan *p, unsigned i, unsigned which, unsigned size)
{
    const struct x86_insn *insn = &p->t->insn[i];
    add_access(
        p, i, which,
        (struct tr_access){.base = insn->mem.base,
                           .index = insn->mem.index,
                           .scale = insn->mem.index == REG_NONE ? 1 : insn->mem.scale,
                           .seg = insn->mem.seg == SEG_FS || insn->mem.seg == SEG_GS ? insn->mem.seg : SEG_DS,
                           .addrsize = insn->addrsize,
                           .disp = insn->mem.disp,
                           .size = (uint16_t)size,
                           .write = insn->mem.written});
}

static void add_stack(struct plan *p, unsigned i, unsigned which, uint8_t base, int64_t disp, bool write)
{
    const struct x86_insn *insn = &p->t->insn[i];
    add_access(p, i, which,
               (struct tr_access){.base = base,
                                  .index = REG_NONE,
                                  .scale = 1,
                                  .seg = SEG_DS,
                                  .addrsize = p->t->mode & MODE_CODE64 ? 8 : 4,
                                  .disp = disp,
                                  .size = insn->opsize,
                                  .write = write});
}

static void add_flow(struct plan *p, unsigned i)
{
    const struct x86_insn *insn = &p->t->insn[i];
    int64_t size = insn->opsize;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_CALL:
        if (insn->mem.present)
            add_operand(p, i, TR_OPERAND, insn->opsize);
        add_stack(p, i, TR_STACK, R_RSP, -size, true);
        break;
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_RET:
        add_stack(p, i, TR_STACK, R_RSP, 0, false);
        break;
    case ZYDIS_MNEMONIC_LEAVE:
        add_stack(p, i, TR_STACK, R_RBP, 0, false);
        break;
    default:
        if (insn->mem.present)
            add_operand(p, i, TR_OPERAND, insn->opsize);
        break;
    }
}

/* ---- values ---- */

static bool adds_constant(const struct x86_insn *insn, int64_t *by)
{
    if (insn->rm.kind != FIELD_GPR && insn->opreg.kind != FIELD_GPR)
        return false;
    if (insn->mem.present || insn->opsize != 8 || insn->reg.kind != FIELD_NONE)
        return false;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
        *by = insn->imm[0];
        return insn->imm_count == 1;
    case ZYDIS_MNEMONIC_SUB:
        *by = -insn->imm[0];
        return insn->imm_count == 1;
    case ZYDIS_MNEMONIC_INC:
        *by = 1;
        return true;
    case ZYDIS_MNEMONIC_DEC:
        *by = -1;
        return true;
    default:
        return false;
    }
}

/* The register that a MOV or LEA derives its result from, plus *by. */
static bool derives(const struct x86_insn *insn, unsigned *from, unsigned *to, int64_t *by)
{
    if (insn->opsize != 8)
        return false;
    if (insn->mnemonic == ZYDIS_MNEMONIC_LEA && insn->addrsize == 8 && insn->mem.base < 16 &&
        insn->mem.index == REG_NONE) {
        *from = insn->mem.base;
        *to = insn->reg.reg;
        *by = insn->mem.disp;
        return true;
    }
    if (insn->mnemonic != ZYDIS_MNEMONIC_MOV || insn->reg.kind != FIELD_GPR || insn->rm.kind != FIELD_GPR)
        return false;
    *from = insn->reg.written ? insn->rm.reg : insn->reg.reg;
    *to = insn->reg.written ? insn->reg.reg : insn->rm.reg;
    *by = 0;
    return true;
}

static void forget(struct plan *p, uint16_t registers)
{
    for (unsigned r = 0; r < 16; r++)
        if (registers & BIT(r))
            p->value[r] = (struct value){p->next++, 0};
}

static void follow_values(struct plan *p, const struct x86_insn *insn, enum tr_form form)
{
    int64_t by;
    unsigned from, to;
    if (form == FORM_FLOW) {
        uint16_t written = insn->gpr_written;
        bool pop = insn->mnemonic == ZYDIS_MNEMONIC_POP;
        if (pop || insn->mnemonic == ZYDIS_MNEMONIC_PUSH || insn->mnemonic == ZYDIS_MNEMONIC_PUSHFQ) {
            p->value[R_RSP].delta += pop ? insn->opsize : -insn->opsize;
            written = pop ? (uint16_t)BIT(insn->opreg.kind == FIELD_GPR ? insn->opreg.reg : insn->rm.reg) : 0;
        } else if (insn->mnemonic == ZYDIS_MNEMONIC_LEAVE) {
            p->value[R_RSP] = p->value[R_RBP];
            p->value[R_RSP].delta += insn->opsize;
            written = BIT(R_RBP);
        }
        forget(p, written);
    } else if (adds_constant(insn, &by)) {
        p->value[insn->rm.kind == FIELD_GPR ? insn->rm.reg : insn->opreg.reg].delta += by;
    } else if (derives(insn, &from, &to, &by)) {
        p->value[to] = p->value[from];
        p->value[to].delta += by;
    } else {
        forget(p, insn->gpr_written);
    }
}

static void plan_accesses(struct tr *t)
{
    struct plan p = {.t = t, .next = 17};
    for (unsigned r = 0; r < 16; r++)
        p.value[r].number = (uint16_t)(r + 1);
    t->group_count = t->kept_count = 0;
    for (unsigned i = 0; i < t->count; i++) {
        const struct x86_insn *insn = &t->insn[i];
        if (t->form[i] == FORM_FLOW)
            add_flow(&p, i);
        else if (t->form[i] == FORM_NATIVE && insn->mem.present && insn->mem.accessed &&
                 tr_direct_mem(t, insn))
            add_operand(&p, i, TR_OPERAND, insn->mem.size);
        follow_values(&p, insn, t->form[i]);
    }
    t->strided = 0;
    for (unsigned r = 0; r < 16; r++) {
        t->strided |= p.value[r].number == r + 1 ? (uint16_t)BIT(r) : 0;
        t->stride[r] = p.value[r].delta;
    }
}

/* ---- flags ---- */

bool tr_may_trap(const struct x86_insn *insn)
{
    return insn->mnemonic == ZYDIS_MNEMONIC_DIV || insn->mnemonic == ZYDIS_MNEMONIC_IDIV ||
           insn->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B || tr_is_fpu(insn); /* that one: not aligned */
}

static uint32_t changed_flags(const struct x86_insn *insn)
{
    return (insn->flags_written | insn->flags_maybe) & FLAGS_STATUS;
}

/* Also one that leaves some flags alone: these go on from before it. */
static bool reads_flags(const struct tr *t, unsigned i)
{
    const struct x86_insn *insn = &t->insn[i];
    return tr_may_leave(t, i) || (insn->flags_read & FLAGS_STATUS) ||
           (changed_flags(insn) && (insn->flags_written & FLAGS_STATUS) != FLAGS_STATUS);
}

static void plan_flags(struct tr *t)
{
    t->live[t->count] = true;
    for (unsigned i = t->count; i-- > 0;)
        t->live[i] = !BT_LIVENESS || reads_flags(t, i) || (t->live[i + 1] && !changed_flags(&t->insn[i]));
}

/* How the flags of an instruction can be had again from the registers that it leaves. */
static enum tr_regen regen_kind(const struct x86_insn *insn)
{
    bool plain = insn->encoding == ENC_LEGACY && insn->map == 0 && !insn->mem.present;
    bool high = insn->reg.kind == FIELD_GPR_HIGH || insn->rm.kind == FIELD_GPR_HIGH ||
                insn->opreg.kind == FIELD_GPR_HIGH;
    bool same = insn->reg.kind == FIELD_GPR && insn->rm.kind == FIELD_GPR && insn->reg.reg == insn->rm.reg;
    if (!plain || high)
        return REGEN_NONE;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
        return REGEN_AGAIN;
    case ZYDIS_MNEMONIC_XOR:
        return same ? REGEN_ZERO : REGEN_RESULT;
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
        return REGEN_RESULT;
    case ZYDIS_MNEMONIC_SUB:
        return same ? REGEN_ZERO : insn->imm_count && insn->opsize >= 4 ? REGEN_SUB : REGEN_NONE;
    case ZYDIS_MNEMONIC_ADD:
        return !same && insn->imm_count && insn->opsize >= 4 ? REGEN_ADD : REGEN_NONE;
    default:
        return REGEN_NONE;
    }
}

/* The register that an arithmetic instruction leaves its result in. AL, AX... have no field when implied. */
static uint8_t result_register(const struct x86_insn *insn)
{
    if (insn->rm.kind == FIELD_GPR && insn->rm.written)
        return insn->rm.reg;
    if (insn->reg.kind == FIELD_GPR && insn->reg.written)
        return insn->reg.reg;
    return R_RAX;
}

static bool has_access(const struct x86_insn *insn)
{
    return insn->mem.accessed || insn->hidden_mem;
}

static bool may_fault(const struct x86_insn *insn)
{
    return has_access(insn) || tr_may_trap(insn);
}

bool tr_regen_holds(const struct tr *t, uint16_t sources, unsigned from)
{
    bool changed = false;
    for (unsigned i = from; i < t->count; i++) {
        if (changed && may_fault(&t->insn[i]))
            return false;
        if (changed_flags(&t->insn[i]))
            return true; /* all flags: what keeps some of them counts as a reader */
        changed |= (t->insn[i].gpr_written & sources) != 0;
    }
    return true;
}

uint16_t tr_regen_sources(const struct tr *t, unsigned k)
{
    switch (t->regen[k]) {
    case REGEN_ZERO:
        return 0;
    case REGEN_AGAIN:
        return t->insn[k].gpr_read;
    default:
        return (uint16_t)BIT(t->regen_reg[k]);
    }
}

static void plan_regen(struct tr *t)
{
    for (unsigned k = 0; k < t->count; k++) {
        t->regen[k] = BT_REGENERATES && t->form[k] == FORM_NATIVE ? regen_kind(&t->insn[k]) : REGEN_NONE;
        t->regen_reg[k] = result_register(&t->insn[k]);
        if (!tr_regen_holds(t, tr_regen_sources(t, k), k + 1))
            t->regen[k] = REGEN_NONE;
    }
}

/*
 * Who enters the block has to save the flags when an access comes before they are read; else they stay in the
 * host's. They do not matter at all when they are changed before anything could show them.
 */
static void plan_entry(struct tr *t)
{
    bool shown = false;
    t->entry = ENTRY_HOST;
    for (unsigned i = 0; i < t->count && !reads_flags(t, i); i++) {
        if (has_access(&t->insn[i])) {
            t->entry = ENTRY_SAVED;
            return;
        }
        shown |= tr_may_trap(&t->insn[i]);
        if (changed_flags(&t->insn[i])) {
            t->entry = shown ? ENTRY_HOST : ENTRY_DEAD;
            return;
        }
    }
}

/* ---- early checks ---- */

/* Whether a check before instruction i costs no saving of flags. */
static bool check_is_free(const struct tr *t, unsigned i)
{
    uint16_t written = 0;
    for (unsigned k = i; k-- > 0;) {
        if (changed_flags(&t->insn[k]))
            return t->regen[k] != REGEN_NONE && !t->live[i] && !(tr_regen_sources(t, k) & written);
        written |= t->insn[k].gpr_written;
    }
    return t->entry == ENTRY_SAVED;
}

/* Moves a check to before the instructions whose flags it would have to save. */
static void move_check(struct tr *t, struct tr_group *g)
{
    const struct tr_access *a = &t->access[g->insn][g->which];
    uint16_t registers = (uint16_t)((a->base < 16 ? BIT(a->base) : 0) | (a->index < 16 ? BIT(a->index) : 0));
    if (g->alone || g->looped || check_is_free(t, g->insn) || (!g->kept && t->kept_count == BT_MERGED_MAX))
        return;
    for (unsigned i = g->insn; i-- > 0 && !(t->insn[i].gpr_written & registers);) {
        if (!check_is_free(t, i))
            continue;
        if (!g->kept)
            g->slot = (uint8_t)t->kept_count++;
        g->kept = true;
        g->check_at = (uint8_t)i;
        return;
    }
}

void tr_plan(struct tr *t)
{
    plan_accesses(t);
    plan_flags(t);
    plan_regen(t);
    plan_entry(t);
    t->loop = (t->mode & MODE_LOOP) && tr_loops(t);
    if (t->loop)
        tr_plan_loop(t);
    for (unsigned n = 0; n < t->group_count; n++)
        move_check(t, &t->group[n]);
}
