/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether this host has a KVM that can be used. */
#include <errno.h>
#include <fcntl.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"
#include "os/sys.h"
#include "x86/cpuid.h"

struct capability {
    unsigned number;
    const char *name;
};

#define CAPABILITY(name)                                                                                     \
    {                                                                                                        \
        KVM_CAP_##name, #name                                                                                \
    }

/* All of them came with Linux 4.12 or earlier. */
static const struct capability needed[] = {
    CAPABILITY(USER_MEMORY), CAPABILITY(READONLY_MEM),   CAPABILITY(EXT_CPUID), CAPABILITY(SPLIT_IRQCHIP),
    CAPABILITY(SIGNAL_MSI),  CAPABILITY(IRQ_ROUTING),    CAPABILITY(MP_STATE),  CAPABILITY(VCPU_EVENTS),
    CAPABILITY(DEBUGREGS),   CAPABILITY(XSAVE),          CAPABILITY(XCRS),      CAPABILITY(ADJUST_CLOCK),
    CAPABILITY(GET_TSC_KHZ), CAPABILITY(IMMEDIATE_EXIT),
};

/*
 * Some kernels have a KVM that does without the processor's help. It runs only kernels that were changed for
 * it: an ordinary one dies at its first privileged instruction, long after a probe of interfaces was content.
 */
static int no_hardware(struct error **err)
{
    error_set(err, EOPNOTSUPP,
              KVM_DEVICE_PATH " has no hardware virtualisation below it (CPUID shows neither VMX nor SVM), "
                              "so it cannot run unmodified systems");
    return -1;
}

static int no_device(int code, struct error **err)
{
    if (code == ENOENT)
        error_set(err, code, "there is no " KVM_DEVICE_PATH);
    else if (!host_has_virtualization())
        return no_hardware(err); /* the device's own trouble is not worth mending */
    else if (code == ENXIO || code == ENODEV)
        error_set(err, code, KVM_DEVICE_PATH " has no driver behind it");
    else
        error_set_errno(err, code, "cannot open " KVM_DEVICE_PATH);
    return -1;
}

static bool usable(int fd, struct error **err)
{
    int version = kvm_ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version < 0) {
        error_set_errno(err, errno, KVM_DEVICE_PATH " does not answer");
        return false;
    }
    if (version != KVM_API_VERSION) {
        error_set(err, 0, "KVM has interface version %d, not %d", version, KVM_API_VERSION);
        return false;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
        if (kvm_ioctl(fd, KVM_CHECK_EXTENSION, needed[i].number) <= 0) {
            error_set(err, 0, "KVM has no %s; Linux 4.12 or newer is needed", needed[i].name);
            return false;
        }
    }
    return true;
}

int kvm_open_device(struct error **err)
{
    int fd = sys.open(KVM_DEVICE_PATH, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return no_device(errno, err);
    if (!host_has_virtualization())
        no_hardware(err);
    else if (usable(fd, err))
        return fd;
    sys.close(fd);
    return -1;
}
