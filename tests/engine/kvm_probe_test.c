/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which /dev/kvm engine kvm takes, on a host that the test makes up: the device, its interface, the
 * processor. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "engine/kvm/kvm.h"
#include "os/sys.h"

#define DEVICE 1000 /* no descriptor that is open */

static struct {
    int code;        /* of opening the device; 0: it opens */
    bool hardware;   /* the processor has VMX or SVM */
    int version;     /* of the interface */
    unsigned lacks;  /* capability; 0: none */
    unsigned opened; /* and not yet closed */
} host;

/* In place of the one in x86/cpuid.c. */
bool host_has_virtualization(void)
{
    return host.hardware;
}

static int fake_open(const char *path, int flags, mode_t mode)
{
    assert_string_equal(path, "/dev/kvm");
    errno = host.code;
    host.opened += !host.code;
    return host.code ? -1 : DEVICE;
}

static int fake_close(int fd)
{
    assert_int_equal(fd, DEVICE);
    host.opened--;
    return 0;
}

/* In place of the one in ioctl.c. */
int kvm_ioctl(int fd, unsigned long request, uintptr_t arg)
{
    assert_int_equal(fd, DEVICE);
    if (request == KVM_GET_API_VERSION)
        return host.version;
    assert_int_equal(request, KVM_CHECK_EXTENSION);
    return arg != host.lacks;
}

static int set_up(void **state)
{
    sys.open = fake_open;
    sys.close = fake_close;
    memset(&host, 0, sizeof(host));
    host.hardware = true;
    host.version = KVM_API_VERSION;
    return 0;
}

/* It is refused with that code, for a reason with those words. */
static void refused(int code, const char *words)
{
    struct error *err = NULL;
    assert_int_equal(kvm_open_device(&err), -1);
    assert_non_null(err);
    if (err->code != code || !strstr(error_text(err), words))
        fail_msg("code %d: %s", err->code, error_text(err));
    assert_int_equal(host.opened, 0);
    error_free(err);
}

static void usable(void **state)
{
    struct error *err = NULL;
    assert_int_equal(kvm_open_device(&err), DEVICE);
    assert_null(err);
    assert_int_equal(host.opened, 1);
}

static void no_device(void **state)
{
    host.code = ENOENT;
    refused(ENOENT, "there is no /dev/kvm");
    host.hardware = false; /* that changes nothing: there is nothing that one might expect to work */
    refused(ENOENT, "there is no /dev/kvm");
    host.hardware = true;
    host.code = EACCES;
    refused(EACCES, "Permission denied");
    host.code = ENODEV;
    refused(ENODEV, "no driver behind it");
}

/* A KVM that answers everything as it should, but runs changed kernels only. */
static void no_hardware(void **state)
{
    host.hardware = false;
    refused(EOPNOTSUPP, "/dev/kvm has no hardware virtualisation below it");
    refused(EOPNOTSUPP, "cannot run unmodified systems");
    host.code = EACCES; /* permission would not help */
    refused(EOPNOTSUPP, "/dev/kvm has no hardware virtualisation below it");
}

static void other_interface(void **state)
{
    host.version = 11;
    refused(0, "version 11");
    host.version = KVM_API_VERSION;
    host.lacks = KVM_CAP_SPLIT_IRQCHIP;
    refused(0, "KVM has no SPLIT_IRQCHIP");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(usable, set_up),
        cmocka_unit_test_setup(no_device, set_up),
        cmocka_unit_test_setup(no_hardware, set_up),
        cmocka_unit_test_setup(other_interface, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
