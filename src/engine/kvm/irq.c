/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupts. Messages go to the kernel's local APICs; the PIC's interrupt and NMIs are brought by the
 * processor's own thread.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"

#define MSI_MODE   0x700u /* fixed and lowest priority are 0 and 0x100: the two that have a vector */
#define MSI_LOWEST 0x100u

#define LAPIC_LINT0  0x350
#define LINT_MASKED  BIT(16)
#define LINT_DELIVER 0x700u
#define LINT_EXTINT  0x700u

/* The signal that ends KVM_RUN. */
#define WAKE_SIGNAL SIGRTMIN

static void on_wake(int number)
{
}

bool kvm_irq_init(struct kvm_machine *m, struct error **err)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {KVM_PINS}};
    struct sigaction action = {.sa_handler = on_wake};
    if (sigaction(WAKE_SIGNAL, &action, NULL) < 0) {
        error_set_errno(err, errno, "cannot handle signal %d", WAKE_SIGNAL);
        return false;
    }
    return kvm_try(m->fd, KVM_ENABLE_CAP, "KVM_CAP_SPLIT_IRQCHIP", (uintptr_t)&split, err);
}

void kvm_wake(struct kvm_cpu *cpu)
{
    __atomic_store_n(&cpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST); /* KVM_RUN that is yet to begin */
    int tid = atomic_load(&cpu->tid);
    if (tid)
        syscall(SYS_tgkill, getpid(), tid, WAKE_SIGNAL);
}

void kvm_set_intr(struct engine *e, bool level)
{
    struct kvm_machine *m = kvm_machine_of(e);
    bool before = atomic_exchange(&m->intr, level);
    if (!level || before || !m->cpu[0])
        return;
    atomic_store(&m->intr_rose, true);
    kvm_wake(m->cpu[0]);
}

void kvm_nmi(struct vcpu *v)
{
    struct kvm_cpu *cpu = kvm_cpu_of(v);
    atomic_store(&cpu->nmi, true);
    kvm_wake(cpu);
}

static bool send(struct kvm_machine *m, uint64_t addr, uint32_t data, struct error **err)
{
    struct kvm_msi msi = {.address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data};
    return KVM_TRY(m->fd, KVM_SIGNAL_MSI, &msi, err);
}

bool kvm_signal(struct kvm_machine *m, unsigned index, uint32_t data, struct error **err)
{
    return send(m, KVM_MSI_ADDRESS | index << KVM_MSI_DEST, data, err);
}

bool kvm_msi_valid(uint64_t addr, uint32_t data)
{
    if ((addr & ~UINT64_C(0xfffff)) != KVM_MSI_ADDRESS)
        return false;
    /* Vectors below 16 are no interrupts (SDM vol. 3 section 11.5.3); the kernel would request them. */
    return (data & MSI_MODE) > MSI_LOWEST || (data & 0xff) >= KVM_FIRST_VECTOR;
}

void kvm_msi(struct engine *e, uint64_t addr, uint32_t data)
{
    struct kvm_machine *m = kvm_machine_of(e);
    struct error *err = NULL;
    if (!kvm_msi_valid(addr, data))
        return;
    pthread_mutex_lock(&m->lock);
    bool ok = !(data & KVM_MSI_LEVEL) || kvm_route_level(m, data & 0xff, &err);
    if (ok)
        ok = send(m, addr, data, &err);
    pthread_mutex_unlock(&m->lock);
    if (!ok)
        kvm_fail(m, err);
}

/* LINT0 can be set up as an ordinary interrupt ("virtual wire"), which the kernel leaves to us. */
static bool wire_lint0(struct kvm_cpu *cpu, struct error **err)
{
    struct kvm_lapic_state page;
    if (!KVM_TRY(cpu->fd, KVM_GET_LAPIC, &page, err))
        return false;
    uint32_t lint0 = load_le32(page.regs + LAPIC_LINT0);
    if ((lint0 & LINT_MASKED) || (lint0 & LINT_DELIVER) == LINT_EXTINT)
        return true;
    return kvm_signal(cpu->machine, cpu->index, lint0 & (LINT_DELIVER | 0xff), err);
}

/*
 * The processor is between two instructions and takes interrupts: this one is made to be under delivery.
 * (What KVM_INTERRUPT queues would be missing in a state that is read before the processor has run again.)
 */
static bool deliver(struct kvm_cpu *cpu, uint8_t vector, struct error **err)
{
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp;
    if (!KVM_TRY(cpu->fd, KVM_GET_VCPU_EVENTS, &events, err))
        return false;
    events.flags = 0; /* leaves alone what others may change meanwhile */
    events.interrupt.injected = 1;
    events.interrupt.nr = vector;
    events.interrupt.soft = 0;
    if (!KVM_TRY(cpu->fd, KVM_SET_VCPU_EVENTS, &events, err) || !KVM_TRY(cpu->fd, KVM_GET_MP_STATE, &mp, err))
        return false;
    if (mp.mp_state != KVM_MP_STATE_HALTED)
        return true;
    mp.mp_state = KVM_MP_STATE_RUNNABLE;
    return KVM_TRY(cpu->fd, KVM_SET_MP_STATE, &mp, err);
}

static bool inject_intr(struct kvm_cpu *cpu, struct error **err)
{
    struct kvm_machine *m = cpu->machine;
    const struct engine_host *host = m->config.host;
    cpu->run->request_interrupt_window = 0;
    if (!atomic_load(&m->intr))
        return true;
    if (atomic_exchange(&m->intr_rose, false) && !wire_lint0(cpu, err))
        return false;
    if (!cpu->run->ready_for_interrupt_injection) {
        cpu->run->request_interrupt_window = 1;
        return true;
    }
    int vector = host->pic_acknowledge(host->opaque);
    if (vector < 0)
        return true;
    cpu->run->ready_for_interrupt_injection = 0;
    return deliver(cpu, (uint8_t)vector, err);
}

bool kvm_inject(struct kvm_cpu *cpu, struct error **err)
{
    if (atomic_exchange(&cpu->nmi, false) && !KVM_TRY(cpu->fd, KVM_NMI, 0, err))
        return false;
    return cpu->index != 0 || inject_intr(cpu, err);
}
