/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors and segment registers: see seg.h. */
#include "engine/bt/seg.h"

#define ATTR_DATA_RW (ATTR_P | ATTR_S | SEG_TYPE_WRITABLE | SEG_TYPE_ACCESSED)
#define ATTR_CODE_RX (ATTR_P | ATTR_S | SEG_TYPE_CODE | SEG_TYPE_READABLE | SEG_TYPE_ACCESSED)

static bool selector_fault(struct bt_cpu *cpu, unsigned vector, uint16_t sel, unsigned ext)
{
    return bt_raise_error(cpu, vector, (sel & 0xfffc) | ext);
}

/* Linear address of `bytes` of descriptor, checked against the table's limit. */
static bool descriptor_address(struct bt_cpu *cpu, uint16_t sel, unsigned bytes, uint64_t *lin)
{
    uint64_t base = cpu->gdtr.base;
    uint32_t limit = cpu->gdtr.limit;
    if (sel & 4) {
        const struct x86_segment *ldt = &cpu->seg[SEG_LDTR];
        if ((ldt->attr & ATTR_UNUSABLE) || !(ldt->attr & ATTR_P))
            return false;
        base = ldt->base;
        limit = ldt->limit;
    }
    uint32_t offset = sel & 0xfff8;
    if (offset + bytes - 1 > limit)
        return false;
    *lin = base + offset;
    if (!bt_long_mode(cpu))
        *lin = (uint32_t)*lin;
    return true;
}

bool bt_desc_read(struct bt_cpu *cpu, uint16_t sel, unsigned vector, unsigned ext, struct bt_desc *d)
{
    if (!descriptor_address(cpu, sel, 8, &d->lin))
        return selector_fault(cpu, vector, sel, ext);
    uint64_t raw;
    if (!bt_read_lin(cpu, d->lin, &raw, 8, BT_READ | BT_IMPLICIT))
        return false;
    d->low = (uint32_t)raw;
    d->high = (uint32_t)(raw >> 32);
    d->top = 0;
    return true;
}

bool bt_desc_read_system(struct bt_cpu *cpu, uint16_t sel, unsigned vector, unsigned ext, struct bt_desc *d)
{
    if (!bt_desc_read(cpu, sel, vector, ext, d))
        return false;
    if (!bt_long_mode(cpu))
        return true;
    uint64_t lin;
    if (!descriptor_address(cpu, sel, 16, &lin))
        return selector_fault(cpu, vector, sel, ext);
    uint64_t raw;
    if (!bt_read_lin(cpu, lin + 8, &raw, 8, BT_READ | BT_IMPLICIT))
        return false;
    if ((raw >> 40) & 0x1f)
        return selector_fault(cpu, vector, sel, ext);
    d->top = (uint32_t)raw;
    return true;
}

static bool write_type(struct bt_cpu *cpu, struct bt_desc *d, uint32_t high)
{
    uint8_t byte = (uint8_t)(high >> 8);
    if (!bt_write_lin(cpu, d->lin + 5, &byte, 1, BT_WRITE | BT_IMPLICIT))
        return false;
    d->high = high;
    return true;
}

bool bt_desc_mark_accessed(struct bt_cpu *cpu, struct bt_desc *d)
{
    return (d->high & 0x100) || write_type(cpu, d, d->high | 0x100);
}

bool bt_desc_set_busy(struct bt_cpu *cpu, struct bt_desc *d, bool busy)
{
    return write_type(cpu, d, busy ? d->high | 0x200 : d->high & ~0x200u);
}

void bt_desc_segment(const struct bt_desc *d, uint16_t sel, struct x86_segment *out)
{
    out->selector = sel;
    out->attr = bt_desc_attr(d);
    out->limit = bt_desc_limit(d);
    out->base = bt_desc_base(d);
}

void bt_seg_null(struct x86_segment *out, uint16_t sel, unsigned dpl)
{
    out->selector = sel;
    out->attr = ATTR_UNUSABLE | dpl << ATTR_DPL_SHIFT;
    out->limit = 0;
    out->base = 0;
}

static bool check_null(struct bt_cpu *cpu, unsigned seg, uint16_t sel, unsigned cpl, bool null_ok,
                       unsigned vector, unsigned ext, struct x86_segment *out)
{
    if (seg == SEG_SS && (!null_ok || cpl == 3 || (sel & 3) != cpl))
        return bt_raise_error(cpu, vector, ext);
    bt_seg_null(out, sel, seg == SEG_SS ? cpl : 0);
    return true;
}

bool bt_seg_check(struct bt_cpu *cpu, unsigned seg, uint16_t sel, unsigned cpl, bool null_ok, unsigned vector,
                  unsigned ext, struct x86_segment *out)
{
    if (bt_selector_null(sel))
        return check_null(cpu, seg, sel, cpl, null_ok, vector, ext, out);
    struct bt_desc d;
    if (!bt_desc_read(cpu, sel, vector, ext, &d))
        return false;
    unsigned rpl = sel & 3, dpl = bt_desc_dpl(&d), type = bt_desc_type(&d);
    bool code = type & SEG_TYPE_CODE, ok;
    if (seg == SEG_SS)
        ok = !code && (type & SEG_TYPE_WRITABLE) && rpl == cpl && dpl == cpl;
    else
        ok = (!code || (type & SEG_TYPE_READABLE)) &&
             ((code && (type & SEG_TYPE_CONFORMING)) || (dpl >= cpl && dpl >= rpl));
    if (!ok || !bt_desc_user(&d))
        return selector_fault(cpu, vector, sel, ext);
    if (!bt_desc_present(&d))
        return selector_fault(cpu, seg == SEG_SS ? VEC_SS : VEC_NP, sel, ext);
    if (!bt_desc_mark_accessed(cpu, &d))
        return false;
    bt_desc_segment(&d, sel, out);
    return true;
}

void bt_seg_set_real(struct bt_cpu *cpu, unsigned seg, uint16_t sel)
{
    struct x86_segment *s = &cpu->seg[seg];
    s->selector = sel;
    s->base = (uint32_t)sel << 4;
    if (cpu->sysflags & FLAG_VM) {
        s->limit = 0xffff;
        s->attr = ATTR_DATA_RW | ATTR_DPL;
        return;
    }
    /* Real mode keeps limit and size of what was loaded in protected mode ("unreal" mode). */
    uint32_t keep = s->attr & (ATTR_DB | ATTR_G);
    if (s->attr & ATTR_UNUSABLE) {
        s->limit = 0xffff;
        keep = 0;
    }
    s->attr = keep | (seg == SEG_CS ? ATTR_CODE_RX : ATTR_DATA_RW);
}

bool bt_seg_load(struct bt_cpu *cpu, unsigned seg, uint16_t sel)
{
    if (!bt_protected(cpu)) {
        bt_seg_set_real(cpu, seg, sel);
    } else {
        struct x86_segment s;
        if (!bt_seg_check(cpu, seg, sel, cpu->cpl, bt_code64(cpu), VEC_GP, 0, &s))
            return false;
        cpu->seg[seg] = s;
    }
    bt_mode_update(cpu);
    return true;
}

void bt_seg_drop_inner(struct bt_cpu *cpu)
{
    static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < sizeof(data); i++) {
        struct x86_segment *s = &cpu->seg[data[i]];
        bool conforming =
            (s->attr & (SEG_TYPE_CODE | SEG_TYPE_CONFORMING)) == (SEG_TYPE_CODE | SEG_TYPE_CONFORMING);
        /* A base that WRMSR or WRFSBASE gave stays: a null selector's base is not ours to touch. */
        if (!(s->attr & ATTR_UNUSABLE) && !bt_selector_null(s->selector) && !conforming &&
            bt_attr_dpl(s->attr) < cpu->cpl) {
            s->selector = 0;
            s->attr = ATTR_UNUSABLE;
        }
    }
}

void bt_seg_set_base(struct bt_cpu *cpu, unsigned seg, uint64_t base)
{
    cpu->seg[seg].base = base;
    cpu->seg_base[seg] = base;
}

bool bt_code_target(struct bt_cpu *cpu, const struct x86_segment *cs, uint64_t rip, unsigned ext)
{
    bool ok = bt_long_mode(cpu) && (cs->attr & ATTR_L) ? bt_canonical(rip) : rip <= cs->limit;
    return ok || bt_raise_error(cpu, VEC_GP, ext);
}

void bt_cs_set(struct bt_cpu *cpu, const struct x86_segment *cs, unsigned cpl)
{
    cpu->seg[SEG_CS] = *cs;
    cpu->seg[SEG_CS].selector = (uint16_t)((cs->selector & 0xfffc) | cpl);
    cpu->cpl = (uint8_t)cpl;
}

void bt_flat_cs_ss(struct bt_cpu *cpu, uint16_t cs, uint16_t ss, unsigned cpl, unsigned bits)
{
    struct x86_segment *c = &cpu->seg[SEG_CS], *s = &cpu->seg[SEG_SS];
    c->selector = (uint16_t)((cs & 0xfffc) | cpl);
    c->base = 0;
    c->limit = 0xffffffff;
    c->attr = ATTR_CODE_RX | ATTR_G | cpl << ATTR_DPL_SHIFT | (bits == 64 ? ATTR_L : ATTR_DB);
    s->selector = (uint16_t)((ss & 0xfffc) | cpl);
    s->base = 0;
    s->limit = 0xffffffff;
    s->attr = ATTR_DATA_RW | ATTR_G | ATTR_DB | cpl << ATTR_DPL_SHIFT;
    cpu->cpl = (uint8_t)cpl;
}
