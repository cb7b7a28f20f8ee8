/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Engine kvm when the kernel refuses. A machine is made and put to all its uses, again and again; each time
 * another ioctl fails, in each of the ways of `enum way`. What follows must be an error
 * in words or nothing at all, never a hang and never a machine that goes wrong in silence.
 *
 *     kvm-fail-test [--calls N]      at most N of the ioctls, spread over all
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "conform.h"
#include "os/sys.h"

#define HANG_SECONDS 60

/* Accesses to a port and to a device, a doorbell, an interrupt, HLT, and writes to memory. */
CODE(busy, "code32",
     "mov $0x300, %edx; in %dx, %al; out %al, %dx; mov 0xd0000000, %eax; mov %eax, 0xd0000004; incl 0x100000;"
     "mov %ax, 0xd0000010;"
     "sti; hlt; cli; mov $1, %al; out %al, $0xf4; 9: jmp 9b");

/* How the kernel refuses. */
enum way {
    ONCE,      /* one ioctl fails */
    CLOSED,    /* and all after it, as when the device was closed */
    FORBIDDEN, /* or its permission lost */
    PULLED,    /* the descriptor itself has become another file's */
    WAYS
};
static const char *const way_names[] = {"once", "as closed", "as forbidden",
                                        "with its descriptor pulled away"};

static atomic_uint calls;          /* so far */
static unsigned fail_at;           /* this one fails; 0: none */
static enum way way;               /* so */
static unsigned long failed_first; /* its request */
static int (*real_ioctl)(int fd, unsigned long request, uintptr_t arg);

/* The file behind a descriptor goes away; nobody else gets its number. */
static void pull(int fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup3(null, fd, O_CLOEXEC) < 0)
        abort();
    close(null);
}

static int failing_ioctl(int fd, unsigned long request, uintptr_t arg)
{
    static const int codes[] = {[ONCE] = EIO, [CLOSED] = EBADF, [FORBIDDEN] = EACCES};
    unsigned n = ++calls;
    if (n == fail_at) {
        failed_first = request;
        if (way == PULLED)
            pull(fd);
    }
    if (!fail_at || n < fail_at || way == PULLED || (n > fail_at && way == ONCE))
        return real_ioctl(fd, request, arg);
    errno = codes[way];
    return -1;
}

/* What may fail without a word: what is asked of old kernels to find out what they have, and registers that
 * are looked for. */
static bool may_fail(unsigned long request)
{
    return request == KVM_CHECK_EXTENSION || request == KVM_ENABLE_CAP || request == KVM_HAS_DEVICE_ATTR ||
           request == KVM_GET_MSRS;
}

struct outcome {
    char error[256]; /* empty: none was reported */
    bool done;       /* the guest has ended as it should */
};

static bool note(struct outcome *o, struct error *err)
{
    snprintf(o->error, sizeof(o->error), "%s", error_text(err));
    error_free(err);
    return false;
}

static void send_message(struct conform *c)
{
    c->h->ops->msi(c->h->engine, UINT64_C(0xfee00000), 0xc041);
}

/* All that can be asked of a processor that is not running. */
static bool use_stopped(struct harness *h, struct outcome *o)
{
    struct x86_state s;
    struct error *err = NULL;
    static uint64_t bitmap[16 * MIB / GUEST_PAGE_SIZE / 64];
    h->ops->run_time(h->engine, false);
    h->ops->get_state(h->vcpu[0], &s);
    if (!h->ops->set_state(h->vcpu[0], &s, &err))
        return note(o, err);
    h->ops->run_time(h->engine, true);
    if (!h->ops->dirty_start(h->engine, &err))
        return note(o, err);
    h->ops->dirty_fetch(h->engine, 0, bitmap, ARRAY_SIZE(bitmap));
    h->ops->dirty_stop(h->engine);
    return true;
}

#define BELL (HARNESS_MMIO + 16)

/* Comes, goes and comes again, so that what goes wrong when it goes is told by the run that follows. */
static bool add_eventfds(struct harness *h, int bell, int line, struct outcome *o)
{
    struct error *err = NULL;
    for (unsigned i = 0; i < 2; i++) {
        if (!h->ops->doorbell_add(h->engine, BELL, bell, &err) ||
            !h->ops->line_set(h->engine, line, UINT64_C(0xfee00000), 0x51 + i, &err))
            return note(o, err);
        if (!i) {
            h->ops->doorbell_remove(h->engine, BELL, bell);
            h->ops->line_drop(h->engine, line);
        }
    }
    return true;
}

static void use_machine(struct conform *c, struct outcome *o)
{
    struct x86_state s;
    struct error *err = NULL;
    struct conform_later later;
    cleanup(fd) int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    cleanup(fd) int line = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    conform_prepare(c, 0, busy, CODE_SIZE(busy), &s);
    if (!c->h->ops->set_state(c->h->vcpu[0], &s, &err)) {
        note(o, err);
        return;
    }
    if (!add_eventfds(c->h, bell, line, o) || !use_stopped(c->h, o))
        return;
    conform_later(&later, c, 5, send_message);
    enum harness_result result = harness_run(c->h, 20000);
    conform_later_end(&later);
    eventfd_t rung = 0;
    o->done = result == HARNESS_EXITED && eventfd_read(bell, &rung) == 0 && rung == 1;
    snprintf(o->error, sizeof(o->error), "%.250s", c->h->why);
    if (result == HARNESS_TIMEOUT)
        o->error[0] = 0; /* the guest stands still and nobody says why */
}

static void run_all(struct outcome *o)
{
    const struct harness_options options = {.engine = "kvm", .memory = 16 * MIB};
    struct conform c = {.engine = "kvm"};
    memset(o, 0, sizeof(*o));
    atomic_store(&calls, 0);
    failed_first = 0;
    c.h = harness_open(&options);
    if (c.h) {
        use_machine(&c, o);
        harness_close(c.h);
    } else {
        snprintf(o->error, sizeof(o->error), "the engine does not open"); /* the harness has printed why */
    }
}

void conform_fail(struct conform *c, const char *fmt, ...)
{
    c->bad = true;
}

static bool acceptable(const struct outcome *o)
{
    return o->error[0] ? strlen(o->error) > 8 : o->done && may_fail(failed_first);
}

static unsigned run_failing(unsigned total, unsigned at_most)
{
    unsigned bad = 0, step = total > at_most ? total / at_most : 1;
    for (way = ONCE; way < WAYS; way++) {
        for (fail_at = 1; fail_at <= total; fail_at += step) {
            struct outcome o;
            alarm(HANG_SECONDS);
            run_all(&o);
            if (failed_first && !acceptable(&o)) {
                printf("# wrong: ioctl %u (request 0x%lx) fails %s: done %d, error '%s'\n", fail_at,
                       failed_first, way_names[way], o.done, o.error);
                bad++;
            }
        }
    }
    return bad;
}

int main(int argc, char **argv)
{
    unsigned at_most =
        argc == 3 && !strcmp(argv[1], "--calls") ? (unsigned)strtoul(argv[2], NULL, 10) : 100000;
    struct outcome o;
    real_ioctl = sys.ioctl;
    sys.ioctl = failing_ioctl;
    run_all(&o);
    unsigned total = atomic_load(&calls);
    if (!o.done || !total) {
        printf("# wrong: without a failure: error '%s'\nnot ok 1 - every refusal of the kernel is an error "
               "in words\n",
               o.error);
        return 1;
    }
    fflush(stdout);
    unsigned bad = run_failing(total, at_most ? at_most : 1);
    printf("# %u ioctls\n%s 1 - every refusal of the kernel is an error in words\n", total,
           bad ? "not ok" : "ok");
    return bad != 0;
}
