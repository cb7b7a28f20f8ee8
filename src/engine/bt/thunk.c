/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Host code between C and translated code: see thunk.h. */
#include "engine/bt/thunk.h"

#define SUB_RSP_8 ((const uint8_t[]){0x48, 0x83, 0xec, 0x08})
#define ADD_RSP_8 ((const uint8_t[]){0x48, 0x83, 0xc4, 0x08})

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
    emit_u8(e, 0xc3);
}

static void make_callout(struct emitter *e, enum bt_callout n, const uint8_t *leave)
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
    emit_mov(e, 8, T0, H_RAX);
    load_guest(e);
    emit_u8(e, 0xc3);
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
        thunks->callout[i] = e.p + e.delta;
        make_callout(&e, (enum bt_callout)i, thunks->leave);
    }
}
