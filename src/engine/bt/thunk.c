/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Host code between C and translated code: see thunk.h. */
#include "engine/bt/thunk.h"

#include <string.h>

#include "base/crc32c.h"
#include "base/util.h"

#define SUB_RSP_8 ((const uint8_t[]){0x48, 0x83, 0xec, 0x08})
#define ADD_RSP_8 ((const uint8_t[]){0x48, 0x83, 0xc4, 0x08})
#define RET       0xc3
#define CLC       0xf8
#define STC       0xf9

static const uint8_t callee_saved[] = {H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15};

static void load_guest(struct emitter *e)
{
    for (unsigned i = 0; i < 16; i++)
        if (bt_host_reg[i] != H_NONE)
            emit_load(e, 8, bt_host_reg[i], CPU_GPR(i));
}

static void store_guest(struct emitter *e)
{
    for (unsigned i = 0; i < 16; i++)
        if (bt_host_reg[i] != H_NONE)
            emit_store(e, 8, CPU_GPR(i), bt_host_reg[i]);
}

static void emit_push(struct emitter *e, uint8_t reg)
{
    if (reg >= 8)
        emit_u8(e, 0x41);
    emit_u8(e, 0x50 | (reg & 7));
}

static void emit_pop(struct emitter *e, uint8_t reg)
{
    if (reg >= 8)
        emit_u8(e, 0x41);
    emit_u8(e, 0x58 | (reg & 7));
}

/* In translated code the host stack is 16-byte aligned: 8 (return address) + 48 + 8. */
static void make_enter(struct emitter *e)
{
    for (unsigned i = 0; i < sizeof(callee_saved); i++)
        emit_push(e, callee_saved[i]);
    emit_bytes(e, SUB_RSP_8, 4);
    emit_store(e, 8, CPU(host_rsp), H_RSP);
    emit_store(e, 8, CPU(t0), H_RSI);
    emit_mov(e, 8, T0, H_RDX);
    load_guest(e);
    emit_restore_flags(e, T1);
    emit_jmp_mem(e, CPU(t0));
}

static void make_leave(struct emitter *e)
{
    emit_load(e, 8, H_RSP, CPU(host_rsp));
    emit_bytes(e, ADD_RSP_8, 4);
    for (unsigned i = sizeof(callee_saved); i-- > 0;)
        emit_pop(e, callee_saved[i]);
    emit_u8(e, RET);
}

/* The C function with T0 and T1; its result goes to `result`. */
static void call_c(struct emitter *e, enum bt_callout n, uint8_t result, const uint8_t *leave)
{
    store_guest(e);
    emit_mov(e, 8, H_RSI, T0);
    emit_mov(e, 8, H_RDX, T1);
    emit_load(e, 8, H_RDI, CPU(self));
    emit_bytes(e, SUB_RSP_8, 4);
    emit_call_mem(e, CPU_AT(offsetof(struct bt_cpu, callout) + 8u * n));
    emit_bytes(e, ADD_RSP_8, 4);
    emit_op_reg(e, 0x85, 8, H_RAX, H_RAX);
    uint8_t *out = emit_jcc(e, CC_E);
    emit_patch(out, leave - e->delta);
    emit_mov(e, 8, result, H_RAX);
    load_guest(e);
}

/* See struct bt_thunks: access. */
static void make_access(struct emitter *e, const uint8_t *access[2], const uint8_t *leave)
{
    access[0] = e->p + e->delta;
    emit_save_flags(e, T0);
    emit_load(e, 8, T0, CPU(access_lin));
    access[1] = e->p + e->delta;
    emit_store(e, 8, CPU(access_lin), T0);
    emit_op_reg(e, 0x85, 4, T1, T1); /* DESC_MERGED is its sign */
    uint8_t *single = emit_short(e, 0x79);
    emit_store(e, 8, CPU(scratch), T1);
    emit_shift(e, SHIFT_SHR, 4, T1, 12);
    emit_alu_imm(e, ALU_AND, 4, T1, 0xfff); /* DESC_SIZE */
    emit_alu_imm(e, ALU_AND, 4, T0, (int32_t)GUEST_PAGE_SIZE - 1);
    emit_alu_op(e, ALU_ADD, 4, T0, T1);
    emit_alu_imm(e, ALU_CMP, 4, T0, (int32_t)GUEST_PAGE_SIZE);
    emit_load(e, 8, T0, CPU(access_lin));
    emit_load(e, 8, T1, CPU(scratch));
    uint8_t *across = emit_jcc(e, CC_A);
    emit_patch_short(single, e->p);
    call_c(e, CALLOUT_ACCESS, T1, leave);
    emit_load(e, 8, T0, CPU(access_lin));
    emit_alu_op(e, ALU_SUB, 8, T1, T0);
    emit_u8(e, CLC);
    emit_u8(e, RET);
    emit_patch(across, e->p);
    emit_u8(e, STC);
    emit_u8(e, RET);
}

static void make_exits(struct emitter *e, struct bt_thunks *thunks)
{
    static const enum bt_exit with_argument[] = {BT_EXIT_LINK, BT_EXIT_POLL, BT_EXIT_OP, BT_EXIT_MOVED};
    for (unsigned i = 0; i < ARRAY_SIZE(with_argument); i++) {
        for (unsigned saved = 0; saved < 2; saved++) {
            thunks->exit[with_argument[i]][saved] = e->p + e->delta;
            emit_store(e, 8, CPU(exit_arg), T1);
            emit_store_imm32(e, CPU(exit_reason), with_argument[i]);
            emit_jmp_to(e, saved ? thunks->exit_flags_saved : thunks->exit_flags_host);
        }
    }
}

void bt_emit_jump(struct emitter *e, uint8_t *miss[2])
{
    _Static_assert(sizeof(struct bt_jc_entry) == 16, "the look-up scales by 16");
    emit_mov(e, 4, T1, T0);
    emit_shift(e, SHIFT_SHR, 4, T1, 10);
    emit_alu_op(e, ALU_XOR, 4, T1, T0);
    emit_alu_imm(e, ALU_AND, 4, T1, BT_JC_SIZE - 1);
    emit_shift(e, SHIFT_SHL, 4, T1, 4);
    emit_alu_mem(e, ALU_ADD, 8, T1, CPU(jc));
    emit_alu_mem(e, ALU_CMP, 8, T0, MEM_DISP(T1, (int32_t)offsetof(struct bt_jc_entry, rip)));
    miss[0] = emit_jcc(e, CC_NE);
    emit_load(e, 8, T1, MEM_DISP(T1, (int32_t)offsetof(struct bt_jc_entry, target)));
    emit_alu_mem(e, ALU_XOR, 8, T1, CPU(jc_key));
    emit_alu_mem(e, ALU_CMP, 8, T1, CPU(target_end));
    miss[1] = emit_jcc(e, CC_AE);
    emit_op_reg(e, 0xff, 4, 4, T1); /* jmp t1 */
}

void bt_patch_misses(struct emitter *e, uint8_t *miss[2], const uint8_t *target)
{
    for (unsigned i = 0; i < 2 && !e->full; i++)
        emit_patch_far(e, miss[i], target);
}

static void make_jump(struct emitter *e, struct bt_thunks *thunks)
{
    _Static_assert(offsetof(struct bt_cpu, branch_undo) == offsetof(struct bt_cpu, branch_off) + 4,
                   "both are written at once");
    uint8_t *miss[2];
    thunks->missed_branch = e->p + e->delta;
    emit_store(e, 8, CPU(branch_off), T1);
    thunks->missed = e->p + e->delta;
    emit_store(e, 8, CPU(rip), T0);
    emit_store_imm32(e, CPU(exit_reason), BT_EXIT_LOOKUP);
    emit_jmp_to(e, thunks->exit_flags_saved);
    thunks->jump[0] = e->p + e->delta;
    emit_save_flags(e, T1);
    thunks->jump[1] = e->p + e->delta;
    bt_emit_jump(e, miss);
    bt_patch_misses(e, miss, thunks->missed - e->delta);
}

void bt_thunks_make(struct bt_cache *cache, struct bt_thunks *thunks)
{
    struct emitter e = {.p = cache->write, .end = cache->thunk_end, .delta = cache->exec - cache->write};
    thunks->enter = (bt_enter_fn *)(uintptr_t)(e.p + e.delta);
    make_enter(&e);
    thunks->exit_flags_host = e.p + e.delta;
    emit_save_flags(&e, T1);
    thunks->exit_flags_saved = e.p + e.delta;
    store_guest(&e);
    thunks->leave = e.p + e.delta;
    make_leave(&e);
    thunks->dead = e.p + e.delta;
    emit_store(&e, 8, CPU(rip), T0);
    emit_store_imm32(&e, CPU(exit_reason), BT_EXIT_DEAD);
    emit_jmp_to(&e, thunks->exit_flags_saved);
    for (unsigned i = 0; i < CALLOUT_COUNT; i++) {
        if (i == CALLOUT_ACCESS)
            continue;
        thunks->callout[i] = e.p + e.delta;
        call_c(&e, (enum bt_callout)i, T0, thunks->leave);
        emit_u8(&e, RET);
    }
    make_access(&e, thunks->access, thunks->leave);
    make_exits(&e, thunks);
    make_jump(&e, thunks);
}

uint32_t bt_thunks_hash(const struct bt_cache *cache, const struct bt_thunks *thunks)
{
    uint64_t at[sizeof(*thunks) / sizeof(uint64_t)];
    _Static_assert(sizeof(at) == sizeof(*thunks), "nothing but addresses");
    memcpy(at, thunks, sizeof(at));
    for (size_t i = 0; i < ARRAY_SIZE(at); i++)
        at[i] -= at[i] ? (uint64_t)(uintptr_t)cache->exec : 0;
    return crc32c(0, at, sizeof(at));
}
