/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a test guest has: output and results, running code with a full set of registers and catching what it
 * raises, page tables, interrupts, other processors. A guest is start.S, guest.c and one file of tests with
 * guest_main().
 *
 * Each result is a line "ok NUMBER - NAME" or "not ok NUMBER - NAME" on port 0xE9; at the end the number of
 * failures (at most 100) goes to port 0xF4. Guests run alike under an engine's harness and under QEMU with
 * -debugcon and isa-debug-exit, which is how they were checked.
 */
#ifndef TESTS_GUEST_GUEST_H
#define TESTS_GUEST_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, MC, XM };

#define VECTOR_DONE 0x81 /* `int $0x81` ends what guest_run runs */

#define FL_CF  BIT(0)
#define FL_ZF  BIT(6)
#define FL_TF  BIT(8)
#define FL_IF  BIT(9)
#define FL_DF  BIT(10)
#define FL_OF  BIT(11)
#define FL_NT  BIT(14)
#define FL_RF  BIT(16)
#define FL_AC  BIT(18)
#define BIT(n) (UINT64_C(1) << (n))

/* Registers to run with, and how it ended. Offsets are in layout.h. */
struct context {
    uint64_t gpr[16];
    uint64_t rip, cs, rflags, ss;
    uint64_t vector, error, cr2;
};

/* What the exception entry pushed. RSP of `gpr` is not used. */
struct frame {
    uint64_t gpr[16];
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* The tests; runs on the bootstrap processor. */
void guest_main(void);

/* --- results --- */
void print(const char *text);
void print_hex(uint64_t value);
/* One result. */
void check(bool good, const char *name);
/* One result, with the numbers when they differ. */
void check_equal(uint64_t got, uint64_t want, const char *name);
/* A result of several conditions: each `expect` that fails is printed, `verdict` gives the one line. */
void expect(bool good, const char *what);
void expect_equal(uint64_t got, uint64_t want, const char *what);
void verdict(const char *name);
_Noreturn void guest_exit(void);
_Noreturn void panic(const char *why);

/* --- running code --- */

/*
 * Loads all registers and goes to cs:rip; comes back with all registers when an exception, or VECTOR_DONE,
 * ends it. Vectors with a handler are left to the handler.
 */
void guest_run(struct context *c);
/* A context at `code`: CPL 0 or 3 in 64-bit mode, on a stack of its own, interrupts off. */
struct context kernel_context(const void *code);
struct context user_context(const void *code);
/* CPL 3 in a 32-bit code segment; code below 4 GiB runs at its own address. */
struct context compat_context(const void *code);
/* Where CPL 3 finds something. */
static inline void *user_pointer(const void *p)
{
    return (void *)((uintptr_t)p + USER_ALIAS);
}

/* A handler that returns true has dealt with it: execution goes on with *f. */
typedef bool handler_fn(struct frame *f);
extern handler_fn *handlers[256];

/*
 * Machine code by name: `name` is its start, `name_at` the instruction that matters, `name_next` the one
 * after. It ends in VECTOR_DONE.
 */
#define SNIPPET(name, before, text)                                                                          \
    extern const uint8_t name[], name##_at[], name##_next[];                                                 \
    __asm__(".pushsection .text.snippets, \"ax\"\n"                                                          \
            ".globl " #name ", " #name "_at, " #name "_next\n"                                               \
            ".balign 16\n" #name ":\n" before "\n" #name "_at:\n" text "\n" #name "_next:\n"                 \
            "int $0x81\n"                                                                                    \
            ".code64\n"                                                                                      \
            ".popsection\n")

/* --- the machine --- */

/* A scratch area of 64 KiB, page-aligned, below 4 GiB, and a page that tests may fill with code. */
extern uint8_t scratch[0x10000];
extern uint8_t code_page[0x2000];
extern uint64_t guest_gdt[GDT_ENTRIES];
extern uint64_t guest_pml4[512], guest_pdpt[512], guest_pd[4 * 512];

struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_mid;
    uint32_t offset_high, reserved;
};
extern struct gate guest_idt[256];
void set_gate(unsigned vector, const void *entry, unsigned type, unsigned ist);

/* Long-mode TSS of a processor. */
struct tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3, iomap;
} __attribute__((packed));
extern struct tss guest_tss[MAX_CPUS];

/*
 * Page tables of tests: 4 KiB pages from TEST_BASE on (1 GiB), made as they are asked for. map_page gives the
 * entry's address; flushes that page on this processor.
 */
#define TEST_BASE UINT64_C(0x10000000000)
uint64_t *page_entry(uint64_t va);
uint64_t *map_page(uint64_t va, uint64_t pa, uint64_t flags);
/* The level above: the page directory's entry for va (a 2 MiB page may be put there). */
uint64_t *directory_entry(uint64_t va);
/* A zeroed page of physical memory; never freed. */
uint8_t *new_page(void);

enum { PG_P = 1, PG_W = 2, PG_U = 4, PG_A = 0x20, PG_D = 0x40, PG_PS = 0x80, PG_G = 0x100 };
#define PG_NX BIT(63)

/* Processors: BSP is 0. Starts all others; they wait for work. Gives how many processors there are. */
unsigned start_processors(void);
unsigned processor_count(void);
unsigned this_processor(void);
/* Runs fn(arg) on all processors at once, on this one too; returns when all are done. */
void on_all(void (*fn)(void *arg), void *arg);

/* Local APIC, by memory. */
uint32_t apic_read(unsigned offset);
void apic_write(unsigned offset, uint32_t value);
void apic_enable(void);
void apic_ipi(unsigned apic_id, uint32_t low);
enum {
    APIC_ID = 0x20,
    APIC_EOI = 0xb0,
    APIC_SVR = 0xf0,
    APIC_ICR = 0x300,
    APIC_LVT_TIMER = 0x320,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_COUNT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0
};

/* Whether this is Ruche's harness, with its scratch ports and registers. */
bool in_harness(void);
/* What cannot be tested here: see enum harness_limit. 0 outside of the harness. */
#define LIMIT_EMULATOR   1u
#define LIMIT_TRANSLATOR 2u
unsigned harness_limits(void);
/* Says that a test is left out, and why. */
void skip(const char *name, const char *why);

static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (uint64_t)hi << 32 | lo;
}

static inline void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}

static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}

/* A CPUID bit: register 0..3 is EAX..EDX. */
static inline bool cpu_has(uint32_t leaf, unsigned reg, unsigned bit)
{
    uint32_t r[4];
    cpuid(leaf & 0x80000000, 0, r);
    if (r[0] < leaf)
        return false;
    cpuid(leaf, 0, r);
    return r[reg] >> bit & 1;
}

#define DEFINE_CONTROL(name)                                                                                 \
    static inline uint64_t read_##name(void)                                                                 \
    {                                                                                                        \
        uint64_t v;                                                                                          \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(v));                                                   \
        return v;                                                                                            \
    }                                                                                                        \
    static inline void write_##name(uint64_t v)                                                              \
    {                                                                                                        \
        __asm__ volatile("mov %0, %%" #name : : "r"(v) : "memory");                                          \
    }
DEFINE_CONTROL(cr0)
DEFINE_CONTROL(cr2)
DEFINE_CONTROL(cr3)
DEFINE_CONTROL(cr4)
DEFINE_CONTROL(cr8)
DEFINE_CONTROL(dr0)
DEFINE_CONTROL(dr1)
DEFINE_CONTROL(dr2)
DEFINE_CONTROL(dr3)
DEFINE_CONTROL(dr6)
DEFINE_CONTROL(dr7)

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);

static inline void invlpg(uint64_t va)
{
    __asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

static inline void pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

static inline void barrier(void)
{
    __asm__ volatile("" : : : "memory");
}

#endif
