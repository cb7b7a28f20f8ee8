/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's local APIC: its page of registers against struct x86_lapic (SDM vol. 3 table 11-1), and its
 * timer. The timer counts nanoseconds of machine time before its divider, as under every engine. The kernel
 * starts it anew from the current count whenever the page is written, and a one-shot that is written with a
 * count of 0 would fire once more: such a one is written with an initial count of 0.
 */
#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"

#define MSR_DEADLINE UINT32_C(0x6e0)

enum {
    REG_ID = 0x20,
    REG_TPR = 0x80,
    REG_LDR = 0xd0,
    REG_DFR = 0xe0,
    REG_SVR = 0xf0,
    REG_ISR = 0x100,
    REG_TMR = 0x180,
    REG_IRR = 0x200,
    REG_ESR = 0x280,
    REG_ICR = 0x300,
    REG_ICR_HIGH = 0x310,
    REG_LVT_TIMER = 0x320,
    REG_LVT_THERMAL = 0x330,
    REG_LVT_PMC = 0x340,
    REG_LVT_LINT0 = 0x350,
    REG_LVT_LINT1 = 0x360,
    REG_LVT_ERROR = 0x370,
    REG_INITIAL = 0x380,
    REG_CURRENT = 0x390,
    REG_DIVIDE = 0x3e0,
};

enum timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };

static uint32_t get(const struct kvm_lapic_state *page, unsigned reg)
{
    return load_le32(page->regs + reg);
}

static void put(struct kvm_lapic_state *page, unsigned reg, uint32_t value)
{
    store_le32(page->regs + reg, value);
}

static enum timer_mode mode_of(uint32_t lvt)
{
    return (enum timer_mode)(lvt >> 17 & 3);
}

static unsigned divide_shift(uint32_t divide)
{
    return (((divide & 3) | (divide >> 1 & 4)) + 1) & 7;
}

static bool read_page(struct kvm_cpu *cpu, struct kvm_lapic_state *page, struct error **err)
{
    return KVM_TRY(cpu->fd, KVM_GET_LAPIC, page, err);
}

static bool write_page(struct kvm_cpu *cpu, struct kvm_lapic_state *page, struct error **err)
{
    return KVM_TRY(cpu->fd, KVM_SET_LAPIC, page, err);
}

/* Read by its own ioctl as the page does not have it. */
static bool read_deadline(struct kvm_cpu *cpu, const struct kvm_lapic_state *page, uint64_t *deadline,
                          struct error **err)
{
    *deadline = 0;
    return mode_of(get(page, REG_LVT_TIMER)) != TIMER_DEADLINE ||
           kvm_msr_read(cpu, MSR_DEADLINE, deadline, err);
}

/*
 * The timer as the kernel has it now. A one-shot that has ended since the processor left the guest is pending
 * in the kernel and nowhere else: it counts as about to end.
 */
static bool read_timer(struct kvm_cpu *cpu, const struct kvm_lapic_state *page, struct kvm_timer *t,
                       struct error **err)
{
    t->initial = get(page, REG_INITIAL);
    t->left = get(page, REG_CURRENT);
    if (!t->left && t->initial && cpu->counting)
        t->left = 1;
    return read_deadline(cpu, page, &t->deadline, err);
}

static void put_timer(struct kvm_lapic_state *page, const struct kvm_timer *t)
{
    bool periodic = mode_of(get(page, REG_LVT_TIMER)) == TIMER_PERIODIC;
    put(page, REG_INITIAL, t->left || periodic ? t->initial : 0);
    put(page, REG_CURRENT, t->left);
}

bool kvm_lapic_note_timer(struct kvm_cpu *cpu, struct error **err)
{
    struct kvm_lapic_state page;
    if (!read_page(cpu, &page, err))
        return false;
    cpu->counting = get(&page, REG_CURRENT) != 0;
    return true;
}

bool kvm_lapic_freeze(struct kvm_cpu *cpu, struct error **err)
{
    const struct kvm_timer off = {0};
    struct kvm_lapic_state page;
    if (!read_page(cpu, &page, err) || !read_timer(cpu, &page, &cpu->frozen_timer, err))
        return false;
    put(&page, REG_INITIAL, off.initial);
    put(&page, REG_CURRENT, off.left);
    return write_page(cpu, &page, err) &&
           (!cpu->frozen_timer.deadline || kvm_msr_write(cpu, MSR_DEADLINE, off.deadline, err));
}

bool kvm_lapic_thaw(struct kvm_cpu *cpu, struct error **err)
{
    const struct kvm_timer *t = &cpu->frozen_timer;
    struct kvm_lapic_state page;
    if (!read_page(cpu, &page, err))
        return false;
    put_timer(&page, t);
    return write_page(cpu, &page, err) &&
           (!t->deadline || kvm_msr_write(cpu, MSR_DEADLINE, t->deadline, err));
}

/* The three rows of 256 bits, one register of 32 in each 16 bytes. */
static void get_vectors(const struct kvm_lapic_state *page, unsigned reg, uint32_t out[8])
{
    for (unsigned i = 0; i < 8; i++)
        out[i] = get(page, reg + 16 * i);
}

static void put_vectors(struct kvm_lapic_state *page, unsigned reg, const uint32_t in[8])
{
    for (unsigned i = 0; i < 8; i++)
        put(page, reg + 16 * i, in[i]);
}

static void timer_out(struct x86_lapic *out, const struct kvm_timer *t, uint64_t now)
{
    unsigned shift = divide_shift(out->timer_divide);
    uint64_t gone = (uint64_t)(t->initial - MIN(t->left, t->initial)) << shift;
    out->timer_initial = t->initial;
    out->timer_start_ns = !t->left ? 0 : now > gone ? now - gone : 1;
    out->tsc_deadline = t->deadline;
}

bool kvm_lapic_get(struct kvm_cpu *cpu, struct x86_lapic *out, struct error **err)
{
    struct kvm_lapic_state page;
    struct kvm_timer timer = cpu->frozen_timer;
    if (!read_page(cpu, &page, err))
        return false;
    if (cpu->machine->time_runs && !read_timer(cpu, &page, &timer, err))
        return false;
    out->id = get(&page, REG_ID) >> 24;
    out->tpr = get(&page, REG_TPR);
    out->ldr = get(&page, REG_LDR);
    out->dfr = get(&page, REG_DFR);
    out->svr = get(&page, REG_SVR);
    out->esr = get(&page, REG_ESR);
    out->icr_low = get(&page, REG_ICR);
    out->icr_high = get(&page, REG_ICR_HIGH);
    out->lvt_timer = get(&page, REG_LVT_TIMER);
    out->lvt_thermal = get(&page, REG_LVT_THERMAL);
    out->lvt_pmc = get(&page, REG_LVT_PMC);
    out->lvt_lint0 = get(&page, REG_LVT_LINT0);
    out->lvt_lint1 = get(&page, REG_LVT_LINT1);
    out->lvt_error = get(&page, REG_LVT_ERROR);
    out->timer_divide = get(&page, REG_DIVIDE);
    get_vectors(&page, REG_ISR, out->isr);
    get_vectors(&page, REG_TMR, out->tmr);
    get_vectors(&page, REG_IRR, out->irr);
    timer_out(out, &timer, kvm_machine_ns(cpu->machine));
    return true;
}

/* Ticks to the end of the count that began at timer_start_ns, as it stood at `now`. */
static void timer_in(struct kvm_timer *t, const struct x86_lapic *in, uint64_t now)
{
    unsigned shift = divide_shift(in->timer_divide);
    uint64_t period = (uint64_t)in->timer_initial << shift;
    *t = (struct kvm_timer){.initial = in->timer_initial, .deadline = in->tsc_deadline};
    if (mode_of(in->lvt_timer) != TIMER_DEADLINE)
        t->deadline = 0;
    if (!in->timer_start_ns || !period)
        return;
    uint64_t gone = now > in->timer_start_ns ? now - in->timer_start_ns : 0;
    if (mode_of(in->lvt_timer) == TIMER_PERIODIC)
        gone %= period;
    t->left = gone >= period ? 1 : MAX((uint32_t)((period - gone) >> shift), 1u);
}

/* The kernel reports the EOI of level-triggered interrupts that are under way. */
static bool route_levels(struct kvm_machine *m, const struct x86_lapic *in, struct error **err)
{
    for (unsigned v = 0; v < KVM_VECTORS; v++) {
        bool under_way = (in->isr[v / 32] | in->irr[v / 32]) & in->tmr[v / 32] & (1u << v % 32);
        if (under_way && !kvm_route_level(m, v, err))
            return false;
    }
    return true;
}

static void fill(struct kvm_lapic_state *page, const struct kvm_cpu *cpu, const struct x86_lapic *in)
{
    put(page, REG_ID, cpu->index << 24);
    put(page, REG_TPR, in->tpr & 0xff);
    put(page, REG_LDR, in->ldr);
    put(page, REG_DFR, in->dfr);
    put(page, REG_SVR, in->svr);
    put(page, REG_ESR, in->esr);
    put(page, REG_ICR, in->icr_low);
    put(page, REG_ICR_HIGH, in->icr_high);
    put(page, REG_LVT_TIMER, in->lvt_timer);
    put(page, REG_LVT_THERMAL, in->lvt_thermal);
    put(page, REG_LVT_PMC, in->lvt_pmc);
    put(page, REG_LVT_LINT0, in->lvt_lint0);
    put(page, REG_LVT_LINT1, in->lvt_lint1);
    put(page, REG_LVT_ERROR, in->lvt_error);
    put(page, REG_DIVIDE, in->timer_divide);
    put_vectors(page, REG_ISR, in->isr);
    put_vectors(page, REG_TMR, in->tmr);
    put_vectors(page, REG_IRR, in->irr);
}

bool kvm_lapic_set(struct kvm_cpu *cpu, const struct x86_lapic *in, uint64_t clock_ns, struct error **err)
{
    struct kvm_lapic_state page;
    struct kvm_timer timer;
    timer_in(&timer, in, clock_ns);
    if (!route_levels(cpu->machine, in, err) || !read_page(cpu, &page, err))
        return false;
    fill(&page, cpu, in);
    cpu->frozen_timer = timer;
    cpu->counting = timer.left != 0;
    if (!cpu->machine->time_runs)
        timer = (struct kvm_timer){0};
    put_timer(&page, &timer);
    return write_page(cpu, &page, err) && (mode_of(in->lvt_timer) != TIMER_DEADLINE ||
                                           kvm_msr_write(cpu, MSR_DEADLINE, timer.deadline, err));
}
