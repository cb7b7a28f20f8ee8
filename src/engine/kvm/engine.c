/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Engine `kvm` as the machine sees it: struct engine_ops. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"
#include "os/sys.h"
#include "x86/reset.h"

/* Pages for the kernel's own use on Intel processors without unrestricted guests: in no device's and no RAM's
 * way. */
#define IDENTITY_MAP_ADDR UINT64_C(0xfeffc000)
#define TSS_ADDR          UINT64_C(0xfeffd000)

static bool kvm_probe(struct error **err)
{
    int fd = kvm_open_device(err);
    if (fd < 0)
        return false;
    sys.close(fd);
    return true;
}

static void cpu_free(struct kvm_cpu *cpu)
{
    if (!cpu)
        return;
    kvm_ring_unmap(cpu);
    if (cpu->run)
        sys.munmap(cpu->run, cpu->machine->run_size);
    if (cpu->fd >= 0)
        sys.close(cpu->fd);
    free(cpu);
}

static void kvm_close(struct engine *engine)
{
    struct kvm_machine *m = kvm_machine_of(engine);
    for (unsigned i = 0; i < KVM_CPU_MAX; i++)
        cpu_free(m->cpu[i]);
    kvm_memory_free(m);
    if (m->fd >= 0)
        sys.close(m->fd);
    if (m->device_fd >= 0)
        sys.close(m->device_fd);
    pthread_mutex_destroy(&m->lock);
    pthread_mutex_destroy(&m->ring_lock);
    pthread_mutex_destroy(&m->failure_lock);
    free(m);
}

/* The machine in the kernel, with everything that must be there before its first processor. */
static bool make_machine(struct kvm_machine *m, struct error **err)
{
    uint64_t identity = IDENTITY_MAP_ADDR;
    m->device_fd = kvm_open_device(err);
    if (m->device_fd < 0 || !kvm_cpuid_check(m->device_fd, m->config.cpu, err))
        return false;
    m->fd = kvm_ioctl(m->device_fd, KVM_CREATE_VM, 0);
    if (m->fd < 0) {
        error_set_errno(err, errno, "KVM refuses KVM_CREATE_VM");
        return false;
    }
    int size = kvm_ioctl(m->device_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run)) {
        error_set(err, 0, "KVM says that a processor's shared page has %d bytes", size);
        return false;
    }
    m->run_size = (size_t)size;
    m->sregs2 = kvm_ioctl(m->fd, KVM_CHECK_EXTENSION, KVM_CAP_SREGS2) > 0;
    return KVM_TRY(m->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity, err) &&
           KVM_TRY(m->fd, KVM_SET_TSS_ADDR, TSS_ADDR, err) && kvm_irq_init(m, err) && kvm_memory_set(m, err);
}

static struct engine *kvm_open(const struct engine_config *config, struct error **err)
{
    struct kvm_machine *m = calloc(1, sizeof(*m));
    if (!m) {
        error_set_errno(err, ENOMEM, "cannot make engine kvm");
        return NULL;
    }
    m->config = *config;
    m->device_fd = m->fd = -1;
    pthread_mutex_init(&m->lock, NULL);
    pthread_mutex_init(&m->ring_lock, NULL);
    pthread_mutex_init(&m->failure_lock, NULL);
    if (make_machine(m, err))
        return (struct engine *)(void *)m;
    kvm_close((struct engine *)(void *)m);
    return NULL;
}

static bool make_cpu(struct kvm_cpu *cpu, struct error **err)
{
    struct kvm_machine *m = cpu->machine;
    struct x86_state state;
    cpu->fd = kvm_ioctl(m->fd, KVM_CREATE_VCPU, cpu->index);
    if (cpu->fd < 0) {
        error_set_errno(err, errno, "KVM refuses KVM_CREATE_VCPU");
        return false;
    }
    void *run = sys.mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
    if (run == MAP_FAILED) {
        error_set_errno(err, errno, "cannot map a processor's shared page");
        return false;
    }
    cpu->run = run;
    if (!kvm_ring_map(cpu, err) || !kvm_cpuid_set(cpu, err) || !kvm_cpu_time_init(cpu, err))
        return false;
    kvm_msr_probe(cpu);
    x86_state_reset(&state, m->config.cpu, cpu->index);
    state.clock_ns = kvm_machine_ns(m);
    return kvm_state_set(cpu, &state, err);
}

static struct vcpu *kvm_vcpu_new(struct engine *engine, unsigned index, struct error **err)
{
    struct kvm_machine *m = kvm_machine_of(engine);
    struct kvm_cpu *cpu = calloc(1, sizeof(*cpu));
    struct error *why = NULL;
    if (!cpu) {
        error_set_errno(err, ENOMEM, "cannot make vCPU %u", index);
        return NULL;
    }
    *cpu = (struct kvm_cpu){.machine = m, .index = index, .fd = -1};
    if (!make_cpu(cpu, &why)) {
        error_prefix(err, why, "cannot make vCPU %u", index);
        cpu_free(cpu);
        return NULL;
    }
    m->cpu[index] = cpu;
    return (struct vcpu *)(void *)cpu;
}

static void kvm_reset(struct vcpu *v)
{
    struct kvm_cpu *cpu = kvm_cpu_of(v);
    struct x86_state state;
    struct error *err = NULL;
    x86_state_reset(&state, cpu->machine->config.cpu, cpu->index);
    state.clock_ns = kvm_machine_ns(cpu->machine);
    if (!kvm_state_set(cpu, &state, &err))
        kvm_fail(cpu->machine, err);
}

static void kvm_get_state(struct vcpu *v, struct x86_state *out)
{
    struct kvm_cpu *cpu = kvm_cpu_of(v);
    struct error *err = NULL;
    if (!kvm_state_get(cpu, out, &err))
        kvm_fail(cpu->machine, err);
}

static bool kvm_set_state(struct vcpu *v, const struct x86_state *in, struct error **err)
{
    return kvm_state_set(kvm_cpu_of(v), in, err);
}

const struct engine_ops kvm_engine_ops = {
    .name = "kvm",
    .help = "the processor's own virtualisation, by way of Linux's /dev/kvm",
    .probe = kvm_probe,
    .cpu_fit = kvm_cpu_fit,
    .open = kvm_open,
    .close = kvm_close,
    .vcpu_new = kvm_vcpu_new,
    .run = kvm_run_loop,
    .kick = kvm_kick,
    .reset = kvm_reset,
    .run_time = kvm_run_time,
    .set_intr = kvm_set_intr,
    .nmi = kvm_nmi,
    .msi = kvm_msi,
    .doorbell_add = kvm_doorbell_add,
    .doorbell_remove = kvm_doorbell_remove,
    .line_set = kvm_line_set,
    .line_drop = kvm_line_drop,
    .stats = kvm_stats,
    .get_state = kvm_get_state,
    .set_state = kvm_set_state,
    .dirty_start = kvm_dirty_start,
    .dirty_stop = kvm_dirty_stop,
    .dirty_fetch = kvm_dirty_fetch,
};
