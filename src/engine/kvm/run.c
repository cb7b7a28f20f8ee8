/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The run loop of a processor. `immediate_exit` and a signal end KVM_RUN early: whoever wants the processor's
 * attention first says what for, then wakes it. The loop clears `immediate_exit` before it looks, so nothing
 * is missed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"

static bool stop_with(struct vm_exit *exit, enum vm_exit_kind kind, struct error *err)
{
    exit->kind = kind;
    snprintf(exit->text, sizeof(exit->text), "%s", error_text(err));
    error_free(err);
    return false;
}

static void port_access(const struct kvm_cpu *cpu)
{
    const struct engine_host *host = cpu->machine->config.host;
    const struct kvm_run *run = cpu->run;
    uint8_t *data = (uint8_t *)cpu->run + run->io.data_offset;
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        uint32_t value = 0;
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, run->io.size);
            host->port_write(host->opaque, run->io.port, run->io.size, value);
        } else {
            value = host->port_read(host->opaque, run->io.port, run->io.size);
            memcpy(data, &value, run->io.size);
        }
    }
}

/* The kernel hands over pieces of 1 to 8 bytes, among them such as 3 where an access crosses pages. */
static void memory_access(const struct kvm_cpu *cpu)
{
    const struct engine_host *host = cpu->machine->config.host;
    uint64_t gpa = cpu->run->mmio.phys_addr;
    uint8_t *data = cpu->run->mmio.data;
    for (unsigned left = MIN(cpu->run->mmio.len, 8u); left;) {
        unsigned n = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        uint64_t value = 0;
        if (cpu->run->mmio.is_write) {
            memcpy(&value, data, n);
            host->mmio_write(host->opaque, gpa, n, value);
        } else {
            value = host->mmio_read(host->opaque, gpa, n);
            memcpy(data, &value, n);
        }
        gpa += n;
        data += n;
        left -= n;
    }
}

/* What the kernel could not emulate, with the instruction's bytes where it gives them. */
static void describe_internal_error(const struct kvm_run *run, char *text, size_t size)
{
    int at = snprintf(text, size, "KVM gave up (internal error %u)", run->internal.suberror);
    if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION || run->emulation_failure.ndata < 3 ||
        !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
        return;
    unsigned n = MIN(run->emulation_failure.insn_size, 15);
    for (unsigned i = 0; i < n && (size_t)at + 4 < size; i++)
        at += snprintf(text + at, size - (size_t)at, "%s%02x", i ? " " : ": cannot emulate ",
                       run->emulation_failure.insn_bytes[i]);
}

/* An exit that ends `run`. */
static bool leave(const struct kvm_cpu *cpu, struct vm_exit *exit)
{
    const struct kvm_run *run = cpu->run;
    exit->kind = VM_EXIT_ERROR;
    switch (run->exit_reason) {
    case KVM_EXIT_SHUTDOWN:
        exit->kind = VM_EXIT_SHUTDOWN;
        snprintf(exit->text, sizeof(exit->text), "triple fault");
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        exit->kind = VM_EXIT_RESET;
        break;
    case KVM_EXIT_FAIL_ENTRY:
        snprintf(exit->text, sizeof(exit->text), "KVM cannot enter the guest (hardware reason 0x%llx)",
                 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        describe_internal_error(run, exit->text, sizeof(exit->text));
        break;
    default:
        snprintf(exit->text, sizeof(exit->text), "KVM left the guest for unknown reason %u",
                 run->exit_reason);
        break;
    }
    return false;
}

/* False: `run` ends, *exit says why. */
static bool handle_exit(struct kvm_cpu *cpu, struct vm_exit *exit)
{
    const struct engine_host *host = cpu->machine->config.host;
    struct error *err = NULL;
    switch (cpu->run->exit_reason) {
    case KVM_EXIT_IO:
        port_access(cpu);
        cpu->completing = true;
        return true;
    case KVM_EXIT_MMIO:
        memory_access(cpu);
        cpu->completing = true;
        return true;
    case KVM_EXIT_IOAPIC_EOI:
        host->eoi(host->opaque, cpu->run->eoi.vector);
        return true;
    case KVM_EXIT_DIRTY_RING_FULL:
        return kvm_ring_collect(cpu->machine, &err) || stop_with(exit, VM_EXIT_ERROR, err);
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
        return true;
    default:
        return leave(cpu, exit);
    }
}

/* One KVM_RUN and what follows from it. False: `run` ends. */
static bool step(struct kvm_cpu *cpu, struct vm_exit *exit)
{
    struct kvm_machine *m = cpu->machine;
    struct error *err = NULL;
    __atomic_store_n(&cpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST); /* before looking at what is wanted */
    if (atomic_load(&m->failed)) {
        exit->kind = VM_EXIT_ERROR;
        snprintf(exit->text, sizeof(exit->text), "%s", m->why);
        return false;
    }
    if (atomic_load(&cpu->stop)) {
        if (!cpu->completing) {
            atomic_store(&cpu->stop, false);
            exit->kind = VM_EXIT_INTERRUPTED;
            return false;
        }
        cpu->run->immediate_exit = 1; /* finishes the instruction and comes back */
    } else if (!kvm_inject(cpu, &err)) {
        return stop_with(exit, VM_EXIT_ERROR, err);
    }
    if (kvm_ioctl(cpu->fd, KVM_RUN, 0) >= 0) {
        cpu->completing = false;
        kvm_watch_exit(cpu);
        return handle_exit(cpu, exit);
    }
    if (errno == EINTR || errno == EAGAIN) {
        cpu->completing = false;
        return true;
    }
    error_set_errno(&err, errno, "KVM refuses KVM_RUN of vCPU %u", cpu->index);
    return stop_with(exit, VM_EXIT_ERROR, err);
}

static void unblock_wake_signal(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void kvm_run_loop(struct vcpu *v, struct vm_exit *exit)
{
    struct kvm_cpu *cpu = kvm_cpu_of(v);
    struct error *err = NULL;
    exit->text[0] = 0;
    unblock_wake_signal();
    atomic_store(&cpu->tid, gettid());
    while (step(cpu, exit))
        ;
    atomic_store(&cpu->tid, 0);
    if (exit->kind == VM_EXIT_INTERRUPTED && !kvm_lapic_note_timer(cpu, &err))
        stop_with(exit, VM_EXIT_ERROR, err);
}

void kvm_kick(struct vcpu *v)
{
    struct kvm_cpu *cpu = kvm_cpu_of(v);
    atomic_store(&cpu->stop, true);
    kvm_wake(cpu);
}
