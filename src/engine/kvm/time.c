/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest time. While machine time stands still each processor keeps its TSC and its APIC timer in struct
 * kvm_cpu; the kernel's own go on behind its back, with the timer switched off. When time goes on all TSCs
 * continue from one reading of the host's, so that they keep their distance from each other.
 */
#include <errno.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"

#define MSR_TSC 0x10u

/* What frequencies may differ by and count as the same: the two figures come from different measurements. */
#define TSC_TOLERANCE_PPM 250u

static uint64_t host_tsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}

uint64_t kvm_machine_ns(const struct kvm_machine *m)
{
    return m->config.host->now(m->config.host->opaque);
}

static struct kvm_device_attr offset_attr(uint64_t *offset)
{
    return (struct kvm_device_attr){
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};
}

/* The guest's TSC when the host's is `host`. */
static bool tsc_at(struct kvm_cpu *cpu, uint64_t host, uint64_t *tsc, struct error **err)
{
    if (!cpu->machine->tsc_offsets)
        return kvm_msr_read(cpu, MSR_TSC, tsc, err);
    uint64_t offset = 0;
    struct kvm_device_attr attr = offset_attr(&offset);
    if (!kvm_try(cpu->fd, KVM_GET_DEVICE_ATTR, "KVM_VCPU_TSC_OFFSET", (uintptr_t)&attr, err))
        return false;
    *tsc = host + offset;
    return true;
}

static bool set_tsc_at(struct kvm_cpu *cpu, uint64_t host, uint64_t tsc, struct error **err)
{
    if (!cpu->machine->tsc_offsets)
        return kvm_msr_write(cpu, MSR_TSC, tsc, err);
    uint64_t offset = tsc - host;
    struct kvm_device_attr attr = offset_attr(&offset);
    return kvm_try(cpu->fd, KVM_SET_DEVICE_ATTR, "KVM_VCPU_TSC_OFFSET", (uintptr_t)&attr, err);
}

bool kvm_tsc_get(struct kvm_cpu *cpu, uint64_t *tsc, struct error **err)
{
    if (cpu->machine->time_runs)
        return tsc_at(cpu, host_tsc(), tsc, err);
    *tsc = cpu->frozen_tsc;
    return true;
}

bool kvm_tsc_set(struct kvm_cpu *cpu, uint64_t tsc, struct error **err)
{
    cpu->frozen_tsc = tsc;
    return !cpu->machine->time_runs || set_tsc_at(cpu, host_tsc(), tsc, err);
}

/* The frequency that the model promises: the host's own, or a scaled one. */
static bool set_frequency(struct kvm_cpu *cpu, bool *scaled, struct error **err)
{
    int have = kvm_ioctl(cpu->fd, KVM_GET_TSC_KHZ, 0);
    if (have < 0) {
        error_set_errno(err, errno, "KVM refuses KVM_GET_TSC_KHZ");
        return false;
    }
    uint64_t khz = cpu->machine->config.cpu->tsc_hz / 1000, host = (uint64_t)have;
    uint64_t apart = khz > host ? khz - host : host - khz;
    *scaled = apart * 1000000 > khz * TSC_TOLERANCE_PPM;
    if (!*scaled || kvm_ioctl(cpu->fd, KVM_SET_TSC_KHZ, khz) >= 0)
        return true;
    error_set(err, errno,
              "the machine's TSC runs at %llu kHz, this host's at %llu kHz and KVM cannot scale it",
              (unsigned long long)khz, (unsigned long long)host);
    return false;
}

bool kvm_cpu_time_init(struct kvm_cpu *cpu, struct error **err)
{
    uint64_t none = 0;
    bool scaled = false;
    struct kvm_device_attr attr = offset_attr(&none);
    if (!set_frequency(cpu, &scaled, err))
        return false;
    cpu->machine->tsc_offsets = !scaled && kvm_ioctl(cpu->fd, KVM_HAS_DEVICE_ATTR, (uintptr_t)&attr) >= 0;
    return true;
}

static bool freeze(struct kvm_machine *m, struct error **err)
{
    uint64_t host = host_tsc();
    for (unsigned i = 0; i < m->config.cpu_count; i++) {
        struct kvm_cpu *cpu = m->cpu[i];
        if (cpu && (!tsc_at(cpu, host, &cpu->frozen_tsc, err) || !kvm_lapic_freeze(cpu, err)))
            return false;
    }
    return true;
}

static bool thaw(struct kvm_machine *m, struct error **err)
{
    struct kvm_clock_data clock = {.clock = kvm_machine_ns(m)};
    uint64_t host = host_tsc();
    for (unsigned i = 0; i < m->config.cpu_count; i++)
        if (m->cpu[i] && !set_tsc_at(m->cpu[i], host, m->cpu[i]->frozen_tsc, err))
            return false;
    for (unsigned i = 0; i < m->config.cpu_count; i++)
        if (m->cpu[i] && !kvm_lapic_thaw(m->cpu[i], err))
            return false;
    return KVM_TRY(m->fd, KVM_SET_CLOCK, &clock, err);
}

void kvm_run_time(struct engine *e, bool running)
{
    struct kvm_machine *m = kvm_machine_of(e);
    struct error *err = NULL;
    if (running == m->time_runs)
        return;
    pthread_mutex_lock(&m->lock);
    bool ok =
        kvm_lines_hold(m, &err) && (running ? thaw(m, &err) : freeze(m, &err)) && kvm_lines_release(m, &err);
    m->time_runs = running;
    pthread_mutex_unlock(&m->lock);
    if (!ok)
        kvm_fail(m, err);
}
