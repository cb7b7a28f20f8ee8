/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bt engine's C instructions one at a time, without its translator: strings against a model of memory,
 * vector state against the host's own instructions, control registers, MSRs, ports and the paravirtual clock
 * against their rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "core/engine.h"
#include "engine/bt/flags.h"
#include "engine/bt/ops.h"
#include "engine/bt/pvclock.h"
#include "engine/bt/vec.h"
#include "os/loop.h"

#define PAGE_TABLES 0x1000
#define CODE        0x8000
#define WINDOW      0x100000 /* linear; the pages behind it are out of order */
#define PAGES       8
#define WINDOW_SIZE (PAGES * GUEST_PAGE_SIZE)
#define WINDOW_PHYS 0x200000
#define TSS         0x20000

static struct cpuid_model model;
static struct guest_memory *memory;
static const struct engine_ops *ops;
static struct engine *engine;
static struct bt_cpu *cpu;
static uint32_t port_value;
static unsigned port_reads, port_writes;

static uint32_t port_read(void *opaque, uint16_t port, unsigned size)
{
    port_reads++;
    return port_value++;
}

static void port_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    port_writes++;
    port_value = value;
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    return ~UINT64_C(0);
}

static void mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
}

static uint64_t host_now(void *opaque)
{
    return monotonic_ns();
}

static const struct engine_host host = {.port_read = port_read,
                                        .port_write = port_write,
                                        .mmio_read = mmio_read,
                                        .mmio_write = mmio_write,
                                        .now = host_now};

static uint64_t window_gpa(unsigned page)
{
    return WINDOW_PHYS + (uint64_t)(page * 5 % PAGES) * GUEST_PAGE_SIZE;
}

static uint8_t *window_host(unsigned offset)
{
    return (uint8_t *)guest_ptr(memory, window_gpa(offset / GUEST_PAGE_SIZE), GUEST_PAGE_SIZE, true) +
           offset % GUEST_PAGE_SIZE;
}

static void put64(uint64_t gpa, uint64_t value)
{
    assert_true(guest_write(memory, gpa, &value, sizeof(value)));
}

static void map_pages(void)
{
    for (unsigned level = 0; level < 3; level++)
        put64(PAGE_TABLES + level * 0x1000, (PAGE_TABLES + (level + 1) * 0x1000) | 7);
    for (unsigned i = 0; i < 512; i++)
        put64(PAGE_TABLES + 0x3000 + 8 * i, (uint64_t)i << 12 | 7);
    unsigned first = WINDOW / GUEST_PAGE_SIZE;
    for (unsigned i = 0; i < PAGES; i++)
        put64(PAGE_TABLES + 0x3000 + 8 * (first + i), window_gpa(i) | 7);
    put64(PAGE_TABLES + 0x3000 + 8 * (first - 1), 0);
    put64(PAGE_TABLES + 0x3000 + 8 * (first + PAGES), 0);
}

/* 64-bit kernel code, flat, paging on. */
static void long_mode(void)
{
    const uint32_t data = ATTR_P | ATTR_S | 3;
    for (unsigned i = 0; i <= SEG_GS; i++)
        cpu->seg[i] =
            (struct x86_segment){.selector = 0x10, .attr = data | ATTR_DB | ATTR_G, .limit = UINT32_MAX};
    cpu->seg[SEG_CS].attr = ATTR_P | ATTR_S | ATTR_L | ATTR_G | 11;
    cpu->seg[SEG_TR] =
        (struct x86_segment){.selector = 0x20, .attr = ATTR_P | 11, .limit = 0x67, .base = TSS};
    cpu->cr0 = CR0_PG | CR0_PE | CR0_WP | CR0_NE | CR0_ET | CR0_MP;
    cpu->cr3 = PAGE_TABLES;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_PGE;
    if (model.xcr0_mask & 2)
        cpu->cr4 |= CR4_OSXSAVE;
    cpu->xcr0 = model.xcr0_mask;
    cpu->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    cpu->cpl = 0;
    bt_set_rflags(cpu, 2);
    bt_tlb_flush(cpu, true);
    bt_mode_update(cpu);
}

/* 32-bit code of the same (compatibility mode). */
static void compatibility_mode(void)
{
    cpu->seg[SEG_CS].attr = ATTR_P | ATTR_S | ATTR_DB | ATTR_G | 11;
    bt_mode_update(cpu);
}

static void user_mode(void)
{
    cpu->cpl = 3;
    bt_mode_update(cpu);
}

static int setup(void **state)
{
    struct error *err = NULL;
    assert_true(cpuid_model_build(&model, "host", 1, NULL));
    memory = guest_memory_new(4 * MIB, NULL);
    assert_non_null(memory);
    for (unsigned i = 0; engines[i]; i++)
        if (!strcmp(engines[i]->name, "bt"))
            ops = engines[i];
    assert_non_null(ops);
    struct engine_config config = {.memory = memory, .host = &host, .cpu_count = 1, .cpu = &model};
    engine = ops->open(&config, &err);
    if (!engine)
        fail_msg("%s", error_text(err));
    cpu = (struct bt_cpu *)(void *)ops->vcpu_new(engine, 0, &err);
    assert_non_null(cpu);
    map_pages();
    long_mode();
    port_reads = port_writes = 0;
    return 0;
}

static int teardown(void **state)
{
    ops->close(engine);
    guest_memory_free(memory);
    return 0;
}

enum outcome { DONE, AGAIN, FAULT };

/* Executes one instruction (once, when it repeats). */
static enum outcome run(const void *code, size_t len)
{
    struct bt_op op = {0};
    assert_int_equal(x86_decode(&op.insn, code, len, cpu->mode & MODE_CODE64 ? 64 : 32), DECODE_OK);
    assert_int_equal(op.insn.len, len);
    op.run = bt_op_find(&op.insn, &op.heavy);
    assert_non_null(op.run);
    cpu->rip = CODE;
    cpu->exc = (struct bt_exception){0};
    if (op.heavy)
        bt_vec_save(cpu);
    bool ok = op.run(cpu, &op);
    bt_vec_save(cpu);
    assert_int_equal(ok, !cpu->exc.pending);
    if (!ok)
        assert_int_equal(cpu->rip, CODE);
    return !ok ? FAULT : cpu->rip == CODE ? AGAIN : DONE;
}
#define RUN(bytes) run(bytes, sizeof(bytes) - 1)

static enum outcome run_to_end(const void *code, size_t len)
{
    enum outcome o;
    while ((o = run(code, len)) == AGAIN)
        ;
    return o;
}

static void assert_exception(enum outcome o, unsigned vector)
{
    assert_int_equal(o, FAULT);
    assert_int_equal(cpu->exc.vector, vector);
}
#define ASSERT_GP(bytes) assert_exception(RUN(bytes), VEC_GP)
#define ASSERT_UD(bytes) assert_exception(RUN(bytes), VEC_UD)
#define ASSERT_OK(bytes) assert_int_equal(RUN(bytes), DONE)

static uint64_t random64(void)
{
    return (uint64_t)(unsigned)rand() << 42 ^ (uint64_t)(unsigned)rand() << 21 ^ (uint64_t)(unsigned)rand();
}

static void seed(void)
{
    unsigned s = (unsigned)monotonic_ns();
    print_message("seed %u\n", s);
    srand(s);
}

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

/* ---- vector state ---- */

#define IMAGE __attribute__((aligned(64)))

static void random_state(uint8_t *area)
{
    for (unsigned i = 0; i < XS_END; i++)
        area[i] = (uint8_t)rand();
    store_le16(area + XS_FCW, FCW_DEFAULT);
    store_le16(area + XS_FSW, (uint16_t)((rand() & 7) << 11));
    memset(area + XS_FTW, 0, XS_MXCSR - XS_FTW);
    area[XS_FTW] = (uint8_t)rand();
    store_le32(area + XS_MXCSR, MXCSR_DEFAULT | ((uint32_t)rand() & 0x3f));
    memset(area + XS_BV, 0, 64);
    for (unsigned i = 0; i < 8; i++)
        memset(area + XS_ST + 16 * i + 10, 0, 6);
}

/* Between two states of the host's registers: load `from` wholly, perhaps load `image`, save with `kind`. */
static void host_exchange(const uint8_t *from, const uint8_t *image, uint32_t rfbm, uint8_t *out, int kind)
{
    uint8_t own[XS_END + 64] IMAGE = {0};
    __asm__ volatile("xsave64 (%0)" : : "r"(own), "a"(7), "d"(0) : "memory");
    __asm__ volatile("xrstor64 (%0)" : : "r"(from), "a"(7), "d"(0) : "memory");
    if (image)
        __asm__ volatile("xrstor64 (%0)" : : "r"(image), "a"(rfbm), "d"(0) : "memory");
    if (kind == 0)
        __asm__ volatile("fxsave64 (%0)" : : "r"(out) : "memory");
    else if (kind == 1)
        __asm__ volatile("xsave64 (%0)" : : "r"(out), "a"(rfbm), "d"(0) : "memory");
    else if (kind == 2)
        __asm__ volatile("xsavec64 (%0)" : : "r"(out), "a"(rfbm), "d"(0) : "memory");
    else
        __asm__ volatile("xsaveopt64 (%0)" : : "r"(out), "a"(rfbm), "d"(0) : "memory");
    __asm__ volatile("xrstor64 (%0)" : : "r"(own), "a"(7), "d"(0) : "memory");
}

/* The tests of XSAVE mean something only where there is AVX. */
static void require_avx(void)
{
    if (!(model.xcr0_mask & XSTATE_AVX))
        fail_msg("this host has no AVX");
}

static void write_window(unsigned offset, const uint8_t *data, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        *window_host(offset + i) = data[i];
}

static void read_window(unsigned offset, uint8_t *data, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        data[i] = *window_host(offset + i);
}

static void set_rfbm(uint32_t rfbm)
{
    cpu->gpr[R_RAX] = rfbm;
    cpu->gpr[R_RDX] = 0;
}

static void test_saves(void **state)
{
    static const char *const codes[] = {"\x48\x0f\xae\x03", "\x48\x0f\xae\x23", "\x48\x0f\xc7\x23",
                                        "\x48\x0f\xae\x33"};
    require_avx();
    seed();
    for (int n = 0; n < 2000; n++) {
        uint8_t in[XS_END] IMAGE, expected[XS_END] IMAGE, got[XS_END] IMAGE;
        int kind = rand() & 3;
        uint32_t rfbm = (uint32_t)rand() & 7;
        /* Within a page, or over its end. */
        unsigned offset = 64u * ((unsigned)rand() % ((WINDOW_SIZE - 1024) / 64));
        random_state(in);
        store_le64(in + XS_BV, (uint64_t)rand() & 7);
        for (unsigned i = 0; i < XS_END; i++)
            expected[i] = (uint8_t)rand();
        memset(expected + XS_BV, 0, 64);
        write_window(offset, expected, XS_END);
        memcpy(cpu->xsave, in, XS_END);
        host_exchange(in, NULL, rfbm, expected, kind);
        set_rfbm(rfbm);
        cpu->gpr[R_RBX] = WINDOW + offset;
        assert_int_equal(run(codes[kind], 4), DONE);
        read_window(offset, got, XS_END);
        if (kind == 0 || (rfbm & 1)) {
            memset(expected + XS_FOP, 0, XS_MXCSR - XS_FOP);
            if (kind < 2 || (load_le64(got + XS_BV) & 1))
                assert_memory_equal(got + XS_FOP, expected + XS_FOP, XS_MXCSR - XS_FOP);
            memset(got + XS_FOP, 0, XS_MXCSR - XS_FOP);
        }
        if (memcmp(got, expected, XS_END))
            for (unsigned i = 0; i < XS_END; i++)
                if (got[i] != expected[i])
                    fail_msg("case %d kind %d rfbm %x: byte %u is %02x, expected %02x", n, kind, rfbm, i,
                             got[i], expected[i]);
        /* The registers themselves are what they were. */
        assert_memory_equal(cpu->xsave + XS_XMM + 128, in + XS_XMM + 128,
                            load_le64(in + XS_BV) & 2 ? 128 : 0);
    }
}

static void test_restores(void **state)
{
    require_avx();
    seed();
    for (int n = 0; n < 2000; n++) {
        uint8_t before[XS_END] IMAGE, image[XS_END] IMAGE, expected[XS_END] IMAGE = {0};
        uint32_t rfbm = (uint32_t)rand() & 7;
        unsigned offset = 64u * ((unsigned)rand() % ((WINDOW_SIZE - 1024) / 64));
        random_state(before);
        store_le64(before + XS_BV, 7);
        random_state(image);
        store_le64(image + XS_BV, (uint64_t)rand() & 7);
        if ((model.xsave_features & BIT(1)) && (rand() & 1))
            store_le64(image + XS_COMP_BV, BIT(63) | load_le64(image + XS_BV) | ((uint64_t)rand() & 3) | 4);
        write_window(offset, image, XS_END);
        memcpy(cpu->xsave, before, XS_END);
        host_exchange(before, image, rfbm, expected, 1);
        /* What XSAVE with a part of the components left out: all of them once more. */
        uint8_t all[XS_END] IMAGE = {0};
        host_exchange(before, image, rfbm, all, 1);
        set_rfbm(rfbm);
        cpu->gpr[R_RBX] = WINDOW + offset;
        assert_int_equal(RUN("\x48\x0f\xae\x2b"), DONE);
        uint8_t own[XS_END] IMAGE = {0};
        host_exchange(cpu->xsave, NULL, rfbm, own, 1);
        memset(own + XS_FOP, 0, XS_MXCSR - XS_FOP);
        memset(all + XS_FOP, 0, XS_MXCSR - XS_FOP);
        store_le64(own + XS_BV, 0);
        store_le64(all + XS_BV, 0);
        if (memcmp(own, all, XS_END))
            for (unsigned i = 0; i < XS_END; i++)
                if (own[i] != all[i])
                    fail_msg("case %d rfbm %x: byte %u is %02x, expected %02x", n, rfbm, i, own[i], all[i]);
        /* Components that were not asked for stay. */
        if (!(rfbm & XSTATE_AVX))
            assert_memory_equal(cpu->xsave + XS_AVX, before + XS_AVX, XS_END - XS_AVX);
        if (!(rfbm & XSTATE_SSE))
            assert_memory_equal(cpu->xsave + XS_XMM, before + XS_XMM, 256);
    }
}

static void restore_fails(const uint8_t *image)
{
    uint8_t before[XS_END];
    write_window(0, image, XS_END);
    memcpy(before, cpu->xsave, XS_END);
    set_rfbm(7);
    cpu->gpr[R_RBX] = WINDOW;
    ASSERT_GP("\x48\x0f\xae\x2b");
    assert_memory_equal(cpu->xsave + XS_XMM, before + XS_XMM, 256);
}

/* Images that the host's instruction would not take: #GP for the guest, nothing for the engine. */
static void test_bad_images(void **state)
{
    uint8_t good[XS_END] IMAGE, bad[XS_END] IMAGE;
    require_avx();
    random_state(good);
    random_state(cpu->xsave);
    store_le64(cpu->xsave + XS_BV, 7);
    store_le64(good + XS_BV, 7);
    for (unsigned bit = 3; bit < 64; bit++) {
        memcpy(bad, good, XS_END);
        store_le64(bad + XS_BV, 7 | BIT(bit));
        restore_fails(bad);
        memcpy(bad, good, XS_END);
        store_le64(bad + XS_COMP_BV, bit == 63 ? BIT(63) | 3 : BIT(bit)); /* AVX is not in XCOMP_BV */
        restore_fails(bad);
        memcpy(bad, good, XS_END);
        store_le64(bad + XS_COMP_BV, BIT(63) | 7 | (bit == 63 ? BIT(62) : BIT(bit)));
        restore_fails(bad);
    }
    for (unsigned i = XS_BV + 16; i < XS_AVX; i++) {
        memcpy(bad, good, XS_END);
        bad[i] = 1;
        if (i < XS_BV + 24)
            restore_fails(bad);
        store_le64(bad + XS_COMP_BV, BIT(63) | 7);
        restore_fails(bad);
    }
    for (unsigned bit = 0; bit < 32; bit++) {
        memcpy(bad, good, XS_END);
        store_le32(bad + XS_MXCSR, (uint32_t)BIT(bit));
        if (bt_mxcsr_mask() & BIT(bit))
            continue;
        restore_fails(bad);
        ASSERT_GP("\x48\x0f\xae\x0b"); /* FXRSTOR */
    }
    cpu->gpr[R_RBX] = WINDOW + 32; /* alignment */
    ASSERT_GP("\x48\x0f\xae\x2b");
    ASSERT_GP("\x48\x0f\xae\x23");
    cpu->gpr[R_RBX] = WINDOW + 8;
    ASSERT_GP("\x48\x0f\xae\x03");
    /* Saved machines are made loadable. */
    struct x86_state *saved = calloc(1, sizeof(*saved));
    struct vcpu *vcpu = (struct vcpu *)(void *)cpu;
    assert_non_null(saved);
    ops->get_state(vcpu, saved);
    memset(saved->xsave, 0xff, sizeof(saved->xsave));
    assert_true(ops->set_state(vcpu, saved, NULL));
    free(saved);
    cpu->gpr[R_RBX] = WINDOW;
    ASSERT_OK("\x48\x0f\xae\x03");
}

/* 32-bit code sees eight vector registers only. */
static void test_low_registers(void **state)
{
    uint8_t before[XS_END] IMAGE, image[XS_END] IMAGE;
    require_avx();
    random_state(before);
    store_le64(before + XS_BV, 7);
    memcpy(cpu->xsave, before, XS_END);
    compatibility_mode();
    for (unsigned p = 0; p < PAGES; p++)
        memset(window_host(p * GUEST_PAGE_SIZE), 0xee, GUEST_PAGE_SIZE);
    for (unsigned i = 0; i < 64; i++)
        *window_host(XS_BV + i) = 0;
    set_rfbm(7);
    cpu->gpr[R_RBX] = WINDOW;
    ASSERT_OK("\x0f\xae\x23"); /* XSAVE */
    read_window(0, image, XS_END);
    assert_memory_equal(image + XS_XMM, before + XS_XMM, 128);
    assert_memory_equal(image + XS_AVX, before + XS_AVX, 128);
    for (unsigned i = 0; i < 128; i++) {
        assert_int_equal(image[XS_XMM + 128 + i], 0xee);
        assert_int_equal(image[XS_AVX + 128 + i], 0xee);
    }
    memset(window_host(XS_XMM), 0x11, 256);
    ASSERT_OK("\x0f\xae\x2b"); /* XRSTOR */
    assert_int_equal(cpu->xsave[XS_XMM], 0x11);
    assert_memory_equal(cpu->xsave + XS_XMM + 128, before + XS_XMM + 128, 128);
    assert_memory_equal(cpu->xsave + XS_AVX, before + XS_AVX, 256);
    memset(window_host(XS_XMM), 0x22, 256);
    ASSERT_OK("\x0f\xae\x0b"); /* FXRSTOR */
    assert_int_equal(cpu->xsave[XS_XMM], 0x22);
    assert_memory_equal(cpu->xsave + XS_XMM + 128, before + XS_XMM + 128, 128);
    assert_memory_equal(cpu->xsave + XS_ST, before + XS_ST, 128);
}

static void test_environments(void **state)
{
    uint8_t before[XS_END] IMAGE, image[108];
    random_state(before);
    store_le64(before + XS_BV, 7);
    memcpy(cpu->xsave, before, XS_END);
    cpu->gpr[R_RBX] = WINDOW + 100;
    ASSERT_OK("\xdd\x33"); /* FNSAVE */
    read_window(100, image, sizeof(image));
    assert_int_equal(load_le16(image), load_le16(before + XS_FCW));
    assert_int_equal(load_le16(image + 4), load_le16(before + XS_FSW));
    for (unsigned i = 12; i < 26; i++)
        assert_int_equal(image[i], 0); /* nothing of the host's addresses */
    for (unsigned i = 0; i < 8; i++)
        assert_memory_equal(image + 28 + 10 * i, before + XS_ST + 16 * i, 10);
    assert_int_equal(cpu->xsave[XS_FTW], 0); /* as FNINIT leaves it */
    assert_int_equal(load_le16(cpu->xsave + XS_FSW), 0);
    ASSERT_OK("\xdd\x23"); /* FRSTOR */
    assert_memory_equal(cpu->xsave + XS_ST, before + XS_ST, 128);
    assert_int_equal(load_le16(cpu->xsave + XS_FSW), load_le16(before + XS_FSW));
    assert_int_equal(cpu->xsave[XS_FTW], before[XS_FTW]);
    assert_memory_equal(cpu->xsave + XS_XMM, before + XS_XMM, 256);
    /* The 16-bit forms, and a fault that must change nothing. */
    ASSERT_OK("\x66\xdd\x33");
    ASSERT_OK("\x66\xdd\x23");
    assert_memory_equal(cpu->xsave + XS_ST, before + XS_ST, 128);
    cpu->gpr[R_RBX] = WINDOW + WINDOW_SIZE - 50;
    assert_exception(RUN("\xdd\x33"), VEC_PF);
    assert_memory_equal(cpu->xsave + XS_ST, before + XS_ST, 128);
    assert_int_equal(cpu->xsave[XS_FTW], before[XS_FTW]);
    /* A pending exception is reported by those that wait. */
    store_le16(cpu->xsave + XS_FCW, 0x37e);
    store_le16(cpu->xsave + XS_FSW, 0x8081);
    cpu->gpr[R_RBX] = WINDOW + 100;
    assert_exception(RUN("\x9b"), VEC_MF);
    assert_exception(RUN("\xd9\x23"), VEC_MF);
    ASSERT_OK("\xd9\x33");
    store_le16(cpu->xsave + XS_FSW, 0);
    cpu->cr0 |= CR0_TS;
    assert_exception(RUN("\x9b"), VEC_NM);
    assert_exception(RUN("\xdd\x33"), VEC_NM);
    assert_exception(RUN("\x48\x0f\xae\x03"), VEC_NM);
    cpu->cr0 &= ~CR0_MP;
    ASSERT_OK("\x9b");
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
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_strings),
        TEST(test_string_interruptible),
        TEST(test_string_address_sizes),
        TEST(test_ports),
        TEST(test_saves),
        TEST(test_restores),
        TEST(test_bad_images),
        TEST(test_low_registers),
        TEST(test_environments),
        TEST(test_control_registers),
        TEST(test_debug_registers),
        TEST(test_msrs),
        TEST(test_pvclock),
        TEST(test_misc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
