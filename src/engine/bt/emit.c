/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Host instruction writer: see emit.h. */
#include "engine/bt/emit.h"

#include "base/util.h"

const uint8_t bt_host_reg[16] = {H_RAX, H_RCX,  H_RDX,  H_RBX,  H_GRSP, H_RBP, H_RSI, H_RDI,
                                 H_R8,  H_NONE, H_NONE, H_NONE, H_R12,  H_R13, H_R14, H_R15};

void emit_u8(struct emitter *e, uint8_t v)
{
    if (e->p >= e->end) {
        e->full = true;
        return;
    }
    *e->p++ = v;
}

void emit_bytes(struct emitter *e, const uint8_t *bytes, size_t n)
{
    if ((size_t)(e->end - e->p) < n) {
        e->full = true;
        return;
    }
    memcpy(e->p, bytes, n);
    e->p += n;
}

void emit_u32(struct emitter *e, uint32_t v)
{
    emit_bytes(e, (const uint8_t *)&v, sizeof(v));
}

void emit_u64(struct emitter *e, uint64_t v)
{
    emit_bytes(e, (const uint8_t *)&v, sizeof(v));
}

uint8_t emit_mem_rex(struct host_mem m)
{
    uint8_t rex = 0;
    if (m.base != H_NONE && m.base >= 8)
        rex |= 1;
    if (m.index != H_NONE && m.index >= 8)
        rex |= 2;
    return rex;
}

void emit_mem(struct emitter *e, uint8_t reg, struct host_mem m)
{
    uint8_t r = (uint8_t)((reg & 7) << 3);
    if (m.base == H_NONE) { /* absolute, sign-extended */
        emit_u8(e, r | 4);
        emit_u8(e,
                m.index == H_NONE ? 0x25 : (uint8_t)(__builtin_ctz(m.scale) << 6 | (m.index & 7) << 3 | 5));
        emit_u32(e, (uint32_t)m.disp);
        return;
    }
    uint8_t base = m.base & 7;
    bool sib = m.index != H_NONE || base == 4;
    uint8_t mod = m.disp == 0 && base != 5 ? 0 : m.disp == (int8_t)m.disp ? 0x40 : 0x80;
    emit_u8(e, mod | r | (sib ? 4 : base));
    if (sib)
        emit_u8(e,
                (uint8_t)(__builtin_ctz(m.scale) << 6 | (m.index == H_NONE ? 4 : m.index & 7) << 3 | base));
    if (mod == 0x40)
        emit_u8(e, (uint8_t)m.disp);
    else if (mod == 0x80)
        emit_u32(e, (uint32_t)m.disp);
}

static void emit_rex(struct emitter *e, unsigned size, uint8_t reg, uint8_t low_bits, bool byte_reg)
{
    uint8_t rex = (uint8_t)((size == 8 ? 8 : 0) | (reg >= 8 ? 4 : 0) | low_bits);
    if (rex || byte_reg)
        emit_u8(e, 0x40 | rex);
}

void emit_op_mem(struct emitter *e, uint8_t opcode, unsigned size, uint8_t reg, struct host_mem m)
{
    if (m.base == H_NONE)
        emit_u8(e, 0x65);
    if (size == 2)
        emit_u8(e, 0x66);
    emit_rex(e, size, reg, emit_mem_rex(m), size == 1 && reg >= 4);
    emit_u8(e, opcode);
    emit_mem(e, reg, m);
}

void emit_op_reg(struct emitter *e, uint8_t opcode, unsigned size, uint8_t reg, uint8_t rm)
{
    if (size == 2)
        emit_u8(e, 0x66);
    emit_rex(e, size, reg, rm >= 8, size == 1 && (reg >= 4 || rm >= 4));
    emit_u8(e, opcode);
    emit_u8(e, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

void emit_load(struct emitter *e, unsigned size, uint8_t reg, struct host_mem m)
{
    if (size >= 4) {
        emit_op_mem(e, 0x8b, size, reg, m);
        return;
    }
    if (m.base == H_NONE)
        emit_u8(e, 0x65);
    emit_rex(e, 4, reg, emit_mem_rex(m), false);
    emit_u8(e, 0x0f);
    emit_u8(e, size == 1 ? 0xb6 : 0xb7);
    emit_mem(e, reg, m);
}

void emit_store(struct emitter *e, unsigned size, struct host_mem m, uint8_t reg)
{
    emit_op_mem(e, size == 1 ? 0x88 : 0x89, size, reg, m);
}

void emit_store_imm32(struct emitter *e, struct host_mem m, uint32_t imm)
{
    emit_op_mem(e, 0xc7, 4, 0, m);
    emit_u32(e, imm);
}

void emit_mov(struct emitter *e, unsigned size, uint8_t dst, uint8_t src)
{
    emit_op_reg(e, 0x89, size, src, dst);
}

void emit_mov_imm(struct emitter *e, uint8_t reg, uint64_t imm)
{
    if (imm <= UINT32_MAX) {
        emit_rex(e, 4, 0, reg >= 8, false);
        emit_u8(e, 0xb8 | (reg & 7));
        emit_u32(e, (uint32_t)imm);
    } else if ((int64_t)imm == (int32_t)imm) {
        emit_op_reg(e, 0xc7, 8, 0, reg);
        emit_u32(e, (uint32_t)imm);
    } else {
        emit_rex(e, 8, 0, reg >= 8, false);
        emit_u8(e, 0xb8 | (reg & 7));
        emit_u64(e, imm);
    }
}

static void note_place(const struct emit_places *places, uint16_t list[EMIT_PLACES], unsigned *count,
                       const uint8_t *at)
{
    if (*count < EMIT_PLACES)
        list[*count] = (uint16_t)(at - places->start);
    *count += *count <= EMIT_PLACES;
}

void emit_mov_pointer(struct emitter *e, uint8_t reg, const void *p)
{
    emit_rex(e, 8, 0, reg >= 8, false);
    emit_u8(e, 0xb8 | (reg & 7));
    if (e->places)
        note_place(e->places, e->places->pointer, &e->places->pointer_count, e->p);
    emit_u64(e, (uint64_t)(uintptr_t)p);
}

void emit_lea(struct emitter *e, unsigned size, uint8_t reg, struct host_mem m)
{
    emit_rex(e, size, reg, emit_mem_rex(m), false);
    emit_u8(e, 0x8d);
    emit_mem(e, reg, m);
}

void emit_lea_t0_disp32(struct emitter *e, int32_t disp)
{
    _Static_assert((T0 & 7) != 4, "such a base would need a SIB byte");
    emit_rex(e, 8, T0, T0 >= 8, false);
    emit_u8(e, 0x8d);
    emit_u8(e, (uint8_t)(0x80 | (T0 & 7) << 3 | (T0 & 7)));
    emit_u32(e, (uint32_t)disp);
}

void emit_alu_imm(struct emitter *e, enum alu_op op, unsigned size, uint8_t reg, int32_t imm)
{
    bool small = imm == (int8_t)imm;
    emit_op_reg(e, small ? 0x83 : 0x81, size, (uint8_t)op, reg);
    if (small)
        emit_u8(e, (uint8_t)imm);
    else
        emit_u32(e, (uint32_t)imm);
}

void emit_alu_mem(struct emitter *e, enum alu_op op, unsigned size, uint8_t reg, struct host_mem m)
{
    emit_op_mem(e, (uint8_t)(op << 3 | 3), size, reg, m);
}

void emit_cmp_mem_imm8(struct emitter *e, unsigned size, struct host_mem m, int8_t imm)
{
    emit_op_mem(e, 0x83, size, ALU_CMP, m);
    emit_u8(e, (uint8_t)imm);
}

void emit_shift(struct emitter *e, enum shift_op op, unsigned size, uint8_t reg, uint8_t count)
{
    emit_op_reg(e, 0xc1, size, (uint8_t)op, reg);
    emit_u8(e, count);
}

static uint8_t *rel32(struct emitter *e)
{
    uint8_t *at = e->p;
    emit_u32(e, 0);
    return at;
}

static void align_for(struct emitter *e, unsigned opcode_len)
{
    static const uint8_t nops[4][3] = {{0}, {0x90}, {0x66, 0x90}, {0x0f, 0x1f, 0x00}};
    unsigned pad = (unsigned)(-(uintptr_t)(e->p + opcode_len) & 3);
    emit_bytes(e, nops[pad], pad);
}

uint8_t *emit_jmp(struct emitter *e)
{
    emit_u8(e, 0xe9);
    return rel32(e);
}

uint8_t *emit_jcc(struct emitter *e, uint8_t cc)
{
    emit_u8(e, 0x0f);
    emit_u8(e, 0x80 | cc);
    return rel32(e);
}

uint8_t *emit_jmp_aligned(struct emitter *e)
{
    align_for(e, 1);
    return emit_jmp(e);
}

uint8_t *emit_jcc_aligned(struct emitter *e, uint8_t cc)
{
    align_for(e, 2);
    return emit_jcc(e, cc);
}

uint8_t *emit_short(struct emitter *e, uint8_t opcode)
{
    emit_u8(e, opcode);
    uint8_t *at = e->p;
    emit_u8(e, 0);
    return at;
}

void emit_patch(uint8_t *at, const uint8_t *target)
{
    int32_t rel = (int32_t)(target - (at + 4));
    if ((uintptr_t)at & 3)
        memcpy(at, &rel, sizeof(rel));
    else
        __atomic_store_n((int32_t *)(void *)at, rel, __ATOMIC_RELEASE);
}

void emit_patch_far(struct emitter *e, uint8_t *at, const uint8_t *target)
{
    emit_patch(at, target);
    if (e->places && target < e->places->start)
        note_place(e->places, e->places->far, &e->places->far_count, at);
}

void emit_patch_short(uint8_t *at, const uint8_t *target)
{
    *at = (uint8_t)(target - (at + 1));
}

void emit_jmp_to(struct emitter *e, const uint8_t *exec_target)
{
    uint8_t *at = emit_jmp(e);
    if (!e->full)
        emit_patch_far(e, at, exec_target - e->delta);
}

void emit_call_to(struct emitter *e, const uint8_t *exec_target)
{
    emit_u8(e, 0xe8);
    uint8_t *at = rel32(e);
    if (!e->full)
        emit_patch_far(e, at, exec_target - e->delta);
}

void emit_jmp_mem(struct emitter *e, struct host_mem m)
{
    emit_op_mem(e, 0xff, 4, 4, m);
}

void emit_call_mem(struct emitter *e, struct host_mem m)
{
    emit_op_mem(e, 0xff, 4, 2, m);
}

void emit_save_flags(struct emitter *e, uint8_t scratch)
{
    emit_mov(e, 8, scratch, H_RAX);
    emit_u8(e, 0x9f);                                      /* lahf */
    emit_bytes(e, (const uint8_t[]){0x0f, 0x90, 0xc0}, 3); /* seto al */
    emit_store(e, 4, CPU(status), H_RAX);
    emit_mov(e, 8, H_RAX, scratch);
}

void emit_restore_flags(struct emitter *e, uint8_t scratch)
{
    emit_mov(e, 8, scratch, H_RAX);
    emit_load(e, 4, H_RAX, CPU(status));
    emit_bytes(e, (const uint8_t[]){0x04, 0x7f}, 2); /* add al, 0x7f: OF from bit 0 */
    emit_u8(e, 0x9e);                                /* sahf */
    emit_mov(e, 8, H_RAX, scratch);
}

void emit_restore_flags_in_place(struct emitter *e)
{
    emit_store(e, 8, CPU(scratch), H_RAX);
    emit_load(e, 4, H_RAX, CPU(status));
    emit_bytes(e, (const uint8_t[]){0x04, 0x7f}, 2);
    emit_u8(e, 0x9e);
    emit_load(e, 8, H_RAX, CPU(scratch));
}

void emit_alu_op(struct emitter *e, enum alu_op op, unsigned size, uint8_t dst, uint8_t src)
{
    emit_op_reg(e, (uint8_t)(op << 3 | 1), size, src, dst);
}
