/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * User code in the shape that an engine may run without translating it: 64-bit, interrupts on, vectors all
 * enabled, code in pages that are not writable. Whatever the engine makes of it, the guest must not be able
 * to tell.
 */
#include "native.h"
#include "guest.h"

#define VA      (TEST_BASE + 0x400000) /* what tests access */
#define LARGE   UINT64_C(0x200000)
#define STUB_VA UINT64_C(0x6a5bc3d41000) /* where engine bt has pages of its own */
#define MEMORY  UINT64_C(0x1000000)      /* physical, not used by the guest's image, to 64 MiB */

enum { ERROR_P = 1, ERROR_W = 2, ERROR_U = 4, ERROR_ID = 16 };

USER(do_read, "mov (%rdi), %rax");
USER(do_write, "mov %rax, (%rdi)");
USER(do_modify, "addq $1, (%rdi)");
USER(do_execute, "jmp *%rdi");

bool have_avx;
static uint64_t next_code = TEST_BASE;

/* --- running --- */

uint64_t place_code(const uint8_t *code, const uint8_t *next, uint8_t **page)
{
    uint8_t *p = new_page();
    memcpy(p, code, (size_t)(next - code) + 2); /* with INT 81h */
    map_page(next_code, (uintptr_t)p, PG_P | PG_U);
    if (page)
        *page = p;
    next_code += 0x2000;
    return next_code - 0x2000;
}

struct context native_context(uint64_t code)
{
    static uint64_t stack;
    struct context c = user_context(NULL);
    if (!stack) {
        stack = TEST_BASE + 0x3ff000;
        map_page(stack, (uintptr_t)new_page(), PG_P | PG_W | PG_U | PG_NX);
    }
    c.rip = code;
    c.gpr[RSP] = stack + 0x800;
    c.rflags = 2 | FL_IF;
    return c;
}

struct context run_user(uint64_t code, uint64_t rdi, uint64_t rax)
{
    struct context c = native_context(code);
    c.gpr[RDI] = rdi;
    c.gpr[RAX] = rax;
    guest_run(&c);
    return c;
}

/* --- timer --- */

static volatile uint32_t ticks;

static bool note_tick(struct frame *f)
{
    (void)f;
    ticks++;
    apic_write(APIC_EOI, 0);
    return true;
}

static void timer_on(uint32_t count)
{
    apic_enable();
    handlers[0x70] = note_tick;
    ticks = 0;
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20070);
    apic_write(APIC_TIMER_INITIAL, count);
}

static void timer_off(void)
{
    apic_write(APIC_TIMER_INITIAL, 0);
    apic_write(APIC_LVT_TIMER, 0x10070);
}

/* --- interrupted --- */

/* Mixes all it has, RBP times; RDI: data. CF lives from round to round. */
#define MIX                                                                                                  \
    "mov $1, %eax; mov $2, %ebx; mov $3, %ecx; mov $4, %edx; mov $5, %esi; mov $6, %r8d; mov $7, %r9d;"      \
    "mov $8, %r10d; mov $9, %r11d; mov $10, %r12d; mov $11, %r13d; mov $12, %r14d; mov $13, %r15d;"          \
    "fninit; fldcw (%rdi); ldmxcsr 4(%rdi); fldpi; fldl2e; movdqu 16(%rdi), %xmm0; movdqu 32(%rdi), %xmm9;"  \
    "movsd 8(%rdi), %xmm3; movsd 8(%rdi), %xmm4; clc;"                                                       \
    "1: adc %r15, %rax; lea 1(%rax,%rbx), %rbx; rol $7, %rcx; adc %rbx, %rcx; lea 5(%rcx,%rdx), %rdx;"       \
    "adc %rdx, %rsi; adc %rsi, %r8; bswap %r8; adc %r8, %r9; adc %r9, %r10; rol $13, %r10; adc %r10, %r11;"  \
    "adc %r11, %r12; adc %fs:0, %r12; adc %r12, %r13; adc %gs:8, %r13; adc %r13, %r14; adc %r14, %r15;"      \
    "paddq %xmm0, %xmm9; pxor %xmm9, %xmm0; mulsd %xmm4, %xmm3; addsd %xmm4, %xmm3; fadd %st, %st(1); fxch;" \
    "fsqrt; dec %rbp; jnz 1b;"
USER(mix, MIX "fstpl 64(%rdi); fstpl 72(%rdi); stmxcsr 80(%rdi); fnstcw 84(%rdi); movdqu %xmm0, 96(%rdi);"
              "movdqu %xmm9, 112(%rdi); movsd %xmm3, 128(%rdi); fnstsw 86(%rdi)");
USER(mix_avx, "vmovdqu 16(%rdi), %ymm5; vmovdqu 24(%rdi), %ymm15; 2: vpaddd %ymm5, %ymm15, %ymm15; vxorps "
              "%ymm15, %ymm5, %ymm5;"
              "vpermilps $0x39, %ymm5, %ymm5; dec %rbp; jnz 2b; vmovups %ymm5, 64(%rdi);"
              "vmovups %ymm15, 96(%rdi)");
/* Nothing but integers, while all vectors are as they begin and MXCSR is not. */
USER(idle_avx,
     "vzeroall; fninit; ldmxcsr 4(%rdi); 1: dec %rbp; jnz 1b; stmxcsr 64(%rdi); vmovups %ymm7, 96(%rdi);"
     "fnstcw 68(%rdi); fnstsw 70(%rdi); fnstenv 128(%rdi)");

#define DATA_WORDS 24

/* With interrupts off, which no engine runs natively, and with many of them: the same must come out. */
static void interrupted(const char *name, uint64_t code, uint64_t rounds, uint32_t mxcsr, uint16_t fcw)
{
    uint64_t *data = (uint64_t *)(void *)new_page(), want[DATA_WORDS];
    struct context first = {0};
    map_page(VA, (uintptr_t)data, PG_P | PG_W | PG_U | PG_NX);
    /* On a busy host the timer may come too late. */
    for (unsigned run = 0; run < 100 && (run < 2 || !ticks); run++) {
        memset(data, 0, 4096);
        data[0] = fcw | (uint64_t)mxcsr << 32;
        for (unsigned i = 1; i < 7; i++)
            data[i] = UINT64_C(0x3ff123456789abcd) + i * UINT64_C(0x0001111111111111);
        data[200] = 0x1234567;
        data[300] = 0x89abcdef;
        wrmsr(0xc0000100, VA + 1600);
        wrmsr(0xc0000101, VA + 2392);
        struct context c = native_context(code);
        c.gpr[RDI] = VA;
        c.gpr[RBP] = rounds;
        if (!run)
            c.rflags &= ~(uint64_t)FL_IF;
        else
            timer_on(100000);
        guest_run(&c);
        if (run)
            timer_off();
        expect_equal(c.vector, VECTOR_DONE, "vector");
        if (!run) {
            first = c;
            memcpy(want, data, sizeof(want));
            continue;
        }
        for (unsigned i = 0; i < 16; i++)
            expect_equal(c.gpr[i], first.gpr[i], "register");
        expect_equal(c.rflags, first.rflags | FL_IF, "flags");
        for (unsigned i = 0; i < DATA_WORDS; i++)
            expect_equal(data[i], want[i], "vectors as they were stored");
        expect_equal(rdmsr(0xc0000100), VA + 1600, "FS base");
        expect_equal(rdmsr(0xc0000101), VA + 2392, "GS base");
    }
    expect(ticks, "an interrupt");
    verdict(name);
}

static void interrupts(void)
{
    uint64_t code = place_code(mix, mix_next, NULL);
    interrupted("all registers over interrupts", code, 400000, 0x1f80, 0x37f);
    interrupted("rounding down, flush to zero, double precision", code, 400000, 0xbf80, 0x67f);
    if (!have_avx) {
        skip("YMM registers over interrupts", "no AVX");
        return;
    }
    interrupted("YMM registers over interrupts", place_code(mix_avx, mix_avx_next, NULL), 4000000, 0x1f80,
                0x37f);
    code = place_code(idle_avx, idle_avx_next, NULL);
    interrupted("vectors in their first state over interrupts", code, 20000000, 0x1f80, 0x37f);
    interrupted("the same with another MXCSR", code, 20000000, 0x7fc0, 0x37f);
}

/* --- page faults --- */

static uint64_t accesses[4];
enum { READ, WRITE, MODIFY, EXECUTE };

/* The page fault's error code, or UINT64_MAX. */
static uint64_t access_to(unsigned kind, uint64_t va)
{
    static const uint8_t *const start[] = {do_read, do_write, do_modify, do_execute};
    static const uint8_t *const next[] = {do_read_next, do_write_next, do_modify_next, do_execute_next};
    if (!accesses[kind])
        accesses[kind] = place_code(start[kind], next[kind], NULL);
    struct context c = run_user(accesses[kind], va, 0x5a5a);
    if (c.vector == VECTOR_DONE)
        return UINT64_MAX;
    expect_equal(c.vector, PF, "vector");
    expect_equal(c.cr2, va, "CR2");
    expect_equal(c.rip, kind == EXECUTE ? va : accesses[kind], "RIP");
    expect_equal(c.gpr[RAX], 0x5a5a, "RAX");
    return c.error;
}

static void faults(void)
{
    uint8_t *page = new_page();
    page[0] = 0xcd;
    page[1] = VECTOR_DONE;
    for (unsigned kind = READ; kind <= EXECUTE; kind++)
        for (unsigned bits = 0; bits < 16; bits++) {
            uint64_t flags = (bits & 7) | (bits & 8 ? PG_NX : 0);
            uint64_t error =
                ERROR_U | (kind == WRITE || kind == MODIFY ? ERROR_W : 0) | (kind == EXECUTE ? ERROR_ID : 0);
            bool bad = !(flags & PG_U) || ((error & ERROR_W) && !(flags & PG_W)) ||
                       (kind == EXECUTE && (flags & PG_NX));
            uint64_t want = !(flags & PG_P) ? error : bad ? error | ERROR_P : UINT64_MAX;
            map_page(VA, (uintptr_t)page, flags);
            uint64_t va = VA + (kind == EXECUTE ? 0 : 64);
            expect_equal(access_to(kind, va), want, "error code");
            expect_equal(access_to(kind, va), want, "error code again");
        }
    verdict("page faults by kind of access and rights");
    map_page(VA, (uintptr_t)page, PG_P | PG_W | PG_U);
    map_page(VA + 0x1000, 0, 0);
    expect_equal(access_to(READ, VA + 0xff8), UINT64_MAX, "before the end");
    struct context c = run_user(accesses[READ], VA + 0xffc, 0);
    expect_equal(c.vector, PF, "vector");
    expect_equal(c.cr2, VA + 0x1000, "CR2");
    verdict("an access that goes on in a page that is not there");
}

/* --- changes of page tables --- */

static void flush_by(unsigned how, uint64_t va)
{
    struct {
        uint64_t pcid, address;
    } descriptor = {0, va};
    if (how == 0)
        invlpg(va);
    else if (how == 1)
        write_cr3(read_cr3());
    else
        __asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"((uint64_t)how - 2) : "memory");
}

static void remapped(void)
{
    uint64_t *pages[2] = {(uint64_t *)(void *)new_page(), (uint64_t *)(void *)new_page()};
    unsigned ways = cpu_has(7, 1, 10) ? 6 : 2;
    uint64_t read = accesses[READ], write = accesses[WRITE];
    for (unsigned how = 0; how < ways; how++)
        for (unsigned i = 0; i < 6; i++) {
            uint64_t *page = pages[i & 1], *other = pages[~i & 1];
            uint64_t *pte = page_entry(VA);
            *pte = (uintptr_t)page | PG_P | PG_W | PG_U;
            flush_by(how, VA);
            page[0] = i;
            other[0] = 99;
            expect_equal(run_user(read, VA, 7).gpr[RAX], i, "mapped page");
            expect_equal(*pte & (PG_A | PG_D), PG_A, "A, not D, after reading");
            run_user(write, VA, 1000 + i);
            expect_equal(page[0], 1000 + i, "written");
            expect_equal(other[0], 99, "the page of before");
            expect_equal(*pte & (PG_A | PG_D), PG_A | PG_D, "A and D after writing");
            *pte &= ~(uint64_t)(PG_A | PG_D);
            flush_by(how, VA);
            expect_equal(run_user(read, VA, 7).gpr[RAX], 1000 + i, "read");
            expect_equal(*pte & (PG_A | PG_D), PG_A, "A again");
            *pte &= ~(uint64_t)PG_D;
            flush_by(how, VA);
            run_user(write, VA, i);
            expect_equal(*pte & (PG_A | PG_D), PG_A | PG_D, "D again");
            *pte &= ~(uint64_t)PG_D;
            flush_by(how, VA);
            run_user(write, VA, i);
            expect_equal(*pte & (PG_A | PG_D), PG_A | PG_D, "D again, A all the time");
            *pte &= ~(uint64_t)PG_W;
            flush_by(how, VA);
            expect_equal(access_to(WRITE, VA), ERROR_P | ERROR_W | ERROR_U, "no longer writable");
            expect_equal(page[0], i, "not written");
            *pte &= ~(uint64_t)PG_U;
            flush_by(how, VA);
            expect_equal(access_to(READ, VA), ERROR_P | ERROR_U, "no longer the user's");
            *pte = 0;
            flush_by(how, VA);
            expect_equal(access_to(READ, VA), ERROR_U, "no longer there");
        }
    verdict("pages remapped, protected, cleaned between stays");
    /* Code too. */
    uint8_t *code[2] = {new_page(), new_page()};
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *p = code[i & 1];
        memcpy(p, (uint8_t[]){0xb8, (uint8_t)i, 0, 0, 0, 0xcd, VECTOR_DONE}, 7);
        *page_entry(VA) = (uintptr_t)p | PG_P | PG_U | (i == 6 ? PG_NX : 0);
        flush_by(i % ways, VA);
        if (i == 6)
            expect_equal(access_to(EXECUTE, VA), ERROR_P | ERROR_U | ERROR_ID, "NX now");
        else
            expect_equal(run_user(VA, 0, 0).gpr[RAX], i, "mapped code");
    }
    verdict("code remapped between stays");
}

/* Adds 1 to RCX quadwords at RDI, RSI bytes apart. */
USER(add_each, "1: incq (%rdi); add %rsi, %rdi; dec %rcx; jnz 1b");

static void add_to_each(uint64_t va, uint64_t step, uint64_t count)
{
    static uint64_t code;
    if (!code)
        code = place_code(add_each, add_each_next, NULL);
    struct context c = native_context(code);
    c.gpr[RDI] = va;
    c.gpr[RSI] = step;
    c.gpr[RCX] = count;
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RDI], va + step * count, "RDI");
}

static void large_pages(void)
{
    uint64_t va = TEST_BASE + 16 * LARGE, pa = MEMORY;
    uint64_t *pde = directory_entry(va), *table = (uint64_t *)(void *)new_page();
    volatile uint64_t *memory = (volatile uint64_t *)(uintptr_t)pa;
    memset((void *)(uintptr_t)pa, 0, 2 * LARGE);
    uint64_t *outside = (uint64_t *)(void *)new_page();
    for (unsigned round = 1; round < 5; round++) {
        *pde = pa | PG_P | PG_W | PG_U | PG_PS;
        write_cr3(read_cr3());
        add_to_each(va, 4096, 512);
        expect(*pde & PG_D, "D of a large page");
        for (unsigned i = 0; i < 512; i++)
            table[i] = (pa + i * 4096) | PG_P | PG_W | PG_U;
        table[17] = (uintptr_t)outside | PG_P | PG_W | PG_U;
        table[18] &= ~(uint64_t)PG_W;
        *pde = (uintptr_t)table | PG_P | PG_W | PG_U;
        write_cr3(read_cr3());
        add_to_each(va, 4096, 18);
        expect_equal(access_to(WRITE, va + 18 * 4096), ERROR_P | ERROR_W | ERROR_U, "read-only part");
        expect_equal(table[20] & (PG_A | PG_D), 0, "untouched part");
        for (unsigned i = 0; i < 20; i++)
            expect_equal(memory[i * 512], i < 17 ? 2 * round : round, "memory of a part");
        expect_equal(outside[0], round, "the part elsewhere");
    }
    verdict("2 MiB pages, split and joined");
    *pde = pa | PG_P | PG_U | PG_PS;
    write_cr3(read_cr3());
    expect_equal(access_to(WRITE, va), ERROR_P | ERROR_W | ERROR_U, "write");
    *pde = (pa + LARGE) | PG_P | PG_W | PG_U | PG_PS;
    write_cr3(read_cr3());
    add_to_each(va + 8, 8, 1000);
    expect_equal(memory[LARGE / 8 + 1], 1, "the other large page");
    verdict("2 MiB pages protected and remapped");
    *pde = 0;
    write_cr3(read_cr3());
}

static void many_pages(void)
{
    const uint64_t count = 17000, base = TEST_BASE + 0x10000000, pages = 0x2000000 / 4096;
    for (uint64_t i = 0; i < count; i++)
        *page_entry(base + i * 4096) = (MEMORY + i % pages * 4096) | PG_P | PG_W | PG_U | PG_A | PG_D | PG_NX;
    memset((void *)(uintptr_t)MEMORY, 0, 0x2000000);
    write_cr3(read_cr3());
    add_to_each(base, 4096, count);
    add_to_each(base + 4096, 4096, count - 1);
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t shown = (count - 1 - i) / pages + 1;
        expect_equal(*(volatile uint64_t *)(uintptr_t)(MEMORY + i * 4096), 2 * shown - !i, "sum");
    }
    verdict("more pages than fit at once, some by several addresses");
}

/* Each address space has code of its own at one address, which now and then becomes another page while the
 * guest is away. */
static void many_spaces(void)
{
    enum { SPACES = 11 };
    uint64_t *roots[SPACES], *pages[SPACES], *entry[SPACES], first = read_cr3(), va = UINT64_C(1) << 41;
    uint64_t code = place_code(do_modify, do_modify_next, NULL);
    uint8_t *own[SPACES][2], number[SPACES];
    for (unsigned i = 0; i < SPACES; i++) {
        guest_pml4[va >> 39] = 0;
        pages[i] = (uint64_t *)(void *)new_page();
        map_page(va, (uintptr_t)pages[i], PG_P | PG_W | PG_U);
        for (unsigned k = 0; k < 2; k++) {
            own[i][k] = new_page();
            memcpy(own[i][k], (uint8_t[]){0xb8, (uint8_t)i, 0, 0, 0, 0xcd, VECTOR_DONE}, 7);
        }
        number[i] = (uint8_t)i;
        entry[i] = map_page(va + 0x1000 * (i + 1), (uintptr_t)own[i][0], PG_P | PG_U);
        roots[i] = (uint64_t *)(void *)new_page();
        memcpy(roots[i], guest_pml4, 4096);
    }
    for (unsigned round = 0; round < 150; round++) {
        bool two = round % 15 >= 9; /* which then are known when the guest comes back */
        unsigned i = two ? round & 1 : round % SPACES, away = two ? i ^ 1 : (i + 1 + round % 3) % SPACES;
        write_cr3((uintptr_t)roots[i]);
        uint64_t before = pages[i][0];
        run_user(code, va, 0);
        expect_equal(pages[i][0], before + 1, "page of the address space");
        expect_equal(run_user(va + 0x1000 * (i + 1), 0, 0).gpr[RAX], number[i], "code of the address space");
        if (round % 5 < 2) {
            number[away] ^= 0x80;
            own[away][number[away] >> 7][1] = number[away];
            *entry[away] = (uintptr_t)own[away][number[away] >> 7] | PG_P | PG_U | PG_A;
        }
    }
    write_cr3(first);
    guest_pml4[va >> 39] = 0;
    verdict("many address spaces in turn");
}

/* --- code that is written --- */

/* RDI: where it is written, RSI: where it is executed; RCX times MOV EAX, IMM32; RET. */
USER(write_and_call,
     "movl $0, 1(%rdi); movb $0xb8, (%rdi); movb $0xc3, 5(%rdi); xor %edx, %edx; mov %ecx, %ebx;"
     "1: mov %ecx, 1(%rdi); call *%rsi; add %rax, %rdx; dec %ecx; jnz 1b");

/* RSI is called, then CPUID written into it at RDI, and it is called again. */
USER(write_special,
     "incb 100(%rdi); decb 100(%rdi); call *%rsi; mov %rax, %r8; movw $0xa20f, 5(%rdi); call *%rsi");

/* User code writes what the kernel runs, while the kernel now and then writes there as well. */
static void written_for_kernel(void)
{
    uint8_t *page = new_page();
    volatile uint32_t *number = (volatile uint32_t *)(void *)(page + 1);
    memcpy(page, (uint8_t[]){0xb8, 0, 0, 0, 0, 0xc3}, 6);
    map_page(VA, (uintptr_t)page, PG_P | PG_W | PG_U | PG_NX);
    for (uint32_t i = 1; i < 60; i++) {
        uint32_t got;
        for (unsigned times = 0; times < 3; times++)
            run_user(accesses[WRITE], VA + 1, i | UINT64_C(0xc3) << 32);
        for (unsigned how = 0; how < i % 5; how++) {
            __asm__ volatile("call *%1" : "=a"(got) : "r"(page) : "memory", "cc");
            expect_equal(got, i, "number that user code has written");
            if (how == 0)
                *number = i;
            else if (how == 1)
                __asm__ volatile("lock addl $0, %0" : "+m"(*number) : : "cc");
            else if (how == 2)
                memcpy(page, (uint8_t[]){0xb8}, 1);
            if (how == i % 3)
                run_user(accesses[READ], VA, 0);
        }
        __asm__ volatile("call *%1" : "=a"(got) : "r"(page) : "memory", "cc");
        expect_equal(got, i, "number that nobody has changed");
    }
    verdict("code that user code writes for the kernel");
}

static void written_code(void)
{
    uint8_t *page = new_page();
    uint64_t read_only = VA + 0x10000, writable = VA + 0x20000;
    map_page(read_only, (uintptr_t)page, PG_P | PG_U);
    map_page(writable, (uintptr_t)page, PG_P | PG_W | PG_U | PG_NX);
    struct context c = native_context(place_code(write_and_call, write_and_call_next, NULL));
    c.gpr[RDI] = writable + 100;
    c.gpr[RSI] = read_only + 100;
    c.gpr[RCX] = 1000;
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RDX], 500500, "sum");
    verdict("code written and called by two addresses of its page");

    /* By a second address, something that is not for native execution. */
    uint32_t first[4];
    cpuid(0x40000000, 0, first);
    memcpy(page + 200, (uint8_t[]){0xb8, 0, 0, 0, 0x40, 0x90, 0x90, 0xc3}, 8);
    c = native_context(place_code(write_special, write_special_next, NULL));
    c.gpr[RDI] = writable + 200;
    c.gpr[RSI] = read_only + 200;
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[R8], 0x40000000, "before it is written");
    expect_equal(c.gpr[RAX], first[0], "CPUID");
    verdict("CPUID written where plain code has run");

    /* The kernel writes between stays: plain code, then some that is not for native execution, and back. */
    static const uint8_t plain[] = {0xb8, 0x44, 0x33, 0x22, 0x11, 0xcd, VECTOR_DONE};
    static const uint8_t special[] = {0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, 0xcd, VECTOR_DONE};
    uint32_t regs[4];
    cpuid(0x40000000, 0, regs);
    for (uint32_t i = 0; i < 12; i++) {
        bool is_special = i % 3 == 2;
        memcpy(page, is_special ? special : plain, sizeof(special));
        if (!is_special)
            *(volatile uint32_t *)(void *)(page + 1) = i;
        c = run_user(read_only, 0, 0);
        expect_equal(c.vector, VECTOR_DONE, "vector");
        expect_equal(c.gpr[RAX], is_special ? regs[0] : i, "EAX");
        if (is_special)
            expect_equal(c.gpr[RBX], regs[1], "EBX");
    }
    verdict("code written by the kernel between stays");
}

/* What is executed can be read: RDI to RSI is summed up. */
USER(sum_code,
     "xor %eax, %eax; 1: movzbl (%rdi), %ecx; add %rcx, %rax; rol $3, %rax; inc %rdi; cmp %rsi, %rdi; jb 1b;"
     "jmp 2f; cpuid; xgetbv; .byte 0xcd, 4, 0x0f, 0x34; 2:");

static void read_code(void)
{
    uint64_t sum = 0, code = place_code(sum_code, sum_code_next, NULL);
    for (const uint8_t *p = sum_code; p < sum_code_next + 2; p++) {
        sum += *p;
        sum = sum << 3 | sum >> 61;
    }
    struct context c = native_context(code);
    for (unsigned i = 0; i < 2; i++) {
        c = native_context(code);
        c.gpr[RDI] = code;
        c.gpr[RSI] = code + (uint64_t)(sum_code_next + 2 - sum_code);
        guest_run(&c);
    }
    check_equal(c.gpr[RAX], sum, "code reads itself as it is");
}

/* --- our own addresses --- */

static void own_addresses(void)
{
    uint64_t *page = (uint64_t *)(void *)new_page();
    for (unsigned i = 0; i < 4; i++) {
        page[0] = 5;
        map_page(STUB_VA + i * 4096, (uintptr_t)page, PG_P | PG_W | PG_U);
        expect_equal(run_user(accesses[READ], STUB_VA + i * 4096, 0).gpr[RAX], 5, "read");
        run_user(accesses[WRITE], STUB_VA + i * 4096, 6);
        expect_equal(page[0], 6, "written");
        map_page(STUB_VA + i * 4096, 0, 0);
    }
    verdict("pages where the engine may have its own");
}

void guest_main(void)
{
    have_avx = cpu_has(1, 2, 26) && cpu_has(1, 2, 28);
    if (have_avx) {
        write_cr4(read_cr4() | BIT(18));
        __asm__ volatile("xsetbv" : : "a"(7), "d"(0), "c"(0));
    }
    interrupts();
    faults();
    remapped();
    large_pages();
    many_pages();
    many_spaces();
    written_code();
    written_for_kernel();
    read_code();
    own_addresses();
    native_instructions();
    native_smp();
}
