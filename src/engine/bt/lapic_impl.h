/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the local APIC, shared by lapic.c (registers, priorities, state), lapic_bus.c (messages between
 * APICs) and lapic_timer.c. Fields marked atomic are written or read by other threads; all others belong to
 * the vCPU's thread. All three files are gpr-only; before they call what may use vector registers they save
 * the guest's (lapic_leave_gpr).
 */
#ifndef BT_LAPIC_IMPL_H
#define BT_LAPIC_IMPL_H

#include "engine/bt/lapic.h"

/* Register offsets (SDM vol. 3 table 11-1); the x2APIC MSR is 0x800 + (offset >> 4). */
enum lapic_reg {
    REG_ID = 0x20,
    REG_VERSION = 0x30,
    REG_TPR = 0x80,
    REG_APR = 0x90,
    REG_PPR = 0xa0,
    REG_EOI = 0xb0,
    REG_RRD = 0xc0,
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
    REG_TIMER_INITIAL = 0x380,
    REG_TIMER_CURRENT = 0x390,
    REG_TIMER_DIVIDE = 0x3e0,
    REG_SELF_IPI = 0x3f0,
};

enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PMC, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
#define LVT_MASKED BIT(16)

#define APIC_BASE_BSP  BIT(8)
#define APIC_BASE_X2   BIT(10)
#define APIC_BASE_EN   BIT(11)
#define APIC_BASE_ADDR UINT64_C(0xfee00000)
#define SVR_ENABLE     BIT(8)

/* Error status bits. */
#define ESR_SEND_VECTOR    BIT(5)
#define ESR_RECEIVE_VECTOR BIT(6)
#define ESR_REGISTER       BIT(7)

enum lapic_delivery {
    DELIVER_FIXED,
    DELIVER_LOWEST,
    DELIVER_SMI,
    DELIVER_RESERVED,
    DELIVER_NMI,
    DELIVER_INIT,
    DELIVER_SIPI,
    DELIVER_EXTINT,
};

#define TSC_NEVER UINT64_MAX

struct bt_timers;

struct bt_lapic {
    struct bt_cpu *cpu;
    uint32_t id;
    _Atomic uint64_t base; /* IA32_APIC_BASE */
    _Atomic uint32_t tpr, ldr, dfr, svr;
    _Atomic uint32_t irr[8], tmr[8];
    uint32_t isr[8];
    uint32_t esr;                 /* as last latched by a write */
    _Atomic uint32_t esr_pending; /* errors since */
    uint32_t icr_low, icr_high;
    _Atomic uint32_t lvt[LVT_COUNT];
    uint32_t lvt_cmci; /* carried for other engines; not offered */

    _Atomic bool init_pending, sipi_pending, extint_pending;
    _Atomic uint8_t sipi_vector;

    /* Timer: see lapic_timer.c. */
    uint32_t timer_initial, timer_divide; /* registers */
    uint64_t timer_start_ns;              /* machine time when the count began; 0: not running */
    uint64_t tsc_deadline;                /* guest TSC; 0: disarmed */
    _Atomic uint64_t wake_tsc;            /* host TSC of the next expiry, or TSC_NEVER */
    struct bt_timers *timers;
};

static inline bool lapic_enabled(const struct bt_lapic *l)
{
    return l->base & APIC_BASE_EN;
}

static inline bool lapic_x2(const struct bt_lapic *l)
{
    return l->base & APIC_BASE_X2;
}

static inline bool lapic_software_enabled(const struct bt_lapic *l)
{
    return lapic_enabled(l) && (l->svr & SVR_ENABLE);
}

/* Before calling code that may use vector registers. vCPU thread. */
static inline void lapic_leave_gpr(struct bt_lapic *l)
{
    bt_vec_save(l->cpu);
}

/*
 * `local` below: the caller is the vCPU's own thread, possibly with guest vectors live. Otherwise it may be
 * any thread (and if it is a vCPU's, its vectors have been saved).
 */

/* ---- lapic.c ---- */

/* Tells the vCPU that there is something to look at. */
void lapic_notify(struct bt_lapic *l, bool local);
/* Records an error and raises the error interrupt. */
void lapic_error(struct bt_lapic *l, uint32_t esr_bit, bool local);
/* Takes a fixed interrupt. */
void lapic_accept(struct bt_lapic *l, uint8_t vector, bool level, bool local);
/* Raises the interrupt of a local vector table entry unless it is masked. */
void lapic_local_interrupt(struct bt_lapic *l, enum lapic_lvt which, bool local);

/* ---- lapic_bus.c ---- */

/* Carries out what was written to ICR; `dest` as the mode of the APIC has it. vCPU thread. */
void lapic_send_ipi(struct bt_lapic *l, uint32_t icr_low, uint32_t dest);
/* One message to one APIC. */
void lapic_post(struct bt_lapic *l, enum lapic_delivery mode, uint8_t vector, bool level, bool local);

/* ---- lapic_timer.c ---- */

bool lapic_timer_attach(struct bt_lapic *l);
void lapic_timer_detach(struct bt_lapic *l);
void lapic_timer_reset(struct bt_lapic *l);
/* Register accesses. vCPU thread. */
void lapic_timer_set_initial(struct bt_lapic *l, uint32_t value);
void lapic_timer_set_divide(struct bt_lapic *l, uint32_t value);
uint32_t lapic_timer_current(struct bt_lapic *l);
void lapic_timer_set_lvt(struct bt_lapic *l, uint32_t value);
uint64_t lapic_timer_deadline(struct bt_lapic *l);
void lapic_timer_set_deadline(struct bt_lapic *l, uint64_t guest_tsc);

#endif
