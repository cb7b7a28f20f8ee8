/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code that is written while it, or code near it, runs: what was written must run, whichever way it was
 * written. */
#include "guest.h"

#define ROUNDS 300

typedef uint32_t function(void);

static void serialize(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
}

/* mov $value, %eax; ret */
static void write_function(uint8_t *at, uint32_t value)
{
    at[0] = 0xb8;
    *(volatile uint32_t *)(void *)(at + 1) = value;
    at[5] = 0xc3;
    barrier();
}

static uint32_t call(const void *at)
{
    uint32_t v;
    __asm__ volatile("call *%1" : "=a"(v) : "r"(at) : "memory", "cc");
    return v;
}

/* --- the writing instruction right before the written one --- */

/* RDI: code to write over in this very block. */
__asm__(
    ".pushsection .data\n.globl smc_same, smc_same_end\n"
    "smc_same: lea 1f+1(%rip), %rdx; mov %ecx, (%rdx); 1: mov $0, %eax; ret\nsmc_same_end:\n"
    ".globl smc_push, smc_push_end\n"
    "smc_push: mov %rsp, %rdx; lea 1f+10(%rip), %rsp; push %rcx; mov %rdx, %rsp; 1: movabs $0, %rax; ret\n"
    "smc_push_end:\n"
    ".globl smc_stos, smc_stos_end\n"
    "smc_stos: mov %ecx, %eax; lea 1f+1(%rip), %rdi; stosl; xor %eax, %eax; 1: mov $0, %eax; "
    "ret\nsmc_stos_end:\n"
    ".globl smc_xchg, smc_xchg_end\n"
    "smc_xchg: lea 1f+1(%rip), %rdx; xchg %ecx, (%rdx); 1: mov $0, %eax; ret\nsmc_xchg_end:\n"
    ".globl smc_sse, smc_sse_end\n"
    "smc_sse: lea 1f+1(%rip), %rdx; movd %ecx, %xmm0; movd %xmm0, (%rdx); 1: mov $0, %eax; "
    "ret\nsmc_sse_end:\n"
    ".globl smc_rep, smc_rep_end\n"
    "smc_rep: push %rcx; lea 1f+1(%rip), %rdi; mov %rsp, %rsi; mov $4, %ecx; rep movsb; pop %rcx;"
    "1: mov $0, %eax; ret\nsmc_rep_end:\n"
    ".globl smc_later, smc_later_end\n"
    "smc_later: lea 1f+1(%rip), %rdx; mov %ecx, (%rdx); mov $1, %esi; add $2, %esi; imul $3, %esi, %esi; nop;"
    "lea 5(%rsi), %esi; 1: mov $0, %eax; ret\nsmc_later_end:\n"
    ".globl smc_loop, smc_loop_end\n"
    "smc_loop: xor %eax, %eax; lea 1f+1(%rip), %rdx; mov $50, %esi;"
    "2: mov %esi, (%rdx); 1: mov $0, %edi; add %edi, %eax; dec %esi; jnz 2b; imul %ecx, %eax; "
    "ret\nsmc_loop_end:\n"
    ".popsection");
extern const uint8_t smc_same[], smc_same_end[], smc_push[], smc_push_end[], smc_stos[], smc_stos_end[],
    smc_xchg[], smc_xchg_end[], smc_sse[], smc_sse_end[], smc_rep[], smc_rep_end[], smc_later[],
    smc_later_end[], smc_loop[], smc_loop_end[];

static uint32_t call_with(const void *at, uint32_t value)
{
    uint64_t a, c = value;
    __asm__ volatile("call *%2"
                     : "=a"(a), "+c"(c)
                     : "r"(at)
                     : "memory", "cc", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11");
    return (uint32_t)a;
}

static void same_block(const char *name, const uint8_t *from, const uint8_t *end, uint32_t factor)
{
    for (unsigned place = 0; place < 3; place++) {
        /* In the middle of a page, at its end, across two. */
        uint8_t *at = code_page + (place == 0   ? 64
                                   : place == 1 ? 0x1000 - (size_t)(end - from)
                                                : 0x1000 - 12);
        memcpy(at, from, (size_t)(end - from));
        for (uint32_t i = 1; i < ROUNDS; i++)
            expect_equal(call_with(at, i * 0x01010101), i * 0x01010101 * factor, name);
    }
    verdict(name);
}

/* --- other ways --- */

static void other_page(void)
{
    uint8_t *page = new_page();
    for (uint32_t i = 0; i < ROUNDS; i++) {
        write_function(page + 16 * (i % 100), i);
        expect_equal(call(page + 16 * (i % 100)), i, "written function");
    }
    verdict("a function written anew before each call");
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint8_t source[8];
        write_function(source, i);
        memcpy(page + (i & 7), source, 6);
        expect_equal(call(page + (i & 7)), i, "moved function");
    }
    verdict("a function copied by REP MOVSB before each call");
    write_function(page, 1);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        expect_equal(call(page), 1 + i, "incremented");
        __asm__ volatile("lock incl (%0)" : : "r"(page + 1) : "memory");
    }
    verdict("a constant in code changed by LOCK INC");
}

static void alias(void)
{
    uint8_t *page = new_page();
    map_page(TEST_BASE, (uintptr_t)page, PG_P | PG_W);
    map_page(TEST_BASE + 0x5000, (uintptr_t)page, PG_P);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        write_function((uint8_t *)TEST_BASE + 32, i);
        serialize();
        expect_equal(call((void *)(TEST_BASE + 0x5000 + 32)), i, "by the second address");
        expect_equal(call(page + 32), i, "by the third address");
    }
    verdict("code written through another linear address");
}

static void remap(void)
{
    uint8_t *a = new_page(), *b = new_page();
    write_function(a, 0xa);
    write_function(b, 0xb);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        map_page(TEST_BASE + 0x8000, (uintptr_t)(i & 1 ? a : b), PG_P);
        expect_equal(call((void *)(TEST_BASE + 0x8000)), i & 1 ? 0xa : 0xb, "mapped page");
    }
    verdict("another page mapped where code was");
    /* A function that begins in one page and ends in another, which changes. */
    uint8_t *first = new_page();
    map_page(TEST_BASE + 0x9000, (uintptr_t)first, PG_P | PG_W);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        map_page(TEST_BASE + 0xa000, (uintptr_t)(i & 1 ? a : b), PG_P | PG_W);
        write_function((uint8_t *)TEST_BASE + 0xa000 - 3, i & 1 ? 0x12345678 : 0x9abcdef0);
        expect_equal(call((void *)(TEST_BASE + 0xa000 - 3)), i & 1 ? 0x12345678 : 0x9abcdef0,
                     "across two pages");
    }
    /* The second half is now only mapped, not written. */
    for (uint32_t i = 0; i < ROUNDS; i++) {
        map_page(TEST_BASE + 0xa000, (uintptr_t)(i & 1 ? a : b), PG_P | PG_W);
        expect_equal(call((void *)(TEST_BASE + 0xa000 - 3)) >> 16, i & 1 ? 0x1234 : 0x9abc,
                     "second page mapped");
    }
    verdict("code across two pages, the second mapped or written anew");
}

/* Data beside code: writes must not lose, nor be lost. */
static void neighbours(void)
{
    uint8_t *page = new_page();
    volatile uint64_t *data = (volatile uint64_t *)(void *)(page + 64);
    write_function(page, 7);
    write_function(page + 4000, 9);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 5000; i++) {
        *data += i;
        sum += call(page) + call(page + 4000);
        data[300] = i;
    }
    expect_equal(*data, 5000u * 4999 / 2, "data");
    expect_equal(sum, 5000 * 16, "results");
    write_function(page, 8);
    expect_equal(call(page), 8, "written in the end");
    verdict("data beside code");
}

/* As Linux patches its text: a breakpoint byte first, then the rest, then the first byte. */
static void patched(void)
{
    uint8_t *page = new_page();
    for (uint32_t i = 0; i < ROUNDS; i++) {
        page[0] = 0xcc;
        serialize();
        *(volatile uint32_t *)(void *)(page + 1) = i;
        page[5] = 0xc3;
        serialize();
        page[0] = 0xb8;
        serialize();
        expect_equal(call(page), i, "patched");
    }
    verdict("code patched by breakpoint, tail, head");
}

void guest_main(void)
{
#define SAME(name, snippet, factor) same_block(name, snippet, snippet##_end, factor)
    SAME("MOV to the next instruction", smc_same, 1);
    SAME("PUSH onto the next instruction", smc_push, 1);
    SAME("STOSD to the next instruction", smc_stos, 1);
    SAME("XCHG with the next instruction", smc_xchg, 1);
    SAME("SSE store to the next instruction", smc_sse, 1);
    SAME("REP MOVSB to the next instruction", smc_rep, 1);
    SAME("MOV to an instruction further on", smc_later, 1);
    SAME("a loop that writes its own constant", smc_loop, 50 * 51 / 2);
    other_page();
    alias();
    remap();
    neighbours();
    patched();
}
