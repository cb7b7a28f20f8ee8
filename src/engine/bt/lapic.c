/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The local APIC: registers, MSRs, priorities, saved state. SDM vol. 3 chapter 11. gpr-only. */
#include <stdlib.h>
#include <string.h>

#include "engine/bt/lapic_impl.h"

#define VERSION       (0x14u | (LVT_COUNT - 1) << 16)
#define MSR_APIC_BASE 0x1bu
#define MSR_DEADLINE  0x6e0u
#define MSR_X2_FIRST  0x800u
#define MSR_X2_LAST   0x8ffu

/* Writable bits of each entry of the local vector table. */
static const uint32_t lvt_bits[LVT_COUNT] = {
    [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PMC] = 0x107ff,
    [LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

static int highest_bit(uint32_t word)
{
    return 31 - __builtin_clz(word);
}

static int highest_irr(const struct bt_lapic *l)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t word = l->irr[i];
        if (word)
            return i * 32 + highest_bit(word);
    }
    return -1;
}

static int highest_isr(const struct bt_lapic *l)
{
    for (int i = 7; i >= 0; i--)
        if (l->isr[i])
            return i * 32 + highest_bit(l->isr[i]);
    return -1;
}

static uint32_t ppr(const struct bt_lapic *l)
{
    int isr = highest_isr(l);
    uint32_t tpr = l->tpr, servicing = isr < 0 ? 0 : (uint32_t)isr & 0xf0;
    return (tpr & 0xf0) >= servicing ? tpr : servicing;
}

/* The vector that the processor would take now, or -1. */
static int deliverable(const struct bt_lapic *l)
{
    if (!lapic_enabled(l))
        return -1;
    int vector = highest_irr(l);
    if (vector < 0 || ((uint32_t)vector & 0xf0) <= (ppr(l) & 0xf0))
        return -1;
    return vector;
}

/* Whether INTR reaches this processor as ExtINT: through LINT0, or straight when the APIC is off. */
static bool extint(const struct bt_lapic *l)
{
    if (l->extint_pending)
        return true;
    if (l->cpu->index || !l->cpu->engine->intr)
        return false;
    uint32_t lint0 = l->lvt[LVT_LINT0];
    return !lapic_enabled(l) || (!(lint0 & LVT_MASKED) && (lint0 >> 8 & 7) == DELIVER_EXTINT);
}

bool bt_lapic_pending(struct bt_lapic *l)
{
    if (l->wake_tsc != TSC_NEVER)
        bt_lapic_check_timer(l);
    return extint(l) || deliverable(l) >= 0;
}

int bt_lapic_acknowledge(struct bt_lapic *l)
{
    if (extint(l)) {
        const struct engine_host *host = l->cpu->engine->config.host;
        l->extint_pending = false;
        lapic_leave_gpr(l);
        int vector = host->pic_acknowledge(host->opaque);
        if (vector >= 0)
            return vector & 0xff;
    }
    int vector = deliverable(l);
    if (vector < 0)
        return -1;
    uint32_t bit = (uint32_t)BIT(vector & 31);
    atomic_fetch_and(&l->irr[vector >> 5], ~bit);
    l->isr[vector >> 5] |= bit;
    return vector;
}

void lapic_notify(struct bt_lapic *l, bool local)
{
    if (!local) {
        bt_request(l->cpu, BT_REQ_EVENT);
        return;
    }
    atomic_fetch_or(&l->cpu->requests, BT_REQ_EVENT);
    atomic_store(&l->cpu->kick, 1);
}

void lapic_error(struct bt_lapic *l, uint32_t esr_bit, bool local)
{
    uint32_t before = atomic_fetch_or(&l->esr_pending, esr_bit);
    if (!(before & esr_bit))
        lapic_local_interrupt(l, LVT_ERROR, local);
}

void lapic_accept(struct bt_lapic *l, uint8_t vector, bool level, bool local)
{
    if (!lapic_software_enabled(l))
        return;
    if (vector < 16) {
        lapic_error(l, ESR_RECEIVE_VECTOR, local);
        return;
    }
    uint32_t bit = (uint32_t)BIT(vector & 31);
    if (level)
        atomic_fetch_or(&l->tmr[vector >> 5], bit);
    else
        atomic_fetch_and(&l->tmr[vector >> 5], ~bit);
    uint32_t before = atomic_fetch_or(&l->irr[vector >> 5], bit);
    if (!(before & bit))
        lapic_notify(l, local);
}

void lapic_local_interrupt(struct bt_lapic *l, enum lapic_lvt which, bool local)
{
    uint32_t lvt = l->lvt[which];
    if (lvt & LVT_MASKED)
        return;
    bool fixed_only = which == LVT_TIMER || which == LVT_ERROR;
    enum lapic_delivery mode = fixed_only ? DELIVER_FIXED : (enum lapic_delivery)(lvt >> 8 & 7);
    uint8_t vector = lvt & 0xff;
    if (which == LVT_ERROR && vector < 16)
        return; /* would raise itself */
    lapic_post(l, mode, vector, which == LVT_LINT0 && (lvt & BIT(15)), local);
}

static void eoi(struct bt_lapic *l)
{
    int vector = highest_isr(l);
    if (vector < 0)
        return;
    uint32_t bit = (uint32_t)BIT(vector & 31);
    l->isr[vector >> 5] &= ~bit;
    if (atomic_load(&l->tmr[vector >> 5]) & bit) {
        const struct engine_host *host = l->cpu->engine->config.host;
        lapic_leave_gpr(l);
        host->eoi(host->opaque, (uint8_t)vector);
    }
    if (deliverable(l) >= 0)
        lapic_notify(l, true);
}

static void set_tpr(struct bt_lapic *l, uint32_t tpr)
{
    l->tpr = tpr & 0xff;
    if (deliverable(l) >= 0)
        lapic_notify(l, true);
}

uint64_t bt_lapic_cr8(const struct bt_lapic *l)
{
    return l->tpr >> 4;
}

void bt_lapic_set_cr8(struct bt_lapic *l, uint64_t cr8)
{
    set_tpr(l, (uint32_t)(cr8 & 15) << 4);
}

static void set_svr(struct bt_lapic *l, uint32_t value)
{
    l->svr = value & 0x1ff;
    if (value & SVR_ENABLE)
        return;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        if (i != LVT_TIMER)
            l->lvt[i] |= (uint32_t)LVT_MASKED;
    lapic_timer_set_lvt(l, l->lvt[LVT_TIMER] | (uint32_t)LVT_MASKED);
}

/* The LVT entry at a register offset, or LVT_COUNT. */
static enum lapic_lvt lvt_at(uint32_t reg)
{
    if (reg < REG_LVT_TIMER || reg > REG_LVT_ERROR)
        return LVT_COUNT;
    return (enum lapic_lvt)((reg - REG_LVT_TIMER) >> 4);
}

static void set_lvt(struct bt_lapic *l, enum lapic_lvt which, uint32_t value)
{
    value &= lvt_bits[which];
    if (!(l->svr & SVR_ENABLE))
        value |= (uint32_t)LVT_MASKED;
    if (which == LVT_TIMER)
        lapic_timer_set_lvt(l, value);
    else
        l->lvt[which] = value;
    if (which == LVT_LINT0 && extint(l))
        lapic_notify(l, true);
}

static uint32_t x2_ldr(const struct bt_lapic *l)
{
    return (l->id >> 4) << 16 | 1u << (l->id & 15);
}

/* A register common to both modes; false: there is none at that offset. */
static bool read_reg(struct bt_lapic *l, uint32_t reg, uint32_t *value)
{
    if (reg >= REG_ISR && reg < REG_ISR + 0x80)
        return *value = l->isr[(reg - REG_ISR) >> 4], true;
    if (reg >= REG_TMR && reg < REG_TMR + 0x80)
        return *value = l->tmr[(reg - REG_TMR) >> 4], true;
    if (reg >= REG_IRR && reg < REG_IRR + 0x80)
        return *value = l->irr[(reg - REG_IRR) >> 4], true;
    enum lapic_lvt which = lvt_at(reg);
    if (which != LVT_COUNT)
        return *value = l->lvt[which], true;
    switch (reg) {
    case REG_VERSION:
        return *value = VERSION, true;
    case REG_TPR:
        return *value = l->tpr, true;
    case REG_PPR:
        return *value = ppr(l), true;
    case REG_SVR:
        return *value = l->svr, true;
    case REG_ESR:
        return *value = l->esr, true;
    case REG_TIMER_INITIAL:
        return *value = l->timer_initial, true;
    case REG_TIMER_CURRENT:
        return *value = lapic_timer_current(l), true;
    case REG_TIMER_DIVIDE:
        return *value = l->timer_divide, true;
    default:
        return false;
    }
}

uint32_t bt_lapic_read(struct bt_lapic *l, uint32_t offset)
{
    uint32_t value = 0;
    if (offset & 0xf)
        return 0;
    switch (offset) {
    case REG_ID:
        return l->id << 24;
    case REG_LDR:
        return l->ldr;
    case REG_DFR:
        return l->dfr;
    case REG_ICR:
        return l->icr_low;
    case REG_ICR_HIGH:
        return l->icr_high;
    case REG_APR:
    case REG_RRD:
        return 0;
    default:
        if (!read_reg(l, offset, &value))
            lapic_error(l, ESR_REGISTER, true);
        return value;
    }
}

/* False: no writable register. */
static bool write_reg(struct bt_lapic *l, uint32_t reg, uint32_t value)
{
    enum lapic_lvt which = lvt_at(reg);
    if (which != LVT_COUNT)
        return set_lvt(l, which, value), true;
    switch (reg) {
    case REG_TPR:
        return set_tpr(l, value), true;
    case REG_EOI:
        return eoi(l), true;
    case REG_SVR:
        return set_svr(l, value), true;
    case REG_ESR:
        l->esr = atomic_exchange(&l->esr_pending, 0);
        return true;
    case REG_TIMER_INITIAL:
        return lapic_timer_set_initial(l, value), true;
    case REG_TIMER_DIVIDE:
        return lapic_timer_set_divide(l, value), true;
    default:
        return false;
    }
}

void bt_lapic_write(struct bt_lapic *l, uint32_t offset, uint32_t value)
{
    if (offset & 0xf)
        return;
    switch (offset) {
    case REG_LDR:
        l->ldr = value & 0xff000000;
        break;
    case REG_DFR:
        l->dfr = value | 0x0fffffff;
        break;
    case REG_ICR:
        l->icr_low = value & ~(uint32_t)BIT(12);
        lapic_send_ipi(l, value, l->icr_high >> 24);
        break;
    case REG_ICR_HIGH:
        l->icr_high = value & 0xff000000;
        break;
    case REG_ID: /* fixed, as on current processors */
        break;
    default:
        if (!write_reg(l, offset, value))
            lapic_error(l, ESR_REGISTER, true);
    }
}

/* Bits that WRMSR may set in an x2APIC register; others are #GP. */
static uint64_t x2_writable(uint32_t reg)
{
    enum lapic_lvt which = lvt_at(reg);
    if (which != LVT_COUNT) /* delivery status and remote IRR are read-only, not reserved */
        return lvt_bits[which] | BIT(12) | (which == LVT_LINT0 || which == LVT_LINT1 ? BIT(14) : 0);
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI:
        return 0xff;
    case REG_SVR:
        return 0x1ff;
    case REG_ICR:
        return UINT64_C(0xffffffff000ccfff);
    case REG_TIMER_INITIAL:
        return UINT32_MAX;
    case REG_TIMER_DIVIDE:
        return 0xb;
    default:
        return 0; /* EOI, ESR: only zero */
    }
}

static bool x2_read(struct bt_lapic *l, uint32_t reg, uint64_t *value)
{
    uint32_t low = 0;
    switch (reg) {
    case REG_ID:
        *value = l->id;
        return true;
    case REG_LDR:
        *value = x2_ldr(l);
        return true;
    case REG_ICR:
        *value = (uint64_t)l->icr_high << 32 | l->icr_low;
        return true;
    default:
        if (!read_reg(l, reg, &low))
            return false;
        *value = low;
        return true;
    }
}

static bool x2_write(struct bt_lapic *l, uint32_t reg, uint64_t value)
{
    if (value & ~x2_writable(reg))
        return false;
    switch (reg) {
    case REG_ICR:
        l->icr_low = (uint32_t)value;
        l->icr_high = (uint32_t)(value >> 32);
        lapic_send_ipi(l, l->icr_low, l->icr_high);
        return true;
    case REG_SELF_IPI:
        lapic_post(l, DELIVER_FIXED, (uint8_t)value, false, true);
        return true;
    default:
        return write_reg(l, reg, (uint32_t)value);
    }
}

bool bt_lapic_rdmsr(struct bt_lapic *l, uint32_t msr, uint64_t *value)
{
    if (msr == MSR_APIC_BASE) {
        *value = l->base;
        return true;
    }
    if (msr == MSR_DEADLINE) {
        *value = lapic_timer_deadline(l);
        return true;
    }
    if (msr < MSR_X2_FIRST || msr > MSR_X2_LAST || !lapic_x2(l))
        return false;
    return x2_read(l, (msr - MSR_X2_FIRST) << 4, value);
}

/* Power-on values of all but the id and the base. */
static void reset_registers(struct bt_lapic *l)
{
    l->tpr = 0;
    l->ldr = 0;
    l->dfr = UINT32_MAX;
    l->svr = 0xff;
    l->esr = 0;
    l->esr_pending = 0;
    l->icr_low = l->icr_high = 0;
    for (unsigned i = 0; i < 8; i++)
        l->irr[i] = l->tmr[i] = l->isr[i] = 0;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        l->lvt[i] = (uint32_t)LVT_MASKED;
    l->extint_pending = false;
    lapic_timer_reset(l);
}

static bool set_base(struct bt_lapic *l, uint64_t value)
{
    uint64_t limit = BIT(l->cpu->engine->config.cpu->phys_bits);
    uint64_t before = l->base, modes = APIC_BASE_EN | APIC_BASE_X2;
    if (value & ~(APIC_BASE_BSP | modes | ((limit - 1) & ~UINT64_C(0xfff))))
        return false;
    /* x2APIC mode is entered from xAPIC mode and left only by turning the APIC off. */
    uint64_t from = before & modes, to = value & modes;
    if (to == APIC_BASE_X2 || (to == modes && !from) || (from == modes && to == APIC_BASE_EN))
        return false;
    l->base = (value & ~APIC_BASE_BSP) | (before & APIC_BASE_BSP);
    if (from && !to)
        reset_registers(l);
    return true;
}

bool bt_lapic_wrmsr(struct bt_lapic *l, uint32_t msr, uint64_t value)
{
    if (msr == MSR_APIC_BASE)
        return set_base(l, value);
    if (msr == MSR_DEADLINE)
        return lapic_timer_set_deadline(l, value), true;
    if (msr < MSR_X2_FIRST || msr > MSR_X2_LAST || !lapic_x2(l))
        return false;
    return x2_write(l, (msr - MSR_X2_FIRST) << 4, value);
}

bool bt_lapic_owns(const struct bt_lapic *l, uint64_t gpa)
{
    uint64_t base = l->base;
    return (base & (APIC_BASE_EN | APIC_BASE_X2)) == APIC_BASE_EN && gpa >> 12 == base >> 12;
}

enum bt_lapic_event bt_lapic_take_event(struct bt_lapic *l, uint8_t *sipi_vector)
{
    if (atomic_exchange(&l->init_pending, false))
        return BT_LAPIC_INIT;
    /* A processor that does not wait for a SIPI ignores it. */
    if (atomic_exchange(&l->sipi_pending, false) && l->cpu->mp_state == MP_WAIT_SIPI) {
        *sipi_vector = l->sipi_vector;
        return BT_LAPIC_SIPI;
    }
    return BT_LAPIC_NONE;
}

void bt_lapic_reset(struct bt_lapic *l, bool init)
{
    if (!init) {
        l->base = APIC_BASE_ADDR | APIC_BASE_EN | (l->cpu->index ? 0 : APIC_BASE_BSP);
        l->init_pending = l->sipi_pending = false;
    }
    reset_registers(l);
}

struct bt_lapic *bt_lapic_new(struct bt_cpu *cpu)
{
    struct bt_lapic *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->cpu = cpu;
    l->id = cpu->index;
    l->wake_tsc = TSC_NEVER;
    if (!lapic_timer_attach(l)) {
        free(l);
        return NULL;
    }
    bt_lapic_reset(l, false);
    return l;
}

void bt_lapic_free(struct bt_lapic *l)
{
    if (!l)
        return;
    lapic_timer_detach(l);
    free(l);
}

void bt_lapic_get(struct bt_lapic *l, struct x86_lapic *out)
{
    bt_lapic_check_timer(l);
    *out = (struct x86_lapic){
        .base = l->base,
        .id = l->id,
        .tpr = l->tpr,
        .ldr = lapic_x2(l) ? x2_ldr(l) : l->ldr,
        .dfr = l->dfr,
        .svr = l->svr,
        .esr = l->esr,
        .icr_low = l->icr_low,
        .icr_high = l->icr_high,
        .lvt_cmci = l->lvt_cmci,
        .lvt_timer = l->lvt[LVT_TIMER],
        .lvt_thermal = l->lvt[LVT_THERMAL],
        .lvt_pmc = l->lvt[LVT_PMC],
        .lvt_lint0 = l->lvt[LVT_LINT0],
        .lvt_lint1 = l->lvt[LVT_LINT1],
        .lvt_error = l->lvt[LVT_ERROR],
        .timer_initial = l->timer_initial,
        .timer_divide = l->timer_divide,
        .timer_start_ns = l->timer_start_ns,
        .tsc_deadline = l->tsc_deadline,
    };
    for (unsigned i = 0; i < 8; i++) {
        out->isr[i] = l->isr[i];
        out->tmr[i] = l->tmr[i];
        out->irr[i] = l->irr[i];
    }
}

void bt_lapic_set(struct bt_lapic *l, const struct x86_lapic *in)
{
    const uint32_t lvt[LVT_COUNT] = {in->lvt_timer, in->lvt_thermal, in->lvt_pmc,
                                     in->lvt_lint0, in->lvt_lint1,   in->lvt_error};
    uint64_t address = (BIT(l->cpu->engine->config.cpu->phys_bits) - 1) & ~UINT64_C(0xfff);
    l->base = (in->base & (address | APIC_BASE_EN | APIC_BASE_X2)) | (l->cpu->index ? 0 : APIC_BASE_BSP);
    if (!lapic_enabled(l))
        l->base &= ~APIC_BASE_X2;
    l->tpr = in->tpr & 0xff;
    l->ldr = in->ldr & 0xff000000;
    l->dfr = in->dfr | 0x0fffffff;
    l->svr = in->svr & 0x1ff;
    l->esr = in->esr & 0xff;
    l->esr_pending = 0;
    l->icr_low = in->icr_low & ~(uint32_t)BIT(12);
    l->icr_high = in->icr_high;
    l->lvt_cmci = in->lvt_cmci;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        l->lvt[i] = lvt[i] & lvt_bits[i];
    for (unsigned i = 0; i < 8; i++) {
        l->isr[i] = in->isr[i];
        l->tmr[i] = in->tmr[i];
        l->irr[i] = in->irr[i];
    }
    l->isr[0] &= 0xffff0000;
    l->irr[0] &= 0xffff0000;
    l->timer_initial = in->timer_initial;
    l->timer_divide = in->timer_divide & 0xb;
    l->timer_start_ns = in->timer_start_ns;
    l->tsc_deadline = in->tsc_deadline;
    bt_lapic_tsc_changed(l);
    lapic_notify(l, true);
}
