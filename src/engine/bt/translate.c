/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The translator's driver: decodes a block, finds what flags live, emits it, publishes it. See translate.h.
 */
#include "engine/bt/translate.h"

#include <stdio.h>
#include <stdlib.h>

#include <Zydis/Mnemonic.h>

#include "base/util.h"
#include "engine/bt/jitdump.h"
#include "x86/features.h"

/* Compiled with vector instructions as all of this file, so these two are heavy. */
static bool op_ud(struct bt_cpu *cpu, const struct bt_op *op)
{
    return bt_raise(cpu, VEC_UD);
}

static bool op_gp(struct bt_cpu *cpu, const struct bt_op *op)
{
    return bt_raise_error(cpu, VEC_GP, 0);
}

void tr_clobber_flags(struct tr *t)
{
    bool regenerable = t->producer >= 0 && t->regen[t->producer] != REGEN_NONE;
    if (!t->flags_saved && (t->live[t->i] || !regenerable)) {
        emit_save_flags(&t->e, tr_scratch(t));
        t->flags_saved = true;
    }
    t->flags_host = false;
}

void tr_need_host_flags(struct tr *t, const struct host_mem *mem)
{
    if (!t->flags_host && t->flags_saved) {
        if (!tr_uses(mem, T1))
            emit_restore_flags(&t->e, tr_scratch(t));
        else if (!tr_uses(mem, T0))
            emit_restore_flags(&t->e, T0);
        else
            emit_restore_flags_in_place(&t->e);
    }
    t->flags_host = true;
}

void tr_need_saved_flags(struct tr *t)
{
    if (t->flags_host && !t->flags_saved) {
        emit_save_flags(&t->e, tr_scratch(t));
        t->flags_saved = true;
    }
}

void tr_regen_flags(struct tr *t)
{
    struct emitter *e = &t->e;
    const struct x86_insn *insn = &t->insn[t->producer];
    unsigned size = insn->opsize;
    uint8_t reg = t->regen_reg[t->producer];
    enum alu_op undo = t->regen[t->producer] == REGEN_ADD ? ALU_SUB : ALU_ADD;
    switch (t->regen[t->producer]) {
    case REGEN_AGAIN:
        tr_emit_native(t, insn, NULL);
        break;
    case REGEN_RESULT:
        reg = tr_gpr(t, reg, T0);
        emit_op_reg(e, size == 1 ? 0x84 : 0x85, size, reg, reg);
        break;
    case REGEN_ZERO:
        emit_alu_op(e, ALU_XOR, 4, T0, T0);
        break;
    default:
        emit_mov(e, 8, T0, tr_gpr(t, reg, T0));
        emit_alu_imm(e, undo, size, T0, (int32_t)insn->imm[0]);
        emit_alu_imm(e, undo == ALU_SUB ? ALU_ADD : ALU_SUB, size, T0, (int32_t)insn->imm[0]);
        break;
    }
}

static unsigned code_size(uint32_t mode)
{
    return mode & MODE_CODE64 ? 64 : mode & MODE_CODE32 ? 32 : 16;
}

static bool ends_block(const struct tr *t, const struct x86_insn *insn, enum tr_form form)
{
    return form == FORM_OP || form == FORM_SWAPGS || insn->branch || (t->mode & MODE_SLOW);
}

/* Decides how instruction i is executed. */
static void plan(struct tr *t, unsigned i)
{
    struct x86_insn *insn = &t->insn[i];
    bool fpu_off =
        tr_is_fpu(insn) && ((t->mode & MODE_NO_FPU) || (tr_is_sse(insn) && !(t->mode & MODE_SSE)) ||
                            (tr_is_avx(insn) && !(t->mode & MODE_AVX)));
    t->heavy[i] = false;
    if (!x86_insn_offered(t->engine->config.cpu, insn)) {
        t->form[i] = FORM_OP;
        t->op[i] = op_ud;
        t->heavy[i] = true;
        return;
    }
    if (fpu_off) {
        t->form[i] = FORM_OP;
        t->op[i] = bt_op_no_fpu;
        return;
    }
    t->form[i] = tr_classify(t, insn);
    if (t->form[i] != FORM_OP)
        return;
    t->op[i] = bt_op_find(insn, &t->heavy[i]);
    if (!t->op[i]) {
        t->op[i] = op_ud;
        t->heavy[i] = true;
    }
}

static void add_trap(struct tr *t, unsigned i, bt_op_fn *fn)
{
    t->insn[i] = (struct x86_insn){.len = 1, .mode = (uint8_t)code_size(t->mode)};
    t->form[i] = FORM_OP;
    t->op[i] = fn;
    t->heavy[i] = true;
    t->off[i + 1] = (uint16_t)(t->off[i] + 1);
    t->count = i + 1;
}

/*
 * Decodes from code[0, avail). DECODE_MORE is returned when the very first instruction does not end there.
 * `limited`: the code segment ends where avail does, so that what crosses it is #GP.
 */
static enum x86_decode_result decode_block(struct tr *t, const uint8_t *code, unsigned avail, bool limited)
{
    unsigned size = code_size(t->mode);
    for (unsigned i = 0; i < BT_BLOCK_INSNS; i++) {
        unsigned off = t->off[i];
        enum x86_decode_result r =
            off >= avail ? DECODE_MORE : x86_decode(&t->insn[i], code + off, avail - off, size);
        if (r == DECODE_MORE) {
            if (i == 0 && limited)
                add_trap(t, 0, op_gp);
            return i || limited ? DECODE_OK : DECODE_MORE;
        }
        if (r != DECODE_OK) {
            add_trap(t, i, r == DECODE_INVALID ? op_ud : op_gp);
            return DECODE_OK;
        }
        plan(t, i);
        t->off[i + 1] = (uint16_t)(off + t->insn[i].len);
        t->count = i + 1;
        if (ends_block(t, &t->insn[i], t->form[i]))
            break;
    }
    return DECODE_OK;
}

/* Leaves when cpu->kick is set, the flags in the host being kept. */
static void emit_poll_keeping_flags(struct tr *t)
{
    struct emitter *e = &t->e;
    emit_mov(e, 8, T1, H_RCX);
    emit_load(e, 4, H_RCX, CPU(kick));
    emit_bytes(e, (const uint8_t[]){0xe3, 3 + 5}, 2); /* jrcxz over the next two */
    emit_mov(e, 8, H_RCX, T1);
    tr_stub(t, STUB_POLL, emit_jmp(e));
    emit_mov(e, 8, H_RCX, T1);
}

/*
 * The block's code begins with it. Its first instruction is as long as a jump whatever the offset is, so that
 * the cache can put one in its place while others run (close_entry).
 */
void tr_indirect_entry(struct tr *t)
{
    t->block->entry_indirect = t->e.p + t->e.delta;
    emit_lea_t0_disp32(&t->e, -(int32_t)t->page_off);
    emit_store(&t->e, 8, CPU(pc_base), T0);
}

/*
 * Whether the page that the block's instruction goes on in is what it was, by the instruction TLB; else run.c
 * finds out. The flags are saved.
 */
static void emit_second_page(struct tr *t)
{
    struct emitter *e = &t->e;
    _Static_assert(sizeof(struct bt_itlb_entry) == 16, "the look-up scales by 16");
    const int32_t tag = (int32_t)(offsetof(struct bt_cpu, itlb) + offsetof(struct bt_itlb_entry, tag));
    const int32_t phys = (int32_t)(offsetof(struct bt_cpu, itlb) + offsetof(struct bt_itlb_entry, phys));
    emit_load(e, 8, T0, CPU(pc_base));
    emit_lea(e, 8, T0, MEM_DISP(T0, GUEST_PAGE_SIZE));
    emit_mov(e, 8, T1, T0);
    emit_shift(e, SHIFT_SHR, 8, T1, GUEST_PAGE_SHIFT - 4);
    emit_alu_imm(e, ALU_AND, 4, T1, (BT_ITLB_SIZE - 1) << 4);
    emit_alu_mem(e, ALU_XOR, 8, T0, CPU(jc_key));
    emit_alu_mem(e, ALU_CMP, 8, T0, (struct host_mem){H_NONE, T1, 1, tag});
    tr_stub(t, STUB_MOVED, emit_jcc(e, CC_NE));
    emit_mov_imm(e, T0, t->block->phys2);
    emit_alu_mem(e, ALU_CMP, 8, T0, (struct host_mem){H_NONE, T1, 1, phys});
    tr_stub(t, STUB_MOVED, emit_jcc(e, CC_NE));
    t->block->asks = true;
}

/* The entries, and the test for cpu->kick. */
static void emit_entries(struct tr *t)
{
    struct emitter *e = &t->e;
    struct bt_block *b = t->block;
    bool host = t->entry != ENTRY_SAVED;
    uint8_t *over = NULL;
    if (t->loop) {
        tr_loop_entry(t);
        return;
    }
    t->producer = -1;
    t->t1_group = TR_NO_GROUP;
    tr_indirect_entry(t);
    if (!host) {
        over = emit_short(e, 0xeb);
        b->entry = b->entry_poll = e->p + e->delta;
        emit_save_flags(e, T1);
        if (!e->full)
            emit_patch_short(over, e->p);
    }
    b->entry_saved = e->p + e->delta;
    t->flags_host = false;
    t->flags_saved = true;
    emit_cmp_mem_imm8(e, 4, CPU(kick), 0);
    tr_stub(t, STUB_POLL, emit_jcc(e, CC_NE));
    if (b->phys2 && tr_flat(t) && (t->mode & MODE_CODE64))
        emit_second_page(t);
    if (!host)
        return;
    t->flags_host = true;
    t->flags_saved = false;
    if (t->entry == ENTRY_HOST)
        emit_restore_flags(e, T1);
    over = emit_short(e, 0xeb);
    b->entry_poll = e->p + e->delta;
    emit_poll_keeping_flags(t);
    if (!e->full)
        emit_patch_short(over, e->p);
    b->entry = e->p + e->delta;
}

/* Notes where instruction i's code is and how a fault in it finds the flags. */
static void note_insn(struct tr *t, uint16_t offset)
{
    struct bt_insn_at *at = &t->block->insn[t->i];
    *at = (struct bt_insn_at){.code = offset, .guest = t->off[t->i]};
    if (t->native_flags_saved)
        at->fault = BT_FAULT_FLAGS_SAVED;
    else if (!t->native_flags_host && t->native_producer >= 0 && tr_may_trap(&t->insn[t->i]))
        at->fault = (uint16_t)(BT_FAULT_CODE + t->native_producer); /* for emit_trap_code */
}

/* For faults at instructions whose flags are nowhere. */
static void emit_trap_code(struct tr *t, const uint8_t *start)
{
    struct emitter *e = &t->e;
    memset(t->trap_code, 0, sizeof(t->trap_code));
    for (unsigned i = 0; i < t->count; i++) {
        struct bt_insn_at *at = &t->block->insn[i];
        if (at->fault < BT_FAULT_CODE)
            continue;
        t->producer = at->fault - BT_FAULT_CODE;
        uint16_t *code = &t->trap_code[t->producer];
        if (!*code) {
            *code = (uint16_t)(e->p - start);
            tr_regen_flags(t);
            emit_jmp_to(e, t->engine->thunks.exit_flags_host);
        }
        at->fault = *code;
    }
}

static void emit_body(struct tr *t)
{
    uint8_t *start = t->e.p;
    emit_entries(t);
    for (t->i = 0; t->i < t->count && !t->e.full; t->i++) {
        const struct x86_insn *insn = &t->insn[t->i];
        uint16_t offset = (uint16_t)(t->e.p - start);
        t->native_flags_host = true;
        t->native_flags_saved = false;
        tr_check_early(t);
        if (t->form[t->i] == FORM_OP)
            tr_exit_op(t, insn, t->op[t->i], t->heavy[t->i]);
        else
            tr_emit(t, insn, t->form[t->i]);
        note_insn(t, offset);
    }
    t->i = t->count - 1;
    if (!t->ended)
        tr_exit_direct(t, 1, tr_next_off(t));
    tr_emit_stubs(t);
    emit_trap_code(t, start);
}

static struct bt_block *block_new(struct tr *t, uint64_t phys)
{
    struct bt_cache *c = t->engine->cache;
    struct bt_block *b = bt_cache_record(c, sizeof(*b) + t->count * sizeof(b->insn[0]));
    b->phys = phys;
    b->mode = t->mode;
    b->len = t->off[t->count];
    b->insn_count = (uint16_t)t->count;
    b->link_count = (uint16_t)(2 + t->kept_count);
    b->link = bt_cache_record(c, b->link_count * sizeof(b->link[0]));
    if (t->form[t->count - 1] == FORM_OP)
        b->op = bt_cache_record(c, sizeof(*b->op));
    return b;
}

/* Bytes of code that may be fetched from `lin` on within its page and within CS's limit. */
static unsigned fetchable(const struct bt_cpu *cpu, uint64_t lin, uint32_t mode, bool *limited)
{
    unsigned in_page = GUEST_PAGE_SIZE - (unsigned)(lin & 0xfff);
    *limited = false;
    if (mode & (MODE_CODE64 | MODE_FLAT))
        return in_page;
    uint64_t rip = lin - cpu->seg[SEG_CS].base;
    uint64_t in_segment = (uint64_t)cpu->seg[SEG_CS].limit + 1 - (rip & UINT32_MAX);
    *limited = in_segment <= in_page;
    return (unsigned)MIN(in_segment, in_page);
}

/* The instruction at lin goes on in the next page: collects its bytes from both. */
static enum bt_translate_result decode_across(struct tr *t, uint64_t lin, const uint8_t *code, unsigned avail,
                                              uint64_t *phys2)
{
    uint8_t bytes[X86_INSN_MAX + 1];
    uint64_t next = round_down(lin, GUEST_PAGE_SIZE) + GUEST_PAGE_SIZE;
    if (!(t->mode & MODE_CODE64))
        next &= UINT32_MAX;
    if (!bt_translate(t->cpu, next, BT_FETCH, phys2, NULL))
        return BT_TRANSLATE_FAULT;
    const uint8_t *rest = guest_ptr(t->engine->config.memory, *phys2, X86_INSN_MAX, false);
    if (!rest) {
        snprintf(t->cpu->why, sizeof(t->cpu->why),
                 "the guest executes at physical address %#llx, which is not memory",
                 (unsigned long long)*phys2);
        return BT_TRANSLATE_ERROR;
    }
    memcpy(bytes, code, avail);
    memcpy(bytes + avail, rest, X86_INSN_MAX - avail);
    enum x86_decode_result r = x86_decode(&t->insn[0], bytes, X86_INSN_MAX, code_size(t->mode));
    if (r != DECODE_OK) {
        add_trap(t, 0, r == DECODE_INVALID ? op_ud : op_gp);
        *phys2 = 0;
        return BT_TRANSLATED;
    }
    plan(t, 0);
    t->off[1] = t->insn[0].len;
    t->count = 1;
    return bt_cache_protect(t->engine, *phys2, t->insn[0].len - avail) ? BT_TRANSLATED : BT_TRANSLATE_RETRY;
}

/* Whether memory still holds what was decoded, now that writes to it would be noticed. */
static bool unchanged(const struct tr *t, const uint8_t *code, unsigned avail)
{
    for (unsigned i = 0; i < t->count; i++) {
        unsigned len = MIN((unsigned)t->insn[i].len, avail - t->off[i]);
        if (t->insn[i].mnemonic && memcmp(code + t->off[i], t->insn[i].bytes, len) != 0)
            return false;
    }
    return true;
}

static enum bt_translate_result emit_block(struct tr *t, uint64_t lin, uint64_t phys, uint64_t phys2,
                                           struct bt_block **out)
{
    if (!bt_cache_reserve(t->engine, &t->e))
        return BT_TRANSLATE_RETRY;
    tr_plan(t);
    if (phys2)
        t->entry = ENTRY_SAVED; /* for emit_second_page */
    t->block = block_new(t, phys);
    t->block->phys2 = phys2 ? round_down(phys2, GUEST_PAGE_SIZE) : 0;
    emit_body(t);
    if (t->e.full) {
        bt_cache_abandon(t->engine->cache, t->block);
        snprintf(t->cpu->why, sizeof(t->cpu->why), "a translation outgrew its room");
        return BT_TRANSLATE_ERROR;
    }
    bt_cache_add(t->engine, t->block, &t->e);
    if (t->engine->jitdump)
        bt_jitdump_block(t->engine->jitdump, lin, t->mode & MODE_USER,
                         bt_cache_exec(t->engine->cache, t->block->code), t->block->code, t->block->code_len);
    bt_stat_add(&t->cpu->stats.translations, 1);
    *out = t->block;
    return BT_TRANSLATED;
}

enum bt_translate_result bt_translate_block(struct bt_cpu *cpu, uint64_t lin, uint64_t phys, uint32_t mode,
                                            struct bt_block **out)
{
    struct bt_engine *engine = cpu->engine;
    struct tr *t = engine->tr; /* large; guarded by engine->lock */
    const uint8_t *code = guest_ptr(engine->config.memory, phys, 1, false);
    if (!code) {
        snprintf(cpu->why, sizeof(cpu->why),
                 "the guest executes at physical address %#llx, which is not memory",
                 (unsigned long long)phys);
        return BT_TRANSLATE_ERROR;
    }
    do {
        bool limited;
        unsigned avail = fetchable(cpu, lin, mode, &limited);
        uint64_t phys2 = 0;
        t->cpu = cpu;
        t->engine = engine;
        t->mode = mode;
        t->page_off = (unsigned)(phys & 0xfff);
        t->count = t->stub_count = 0;
        t->off[0] = 0;
        t->ended = false;
        if (decode_block(t, code, avail, limited) == DECODE_MORE) {
            enum bt_translate_result r = decode_across(t, lin, code, avail, &phys2);
            if (r != BT_TRANSLATED)
                return r;
        }
        if (!bt_cache_protect(engine, phys, MIN((unsigned)t->off[t->count], GUEST_PAGE_SIZE - t->page_off)))
            return BT_TRANSLATE_RETRY;
        if (unchanged(t, code, avail))
            return emit_block(t, lin, phys, phys2, out);
    } while (true);
}
