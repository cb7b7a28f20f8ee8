/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Engine `kvm`: the state of a machine and its processors, and what its files offer each other. Local APICs
 * are in the kernel; PIC, IOAPIC and PIT are the machine's own devices, as under every engine.
 *
 * Failures of what cannot return one (an interrupt, a saved state) are noted in the engine; every processor
 * then leaves `run` with the reason.
 */
#ifndef ENGINE_KVM_KVM_H
#define ENGINE_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"

struct error;

#define KVM_CPU_MAX     32
#define KVM_VECTORS     256
#define KVM_LINES       512 /* engine_ops.line_set: more than the vectors of a few devices */
#define KVM_CPUID_MAX   256
#define KVM_STATE_MSRS  64 /* room for all that make up a state */
#define KVM_DEVICE_PATH "/dev/kvm"

/*
 * The pins of the IOAPIC that the kernel looks at: one for each vector that an interrupt can have. (It keeps
 * their number in a byte, so one for each of all 256 would be none.)
 */
#define KVM_FIRST_VECTOR 16u
#define KVM_PINS         (KVM_VECTORS - KVM_FIRST_VECTOR)

/* An MSI in the address's and data's form (SDM vol. 3 section 11.11). */
#define KVM_MSI_ADDRESS UINT64_C(0xfee00000)
#define KVM_MSI_DEST    12 /* bits 12..19 of the address */
#define KVM_MSI_LEVEL   UINT32_C(0x8000)

/* An eventfd that sends a message. */
struct kvm_line {
    bool used;
    int fd;
    uint32_t data;
    uint64_t addr;
};

/* A local APIC's timer while machine time stands still. */
struct kvm_timer {
    uint32_t left;     /* ticks (after division) to the end of the count, 0: not counting */
    uint32_t initial;  /* as the register has it */
    uint64_t deadline; /* IA32_TSC_DEADLINE */
};

/* Why KVM_RUN came back, for who counts. */
enum kvm_exit_class {
    KVM_CLASS_IO,
    KVM_CLASS_MMIO,
    KVM_CLASS_EOI,
    KVM_CLASS_INTERRUPT,
    KVM_CLASS_OTHER,
    KVM_CLASSES
};

struct kvm_cpu {
    struct kvm_machine *machine;
    unsigned index;
    int fd;
    struct kvm_run *run; /* shared with the kernel */
    atomic_int tid;      /* of the thread in `run`, 0: none */
    atomic_bool stop;    /* `kick` */
    atomic_bool nmi;
    bool completing;             /* the kernel has yet to finish the instruction of the last exit */
    uint64_t exits[KVM_CLASSES]; /* written by the thread in `run`, read by any */

    struct kvm_dirty_gfn *ring; /* shared with the kernel; NULL: none */
    unsigned ring_next;         /* the first entry that was not taken */

    /* Time: see time.c. */
    uint64_t frozen_tsc;           /* guest TSC while time stands still */
    struct kvm_timer frozen_timer; /* the same for the APIC's timer */
    bool counting;                 /* when `run` was left the APIC's timer was counting */

    bool msr_known[KVM_STATE_MSRS]; /* msr.c: what this kernel has, by position in its table */
};

struct kvm_machine {
    struct engine_config config;
    int device_fd, fd;
    size_t run_size; /* of struct kvm_run's mapping */
    struct kvm_cpu *cpu[KVM_CPU_MAX];

    atomic_bool intr;      /* the PIC's output */
    atomic_bool intr_rose; /* it went up; vCPU 0 has yet to look whether LINT0 is a fixed interrupt */

    bool sregs2;                 /* the kernel hands out PAE paging's top entries, too */
    bool time_runs, tsc_offsets; /* the kernel lets TSC offsets be set */

    /* Guards what follows, and local APICs against messages while their state is read, changed and written.
     */
    pthread_mutex_t lock;
    bool level_route[KVM_VECTORS]; /* vectors whose EOI the kernel reports */
    struct kvm_line line[KVM_LINES];

    bool manual_protect, rings; /* how the kernel logs: memory.c, ring.c */
    pthread_mutex_t ring_lock;  /* the rings' reading ends; a leaf lock */
    _Atomic(uint64_t *) dirty;
    uint64_t *dirty_bits;

    pthread_mutex_t failure_lock; /* a leaf lock */
    atomic_bool failed;
    char why[256]; /* written once, before `failed` */
};

/* ---- ioctl.c ---- */

/* The result of an ioctl, -1 and errno; interrupted ones are repeated, but not KVM_RUN. */
int kvm_ioctl(int fd, unsigned long request, uintptr_t arg);
/* As a fallible function; the message has the name of the request. */
bool kvm_try(int fd, unsigned long request, const char *name, uintptr_t arg, struct error **err);
#define KVM_TRY(fd, request, arg, err) kvm_try((fd), (request), #request, (uintptr_t)(arg), (err))
/* Takes the error; the first one is what the processors report. Any thread. */
void kvm_fail(struct kvm_machine *m, struct error *err);

/* ---- probe.c ---- */

/* /dev/kvm, found usable; -1 and *err otherwise. */
int kvm_open_device(struct error **err);

/* ---- cpuid.c ---- */

bool kvm_cpu_fit(struct cpuid_model *model, struct error **err);
/* Fails when the model has a feature that the kernel does not offer. */
bool kvm_cpuid_check(int device_fd, const struct cpuid_model *model, struct error **err);
bool kvm_cpuid_set(struct kvm_cpu *cpu, struct error **err);

/* ---- memory.c ---- */

/* The memory slots, number i for region i. */
bool kvm_memory_set(struct kvm_machine *m, struct error **err);
void kvm_memory_free(struct kvm_machine *m);
bool kvm_dirty_start(struct engine *e, struct error **err);
void kvm_dirty_stop(struct engine *e);
void kvm_dirty_fetch(struct engine *e, unsigned region, uint64_t *bitmap, size_t words);

/* A page of region `slot` was written; nothing while the log is off. */
void kvm_dirty_mark(struct kvm_machine *m, unsigned slot, uint64_t page);

/* ---- ring.c ---- */

/* Before the first processor. */
void kvm_ring_init(struct kvm_machine *m);
bool kvm_ring_map(struct kvm_cpu *cpu, struct error **err);
void kvm_ring_unmap(struct kvm_cpu *cpu);
/* Empties all rings into the log. Any thread. */
bool kvm_ring_collect(struct kvm_machine *m, struct error **err);

/* ---- irq.c ---- */

bool kvm_irq_init(struct kvm_machine *m, struct error **err);
/* Ends KVM_RUN of a processor soon. Any thread, async-signal-safe. */
void kvm_wake(struct kvm_cpu *cpu);
void kvm_set_intr(struct engine *e, bool level);
void kvm_nmi(struct vcpu *v);
void kvm_msi(struct engine *e, uint64_t addr, uint32_t data);
/* Before KVM_RUN: NMI and the PIC's interrupt. The processor's thread. */
bool kvm_inject(struct kvm_cpu *cpu, struct error **err);
/* Is it a message that interrupts a processor? */
bool kvm_msi_valid(uint64_t addr, uint32_t data);
/* A message to the local APIC of one processor, whatever it is: delivery mode as in an MSI's data. */
bool kvm_signal(struct kvm_machine *m, unsigned index, uint32_t data, struct error **err);

/* ---- route.c ---- */

/* Has the kernel report the EOI of a vector. machine->lock held. */
bool kvm_route_level(struct kvm_machine *m, unsigned vector, struct error **err);
bool kvm_line_set(struct engine *e, int fd, uint64_t addr, uint32_t data, struct error **err);
void kvm_line_drop(struct engine *e, int fd);
/*
 * Between the two nothing reaches a local APIC by a line: what is signalled waits in the eventfd. For whoever
 * reads, changes and writes a local APIC. machine->lock held.
 */
bool kvm_lines_hold(struct kvm_machine *m, struct error **err);
bool kvm_lines_release(struct kvm_machine *m, struct error **err);

/* ---- watch.c ---- */

/* Counts what KVM_RUN came back for, and writes it to the trace. The processor's thread. */
void kvm_watch_exit(struct kvm_cpu *cpu);
unsigned kvm_stats(struct vcpu *v, struct engine_stat *out, unsigned room);

/* ---- doorbell.c ---- */

bool kvm_doorbell_add(struct engine *e, uint64_t gpa, int fd, struct error **err);
void kvm_doorbell_remove(struct engine *e, uint64_t gpa, int fd);

/* ---- lapic.c ---- */

bool kvm_lapic_get(struct kvm_cpu *cpu, struct x86_lapic *out, struct error **err);
bool kvm_lapic_set(struct kvm_cpu *cpu, const struct x86_lapic *in, uint64_t clock_ns, struct error **err);
/* Takes the timer out of the kernel's hands, and gives it back. machine->lock held. */
bool kvm_lapic_freeze(struct kvm_cpu *cpu, struct error **err);
bool kvm_lapic_thaw(struct kvm_cpu *cpu, struct error **err);
/* When `run` is left: notes whether the timer counts. */
bool kvm_lapic_note_timer(struct kvm_cpu *cpu, struct error **err);

/* ---- msr.c ---- */

void kvm_msr_probe(struct kvm_cpu *cpu);
bool kvm_msr_get(struct kvm_cpu *cpu, struct x86_state *out, struct error **err);
bool kvm_msr_set(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err);
bool kvm_msr_read(struct kvm_cpu *cpu, uint32_t msr, uint64_t *value, struct error **err);
bool kvm_msr_write(struct kvm_cpu *cpu, uint32_t msr, uint64_t value, struct error **err);

/* ---- time.c ---- */

bool kvm_time_init(struct kvm_machine *m, struct error **err);
bool kvm_cpu_time_init(struct kvm_cpu *cpu, struct error **err);
void kvm_run_time(struct engine *e, bool running);
bool kvm_tsc_get(struct kvm_cpu *cpu, uint64_t *tsc, struct error **err);
bool kvm_tsc_set(struct kvm_cpu *cpu, uint64_t tsc, struct error **err);
uint64_t kvm_machine_ns(const struct kvm_machine *m);

/* ---- state.c ---- */

bool kvm_state_get(struct kvm_cpu *cpu, struct x86_state *out, struct error **err);
bool kvm_state_set(struct kvm_cpu *cpu, const struct x86_state *in, struct error **err);

/* ---- run.c ---- */

void kvm_run_loop(struct vcpu *v, struct vm_exit *exit);
void kvm_kick(struct vcpu *v);

static inline struct kvm_machine *kvm_machine_of(struct engine *e)
{
    return (struct kvm_machine *)(void *)e;
}

static inline struct kvm_cpu *kvm_cpu_of(struct vcpu *v)
{
    return (struct kvm_cpu *)(void *)v;
}

#endif
