/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Branches, exits from blocks, and the cold stubs behind a block's hot code. */
#include <Zydis/Mnemonic.h>

#include "base/util.h"
#include "engine/bt/translate.h"

struct stub *tr_stub(struct tr *t, enum stub_kind kind, uint8_t *from)
{
    if (t->stub_count == BT_STUBS_MAX) {
        t->e.full = true;
        return NULL;
    }
    struct stub *s = &t->stub[t->stub_count++];
    *s = (struct stub){.kind = kind,
                       .from = from,
                       .flags_host = t->flags_host,
                       .flags_saved = t->flags_saved,
                       .producer = t->producer};
    return s;
}

static bool same_page(int32_t target)
{
    return target >= 0 && target < (int32_t)GUEST_PAGE_SIZE;
}

/* T0 = RIP of a page offset, cut to the code size. */
static void load_rip(struct tr *t, int32_t off)
{
    struct emitter *e = &t->e;
    emit_load(e, 8, T0, CPU(pc_base));
    emit_lea(e, t->mode & MODE_CODE64 ? 8 : 4, T0, MEM_DISP(T0, off));
    if (!(t->mode & (MODE_CODE64 | MODE_CODE32))) {
        const uint8_t movzx_t0d_t0w[] = {0x45, 0x0f, 0xb7, 0xd2};
        emit_bytes(e, movzx_t0d_t0w, sizeof(movzx_t0d_t0w));
    }
}

/* To run.c with RIP in T0 and the flags saved. */
static void leave(struct tr *t, enum bt_exit reason)
{
    emit_store(&t->e, 8, CPU(rip), T0);
    emit_store_imm32(&t->e, CPU(exit_reason), reason);
    emit_jmp_to(&t->e, t->engine->thunks.exit_flags_saved);
}

void tr_exit_indirect(struct tr *t, int32_t rsp_undo)
{
    struct emitter *e = &t->e;
    tr_need_saved_flags(t);
    t->ended = true;
    if (!tr_flat(t)) {
        leave(t, BT_EXIT_LOOKUP);
        return;
    }
    uint8_t *miss[2];
    bt_emit_jump(e, miss);
    if (rsp_undo == NOT_A_BRANCH) {
        bt_patch_misses(e, miss, t->engine->thunks.missed - e->delta);
        return;
    }
    bt_patch_misses(e, miss, e->p);
    /* To raise #GP at the branch when its target is not canonical. */
    emit_mov_imm(e, T1, (uint64_t)(uint32_t)rsp_undo << 32 | (uint32_t)tr_this_off(t));
    emit_jmp_to(e, t->engine->thunks.missed_branch);
}

static void exit_direct(struct tr *t, unsigned link, int32_t target, uint32_t flip)
{
    t->ended = true;
    if (tr_flat(t) && same_page(target)) {
        struct stub *s = tr_stub(t, STUB_LINK, emit_jmp_aligned(&t->e));
        if (s) {
            s->target = target;
            s->link = link;
            s->flip = flip;
        }
        return;
    }
    tr_need_saved_flags(t);
    load_rip(t, target);
    tr_exit_indirect(t, NOT_A_BRANCH);
}

void tr_exit_direct(struct tr *t, unsigned link, int32_t target)
{
    exit_direct(t, link, target, 0);
}

void tr_exit_to_mode(struct tr *t, int32_t target, uint32_t flip)
{
    exit_direct(t, 1, target, flip);
}

/* A jump to `target`, chained where it can be: conditional, or not when cc is CC_ALWAYS. Uses link 0. */
#define CC_ALWAYS 0xff
static void jump_out(struct tr *t, uint8_t cc, int32_t target)
{
    struct emitter *e = &t->e;
    bool chain = same_page(target);
    uint8_t *at;
    if (cc == CC_ALWAYS)
        at = chain ? emit_jmp_aligned(e) : emit_jmp(e);
    else
        at = chain ? emit_jcc_aligned(e, cc) : emit_jcc(e, cc);
    struct stub *s = tr_stub(t, chain ? STUB_LINK : STUB_EXIT, at);
    if (s) {
        s->target = target;
        s->link = 0;
    }
}

static void tr_jcc(struct tr *t, const struct x86_insn *insn)
{
    tr_need_host_flags(t, NULL);
    if (t->loop) {
        uint8_t *at = emit_jcc(&t->e, insn->opcode & 15);
        if (!t->e.full)
            emit_patch(at, t->loop_head);
    } else {
        jump_out(t, insn->opcode & 15, (int32_t)(tr_next_off(t) + insn->imm[0]));
    }
    tr_exit_direct(t, 1, tr_next_off(t));
}

/* LOOP, LOOPE, LOOPNE, JCXZ with a 4- or 8-byte counter. No flags are changed. */
static void tr_loop(struct tr *t, const struct x86_insn *insn)
{
    struct emitter *e = &t->e;
    uint8_t *out[2] = {NULL, NULL};
    bool jcxz = (insn->opcode & 3) == 3;
    tr_need_host_flags(t, NULL);
    if (!jcxz)
        emit_lea(e, insn->addrsize, H_RCX, MEM_DISP(H_RCX, -1));
    if (insn->addrsize == 4)
        emit_u8(e, 0x67);
    out[0] = emit_short(e, 0xe3);
    if ((insn->opcode & 3) < 2) /* LOOPNE goes on while ZF is clear, LOOPE while it is set */
        out[1] = emit_short(e, (insn->opcode & 3) == 0 ? 0x74 : 0x75);
    int32_t taken = (int32_t)(tr_next_off(t) + insn->imm[0]);
    jump_out(t, CC_ALWAYS, jcxz ? tr_next_off(t) : taken);
    for (unsigned i = 0; i < 2; i++)
        if (out[i] && !e->full)
            emit_patch_short(out[i], e->p);
    tr_exit_direct(t, 1, jcxz ? taken : tr_next_off(t));
}

static void tr_jmp_indirect(struct tr *t, const struct x86_insn *insn)
{
    if (insn->mem.present)
        emit_load(&t->e, insn->opsize, T0, tr_mem(t, TR_OPERAND));
    else
        emit_mov(&t->e, insn->opsize, T0, tr_gpr(t, insn->rm.reg, T0));
    tr_exit_indirect(t, 0);
}

bool tr_is_jcc(const struct x86_insn *insn)
{
    return insn->imm_relative && ((insn->map == 0 && (insn->opcode & 0xf0) == 0x70) ||
                                  (insn->map == 1 && (insn->opcode & 0xf0) == 0x80));
}

static bool is_near_reg(const struct x86_insn *insn)
{
    return insn->rm.kind == FIELD_GPR || insn->opreg.kind == FIELD_GPR;
}

/* Stack and flow instructions with a form of their own here. */
static bool has_flow_form(const struct x86_insn *insn)
{
    unsigned group = insn->modrm & 0x38;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        return insn->mem.present || is_near_reg(insn) || insn->imm_count;
    case ZYDIS_MNEMONIC_POP:
        return is_near_reg(insn);
    case ZYDIS_MNEMONIC_LEAVE:
        return true;
    case ZYDIS_MNEMONIC_PUSHFQ:
        return insn->opsize == 8;
    case ZYDIS_MNEMONIC_CALL:
        return insn->imm_relative || (insn->map == 0 && insn->opcode == 0xff && group == 0x10);
    case ZYDIS_MNEMONIC_JMP:
        return insn->imm_relative || (insn->map == 0 && insn->opcode == 0xff && group == 0x20);
    case ZYDIS_MNEMONIC_RET:
        return insn->opcode == 0xc2 || insn->opcode == 0xc3;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
        return insn->addrsize >= 4;
    default:
        return tr_is_jcc(insn);
    }
}

static void emit_flow(struct tr *t, const struct x86_insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        if (insn->mem.present)
            tr_push_mem(t, insn);
        else if (is_near_reg(insn))
            tr_push_gpr(t, insn);
        else
            tr_push_imm(t, insn);
        break;
    case ZYDIS_MNEMONIC_POP:
        tr_pop_gpr(t, insn);
        break;
    case ZYDIS_MNEMONIC_LEAVE:
        tr_leave(t, insn);
        break;
    case ZYDIS_MNEMONIC_PUSHFQ:
        tr_pushf(t);
        break;
    case ZYDIS_MNEMONIC_CALL:
        tr_call(t, insn);
        break;
    case ZYDIS_MNEMONIC_RET:
        tr_ret(t, insn);
        break;
    case ZYDIS_MNEMONIC_JMP:
        if (insn->imm_relative)
            tr_exit_direct(t, 0, (int32_t)(tr_next_off(t) + insn->imm[0]));
        else
            tr_jmp_indirect(t, insn);
        break;
    default:
        if (tr_is_jcc(insn))
            tr_jcc(t, insn);
        else
            tr_loop(t, insn);
        break;
    }
}

/* Offsets are linear addresses, and the operand and stack sizes are those of the mode. */
static bool flow_mode(const struct tr *t, const struct x86_insn *insn)
{
    if (!tr_flat(t))
        return false;
    if (t->mode & MODE_CODE64)
        return insn->opsize == 8 || tr_is_jcc(insn);
    return (t->mode & MODE_CODE32) && (t->mode & MODE_STACK32) && insn->opsize == 4 &&
           (!insn->mem.present || tr_direct_mem(t, insn));
}

/* At CPL 0 in 64-bit mode: MODE_ALIGN is set at 1 and 2. */
static bool is_kernel(const struct tr *t)
{
    return tr_flat(t) && (t->mode & MODE_CODE64) && !(t->mode & MODE_USER);
}

enum tr_form tr_classify(const struct tr *t, const struct x86_insn *insn)
{
    if ((insn->hidden_mem || insn->branch) && has_flow_form(insn) && flow_mode(t, insn))
        return FORM_FLOW;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_LEA:
        return FORM_LEA;
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
        return FORM_DF;
    case ZYDIS_MNEMONIC_CLI:
        return is_kernel(t) ? FORM_CLI : FORM_OP;
    case ZYDIS_MNEMONIC_STI:
        return is_kernel(t) ? FORM_STI : FORM_OP;
    case ZYDIS_MNEMONIC_SWAPGS:
        return is_kernel(t) ? FORM_SWAPGS : FORM_OP;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        return is_kernel(t) && tr_is_smap(t, insn) ? FORM_SMAP : FORM_OP;
    case ZYDIS_MNEMONIC_ENDBR32: /* without CET these do nothing */
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_RDSSPD:
    case ZYDIS_MNEMONIC_RDSSPQ:
        return FORM_NOTHING;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (insn->mem.present && insn->reg.kind == FIELD_GPR)
            return FORM_BIT_STRING;
        break;
    default:
        if (insn->mem.present && !insn->mem.accessed && !insn->gpr_written && !insn->hidden_mem)
            return FORM_NOTHING; /* prefetches, NOPs with an operand */
        break;
    }
    if (tr_is_string(t, insn))
        return FORM_STRING;
    if (tr_is_system_read(t, insn, is_kernel(t)))
        return FORM_SYSTEM_READ;
    return tr_is_native(insn) ? FORM_NATIVE : FORM_OP;
}

/* To the instruction at `target` by run.c, which has just that one run before an interrupt. The flags are
 * saved. */
static void leave_in_shadow(struct tr *t, int32_t target)
{
    emit_store_imm32(&t->e, CPU(shadow), 1);
    load_rip(t, target);
    leave(t, BT_EXIT_LOOKUP);
}

/*
 * Interrupts come between blocks only. So the instruction after STI runs before them when it is in the same
 * block and none has been waiting; else run.c sees to it.
 */
static void emit_sti(struct tr *t)
{
    struct emitter *e = &t->e;
    emit_store_imm32(e, CPU(iflag), FLAG_IF);
    if (t->i + 1 == t->count) {
        tr_need_saved_flags(t);
        leave_in_shadow(t, tr_next_off(t));
        t->ended = true;
        return;
    }
    tr_clobber_flags(t);
    emit_cmp_mem_imm8(e, 4, CPU(irq_waiting), 0);
    struct stub *s = tr_stub(t, STUB_STI, emit_jcc(e, CC_NE));
    if (s)
        s->target = tr_next_off(t);
}

static void stub_sti(struct tr *t, struct stub *s)
{
    t->producer = s->producer;
    if (!s->flags_saved) {
        tr_regen_flags(t);
        emit_save_flags(&t->e, T1);
    }
    leave_in_shadow(t, s->target);
}

/* The bases of GS change places. Accesses before and after have nothing in common, so the block ends. */
static void emit_swapgs(struct tr *t)
{
    struct emitter *e = &t->e;
    const struct host_mem copy = CPU_AT(offsetof(struct bt_cpu, seg_base) + 8u * SEG_GS);
    emit_load(e, 8, T0, copy);
    emit_load(e, 8, tr_scratch(t), CPU(kernel_gs_base));
    emit_store(e, 8, copy, T1);
    emit_store(e, 8,
               CPU_AT(offsetof(struct bt_cpu, seg) + sizeof(struct x86_segment) * SEG_GS +
                      offsetof(struct x86_segment, base)),
               T1);
    emit_store(e, 8, CPU(kernel_gs_base), T0);
    tr_exit_direct(t, 1, tr_next_off(t));
}

void tr_emit(struct tr *t, const struct x86_insn *insn, enum tr_form form)
{
    switch (form) {
    case FORM_FLOW:
        emit_flow(t, insn);
        break;
    case FORM_LEA:
        tr_lea(t, insn);
        break;
    case FORM_DF:
        emit_store_imm32(&t->e, CPU(df), insn->mnemonic == ZYDIS_MNEMONIC_STD ? FLAG_DF : 0);
        break;
    case FORM_CLI:
        emit_store_imm32(&t->e, CPU(iflag), 0);
        break;
    case FORM_STI:
        emit_sti(t);
        break;
    case FORM_SWAPGS:
        emit_swapgs(t);
        break;
    case FORM_STRING:
        tr_string(t, insn);
        break;
    case FORM_SYSTEM_READ:
        tr_system_read(t, insn);
        break;
    case FORM_SMAP:
        tr_smap(t, insn);
        break;
    case FORM_BIT_STRING:
        tr_bit_string(t, insn);
        break;
    case FORM_NATIVE:
        tr_native(t, insn);
        break;
    case FORM_NOTHING:
    case FORM_OP:
        break;
    }
}

/* To run.c for a reason that says the rest by its argument: a number, or something of the block's record. */
static void leave_with(struct tr *t, enum bt_exit reason, uint64_t argument, bool saved)
{
    emit_mov_imm(&t->e, T1, argument);
    emit_jmp_to(&t->e, t->engine->thunks.exit[reason][saved]);
}

static void leave_with_pointer(struct tr *t, enum bt_exit reason, const void *argument, bool saved)
{
    emit_mov_pointer(&t->e, T1, argument);
    emit_jmp_to(&t->e, t->engine->thunks.exit[reason][saved]);
}

void tr_exit_op(struct tr *t, const struct x86_insn *insn, bt_op_fn *fn, bool heavy)
{
    struct bt_op *op = bt_cache_record(t->engine->cache, sizeof(*op));
    *op = (struct bt_op){.run = fn, .heavy = heavy, .page_off = (uint16_t)tr_this_off(t), .insn = *insn};
    leave_with_pointer(t, BT_EXIT_OP, op, t->flags_saved);
    t->ended = true;
}

/* To run.c, which may chain the jump at `at` to the target. */
static void exit_linked(struct tr *t, unsigned number, uint8_t *at, unsigned target, uint32_t mode,
                        bool saved)
{
    struct bt_link *link = &t->block->link[number];
    *link = (struct bt_link){.back = (uint16_t)((uint8_t *)link - (uint8_t *)t->block),
                             .at = tr_code_offset(t, at),
                             .stub = tr_code_offset(t, t->e.p),
                             .target = (uint16_t)target,
                             .mode = (uint16_t)mode,
                             .saved = saved};
    leave_with_pointer(t, BT_EXIT_LINK, link, saved);
}

/* A block that branches to itself goes on as a loop. */
static uint32_t branch_mode(const struct tr *t, int32_t target)
{
    uint32_t mode = t->mode & ~(uint32_t)(MODE_PRECISE | MODE_LOOP);
    return mode == t->mode && target == (int32_t)t->page_off && tr_loops(t) ? mode | MODE_LOOP : mode;
}

static void stub_access(struct tr *t, struct stub *s)
{
    struct emitter *e = &t->e;
    emit_alu_mem(e, ALU_ADD, 8, T0, MEM_DISP(T1, s->tag)); /* back to the linear address */
    t->producer = s->producer;
    if (!s->flags_saved) {
        emit_store(e, 8, CPU(access_lin), T0);
        tr_regen_flags(t);
    }
    emit_mov_imm(e, T1, s->desc);
    emit_call_to(e, t->engine->thunks.access[s->flags_saved]);
    uint8_t *across = s->desc & DESC_MERGED ? emit_jcc(e, CC_B) : NULL;
    emit_jmp_to(e, s->resume + e->delta);
    if (!across || e->full)
        return;
    emit_patch(across, e->p);
    uint8_t *at = emit_jmp_aligned(e);
    if (!e->full)
        emit_patch(at, e->p);
    exit_linked(t, s->link, at, DESC_OFFSET(s->desc), (t->mode & ~(uint32_t)MODE_LOOP) | MODE_PRECISE, true);
}

/* Back to run.c before the block has done anything. */
static void stub_start(struct tr *t, struct stub *s, enum bt_exit reason)
{
    t->producer = s->producer;
    if (!s->flags_host && !s->flags_saved)
        tr_regen_flags(t);
    leave_with(t, reason, t->page_off, s->flags_saved);
}

/* To a page offset that may lie in another page. */
static void stub_exit(struct tr *t, struct stub *s)
{
    load_rip(t, s->target);
    if (tr_flat(t)) {
        emit_jmp_to(&t->e, t->engine->thunks.jump[s->flags_saved]);
        return;
    }
    tr_need_saved_flags(t);
    leave(t, BT_EXIT_LOOKUP);
}

void tr_emit_stubs(struct tr *t)
{
    for (unsigned i = 0; i < t->stub_count && !t->e.full; i++) {
        struct stub *s = &t->stub[i];
        if (s->from)
            emit_patch(s->from, t->e.p);
        t->flags_host = s->flags_host;
        t->flags_saved = s->flags_saved;
        switch (s->kind) {
        case STUB_ACCESS:
            stub_access(t, s);
            break;
        case STUB_LINK:
            exit_linked(t, s->link, s->from, (unsigned)s->target, branch_mode(t, s->target) ^ s->flip,
                        s->flags_saved);
            break;
        case STUB_EXIT:
            stub_exit(t, s);
            break;
        case STUB_POLL:
            stub_start(t, s, BT_EXIT_POLL);
            break;
        case STUB_STI:
            stub_sti(t, s);
            break;
        case STUB_MOVED:
            stub_start(t, s, BT_EXIT_MOVED);
            break;
        }
    }
}
