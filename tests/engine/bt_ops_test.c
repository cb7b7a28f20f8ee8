/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bt engine's C instructions one at a time, without its translator: strings against a model of memory,
 * control registers, MSRs, ports and the paravirtual clock against their rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bt_ops.h"
#include "engine/bt/pvclock.h"
#include "os/loop.h"

/* ---- strings ---- */

static uint8_t ref[WINDOW_SIZE];

struct string_case {
    uint8_t opcode, rep;
    unsigned size;
    bool down;
    uint64_t rsi, rdi, rcx, rax;
};

static bool ref_mapped(uint64_t lin, unsigned size, uint64_t *bad)
{
    for (unsigned i = 0; i < size; i++)
        if (lin + i < WINDOW || lin + i >= WINDOW + WINDOW_SIZE) {
            *bad = i && (lin + i) % GUEST_PAGE_SIZE ? lin : lin + i;
            return false;
        }
    return true;
}

static uint64_t ref_load(uint64_t lin, unsigned size)
{
    uint64_t v = 0;
    memcpy(&v, ref + (lin - WINDOW), size);
    return v;
}

static uint64_t sub_flags(uint64_t a, uint64_t b, unsigned size)
{
    uint64_t flags;
    if (size == 1)
        __asm__("cmpb %b2, %b1; pushfq; pop %0" : "=r"(flags) : "q"(a), "q"(b) : "cc");
    else if (size == 2)
        __asm__("cmpw %w2, %w1; pushfq; pop %0" : "=r"(flags) : "r"(a), "r"(b) : "cc");
    else if (size == 4)
        __asm__("cmpl %k2, %k1; pushfq; pop %0" : "=r"(flags) : "r"(a), "r"(b) : "cc");
    else
        __asm__("cmpq %2, %1; pushfq; pop %0" : "=r"(flags) : "r"(a), "r"(b) : "cc");
    return flags & FLAGS_STATUS;
}

/* The instruction as the manual tells it. Returns whether it faults, with the address. */
static bool ref_string(struct string_case *c, uint64_t *flags, uint64_t *cr2)
{
    bool movs = c->opcode == 0xa4, cmps = c->opcode == 0xa6, stos = c->opcode == 0xaa,
         lods = c->opcode == 0xac, scas = c->opcode == 0xae;
    uint64_t step = c->down ? 0 - (uint64_t)c->size : c->size;
    while (!c->rep || c->rcx) {
        uint64_t a = c->rax, b = 0;
        if ((movs || cmps || lods) && !ref_mapped(c->rsi, c->size, cr2))
            return true;
        if (movs || cmps || lods)
            a = ref_load(c->rsi, c->size);
        if (!lods && !ref_mapped(c->rdi, c->size, cr2))
            return true;
        if (cmps || scas) {
            b = ref_load(c->rdi, c->size);
            *flags = sub_flags(a, b, c->size);
        } else if (lods) {
            memcpy(&c->rax, &a, c->size);
            if (c->size == 4)
                c->rax = (uint32_t)c->rax;
        } else {
            memcpy(ref + (c->rdi - WINDOW), &a, c->size);
        }
        c->rsi += movs || cmps || lods ? step : 0;
        c->rdi += !lods ? step : 0;
        if (!c->rep)
            break;
        c->rcx--;
        bool equal = *flags & FLAG_ZF;
        if ((cmps || scas) && equal != (c->rep == 0xf3))
            break;
        (void)stos;
    }
    return false;
}

static struct string_case random_case(void)
{
    static const uint8_t opcodes[] = {0xa4, 0xa4, 0xaa, 0xaa, 0xa6, 0xae, 0xac};
    struct string_case c = {.opcode = opcodes[(unsigned)rand() % sizeof(opcodes)],
                            .size = 1u << (rand() & 3)};
    c.rep = rand() % 4 ? (rand() & 1 ? 0xf3 : 0xf2) : 0;
    if (c.rep == 0xf2 && c.opcode != 0xa6 && c.opcode != 0xae)
        c.rep = 0xf3;
    c.down = rand() % 3 == 0;
    c.rsi = WINDOW + (uint64_t)rand() % WINDOW_SIZE;
    c.rdi = rand() % 3 ? WINDOW + (uint64_t)rand() % WINDOW_SIZE : c.rsi + (uint64_t)(rand() % 32) - 16;
    c.rcx = (uint64_t)rand() % (rand() & 1 ? 40 : 6000);
    c.rax = rand() & 1 ? random64() : 0;
    return c;
}

static void test_strings(void **state)
{
    seed();
    for (int n = 0; n < 4000; n++) {
        struct string_case c = random_case(), before = c;
        /* Long equal stretches, so that comparisons get somewhere. */
        for (unsigned i = 0; i < WINDOW_SIZE; i++)
            ref[i] = rand() % 200 ? 0 : (uint8_t)rand();
        for (unsigned p = 0; p < PAGES; p++)
            memcpy(window_host(p * GUEST_PAGE_SIZE), ref + p * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
        uint8_t code[4], len = 0;
        if (c.rep)
            code[len++] = c.rep;
        if (c.size == 2)
            code[len++] = 0x66;
        if (c.size == 8)
            code[len++] = 0x48;
        code[len++] = c.opcode | (c.size > 1);
        cpu->gpr[R_RSI] = c.rsi;
        cpu->gpr[R_RDI] = c.rdi;
        cpu->gpr[R_RCX] = c.rcx;
        cpu->gpr[R_RAX] = c.rax;
        uint64_t flags = FLAG_CF | FLAG_OF, cr2 = 0;
        bt_set_rflags(cpu, 2 | flags | (c.down ? FLAG_DF : 0));
        enum outcome o = run_to_end(code, len);
        bool fault = ref_string(&c, &flags, &cr2);
        if ((o == FAULT) != fault || cpu->gpr[R_RSI] != c.rsi || cpu->gpr[R_RDI] != c.rdi ||
            cpu->gpr[R_RCX] != c.rcx || cpu->gpr[R_RAX] != c.rax || (!fault && bt_status(cpu) != flags))
            fail_msg(
                "case %d: opcode %02x rep %02x size %u %s rsi %lx rdi %lx rcx %lx: engine %d rsi %lx rdi %lx "
                "rcx %lx flags %lx, expected %d %lx %lx %lx %lx",
                n, c.opcode, c.rep, c.size, c.down ? "down" : "up", before.rsi, before.rdi, before.rcx, o,
                cpu->gpr[R_RSI], cpu->gpr[R_RDI], cpu->gpr[R_RCX], bt_status(cpu), fault, c.rsi, c.rdi, c.rcx,
                flags);
        if (fault) {
            assert_int_equal(cpu->exc.vector, VEC_PF);
            assert_int_equal(cpu->exc.cr2, cr2);
        }
        for (unsigned p = 0; p < PAGES; p++)
            assert_memory_equal(window_host(p * GUEST_PAGE_SIZE), ref + p * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
    }
}

/* With a kick pending a long run stops between elements, and is resumed to the same end. */
static void test_string_interruptible(void **state)
{
    cpu->gpr[R_RDI] = WINDOW + 5;
    cpu->gpr[R_RCX] = 5000;
    cpu->gpr[R_RAX] = 0x5a;
    unsigned rounds = 0;
    enum outcome o;
    do {
        atomic_store(&cpu->kick, 1);
        uint64_t left = cpu->gpr[R_RCX];
        o = RUN("\xf3\xaa");
        assert_true(cpu->gpr[R_RCX] < left); /* progress every time */
        rounds++;
    } while (o == AGAIN);
    assert_int_equal(o, DONE);
    assert_true(rounds > 1);
    assert_int_equal(cpu->gpr[R_RDI], WINDOW + 5005);
    atomic_store(&cpu->kick, 0);
    /* Single steps see every element. */
    bt_set_rflags(cpu, 2 | FLAG_TF);
    cpu->gpr[R_RCX] = 3;
    assert_int_equal(RUN("\xf3\xaa"), AGAIN);
    assert_int_equal(cpu->gpr[R_RCX], 2);
}

static void test_string_address_sizes(void **state)
{
    /* 32-bit addresses in 64-bit mode: registers are cut, and wrap. */
    cpu->gpr[R_RDI] = UINT64_C(0xdeadbeef00000000) | (WINDOW + 16);
    cpu->gpr[R_RCX] = UINT64_C(0x1200000003);
    cpu->gpr[R_RAX] = 0x11223344;
    assert_int_equal(run_to_end("\x67\xf3\xab", 3), DONE);
    assert_int_equal(cpu->gpr[R_RDI], WINDOW + 28);
    assert_int_equal(cpu->gpr[R_RCX], 0);
    assert_int_equal(load_le32(window_host(24)), 0x11223344);
    /* A segment base, and a limit in 32-bit code. */
    compatibility_mode();
    cpu->seg[SEG_FS].base = WINDOW;
    cpu->seg[SEG_ES].limit = WINDOW + 103;
    bt_mode_update(cpu);
    memcpy(window_host(0), "0123456789", 10);
    cpu->gpr[R_RSI] = 0;
    cpu->gpr[R_RDI] = WINDOW + 100;
    cpu->gpr[R_RCX] = 10;
    assert_exception(run_to_end("\x64\xf3\xa4", 3), VEC_GP);
    assert_int_equal(cpu->gpr[R_RCX], 6);
    assert_memory_equal(window_host(100), "0123", 4);
}

static void test_ports(void **state)
{
    port_value = 0x11223344;
    cpu->gpr[R_RDX] = 0x3f8;
    cpu->gpr[R_RAX] = UINT64_C(0x5555555555555555);
    ASSERT_OK("\xec");
    assert_int_equal(cpu->gpr[R_RAX], UINT64_C(0x5555555555555544));
    ASSERT_OK("\xed");
    assert_int_equal(cpu->gpr[R_RAX], 0x11223345);
    ASSERT_OK("\xe6\x80");
    assert_int_equal(port_writes, 1);
    cpu->cr4 |= CR4_DE;
    cpu->dr[2] = 0x80;
    cpu->dr[7] = 0x400 | BIT(4) | BIT(25); /* DR2 on the port */
    ASSERT_OK("\xe6\x82");
    assert_int_equal(cpu->pending_db, 0);
    ASSERT_OK("\xe7\x7e"); /* up to port 0x81 */
    assert_int_equal(cpu->pending_db, BIT(2));
    cpu->pending_db = cpu->dr[7] = 0;
    /* INS to a page that is not there does not read the port. */
    port_reads = 0;
    cpu->gpr[R_RDI] = WINDOW + WINDOW_SIZE - 4;
    cpu->gpr[R_RCX] = 8;
    assert_exception(run_to_end("\xf3\x66\x6d", 3), VEC_PF);
    assert_int_equal(port_reads, 2);
    assert_int_equal(cpu->gpr[R_RCX], 6);
    /* The TSS's bitmap: port 0x3f8 is closed, 0x3f9..0x3fb are open; the last byte must be there too. */
    uint8_t tss[0x100];
    memset(tss, 0, sizeof(tss));
    store_le16(tss + 102, 0x68);
    tss[0x68 + 0x3f8 / 8] = 1;
    guest_write(memory, TSS, tss, sizeof(tss));
    cpu->seg[SEG_TR].limit = 0x68 + 0x3f8 / 8 + 1;
    user_mode();
    cpu->gpr[R_RDX] = 0x3f8;
    ASSERT_GP("\xec");
    cpu->gpr[R_RDX] = 0x3f9;
    ASSERT_OK("\xec");
    cpu->gpr[R_RDX] = 0x3f7;
    ASSERT_GP("\x66\xed"); /* touches 0x3f8 */
    cpu->gpr[R_RDX] = 0x3f9;
    cpu->seg[SEG_TR].limit--;
    ASSERT_GP("\xec");
    bt_set_rflags(cpu, 2 | FLAG_IOPL);
    ASSERT_OK("\xec");
}

/* ---- control registers and MSRs ---- */

static enum outcome mov_cr0(uint64_t v)
{
    cpu->gpr[R_RAX] = v;
    return RUN("\x0f\x22\xc0");
}

static enum outcome mov_cr3(uint64_t v)
{
    cpu->gpr[R_RAX] = v;
    return RUN("\x0f\x22\xd8");
}

static enum outcome mov_cr4(uint64_t v)
{
    cpu->gpr[R_RAX] = v;
    return RUN("\x0f\x22\xe0");
}

static void test_control_registers(void **state)
{
    uint64_t cr0 = cpu->cr0, cr4 = cpu->cr4;
    assert_exception(mov_cr0(cr0 | BIT(32)), VEC_GP);
    assert_exception(mov_cr0(cr0 & ~CR0_PE), VEC_GP);
    assert_exception(mov_cr0(cr0 | CR0_NW), VEC_GP);
    assert_exception(mov_cr0(cr0 & ~CR0_PG), VEC_GP); /* from 64-bit code */
    assert_int_equal(mov_cr0(cr0 & ~CR0_ET), DONE);
    assert_int_equal(cpu->cr0, cr0);
    assert_exception(mov_cr4(cr4 & ~CR4_PAE), VEC_GP);
    assert_exception(mov_cr4(cr4 | BIT(12)), VEC_GP); /* LA57 */
    assert_exception(mov_cr4(cr4 | BIT(13)), VEC_GP); /* VMXE */
    assert_exception(mov_cr4(cr4 | CR4_VME), VEC_GP);
    assert_exception(mov_cr4(cr4 | BIT(32)), VEC_GP);
    assert_exception(mov_cr3(BIT(46) | PAGE_TABLES), VEC_GP);
    assert_exception(mov_cr3(BIT(63) | PAGE_TABLES), VEC_GP); /* no PCIDs yet */
    assert_int_equal(mov_cr3(PAGE_TABLES | 5), DONE);
    assert_exception(mov_cr4(cr4 | CR4_PCIDE), VEC_GP); /* PCID is not 0 */
    assert_int_equal(mov_cr3(PAGE_TABLES), DONE);
    assert_int_equal(mov_cr4(cr4 | CR4_PCIDE), DONE);
    assert_int_equal(mov_cr3(BIT(63) | PAGE_TABLES | 5), DONE);
    assert_int_equal(cpu->cr3, PAGE_TABLES | 5);
    assert_exception(mov_cr0(cr0 & ~CR0_PG), VEC_GP);
    cpu->gpr[R_RAX] = 16;
    ASSERT_GP("\x44\x0f\x22\xc0"); /* CR8 */
    cpu->gpr[R_RAX] = 9;
    ASSERT_OK("\x44\x0f\x22\xc0");
    ASSERT_OK("\x44\x0f\x20\xc3");
    assert_int_equal(cpu->gpr[R_RBX], 9);
    /* INVPCID: types, reserved bits, addresses. */
    uint64_t descriptor[2] = {0x1000, 0};
    write_window(0, (uint8_t *)descriptor, 16);
    cpu->gpr[R_RCX] = WINDOW;
    cpu->gpr[R_RAX] = 4;
    ASSERT_GP("\x66\x0f\x38\x82\x01");
    cpu->gpr[R_RAX] = 2;
    ASSERT_GP("\x66\x0f\x38\x82\x01");
    descriptor[0] = 1;
    descriptor[1] = BIT(50);
    write_window(0, (uint8_t *)descriptor, 16);
    ASSERT_OK("\x66\x0f\x38\x82\x01");
    cpu->gpr[R_RAX] = 0;
    ASSERT_GP("\x66\x0f\x38\x82\x01");
    /* XSETBV */
    cpu->gpr[R_RCX] = cpu->gpr[R_RDX] = 0;
    const uint64_t refused[] = {0, 2, 5, 6, 7 | BIT(5), 7 | BIT(9)};
    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        cpu->gpr[R_RAX] = refused[i];
        ASSERT_GP("\x0f\x01\xd1");
    }
    cpu->gpr[R_RAX] = 3;
    ASSERT_OK("\x0f\x01\xd1");
    assert_int_equal(cpu->xcr0, 3);
    ASSERT_OK("\x0f\x01\xd0");
    assert_int_equal(cpu->gpr[R_RAX], 3);
    user_mode();
    ASSERT_GP("\x0f\x22\xc0");
    ASSERT_GP("\x0f\x20\xc0");
    ASSERT_GP("\x0f\x01\xd1");
    ASSERT_GP("\x0f\x06");
    ASSERT_GP("\xf4");
    ASSERT_GP("\x0f\x09");
    ASSERT_GP("\x0f\x32");
    ASSERT_GP("\x0f\x30");
    ASSERT_GP("\x0f\x33");
    ASSERT_GP("\x0f\x21\xf8");
    ASSERT_OK("\x0f\x01\xe0"); /* SMSW */
    ASSERT_OK("\x0f\x31");     /* RDTSC */
    cpu->cr4 |= CR4_UMIP | CR4_TSD;
    ASSERT_GP("\x0f\x01\xe0");
    ASSERT_GP("\x0f\x31");
}

static void test_debug_registers(void **state)
{
    cpu->gpr[R_RAX] = UINT32_MAX & ~BIT(13);
    ASSERT_OK("\x0f\x23\xf8");
    assert_int_equal(cpu->dr[7], 0xffff07ff);
    ASSERT_OK("\x0f\x23\xf0");
    assert_int_equal(cpu->dr[6], 0xffffcfff);
    cpu->gpr[R_RAX] = BIT(32);
    ASSERT_GP("\x0f\x23\xf8");
    ASSERT_OK("\x0f\x21\xe3"); /* DR4 is DR6 ... */
    assert_int_equal(cpu->gpr[R_RBX], 0xffffcfff);
    cpu->cr4 |= CR4_DE;
    ASSERT_UD("\x0f\x21\xe3"); /* ... without CR4.DE */
    cpu->gpr[R_RAX] = BIT(13);
    ASSERT_OK("\x0f\x23\xf8");
    assert_exception(RUN("\x0f\x21\xc3"), VEC_DB);
    assert_int_equal(cpu->exc.dr6, BIT(13));
}

static enum outcome wrmsr(uint32_t msr, uint64_t v)
{
    cpu->gpr[R_RCX] = msr;
    cpu->gpr[R_RAX] = (uint32_t)v;
    cpu->gpr[R_RDX] = v >> 32;
    return RUN("\x0f\x30");
}

static uint64_t rdmsr(uint32_t msr)
{
    cpu->gpr[R_RCX] = msr;
    assert_int_equal(RUN("\x0f\x32"), DONE);
    return cpu->gpr[R_RDX] << 32 | cpu->gpr[R_RAX];
}

static void test_msrs(void **state)
{
    const uint64_t odd = UINT64_C(0x0123456789abcdef); /* not canonical */
    const uint32_t addresses[] = {0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102, 0x175, 0x176};
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++) {
        assert_exception(wrmsr(addresses[i], odd), VEC_GP);
        assert_int_equal(wrmsr(addresses[i], UINT64_C(0xffff800012345678)), DONE);
        assert_int_equal(rdmsr(addresses[i]), UINT64_C(0xffff800012345678));
    }
    assert_int_equal(cpu->seg[SEG_GS].base, UINT64_C(0xffff800012345678));
    assert_int_equal(wrmsr(0xc0000081, odd), DONE);
    assert_int_equal(rdmsr(0xc0000081), odd);
    assert_exception(wrmsr(0xc0000080, cpu->efer & ~EFER_LME), VEC_GP); /* while paging is on */
    assert_exception(wrmsr(0xc0000080, cpu->efer | BIT(12)), VEC_GP);   /* SVME */
    assert_int_equal(wrmsr(0xc0000080, cpu->efer & ~EFER_LMA), DONE);   /* LMA is read-only */
    assert_int_equal(rdmsr(0xc0000080) & EFER_LMA, EFER_LMA);
    assert_exception(wrmsr(0x277, 2), VEC_GP); /* PAT */
    assert_int_equal(wrmsr(0x277, UINT64_C(0x0007040600070406)), DONE);
    assert_exception(wrmsr(0x200, 2), VEC_GP);
    assert_exception(wrmsr(0x200, BIT(46)), VEC_GP);
    assert_int_equal(wrmsr(0x20f, UINT64_C(0x3fff80000800)), DONE);
    assert_int_equal(rdmsr(0x20f), UINT64_C(0x3fff80000800));
    assert_exception(wrmsr(0x210, 0), VEC_GP); /* the ninth range */
    assert_exception(wrmsr(0x2ff, BIT(12)), VEC_GP);
    assert_exception(wrmsr(0xfe, 0), VEC_GP);
    assert_int_equal(rdmsr(0xfe), 0x508);
    const uint32_t unknown[] = {0x3, 0x9e, 0x40000000, 0x4b564d03, 0xc0010117, 0xc0000104, 0xda0, UINT32_MAX};
    for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
        assert_exception(wrmsr(unknown[i], 0), VEC_GP);
        cpu->gpr[R_RCX] = unknown[i];
        ASSERT_GP("\x0f\x32");
    }
    /* The TSC jumps by what is written, and TSC_ADJUST follows. */
    uint64_t adjust = rdmsr(0x3b);
    assert_int_equal(wrmsr(0x10, 1000), DONE);
    uint64_t now = rdmsr(0x10);
    assert_true(now > 1000 && now < 1000 + model.tsc_hz);
    adjust = rdmsr(0x3b) - adjust;
    assert_int_equal(wrmsr(0x3b, rdmsr(0x3b) - adjust), DONE);
    assert_true(rdmsr(0x10) - (now - adjust) < model.tsc_hz);
}

static void test_pvclock(void **state)
{
    struct {
        uint32_t version, pad;
        uint64_t tsc, ns;
        uint32_t mul;
        int8_t shift;
        uint8_t flags;
    } page;
    assert_int_equal(wrmsr(0x4b564d01, 0x30001), DONE);
    assert_int_equal(rdmsr(0x4b564d01), 0x30001);
    for (int i = 0; i < 2; i++) {
        guest_read(memory, 0x30000, &page, sizeof(page));
        assert_true(page.version && !(page.version & 1));
        assert_int_equal(page.flags, 1);
        uint64_t before = monotonic_ns(), delta = bt_rdtsc(cpu) - page.tsc, after = monotonic_ns();
        delta = page.shift < 0 ? delta >> -page.shift : delta << page.shift;
        uint64_t ns = page.ns + (uint64_t)((unsigned __int128)delta * page.mul >> 32);
        assert_true(ns + 100000 > before && ns < after + 100000);
        /* One second of TSC is one second, to some parts in 10^9. */
        uint64_t second = page.shift < 0 ? model.tsc_hz >> -page.shift : model.tsc_hz << page.shift;
        uint64_t length = (uint64_t)((unsigned __int128)second * page.mul >> 32);
        assert_true(length >= 999999990 && length <= 1000000000);
        assert_int_equal(wrmsr(0x10, UINT64_C(0x123456789)), DONE); /* the page follows the TSC */
    }
    assert_int_equal(wrmsr(0x4b564d00, 0x31000), DONE);
    uint32_t wall[3];
    guest_read(memory, 0x31000, wall, sizeof(wall));
    uint64_t now = wall[1] + (wall[2] + monotonic_ns()) / 1000000000;
    assert_true(now >= (uint64_t)time(NULL) - 1 && now <= (uint64_t)time(NULL) + 1);
    /* Addresses that are not RAM are not written to and harm nobody. */
    assert_int_equal(wrmsr(0x4b564d01, UINT64_C(0xfffffffffffffff1)), DONE);
    assert_int_equal(wrmsr(0x4b564d00, UINT64_C(0xfffffffffffffff0)), DONE);
}

static void test_misc(void **state)
{
    cpu->gpr[R_RAX] = 0;
    ASSERT_OK("\x0f\xa2");
    assert_int_equal(cpu->gpr[R_RAX], 0x16);
    cpu->gpr[R_RAX] = 10; /* send-IPI to nobody */
    cpu->gpr[R_RBX] = 0;
    ASSERT_OK("\x0f\x01\xc1");
    assert_int_equal(cpu->gpr[R_RAX], 0);
    cpu->gpr[R_RAX] = 12345;
    ASSERT_OK("\x0f\x01\xd9");
    assert_int_equal((int64_t)cpu->gpr[R_RAX], -1000);
    uint64_t first, a;
    ASSERT_OK("\x48\x0f\xc7\xf0"); /* RDRAND */
    first = cpu->gpr[R_RAX];
    assert_true(bt_status(cpu) & FLAG_CF);
    ASSERT_OK("\x48\x0f\xc7\xf8");
    a = cpu->gpr[R_RAX];
    assert_true(first != a);
    ASSERT_OK("\xf3\x90");
    ASSERT_UD("\x0f\x0b");
    ASSERT_OK("\xf4");
    assert_int_equal(cpu->mp_state, MP_HALTED);
    user_mode();
    cpu->gpr[R_RAX] = 1;
    ASSERT_OK("\x0f\x01\xc1");
    assert_int_equal((int64_t)cpu->gpr[R_RAX], -1); /* not for users */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, bt_ops_setup, bt_ops_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_strings),
        TEST(test_string_interruptible),
        TEST(test_string_address_sizes),
        TEST(test_ports),
        TEST(test_control_registers),
        TEST(test_debug_registers),
        TEST(test_msrs),
        TEST(test_pvclock),
        TEST(test_misc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
