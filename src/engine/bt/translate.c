/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The translator's driver: decodes a block, finds what flags live, emits it, publishes it. See translate.h.
 */
#include "engine/bt/translate.h"

#include <stdio.h>
#include <stdlib.h>

#include <Zydis/Mnemonic.h>

#include "base/util.h"
#include "engine/bt/jitdump.h"
#include "engine/bt/kept.h"
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

static bool ends_block(const struct tr *t, unsigned i)
{
    const struct x86_insn *insn = &t->insn[i];
    return tr_may_leave(t, i) || t->form[i] == FORM_SWAPGS || insn->branch || (t->mode & MODE_SLOW);
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
    if (!tr_may_leave(t, i))
        return;
    t->op[i] = bt_op_find(insn, &t->heavy[i]);
    if (!t->op[i]) {
        t->op[i] = op_ud;
        t->heavy[i] = true;
    }
}

/* In place of instruction i, whose `len` bytes say that it is none. */
static void add_trap(struct tr *t, unsigned i, bt_op_fn *fn, unsigned len)
{
    t->insn[i] = (struct x86_insn){.len = (uint8_t)len, .mode = (uint8_t)code_size(t->mode)};
    t->form[i] = FORM_OP;
    t->op[i] = fn;
    t->heavy[i] = true;
    t->off[i + 1] = (uint16_t)(t->off[i] + len);
    t->count = i + 1;
}

/*
 * Decodes from t->bytes[0, avail). DECODE_MORE is returned when the very first instruction does not end
 * there. `limited`: the code segment ends where avail does, so that what crosses it is #GP.
 */
static enum x86_decode_result decode_block(struct tr *t, unsigned avail, bool limited)
{
    unsigned size = code_size(t->mode);
    for (unsigned i = 0; i < BT_BLOCK_INSNS; i++) {
        unsigned off = t->off[i], left = MIN(avail - off, (unsigned)X86_INSN_MAX);
        enum x86_decode_result r = left ? x86_decode(&t->insn[i], t->bytes + off, left, size) : DECODE_MORE;
        if (r == DECODE_MORE) {
            if (i == 0 && limited)
                add_trap(t, 0, op_gp, left);
            return i || limited ? DECODE_OK : DECODE_MORE;
        }
        if (r != DECODE_OK) {
            add_trap(t, i, r == DECODE_INVALID ? op_ud : op_gp, left);
            return DECODE_OK;
        }
        plan(t, i);
        t->off[i + 1] = (uint16_t)(off + t->insn[i].len);
        t->count = i + 1;
        if (ends_block(t, i))
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
    emit_mov_imm(e, T0, bt_block_phys2(t->block));
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
        b->entry = b->entry_poll = tr_code_offset(t, e->p);
        emit_save_flags(e, T1);
        if (!e->full)
            emit_patch_short(over, e->p);
    }
    b->entry_saved = tr_code_offset(t, e->p);
    t->flags_host = false;
    t->flags_saved = true;
    emit_cmp_mem_imm8(e, 4, CPU(kick), 0);
    tr_stub(t, STUB_POLL, emit_jcc(e, CC_NE));
    if (b->page2 && tr_flat(t) && (t->mode & MODE_CODE64))
        emit_second_page(t);
    if (!host)
        return;
    t->flags_host = true;
    t->flags_saved = false;
    if (t->entry == ENTRY_HOST)
        emit_restore_flags(e, T1);
    over = emit_short(e, 0xeb);
    b->entry_poll = tr_code_offset(t, e->p);
    emit_poll_keeping_flags(t);
    if (!e->full)
        emit_patch_short(over, e->p);
    b->entry = tr_code_offset(t, e->p);
}

/*
 * Instructions that raise nothing by themselves on any processor, accesses aside. All others are noted, as
 * processors differ in what they take: one knows PREFETCHW with a register, another raises #UD.
 */
static bool never_traps(const struct x86_insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_XOR:
        return true;
    default:
        return tr_is_jcc(insn);
    }
}

/* Whether the host may fault in what stands for instruction i. */
static bool traps(const struct tr *t, unsigned i)
{
    return t->form[i] != FORM_OP && !never_traps(&t->insn[i]);
}

/* Notes where the instruction's code is and how a fault in it finds the flags. */
static void note_trap(struct tr *t, struct bt_trap_at *at, uint16_t code)
{
    *at = (struct bt_trap_at){.code = code, .end = tr_code_offset(t, t->e.p), .guest = t->off[t->i]};
    at->borrowed_count = t->native_borrowed_count;
    memcpy(at->borrowed, t->native_borrowed, sizeof(at->borrowed));
    if (t->native_flags_saved)
        at->fault = BT_FAULT_FLAGS_SAVED;
    else if (!t->native_flags_host && t->native_producer >= 0 && tr_may_trap(&t->insn[t->i]))
        at->fault = (uint16_t)(BT_FAULT_CODE + t->native_producer); /* for emit_trap_code */
}

/* For faults at instructions whose flags are nowhere. */
static void emit_trap_code(struct tr *t)
{
    struct emitter *e = &t->e;
    memset(t->trap_code, 0, sizeof(t->trap_code));
    for (unsigned i = 0; i < t->block->trap_count; i++) {
        struct bt_trap_at *at = &bt_block_traps(t->block)[i];
        if (at->fault < BT_FAULT_CODE)
            continue;
        t->producer = at->fault - BT_FAULT_CODE;
        uint16_t *code = &t->trap_code[t->producer];
        if (!*code) {
            *code = tr_code_offset(t, e->p);
            tr_regen_flags(t);
            emit_jmp_to(e, t->engine->thunks.exit_flags_host);
        }
        at->fault = *code;
    }
}

static void emit_body(struct tr *t)
{
    struct bt_trap_at *trap = bt_block_traps(t->block);
    emit_entries(t);
    for (t->i = 0; t->i < t->count && !t->e.full; t->i++) {
        const struct x86_insn *insn = &t->insn[t->i];
        uint16_t code = tr_code_offset(t, t->e.p);
        t->native_flags_host = true;
        t->native_flags_saved = false;
        t->native_borrowed_count = 0;
        tr_check_early(t);
        if (t->form[t->i] == FORM_OP)
            tr_exit_op(t, insn, t->op[t->i], t->heavy[t->i]);
        else
            tr_emit(t, insn, t->form[t->i]);
        if (traps(t, t->i))
            note_trap(t, trap++, code);
    }
    t->i = t->count - 1;
    if (!t->ended)
        tr_exit_direct(t, 1, tr_next_off(t));
    tr_emit_stubs(t);
    emit_trap_code(t);
}

static struct bt_block *block_new(struct tr *t, uint64_t phys)
{
    unsigned links = 2 + t->kept_count, count = 0;
    for (unsigned i = 0; i < t->count; i++)
        count += traps(t, i);
    struct bt_block *b = bt_cache_record(t->engine->cache, sizeof(*b) + links * sizeof(struct bt_link) +
                                                               count * sizeof(struct bt_trap_at));
    b->phys = phys;
    b->mode = (uint16_t)t->mode;
    b->len = t->off[t->count];
    b->link_count = (uint8_t)links;
    b->trap_count = (uint8_t)count;
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

/* The instruction at lin goes on in the next page, at `*rest` behind `avail` bytes: decodes it from both. */
static enum bt_translate_result decode_across(struct tr *t, uint64_t lin, unsigned avail, uint64_t *phys2,
                                              const uint8_t **rest)
{
    uint64_t next = round_down(lin, GUEST_PAGE_SIZE) + GUEST_PAGE_SIZE;
    if (!(t->mode & MODE_CODE64))
        next &= UINT32_MAX;
    if (!bt_translate(t->cpu, next, BT_FETCH, phys2, NULL))
        return BT_TRANSLATE_FAULT;
    *rest = guest_ptr(t->engine->config.memory, *phys2, X86_INSN_MAX, false);
    if (!*rest) {
        snprintf(t->cpu->why, sizeof(t->cpu->why),
                 "the guest executes at physical address %#llx, which is not memory",
                 (unsigned long long)*phys2);
        return BT_TRANSLATE_ERROR;
    }
    memcpy(t->bytes + avail, *rest, X86_INSN_MAX - avail);
    enum x86_decode_result r = x86_decode(&t->insn[0], t->bytes, X86_INSN_MAX, code_size(t->mode));
    if (r != DECODE_OK) {
        add_trap(t, 0, r == DECODE_INVALID ? op_ud : op_gp, X86_INSN_MAX);
    } else {
        plan(t, 0);
        t->off[1] = t->insn[0].len;
        t->count = 1;
    }
    return bt_cache_protect(t->engine, *phys2, t->off[1] - avail) ? BT_TRANSLATED : BT_TRANSLATE_RETRY;
}

/* Whether memory still holds what was decoded, now that writes to it would be noticed. */
static bool unchanged(const struct tr *t, const uint8_t *code, unsigned avail, const uint8_t *rest)
{
    unsigned len = t->off[t->count], first = MIN(len, avail);
    return !memcmp(code, t->bytes, first) && (!rest || !memcmp(rest, t->bytes + first, len - first));
}

/* Room for the block's code. */
static bool reserve(struct tr *t)
{
    if (!bt_cache_reserve(t->engine, &t->e))
        return false;
    t->start = t->e.p;
    t->places.start = t->start;
    t->places.far_count = t->places.pointer_count = 0;
    t->e.places = t->engine->kept ? &t->places : NULL;
    return true;
}

static void publish(struct tr *t, uint64_t lin, struct bt_block **out)
{
    bt_cache_add(t->engine, t->block, &t->e);
    if (t->engine->jitdump)
        bt_jitdump_block(t->engine->jitdump, lin, t->mode & MODE_USER,
                         bt_block_exec(t->engine->cache, t->block, 0), t->start, t->block->code_len);
    *out = t->block;
}

static enum bt_translate_result emit_block(struct tr *t, uint64_t phys, uint64_t phys2)
{
    if (!reserve(t))
        return BT_TRANSLATE_RETRY;
    tr_plan(t);
    if (phys2)
        t->entry = ENTRY_SAVED; /* for emit_second_page */
    t->block = block_new(t, phys);
    t->block->page2 = (uint32_t)(phys2 >> GUEST_PAGE_SHIFT);
    emit_body(t);
    if (t->e.full) {
        bt_cache_abandon(t->engine->cache, t->block);
        snprintf(t->cpu->why, sizeof(t->cpu->why), "a translation outgrew its room");
        return BT_TRANSLATE_ERROR;
    }
    bt_stat_add(&t->cpu->stats.translations, 1);
    return BT_TRANSLATED;
}

/* As emit_block, by one that was kept. */
static enum bt_translate_result place_block(struct tr *t, uint64_t phys, const uint8_t *code,
                                            const struct bt_kept_block *kept)
{
    if (!bt_cache_protect(t->engine, phys, kept->bytes_len) || memcmp(code, t->bytes, kept->bytes_len) != 0 ||
        !reserve(t))
        return BT_TRANSLATE_RETRY;
    tr_place(t, phys, kept);
    bt_stat_add(&t->cpu->stats.kept_translations, 1);
    return BT_TRANSLATED;
}

/* From the bytes that are there now, as far as they stay. */
static enum bt_translate_result make_block(struct tr *t, uint64_t lin, uint64_t phys, const uint8_t *code)
{
    struct bt_kept_block kept;
    do {
        bool limited;
        unsigned avail = fetchable(t->cpu, lin, t->mode, &limited);
        uint64_t phys2 = 0;
        const uint8_t *rest = NULL;
        t->count = t->stub_count = 0;
        t->off[0] = 0;
        t->ended = false;
        /* Others may be writing it: from here on only the copy counts. */
        avail = MIN(avail, (unsigned)sizeof(t->bytes));
        memcpy(t->bytes, code, avail);
        if (t->engine->kept && !limited &&
            bt_kept_find(t->engine->kept, t->mode, t->page_off, t->bytes, avail, &kept) && tr_fits(&kept))
            return place_block(t, phys, code, &kept);
        if (decode_block(t, avail, limited) == DECODE_MORE) {
            enum bt_translate_result r = decode_across(t, lin, avail, &phys2, &rest);
            if (r != BT_TRANSLATED)
                return r;
        }
        if (!bt_cache_protect(t->engine, phys,
                              MIN((unsigned)t->off[t->count], GUEST_PAGE_SIZE - t->page_off)))
            return BT_TRANSLATE_RETRY;
        if (!unchanged(t, code, avail, rest))
            continue;
        enum bt_translate_result r = emit_block(t, phys, phys2);
        if (r == BT_TRANSLATED)
            tr_keep(t, limited, avail);
        return r;
    } while (true);
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
    t->cpu = cpu;
    t->engine = engine;
    t->mode = mode;
    t->page_off = (unsigned)(phys & 0xfff);
    enum bt_translate_result r = make_block(t, lin, phys, code);
    if (r == BT_TRANSLATED)
        publish(t, lin, out);
    return r;
}
