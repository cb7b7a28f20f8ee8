/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing host instructions. An emitter writes through the writable mapping of the code cache; addresses in
 * code are those of the executable mapping. Running out of room is sticky (`full`) and checked once by the
 * caller.
 *
 * Registers: guest GPRs live in the host registers of bt_host_reg[]; guest R9, R10 and R11, the least used in
 * compiled code, live in cpu->gpr, which frees R10 and R11 as scratch (T0, T1) and R9 for the guest's RSP.
 * The host's RSP stays the host's.
 */
#ifndef BT_EMIT_H
#define BT_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/bt/bt.h"

enum host_reg {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15
};

#define T0     H_R10
#define T1     H_R11
#define H_GRSP H_R9
#define H_NONE 0xff

/* Host register of each guest GPR; H_NONE: in cpu->gpr. */
extern const uint8_t bt_host_reg[16];

/* Places in code that depend on where it lies, as offsets from `start`: see kept.h. */
#define EMIT_PLACES 512u
struct emit_places {
    const uint8_t *start;
    unsigned far_count, pointer_count; /* beyond the arrays: too many to tell */
    uint16_t far[EMIT_PLACES];         /* displacements of jumps to what lies before `start` */
    uint16_t pointer[EMIT_PLACES];     /* addresses */
};

struct emitter {
    uint8_t *p; /* writable address of the next byte */
    uint8_t *end;
    intptr_t delta;             /* executable address minus writable address */
    struct emit_places *places; /* NULL: nobody wants to know */
    bool full;
};

/* A memory operand: [base + index * scale + disp], or gs:[disp] when base is H_NONE. */
struct host_mem {
    uint8_t base, index, scale;
    int32_t disp;
};

#define MEM_AT(reg_)       ((struct host_mem){(reg_), H_NONE, 1, 0})
#define MEM_DISP(reg_, d_) ((struct host_mem){(reg_), H_NONE, 1, (d_)})
#define CPU_AT(offset_)    ((struct host_mem){H_NONE, H_NONE, 1, (int32_t)(offset_)})
#define CPU(field_)        CPU_AT(offsetof(struct bt_cpu, field_))
#define CPU_GPR(n_)        CPU_AT(offsetof(struct bt_cpu, gpr) + 8u * (unsigned)(n_))

void emit_u8(struct emitter *e, uint8_t v);
void emit_u32(struct emitter *e, uint32_t v);
void emit_u64(struct emitter *e, uint64_t v);
void emit_bytes(struct emitter *e, const uint8_t *bytes, size_t n);

/* ModRM (+ SIB, displacement) for a memory operand; the REX bits it needs come from emit_mem_rex. */
uint8_t emit_mem_rex(struct host_mem m);
void emit_mem(struct emitter *e, uint8_t reg, struct host_mem m);

/* opcode with register and memory operand, `size` 4 or 8 (REX.W). gs prefix when m.base is H_NONE. */
void emit_op_mem(struct emitter *e, uint8_t opcode, unsigned size, uint8_t reg, struct host_mem m);
void emit_op_reg(struct emitter *e, uint8_t opcode, unsigned size, uint8_t reg, uint8_t rm);

void emit_load(struct emitter *e, unsigned size, uint8_t reg, struct host_mem m); /* 1 and 2 zero-extend */
void emit_store(struct emitter *e, unsigned size, struct host_mem m, uint8_t reg);
void emit_store_imm32(struct emitter *e, struct host_mem m, uint32_t imm);
void emit_mov(struct emitter *e, unsigned size, uint8_t dst, uint8_t src);
void emit_mov_imm(struct emitter *e, uint8_t reg, uint64_t imm);
void emit_mov_pointer(struct emitter *e, uint8_t reg, const void *p);
void emit_lea(struct emitter *e, unsigned size, uint8_t reg, struct host_mem m);
/* T0 += disp, flags kept, in 7 bytes whatever disp is. */
void emit_lea_t0_disp32(struct emitter *e, int32_t disp);

enum alu_op { ALU_ADD = 0, ALU_OR = 1, ALU_AND = 4, ALU_SUB = 5, ALU_XOR = 6, ALU_CMP = 7 };
void emit_alu_imm(struct emitter *e, enum alu_op op, unsigned size, uint8_t reg, int32_t imm);
void emit_alu_mem(struct emitter *e, enum alu_op op, unsigned size, uint8_t reg, struct host_mem m);
void emit_alu_op(struct emitter *e, enum alu_op op, unsigned size, uint8_t dst, uint8_t src);
void emit_cmp_mem_imm8(struct emitter *e, unsigned size, struct host_mem m, int8_t imm);
enum shift_op { SHIFT_SHL = 4, SHIFT_SHR = 5, SHIFT_SAR = 7 };
void emit_shift(struct emitter *e, enum shift_op op, unsigned size, uint8_t reg, uint8_t count);

/* Jumps. `at` results are positions of the 32-bit displacement, for emit_patch. */
uint8_t *emit_jmp(struct emitter *e);
uint8_t *emit_jcc(struct emitter *e, uint8_t cc);
/* As above, with the displacement aligned to 4 bytes, so that it can be rewritten while other threads execute
 * it. */
uint8_t *emit_jmp_aligned(struct emitter *e);
uint8_t *emit_jcc_aligned(struct emitter *e, uint8_t cc);
uint8_t *emit_short(struct emitter *e, uint8_t opcode); /* opcode + rel8 */
void emit_patch(uint8_t *at, const uint8_t *target);    /* both writable addresses */
/* The same, where `target` may lie outside of the block. */
void emit_patch_far(struct emitter *e, uint8_t *at, const uint8_t *target);
void emit_patch_short(uint8_t *at, const uint8_t *target);
void emit_jmp_to(struct emitter *e, const uint8_t *exec_target);
void emit_call_to(struct emitter *e, const uint8_t *exec_target);
void emit_jmp_mem(struct emitter *e, struct host_mem m);
void emit_call_mem(struct emitter *e, struct host_mem m);

enum cc {
    CC_O,
    CC_NO,
    CC_B,
    CC_AE,
    CC_E,
    CC_NE,
    CC_BE,
    CC_A,
    CC_S,
    CC_NS,
    CC_P,
    CC_NP,
    CC_L,
    CC_GE,
    CC_LE,
    CC_G
};

/* Status flags to and from cpu->status; RAX is kept by way of `scratch`. */
void emit_save_flags(struct emitter *e, uint8_t scratch);
void emit_restore_flags(struct emitter *e, uint8_t scratch);
/* The same with RAX kept in cpu->scratch. */
void emit_restore_flags_in_place(struct emitter *e);

#endif
