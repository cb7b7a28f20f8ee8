/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The contract between the machine and what executes its processors. An engine is one folder under src/engine
 * with one struct engine_ops; the list is generated from src/engine/meson.build (engines[]).
 */
#ifndef CORE_ENGINE_H
#define CORE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/memory.h"
#include "x86/cpuid.h"
#include "x86/state.h"

struct error;
struct engine;
struct vcpu;

/*
 * What an engine calls. All of these come from a vCPU's thread in `run`, with no engine lock held and the
 * machine lock not held: the board takes it.
 */
struct engine_host {
    void *opaque;
    /* One access of 1, 2 or 4 bytes to a port. */
    uint32_t (*port_read)(void *opaque, uint16_t port, unsigned size);
    void (*port_write)(void *opaque, uint16_t port, unsigned size, uint32_t value);
    /* One access of 1, 2, 4 or 8 bytes that RAM does not answer. */
    uint64_t (*mmio_read)(void *opaque, uint64_t gpa, unsigned size);
    void (*mmio_write)(void *opaque, uint64_t gpa, unsigned size, uint64_t value);
    /* An EOI for a level-triggered vector was written to a local APIC (for the IOAPIC). */
    void (*eoi)(void *opaque, uint8_t vector);
    /* INTA cycle: the PIC's vector for an ExtINT; -1 when the request went away. */
    int (*pic_acknowledge)(void *opaque);
    /* Machine time in nanoseconds, and whether it stands still; any thread. */
    uint64_t (*now)(void *opaque);
};

/* For engines that can run user code on the processor itself without virtualising it. */
enum engine_native {
    ENGINE_NATIVE_AUTO, /* where it pays */
    ENGINE_NATIVE_OFF,
    ENGINE_NATIVE_ALWAYS, /* for tests: wherever it is possible */
};

struct engine_config {
    struct guest_memory *memory;
    const struct engine_host *host;
    unsigned cpu_count;            /* 1..32; APIC ids are 0..cpu_count-1 */
    const struct cpuid_model *cpu; /* what CPUID shows */
    enum engine_native native;
    const char *translations; /* folder in which the engine keeps what it has translated; NULL: nowhere */
    const char *jitdump;      /* folder where the engine names its translated code for perf; NULL: nowhere */
    FILE *trace;              /* gets a line for each exit from guest code; NULL: nobody looks */
};

enum vm_exit_kind {
    VM_EXIT_INTERRUPTED, /* engine->kick was called; nothing is wrong, run again when wanted */
    VM_EXIT_SHUTDOWN,    /* triple fault, or shutdown state; `text` says what led there */
    VM_EXIT_RESET,       /* the processor asked for a machine reset (INIT on the BSP is not one) */
    VM_EXIT_ERROR,       /* the engine cannot go on; `text` says why. The machine stops, the process lives. */
};

struct vm_exit {
    enum vm_exit_kind kind;
    char text[512];
};

enum engine_stat_unit { ENGINE_STAT_COUNT, ENGINE_STAT_CYCLES /* of the host's TSC */ };

/* A counter, which only grows. */
struct engine_stat {
    const char *name; /* static */
    enum engine_stat_unit unit;
    uint64_t value;
};
#define ENGINE_STATS_MAX 64

struct engine_ops {
    const char *name;
    const char *help;

    /* Usable here? False and *err with the reason. Cheap; no side effects. */
    bool (*probe)(struct error **err);

    /*
     * Takes out of a model what this engine cannot do here; false and *err when it cannot keep what the model
     * promises (cpuid_model_limit). A saved machine's model is not fitted: `open` says whether it can be
     * kept. NULL: every model that cpuid_model_build makes is kept.
     */
    bool (*cpu_fit)(struct cpuid_model *model, struct error **err);

    /* Makes an engine for a machine; config and what it points to outlive it. NULL and *err on failure, as
     * when the CPU model has a feature that the engine lacks. */
    struct engine *(*open)(const struct engine_config *config, struct error **err);
    /* All vCPU threads have returned from run for good. */
    void (*close)(struct engine *e);

    /* Number `index` in 0..cpu_count-1. Any thread, before run. Owned by the engine. */
    struct vcpu *(*vcpu_new)(struct engine *e, unsigned index, struct error **err);

    /*
     * Runs the vCPU on the calling thread (always the same one for a vCPU) until something in vm_exit_kind
     * happens. HLT and waiting for SIPI sleep inside.
     */
    void (*run)(struct vcpu *cpu, struct vm_exit *exit);

    /* Makes a run in progress, or the next one, return VM_EXIT_INTERRUPTED soon. Any thread;
     * async-signal-safe. */
    void (*kick)(struct vcpu *cpu);

    /* Power-on or RESET state (SDM vol. 3 table 10-1). vCPU not in run. */
    void (*reset)(struct vcpu *cpu);

    /*
     * Guest time goes on, or stands still as machine time does: TSCs and local APIC timers. A new engine's
     * stands still, so that states set before the first run begin at one moment. All vCPUs out of run.
     */
    void (*run_time)(struct engine *e, bool running);

    /* The level of the PIC's INTR output (LINT0 of the BSP). Any thread. */
    void (*set_intr)(struct engine *e, bool level);
    /* NMI to one vCPU. Any thread. */
    void (*nmi)(struct vcpu *cpu);
    /* Delivers an MSI. Any thread. */
    void (*msi)(struct engine *e, uint64_t addr, uint32_t data);

    /*
     * A doorbell: what the guest writes at `gpa`, where no RAM is, by an access of whatever width that begins
     * there, signals the eventfd `fd` and calls no mmio_write; the value is lost. False and *err: there is
     * none, and writes go on to mmio_write; so they do where these two are NULL. `remove` with the same two:
     * when it returns, what the guest wrote before has reached the eventfd. The fd is not owned, and open
     * from one to the other. One thread at a time; vCPUs may be running.
     */
    bool (*doorbell_add)(struct engine *e, uint64_t gpa, int fd, struct error **err);
    void (*doorbell_remove)(struct engine *e, uint64_t gpa, int fd);

    /*
     * A line: whoever signals the eventfd `fd` sends this MSI, without a call of the engine. Setting it again
     * changes the message. False and *err: nothing has changed; messages go by `msi`, and do so where these
     * two are NULL. `drop`: when it returns, what was signalled before has been delivered, and shows in
     * get_state. The fd is not owned, and open from the first `set` to `drop`. One thread at a time; signals
     * from any.
     */
    bool (*line_set)(struct engine *e, int fd, uint64_t addr, uint32_t data, struct error **err);
    void (*line_drop)(struct engine *e, int fd);

    /* The whole architectural state, incl. local APIC; vCPU not in run. set_state checks before it changes
     * anything. */
    void (*get_state)(struct vcpu *cpu, struct x86_state *out);
    bool (*set_state)(struct vcpu *cpu, const struct x86_state *in, struct error **err);

    /*
     * Dirty logging of RAM: `start` clears and turns on; `fetch` copies and clears the bitmap of `region`
     * (one bit a page, lowest first, guest writes and guest_mark_written alike). All vCPUs may be running.
     */
    bool (*dirty_start)(struct engine *e, struct error **err);
    void (*dirty_stop)(struct engine *e);
    void (*dirty_fetch)(struct engine *e, unsigned region, uint64_t *bitmap, size_t words);

    /* The vCPU's counters, always the same ones; how many. Any thread, the vCPU may be running. NULL: none.
     */
    unsigned (*stats)(struct vcpu *cpu, struct engine_stat *out, unsigned room);
};

/* Generated, ends with NULL, best first. */
extern const struct engine_ops *const engines[];

#endif
