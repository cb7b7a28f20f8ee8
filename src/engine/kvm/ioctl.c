/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How this engine asks the kernel, and what it does about a refusal that nobody can be told of. */
#include <errno.h>
#include <stdio.h>

#include "base/error.h"
#include "engine/kvm/kvm.h"
#include "os/sys.h"

int kvm_ioctl(int fd, unsigned long request, uintptr_t arg)
{
    int result;
    do
        result = sys.ioctl(fd, request, arg);
    while (result < 0 && errno == EINTR && request != KVM_RUN);
    return result;
}

bool kvm_try(int fd, unsigned long request, const char *name, uintptr_t arg, struct error **err)
{
    if (kvm_ioctl(fd, request, arg) >= 0)
        return true;
    error_set_errno(err, errno, "KVM refuses %s", name);
    return false;
}

void kvm_fail(struct kvm_machine *m, struct error *err)
{
    pthread_mutex_lock(&m->failure_lock);
    if (!atomic_load(&m->failed)) {
        snprintf(m->why, sizeof(m->why), "%s", error_text(err));
        atomic_store(&m->failed, true);
    }
    pthread_mutex_unlock(&m->failure_lock);
    error_free(err);
    for (unsigned i = 0; i < m->config.cpu_count; i++)
        if (m->cpu[i])
            kvm_wake(m->cpu[i]);
}
