/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stacks: what is pushed is gathered first and then written all or nothing. See seg.h. */
#include "engine/bt/seg.h"

uint64_t bt_stack_mask(const struct bt_cpu *cpu)
{
    if (bt_code64(cpu))
        return ~UINT64_C(0);
    return (cpu->seg[SEG_SS].attr & ATTR_DB) ? UINT32_MAX : UINT16_MAX;
}

void bt_stack_open(const struct bt_cpu *cpu, struct bt_stack *s, unsigned size)
{
    bt_stack_open_at(cpu, s, bt_code64(cpu) ? NULL : &cpu->seg[SEG_SS], cpu->gpr[R_RSP], size);
    s->access = BT_WRITE;
}

void bt_stack_open_at(const struct bt_cpu *cpu, struct bt_stack *s, const struct x86_segment *ss, uint64_t sp,
                      unsigned size)
{
    s->mask = ~UINT64_C(0);
    s->base = 0;
    s->limit = UINT32_MAX;
    s->attr = 0;
    if (ss) {
        s->mask = (ss->attr & ATTR_DB) ? UINT32_MAX : UINT16_MAX;
        s->base = ss->base;
        s->limit = ss->limit;
        s->attr = ss->attr;
    }
    s->sp = sp & s->mask;
    /* A supervisor stack is a supervisor's access although CPL has not changed yet. */
    s->access = BT_WRITE | (cpu->cpl == 3 ? BT_IMPLICIT : 0);
    s->size = size;
    s->used = 0;
}

void bt_stack_push(struct bt_stack *s, uint64_t value)
{
    s->used += s->size;
    uint8_t *p = s->buf + BT_STACK_MAX - s->used;
    if (s->size == 8)
        store_le64(p, value);
    else if (s->size == 4)
        store_le32(p, (uint32_t)value);
    else
        store_le16(p, (uint16_t)value);
}

/* Whether offsets [low, low + len) may be written. */
static bool span_allowed(const struct bt_stack *s, uint64_t low, unsigned len)
{
    uint64_t high = low + len - 1;
    if (s->mask == ~UINT64_C(0))
        return bt_canonical(low) && bt_canonical(high);
    if (s->attr & ATTR_UNUSABLE)
        return false;
    if (s->attr & SEG_TYPE_DOWN)
        return low > s->limit && high <= ((s->attr & ATTR_DB) ? UINT32_MAX : UINT16_MAX);
    return high <= s->limit;
}

static uint64_t span_linear(const struct bt_stack *s, uint64_t offset)
{
    uint64_t lin = s->base + offset;
    return s->mask == ~UINT64_C(0) ? lin : (uint32_t)lin;
}

bool bt_stack_commit(struct bt_cpu *cpu, struct bt_stack *s, uint32_t error)
{
    uint64_t low = (s->sp - s->used) & s->mask;
    const uint8_t *data = s->buf + BT_STACK_MAX - s->used;
    unsigned first = s->used, rest = 0;
    if (low + s->used - 1 > s->mask && s->mask != ~UINT64_C(0)) {
        /* The stack pointer wraps on the way; no single value may straddle the end. */
        first = (unsigned)(s->mask + 1 - low);
        rest = s->used - first;
    }
    if (first % s->size || !span_allowed(s, low, first) || (rest && !span_allowed(s, 0, rest)))
        return bt_raise_error(cpu, VEC_SS, error);
    if (rest) {
        uint64_t gpa;
        if (!bt_translate(cpu, span_linear(s, 0), s->access, &gpa, NULL))
            return false;
    }
    if (bt_checks_alignment(cpu) && !(s->access & BT_IMPLICIT) && (span_linear(s, low) & (s->size - 1))) {
        uint64_t gpa;
        return bt_translate(cpu, span_linear(s, low), s->access, &gpa, NULL) &&
               bt_raise_error(cpu, VEC_AC, 0);
    }
    if (!bt_write_lin(cpu, span_linear(s, low), data, first, s->access))
        return false;
    if (rest && !bt_write_lin(cpu, span_linear(s, 0), data + first, rest, s->access))
        return false;
    s->sp = low;
    return true;
}

void bt_set_sp(struct bt_cpu *cpu, uint64_t sp, uint64_t mask)
{
    if (mask == UINT16_MAX)
        cpu->gpr[R_RSP] = (cpu->gpr[R_RSP] & ~mask) | (sp & mask);
    else
        cpu->gpr[R_RSP] = sp & mask;
}

bool bt_stack_peek(struct bt_cpu *cpu, uint64_t offset, unsigned size, uint64_t *value)
{
    *value = 0;
    return bt_read_seg(cpu, SEG_SS, (cpu->gpr[R_RSP] + offset) & bt_stack_mask(cpu), value, size);
}

void bt_stack_drop(struct bt_cpu *cpu, uint64_t bytes)
{
    bt_set_sp(cpu, cpu->gpr[R_RSP] + bytes, bt_stack_mask(cpu));
}

/* Reads from the current TSS; #TS(TR) where its limit is too small. */
static bool tss_read(struct bt_cpu *cpu, uint32_t offset, void *buf, unsigned len, unsigned ext)
{
    const struct x86_segment *tr = &cpu->seg[SEG_TR];
    if (offset + len - 1 > tr->limit)
        return bt_raise_error(cpu, VEC_TS, (tr->selector & 0xfffc) | ext);
    return bt_read_lin(cpu, tr->base + offset, buf, len, BT_READ | BT_IMPLICIT);
}

bool bt_tss_stack(struct bt_cpu *cpu, unsigned level, unsigned ext, struct x86_segment *ss, uint64_t *sp)
{
    unsigned type = cpu->seg[SEG_TR].attr & ATTR_TYPE;
    uint16_t selector;
    if (type == DESC_TSS32 || type == DESC_TSS32_BUSY) {
        uint8_t raw[8];
        if (!tss_read(cpu, 4 + level * 8, raw, 8, ext))
            return false;
        *sp = load_le32(raw);
        selector = load_le16(raw + 4);
    } else {
        uint8_t raw[4];
        if (!tss_read(cpu, 2 + level * 4, raw, 4, ext))
            return false;
        *sp = load_le16(raw);
        selector = load_le16(raw + 2);
    }
    return bt_seg_check(cpu, SEG_SS, selector, level, false, VEC_TS, ext, ss);
}

bool bt_tss_stack64(struct bt_cpu *cpu, unsigned slot, unsigned ext, uint64_t *rsp)
{
    if (!tss_read(cpu, 4 + slot * 8, rsp, 8, ext))
        return false;
    return bt_canonical(*rsp) || bt_raise_error(cpu, VEC_SS, ext);
}
