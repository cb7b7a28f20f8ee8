/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Conformance: writes that signal an eventfd, and eventfds that send a message. An engine without them runs
 * the same cases by mmio_write and msi.
 */
#include "conform.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/util.h"

#define BELL     (HARNESS_MMIO + 0x3000) /* where RBX points */
#define MSI      UINT64_C(0xfee00000)
#define ALL      (MSI | 0xff000)
#define LOWEST   0x100u
#define LEVEL    0xc000u
#define RUN_MS   20000
#define DRAIN_MS 20000

#define END "; out %al, $0xf4; 9: jmp 9b"
CODE(ring, "code64",
     "movw $1, (%rbx); movw $2, (%rbx); movl $3, (%rbx); movb $4, (%rbx); movw $5, 4(%rbx); movw $6, "
     "2(%rbx)" END);
CODE(ring_often, "code64", "mov $1000, %ecx; 1: movw %cx, (%rbx); dec %ecx; jnz 1b" END);
CODE(sleep_for_line, "code32", "sti; hlt; mov $1, %al" END);
CODE(take_lines, "code32", "sti; nop; nop; mov $50000, %ecx; 1: loop 1b; cli; mov $1, %al" END);

static int new_eventfd(struct conform *c)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        conform_fail(c, "no eventfd");
    return fd;
}

/* How often it was signalled since the last time. */
static uint64_t signals(int fd)
{
    eventfd_t n = 0;
    return eventfd_read(fd, &n) == 0 ? n : 0;
}

/* ---- doorbells ---- */

static void run_ring(struct conform *c, const uint8_t *code, uint64_t size)
{
    struct x86_state s;
    harness_clear(c->h);
    conform_prepare_long(c, code, size, &s);
    s.gpr[R_RBX] = BELL;
    conform_set(c, 0, &s);
    conform_run(c, HARNESS_EXITED, RUN_MS);
}

/* Writes of each width count, those beside it go on to the machine. */
static void doorbell(struct conform *c)
{
    int fd = new_eventfd(c), other = new_eventfd(c);
    harness_doorbell_add(c->h, BELL, fd);
    harness_doorbell_add(c->h, BELL + 4, other);
    run_ring(c, ring, CODE_SIZE(ring));
    conform_equal(c, signals(fd), 4, "signals");
    conform_equal(c, signals(other), 1, "signals of the next one");
    conform_equal(c, c->h->access_count, 1, "writes that the machine saw");
    conform_equal(c, c->h->access[0].address, BELL + 2, "address of that");
    conform_equal(c, c->h->access[0].value, 6, "value of that");

    harness_doorbell_remove(c->h, BELL, fd);
    run_ring(c, ring, CODE_SIZE(ring));
    conform_equal(c, signals(fd), 0, "signals after it was removed");
    conform_equal(c, signals(other), 1, "signals of the one that stays");
    conform_equal(c, c->h->access_count, 5, "writes that the machine saw");
    harness_doorbell_remove(c->h, BELL + 4, other);
    close(fd);
    close(other);
}

/* Without one the same place is an ordinary register; with one it is one again for reads. */
CODE(read_bell, "code64", "movl $7, (%rbx); mov (%rbx), %eax" END);

static void doorbell_read(struct conform *c)
{
    int fd = new_eventfd(c);
    c->h->mmio[BELL - HARNESS_MMIO] = 0x5a;
    harness_doorbell_add(c->h, BELL, fd);
    run_ring(c, read_bell, CODE_SIZE(read_bell));
    conform_equal(c, c->h->exit_value & 0xff, 0x5a, "what is read is the machine's");
    conform_equal(c, signals(fd), 1, "signals");
    harness_doorbell_remove(c->h, BELL, fd);
    close(fd);
}

/* As when a BAR moves while the guest runs: each write is seen once, here or there. */
static int moved_fd;

static void move_bell(struct conform *c)
{
    for (unsigned i = 0; i < 20; i++) {
        harness_doorbell_remove(c->h, BELL, moved_fd);
        usleep(200);
        harness_doorbell_add(c->h, BELL, moved_fd);
        usleep(200);
    }
}

static void doorbell_moved(struct conform *c)
{
    struct conform_later later;
    moved_fd = new_eventfd(c);
    harness_doorbell_add(c->h, BELL, moved_fd);
    conform_later(&later, c, 0, move_bell);
    run_ring(c, ring_often, CODE_SIZE(ring_often));
    conform_later_end(&later);
    harness_doorbell_remove(c->h, BELL, moved_fd);
    conform_equal(c, signals(moved_fd) + c->h->access_count, 1000, "writes seen");
    close(moved_fd);
}

/* Whoever waits for it wakes up while the guest goes on. */
CODE(ring_and_spin, "code64", "movw $1, (%rbx); 1: cmpl $0, 0x100000; je 1b" END);

static int waited_fd;
static bool woke;

static void wait_for_bell(struct conform *c)
{
    struct pollfd pfd = {.fd = waited_fd, .events = POLLIN};
    const uint32_t go_on = 1;
    woke = poll(&pfd, 1, DRAIN_MS) == 1;
    harness_write(c->h, AT_DATA, &go_on, sizeof(go_on));
}

static void doorbell_wakes(struct conform *c)
{
    struct conform_later later;
    waited_fd = new_eventfd(c);
    woke = false;
    harness_doorbell_add(c->h, BELL, waited_fd);
    conform_later(&later, c, 0, wait_for_bell);
    run_ring(c, ring_and_spin, CODE_SIZE(ring_and_spin));
    conform_later_end(&later);
    conform_equal(c, woke, true, "woken while the guest runs");
    harness_doorbell_remove(c->h, BELL, waited_fd);
    close(waited_fd);
}

/* ---- lines ---- */

static bool requested(struct conform *c, unsigned cpu, uint8_t vector)
{
    struct x86_state s;
    c->h->ops->get_state(c->h->vcpu[cpu], &s);
    return s.lapic.irr[vector / 32] & 1u << vector % 32;
}

static int line_fd;

static void signal_line(struct conform *c)
{
    harness_line_signal(c->h, line_fd, 1);
}

static void line_wakes(struct conform *c)
{
    struct x86_state s;
    struct conform_later later;
    line_fd = new_eventfd(c);
    conform_prepare(c, 0, sleep_for_line, CODE_SIZE(sleep_for_line), &s);
    conform_set(c, 0, &s);
    harness_line_set(c->h, line_fd, MSI, 0x41);
    conform_later(&later, c, 30, signal_line);
    conform_run(c, HARNESS_EXITED, RUN_MS);
    conform_later_end(&later);
    conform_log_is(c, (const uint8_t *)"\x41");
    harness_line_drop(c->h, line_fd);
    close(line_fd);
}

/* The state that is read once a line is dropped has what was sent, by whatever way the engine sends it. */
static void line_in_state(struct conform *c)
{
    static const struct message {
        uint64_t addr;
        uint32_t data;
        bool to[2];
    } messages[] = {
        {MSI, 0x51, {true, false}},
        {MSI | 1 << 12, 0x62, {false, true}},
        {ALL, 0x73, {true, true}},
        {MSI | 1 << 12, LOWEST | 0x84, {false, true}},
    };
    struct x86_state s;
    for (unsigned i = 2; i-- > 0;) { /* preparing makes use of the first one */
        conform_prepare(c, i, sleep_for_line, CODE_SIZE(sleep_for_line), &s);
        conform_set(c, i, &s);
    }
    for (unsigned k = 0; k < ARRAY_SIZE(messages); k++) {
        const struct message *m = &messages[k];
        int fd = new_eventfd(c);
        harness_line_set(c->h, fd, m->addr, m->data);
        conform_equal(c, requested(c, 0, m->data & 0xff), false, "requested before it was signalled");
        harness_line_signal(c->h, fd, 3);
        harness_line_drop(c->h, fd);
        for (unsigned i = 0; i < 2; i++)
            conform_equal(c, requested(c, i, m->data & 0xff), m->to[i], "requested");
        close(fd);
    }
}

/* The message of a line changes; lines do not mix; messages whose EOI is told are beside them. */
static void lines(struct conform *c)
{
    struct x86_state s;
    const uint32_t eoi = 1;
    int fd[3];
    conform_prepare(c, 0, take_lines, CODE_SIZE(take_lines), &s);
    harness_write(c->h, AT_EOI, &eoi, sizeof(eoi));
    conform_set(c, 0, &s);
    for (unsigned i = 0; i < 3; i++) {
        fd[i] = new_eventfd(c);
        harness_line_set(c->h, fd[i], MSI, 0x41 + 0x10 * i);
    }
    harness_line_set(c->h, fd[1], MSI, 0x95);
    c->h->ops->msi(c->h->engine, MSI, LEVEL | 0x71);
    harness_line_set(c->h, fd[0], MSI, 0xa3);
    harness_line_drop(c->h, fd[2]);
    harness_line_signal(c->h, fd[0], 1);
    harness_line_signal(c->h, fd[1], 1);
    if (c->h->ops->line_set)
        conform_equal(c, signals(fd[0]) + signals(fd[1]), 0, "signals that nobody took");
    conform_run(c, HARNESS_EXITED, RUN_MS);
    conform_log_is(c, (const uint8_t *)"\xa3\x95\x71");
    conform_equal(c, c->h->eoi_count, 1, "EOIs told");
    conform_equal(c, c->h->eoi_vector, 0x71, "its vector");
    for (unsigned i = 0; i < 2; i++)
        harness_line_drop(c->h, fd[i]);
    for (unsigned i = 0; i < 3; i++)
        close(fd[i]);
}

/* Stopping and starting time changes local APICs, which must not cost a message. */
static void line_over_stops(struct conform *c)
{
    struct x86_state s;
    int fd = new_eventfd(c);
    conform_prepare(c, 0, sleep_for_line, CODE_SIZE(sleep_for_line), &s);
    conform_set(c, 0, &s);
    harness_line_set(c->h, fd, MSI, 0x41);
    harness_run_time(c->h, false);
    harness_line_signal(c->h, fd, 1);
    harness_run_time(c->h, true);
    harness_run_time(c->h, false);
    harness_line_set(c->h, fd, MSI, 0x52);
    harness_run_time(c->h, true);
    harness_line_signal(c->h, fd, 1);
    harness_line_drop(c->h, fd);
    conform_equal(c, requested(c, 0, 0x41), true, "sent while time stood still");
    conform_equal(c, requested(c, 0, 0x52), true, "sent afterwards");
    close(fd);
}

const struct conform_case conform_eventfd_cases[] = {
    {"a write to a doorbell signals its eventfd", 1, doorbell},
    {"a doorbell is read like any register", 1, doorbell_read},
    {"a doorbell that comes and goes while the guest writes", 1, doorbell_moved},
    {"a doorbell wakes who waits for it", 1, doorbell_wakes},
    {"HLT ends with a line's message", 1, line_wakes},
    {"a line's messages show in the state", 2, line_in_state},
    {"lines change their messages", 1, lines},
    {"a line's messages while time stops and goes on", 1, line_over_stops},
    {NULL, 0, NULL},
};
