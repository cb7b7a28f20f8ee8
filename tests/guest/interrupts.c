/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupts: when they are taken and when held off, priorities, the local APIC's timer, HLT, NMI; and
 * programs that must come to the same result with interrupts at every boundary.
 */
#include "guest.h"

#define SELF         0x40000u /* ICR: shorthand */
#define MSR_DEADLINE 0x6e0
#define TIMER_VECTOR 0x50

static volatile unsigned taken[256];
static volatile uint8_t order[64];
static volatile unsigned order_count;
static volatile uint64_t last_rip;

static bool count_interrupt(struct frame *f)
{
    taken[f->vector]++;
    last_rip = f->rip;
    if (order_count < ARRAY_SIZE(order))
        order[order_count++] = (uint8_t)f->vector;
    apic_write(APIC_EOI, 0);
    return true;
}

static void self_ipi(unsigned vector)
{
    apic_write(APIC_ICR, SELF | vector);
}

static void enable(void)
{
    __asm__ volatile("sti; nop; nop" : : : "memory");
}

static void disable(void)
{
    __asm__ volatile("cli" : : : "memory");
}

static void forget(void)
{
    for (unsigned i = 0; i < 256; i++)
        taken[i] = 0;
    order_count = 0;
}

/* --- when --- */

SNIPPET(sti_shadow, "", "sti; nop; int $0x81");
SNIPPET(sti_window, "", "sti; cli; nop; nop");
SNIPPET(mov_ss_shadow, "mov %ss, %eax; sti; mov %eax, %ss", "nop; nop");
SNIPPET(popf_window, "push $0x202", "popfq; nop; nop");
SNIPPET(iret_window,
        "mov %rsp, %rax; push $0x10; push %rax; push $0x202; push $8; lea 1f(%rip), %rbx; push %rbx",
        "iretq; nop; 1: nop; nop");
SNIPPET(cr8_window, "sti; nop; xor %eax, %eax", "mov %rax, %cr8; nop; nop");

static void run_with_pending(const uint8_t *code)
{
    forget();
    disable();
    self_ipi(0x60);
    struct context c = kernel_context(code);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
}

static void windows(void)
{
    run_with_pending(sti_shadow);
    expect_equal(taken[0x60], 1, "taken");
    expect_equal(last_rip, (uintptr_t)sti_shadow_at + 2, "RIP: after the instruction behind STI");
    verdict("STI holds interrupts off for one instruction");
    run_with_pending(sti_window);
    expect_equal(taken[0x60], 0, "taken");
    enable();
    disable();
    expect_equal(taken[0x60], 1, "taken later");
    verdict("STI and CLI in a row let none in");
    run_with_pending(popf_window);
    expect_equal(taken[0x60], 1, "taken");
    expect_equal(last_rip, (uintptr_t)popf_window_at + 1, "RIP");
    verdict("POPF opens at once");
    run_with_pending(iret_window);
    expect_equal(taken[0x60], 1, "taken");
    expect_equal(last_rip, (uintptr_t)iret_window_at + 3, "RIP");
    verdict("IRET opens at once");
    write_cr8(15);
    run_with_pending(cr8_window);
    expect_equal(taken[0x60], 1, "taken");
    expect_equal(last_rip, (uintptr_t)cr8_window_at + 4, "RIP");
    verdict("lowering CR8 opens at once");
}

/* --- priorities --- */

static bool nest(struct frame *f)
{
    if (f->vector == 0x70) {
        self_ipi(0x60); /* lower: waits */
        self_ipi(0x90); /* higher: now */
        __asm__ volatile("sti; nop; nop; cli" : : : "memory");
    }
    if (order_count < ARRAY_SIZE(order))
        order[order_count++] = (uint8_t)f->vector;
    apic_write(APIC_EOI, 0);
    return true;
}

static void priorities(void)
{
    forget();
    disable();
    self_ipi(0x61);
    self_ipi(0xa1);
    self_ipi(0x71);
    self_ipi(0xa2);
    expect_equal(apic_read(0x200 + 0x10 * 5) >> 1 & 3, 3, "IRR");
    enable();
    disable();
    expect_equal(order_count, 4, "taken");
    expect(order[0] == 0xa2 && order[1] == 0xa1 && order[2] == 0x71 && order[3] == 0x61, "order");
    verdict("the highest vector first");
    forget();
    write_cr8(7);
    self_ipi(0x7f);
    self_ipi(0x80);
    enable();
    expect_equal(taken[0x80], 1, "above the priority");
    expect_equal(taken[0x7f], 0, "not above the priority");
    expect_equal(apic_read(0x80), 0x70, "TPR");
    write_cr8(6);
    enable();
    disable();
    expect_equal(taken[0x7f], 1, "after lowering it");
    write_cr8(0);
    verdict("task priority and CR8");
    forget();
    for (unsigned v = 0x60; v < 0xa0; v += 0x10)
        handlers[v] = nest;
    /* Handlers on one IST stack cannot nest. */
    guest_idt[0x70].ist = guest_idt[0x90].ist = guest_idt[0x60].ist = 0;
    self_ipi(0x70);
    enable();
    disable();
    guest_idt[0x70].ist = guest_idt[0x90].ist = guest_idt[0x60].ist = 1;
    expect_equal(order_count, 3, "taken");
    expect(order[0] == 0x90 && order[1] == 0x70 && order[2] == 0x60, "order of ends");
    for (unsigned v = 0x60; v < 0xa0; v += 0x10)
        handlers[v] = count_interrupt;
    verdict("a higher one nests, a lower one waits for EOI");
    forget();
    for (unsigned i = 0; i < 5; i++)
        self_ipi(0x62);
    enable();
    disable();
    expect_equal(taken[0x62], 1, "taken");
    verdict("the same vector twice is one");
}

/* --- timer and HLT --- */

static void timer_start(uint32_t mode, uint32_t count)
{
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, mode | TIMER_VECTOR);
    apic_write(APIC_TIMER_INITIAL, count);
}

/* What had come due by then is taken, too. */
static void timer_stop(void)
{
    apic_write(APIC_LVT_TIMER, 0x10000);
    apic_write(APIC_TIMER_INITIAL, 0);
    enable();
    disable();
}

static void halt(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

static void timer(void)
{
    forget();
    timer_start(0, 20000000);
    uint32_t first = apic_read(APIC_TIMER_COUNT);
    if (first > 20000000 || !first)
        expect_equal(first, 20000000, "count at the start");
    halt();
    expect_equal(taken[TIMER_VECTOR], 1, "taken");
    expect_equal(apic_read(APIC_TIMER_COUNT), 0, "count at the end");
    verdict("HLT until the one-shot timer");
    forget();
    timer_start(0x20000, 200000);
    for (unsigned i = 0; i < 20; i++)
        halt();
    expect(taken[TIMER_VECTOR] >= 20, "taken"); /* more when the host was slow between HLT and CLI */
    timer_stop();
    verdict("HLT and the periodic timer");
    forget();
    timer_start(0, 300000);
    enable();
    for (uint64_t start = rdtsc(); !taken[TIMER_VECTOR] && rdtsc() - start < 20000000000;)
        barrier();
    disable();
    expect_equal(taken[TIMER_VECTOR], 1, "taken");
    verdict("the timer interrupts a loop that calls nothing");
    forget();
    timer_start(0x10000, 1000);
    enable();
    for (uint64_t start = rdtsc(); rdtsc() - start < 20000000;)
        pause();
    disable();
    expect_equal(taken[TIMER_VECTOR], 0, "taken");
    timer_stop();
    verdict("a masked timer is silent");
    if (!cpu_has(1, 2, 24)) {
        check(true, "TSC deadline: not offered");
        return;
    }
    forget();
    apic_write(APIC_LVT_TIMER, 0x40000 | TIMER_VECTOR);
    uint64_t due = rdtsc() + (UINT64_C(1) << 40);
    wrmsr(MSR_DEADLINE, due);
    expect_equal(rdmsr(MSR_DEADLINE), due, "MSR");
    due = rdtsc() + 3000000;
    wrmsr(MSR_DEADLINE, due);
    halt();
    expect_equal(taken[TIMER_VECTOR], 1, "taken");
    expect(rdtsc() >= due, "not early");
    expect_equal(rdmsr(MSR_DEADLINE), 0, "MSR afterwards");
    wrmsr(MSR_DEADLINE, 1);
    enable();
    disable();
    expect_equal(taken[TIMER_VECTOR], 2, "a deadline in the past");
    wrmsr(MSR_DEADLINE, rdtsc() + 3000000);
    wrmsr(MSR_DEADLINE, 0);
    for (uint64_t start = rdtsc(); rdtsc() - start < 10000000;)
        pause();
    enable();
    disable();
    expect_equal(taken[TIMER_VECTOR], 2, "disarmed");
    verdict("TSC deadline");
    timer_stop();
}

/* HLT with an interrupt that is already waiting, and HLT behind STI. */
static void halts(void)
{
    forget();
    for (unsigned i = 0; i < 100; i++) {
        self_ipi(0x63);
        halt();
    }
    expect_equal(taken[0x63], 100, "taken");
    verdict("STI; HLT with an interrupt waiting");
}

/* --- NMI --- */

static volatile unsigned nmis;

static bool count_nmi(struct frame *f)
{
    nmis++;
    if (nmis == 1)
        apic_write(APIC_ICR, 0x4400); /* another one: held off until IRET */
    expect(nmis < 3, "NMI within NMI");
    return true;
}

static void nmi(void)
{
    handlers[NMI] = count_nmi;
    disable();
    nmis = 0;
    apic_write(APIC_ICR + 0x10, apic_read(APIC_ID));
    apic_write(APIC_ICR, 0x4400);
    for (uint64_t start = rdtsc(); nmis < 2 && rdtsc() - start < 2000000000;)
        pause();
    expect_equal(nmis, 2, "taken");
    verdict("NMI with IF clear, one within another");
}

/* --- the same result whatever comes in between --- */

/*
 * A program of all kinds of instructions; RAX is its result, R15 how often it goes round. It uses the stack,
 * flags across many instructions, strings, SSE and x87.
 */
static unsigned turns = 3000, storm_runs = 200;

SNIPPET(program, "",
        "mov $0x12345, %ecx; mov %rdi, %rbp; xor %eax, %eax; fninit; fld1; fldpi\n"
        "1: imul $1103515245, %rcx, %rcx; add $12345, %rcx; adc %rcx, %rax; rol $7, %rax; push %rcx; pushfq; "
        "pop %rdx\n"
        "and $0x8d5, %edx; add %rdx, %rax; pop %rbx; xor %rbx, %rax; mov %ecx, %esi; and $0xff8, %esi\n"
        "mov (%rbp,%rsi), %r8; add %r8, %rax; mov %rax, (%rbp,%rsi); bt $5, %rax; setc %r9b; rcr $1, %rax\n"
        "test $0x80, %al; jz 2f; call 3f; 2: lea (%rax,%rcx,4), %rax; movq %rax, %xmm0; pshufd $0x4e, %xmm0, "
        "%xmm1\n"
        "paddq %xmm1, %xmm2; movq %xmm2, %r10; xor %r10, %rax; cld; lea (%rbp), %rdi; lea 512(%rbp), %rsi\n"
        "push %rcx; mov $13, %ecx; rep movsb; mov $5, %ecx; std; rep stosb; cld; pop %rcx\n"
        "cmp %rax, %rcx; cmovb %rcx, %r11; add %r11, %rax; mul %rbx; add %rdx, %rax; fadd %st(1); lock xadd "
        "%rax, 64(%rbp)\n"
        "dec %r15d; jnz 1b; fstpl (%rbp); xor (%rbp), %rax; jmp 4f\n"
        "3: not %rax; shld $3, %rcx, %rax; ret; 4: nop");

static uint64_t run_program(bool user, bool interrupts)
{
    for (unsigned i = 0; i < 0x2000; i++)
        scratch[i] = (uint8_t)(i * 37);
    struct context c = user ? user_context(program) : kernel_context(program);
    c.gpr[RDI] = (uintptr_t)scratch + (user ? USER_ALIAS : 0);
    c.gpr[R15] = turns;
    if (interrupts)
        c.rflags |= FL_IF;
    __asm__ volatile("pxor %%xmm2, %%xmm2" : :);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    return c.gpr[RAX];
}

static uint32_t storm_random = 12345;

static bool storm(struct frame *f)
{
    taken[f->vector]++;
    last_rip = f->rip;
    storm_random = storm_random * 1664525 + 1013904223;
    if (f->vector == TIMER_VECTOR)
        apic_write(APIC_TIMER_INITIAL, 200 + (storm_random >> 18));
    apic_write(APIC_EOI, 0);
    return true;
}

/* Where the storm struck: a bit for each byte of the program. */
static uint8_t struck[1024];

static bool storm_and_note(struct frame *f)
{
    uint64_t at = (f->rip & 0xffffffff) - (uintptr_t)program;
    if (at < sizeof(struck))
        struck[at] = 1;
    return storm(f);
}

static void storms(void)
{
    for (unsigned user = 0; user < 2; user++) {
        uint64_t want = run_program(user, false);
        expect_equal(run_program(user, false), want, "without interrupts");
        forget();
        handlers[TIMER_VECTOR] = storm_and_note;
        for (unsigned i = 0; i < storm_runs; i++) {
            timer_start(0, 300);
            expect_equal(run_program(user, true), want, "with a storm of timer interrupts");
        }
        timer_stop();
        handlers[TIMER_VECTOR] = count_interrupt;
        unsigned places = 0;
        for (unsigned i = 0; i < sizeof(struck); i++)
            places += struck[i];
        print("# interrupts ");
        print_hex(taken[TIMER_VECTOR]);
        print(", at places ");
        print_hex(places);
        print("\n");
        expect(taken[TIMER_VECTOR] > storm_runs / 2, "a storm");
        verdict(user ? "a program at CPL 3 in a storm" : "a program at CPL 0 in a storm");
    }
}

/* An interrupt at every boundary: after each single step one is let in. */
static unsigned steps;

static bool step_and_interrupt(struct frame *f)
{
    steps++;
    self_ipi(0x64);
    f->rflags |= FL_IF;
    return true;
}

static void every_boundary(void)
{
    for (unsigned user = 0; user < 2; user++) {
        uint64_t want = run_program(user, false);
        forget();
        steps = 0;
        handlers[DB] = step_and_interrupt;
        for (unsigned i = 0; i < 0x2000; i++)
            scratch[i] = (uint8_t)(i * 37);
        struct context c = user ? user_context(program) : kernel_context(program);
        c.gpr[RDI] = (uintptr_t)scratch + (user ? USER_ALIAS : 0);
        c.gpr[R15] = turns;
        c.rflags |= FL_TF | FL_IF;
        __asm__ volatile("pxor %%xmm2, %%xmm2" : :);
        guest_run(&c);
        handlers[DB] = NULL;
        expect_equal(c.vector, VECTOR_DONE, "vector");
        expect_equal(c.gpr[RAX], want, "result");
        expect_equal(taken[0x64], steps, "interrupts");
        expect(steps > turns * 50, "steps");
        verdict(user ? "an interrupt after every instruction at CPL 3"
                     : "an interrupt after every instruction at CPL 0");
    }
}

void guest_main(void)
{
    if (harness_limits() &
        LIMIT_TRANSLATOR) { /* every instruction's #DB and interrupt are worth five exits there */
        turns = 300;
        storm_runs = 50;
    }
    apic_enable();
    for (unsigned v = 0x40; v < 0x100; v++)
        if (v != VECTOR_DONE)
            handlers[v] = count_interrupt;
    windows();
    priorities();
    timer();
    halts();
    nmi();
    storms();
    every_boundary();
}
