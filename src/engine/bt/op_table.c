/* SPDX-License-Identifier: GPL-2.0-or-later */
/* All instructions that C executes, and how their functions reach operands. gpr-only. */
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

static const struct bt_op_entry *const tables[] = {
    bt_ops_seg, bt_ops_far, bt_ops_return, bt_ops_syscall, bt_ops_flags, bt_ops_near, bt_ops_legacy,
    bt_ops_msr, bt_ops_cr,  bt_ops_fpu,    bt_ops_string,  bt_ops_io,    bt_ops_misc,
};

static bool entry_matches(const struct bt_op_entry *e, const struct x86_insn *insn)
{
    return e->mnemonic == insn->mnemonic && (!e->opcode || e->opcode == (insn->map << 8 | insn->opcode)) &&
           (!e->group || e->group == BT_OP_GROUP(insn->modrm >> 3 & 7));
}

bt_op_fn *bt_op_find(const struct x86_insn *insn, bool *heavy)
{
    for (unsigned t = 0; t < ARRAY_SIZE(tables); t++) {
        for (const struct bt_op_entry *e = tables[t]; e->fn; e++) {
            if (entry_matches(e, insn)) {
                *heavy = e->heavy;
                return e->fn;
            }
        }
    }
    return NULL;
}
