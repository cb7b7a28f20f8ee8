/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Segment registers, descriptor tables and the instructions that look at descriptors (SDM vol. 2). gpr-only.
 */
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

static unsigned modrm_reg(const struct bt_op *op)
{
    return op->insn.modrm >> 3 & 7;
}

/* Segment register that PUSH and POP have in the opcode byte. */
static unsigned opcode_seg(const struct bt_op *op)
{
    return op->insn.opcode >> 3 & 7;
}

/* UMIP: user code may not read where the tables are. */
static bool umip_refused(const struct bt_cpu *cpu)
{
    return (cpu->cr4 & CR4_UMIP) && cpu->cpl > 0;
}

static bool op_mov_from_seg(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned size = op->insn.mem.present ? 2 : op->insn.opsize;
    return bt_rm_write(cpu, op, size, cpu->seg[modrm_reg(op)].selector) && bt_op_next(cpu, op);
}

static bool op_mov_to_seg(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned seg = modrm_reg(op);
    uint64_t sel;
    if (seg == SEG_CS || seg > SEG_GS)
        return bt_raise(cpu, VEC_UD);
    if (!bt_rm_read(cpu, op, 2, &sel) || !bt_seg_load(cpu, seg, (uint16_t)sel))
        return false;
    if (seg == SEG_SS)
        cpu->shadow = cpu->trap_shadow = true;
    return bt_op_next(cpu, op);
}

static bool op_push_seg(struct bt_cpu *cpu, const struct bt_op *op)
{
    struct bt_stack s;
    bt_stack_open(cpu, &s, op->insn.opsize);
    bt_stack_push(&s, cpu->seg[opcode_seg(op)].selector);
    if (!bt_stack_commit(cpu, &s, 0))
        return false;
    bt_set_sp(cpu, s.sp, s.mask);
    return bt_op_next(cpu, op);
}

static bool op_pop_seg(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned seg = opcode_seg(op);
    uint64_t sel, mask = bt_stack_mask(cpu);
    if (!bt_stack_peek(cpu, 0, op->insn.opsize, &sel) || !bt_seg_load(cpu, seg, (uint16_t)sel))
        return false;
    /* The stack pointer moves in the old stack's width even when SS itself was popped. */
    bt_set_sp(cpu, cpu->gpr[R_RSP] + op->insn.opsize, mask);
    if (seg == SEG_SS)
        cpu->shadow = cpu->trap_shadow = true;
    return bt_op_next(cpu, op);
}

static bool load_far_pointer(struct bt_cpu *cpu, const struct bt_op *op, unsigned seg)
{
    const struct x86_insn *in = &op->insn;
    uint64_t ea = bt_effective_address(cpu, in), offset = 0;
    uint16_t sel;
    if (!bt_read_seg(cpu, in->mem.seg, ea, &offset, in->opsize) ||
        !bt_read_seg(cpu, in->mem.seg, bt_zext(ea + in->opsize, in->addrsize), &sel, 2) ||
        !bt_seg_load(cpu, seg, sel))
        return false;
    bt_gpr_write(cpu, in->reg.reg, in->opsize, offset);
    return bt_op_next(cpu, op);
}

static bool op_les(struct bt_cpu *cpu, const struct bt_op *op)
{
    return load_far_pointer(cpu, op, SEG_ES);
}

static bool op_lds(struct bt_cpu *cpu, const struct bt_op *op)
{
    return load_far_pointer(cpu, op, SEG_DS);
}

static bool op_lss(struct bt_cpu *cpu, const struct bt_op *op)
{
    return load_far_pointer(cpu, op, SEG_SS);
}

static bool op_lfs(struct bt_cpu *cpu, const struct bt_op *op)
{
    return load_far_pointer(cpu, op, SEG_FS);
}

static bool op_lgs(struct bt_cpu *cpu, const struct bt_op *op)
{
    return load_far_pointer(cpu, op, SEG_GS);
}

/* ---- descriptor tables ---- */

static bool store_table(struct bt_cpu *cpu, const struct bt_op *op, const struct x86_table *table)
{
    if (umip_refused(cpu))
        return bt_raise_error(cpu, VEC_GP, 0);
    uint8_t image[10];
    store_le16(image, table->limit);
    store_le64(image + 2, table->base);
    unsigned len = op->insn.mode == 64 ? 10 : 6;
    return bt_write_seg(cpu, op->insn.mem.seg, bt_effective_address(cpu, &op->insn), image, len) &&
           bt_op_next(cpu, op);
}

static bool load_table(struct bt_cpu *cpu, const struct bt_op *op, struct x86_table *table)
{
    if (cpu->cpl != 0)
        return bt_raise_error(cpu, VEC_GP, 0);
    bool long_form = op->insn.mode == 64;
    uint8_t image[10];
    if (!bt_read_seg(cpu, op->insn.mem.seg, bt_effective_address(cpu, &op->insn), image, long_form ? 10 : 6))
        return false;
    uint64_t base = long_form ? load_le64(image + 2) : load_le32(image + 2);
    if (!bt_canonical(base))
        return bt_raise_error(cpu, VEC_GP, 0);
    table->base = !long_form && op->insn.opsize == 2 ? base & 0xffffff : base;
    table->limit = load_le16(image);
    return bt_op_next(cpu, op);
}

static bool op_sgdt(struct bt_cpu *cpu, const struct bt_op *op)
{
    return store_table(cpu, op, &cpu->gdtr);
}

static bool op_sidt(struct bt_cpu *cpu, const struct bt_op *op)
{
    return store_table(cpu, op, &cpu->idtr);
}

static bool op_lgdt(struct bt_cpu *cpu, const struct bt_op *op)
{
    return load_table(cpu, op, &cpu->gdtr);
}

static bool op_lidt(struct bt_cpu *cpu, const struct bt_op *op)
{
    return load_table(cpu, op, &cpu->idtr);
}

static bool store_selector(struct bt_cpu *cpu, const struct bt_op *op, unsigned seg)
{
    if (!bt_protected(cpu))
        return bt_raise(cpu, VEC_UD);
    if (umip_refused(cpu))
        return bt_raise_error(cpu, VEC_GP, 0);
    unsigned size = op->insn.mem.present ? 2 : op->insn.opsize;
    return bt_rm_write(cpu, op, size, cpu->seg[seg].selector) && bt_op_next(cpu, op);
}

static bool op_sldt(struct bt_cpu *cpu, const struct bt_op *op)
{
    return store_selector(cpu, op, SEG_LDTR);
}

static bool op_str(struct bt_cpu *cpu, const struct bt_op *op)
{
    return store_selector(cpu, op, SEG_TR);
}

/* Common to LLDT and LTR: mode, privilege, the selector. */
static bool system_selector(struct bt_cpu *cpu, const struct bt_op *op, uint16_t *sel)
{
    uint64_t value;
    if (!bt_protected(cpu))
        return bt_raise(cpu, VEC_UD);
    if (cpu->cpl != 0)
        return bt_raise_error(cpu, VEC_GP, 0);
    if (!bt_rm_read(cpu, op, 2, &value))
        return false;
    *sel = (uint16_t)value;
    return true;
}

/* Reads a system descriptor out of the GDT whose type is one of the bits in `types`. */
static bool system_descriptor(struct bt_cpu *cpu, uint16_t sel, uint32_t types, struct bt_desc *d)
{
    if (sel & 4)
        return bt_raise_error(cpu, VEC_GP, sel & 0xfffc);
    if (!bt_desc_read_system(cpu, sel, VEC_GP, 0, d))
        return false;
    if (bt_desc_user(d) || !(types & 1u << bt_desc_type(d)))
        return bt_raise_error(cpu, VEC_GP, sel & 0xfffc);
    if (!bt_desc_present(d))
        return bt_raise_error(cpu, VEC_NP, sel & 0xfffc);
    if (!bt_canonical(bt_desc_base(d)))
        return bt_raise_error(cpu, VEC_GP, sel & 0xfffc);
    return true;
}

static bool op_lldt(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint16_t sel;
    if (!system_selector(cpu, op, &sel))
        return false;
    struct bt_desc d;
    if (bt_selector_null(sel)) {
        bt_seg_null(&cpu->seg[SEG_LDTR], sel, 0);
    } else {
        if (!system_descriptor(cpu, sel, 1u << DESC_LDT, &d))
            return false;
        bt_desc_segment(&d, sel, &cpu->seg[SEG_LDTR]);
    }
    return bt_op_next(cpu, op);
}

static bool op_ltr(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint16_t sel;
    if (!system_selector(cpu, op, &sel))
        return false;
    if (bt_selector_null(sel))
        return bt_raise_error(cpu, VEC_GP, 0);
    struct bt_desc d;
    uint32_t types = 1u << DESC_TSS32 | (bt_long_mode(cpu) ? 0 : 1u << DESC_TSS16);
    if (!system_descriptor(cpu, sel, types, &d) || !bt_desc_set_busy(cpu, &d, true))
        return false;
    bt_desc_segment(&d, sel, &cpu->seg[SEG_TR]);
    return bt_op_next(cpu, op);
}

/* ---- looking at descriptors ---- */

enum look { LOOK_YES, LOOK_NO, LOOK_FAULT };

/* Whether the selector in r/m16 names a descriptor that this CPL and the RPL may see. */
static enum look look_up(struct bt_cpu *cpu, const struct bt_op *op, uint32_t system_types, struct bt_desc *d)
{
    uint64_t value;
    if (!bt_protected(cpu)) {
        bt_raise(cpu, VEC_UD);
        return LOOK_FAULT;
    }
    if (!bt_rm_read(cpu, op, 2, &value))
        return LOOK_FAULT;
    uint16_t sel = (uint16_t)value;
    if (bt_selector_null(sel))
        return LOOK_NO;
    if (!bt_desc_read(cpu, sel, VEC_GP, 0, d)) {
        if (cpu->exc.vector != VEC_GP)
            return LOOK_FAULT;
        cpu->exc.pending = false; /* outside the table: the answer is no */
        return LOOK_NO;
    }
    if (!bt_desc_user(d) && !(system_types & 1u << bt_desc_type(d)))
        return LOOK_NO;
    if (bt_desc_code(d) && bt_desc_conforming(d))
        return LOOK_YES;
    unsigned dpl = bt_desc_dpl(d);
    return dpl >= cpu->cpl && dpl >= (sel & 3u) ? LOOK_YES : LOOK_NO;
}

static bool finish_look(struct bt_cpu *cpu, const struct bt_op *op, bool zf)
{
    uint64_t flags = bt_status(cpu) & ~FLAG_ZF;
    bt_set_status(cpu, flags | (zf ? FLAG_ZF : 0));
    return bt_op_next(cpu, op);
}

static bool op_lar(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint32_t types = 1u << DESC_LDT | 1u << DESC_TSS32 | 1u << DESC_TSS32_BUSY | 1u << DESC_CALL32;
    if (!bt_long_mode(cpu))
        types |= 1u << DESC_TSS16 | 1u << DESC_TSS16_BUSY | 1u << DESC_CALL16 | 1u << DESC_TASK_GATE;
    struct bt_desc d;
    enum look look = look_up(cpu, op, types, &d);
    if (look == LOOK_FAULT)
        return false;
    if (look == LOOK_YES)
        bt_gpr_write(cpu, op->insn.reg.reg, op->insn.opsize, d.high & 0x00ffff00);
    return finish_look(cpu, op, look == LOOK_YES);
}

static bool op_lsl(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint32_t types = 1u << DESC_LDT | 1u << DESC_TSS32 | 1u << DESC_TSS32_BUSY;
    if (!bt_long_mode(cpu))
        types |= 1u << DESC_TSS16 | 1u << DESC_TSS16_BUSY;
    struct bt_desc d;
    enum look look = look_up(cpu, op, types, &d);
    if (look == LOOK_FAULT)
        return false;
    if (look == LOOK_YES)
        bt_gpr_write(cpu, op->insn.reg.reg, op->insn.opsize, bt_desc_limit(&d));
    return finish_look(cpu, op, look == LOOK_YES);
}

static bool op_verr(struct bt_cpu *cpu, const struct bt_op *op)
{
    struct bt_desc d;
    enum look look = look_up(cpu, op, 0, &d);
    if (look == LOOK_FAULT)
        return false;
    return finish_look(cpu, op,
                       look == LOOK_YES && (!bt_desc_code(&d) || (bt_desc_type(&d) & SEG_TYPE_READABLE)));
}

static bool op_verw(struct bt_cpu *cpu, const struct bt_op *op)
{
    struct bt_desc d;
    enum look look = look_up(cpu, op, 0, &d);
    if (look == LOOK_FAULT)
        return false;
    return finish_look(cpu, op,
                       look == LOOK_YES && !bt_desc_code(&d) && (bt_desc_type(&d) & SEG_TYPE_WRITABLE));
}

static bool op_arpl(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t dest;
    if (!bt_protected(cpu))
        return bt_raise(cpu, VEC_UD);
    if (!bt_rm_read(cpu, op, 2, &dest))
        return false;
    unsigned rpl = (unsigned)bt_reg_read(cpu, &op->insn.reg, 2) & 3;
    bool raise = (dest & 3) < rpl;
    if (raise && !bt_rm_write(cpu, op, 2, (dest & ~UINT64_C(3)) | rpl))
        return false;
    return finish_look(cpu, op, raise);
}

const struct bt_op_entry bt_ops_seg[] = {
    {ZYDIS_MNEMONIC_MOV, 0x8c, op_mov_from_seg},
    {ZYDIS_MNEMONIC_MOV, 0x8e, op_mov_to_seg},
    {ZYDIS_MNEMONIC_PUSH, 0x06, op_push_seg},
    {ZYDIS_MNEMONIC_PUSH, 0x0e, op_push_seg},
    {ZYDIS_MNEMONIC_PUSH, 0x16, op_push_seg},
    {ZYDIS_MNEMONIC_PUSH, 0x1e, op_push_seg},
    {ZYDIS_MNEMONIC_PUSH, 0x1a0, op_push_seg},
    {ZYDIS_MNEMONIC_PUSH, 0x1a8, op_push_seg},
    {ZYDIS_MNEMONIC_POP, 0x07, op_pop_seg},
    {ZYDIS_MNEMONIC_POP, 0x17, op_pop_seg},
    {ZYDIS_MNEMONIC_POP, 0x1f, op_pop_seg},
    {ZYDIS_MNEMONIC_POP, 0x1a1, op_pop_seg},
    {ZYDIS_MNEMONIC_POP, 0x1a9, op_pop_seg},
    {ZYDIS_MNEMONIC_LES, 0, op_les},
    {ZYDIS_MNEMONIC_LDS, 0, op_lds},
    {ZYDIS_MNEMONIC_LSS, 0, op_lss},
    {ZYDIS_MNEMONIC_LFS, 0, op_lfs},
    {ZYDIS_MNEMONIC_LGS, 0, op_lgs},
    {ZYDIS_MNEMONIC_SGDT, 0, op_sgdt},
    {ZYDIS_MNEMONIC_SIDT, 0, op_sidt},
    {ZYDIS_MNEMONIC_LGDT, 0, op_lgdt},
    {ZYDIS_MNEMONIC_LIDT, 0, op_lidt},
    {ZYDIS_MNEMONIC_SLDT, 0, op_sldt},
    {ZYDIS_MNEMONIC_STR, 0, op_str},
    {ZYDIS_MNEMONIC_LLDT, 0, op_lldt},
    {ZYDIS_MNEMONIC_LTR, 0, op_ltr},
    {ZYDIS_MNEMONIC_LAR, 0, op_lar},
    {ZYDIS_MNEMONIC_LSL, 0, op_lsl},
    {ZYDIS_MNEMONIC_VERR, 0, op_verr},
    {ZYDIS_MNEMONIC_VERW, 0, op_verw},
    {ZYDIS_MNEMONIC_ARPL, 0, op_arpl},
    {0},
};
