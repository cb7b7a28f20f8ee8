/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hardware task switches, 16- and 32-bit TSS (SDM vol. 3 chapter 8). Never in long mode. gpr-only. */
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

#define TSS32_LIMIT 0x67u
#define TSS16_LIMIT 0x2bu
#define DR6_BT      BIT(15)
#define DR7_LOCAL   UINT64_C(0x55)

/* Where the two TSS formats hold what a switch saves and loads (SDM figures 8-2 and 8-10). */
struct tss_layout {
    unsigned limit, word; /* smallest limit; bytes of a register */
    unsigned ip, flags, gpr, seg, seg_count, saved_end, ldt;
};

static const struct tss_layout layout32 = {TSS32_LIMIT, 4, 0x20, 0x24, 0x28, 0x48, 6, 0x60, 0x60};
static const struct tss_layout layout16 = {TSS16_LIMIT, 2, 0x0e, 0x10, 0x12, 0x22, 4, 0x2a, 0x2a};

/* Segment registers in TSS order. */
static const uint8_t tss_seg[] = {SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS};

struct task {
    const struct tss_layout *layout;
    uint64_t base;
    uint8_t image[TSS32_LIMIT + 1];
};

static const struct tss_layout *layout_of(unsigned type)
{
    return (type & 8) ? &layout32 : &layout16;
}

static uint64_t get_word(const struct task *t, unsigned offset)
{
    return t->layout->word == 4 ? load_le32(t->image + offset) : load_le16(t->image + offset);
}

static void put_word(struct task *t, unsigned offset, uint64_t value)
{
    if (t->layout->word == 4)
        store_le32(t->image + offset, (uint32_t)value);
    else
        store_le16(t->image + offset, (uint16_t)value);
}

/* Checks the TSS selector and reads its descriptor. */
static bool tss_descriptor(struct bt_cpu *cpu, uint16_t sel, const struct bt_task_switch *how,
                           struct bt_desc *d)
{
    bool iret = how->cause == TASK_IRET;
    unsigned vector = iret ? VEC_TS : VEC_GP;
    uint32_t error = (sel & 0xfffc) | how->ext;
    if (bt_selector_null(sel) || (sel & 4))
        return bt_raise_error(cpu, vector, error);
    if (!bt_desc_read(cpu, sel, vector, how->ext, d))
        return false;
    unsigned type = bt_desc_type(d);
    bool type_ok =
        iret ? type == DESC_TSS16_BUSY || type == DESC_TSS32_BUSY : type == DESC_TSS16 || type == DESC_TSS32;
    if (bt_desc_user(d) || !type_ok)
        return bt_raise_error(cpu, vector, error);
    if (!bt_desc_present(d))
        return bt_raise_error(cpu, VEC_NP, error);
    if (bt_desc_limit(d) < layout_of(type)->limit)
        return bt_raise_error(cpu, VEC_TS, error);
    return true;
}

/* The old task's TSS as it will be saved. */
static bool build_old(struct bt_cpu *cpu, const struct bt_task_switch *how, struct task *old)
{
    const struct x86_segment *tr = &cpu->seg[SEG_TR];
    const struct tss_layout *l = layout_of(tr->attr & ATTR_TYPE);
    old->layout = l;
    old->base = tr->base;
    if (l->saved_end - 1 > tr->limit)
        return bt_raise_error(cpu, VEC_TS, (tr->selector & 0xfffc) | how->ext);
    if (!bt_read_lin(cpu, old->base, old->image, l->saved_end, BT_READ | BT_IMPLICIT))
        return false;
    put_word(old, l->ip, how->rip);
    put_word(old, l->flags, how->cause == TASK_IRET ? how->rflags & ~FLAG_NT : how->rflags);
    for (unsigned i = 0; i < 8; i++)
        put_word(old, l->gpr + i * l->word, cpu->gpr[i]);
    for (unsigned i = 0; i < l->seg_count; i++)
        store_le16(old->image + l->seg + i * l->word, cpu->seg[tss_seg[i]].selector);
    return true;
}

/* All writes to memory, after probing those that could fail half-way. */
static bool write_memory(struct bt_cpu *cpu, const struct bt_task_switch *how, const struct task *old,
                         const struct task *new, struct bt_desc *new_desc)
{
    bool nested = how->cause == TASK_CALL || how->cause == TASK_EVENT;
    uint16_t old_sel = cpu->seg[SEG_TR].selector;
    unsigned access = BT_WRITE | BT_IMPLICIT;
    struct bt_desc old_desc = {0};
    bool release = !nested && !bt_selector_null(old_sel);
    uint64_t gpa;
    if (release && (!bt_desc_read(cpu, old_sel, VEC_TS, how->ext, &old_desc) ||
                    !bt_translate(cpu, old_desc.lin + 5, access, &gpa, NULL)))
        return false;
    if (!bt_translate(cpu, new_desc->lin + 5, access, &gpa, NULL))
        return false;
    if (nested && !bt_write_lin(cpu, new->base, &old_sel, 2, access))
        return false;
    unsigned start = old->layout->ip;
    if (!bt_write_lin(cpu, old->base + start, old->image + start, old->layout->saved_end - start, access))
        return false;
    if (release && !bt_desc_set_busy(cpu, &old_desc, false))
        return false;
    return how->cause == TASK_IRET || bt_desc_set_busy(cpu, new_desc, true);
}

static bool load_ldtr(struct bt_cpu *cpu, uint16_t sel, unsigned ext)
{
    bt_seg_null(&cpu->seg[SEG_LDTR], sel, 0);
    if (bt_selector_null(sel))
        return true;
    struct bt_desc d;
    uint32_t error = (sel & 0xfffc) | ext;
    if (sel & 4)
        return bt_raise_error(cpu, VEC_TS, error);
    if (!bt_desc_read(cpu, sel, VEC_TS, ext, &d))
        return false;
    if (bt_desc_user(&d) || bt_desc_type(&d) != DESC_LDT || !bt_desc_present(&d))
        return bt_raise_error(cpu, VEC_TS, error);
    bt_desc_segment(&d, sel, &cpu->seg[SEG_LDTR]);
    return true;
}

static bool load_cs(struct bt_cpu *cpu, uint16_t sel, unsigned ext)
{
    struct bt_desc d;
    uint32_t error = (sel & 0xfffc) | ext;
    if (bt_selector_null(sel))
        return bt_raise_error(cpu, VEC_TS, error);
    if (!bt_desc_read(cpu, sel, VEC_TS, ext, &d))
        return false;
    unsigned rpl = sel & 3, dpl = bt_desc_dpl(&d);
    if (!bt_desc_code(&d) || (bt_desc_conforming(&d) ? dpl > rpl : dpl != rpl))
        return bt_raise_error(cpu, VEC_TS, error);
    if (!bt_desc_present(&d))
        return bt_raise_error(cpu, VEC_NP, error);
    if (!bt_desc_mark_accessed(cpu, &d))
        return false;
    bt_desc_segment(&d, sel, &cpu->seg[SEG_CS]);
    return true;
}

/* The new task's segments, whose selectors are in place: faults are its own from here on. */
static bool load_segments(struct bt_cpu *cpu, uint16_t ldt, unsigned ext)
{
    static const uint8_t order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    if (!load_ldtr(cpu, ldt, ext))
        return false;
    if (cpu->sysflags & FLAG_VM)
        return true;
    if (!load_cs(cpu, cpu->seg[SEG_CS].selector, ext))
        return false;
    for (unsigned i = 0; i < sizeof(order); i++) {
        struct x86_segment s;
        if (!bt_seg_check(cpu, order[i], cpu->seg[order[i]].selector, cpu->cpl, false, VEC_TS, ext, &s))
            return false;
        cpu->seg[order[i]] = s;
    }
    return true;
}

/* Registers out of the new TSS; segments only as selectors, except in virtual-8086 mode. */
static void load_registers(struct bt_cpu *cpu, const struct bt_task_switch *how, const struct task *t)
{
    const struct tss_layout *l = t->layout;
    uint64_t flags = get_word(t, l->flags);
    if (how->cause == TASK_CALL || how->cause == TASK_EVENT)
        flags |= FLAG_NT;
    bt_flags_store(cpu, flags);
    cpu->rip = get_word(t, l->ip);
    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = get_word(t, l->gpr + i * l->word);
    for (unsigned i = 0; i < ARRAY_SIZE(tss_seg); i++) {
        uint16_t sel = i < l->seg_count ? load_le16(t->image + l->seg + i * l->word) : 0;
        if (flags & FLAG_VM)
            bt_seg_set_real(cpu, tss_seg[i], sel);
        else
            bt_seg_null(&cpu->seg[tss_seg[i]], sel, 0);
    }
    cpu->cpl = (flags & FLAG_VM) ? 3 : cpu->seg[SEG_CS].selector & 3;
}

static bool push_error(struct bt_cpu *cpu, const struct task *t, uint32_t error, unsigned ext)
{
    struct bt_stack s;
    bt_stack_open(cpu, &s, t->layout->word);
    bt_stack_push(&s, error);
    if (!bt_stack_commit(cpu, &s, ext))
        return false;
    bt_set_sp(cpu, s.sp, s.mask);
    return true;
}

bool bt_task_switch(struct bt_cpu *cpu, uint16_t sel, const struct bt_task_switch *how)
{
    struct bt_desc d;
    struct task old, new;
    if (!tss_descriptor(cpu, sel, how, &d))
        return false;
    new.layout = layout_of(bt_desc_type(&d));
    new.base = bt_desc_base(&d);
    if (!bt_read_lin(cpu, new.base, new.image, new.layout->limit + 1, BT_READ | BT_IMPLICIT) ||
        !build_old(cpu, how, &old) || !write_memory(cpu, how, &old, &new, &d))
        return false;

    d.high |= 0x200; /* TR holds a busy TSS, also after IRET */
    bt_desc_segment(&d, sel, &cpu->seg[SEG_TR]);
    cpu->cr0 |= CR0_TS;
    cpu->dr[7] &= ~DR7_LOCAL;
    uint16_t ldt = load_le16(new.image + new.layout->ldt);
    bool wide = new.layout->word == 4;
    if (wide && (cpu->cr0 & CR0_PG))
        bt_cr3_load(cpu, load_le32(new.image + 0x1c));
    if (wide && (new.image[0x64] & 1))
        cpu->pending_db |= DR6_BT;
    load_registers(cpu, how, &new);
    bt_mode_update(cpu);
    bool ok = load_segments(cpu, ldt, how->ext);
    bt_mode_update(cpu);
    return ok && (!how->error || push_error(cpu, &new, *how->error, how->ext)) &&
           bt_code_target(cpu, &cpu->seg[SEG_CS], cpu->rip, how->ext);
}

bool bt_task_gate(struct bt_cpu *cpu, const struct bt_desc *gate, const struct bt_task_switch *how)
{
    return bt_task_switch(cpu, (uint16_t)(gate->low >> 16), how);
}
