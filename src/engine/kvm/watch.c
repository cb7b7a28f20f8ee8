/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an onlooker sees of engine `kvm`: how often KVM_RUN came back and why, and a line for each time. */
#include <stdio.h>

#include "base/util.h"
#include "engine/kvm/kvm.h"

static enum kvm_exit_class class_of(uint32_t reason)
{
    switch (reason) {
    case KVM_EXIT_IO:
        return KVM_CLASS_IO;
    case KVM_EXIT_MMIO:
        return KVM_CLASS_MMIO;
    case KVM_EXIT_IOAPIC_EOI:
        return KVM_CLASS_EOI;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return KVM_CLASS_INTERRUPT;
    default:
        return KVM_CLASS_OTHER;
    }
}

static void trace(const struct kvm_cpu *cpu, FILE *to)
{
    const struct kvm_run *run = cpu->run;
    fprintf(to, "%llu cpu%u ", __builtin_ia32_rdtsc(), cpu->index);
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        fprintf(to, "io %s %x size %u count %u\n", run->io.direction == KVM_EXIT_IO_OUT ? "out" : "in",
                run->io.port, run->io.size, run->io.count);
        break;
    case KVM_EXIT_MMIO:
        fprintf(to, "mmio %s %llx size %u\n", run->mmio.is_write ? "write" : "read",
                (unsigned long long)run->mmio.phys_addr, run->mmio.len);
        break;
    case KVM_EXIT_IOAPIC_EOI:
        fprintf(to, "eoi %u\n", run->eoi.vector);
        break;
    default:
        fprintf(to, "reason %u\n", run->exit_reason);
        break;
    }
}

void kvm_watch_exit(struct kvm_cpu *cpu)
{
    uint64_t *counter = &cpu->exits[class_of(cpu->run->exit_reason)];
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
    if (cpu->machine->config.trace)
        trace(cpu, cpu->machine->config.trace);
}

unsigned kvm_stats(struct vcpu *v, struct engine_stat *out, unsigned room)
{
    static const char *const names[KVM_CLASSES] = {[KVM_CLASS_IO] = "exits-io",
                                                   [KVM_CLASS_MMIO] = "exits-mmio",
                                                   [KVM_CLASS_EOI] = "exits-eoi",
                                                   [KVM_CLASS_INTERRUPT] = "exits-interrupt",
                                                   [KVM_CLASS_OTHER] = "exits-other"};
    const struct kvm_cpu *cpu = kvm_cpu_of(v);
    unsigned n = MIN(room, (unsigned)KVM_CLASSES);
    for (unsigned i = 0; i < n; i++)
        out[i] = (struct engine_stat){names[i], ENGINE_STAT_COUNT,
                                      __atomic_load_n(&cpu->exits[i], __ATOMIC_RELAXED)};
    return n;
}
