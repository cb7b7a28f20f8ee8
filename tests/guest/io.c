/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ports and device registers: each width and direction, string and repeated forms, read-modify-writes,
 * accesses across pages. The harness counts the accesses and tells size and address of the last one, so these
 * tests need it.
 */
#include "guest.h"

#define PORT 0x300
#define REGS UINT64_C(0xd0000000)
#define ACCESS(size, write, port, address)                                                                   \
    ((uint64_t)(size) | (write) << 8 | (port) << 9 | ((address)&0xffff) << 16)

static uint64_t counted;

static uint64_t count(void)
{
    return *(volatile uint64_t *)(REGS + 0xfff0);
}

static uint64_t last(void)
{
    return *(volatile uint64_t *)(REGS + 0xfff8);
}

static void start(void)
{
    counted = count();
}

/* That many accesses since start(), the last one so. */
static void expect_access(uint64_t n, uint64_t what, const char *name)
{
    expect_equal(count() - counted, n, "accesses");
    expect_equal(last(), what, name);
    counted = count();
}

/* --- ports --- */

static void port_widths(void)
{
    uint64_t a;
    start();
    __asm__ volatile("outb %%al, %%dx" : : "a"(0x11), "d"(PORT));
    expect_access(1, ACCESS(1, 1, 1, PORT), "OUT DX, AL");
    __asm__ volatile("outw %%ax, %%dx" : : "a"(0x3322), "d"(PORT + 1));
    expect_access(1, ACCESS(2, 1, 1, PORT + 1), "OUT DX, AX");
    __asm__ volatile("outl %%eax, %%dx" : : "a"(0x77665544), "d"(PORT + 3));
    expect_access(1, ACCESS(4, 1, 1, PORT + 3), "OUT DX, EAX");
    a = 0xffffffffffffffff;
    __asm__ volatile("inb %%dx, %%al" : "+a"(a) : "d"(PORT));
    expect_equal(a, 0xffffffffffffff11, "IN AL, DX");
    expect_access(1, ACCESS(1, 0, 1, PORT), "IN AL, DX");
    __asm__ volatile("inw %%dx, %%ax" : "+a"(a) : "d"(PORT + 1));
    expect_equal(a, 0xffffffffffff3322, "IN AX, DX");
    expect_access(1, ACCESS(2, 0, 1, PORT + 1), "IN AX, DX");
    __asm__ volatile("inl %%dx, %%eax" : "+a"(a) : "d"(PORT + 3));
    expect_equal(a, 0x77665544, "IN EAX, DX");
    expect_access(1, ACCESS(4, 0, 1, PORT + 3), "IN EAX, DX");
    __asm__ volatile("inb $0xe9, %%al" : "=a"(a));
    expect_equal(a & 0xff, 0xe9, "IN AL, imm");
    verdict("IN and OUT");
}

static void port_strings(void)
{
    const uint8_t *from = (const uint8_t *)"abcdefghijklmnop";
    uint8_t *to = scratch;
    uint64_t n;
    start();
    __asm__ volatile("outsb" : "+S"(from) : "d"(PORT) : "memory");
    expect_access(1, ACCESS(1, 1, 1, PORT), "OUTSB");
    __asm__ volatile("outsw" : "+S"(from) : "d"(PORT) : "memory");
    expect_access(1, ACCESS(2, 1, 1, PORT), "OUTSW");
    __asm__ volatile("outsl" : "+S"(from) : "d"(PORT) : "memory");
    expect_access(1, ACCESS(4, 1, 1, PORT), "OUTSD");
    expect_equal(*from, 'h', "RSI");
    __asm__ volatile("insl" : "+D"(to) : "d"(PORT) : "memory");
    __asm__ volatile("insw" : "+D"(to) : "d"(PORT + 2) : "memory");
    __asm__ volatile("insb" : "+D"(to) : "d"(PORT + 1) : "memory");
    expect_access(3, ACCESS(1, 0, 1, PORT + 1), "INSB");
    expect_equal(*(uint64_t *)(void *)scratch & 0xffffffffffffff, 0x65676667666564, "what was read");
    expect((uintptr_t)to == (uintptr_t)scratch + 7, "RDI");
    verdict("INS and OUTS");
    from = (const uint8_t *)"abcdefghijklmnop";
    n = 4;
    __asm__ volatile("rep outsl" : "+S"(from), "+c"(n) : "d"(PORT) : "memory");
    expect_access(4, ACCESS(4, 1, 1, PORT), "REP OUTSD");
    expect_equal(n, 0, "RCX");
    to = scratch + 0xffe; /* over a page's end */
    n = 5;
    __asm__ volatile("rep insw" : "+D"(to), "+c"(n) : "d"(PORT) : "memory");
    expect_access(5, ACCESS(2, 0, 1, PORT), "REP INSW");
    expect_equal(*(uint64_t *)(void *)(scratch + 0xffe), 0x6e6d6e6d6e6d6e6d, "what was read");
    to = scratch + 8;
    n = 3;
    __asm__ volatile("std; rep insb; cld" : "+D"(to), "+c"(n) : "d"(PORT + 3) : "memory");
    expect_access(3, ACCESS(1, 0, 1, PORT + 3), "REP INSB downwards");
    expect((uintptr_t)to == (uintptr_t)scratch + 5, "RDI");
    n = 0;
    __asm__ volatile("rep insb" : "+D"(to), "+c"(n) : "d"(PORT) : "memory");
    expect_equal(count() - counted, 0, "accesses of REP INSB with RCX 0");
    verdict("REP INS and REP OUTS");
    /* To memory that faults: no access is lost, none is made twice. */
    map_page(TEST_BASE, 0, 0);
    extern const uint8_t rep_ins[], rep_ins_at[];
    struct context c = kernel_context(rep_ins);
    to = new_page();
    map_page(TEST_BASE + 0x1000, (uintptr_t)to, PG_P | PG_W);
    start();
    c.gpr[RDI] = TEST_BASE + 0x1ffe;
    c.gpr[RCX] = 4;
    map_page(TEST_BASE + 0x2000, 0, 0);
    guest_run(&c);
    expect_equal(c.vector, PF, "vector");
    expect_equal(c.rip, (uintptr_t)rep_ins_at, "RIP");
    expect_equal(c.gpr[RCX], 2, "RCX");
    expect_equal(count() - counted, 2, "accesses");
    map_page(TEST_BASE + 0x2000, (uintptr_t)new_page(), PG_P | PG_W);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(count() - counted, 4, "accesses");
    verdict("REP INSB with a page fault half-way");
}
SNIPPET(rep_ins, "mov $0x300, %edx", "rep insb");

/* The I/O permission bitmap lets CPL 3 at some ports. */
SNIPPET(user_in, "mov $0x300, %edx; in %dx, %al; mov $0x304, %edx", "in %dx, %eax");
static void permission_bitmap(void)
{
    static struct {
        struct tss tss;
        uint8_t bitmap[0x2000 / 8 + 1];
    } __attribute__((packed)) big;
    memcpy(&big.tss, &guest_tss[0], sizeof(big.tss));
    memset(big.bitmap, 0xff, sizeof(big.bitmap));
    big.tss.iomap = sizeof(big.tss);
    uint64_t base = (uintptr_t)&big;
    uint64_t *d = &guest_gdt[SEL_FREE / 8];
    d[0] = UINT64_C(0x0000890000000000) | (sizeof(big) - 1) | (base & 0xffffff) << 16 |
           (base >> 24 & 0xff) << 56;
    d[1] = 0;
    __asm__ volatile("ltr %w0" : : "r"(SEL_FREE));
    big.bitmap[0x300 / 8] = 0xfe;
    struct context c = user_context(user_in);
    guest_run(&c);
    expect_equal(c.vector, GP, "vector");
    expect_equal(c.rip, (uintptr_t)user_pointer(user_in_at), "RIP: the second IN");
    big.bitmap[0x300 / 8] = 0x8e; /* 0x304..0x306, but not 0x307 */
    c = user_context(user_in);
    guest_run(&c);
    expect_equal(c.vector, GP, "vector with one port of four refused");
    big.bitmap[0x300 / 8] = 0x0e;
    c = user_context(user_in);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector when all are allowed");
    c = user_context(user_in);
    c.rflags |= 0x3000;
    big.bitmap[0x300 / 8] = 0xff;
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector with IOPL 3");
    guest_gdt[SEL_TSS / 8] &= ~BIT(41);
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
    verdict("I/O permission bitmap and IOPL");
}

/* --- registers in memory --- */

#define AT(offset) ((void *)(REGS + (offset)))

static void memory_widths(void)
{
    uint64_t a;
    start();
    __asm__ volatile("movb %%al, (%1)" : : "a"(0x88), "r"(AT(7)) : "memory");
    expect_access(1, ACCESS(1, 1, 0, 7), "8 bits written");
    __asm__ volatile("movw %%ax, (%1)" : : "a"(0x7766), "r"(AT(4)) : "memory");
    expect_access(1, ACCESS(2, 1, 0, 4), "16 bits written");
    __asm__ volatile("movl %%eax, (%1)" : : "a"(0x44332211), "r"(AT(0)) : "memory");
    expect_access(1, ACCESS(4, 1, 0, 0), "32 bits written");
    __asm__ volatile("movq %%rax, (%1)" : : "a"(UINT64_C(0xf1f2f3f4f5f6f7f8)), "r"(AT(8)) : "memory");
    expect_access(1, ACCESS(8, 1, 0, 8), "64 bits written");
    __asm__ volatile("movl $0x12345678, (%0)" : : "r"(AT(16)) : "memory");
    expect_access(1, ACCESS(4, 1, 0, 16), "immediate written");
    a = UINT64_MAX;
    __asm__ volatile("movb (%1), %%al" : "+a"(a) : "r"(AT(7)));
    expect_equal(a, 0xffffffffffffff88, "8 bits");
    expect_access(1, ACCESS(1, 0, 0, 7), "8 bits read");
    __asm__ volatile("movw (%1), %%ax" : "+a"(a) : "r"(AT(4)));
    expect_equal(a, 0xffffffffffff7766, "16 bits");
    expect_access(1, ACCESS(2, 0, 0, 4), "16 bits read");
    __asm__ volatile("movl (%1), %%eax" : "+a"(a) : "r"(AT(0)));
    expect_equal(a, 0x44332211, "32 bits");
    expect_access(1, ACCESS(4, 0, 0, 0), "32 bits read");
    __asm__ volatile("movq (%1), %%rax" : "+a"(a) : "r"(AT(8)));
    expect_equal(a, 0xf1f2f3f4f5f6f7f8, "64 bits");
    expect_access(1, ACCESS(8, 0, 0, 8), "64 bits read");
    __asm__ volatile("movzbl (%1), %%eax" : "=a"(a) : "r"(AT(7)));
    expect_equal(a, 0x88, "zero-extended");
    __asm__ volatile("movswq (%1), %%rax" : "=a"(a) : "r"(AT(8)));
    expect_equal(a, 0xfffffffffffff7f8, "sign-extended");
    expect_access(2, ACCESS(2, 0, 0, 8), "extended reads");
    __asm__ volatile("movabs 0xd0000010, %%eax" : "=a"(a));
    expect_equal(a, 0x12345678, "by absolute address");
    counted = count();
    __asm__ volatile("testl $8, (%0)" : : "r"(AT(16)) : "cc");
    expect_access(1, ACCESS(4, 0, 0, 16), "TEST");
    __asm__ volatile("cmpb $8, (%0)" : : "r"(AT(16)) : "cc");
    expect_access(1, ACCESS(1, 0, 0, 16), "CMP");
    verdict("registers in memory: reads and writes");
}

static void memory_modify(void)
{
    uint64_t a;
    *(volatile uint64_t *)AT(0x20) = 5;
    start();
    __asm__ volatile("addl $3, (%0)" : : "r"(AT(0x20)) : "memory", "cc");
    expect_access(2, ACCESS(4, 1, 0, 0x20), "ADD");
    __asm__ volatile("lock orq $0x30, (%0)" : : "r"(AT(0x20)) : "memory", "cc");
    expect_access(2, ACCESS(8, 1, 0, 0x20), "LOCK OR");
    a = 0x77;
    __asm__ volatile("xchgl %%eax, (%1)" : "+a"(a) : "r"(AT(0x20)) : "memory");
    expect_equal(a, 0x38, "XCHG");
    expect_access(2, ACCESS(4, 1, 0, 0x20), "XCHG");
    a = 1;
    __asm__ volatile("xaddw %%ax, (%1)" : "+a"(a) : "r"(AT(0x20)) : "memory", "cc");
    expect_equal(a, 0x77, "XADD");
    a = 0x78;
    __asm__ volatile("lock cmpxchgl %2, (%1)" : "+a"(a) : "r"(AT(0x20)), "r"(0x99) : "memory", "cc");
    expect_equal(*(volatile uint32_t *)AT(0x20), 0x99, "CMPXCHG");
    __asm__ volatile("btsl $10, (%0); incb (%0); shlw $1, (%0); notb (%0)"
                     :
                     : "r"(AT(0x20))
                     : "memory", "cc");
    expect_equal(*(volatile uint16_t *)AT(0x20), 0x9cb, "BTS, INC, SHL, NOT");
    verdict("registers in memory: read-modify-write");
}

static void memory_others(void)
{
    uint64_t a;
    start();
    __asm__ volatile("pushq (%1); pop %0" : "=r"(a) : "r"(AT(8)) : "memory");
    expect_equal(a, 0xf1f2f3f4f5f6f7f8, "PUSH");
    expect_access(1, ACCESS(8, 0, 0, 8), "PUSH");
    __asm__ volatile("push %0; popq (%1)" : : "r"(a + 1), "r"(AT(0x28)) : "memory");
    expect_access(1, ACCESS(8, 1, 0, 0x28), "POP");
    expect_equal(*(volatile uint64_t *)AT(0x28), a + 1, "POP");
    static const uint64_t source[4] = {1, 2, 3, 4};
    void *to = AT(0x100);
    const void *from = source;
    uint64_t n = 4;
    start();
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    expect_access(4, ACCESS(8, 1, 0, 0x118), "REP MOVSQ to registers");
    to = scratch;
    from = AT(0x100);
    n = 8;
    __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    expect_access(8, ACCESS(4, 0, 0, 0x11c), "REP MOVSD from registers");
    expect_equal(*(uint64_t *)(void *)(scratch + 16), 3, "what was copied");
    to = AT(0x200);
    n = 6;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(0xab) : "memory");
    expect_access(6, ACCESS(1, 1, 0, 0x205), "REP STOSB");
    from = AT(0x200);
    __asm__ volatile("lodsw" : "+S"(from), "=a"(a));
    expect_equal(a & 0xffff, 0xabab, "LODSW");
    to = AT(0x203);
    __asm__ volatile("scasb; setz %b1" : "+D"(to), "+a"(a) : : "cc");
    from = AT(0x108);
    to = AT(0x108);
    counted = count();
    __asm__ volatile("cmpsq; setz %b2" : "+S"(from), "+D"(to), "=q"(a) : : "memory", "cc");
    expect_equal(a & 0xff, 1, "CMPSQ");
    expect_access(2, ACCESS(8, 0, 0, 0x108), "CMPSQ");
    verdict("registers in memory: stack and strings");
}

static void memory_vectors(void)
{
    void *to = AT(0x108);
    uint64_t a;
    start();
    __asm__ volatile("movq %1, %%xmm0; movq %%xmm0, (%0); movd (%0), %%xmm1; movd %%xmm1, %%eax"
                     :
                     : "r"(AT(0x30)), "r"(UINT64_C(0x1020304050607080))
                     : "memory", "rax");
    expect_access(2, ACCESS(4, 0, 0, 0x30), "MOVD");
    expect_equal(*(volatile uint64_t *)AT(0x30), 0x1020304050607080, "MOVQ");
    __asm__ volatile(
        "pshufd $0x44, %%xmm0, %%xmm0; movups %%xmm0, (%0); pxor %%xmm1, %%xmm1; movups (%0), %%xmm1;"
        "psrldq $8, %%xmm1; movq %%xmm1, %1"
        : "+r"(to), "=r"(a)
        :
        : "memory");
    verdict("registers in memory: SSE");
}

/* Over the end of a page: RAM on one side, registers on the other. */
static void memory_crossing(void)
{
    uint8_t *ram = new_page();
    map_page(TEST_BASE + 0x10000, (uintptr_t)ram, PG_P | PG_W);
    map_page(TEST_BASE + 0x11000, REGS, PG_P | PG_W);
    volatile uint64_t *at = (volatile uint64_t *)(TEST_BASE + 0x11000 - 3);
    *at = 0x8877665544332211;
    expect_equal(*(volatile uint32_t *)AT(0), 0x77665544, "in registers");
    expect_equal(ram[0xffd], 0x11, "in RAM");
    expect_equal(*at, 0x8877665544332211, "read back");
    __asm__ volatile("addq $0x1, (%0)" : : "r"(at) : "memory", "cc");
    expect_equal(*at, 0x8877665544332212, "modified");
    verdict("an access over the end of RAM into registers");
}

void guest_main(void)
{
    if (!in_harness()) {
        check(true, "these tests need the harness");
        return;
    }
    port_widths();
    port_strings();
    permission_bitmap();
    memory_widths();
    memory_modify();
    memory_others();
    if (harness_limits() & LIMIT_EMULATOR)
        skip("registers in memory: SSE", "KVM's emulator has no MOVQ and MOVD");
    else
        memory_vectors();
    memory_crossing();
}
