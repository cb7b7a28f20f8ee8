/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AVX2 gathers and masked moves, element by element: only elements that the mask selects are accessed and can
 * fault (SDM vol. 2 under VGATHERDPS, VMASKMOV, MASKMOVDQU). Heavy: they work on cpu->xsave. gpr-only.
 */
#include "base/util.h"
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"
#include "engine/bt/vec.h"

#define VEX_L 0x04 /* in the last byte of the prefix */

static unsigned vector_bytes(const struct x86_insn *in)
{
    return in->vex[1] & VEX_L ? 32 : 16;
}

/* Where byte `at` of a vector register lies in the saved state. */
static uint8_t *vector_byte(struct bt_cpu *cpu, unsigned reg, unsigned at)
{
    return at < 16 ? cpu->xsave + XS_XMM + 16 * reg + at : cpu->xsave + XS_AVX + 16 * reg + at - 16;
}

static uint64_t element(struct bt_cpu *cpu, unsigned reg, unsigned n, unsigned size)
{
    const uint8_t *p = vector_byte(cpu, reg, n * size);
    return size == 8 ? load_le64(p) : size == 4 ? load_le32(p) : *p;
}

static void set_element(struct bt_cpu *cpu, unsigned reg, unsigned n, unsigned size, uint64_t value)
{
    uint8_t *p = vector_byte(cpu, reg, n * size);
    if (size == 8)
        store_le64(p, value);
    else
        store_le32(p, (uint32_t)value);
    store_le64(cpu->xsave + XS_BV, load_le64(cpu->xsave + XS_BV) | XSTATE_SSE | XSTATE_AVX);
}

static bool selected(struct bt_cpu *cpu, unsigned mask_reg, unsigned n, unsigned size)
{
    return element(cpu, mask_reg, n, size) >> (8 * size - 1);
}

/* Zeroes a register from byte `from` on, up to its 32. */
static void zero_rest(struct bt_cpu *cpu, unsigned reg, unsigned from)
{
    for (unsigned i = from / 4; i < 8; i++)
        set_element(cpu, reg, i, 4, 0);
}

/* Elements are not checked for alignment (SDM vol. 2, VMASKMOV; processors do not for gathers either). */
static bool read_element(struct bt_cpu *cpu, unsigned seg, uint64_t ea, uint64_t *value, unsigned size)
{
    uint64_t lin;
    return bt_seg_linear(cpu, seg, ea, size, BT_READ, &lin) && bt_read_lin(cpu, lin, value, size, BT_READ);
}

static bool write_element(struct bt_cpu *cpu, unsigned seg, uint64_t ea, uint64_t value, unsigned size)
{
    uint64_t lin;
    return bt_seg_linear(cpu, seg, ea, size, BT_WRITE, &lin) &&
           bt_write_lin(cpu, lin, &value, size, BT_WRITE);
}

/* ---- gathers ---- */

static uint64_t gather_address(const struct bt_cpu *cpu, const struct x86_insn *in, uint64_t index)
{
    const struct x86_mem *mem = &in->mem;
    uint64_t base = mem->base < 16 ? cpu->gpr[mem->base] : 0;
    return bt_zext(base + index * mem->scale + (uint64_t)mem->disp, in->addrsize);
}

bool bt_op_gather(struct bt_cpu *cpu, const struct bt_op *op)
{
    const struct x86_insn *in = &op->insn;
    unsigned size = in->rex_w ? 8 : 4, index_size = in->opcode & 1 ? 8 : 4;
    unsigned count = vector_bytes(in) / MAX(size, index_size);
    unsigned dest = in->reg.reg, mask = in->vvvv.reg;
    for (unsigned i = 0; i < count; i++) {
        if (!selected(cpu, mask, i, size)) {
            set_element(cpu, mask, i, size, 0);
            continue;
        }
        uint64_t value = 0, index = element(cpu, in->mem.index, i, index_size);
        if (index_size == 4)
            index = (uint64_t)(int64_t)(int32_t)index;
        /* A fault leaves the elements before it done, and their mask cleared. */
        if (!read_element(cpu, in->mem.seg, gather_address(cpu, in, index), &value, size))
            return false;
        set_element(cpu, dest, i, size, value);
        set_element(cpu, mask, i, size, 0);
    }
    zero_rest(cpu, mask, 0);
    zero_rest(cpu, dest, count * size);
    return bt_op_next(cpu, op);
}

/* ---- masked moves by sign bits ---- */

/* VPMASKMOVQ and VMASKMOVPD move quadwords. */
static unsigned maskmov_size(const struct x86_insn *in)
{
    bool packed_double = in->opcode == 0x2d || in->opcode == 0x2f;
    return packed_double || in->rex_w ? 8 : 4;
}

/* Each element is an access of its own, whose offset the address size cuts. */
static uint64_t element_address(const struct bt_cpu *cpu, const struct x86_insn *in, unsigned offset)
{
    return bt_zext(bt_effective_address(cpu, in) + offset, in->addrsize);
}

bool bt_op_maskmov_load(struct bt_cpu *cpu, const struct bt_op *op)
{
    const struct x86_insn *in = &op->insn;
    unsigned size = maskmov_size(in), count = vector_bytes(in) / size;
    uint64_t value[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (unsigned i = 0; i < count; i++)
        if (selected(cpu, in->vvvv.reg, i, size) &&
            !read_element(cpu, in->mem.seg, element_address(cpu, in, i * size), &value[i], size))
            return false;
    for (unsigned i = 0; i < count; i++)
        set_element(cpu, in->reg.reg, i, size, value[i]);
    zero_rest(cpu, in->reg.reg, count * size);
    return bt_op_next(cpu, op);
}

bool bt_op_maskmov_store(struct bt_cpu *cpu, const struct bt_op *op)
{
    const struct x86_insn *in = &op->insn;
    unsigned size = maskmov_size(in), count = vector_bytes(in) / size;
    for (unsigned i = 0; i < count; i++)
        if (selected(cpu, in->vvvv.reg, i, size) &&
            !bt_can_write_seg(cpu, in->mem.seg, element_address(cpu, in, i * size), size))
            return false;
    for (unsigned i = 0; i < count; i++)
        if (selected(cpu, in->vvvv.reg, i, size) &&
            !write_element(cpu, in->mem.seg, element_address(cpu, in, i * size),
                           element(cpu, in->reg.reg, i, size), size))
            return false;
    return bt_op_next(cpu, op);
}

/* ---- MASKMOVDQU and MASKMOVQ: bytes to DS:rDI ---- */

/* Processors report the operand's first byte in the faulting page, whether or not the mask selects it. */
static void blame_whole_access(struct bt_exception *exc, unsigned offset)
{
    if (exc->vector == VEC_PF)
        exc->cr2 -= MIN(offset, exc->cr2 & (GUEST_PAGE_SIZE - 1));
}

static bool store_bytes(struct bt_cpu *cpu, const struct bt_op *op, const uint8_t *data, const uint8_t *mask,
                        unsigned count)
{
    const struct x86_insn *in = &op->insn;
    unsigned seg = bt_segment_override(in);
    for (unsigned i = 0; i < count; i++)
        if ((mask[i] & 0x80) && !bt_can_write_seg(cpu, seg, bt_zext(cpu->gpr[R_RDI], in->addrsize) + i, 1)) {
            blame_whole_access(&cpu->exc, i);
            return false;
        }
    if (bt_checks_alignment(cpu) && (bt_zext(cpu->gpr[R_RDI], in->addrsize) & 7)) /* not 16: silicon */
        return bt_raise_error(cpu, VEC_AC, 0);
    for (unsigned i = 0; i < count; i++)
        if ((mask[i] & 0x80) &&
            !bt_write_seg(cpu, seg, bt_zext(cpu->gpr[R_RDI], in->addrsize) + i, &data[i], 1))
            return false;
    return bt_op_next(cpu, op);
}

bool bt_op_maskmovdqu(struct bt_cpu *cpu, const struct bt_op *op)
{
    return store_bytes(cpu, op, vector_byte(cpu, op->insn.reg.reg, 0), vector_byte(cpu, op->insn.rm.reg, 0),
                       16);
}

/* MMX registers are the physical x87 registers; the area has them in stack order. */
static uint8_t *mmx_register(struct bt_cpu *cpu, unsigned reg)
{
    unsigned top = load_le16(cpu->xsave + XS_FSW) >> 11 & 7;
    return cpu->xsave + XS_ST + 16 * ((reg - top) & 7);
}

/* What every MMX instruction does to the x87 state: TOP becomes 0, all registers are in use. */
static void enter_mmx(struct bt_cpu *cpu)
{
    uint64_t reg[8][2];
    for (unsigned i = 0; i < 8; i++) {
        reg[i][0] = load_le64(mmx_register(cpu, i));
        reg[i][1] = load_le64(mmx_register(cpu, i) + 8);
    }
    store_le16(cpu->xsave + XS_FSW, load_le16(cpu->xsave + XS_FSW) & ~(7u << 11));
    cpu->xsave[XS_FTW] = 0xff;
    for (unsigned i = 0; i < 8; i++) {
        store_le64(mmx_register(cpu, i), reg[i][0]);
        store_le64(mmx_register(cpu, i) + 8, reg[i][1]);
    }
    store_le64(cpu->xsave + XS_BV, load_le64(cpu->xsave + XS_BV) | XSTATE_X87);
}

bool bt_op_maskmovq(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (load_le16(cpu->xsave + XS_FSW) & FSW_ES)
        return bt_raise(cpu, VEC_MF);
    enter_mmx(cpu); /* also when the access faults */
    const uint8_t *data = mmx_register(cpu, op->insn.reg.reg & 7);
    const uint8_t *mask = mmx_register(cpu, op->insn.rm.reg & 7);
    return store_bytes(cpu, op, data, mask, 8);
}
