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
    bool heavy;    /* see struct bt_op */
    uint8_t group; /* 0: any ModRM.reg; else only BT_OP_GROUP(reg) */
};

/*
 * op_cr.c: what MOV to CR3 does once the value is checked, outside long mode: stores it, loads the PAE
 * entries, flushes. False: the PAE entries are bad; cpu->exc is #GP(0) and nothing changed. gpr-only.
 */
bool bt_cr3_load(struct bt_cpu *cpu, uint64_t value);

/*
 * The operand that ModRM.rm names, register or memory, as `size` bytes 1, 2, 4 or 8 (zero-extended). False:
 * the access faulted, cpu->exc is set. gpr-only.
 */
bool bt_rm_read(struct bt_cpu *cpu, const struct bt_op *op, unsigned size, uint64_t *value);
bool bt_rm_write(struct bt_cpu *cpu, const struct bt_op *op, unsigned size, uint64_t value);
/* A register operand, with the processor's rules: 4 bytes clear the upper half, 1 and 2 leave the rest. */
uint64_t bt_reg_read(const struct bt_cpu *cpu, const struct x86_field *field, unsigned size);
void bt_reg_write(struct bt_cpu *cpu, const struct x86_field *field, unsigned size, uint64_t value);
/* General register `reg` as `size` bytes 2, 4 or 8, by the same rules. */
void bt_gpr_write(struct bt_cpu *cpu, unsigned reg, unsigned size, uint64_t value);

/* Segment of a memory operand that is implied (strings, MASKMOVDQU): DS or what a prefix says. gpr-only. */
unsigned bt_segment_override(const struct x86_insn *insn);

#define BT_OP_GROUP(reg) (8 | (reg))

extern const struct bt_op_entry bt_ops_seg[];
extern const struct bt_op_entry bt_ops_far[];
extern const struct bt_op_entry bt_ops_return[];
extern const struct bt_op_entry bt_ops_syscall[];
extern const struct bt_op_entry bt_ops_flags[];
extern const struct bt_op_entry bt_ops_near[];
extern const struct bt_op_entry bt_ops_legacy[];
extern const struct bt_op_entry bt_ops_msr[];
extern const struct bt_op_entry bt_ops_cr[];
extern const struct bt_op_entry bt_ops_fpu[];
extern const struct bt_op_entry bt_ops_string[];
extern const struct bt_op_entry bt_ops_io[];
extern const struct bt_op_entry bt_ops_misc[];

#endif
