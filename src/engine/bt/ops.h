/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tables of instructions that C executes. Each op_*.c exports one table; op_table.c joins them for
 * bt_op_find.
 */
#ifndef BT_OPS_H
#define BT_OPS_H

#include <Zydis/Mnemonic.h>

#include "engine/bt/bt.h"

/* One form of an instruction. A table ends with an entry whose fn is NULL; the first match wins. */
struct bt_op_entry {
    uint16_t mnemonic; /* ZydisMnemonic */
    uint16_t opcode; /* 0: every encoding of the mnemonic; else only map << 8 | opcode (MOV CR,r64: 0x122) */
    bt_op_fn *fn;
    bool heavy; /* see struct bt_op */
};

extern const struct bt_op_entry bt_ops_seg[];
extern const struct bt_op_entry bt_ops_far[];
extern const struct bt_op_entry bt_ops_syscall[];
extern const struct bt_op_entry bt_ops_flags[];
extern const struct bt_op_entry bt_ops_near[];
extern const struct bt_op_entry bt_ops_legacy[];
extern const struct bt_op_entry bt_ops_msr[];
extern const struct bt_op_entry bt_ops_cr[];
extern const struct bt_op_entry bt_ops_fpu[];
extern const struct bt_op_entry bt_ops_string[];
extern const struct bt_op_entry bt_ops_io[];

#endif
