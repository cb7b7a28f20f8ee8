/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest `native`: user code on processor 0 while others change what it runs on. */
#include "native.h"

#define SHARED (TEST_BASE + 0xa00000) /* struct shared, writable by the user */
#define SHOT   (TEST_BASE + 0xa10000)
#define CODE   (TEST_BASE + 0xa20000)

#define LIMIT 20000000000u /* TSC ticks that an answer may take */

static struct shared {
    volatile uint64_t round, answer, bad, stop;
} * shared;
static unsigned cpus;
static volatile uint64_t interrupts_taken;
static volatile bool over;
static uint8_t *page;
static uint64_t *shot_pages[2];

/* Processor 0 runs user code and the others `fn`, until both are done. */
static struct context user;
static void (*others)(void);

static void job(void *arg)
{
    (void)arg;
    if (this_processor() == 0) {
        guest_run(&user);
        over = true;
    } else if (this_processor() == 1) {
        others();
    }
}

static void run_with(uint64_t code, uint64_t rdi, void (*fn)(void))
{
    memset(shared, 0, sizeof(*shared));
    user = native_context(code);
    user.gpr[RDI] = rdi;
    user.gpr[RSI] = SHARED;
    others = fn;
    over = false;
    interrupts_taken = 0;
    on_all(job, NULL);
    expect_equal(user.vector, VECTOR_DONE, "how user code ended");
    expect_equal(shared->bad, 0, "what user code found wrong");
}

static bool take(struct frame *f)
{
    (void)f;
    interrupts_taken++;
    apic_write(APIC_EOI, 0);
    return true;
}

static bool shoot(struct frame *f)
{
    invlpg(SHOT);
    return take(f);
}

/* Sends an interrupt to processor 0 and waits until it is taken. False: it never is. */
static bool interrupt(unsigned vector)
{
    uint64_t before = interrupts_taken, start = rdtsc();
    apic_ipi(0, vector);
    while (interrupts_taken == before)
        if (over || rdtsc() - start > LIMIT)
            return false;
    return true;
}

/* --- TLB shootdown --- */

/* Reads (RDI) until the round is -1: not less than the round, never -1. */
USER(watch,
     "1: mov (%rsi), %rdx; cmp $-1, %rdx; je 2f; mov (%rdi), %rax; cmp %rdx, %rax; jb 3f; cmp $-1, %rax;"
     "jne 1b; 3: incq 16(%rsi); 2:");

static void remap(void)
{
    for (uint64_t i = 1; i <= 300 && !over; i++) {
        *shot_pages[i & 1] = i;
        map_page(SHOT, (uintptr_t)shot_pages[i & 1], PG_P | PG_W | PG_U);
        expect(interrupt(0x65), "the interrupt is taken");
        shared->round = i;
        *shot_pages[~i & 1] = UINT64_MAX; /* somebody else's now */
    }
    shared->round = UINT64_MAX;
}

/* --- code that another processor writes --- */

/* Calls CODE, which gives a number, until told to stop; it must be one of two. */
USER(call_flipping,
     "1: call *%rdi; cmp $0x11111111, %eax; je 2f; cmp $0x22222222, %eax; jne 3f; 2: incq 8(%rsi);"
     "cmpq $0, 24(%rsi); je 1b; jmp 4f; 3: incq 16(%rsi); 4:");

static void flip(void)
{
    for (uint32_t i = 0; i < 3000 && !over; i++) {
        *(volatile uint32_t *)(void *)(page + 1) = i & 1 ? 0x11111111 : 0x22222222;
        for (unsigned j = 0; j < 100; j++)
            pause();
    }
    shared->stop = 1;
}

/* Calls CODE once for each round, after an instruction that serialises: it gives the round. */
USER(call_rounds,
     "1: mov (%rsi), %rbp; cmp 8(%rsi), %rbp; je 1b; cmp $-1, %rbp; je 3f; xor %eax, %eax; cpuid;"
     "call *%rdi; cmp %ebp, %eax; je 2f; incq 16(%rsi); 2: mov %rbp, 8(%rsi); jmp 1b; 3:");

static void answer_of(uint64_t round)
{
    uint64_t start = rdtsc();
    shared->round = round;
    while (shared->answer != round && !over)
        if (rdtsc() - start > LIMIT) {
            expect(false, "an answer");
            return;
        }
}

static void write_rounds(void)
{
    for (uint32_t i = 1; i < 300 && !over; i++) {
        *(volatile uint32_t *)(void *)(page + 1) = i;
        answer_of(i);
    }
    shared->round = UINT64_MAX;
}

/* --- code that user code writes and another processor runs --- */

/* Writes the round to the code's number at RDI, then says so. */
USER(write_for_others,
     "1: mov (%rsi), %rbp; cmp 8(%rsi), %rbp; je 1b; cmp $-1, %rbp; je 2f; mov %ebp, (%rdi);"
     "mov %rbp, 8(%rsi); jmp 1b; 2:");

static void call_written(void)
{
    for (uint32_t i = 1; i < 300 && !over; i++) {
        uint32_t regs[4], got;
        answer_of(i);
        cpuid(0, 0, regs);
        __asm__ volatile("call *%1" : "=a"(got) : "r"(page) : "memory", "cc");
        expect_equal(got, i, "number that user code has written");
        if (i % 3 == 0) /* the kernel writes as well: the page is data again, and then code */
            *(volatile uint32_t *)(void *)(page + 1) = 0;
    }
    shared->round = UINT64_MAX;
}

/* --- interrupts against entering and leaving --- */

/* Leaves and comes back all the time, by an instruction that does not run natively. */
USER(in_and_out, "1: xor %eax, %eax; cpuid; mov $50, %ecx; 2: loop 2b; cmpq $0, 24(%rsi); je 1b");
USER(stay_in, "1: cmpq $0, 24(%rsi); je 1b");

static void interrupt_often(void)
{
    uint32_t state = 1;
    for (unsigned i = 0; i < 500 && !over; i++) {
        state = state * 1664525 + 1013904223;
        for (uint32_t j = state >> 22; j; j--)
            barrier();
        if (!interrupt(0x66)) {
            expect(false, "the interrupt is taken");
            break;
        }
    }
    shared->stop = 1;
}

static void set_function(uint32_t value)
{
    memcpy(page, (uint8_t[]){0xb8, 0, 0, 0, 0, 0xc3}, 6);
    *(volatile uint32_t *)(void *)(page + 1) = value;
}

void native_smp(void)
{
    cpus = start_processors();
    if (cpus < 2)
        return;
    handlers[0x65] = shoot;
    handlers[0x66] = take;
    shared = (struct shared *)(void *)new_page();
    shot_pages[0] = (uint64_t *)(void *)new_page();
    shot_pages[1] = (uint64_t *)(void *)new_page();
    page = new_page();
    map_page(SHARED, (uintptr_t)shared, PG_P | PG_W | PG_U);
    map_page(SHOT, (uintptr_t)shot_pages[0], PG_P | PG_W | PG_U);
    map_page(CODE, (uintptr_t)page, PG_P | PG_U);
    map_page(CODE + 0x1000, (uintptr_t)page, PG_P | PG_W | PG_U | PG_NX);
    run_with(place_code(watch, watch_next, NULL), SHOT, remap);
    verdict("TLB shootdown");
    set_function(0x11111111);
    run_with(place_code(call_flipping, call_flipping_next, NULL), CODE, flip);
    verdict("a constant in code that is written while it runs");
    run_with(place_code(call_rounds, call_rounds_next, NULL), CODE, write_rounds);
    verdict("code that another processor writes");
    run_with(place_code(write_for_others, write_for_others_next, NULL), CODE + 0x1001, call_written);
    verdict("code that user code writes for another processor");
    run_with(place_code(in_and_out, in_and_out_next, NULL), 0, interrupt_often);
    verdict("interrupts while user code leaves and comes back");
    run_with(place_code(stay_in, stay_in_next, NULL), 0, interrupt_often);
    verdict("interrupts while user code stays");
}
