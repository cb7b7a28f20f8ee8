/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What all test guests share: see guest.h. */
#include "guest.h"

#define TEXT_PORT 0xe9
#define EXIT_PORT 0xf4
#define APIC_BASE 0xfee00000u
#define TSS_ATTR  UINT64_C(0x0000890000000000)

uint8_t scratch[0x10000] __attribute__((aligned(4096)));
uint8_t code_page[0x2000] __attribute__((aligned(4096)));
struct gate guest_idt[256] __attribute__((aligned(16)));
struct tss guest_tss[MAX_CPUS];
handler_fn *handlers[256];

/* start.S */
extern const uint8_t guest_vectors[], guest_run_return[], ap_trampoline[], ap_trampoline_end[];
extern struct context *guest_running;
extern uint64_t guest_run_stack;
extern volatile uint32_t ap_count;

static uint8_t trap_stacks[MAX_CPUS][0x4000] __attribute__((aligned(16)));
static uint8_t context_stack[0x4000] __attribute__((aligned(16)));
static unsigned results, failures;
static unsigned verdict_bad; /* conditions that did not hold since the last verdict */

#define SHOWN_MAX 8

/* The compiler may ask for these. */
void *memcpy(void *to, const void *from, size_t n)
{
    void *t = to;
    __asm__ volatile("rep movsb" : "+D"(t), "+S"(from), "+c"(n) : : "memory");
    return to;
}

void *memset(void *to, int c, size_t n)
{
    void *t = to;
    __asm__ volatile("rep stosb" : "+D"(t), "+c"(n) : "a"(c) : "memory");
    return to;
}

/* --- results --- */

void print(const char *text)
{
    while (*text)
        outb(TEXT_PORT, (uint8_t)*text++);
}

static void print_number(unsigned n)
{
    if (n > 9)
        print_number(n / 10);
    outb(TEXT_PORT, (uint8_t)('0' + n % 10));
}

void print_hex(uint64_t value)
{
    if (value > 15)
        print_hex(value >> 4);
    outb(TEXT_PORT, (uint8_t) "0123456789abcdef"[value & 15]);
}

void check(bool good, const char *name)
{
    results++;
    if (!good)
        failures++;
    print(good ? "ok " : "not ok ");
    print_number(results);
    print(" - ");
    print(name);
    print("\n");
}

void expect(bool good, const char *what)
{
    if (good || verdict_bad++ >= SHOWN_MAX)
        return;
    print("# wrong: ");
    print(what);
    print("\n");
}

void expect_equal(uint64_t got, uint64_t want, const char *what)
{
    if (got == want || verdict_bad++ >= SHOWN_MAX)
        return;
    print("# ");
    print(what);
    print(": got ");
    print_hex(got);
    print(", want ");
    print_hex(want);
    print("\n");
}

void verdict(const char *name)
{
    check(!verdict_bad, name);
    verdict_bad = 0;
}

void check_equal(uint64_t got, uint64_t want, const char *name)
{
    expect_equal(got, want, name);
    verdict(name);
}

void guest_exit(void)
{
    print("1..");
    print_number(results);
    print("\n");
    outb(EXIT_PORT, failures > 100 ? 100 : (uint8_t)failures);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void panic(const char *why)
{
    print("# panic: ");
    print(why);
    print("\n");
    failures++;
    guest_exit();
}

/* --- exceptions --- */

void guest_trap(struct frame *f);

static void unexpected(const struct frame *f)
{
    print("# unexpected vector ");
    print_hex(f->vector);
    print(" error ");
    print_hex(f->error);
    print(" at ");
    print_hex(f->cs);
    print(":");
    print_hex(f->rip);
    print(" rsp ");
    print_hex(f->rsp);
    print(" cr2 ");
    print_hex(read_cr2());
    print("\n");
    panic("unexpected exception");
}

void guest_trap(struct frame *f)
{
    handler_fn *handler = handlers[f->vector & 255];
    if (handler && handler(f))
        return;
    struct context *c = guest_running;
    if (!c || this_processor())
        unexpected(f);
    memcpy(c->gpr, f->gpr, sizeof(c->gpr));
    c->gpr[RSP] = f->rsp;
    c->rip = f->rip;
    c->cs = f->cs;
    c->rflags = f->rflags;
    c->ss = f->ss;
    c->vector = f->vector;
    c->error = f->error;
    c->cr2 = read_cr2();
    f->rip = (uintptr_t)guest_run_return;
    f->cs = SEL_KCODE64;
    f->rflags = 2;
    f->rsp = guest_run_stack;
    f->ss = SEL_KDATA;
}

static struct context context_at(uintptr_t code, uint64_t alias, uint64_t cs, uint64_t ss)
{
    struct context c = {.rip = code, .cs = cs, .ss = ss, .rflags = 2};
    c.gpr[RSP] = (uintptr_t)context_stack + sizeof(context_stack) - 256 + alias;
    return c;
}

struct context kernel_context(const void *code)
{
    return context_at((uintptr_t)code, 0, SEL_KCODE64, SEL_KDATA);
}

struct context user_context(const void *code)
{
    return context_at((uintptr_t)user_pointer(code), USER_ALIAS, SEL_UCODE64, SEL_UDATA);
}

struct context compat_context(const void *code)
{
    /* The same pages below 4 GiB must then be for CPL 3 too. */
    static bool opened;
    if (!opened) {
        guest_pml4[0] |= PG_U;
        for (unsigned i = 0; i < 4; i++)
            guest_pdpt[i] |= PG_U;
        guest_pd[0] |= PG_U;
        guest_pd[1] |= PG_U;
        write_cr3(read_cr3());
        opened = true;
    }
    return context_at((uintptr_t)code, 0, SEL_UCODE32, SEL_UDATA);
}

/* --- tables --- */

void set_gate(unsigned vector, const void *entry, unsigned type, unsigned ist)
{
    uint64_t a = (uintptr_t)entry;
    guest_idt[vector] = (struct gate){.offset_low = (uint16_t)a,
                                      .selector = SEL_KCODE64,
                                      .ist = (uint8_t)ist,
                                      .type = (uint8_t)type,
                                      .offset_mid = (uint16_t)(a >> 16),
                                      .offset_high = (uint32_t)(a >> 32)};
}

static void load_tables(unsigned cpu)
{
    struct tss *tss = &guest_tss[cpu];
    uint64_t base = (uintptr_t)tss, top = (uintptr_t)trap_stacks[cpu] + sizeof(trap_stacks[cpu]);
    tss->rsp[0] = top;
    tss->ist[0] = top;
    tss->ist[1] = top - 0x2000; /* #DF, NMI */
    tss->iomap = sizeof(*tss);
    unsigned slot = SEL_TSS / 8 + 2 * cpu;
    guest_gdt[slot] = TSS_ATTR | (sizeof(*tss) - 1) | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
    guest_gdt[slot + 1] = base >> 32;
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idt = {sizeof(guest_idt) - 1, (uintptr_t)guest_idt},
                              gdt = {sizeof(guest_gdt), (uintptr_t)guest_gdt};
    gdt.limit = GDT_ENTRIES * 8 - 1;
    __asm__ volatile("lgdt %0; lidt %1; ltr %w2; lldt %w3"
                     :
                     : "m"(gdt), "m"(idt), "r"(SEL_TSS + 16 * cpu), "r"(0)
                     : "memory");
}

void guest_begin(void);
void guest_ap_begin(unsigned cpu);

void guest_begin(void)
{
    for (unsigned i = 0; i < 256; i++) {
        bool user = i == VECTOR_DONE || i == BP || i == OF;
        set_gate(i, guest_vectors + 16 * i, user ? 0xee : 0x8e, i == DF || i == NMI ? 2 : 1);
    }
    outb(0x21, 0xff); /* a PC's interrupt controllers: all masked */
    outb(0xa1, 0xff);
    load_tables(0);
    guest_main();
    guest_exit();
}

/* --- pages --- */

uint8_t *new_page(void)
{
    static uint8_t pool[256][4096] __attribute__((aligned(4096)));
    static unsigned used;
    if (used == ARRAY_SIZE(pool))
        panic("out of pages");
    return memset(pool[used++], 0, 4096);
}

static uint64_t *entry_at(uint64_t va, unsigned level)
{
    uint64_t *table = guest_pml4;
    for (unsigned shift = 39; shift > level; shift -= 9) {
        uint64_t *e = &table[va >> shift & 511];
        if (!(*e & PG_P))
            *e = (uintptr_t)new_page() | PG_P | PG_W | PG_U;
        table = (uint64_t *)(uintptr_t)(*e & UINT64_C(0xffffffffff000));
    }
    return &table[va >> level & 511];
}

uint64_t *page_entry(uint64_t va)
{
    return entry_at(va, 12);
}

uint64_t *directory_entry(uint64_t va)
{
    return entry_at(va, 21);
}

uint64_t *map_page(uint64_t va, uint64_t pa, uint64_t flags)
{
    uint64_t *e = page_entry(va);
    *e = pa | flags;
    invlpg(va);
    return e;
}

/* --- local APIC and processors --- */

uint32_t apic_read(unsigned offset)
{
    return *(volatile uint32_t *)(uintptr_t)(APIC_BASE + offset);
}

void apic_write(unsigned offset, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)(APIC_BASE + offset) = value;
}

void apic_enable(void)
{
    apic_write(APIC_SVR, 0x1ff);
}

void apic_ipi(unsigned apic_id, uint32_t low)
{
    apic_write(APIC_ICR + 0x10, apic_id << 24);
    apic_write(APIC_ICR, low);
    while (apic_read(APIC_ICR) & 0x1000)
        pause();
}

unsigned this_processor(void)
{
    uint16_t tr;
    __asm__("str %0" : "=r"(tr));
    bool own = tr >= SEL_TSS && tr < SEL_TSS + 16 * MAX_CPUS; /* else a test's */
    return own ? (unsigned)(tr - SEL_TSS) / 16 : 0;
}

static struct {
    void (*volatile fn)(void *);
    void *arg;
    volatile unsigned generation;
    volatile unsigned done;
} job;

void guest_ap_begin(unsigned cpu)
{
    load_tables(cpu);
    apic_enable();
    unsigned seen = 0;
    __atomic_add_fetch(&job.done, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        while (job.generation == seen)
            pause();
        seen = job.generation;
        job.fn(job.arg);
        __atomic_add_fetch(&job.done, 1, __ATOMIC_SEQ_CST);
    }
}

unsigned processor_count(void)
{
    return ap_count + 1;
}

static void delay(uint64_t cycles)
{
    for (uint64_t start = rdtsc(); rdtsc() - start < cycles;)
        pause();
}

/* How many there are is not known: whoever has reported within a moment takes part. */
unsigned start_processors(void)
{
    memcpy((void *)AP_TRAMPOLINE, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
    apic_enable();
    apic_write(APIC_ICR, 0xc4500); /* INIT to all but self */
    delay(30000000);
    apic_write(APIC_ICR, 0xc4600 | AP_TRAMPOLINE >> 12);
    unsigned before;
    do {
        before = ap_count;
        delay(400000000);
    } while (ap_count != before || job.done != ap_count);
    return processor_count();
}

void on_all(void (*fn)(void *), void *arg)
{
    job.done = 0;
    job.fn = fn;
    job.arg = arg;
    __atomic_add_fetch(&job.generation, 1, __ATOMIC_SEQ_CST);
    fn(arg);
    while (job.done != ap_count)
        pause();
}

bool in_harness(void)
{
    outb(0x300, 0x5a);
    return inb(0x300) == 0x5a;
}

unsigned harness_limits(void)
{
    return in_harness() ? *(volatile uint32_t *)UINT64_C(0xd000ffe8) : 0;
}

void skip(const char *name, const char *why)
{
    print("# skipped: ");
    print(name);
    print(": ");
    print(why);
    print("\n");
}
