/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Conformance: interrupts from the host, their priorities, NMI, HLT, kicks. */
#include "conform.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define MSI          UINT64_C(0xfee00000)
#define MSI_TO(id)   (MSI | (uint64_t)(id) << 12)
#define MSI_LOGICAL  BIT(2)
#define MSI_LEVEL    0xc000u
#define LINT_EXTINT  0x700u
#define TIMER_MASKED 0x10000u
#define DEADLINE     0x40000u

#define KICK_LIMIT_NS (UINT64_C(3000) * 1000000) /* a loaded host, not a measurement */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#define END "; out %al, $0xf4; 9: jmp 9b"
CODE(sleep_once, "code32", "sti; hlt; mov $1, %al" END);
CODE(sleep_deaf, "code32", "cli; hlt; mov $1, %al" END);
CODE(take_all, "code32", "sti; nop; nop; mov $50000, %ecx; 1: loop 1b; cli; mov $1, %al" END);
CODE(spin, "code32", "1: jmp 1b");
CODE(spin_count, "code32", "1: incl 0x100000; jmp 1b");
CODE(stay_asleep, "code32", "sti; 1: hlt; jmp 1b");

static void send_fixed(struct conform *c)
{
    c->h->ops->msi(c->h->engine, MSI_TO(0), 0x41);
}

static void send_nmi(struct conform *c)
{
    c->h->ops->nmi(c->h->vcpu[0]);
}

static void raise_intr(struct conform *c)
{
    c->h->pic_vector = 0x33;
    c->h->ops->set_intr(c->h->engine, true);
}

static void nothing(struct conform *c)
{
}

/* HLT ends with the wake-up and the handler has run; or goes on when nothing of the kind may end it. */
static void sleep_until(struct conform *c, const struct x86_state *s, void (*wake)(struct conform *c),
                        const uint8_t *vectors)
{
    struct conform_later later;
    conform_set(c, 0, s);
    conform_later(&later, c, 30, wake);
    conform_run(c, *vectors ? HARNESS_EXITED : HARNESS_TIMEOUT, *vectors ? 20000 : 200);
    conform_later_end(&later);
    conform_log_is(c, vectors);
}

static void prepare_sleep(struct conform *c, struct x86_state *s)
{
    conform_prepare(c, 0, sleep_once, CODE_SIZE(sleep_once), s);
}

static void hlt_msi(struct conform *c)
{
    struct x86_state s;
    prepare_sleep(c, &s);
    sleep_until(c, &s, send_fixed, (const uint8_t *)"\x41");
}

static void hlt_nmi(struct conform *c)
{
    struct x86_state s;
    prepare_sleep(c, &s);
    sleep_until(c, &s, send_nmi, (const uint8_t *)"\x02");
}

static void hlt_pic(struct conform *c)
{
    struct x86_state s;
    prepare_sleep(c, &s);
    s.lapic.lvt_lint0 = LINT_EXTINT;
    sleep_until(c, &s, raise_intr, (const uint8_t *)"\x33");
}

static void hlt_pic_masked(struct conform *c)
{
    struct x86_state s;
    prepare_sleep(c, &s);
    sleep_until(c, &s, raise_intr, (const uint8_t *)"");
    c->h->ops->set_intr(c->h->engine, false);
}

static void hlt_pic_wire(struct conform *c)
{
    struct x86_state s;
    prepare_sleep(c, &s);
    s.lapic.lvt_lint0 = 0x55;
    sleep_until(c, &s, raise_intr, (const uint8_t *)"\x55");
    c->h->ops->set_intr(c->h->engine, false);
}

static void hlt_deaf(struct conform *c)
{
    struct x86_state s;
    conform_prepare(c, 0, sleep_deaf, CODE_SIZE(sleep_deaf), &s);
    sleep_until(c, &s, send_fixed, (const uint8_t *)"");
    struct x86_state after;
    c->h->ops->get_state(c->h->vcpu[0], &after);
    conform_equal(c, after.mp_state, MP_HALTED, "activity state");
    conform_equal(c, after.lapic.irr[2], 2, "the request is kept");
}

static void hlt_deaf_nmi(struct conform *c)
{
    struct x86_state s;
    conform_prepare(c, 0, sleep_deaf, CODE_SIZE(sleep_deaf), &s);
    sleep_until(c, &s, send_nmi, (const uint8_t *)"\x02");
}

static void hlt_one_shot(struct conform *c)
{
    struct x86_state s;
    prepare_sleep(c, &s);
    s.lapic.lvt_timer = 0x61;
    s.lapic.timer_divide = 0xb; /* by 1 */
    s.lapic.timer_initial = 20000000;
    s.lapic.timer_start_ns = s.clock_ns = c->h->host.now(c->h->host.opaque);
    uint64_t begin = now_ns();
    sleep_until(c, &s, nothing, (const uint8_t *)"\x61");
    if (now_ns() - begin < 20000000)
        conform_fail(c, "the timer was early");
}

static void hlt_deadline(struct conform *c)
{
    struct x86_state s;
    prepare_sleep(c, &s);
    s.lapic.lvt_timer = DEADLINE | 0x62;
    s.tsc = UINT64_C(1) << 40;
    s.lapic.tsc_deadline = s.tsc + c->h->cpu.tsc_hz / 50;
    s.clock_ns = c->h->host.now(c->h->host.opaque);
    sleep_until(c, &s, nothing, (const uint8_t *)"\x62");
}

/* A kick ends the run, not the sleep. */
static void hlt_kicked(struct conform *c)
{
    struct x86_state s;
    conform_prepare(c, 0, stay_asleep, CODE_SIZE(stay_asleep), &s);
    conform_set(c, 0, &s);
    for (unsigned i = 0; i < 20; i++) {
        struct vm_exit exit = {.kind = VM_EXIT_ERROR};
        c->h->ops->kick(c->h->vcpu[0]);
        c->h->ops->run(c->h->vcpu[0], &exit);
        conform_equal(c, exit.kind, VM_EXIT_INTERRUPTED, "exit");
    }
    conform_run(c, HARNESS_TIMEOUT, 50);
    c->h->ops->get_state(c->h->vcpu[0], &s);
    conform_equal(c, s.mp_state, MP_HALTED, "activity state");
    conform_equal(c, s.rip, AT_CODE + 2, "RIP is after HLT");
}

/* ---- priorities ---- */

static void prepare_all(struct conform *c, struct x86_state *s)
{
    const uint32_t eoi = 1;
    conform_prepare(c, 0, take_all, CODE_SIZE(take_all), s);
    harness_write(c->h, AT_EOI, &eoi, sizeof(eoi));
}

static void send_each(struct conform *c, const uint8_t *vectors)
{
    for (; *vectors; vectors++)
        c->h->ops->msi(c->h->engine, MSI_TO(0), *vectors);
}

static void priorities(struct conform *c)
{
    struct x86_state s;
    prepare_all(c, &s);
    conform_set(c, 0, &s);
    send_each(c, (const uint8_t *)"\x45\xe1\x80\x30\x81");
    conform_run(c, HARNESS_EXITED, 20000);
    conform_log_is(c, (const uint8_t *)"\xe1\x81\x80\x45\x30");
}

static void task_priority(struct conform *c)
{
    struct x86_state s;
    prepare_all(c, &s);
    s.lapic.tpr = 0x70;
    s.cr8 = 7;
    conform_set(c, 0, &s);
    send_each(c, (const uint8_t *)"\x60\x71\x80\x7f\x91");
    conform_run(c, HARNESS_EXITED, 20000);
    conform_log_is(c, (const uint8_t *)"\x91\x80");
}

static void in_service(struct conform *c)
{
    struct x86_state s;
    const uint32_t no = 0;
    prepare_all(c, &s);
    harness_write(c->h, AT_EOI, &no, sizeof(no));
    s.lapic.isr[2] = BIT(5); /* 0x45 is in service */
    conform_set(c, 0, &s);
    send_each(c, (const uint8_t *)"\x4f\x50\x30");
    conform_run(c, HARNESS_EXITED, 20000);
    conform_log_is(c, (const uint8_t *)"\x50");
}

static void nmi_first(struct conform *c)
{
    struct x86_state s;
    prepare_all(c, &s);
    s.lapic.tpr = 0;
    conform_set(c, 0, &s);
    send_each(c, (const uint8_t *)"\x45");
    send_nmi(c);
    conform_run(c, HARNESS_EXITED, 20000);
    conform_log_is(c, (const uint8_t *)"\x02\x45");
}

CODE(nmi_unblock, "code32",
     "mov $1000, %ecx; 1: loop 1b; cmpl $0, 0x5ff0; jne 8f; pushf; push $8; push $0x10040; iret; 8: mov $2, "
     "%al" END "; .org nmi_unblock + 0x40; nop; nop; mov $1, %al; out %al, $0xf4; 7: jmp 7b");

static void nmi_blocked(struct conform *c)
{
    struct x86_state s;
    conform_prepare(c, 0, nmi_unblock, CODE_SIZE(nmi_unblock), &s);
    s.nmi_blocked = true;
    conform_set(c, 0, &s);
    send_nmi(c);
    conform_run(c, HARNESS_EXITED, 20000);
    conform_equal(c, c->h->exit_value, 1, "blocked until IRET");
    conform_log_is(c, (const uint8_t *)"\x02");
}

/* The PIC has been told that its interrupt is taken: it is delivered whatever else there is. */
static void accepted_first(struct conform *c)
{
    struct x86_state s, before;
    prepare_all(c, &s);
    s.rflags |= FLAG_IF;
    s.interrupt_pending = true;
    s.interrupt_vector = 0x33;
    conform_set(c, 0, &s);
    c->h->ops->get_state(c->h->vcpu[0], &before);
    conform_equal(c, before.interrupt_pending, true, "carried in the state");
    conform_equal(c, before.interrupt_vector, 0x33, "its vector");
    send_each(c, (const uint8_t *)"\xf1");
    conform_run(c, HARNESS_EXITED, 20000);
    conform_log_is(c, (const uint8_t *)"\x33\xf1");
}

static void level_eoi(struct conform *c)
{
    struct x86_state s;
    prepare_all(c, &s);
    conform_set(c, 0, &s);
    c->h->ops->msi(c->h->engine, MSI_TO(0), MSI_LEVEL | 0x71);
    c->h->ops->msi(c->h->engine, MSI_TO(0), 0x82);
    conform_run(c, HARNESS_EXITED, 20000);
    conform_log_is(c, (const uint8_t *)"\x82\x71");
    conform_equal(c, c->h->eoi_count, 1, "EOIs told");
    conform_equal(c, c->h->eoi_vector, 0x71, "its vector");
}

/* ---- who gets a message ---- */

static const struct message {
    uint64_t addr;
    uint32_t data;
    uint8_t to; /* processors, a bit each */
} messages[] = {
    {MSI_TO(0), 0x40, 1},
    {MSI_TO(1), 0x41, 2},
    {MSI_TO(3), 0x42, 8},
    {MSI_TO(9), 0x43, 0},
    {MSI_TO(0xff), 0x44, 15},
    {MSI_TO(5) | MSI_LOGICAL, 0x45, 5}, /* flat: a bit each */
    {MSI_TO(8) | MSI_LOGICAL, 0x46, 8},
    {MSI_TO(0xff) | MSI_LOGICAL, 0x47, 15},
    {MSI_TO(0x10) | MSI_LOGICAL, 0x48, 0},
    {MSI_TO(2), 0x100 | 0x49, 4},    /* lowest priority, physical */
    {UINT64_C(0xfec00000), 0x4a, 0}, /* not a message */
    {UINT64_C(0x1fee00000), 0x4b, 0},
};

static bool requested(struct conform *c, unsigned cpu, uint8_t vector)
{
    struct x86_state s;
    c->h->ops->get_state(c->h->vcpu[cpu], &s);
    return s.lapic.irr[vector / 32] & 1u << vector % 32;
}

static void destinations(struct conform *c)
{
    for (unsigned i = 4; i-- > 0;) { /* preparing makes use of the first one */
        struct x86_state s;
        conform_prepare(c, i, spin, CODE_SIZE(spin), &s);
        s.lapic.ldr = 0x01000000u << i;
        conform_set(c, i, &s);
    }
    for (unsigned k = 0; k < ARRAY_SIZE(messages); k++) {
        const struct message *m = &messages[k];
        c->h->ops->msi(c->h->engine, m->addr, m->data);
        for (unsigned i = 0; i < 4; i++)
            if (requested(c, i, m->data & 0xff) != !!(m->to & 1u << i))
                conform_fail(c, "message 0x%llx/0x%x, processor %u", (unsigned long long)m->addr, m->data, i);
    }
}

/* Vectors below 16 are errors (SDM vol. 3 section 11.5.3). */
static void low_vector(struct conform *c)
{
    struct x86_state s;
    conform_prepare(c, 0, spin, CODE_SIZE(spin), &s);
    conform_set(c, 0, &s);
    c->h->ops->msi(c->h->engine, MSI_TO(0), 0x05);
    conform_equal(c, requested(c, 0, 0x05), false, "requested");
}

/* The one with the lowest task priority gets it, and nobody else. */
static void lowest_priority(struct conform *c)
{
    for (unsigned i = 4; i-- > 0;) { /* preparing makes use of the first one */
        struct x86_state s;
        conform_prepare(c, i, spin, CODE_SIZE(spin), &s);
        s.lapic.ldr = 0x01000000u << i;
        conform_set(c, i, &s);
    }
    c->h->ops->msi(c->h->engine, MSI_TO(0xf) | MSI_LOGICAL, 0x100 | 0x60);
    unsigned got = 0;
    for (unsigned i = 0; i < 4; i++)
        got += requested(c, i, 0x60);
    conform_equal(c, got, 1, "processors that got it");
}

/* ---- kicks ---- */

static _Atomic uint64_t kicked_at;

static void kick_it(struct conform *c)
{
    kicked_at = now_ns();
    c->h->ops->kick(c->h->vcpu[0]);
}

static void kick_running(struct conform *c)
{
    struct x86_state s;
    uint64_t worst = 0;
    conform_prepare(c, 0, spin_count, CODE_SIZE(spin_count), &s);
    conform_set(c, 0, &s);
    for (unsigned i = 0; i < 50; i++) {
        struct vm_exit exit = {.kind = VM_EXIT_ERROR};
        struct conform_later later;
        conform_later(&later, c, 2, kick_it);
        c->h->ops->run(c->h->vcpu[0], &exit);
        worst = MAX(worst, now_ns() - kicked_at);
        conform_later_end(&later);
        conform_equal(c, exit.kind, VM_EXIT_INTERRUPTED, "exit");
    }
    printf("# longest way from the kick to the end of run: %llu us\n", (unsigned long long)worst / 1000);
    if (worst > KICK_LIMIT_NS)
        conform_fail(c, "a kick took %llu ms", (unsigned long long)worst / 1000000);
}

static void kick_before(struct conform *c)
{
    struct x86_state s;
    uint64_t begin = now_ns();
    conform_prepare(c, 0, spin, CODE_SIZE(spin), &s);
    conform_set(c, 0, &s);
    for (unsigned i = 0; i < 100; i++) {
        struct vm_exit exit = {.kind = VM_EXIT_ERROR};
        kick_it(c);
        kick_it(c);
        c->h->ops->run(c->h->vcpu[0], &exit);
        conform_equal(c, exit.kind, VM_EXIT_INTERRUPTED, "exit");
    }
    if (now_ns() - begin > 10 * KICK_LIMIT_NS)
        conform_fail(c, "kicks before run took too long");
}

/* There is no gate, nor one for what follows. */
CODE(triple, "code32", "int $3");

static void triple_fault(struct conform *c)
{
    struct x86_state s;
    conform_prepare(c, 0, triple, CODE_SIZE(triple), &s);
    s.idtr.limit = 0;
    conform_set(c, 0, &s);
    conform_run(c, HARNESS_SHUTDOWN, 20000);
    c->h->ops->reset(c->h->vcpu[0]);
    conform_prepare(c, 0, sleep_once, CODE_SIZE(sleep_once), &s);
    sleep_until(c, &s, send_fixed, (const uint8_t *)"\x41");
}

const struct conform_case conform_irq_cases[] = {
    {"HLT ends with a message", 1, hlt_msi},
    {"HLT ends with an NMI", 1, hlt_nmi},
    {"HLT ends with the PIC's interrupt", 1, hlt_pic},
    {"HLT goes on when LINT0 is masked", 1, hlt_pic_masked},
    {"HLT ends with LINT0 as an ordinary interrupt", 1, hlt_pic_wire},
    {"HLT without IF keeps a message", 1, hlt_deaf},
    {"HLT without IF ends with an NMI", 1, hlt_deaf_nmi},
    {"HLT ends with the timer, one-shot", 1, hlt_one_shot},
    {"HLT ends with the timer, TSC deadline", 1, hlt_deadline},
    {"HLT outlives a kick", 1, hlt_kicked},
    {"interrupts by priority", 1, priorities},
    {"the task priority holds back", 1, task_priority},
    {"an interrupt in service holds back", 1, in_service},
    {"NMI before interrupts", 1, nmi_first},
    {"NMI is blocked until IRET", 1, nmi_blocked},
    {"an interrupt that was accepted comes first", 1, accepted_first},
    {"EOI is told of level-triggered ones only", 1, level_eoi},
    {"destinations of messages", 4, destinations},
    {"a message with a vector below 16 is lost", 1, low_vector},
    {"lowest priority goes to one", 4, lowest_priority},
    {"a kick ends a run", 1, kick_running},
    {"a kick before a run", 1, kick_before},
    {"a triple fault, and life after it", 1, triple_fault},
    {NULL, 0, NULL},
};
