/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raising and delivering exceptions and interrupts (SDM vol. 3 chapter 6, APM vol. 2 chapter 8). Delivery
 * first makes every check and gathers the frame, then writes the frame, then changes registers: a fault on
 * the way leaves the processor as it was and is combined with the first one.
 */
#include "engine/bt/seg.h"

#define DR6_TRAP_BITS UINT64_C(0xf)
#define DR6_BD        BIT(13)
#define DR7_GD        BIT(13)

#define BT_DELIVER_ROUNDS 8u

/* What one delivery works on. */
struct delivery {
    unsigned vector;
    unsigned ext; /* EXT bit of error codes on the way */
    bool has_error, soft;
    uint32_t error;
    uint64_t rip;    /* to push */
    uint64_t rflags; /* to push */
};

static bool is_fault(const struct bt_exception *e)
{
    if (e->soft || e->external)
        return false;
    switch (e->vector) {
    case VEC_DB:
        return e->dr6 & DR6_BD;
    case VEC_NMI:
    case VEC_BP:
    case VEC_OF:
    case VEC_DF:
    case VEC_MC:
        return false;
    default:
        return e->vector < 32;
    }
}

static void prepare(const struct bt_cpu *cpu, const struct bt_exception *e, struct delivery *d)
{
    d->vector = e->vector;
    d->soft = e->soft;
    d->ext = !e->soft;
    d->has_error = e->has_error;
    d->error = e->error;
    d->rip = e->soft ? e->next_rip : cpu->rip;
    d->rflags = bt_rflags(cpu);
    if (e->soft)
        d->rflags &= ~FLAG_RF;
    else if (is_fault(e))
        d->rflags |= FLAG_RF;
}

static bool deliver_real(struct bt_cpu *cpu, const struct delivery *d)
{
    uint32_t offset = d->vector * 4;
    if (offset + 3 > cpu->idtr.limit)
        return bt_raise_error(cpu, VEC_GP, d->vector * 8 + 2 + d->ext);
    uint32_t entry;
    if (!bt_read_lin(cpu, cpu->idtr.base + offset, &entry, 4, BT_READ | BT_IMPLICIT))
        return false;
    struct bt_stack s;
    bt_stack_open(cpu, &s, 2);
    bt_stack_push(&s, d->rflags);
    bt_stack_push(&s, cpu->seg[SEG_CS].selector);
    bt_stack_push(&s, d->rip);
    if (!bt_stack_commit(cpu, &s, 0))
        return false;
    bt_set_sp(cpu, s.sp, s.mask);
    cpu->sysflags &= ~(FLAG_TF | FLAG_AC | FLAG_RF);
    cpu->iflag = 0;
    bt_seg_set_real(cpu, SEG_CS, (uint16_t)(entry >> 16));
    cpu->rip = (uint16_t)entry;
    return true;
}

/* The handler's code segment, as the gate's selector names it; *level is the CPL it runs at. */
static bool handler_segment(struct bt_cpu *cpu, const struct delivery *d, uint16_t sel,
                            struct x86_segment *cs, unsigned *level)
{
    if (bt_selector_null(sel))
        return bt_raise_error(cpu, VEC_GP, d->ext);
    struct bt_desc code;
    if (!bt_desc_read(cpu, sel, VEC_GP, d->ext, &code))
        return false;
    uint32_t error = (sel & 0xfffc) | d->ext;
    unsigned dpl = bt_desc_dpl(&code);
    bool bad_size = bt_long_mode(cpu) && (bt_desc_attr(&code) & (ATTR_L | ATTR_DB)) != ATTR_L;
    if (!bt_desc_code(&code) || dpl > cpu->cpl || bad_size)
        return bt_raise_error(cpu, VEC_GP, error);
    *level = bt_desc_conforming(&code) ? cpu->cpl : dpl;
    if ((cpu->sysflags & FLAG_VM) && *level != 0)
        return bt_raise_error(cpu, VEC_GP, error);
    if (!bt_desc_present(&code))
        return bt_raise_error(cpu, VEC_NP, error);
    if (!bt_desc_mark_accessed(cpu, &code))
        return false;
    bt_desc_segment(&code, sel, cs);
    return true;
}

/* What interrupt and trap gates do once the frame stands. */
static void enter_handler(struct bt_cpu *cpu, const struct x86_segment *cs, unsigned level, uint64_t rip,
                          bool trap_gate)
{
    cpu->sysflags &= ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
    cpu->iflag = trap_gate ? cpu->iflag : 0;
    bt_cs_set(cpu, cs, level);
    cpu->rip = rip;
}

/* Common to all modes: reads `size` bytes of gate and checks software's right to it and its presence. */
static bool read_gate(struct bt_cpu *cpu, const struct delivery *d, uint64_t *gate, unsigned size,
                      uint32_t types)
{
    uint32_t offset = d->vector * size, error = d->vector * 8 + 2 + d->ext;
    if (offset + size - 1 > cpu->idtr.limit)
        return bt_raise_error(cpu, VEC_GP, error);
    if (!bt_read_lin(cpu, cpu->idtr.base + offset, gate, size, BT_READ | BT_IMPLICIT))
        return false;
    uint32_t high = (uint32_t)(gate[0] >> 32);
    if ((high & 0x1000) || !(types & 1u << (high >> 8 & 0xf)))
        return bt_raise_error(cpu, VEC_GP, error);
    if (d->soft && (high >> 13 & 3) < cpu->cpl)
        return bt_raise_error(cpu, VEC_GP, error);
    if (!(high & 0x8000))
        return bt_raise_error(cpu, VEC_NP, error);
    return true;
}

static bool deliver_long(struct bt_cpu *cpu, const struct delivery *d)
{
    uint64_t gate[2];
    if (!read_gate(cpu, d, gate, 16, 1u << DESC_INT32 | 1u << DESC_TRAP32))
        return false;
    uint64_t rip = (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32;
    struct x86_segment cs;
    unsigned level;
    if (!handler_segment(cpu, d, (uint16_t)(gate[0] >> 16), &cs, &level))
        return false;
    uint64_t rsp = cpu->gpr[R_RSP];
    unsigned ist = gate[0] >> 32 & 7;
    if ((ist || level < cpu->cpl) && !bt_tss_stack64(cpu, ist ? 3 + ist : level, d->ext, &rsp))
        return false;
    if (!bt_code_target(cpu, &cs, rip, d->ext))
        return false;

    struct bt_stack s;
    bt_stack_open_at(cpu, &s, NULL, rsp & ~UINT64_C(15), 8);
    if (level == cpu->cpl)
        s.access = BT_WRITE;
    bt_stack_push(&s, cpu->seg[SEG_SS].selector);
    bt_stack_push(&s, cpu->gpr[R_RSP]);
    bt_stack_push(&s, d->rflags);
    bt_stack_push(&s, cpu->seg[SEG_CS].selector);
    bt_stack_push(&s, d->rip);
    if (d->has_error)
        bt_stack_push(&s, d->error);
    if (!bt_stack_commit(cpu, &s, d->ext))
        return false;

    cpu->gpr[R_RSP] = s.sp;
    if (level < cpu->cpl)
        bt_seg_null(&cpu->seg[SEG_SS], (uint16_t)level, level);
    enter_handler(cpu, &cs, level, rip, gate[0] >> 40 & 1);
    return true;
}

/* Leaving virtual-8086 mode: data segments become null in the handler. */
static void clear_data_segments(struct bt_cpu *cpu)
{
    bt_seg_null(&cpu->seg[SEG_ES], 0, 0);
    bt_seg_null(&cpu->seg[SEG_DS], 0, 0);
    bt_seg_null(&cpu->seg[SEG_FS], 0, 0);
    bt_seg_null(&cpu->seg[SEG_GS], 0, 0);
}

/* To a handler that is more privileged: the stack comes from the TSS. */
static bool deliver_inner(struct bt_cpu *cpu, const struct delivery *d, unsigned size,
                          const struct x86_segment *cs, unsigned level, uint64_t rip, bool trap_gate)
{
    bool v86 = cpu->sysflags & FLAG_VM;
    struct x86_segment ss;
    uint64_t sp;
    if (!bt_tss_stack(cpu, level, d->ext, &ss, &sp) || !bt_code_target(cpu, cs, rip, d->ext))
        return false;
    struct bt_stack s;
    bt_stack_open_at(cpu, &s, &ss, sp, size);
    if (v86) {
        bt_stack_push(&s, cpu->seg[SEG_GS].selector);
        bt_stack_push(&s, cpu->seg[SEG_FS].selector);
        bt_stack_push(&s, cpu->seg[SEG_DS].selector);
        bt_stack_push(&s, cpu->seg[SEG_ES].selector);
    }
    bt_stack_push(&s, cpu->seg[SEG_SS].selector);
    bt_stack_push(&s, cpu->gpr[R_RSP]);
    bt_stack_push(&s, d->rflags);
    bt_stack_push(&s, cpu->seg[SEG_CS].selector);
    bt_stack_push(&s, d->rip);
    if (d->has_error)
        bt_stack_push(&s, d->error);
    if (!bt_stack_commit(cpu, &s, (ss.selector & 0xfffc) | d->ext))
        return false;
    cpu->seg[SEG_SS] = ss;
    cpu->gpr[R_RSP] = sp;
    bt_set_sp(cpu, s.sp, s.mask);
    if (v86)
        clear_data_segments(cpu);
    enter_handler(cpu, cs, level, rip, trap_gate);
    return true;
}

static bool deliver_legacy(struct bt_cpu *cpu, const struct delivery *d)
{
    uint64_t gate;
    if (!read_gate(cpu, d, &gate, 8,
                   1u << DESC_TASK_GATE | 1u << DESC_INT16 | 1u << DESC_TRAP16 | 1u << DESC_INT32 |
                       1u << DESC_TRAP32))
        return false;
    unsigned type = gate >> 40 & 0xf;
    if (type == DESC_TASK_GATE) {
        struct bt_desc g = {.low = (uint32_t)gate, .high = (uint32_t)(gate >> 32)};
        struct bt_task_switch how = {.cause = TASK_EVENT,
                                     .ext = d->ext,
                                     .rip = d->rip,
                                     .rflags = d->rflags,
                                     .error = d->has_error ? &d->error : NULL};
        return bt_task_gate(cpu, &g, &how);
    }
    unsigned size = type >= DESC_INT32 ? 4 : 2;
    bool trap_gate = type & 1;
    uint64_t rip = bt_zext((gate & 0xffff) | (gate >> 32 & 0xffff0000), size);
    struct x86_segment cs;
    unsigned level;
    if (!handler_segment(cpu, d, (uint16_t)(gate >> 16), &cs, &level))
        return false;
    if (level < cpu->cpl)
        return deliver_inner(cpu, d, size, &cs, level, rip, trap_gate);

    struct bt_stack s;
    bt_stack_open(cpu, &s, size);
    bt_stack_push(&s, d->rflags);
    bt_stack_push(&s, cpu->seg[SEG_CS].selector);
    bt_stack_push(&s, d->rip);
    if (d->has_error)
        bt_stack_push(&s, d->error);
    if (!bt_code_target(cpu, &cs, rip, d->ext) || !bt_stack_commit(cpu, &s, d->ext))
        return false;
    bt_set_sp(cpu, s.sp, s.mask);
    enter_handler(cpu, &cs, level, rip, trap_gate);
    return true;
}

static bool deliver_once(struct bt_cpu *cpu, const struct bt_exception *e)
{
    struct delivery d;
    prepare(cpu, e, &d);
    if (!(cpu->cr0 & CR0_PE))
        return deliver_real(cpu, &d);
    return bt_long_mode(cpu) ? deliver_long(cpu, &d) : deliver_legacy(cpu, &d);
}

enum exc_class { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE };

static enum exc_class classify(const struct bt_exception *e)
{
    if (e->soft || e->external)
        return CLASS_BENIGN;
    switch (e->vector) {
    case VEC_DE:
    case VEC_TS:
    case VEC_NP:
    case VEC_SS:
    case VEC_GP:
        return CLASS_CONTRIBUTORY;
    case VEC_PF:
        return CLASS_PAGE_FAULT;
    case VEC_DF:
        return CLASS_DOUBLE;
    default:
        return CLASS_BENIGN;
    }
}

/* What the exception itself does before its handler is looked up. */
static void apply_side_effects(struct bt_cpu *cpu, const struct bt_exception *e)
{
    if (e->soft)
        return;
    if (e->vector == VEC_PF && !e->external) {
        cpu->cr2 = e->cr2;
    } else if (e->vector == VEC_DB && e->dr6) {
        cpu->dr[6] = (cpu->dr[6] & ~DR6_TRAP_BITS) | e->dr6;
        cpu->dr[7] &= ~DR7_GD;
    } else if (e->vector == VEC_NMI) {
        cpu->nmi_blocked = true;
    }
}

void bt_deliver(struct bt_cpu *cpu)
{
    struct bt_exception first = cpu->exc;
    for (unsigned round = 0;; round++) {
        apply_side_effects(cpu, &first);
        cpu->exc.pending = false;
        if (deliver_once(cpu, &first))
            break;
        /* SDM vol. 3 table 6-5: handle the second one alone, or double fault, or shut down. */
        enum exc_class was = classify(&first), is = classify(&cpu->exc);
        /* Benign ones may also breed each other without end (#AC on an unaligned CPL 3 stack). */
        if ((was == CLASS_DOUBLE && is != CLASS_BENIGN) || round == BT_DELIVER_ROUNDS) {
            cpu->exc.pending = false;
            cpu->shutdown = true;
            bt_why_shutdown(cpu, &first, &cpu->exc);
            break;
        }
        bool serial = was == CLASS_BENIGN || is == CLASS_BENIGN ||
                      (was == CLASS_CONTRIBUTORY && is == CLASS_PAGE_FAULT);
        if (!serial) {
            if (is == CLASS_PAGE_FAULT)
                cpu->cr2 = cpu->exc.cr2;
            bt_raise_error(cpu, VEC_DF, 0);
        }
        first = cpu->exc;
    }
    bt_mode_update(cpu);
}
