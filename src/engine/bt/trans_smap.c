/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * STAC and CLAC where they change something: what bt_mode_update would do, in place. Each ends its block, as
 * what follows is a block of another mode.
 */
#include <Zydis/Mnemonic.h>

#include "engine/bt/translate.h"

bool tr_is_smap(const struct tr *t, const struct x86_insn *insn)
{
    bool on = t->mode & MODE_SMAP; /* then AC is clear */
    return insn->mnemonic == (on ? ZYDIS_MNEMONIC_STAC : ZYDIS_MNEMONIC_CLAC);
}

/* AC, known to be the other way, and with it the mode and what hangs on it. No flags. */
static void change(struct tr *t, bool smap)
{
    struct emitter *e = &t->e;
    const uint64_t key = (uint64_t)MODE_SMAP << BT_JC_KEY_SHIFT;
    uint32_t mode = (t->mode & ~(uint32_t)(MODE_PRECISE | MODE_LOOP)) ^ MODE_SMAP;
    emit_load(e, 8, T0, CPU(sysflags));
    emit_lea(e, 8, T0, MEM_DISP(T0, smap ? -(int32_t)FLAG_AC : (int32_t)FLAG_AC));
    emit_store(e, 8, CPU(sysflags), T0);
    emit_load(e, 8, T0, CPU(jc_key));
    emit_mov_imm(e, tr_scratch(t), smap ? key : -key);
    emit_lea(e, 8, T0, (struct host_mem){T0, T1, 1, 0});
    emit_store(e, 8, CPU(jc_key), T0);
    emit_load(e, 8, T0, CPU(tlbs[smap ? BT_TLB_KERNEL_SMAP : BT_TLB_KERNEL]));
    emit_store(e, 8, CPU(tlb), T0);
    emit_store_imm32(e, CPU(mode), mode);
}

void tr_smap(struct tr *t, const struct x86_insn *insn)
{
    struct emitter *e = &t->e;
    uint8_t *slow = NULL;
    bool smap = insn->mnemonic == ZYDIS_MNEMONIC_CLAC;
    tr_need_saved_flags(t);
    t->flags_host = false;
    if (smap) { /* AC is set if only SMAP is on; else C does it */
        emit_load(e, 4, T0, CPU(cr4));
        emit_alu_imm(e, ALU_AND, 4, T0, (int32_t)CR4_SMAP);
        slow = emit_jcc(e, CC_E);
    }
    change(t, smap);
    tr_exit_to_mode(t, tr_next_off(t), MODE_SMAP);
    if (!slow)
        return;
    if (!e->full)
        emit_patch(slow, e->p);
    tr_exit_op(t, insn, t->op[t->i], t->heavy[t->i]);
}
