/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Doorbells: writes that the kernel answers itself, by signalling an eventfd. Length 0 stands for every
 * width; the kernel need not decode the instruction then.
 */
#include "base/error.h"
#include "engine/kvm/kvm.h"

static bool doorbell(struct kvm_machine *m, uint64_t gpa, int fd, uint32_t flags, struct error **err)
{
    struct kvm_ioeventfd bell = {.addr = gpa, .len = 0, .fd = fd, .flags = flags};
    return KVM_TRY(m->fd, KVM_IOEVENTFD, &bell, err);
}

bool kvm_doorbell_add(struct engine *e, uint64_t gpa, int fd, struct error **err)
{
    return doorbell(kvm_machine_of(e), gpa, fd, 0, err);
}

void kvm_doorbell_remove(struct engine *e, uint64_t gpa, int fd)
{
    struct kvm_machine *m = kvm_machine_of(e);
    struct error *err = NULL;
    if (!doorbell(m, gpa, fd, KVM_IOEVENTFD_FLAG_DEASSIGN, &err))
        kvm_fail(m, err);
}
