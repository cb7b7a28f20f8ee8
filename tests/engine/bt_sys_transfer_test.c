/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Engine bt: far transfers, call gates, IRET's checks, task switches, fast system calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "bt_sys.h"

static uint64_t sp(const struct sys *s)
{
    return s->cpu.gpr[R_RSP];
}

/* m16:32 or m16:64 at AT_DATA, which EAX/RAX points at. */
static void far_pointer(struct sys *s, unsigned size, uint64_t offset, uint16_t sel)
{
    s->cpu.gpr[R_RAX] = AT_DATA;
    sys_put(s, AT_DATA, size, offset);
    sys_put(s, AT_DATA + size, 2, sel);
}

#define JMP_FAR    "\xff\x28"
#define CALL_FAR   "\xff\x18"
#define CALL_FAR_Q "\x48\xff\x18"

/* ---- IRET ---- */

/* A frame for IRETQ and what it raises. */
struct iret_case {
    uint64_t rip;
    uint16_t cs;
    uint64_t rsp;
    uint16_t ss;
    int vector; /* -1: none */
    uint32_t error;
};

static void test_iretq_checks(void **state)
{
    static const struct iret_case cases[] = {
        {AT_CODE, S_UCODE64, AT_USER_STACK, S_UDATA, -1, 0},
        {AT_CODE, S_UCODE, AT_USER_STACK, S_UDATA, -1, 0},
        {AT_CODE, S_KCODE64, AT_USER_STACK, 0, -1, 0}, /* null SS at level 0 */
        {AT_CODE, S_KCODE64, UINT64_C(0x800000000000), S_KDATA, -1, 0},
        {AT_CODE, S_UCODE64, AT_USER_STACK, 3, VEC_GP, 0},
        {AT_CODE, S_KCODE, AT_USER_STACK, 0, VEC_GP, 0}, /* null SS for compatibility mode */
        {AT_CODE, 0, AT_USER_STACK, S_UDATA, VEC_GP, 0},
        {AT_CODE, S_UCODE64, AT_USER_STACK, S_KDATA, VEC_GP, S_KDATA},
        {AT_CODE, S_UCODE64, AT_USER_STACK, S_ABSENT | 3, VEC_GP, S_ABSENT}, /* DPL before presence */
        {AT_CODE, S_UCODE64 & ~3, AT_USER_STACK, S_UDATA, VEC_GP, S_UCODE64 & ~3},
        {AT_CODE, S_KCODE64 | 3, AT_USER_STACK, S_UDATA, VEC_GP, S_KCODE64},
        {AT_CODE, S_UDATA, AT_USER_STACK, S_UDATA, VEC_GP, S_UDATA & ~3},
        {AT_CODE, S_ABSENT_CODE, AT_USER_STACK, S_KDATA, VEC_NP, S_ABSENT_CODE},
        {AT_CODE, 0xff8, AT_USER_STACK, S_KDATA, VEC_GP, 0xff8},
        {UINT64_C(0x800000000000), S_UCODE64, AT_USER_STACK, S_UDATA, VEC_GP, 0},
        {UINT64_C(0x100000000), S_UCODE, AT_USER_STACK, S_UDATA, VEC_GP, 0}, /* beyond the limit */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct iret_case *c = &cases[i];
        struct sys *s = sys_long(0);
        s->cpu.nmi_blocked = true;
        STACK(s, 8, c->rip, c->cs, FLAG_IF | FLAG_IOPL | FLAG_RF | FLAG_CF, c->rsp, c->ss);
        assert_int_equal(RUN(s, "\x48\xcf"), c->vector < 0);
        assert_false(s->cpu.nmi_blocked);
        if (c->vector >= 0) {
            sys_expect(s, (unsigned)c->vector, c->error);
        } else {
            assert_int_equal(s->cpu.rip, c->rip);
            assert_int_equal(sp(s), c->rsp);
            assert_int_equal(s->cpu.seg[SEG_CS].selector, c->cs);
            assert_int_equal(s->cpu.seg[SEG_SS].selector, c->ss);
            assert_int_equal(s->cpu.cpl, c->cs & 3);
            assert_int_equal(bt_rflags(&s->cpu), FLAG_IF | FLAG_IOPL | FLAG_RF | FLAG_CF | 2);
        }
        sys_free(s);
    }
}

static void test_iretq_16bit_stack(void **state)
{
    struct sys *s = sys_long(0);
    STACK(s, 8, 0x1000, S_UCODE16, 2, UINT64_C(0x1234567800009abc), S_UDATA16);
    uint64_t old = sp(s);
    assert_true(RUN(s, "\x48\xcf"));
    assert_int_equal(sp(s), (old & 0xffff0000) | 0x9abc);
    assert_int_equal(s->cpu.mode & (MODE_CODE32 | MODE_CODE64), 0);
    sys_free(s);
}

static void test_iret_flags_by_level(void **state)
{
    struct sys *s = sys_protected(3);
    bt_set_rflags(&s->cpu, FLAG_IF | 1u << 12);
    STACK(s, 4, AT_CODE + 1, S_UCODE, FLAG_IOPL | FLAG_VIF | FLAG_VIP | FLAG_AC | FLAG_ID | FLAG_VM);
    assert_true(RUN(s, "\xcf"));
    /* CPL 3 above IOPL 1: IF, IOPL, VIF, VIP, VM stay. */
    assert_int_equal(bt_rflags(&s->cpu), FLAG_IF | 1u << 12 | FLAG_AC | FLAG_ID | 2);
    STACK(s, 2, 0x200, S_UCODE, FLAG_CF);
    assert_true(RUN(s, "\x66\xcf"));
    assert_int_equal(s->cpu.rip, 0x200);
    assert_int_equal(bt_rflags(&s->cpu), FLAG_IF | 1u << 12 | FLAG_AC | FLAG_ID | FLAG_CF | 2);
    sys_free(s);
}

/* Data segments of the inner level do not leave with it; FS and GS bases of null selectors stay. */
static void test_outer_return_drops_segments(void **state)
{
    struct sys *s = sys_long(0);
    bt_seg_set_base(&s->cpu, SEG_GS, 0x1234);
    s->cpu.gpr[R_RAX] = S_UDATA;
    assert_true(RUN(s, "\x8e\xc0")); /* mov es, eax */
    STACK(s, 8, AT_CODE, S_UCODE64, 2, AT_USER_STACK, S_UDATA);
    assert_true(RUN(s, "\x48\xcf"));
    assert_int_equal(s->cpu.seg[SEG_DS].selector, 0);
    assert_true(s->cpu.seg[SEG_DS].attr & ATTR_UNUSABLE);
    assert_int_equal(s->cpu.seg[SEG_ES].selector, S_UDATA);
    assert_int_equal(s->cpu.seg[SEG_GS].base, 0x1234);
    sys_free(s);
}

/* ---- far JMP, CALL, RET ---- */

struct far_case {
    unsigned cpl;
    uint16_t sel;
    int vector;
    uint32_t error;
};

static void test_jmp_far_checks(void **state)
{
    static const struct far_case cases[] = {
        {0, S_KCODE, -1, 0},
        {0, S_KCODE16, VEC_GP, 0}, /* target beyond its limit */
        {3, S_UCODE, -1, 0},
        {3, S_UCODE & ~3, -1, 0}, /* RPL below CPL is fine */
        {3, S_CONFORMING, -1, 0},
        {0, S_UCONFORMING, VEC_GP, S_UCONFORMING},
        {0, 0, VEC_GP, 0},
        {0, 3, VEC_GP, 0},
        {3, S_KCODE, VEC_GP, S_KCODE},
        {0, S_UCODE, VEC_GP, S_UCODE & ~3},
        {0, S_KCODE | 3, VEC_GP, S_KCODE},
        {0, S_KDATA, VEC_GP, S_KDATA},
        {0, S_LDT, VEC_GP, S_LDT},
        {0, S_ABSENT_CODE, VEC_NP, S_ABSENT_CODE},
        {0, 0xff8, VEC_GP, 0xff8},
        {0, S_KCODE | 4, VEC_GP, S_KCODE | 4},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        for (unsigned call = 0; call < 2; call++) {
            const struct far_case *c = &cases[i];
            struct sys *s = sys_protected(c->cpl);
            uint64_t old = sp(s);
            uint16_t old_cs = s->cpu.seg[SEG_CS].selector;
            far_pointer(s, 4, 0x12345, c->sel);
            assert_int_equal(call ? RUN(s, CALL_FAR) : RUN(s, JMP_FAR), c->vector < 0);
            if (c->vector >= 0) {
                sys_expect(s, (unsigned)c->vector, c->error);
            } else {
                assert_int_equal(s->cpu.rip, 0x12345);
                assert_int_equal(s->cpu.seg[SEG_CS].selector, (c->sel & ~3u) | c->cpl);
                assert_int_equal(sp(s), call ? old - 8 : old);
                if (call) {
                    assert_int_equal(sys_get(s, sp(s), 4), AT_CODE + 2);
                    assert_int_equal(sys_get(s, sp(s) + 4, 2), old_cs);
                }
            }
            sys_free(s);
        }
    }
}

static void test_far_immediate(void **state)
{
    struct sys *s = sys_real();
    assert_true(RUN(s, "\xea\x34\x12\x00\xf0"));
    assert_int_equal(s->cpu.rip, 0x1234);
    assert_int_equal(s->cpu.seg[SEG_CS].base, 0xf0000);
    assert_true(RUN(s, "\x9a\x78\x56\x00\x80"));
    assert_int_equal(s->cpu.seg[SEG_CS].selector, 0x8000);
    assert_int_equal(sys_get(s, 0x7ffc, 2), 0x1239);
    assert_int_equal(sys_get(s, 0x7ffe, 2), 0xf000);
    assert_true(RUN(s, "\xca\x06\x00"));
    assert_int_equal(s->cpu.rip, 0x1239);
    assert_int_equal(s->cpu.seg[SEG_CS].base, 0xf0000);
    assert_int_equal(sp(s), 0x8006);
    /* Into protected mode, as boot code does. */
    sys_descriptor(s, S_KCODE, 0, ~0u, 0xcf9a);
    s->cpu.cr0 |= CR0_PE;
    assert_true(RUN(s, "\x66\xea\x00\x00\x01\x00\x08\x00"));
    assert_int_equal(s->cpu.rip, AT_CODE);
    assert_true(s->cpu.mode & MODE_CODE32);
    assert_true(sys_get(s, AT_GDT + S_KCODE + 5, 1) & 1); /* accessed */
    sys_free(s);
}

static void test_ret_far_outer(void **state)
{
    struct sys *s = sys_protected(0);
    STACK(s, 4, 0x12345, S_UCODE, 0xaaaa, 0xbbbb, AT_USER_STACK, S_UDATA);
    assert_true(RUN(s, "\xca\x08\x00"));
    assert_int_equal(s->cpu.rip, 0x12345);
    assert_int_equal(s->cpu.cpl, 3);
    assert_int_equal(sp(s), AT_USER_STACK + 8);
    assert_true(s->cpu.seg[SEG_DS].attr & ATTR_UNUSABLE);
    STACK(s, 4, 0x1000, S_KCODE);
    assert_false(RUN(s, "\xcb"));
    sys_expect(s, VEC_GP, S_KCODE);
    sys_free(s);
    s = sys_protected(0);
    STACK(s, 4, 0x12345, S_UCODE, AT_USER_STACK, 0);
    assert_false(RUN(s, "\xcb"));
    sys_expect(s, VEC_GP, 0);
    sys_free(s);
    s = sys_long(0);
    STACK(s, 8, 0x12345, S_UCODE, AT_USER_STACK, S_UDATA);
    assert_true(RUN(s, "\x48\xcb"));
    assert_true(s->cpu.mode & MODE_CODE32);
    assert_int_equal(sp(s), AT_USER_STACK);
    sys_free(s);
}

/* ---- call gates ---- */

static void test_call_gate_inner(void **state)
{
    struct sys *s = sys_protected(3);
    sys_gdt_gate(s, S_GATE, DESC_CALL32, S_KCODE, 0x12345, 3, 3);
    STACK(s, 4, 0x111, 0x222, 0x333);
    far_pointer(s, 4, 0, S_GATE | 3);
    assert_true(RUN(s, CALL_FAR));
    assert_int_equal(s->cpu.rip, 0x12345);
    assert_int_equal(s->cpu.cpl, 0);
    assert_int_equal(s->cpu.seg[SEG_SS].selector, S_KDATA);
    static const uint64_t frame[] = {AT_CODE + 2, S_UCODE, 0x111, 0x222, 0x333, AT_USER_STACK, S_UDATA};
    assert_int_equal(sp(s), AT_STACK0 - sizeof(frame) / 2);
    for (unsigned i = 0; i < ARRAY_SIZE(frame); i++)
        assert_int_equal(sys_get(s, sp(s) + i * 4, 4), frame[i]);
    assert_true(RUN(s, "\xca\x0c\x00"));
    assert_int_equal(s->cpu.cpl, 3);
    assert_int_equal(s->cpu.rip, AT_CODE + 2);
    assert_int_equal(sp(s), AT_USER_STACK + 12);
    sys_free(s);
    /* A 16-bit gate to level 1. */
    s = sys_protected(3);
    sys_gdt_gate(s, S_GATE, DESC_CALL16, S_CODE1, 0x7777, 3, 1);
    STACK(s, 2, 0x4321);
    far_pointer(s, 4, 0, S_GATE);
    assert_true(RUN(s, CALL_FAR));
    assert_int_equal(s->cpu.rip, 0x7777);
    assert_int_equal(s->cpu.cpl, 1);
    assert_int_equal(sp(s), AT_STACK1 - 10);
    assert_int_equal(sys_get(s, sp(s) + 4, 2), 0x4321);
    sys_free(s);
}

static void test_call_gate_64(void **state)
{
    struct sys *s = sys_long(3);
    sys_gdt_gate(s, S_GATE, DESC_CALL32, S_KCODE64, UINT64_C(0x123400005678), 3, 0);
    far_pointer(s, 8, 0, S_GATE | 3);
    assert_true(RUN(s, CALL_FAR_Q));
    assert_int_equal(s->cpu.rip, UINT64_C(0x123400005678));
    assert_int_equal(s->cpu.cpl, 0);
    assert_int_equal(s->cpu.seg[SEG_SS].selector, 0);
    assert_int_equal(sp(s), AT_STACK0 - 32);
    static const uint64_t frame[] = {AT_CODE + 3, S_UCODE64, AT_USER_STACK, S_UDATA};
    for (unsigned i = 0; i < ARRAY_SIZE(frame); i++)
        assert_int_equal(sys_get(s, sp(s) + i * 8, 8), frame[i]);
    assert_true(RUN(s, "\x48\xcb"));
    assert_int_equal(s->cpu.cpl, 3);
    assert_int_equal(sp(s), AT_USER_STACK);
    sys_free(s);
    /* Same level. */
    s = sys_long(0);
    sys_gdt_gate(s, S_GATE, DESC_CALL32, S_KCODE64, 0x4444, 0, 0);
    far_pointer(s, 8, 0, S_GATE);
    uint64_t old = sp(s);
    assert_true(RUN(s, CALL_FAR_Q));
    assert_int_equal(sp(s), old - 16);
    assert_int_equal(sys_get(s, sp(s), 8), AT_CODE + 3);
    sys_free(s);
}

static void test_call_gate_checks(void **state)
{
    static const struct {
        unsigned dpl;
        uint16_t gate_rpl, sel;
        bool jmp;
        int vector;
        uint32_t error;
    } cases[] = {
        {3, 3, S_KCODE, false, -1, 0},
        {3, 3, S_KCODE, true, VEC_GP, S_KCODE}, /* JMP may not change the level */
        {3, 3, S_CONFORMING, true, -1, 0},
        {3, 3, S_UCODE, true, -1, 0},
        {0, 0, S_KCODE, false, VEC_GP, S_GATE},
        {3, 0, S_KCODE, false, -1, 0},
        {3, 3, 0, false, VEC_GP, 0},
        {3, 3, S_KDATA, false, VEC_GP, S_KDATA},
        {3, 3, S_ABSENT_CODE, false, VEC_NP, S_ABSENT_CODE},
        {3, 3, 0xff8, false, VEC_GP, 0xff8},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct sys *s = sys_protected(3);
        sys_gdt_gate(s, S_GATE, DESC_CALL32, cases[i].sel, 0x12345, cases[i].dpl, 0);
        far_pointer(s, 4, 0, S_GATE | cases[i].gate_rpl);
        assert_int_equal(cases[i].jmp ? RUN(s, JMP_FAR) : RUN(s, CALL_FAR), cases[i].vector < 0);
        if (cases[i].vector >= 0)
            sys_expect(s, (unsigned)cases[i].vector, cases[i].error);
        else
            assert_int_equal(s->cpu.rip, 0x12345);
        sys_free(s);
    }
    /* 32-bit code is nothing for a 64-bit gate. */
    struct sys *s = sys_long(3);
    sys_gdt_gate(s, S_GATE, DESC_CALL32, S_KCODE, 0x12345, 3, 0);
    far_pointer(s, 8, 0, S_GATE | 3);
    assert_false(RUN(s, CALL_FAR_Q));
    sys_expect(s, VEC_GP, S_KCODE);
    sys_free(s);
}

/* ---- tasks ---- */

static void fill_tss32(struct sys *s, uint64_t at, uint16_t cs, uint16_t ss, uint32_t flags)
{
    sys_put(s, at + 0x1c, 4, 0x5000);
    sys_put(s, at + 0x20, 4, 0x22222);
    sys_put(s, at + 0x24, 4, flags);
    for (unsigned i = 0; i < 8; i++)
        sys_put(s, at + 0x28 + i * 4, 4, i == R_RSP ? AT_USER_STACK : 0x100 + i);
    static const unsigned offsets[] = {0x48, 0x54, 0x58, 0x5c};
    for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++)
        sys_put(s, at + offsets[i], 4, S_UDATA);
    sys_put(s, at + 0x4c, 4, cs);
    sys_put(s, at + 0x50, 4, ss);
}

static unsigned tss_type(const struct sys *s, uint16_t sel)
{
    return sys_get(s, AT_GDT + (sel & ~7u) + 5, 1) & 0xf;
}

static void test_task_jmp_call_iret(void **state)
{
    struct sys *s = sys_protected(0);
    fill_tss32(s, AT_TSS2, S_UCODE, S_UDATA, FLAG_IF | FLAG_CF);
    far_pointer(s, 4, 0xdead, S_TSS2);
    s->cpu.gpr[R_RBX] = 0xcafe;
    uint64_t old = sp(s);
    assert_true(RUN(s, CALL_FAR));
    assert_int_equal(s->cpu.rip, 0x22222);
    assert_int_equal(s->cpu.cpl, 3);
    assert_int_equal(s->cpu.gpr[R_RBX], 0x100 + R_RBX);
    assert_int_equal(sp(s), AT_USER_STACK);
    assert_int_equal(bt_rflags(&s->cpu), FLAG_IF | FLAG_CF | FLAG_NT | 2);
    assert_int_equal(s->cpu.cr3, 0x5000);
    assert_true(s->cpu.cr0 & CR0_TS);
    assert_int_equal(s->cpu.seg[SEG_TR].selector, S_TSS2);
    assert_int_equal(s->cpu.seg[SEG_TR].attr & ATTR_TYPE, DESC_TSS32_BUSY);
    assert_int_equal(s->cpu.seg[SEG_CS].selector, S_UCODE);
    assert_int_equal(s->cpu.seg[SEG_FS].selector, S_UDATA);
    assert_int_equal(tss_type(s, S_TSS), DESC_TSS32_BUSY);
    assert_int_equal(tss_type(s, S_TSS2), DESC_TSS32_BUSY);
    assert_int_equal(sys_get(s, AT_TSS2, 2), S_TSS);
    assert_int_equal(sys_get(s, AT_TSS + 0x20, 4), AT_CODE + 2);
    assert_int_equal(sys_get(s, AT_TSS + 0x34, 4), 0xcafe);
    assert_int_equal(sys_get(s, AT_TSS + 0x4c, 2), S_KCODE);
    /* Back, with the state as it was. */
    assert_true(RUN(s, "\xcf"));
    assert_int_equal(s->cpu.rip, AT_CODE + 2);
    assert_int_equal(s->cpu.cpl, 0);
    assert_int_equal(sp(s), old);
    assert_int_equal(s->cpu.gpr[R_RBX], 0xcafe);
    assert_int_equal(tss_type(s, S_TSS), DESC_TSS32_BUSY);
    assert_int_equal(tss_type(s, S_TSS2), DESC_TSS32);
    assert_false(sys_get(s, AT_TSS2 + 0x24, 4) & FLAG_NT);
    /* By JMP: no link, the old one is free. */
    far_pointer(s, 4, 0, S_TSS2);
    assert_true(RUN(s, JMP_FAR));
    assert_false(s->cpu.sysflags & FLAG_NT);
    assert_int_equal(tss_type(s, S_TSS), DESC_TSS32);
    sys_free(s);
}

static void test_task_16bit(void **state)
{
    struct sys *s = sys_protected(0);
    sys_put(s, AT_TSS3 + 0x0e, 2, 0x3333);
    sys_put(s, AT_TSS3 + 0x10, 2, FLAG_ZF);
    for (unsigned i = 0; i < 8; i++)
        sys_put(s, AT_TSS3 + 0x12 + i * 2, 2, 0x200 + i);
    sys_put(s, AT_TSS3 + 0x22, 2, S_KDATA);
    sys_put(s, AT_TSS3 + 0x24, 2, S_KCODE16);
    sys_put(s, AT_TSS3 + 0x26, 2, S_KDATA16);
    sys_put(s, AT_TSS3 + 0x28, 2, 0);
    far_pointer(s, 4, 0, S_TSS3);
    assert_true(RUN(s, JMP_FAR));
    assert_int_equal(s->cpu.rip, 0x3333);
    assert_int_equal(bt_rflags(&s->cpu), FLAG_ZF | 2);
    assert_int_equal(sp(s), 0x204);
    assert_int_equal(s->cpu.seg[SEG_DS].selector, 0);
    assert_true(s->cpu.seg[SEG_FS].attr & ATTR_UNUSABLE);
    assert_int_equal(s->cpu.cr3, 0);
    far_pointer(s, 2, 0, S_TSS2);
    fill_tss32(s, AT_TSS2, S_KCODE, S_KDATA, 0);
    s->cpu.seg[SEG_DS] = s->cpu.seg[SEG_ES];
    s->cpu.gpr[R_RBX] = AT_DATA & 0xffff;
    sys_put(s, (AT_DATA & 0xffff) + 2, 2, S_TSS2);
    assert_true(RUN(s, "\xff\x2f")); /* jmp far [bx] */
    assert_int_equal(s->cpu.rip, 0x22222);
    assert_int_equal(sys_get(s, AT_TSS3 + 0x0e, 2), 0x3335);
    sys_free(s);
}

static void test_task_gate_event(void **state)
{
    struct sys *s = sys_protected(3);
    fill_tss32(s, AT_TSS2, S_KCODE, S_KDATA, 0);
    sys_put(s, AT_TSS2 + 0x20, 4, AT_HANDLER + VEC_DF * 16);
    sys_idt_gate(s, VEC_DF, DESC_TASK_GATE, S_TSS2, 0, 0, true, 0);
    sys_put(s, AT_TSS + 8, 4, 0); /* no stack for anything else: #GP becomes #TS becomes #DF */
    struct bt_exception gp = {.vector = VEC_GP, .has_error = true};
    assert_int_equal(sys_deliver(s, gp), VEC_DF);
    assert_int_equal(s->cpu.cpl, 0);
    assert_int_equal(sp(s), AT_USER_STACK - 4);
    assert_int_equal(sys_get(s, sp(s), 4), 0);
    assert_true(s->cpu.sysflags & FLAG_NT);
    assert_int_equal(sys_get(s, AT_TSS + 0x20, 4), AT_CODE);
    assert_int_equal(sys_get(s, AT_TSS + 0x50, 2), S_UDATA);
    assert_int_equal(sys_get(s, AT_TSS2, 2), S_TSS);
    sys_free(s);
}

static void test_task_checks(void **state)
{
    static const struct {
        uint16_t sel;
        unsigned vector;
        uint32_t error;
    } cases[] = {
        {S_TSS, VEC_GP, S_TSS}, /* busy */
        {S_TSS2 | 4, VEC_GP, S_TSS2 | 4},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct sys *s = sys_protected(0);
        far_pointer(s, 4, 0, cases[i].sel);
        assert_false(RUN(s, JMP_FAR));
        sys_expect(s, cases[i].vector, cases[i].error);
        sys_free(s);
    }
    struct sys *s = sys_protected(0);
    sys_descriptor(s, S_TSS2, AT_TSS2, 0x66, ATTR_P | DESC_TSS32);
    far_pointer(s, 4, 0, S_TSS2);
    assert_false(RUN(s, JMP_FAR));
    sys_expect(s, VEC_TS, S_TSS2);
    sys_descriptor(s, S_TSS2, AT_TSS2, 0x67, DESC_TSS32);
    assert_false(RUN(s, CALL_FAR));
    sys_expect(s, VEC_NP, S_TSS2);
    /* IRET with NT wants a busy TSS. */
    bt_set_rflags(&s->cpu, FLAG_NT);
    sys_put(s, AT_TSS, 2, S_TSS3);
    assert_false(RUN(s, "\xcf"));
    sys_expect(s, VEC_TS, S_TSS3);
    sys_free(s);
    s = sys_long(0);
    bt_set_rflags(&s->cpu, FLAG_NT);
    assert_false(RUN(s, "\x48\xcf"));
    sys_expect(s, VEC_GP, 0);
    sys_free(s);
    /* A memory fault before the switch leaves everything as it was, in memory too. */
    s = sys_protected(0);
    fill_tss32(s, AT_TSS2, S_KCODE, S_KDATA, 0);
    s->read_only[AT_GDT / 4096] = 1;
    far_pointer(s, 4, 0, S_TSS2);
    assert_false(RUN(s, CALL_FAR));
    sys_expect(s, VEC_PF, 3);
    assert_int_equal(sys_get(s, AT_TSS + 0x20, 4), 0);
    assert_int_equal(sys_get(s, AT_TSS2, 2), 0);
    sys_free(s);
}

/* What the new task's own segments raise: the switch has happened by then. */
static void test_task_segment_faults(void **state)
{
    static const struct {
        unsigned offset;
        uint16_t sel;
        unsigned vector;
    } cases[] = {
        {0x4c, S_UDATA, VEC_TS}, {0x4c, 0, VEC_TS},     {0x4c, S_UCODE & ~3, VEC_TS},
        {0x50, S_KDATA, VEC_TS}, {0x50, 0, VEC_TS},     {0x48, S_KDATA, VEC_TS},
        {0x60, S_KDATA, VEC_TS}, {0x54, 0xff8, VEC_TS}, {0x4c, S_ABSENT_CODE, VEC_NP},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct sys *s = sys_protected(0);
        fill_tss32(s, AT_TSS2, S_UCODE, S_UDATA, 0);
        sys_put(s, AT_TSS2 + cases[i].offset, 2, cases[i].sel);
        far_pointer(s, 4, 0, S_TSS2);
        assert_false(sys_run_task(s, JMP_FAR, 2));
        sys_expect(s, cases[i].vector, cases[i].sel & ~3);
        assert_int_equal(s->cpu.rip, 0x22222);
        assert_int_equal(s->cpu.seg[SEG_TR].selector, S_TSS2);
        sys_free(s);
    }
}

/* ---- fast system calls ---- */

static void test_syscall_sysret(void **state)
{
    struct sys *s = sys_long(3);
    struct bt_cpu *cpu = &s->cpu;
    cpu->star = (uint64_t)S_KCODE64 << 32 | (uint64_t)(S_UCODE) << 48;
    cpu->lstar = UINT64_C(0xffffffff81000000);
    cpu->sfmask = FLAG_IF | FLAG_DF | FLAG_AC | FLAG_CF;
    bt_set_rflags(cpu, FLAG_IF | FLAG_CF | FLAG_ZF | FLAG_DF);
    assert_true(RUN(s, "\x0f\x05"));
    assert_int_equal(cpu->rip, cpu->lstar);
    assert_int_equal(cpu->gpr[R_RCX], AT_CODE + 2);
    assert_int_equal(cpu->gpr[R_R11], FLAG_IF | FLAG_CF | FLAG_ZF | FLAG_DF | 2);
    assert_int_equal(bt_rflags(cpu), FLAG_ZF | 2);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->seg[SEG_CS].selector, S_KCODE64);
    assert_int_equal(cpu->seg[SEG_CS].attr, 0xa09b);
    assert_int_equal(cpu->seg[SEG_SS].selector, S_KSTACK64);
    assert_int_equal(cpu->seg[SEG_SS].attr, 0xc093);
    cpu->star = (uint64_t)(S_UCODE64 - 16) << 48;
    assert_true(RUN(s, "\x48\x0f\x07"));
    assert_int_equal(cpu->rip, AT_CODE + 2);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->seg[SEG_CS].selector, S_UCODE64);
    assert_int_equal(cpu->seg[SEG_CS].attr, 0xa0fb);
    assert_int_equal(cpu->seg[SEG_SS].selector, (S_UCODE64 - 8) | 3);
    assert_int_equal(bt_rflags(cpu), FLAG_IF | FLAG_CF | FLAG_ZF | FLAG_DF | 2);
    assert_false(RUN(s, "\x48\x0f\x07"));
    sys_expect(s, VEC_GP, 0);
    cpu->efer &= ~EFER_SCE;
    assert_false(RUN(s, "\x0f\x05"));
    sys_expect(s, VEC_UD, -1);
    sys_free(s);
}

static void test_syscall_vendors(void **state)
{
    struct sys *s = sys_compat(3);
    s->cpu.star = (uint64_t)S_KCODE64 << 32;
    s->cpu.cstar = 0x123456;
    assert_false(RUN(s, "\x0f\x05"));
    sys_expect(s, VEC_UD, -1);
    s->model.leaf[0].ebx = 0x68747541;
    assert_true(RUN(s, "\x0f\x05"));
    assert_int_equal(s->cpu.rip, 0x123456);
    assert_true(s->cpu.mode & MODE_CODE64);
    s->cpu.gpr[R_RCX] = UINT64_C(0x800000000000); /* AMD faults in user mode, later */
    assert_true(RUN(s, "\x48\x0f\x07"));
    sys_free(s);
    s = sys_long(0);
    s->cpu.gpr[R_RCX] = UINT64_C(0x800000000000);
    assert_false(RUN(s, "\x48\x0f\x07"));
    sys_expect(s, VEC_GP, 0);
    s->cpu.gpr[R_RCX] = UINT64_C(0xffff000012345678);
    s->cpu.gpr[R_R11] = FLAG_RF | FLAG_VM | FLAG_TF;
    assert_true(RUN(s, "\x0f\x07")); /* to compatibility mode */
    assert_int_equal(s->cpu.rip, 0x12345678);
    assert_true(s->cpu.mode & MODE_CODE32);
    assert_int_equal(bt_rflags(&s->cpu), FLAG_TF | 2);
    sys_free(s);
}

static void test_sysenter_sysexit(void **state)
{
    struct sys *s = sys_compat(3);
    struct bt_cpu *cpu = &s->cpu;
    assert_false(RUN(s, "\x0f\x34"));
    sys_expect(s, VEC_GP, 0);
    cpu->sysenter_cs = S_KCODE64;
    cpu->sysenter_esp = AT_STACK0;
    cpu->sysenter_eip = UINT64_C(0xffffffff81000000);
    assert_true(RUN(s, "\x0f\x34"));
    assert_int_equal(cpu->rip, cpu->sysenter_eip);
    assert_int_equal(sp(s), AT_STACK0);
    assert_int_equal(cpu->cpl, 0);
    assert_true(cpu->mode & MODE_CODE64);
    assert_false(cpu->iflag);
    cpu->gpr[R_RDX] = UINT64_C(0x7fff12345678);
    cpu->gpr[R_RCX] = UINT64_C(0x7ffe00000000);
    assert_true(RUN(s, "\x48\x0f\x35"));
    assert_int_equal(cpu->rip, UINT64_C(0x7fff12345678));
    assert_int_equal(sp(s), UINT64_C(0x7ffe00000000));
    assert_int_equal(cpu->seg[SEG_CS].selector, (S_KCODE64 + 32) | 3);
    assert_int_equal(cpu->seg[SEG_SS].selector, (S_KCODE64 + 40) | 3);
    assert_false(RUN(s, "\x48\x0f\x35"));
    sys_expect(s, VEC_GP, 0);
    s->model.leaf[0].ebx = 0x68747541;
    assert_false(RUN(s, "\x0f\x34"));
    sys_expect(s, VEC_UD, -1);
    sys_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_iretq_checks),        cmocka_unit_test(test_iretq_16bit_stack),
        cmocka_unit_test(test_iret_flags_by_level), cmocka_unit_test(test_outer_return_drops_segments),
        cmocka_unit_test(test_jmp_far_checks),      cmocka_unit_test(test_far_immediate),
        cmocka_unit_test(test_ret_far_outer),       cmocka_unit_test(test_call_gate_inner),
        cmocka_unit_test(test_call_gate_64),        cmocka_unit_test(test_call_gate_checks),
        cmocka_unit_test(test_task_jmp_call_iret),  cmocka_unit_test(test_task_16bit),
        cmocka_unit_test(test_task_gate_event),     cmocka_unit_test(test_task_checks),
        cmocka_unit_test(test_task_segment_faults), cmocka_unit_test(test_syscall_sysret),
        cmocka_unit_test(test_syscall_vendors),     cmocka_unit_test(test_sysenter_sysexit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
