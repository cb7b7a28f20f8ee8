/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How instructions in C reach their operands and end: see ops.h. gpr-only. */
#include "base/util.h"
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

bool bt_op_next(struct bt_cpu *cpu, const struct bt_op *op)
{
    cpu->rip = bt_next_rip(cpu, op);
    return true;
}

uint64_t bt_reg_read(const struct bt_cpu *cpu, const struct x86_field *field, unsigned size)
{
    if (field->kind == FIELD_GPR_HIGH)
        return (uint8_t)(cpu->gpr[field->reg] >> 8);
    uint64_t v = cpu->gpr[field->reg];
    return size == 1 ? (uint8_t)v : bt_zext(v, size);
}

void bt_gpr_write(struct bt_cpu *cpu, unsigned reg, unsigned size, uint64_t value)
{
    if (size == 2)
        cpu->gpr[reg] = (cpu->gpr[reg] & ~UINT64_C(0xffff)) | (uint16_t)value;
    else
        cpu->gpr[reg] = bt_zext(value, size);
}

void bt_reg_write(struct bt_cpu *cpu, const struct x86_field *field, unsigned size, uint64_t value)
{
    uint64_t *r = &cpu->gpr[field->reg];
    if (field->kind == FIELD_GPR_HIGH)
        *r = (*r & ~UINT64_C(0xff00)) | (value & 0xff) << 8;
    else if (size == 1)
        *r = (*r & ~UINT64_C(0xff)) | (value & 0xff);
    else
        bt_gpr_write(cpu, field->reg, size, value);
}

bool bt_rm_read(struct bt_cpu *cpu, const struct bt_op *op, unsigned size, uint64_t *value)
{
    const struct x86_insn *in = &op->insn;
    if (!in->mem.present) {
        *value = bt_reg_read(cpu, &in->rm, size);
        return true;
    }
    *value = 0;
    return bt_read_seg(cpu, in->mem.seg, bt_effective_address(cpu, in), value, size);
}

bool bt_rm_write(struct bt_cpu *cpu, const struct bt_op *op, unsigned size, uint64_t value)
{
    const struct x86_insn *in = &op->insn;
    if (!in->mem.present) {
        bt_reg_write(cpu, &in->rm, size, value);
        return true;
    }
    return bt_write_seg(cpu, in->mem.seg, bt_effective_address(cpu, in), &value, size);
}

/* The last override counts; in 64-bit mode only FS and GS do. */
unsigned bt_segment_override(const struct x86_insn *insn)
{
    static const struct {
        uint8_t byte, seg;
    } overrides[] = {{0x26, SEG_ES}, {0x2e, SEG_CS}, {0x36, SEG_SS},
                     {0x3e, SEG_DS}, {0x64, SEG_FS}, {0x65, SEG_GS}};
    unsigned seg = SEG_DS;
    for (unsigned i = 0; i < insn->len && insn->bytes[i] != insn->opcode; i++)
        for (unsigned p = 0; p < ARRAY_SIZE(overrides); p++)
            if (insn->bytes[i] == overrides[p].byte && (insn->mode != 64 || overrides[p].seg >= SEG_FS))
                seg = overrides[p].seg;
    return seg;
}
