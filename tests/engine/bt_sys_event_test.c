/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Engine bt: delivery of exceptions and interrupts in every mode, and the way back by IRET. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "bt_sys.h"

#define EXTERNAL(v)       ((struct bt_exception){.vector = (v), .external = true})
#define FAULT(v)          ((struct bt_exception){.vector = (v)})
#define FAULT_ERROR(v, e) ((struct bt_exception){.vector = (v), .has_error = true, .error = (e)})
#define SOFT(v, next)     ((struct bt_exception){.vector = (v), .soft = true, .next_rip = (next)})

static uint64_t sp(const struct sys *s)
{
    return s->cpu.gpr[R_RSP];
}

static void test_rflags(void **state)
{
    struct sys *s = sys_long(0);
    for (uint64_t bits = 0; bits < 1u << 22; bits += 0x35) {
        bt_set_rflags(&s->cpu, bits);
        assert_int_equal(bt_rflags(&s->cpu), (bits & 0x3f7fd5) | 2);
        assert_int_equal(s->cpu.status & ~UINT32_C(0xff01), 0);
    }
    bt_set_rflags(&s->cpu, FLAG_OF | FLAG_ZF | FLAG_DF);
    assert_int_equal(s->cpu.status, 0x4201);
    assert_int_equal(s->cpu.df, FLAG_DF);
    sys_free(s);
}

/* ---- 64-bit ---- */

static void test_long_from_user(void **state)
{
    struct sys *s = sys_long(3);
    bt_set_rflags(&s->cpu, FLAG_IF | FLAG_TF | FLAG_NT | FLAG_AC | FLAG_CF);
    assert_int_equal(sys_deliver(s, EXTERNAL(0x30)), 0x30);
    assert_int_equal(sp(s), AT_STACK0 - 40);
    assert_int_equal(sys_get(s, sp(s), 8), AT_CODE);
    assert_int_equal(sys_get(s, sp(s) + 8, 8), S_UCODE64);
    assert_int_equal(sys_get(s, sp(s) + 16, 8), FLAG_IF | FLAG_TF | FLAG_NT | FLAG_AC | FLAG_CF | 2);
    assert_int_equal(sys_get(s, sp(s) + 24, 8), AT_USER_STACK);
    assert_int_equal(sys_get(s, sp(s) + 32, 8), S_UDATA);
    assert_int_equal(s->cpu.cpl, 0);
    assert_int_equal(s->cpu.seg[SEG_CS].selector, S_KCODE64);
    assert_int_equal(s->cpu.seg[SEG_SS].selector, 0);
    assert_true(s->cpu.seg[SEG_SS].attr & ATTR_UNUSABLE);
    assert_int_equal(bt_rflags(&s->cpu), FLAG_AC | FLAG_CF | 2);
    assert_true(s->cpu.mode & MODE_CODE64);
    assert_false(s->cpu.mode & MODE_USER);
    /* And back. */
    assert_true(RUN(s, "\x48\xcf"));
    assert_int_equal(s->cpu.rip, AT_CODE);
    assert_int_equal(sp(s), AT_USER_STACK);
    assert_int_equal(s->cpu.cpl, 3);
    assert_int_equal(s->cpu.seg[SEG_SS].selector, S_UDATA);
    assert_int_equal(bt_rflags(&s->cpu), FLAG_IF | FLAG_TF | FLAG_NT | FLAG_AC | FLAG_CF | 2);
    sys_free(s);
}

static void test_long_same_level(void **state)
{
    struct sys *s = sys_long(0);
    uint64_t old = sp(s);
    assert_int_equal(sys_deliver(s, FAULT_ERROR(VEC_GP, 0x1234)), VEC_GP);
    /* The stack was aligned down to 16 first; the fault pushes RF. */
    assert_int_equal(sp(s), (old & ~UINT64_C(15)) - 48);
    assert_int_equal(sys_get(s, sp(s), 8), 0x1234);
    assert_int_equal(sys_get(s, sp(s) + 8, 8), AT_CODE);
    assert_int_equal(sys_get(s, sp(s) + 24, 8), FLAG_IF | FLAG_RF | 2);
    assert_int_equal(sys_get(s, sp(s) + 32, 8), old);
    assert_int_equal(sys_get(s, sp(s) + 40, 8), S_KSTACK64);
    assert_int_equal(s->cpu.seg[SEG_SS].selector, S_KSTACK64);
    assert_int_equal(bt_rflags(&s->cpu), 2);
    s->cpu.gpr[R_RSP] += 8;
    assert_true(RUN(s, "\x48\xcf"));
    assert_int_equal(sp(s), old);
    assert_int_equal(bt_rflags(&s->cpu), FLAG_IF | FLAG_RF | 2);
    sys_free(s);
}

static void test_long_ist_and_trap_gate(void **state)
{
    struct sys *s = sys_long(0);
    sys_idt_gate(s, 0x40, DESC_TRAP32, S_KCODE64, AT_HANDLER + 0x40 * 16, 0, true, 1);
    uint64_t old = sp(s);
    assert_int_equal(sys_deliver(s, EXTERNAL(0x40)), 0x40);
    assert_int_equal(sp(s), AT_IST1 - 40);
    assert_int_equal(sys_get(s, sp(s) + 24, 8), old);
    assert_int_equal(s->cpu.seg[SEG_SS].selector, S_KSTACK64); /* no change of level: SS stays */
    assert_true(s->cpu.iflag);
    sys_free(s);
}

static void test_long_from_compat(void **state)
{
    struct sys *s = sys_compat(3);
    assert_int_equal(sys_deliver(s, SOFT(0x80, AT_CODE + 2)), 0x80);
    assert_true(s->cpu.mode & MODE_CODE64);
    assert_int_equal(sys_get(s, sp(s), 8), AT_CODE + 2);
    assert_int_equal(sys_get(s, sp(s) + 8, 8), S_UCODE);
    assert_true(RUN(s, "\x48\xcf"));
    assert_int_equal(s->cpu.rip, AT_CODE + 2);
    assert_true(s->cpu.mode & MODE_CODE32);
    assert_false(s->cpu.mode & MODE_CODE64);
    sys_free(s);
}

/* What is wrong with the gate of vector 0x30, and what comes of it. */
struct bad_gate {
    unsigned type, dpl;
    uint16_t sel;
    uint64_t offset;
    bool present, soft;
    unsigned vector;
    uint32_t error;
};

static void check_bad_gates(struct sys *(*make)(unsigned), const struct bad_gate *bad, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct sys *s = make(3);
        sys_idt_gate(s, 0x30, bad[i].type, bad[i].sel, bad[i].offset, bad[i].dpl, bad[i].present, 0);
        int got = sys_deliver(s, bad[i].soft ? SOFT(0x30, AT_CODE + 2) : EXTERNAL(0x30));
        assert_int_equal(got, bad[i].vector);
        unsigned size = bt_long_mode(&s->cpu) ? 8 : 4;
        assert_int_equal(sys_get(s, sp(s), size), bad[i].error);
        assert_int_equal(sys_get(s, sp(s) + size, size), AT_CODE); /* a fault of the instruction itself */
        assert_true(sys_get(s, sp(s) + size * 3, size) & FLAG_RF);
        sys_free(s);
    }
}

static void test_long_bad_gates(void **state)
{
    static const struct bad_gate bad[] = {
        {DESC_INT32, 3, S_KCODE64, AT_HANDLER, false, false, VEC_NP, 0x30 * 8 + 3},
        {DESC_INT32, 3, S_KCODE64, AT_HANDLER, false, true, VEC_NP, 0x30 * 8 + 2},
        {DESC_INT32, 0, S_KCODE64, AT_HANDLER, true, true, VEC_GP, 0x30 * 8 + 2},
        {DESC_TASK_GATE, 3, S_TSS, AT_HANDLER, true, false, VEC_GP, 0x30 * 8 + 3},
        {DESC_INT16, 3, S_KCODE64, AT_HANDLER, true, false, VEC_GP, 0x30 * 8 + 3},
        {DESC_INT32, 3, 0, AT_HANDLER, true, false, VEC_GP, 1},
        {DESC_INT32, 3, 3, AT_HANDLER, true, true, VEC_GP, 0},
        {DESC_INT32, 3, S_KCODE, AT_HANDLER, true, false, VEC_GP, S_KCODE | 1}, /* not 64-bit code */
        {DESC_INT32, 3, S_KDATA, AT_HANDLER, true, false, VEC_GP, S_KDATA | 1},
        {DESC_INT32, 3, 0xff8, AT_HANDLER, true, false, VEC_GP, 0xff8 | 1},
        {DESC_INT32, 3, S_KCODE64 | 4, AT_HANDLER, true, true, VEC_GP, S_KCODE64 | 4}, /* no LDT */
        {DESC_INT32, 3, S_KCODE64, UINT64_C(0x800000000000), true, false, VEC_GP, 1},
    };
    check_bad_gates(sys_long, bad, ARRAY_SIZE(bad));
}

static void test_legacy_bad_gates(void **state)
{
    static const struct bad_gate bad[] = {
        {DESC_INT32, 3, S_KCODE, AT_HANDLER, false, false, VEC_NP, 0x30 * 8 + 3},
        {DESC_INT32, 0, S_KCODE, AT_HANDLER, true, true, VEC_GP, 0x30 * 8 + 2},
        {DESC_CALL32, 3, S_KCODE, AT_HANDLER, true, false, VEC_GP, 0x30 * 8 + 3},
        {DESC_INT32, 3, 0, AT_HANDLER, true, true, VEC_GP, 0},
        {DESC_INT32, 3, S_UDATA, AT_HANDLER, true, false, VEC_GP, (S_UDATA & 0xfffc) | 1},
        {DESC_INT32, 3, S_ABSENT_CODE, AT_HANDLER, true, false, VEC_NP, S_ABSENT_CODE | 1},
        {DESC_TASK_GATE, 3, S_TSS, 0, true, false, VEC_GP, S_TSS | 1}, /* busy */
        {DESC_TASK_GATE, 3, S_KCODE, 0, true, true, VEC_GP, S_KCODE},
    };
    check_bad_gates(sys_protected, bad, ARRAY_SIZE(bad));
}

static void test_idt_limit(void **state)
{
    struct sys *s = sys_long(0);
    s->cpu.idtr.limit = 0x30 * 16 + 14;
    assert_int_equal(sys_deliver(s, EXTERNAL(0x30)), VEC_GP);
    assert_int_equal(sys_get(s, sp(s), 8), 0x30 * 8 + 3);
    sys_free(s);
    s = sys_protected(0);
    s->cpu.idtr.limit = 0x30 * 8 + 6;
    assert_int_equal(sys_deliver(s, SOFT(0x30, 0)), VEC_GP);
    assert_int_equal(sys_get(s, sp(s), 4), 0x30 * 8 + 2);
    sys_free(s);
}

/* SDM vol. 3 table 6-5: the second exception comes from the first one's gate. */
static void test_double_faults(void **state)
{
    static const struct {
        unsigned first; /* its gate is not present: #NP on the way */
        int arrives;
    } cases[] = {
        {VEC_UD, VEC_NP}, {VEC_DB, VEC_NP}, {VEC_GP, VEC_DF}, {VEC_DE, VEC_DF},
        {VEC_TS, VEC_DF}, {VEC_SS, VEC_DF}, {VEC_PF, VEC_DF}, {VEC_AC, VEC_NP},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct sys *s = sys_long(3);
        sys_idt_gate(s, cases[i].first, DESC_INT32, S_KCODE64, AT_HANDLER, 0, false, 0);
        assert_int_equal(sys_deliver(s, FAULT_ERROR(cases[i].first, 7)), cases[i].arrives);
        if (cases[i].arrives == VEC_DF)
            assert_int_equal(sys_get(s, sp(s), 8), 0);
        assert_int_equal(sys_get(s, sp(s) + 8, 8), AT_CODE);
        assert_int_equal(sys_get(s, sp(s) + 32, 8), AT_USER_STACK);
        sys_free(s);
    }
}

static void test_fault_on_stack(void **state)
{
    /* #PF on the kernel stack while delivering #GP is handled by itself; its IST lets it arrive. */
    struct sys *s = sys_long(3);
    sys_idt_gate(s, VEC_PF, DESC_INT32, S_KCODE64, AT_HANDLER + VEC_PF * 16, 0, true, 1);
    s->absent[(AT_STACK0 - 1) / 4096] = 1;
    assert_int_equal(sys_deliver(s, FAULT_ERROR(VEC_GP, 0)), VEC_PF);
    assert_int_equal(s->cpu.cr2, AT_STACK0 - 48);
    assert_int_equal(sys_get(s, sp(s), 8), 2); /* a supervisor's write, although CPL was 3 */
    assert_int_equal(sys_get(s, sp(s) + 16, 8), S_UCODE64);
    sys_free(s);
    /* #PF while delivering #PF is a double fault, and CR2 is the second one's. */
    s = sys_long(3);
    sys_idt_gate(s, VEC_DF, DESC_INT32, S_KCODE64, AT_HANDLER + VEC_DF * 16, 0, true, 1);
    s->absent[(AT_STACK0 - 1) / 4096] = 1;
    struct bt_exception pf = FAULT_ERROR(VEC_PF, 4);
    pf.cr2 = 0x123456;
    assert_int_equal(sys_deliver(s, pf), VEC_DF);
    assert_int_equal(s->cpu.cr2, AT_STACK0 - 48);
    sys_free(s);
}

static void test_triple_fault(void **state)
{
    struct sys *s = sys_long(3);
    s->cpu.idtr.limit = 0;
    s->cpu.vec_live = true;
    assert_int_equal(sys_deliver(s, FAULT(VEC_UD)), -1);
    assert_true(s->cpu.shutdown);
    assert_false(s->cpu.vec_live); /* saved before the text was made */
    assert_int_equal(strncmp(s->cpu.why, "triple fault: vector 13", 23), 0);
    assert_int_equal(s->cpu.rip, AT_CODE);
    assert_int_equal(s->cpu.cpl, 3);
    sys_free(s);
}

static void test_db_and_nmi(void **state)
{
    struct sys *s = sys_long(0);
    s->cpu.dr[6] |= 0xf;
    s->cpu.dr[7] |= BIT(13);
    struct bt_exception db = FAULT(VEC_DB);
    db.dr6 = BIT(14) | 2;
    assert_int_equal(sys_deliver(s, db), VEC_DB);
    assert_int_equal(s->cpu.dr[6], 0xffff0ff0 | BIT(14) | 2);
    assert_int_equal(s->cpu.dr[7], 0x400);
    assert_false(sys_get(s, sp(s) + 16, 8) & FLAG_RF); /* a trap */
    db.dr6 = BIT(13);
    assert_int_equal(sys_deliver(s, db), VEC_DB);
    assert_true(sys_get(s, sp(s) + 16, 8) & FLAG_RF); /* general detect is a fault */
    assert_int_equal(sys_deliver(s, EXTERNAL(VEC_NMI)), VEC_NMI);
    assert_true(s->cpu.nmi_blocked);
    s->cpu.nmi_pending = true;
    assert_true(RUN(s, "\x48\xcf"));
    assert_false(s->cpu.nmi_blocked);
    assert_true(s->cpu.kick && (s->cpu.requests & BT_REQ_EVENT));
    sys_free(s);
}

/* ---- 32-bit ---- */

static void test_legacy_from_user(void **state)
{
    struct sys *s = sys_protected(3);
    assert_int_equal(sys_deliver(s, FAULT_ERROR(VEC_GP, 0x18)), VEC_GP);
    assert_int_equal(sp(s), AT_STACK0 - 24);
    static const uint64_t frame[] = {0x18, AT_CODE, S_UCODE, FLAG_IF | FLAG_RF | 2, AT_USER_STACK, S_UDATA};
    for (unsigned i = 0; i < ARRAY_SIZE(frame); i++)
        assert_int_equal(sys_get(s, sp(s) + i * 4, 4), frame[i]);
    assert_int_equal(s->cpu.seg[SEG_SS].selector, S_KDATA);
    assert_int_equal(s->cpu.seg[SEG_DS].selector, S_UDATA);
    s->cpu.gpr[R_RSP] += 4;
    assert_int_equal(RUN(s, "\xcf"), true);
    assert_int_equal(s->cpu.cpl, 3);
    assert_int_equal(sp(s), AT_USER_STACK);
    assert_int_equal(s->cpu.seg[SEG_DS].selector, S_UDATA);
    sys_free(s);
}

static void test_legacy_same_level_and_conforming(void **state)
{
    struct sys *s = sys_protected(0);
    uint64_t old = sp(s);
    assert_int_equal(sys_deliver(s, EXTERNAL(0x20)), 0x20);
    assert_int_equal(sp(s), old - 12);
    assert_int_equal(sys_get(s, sp(s), 4), AT_CODE);
    sys_free(s);
    /* A conforming handler runs at the interrupted level. */
    s = sys_protected(3);
    sys_idt_gate(s, 0x20, DESC_TRAP32, S_CONFORMING, AT_HANDLER + 0x20 * 16, 0, true, 0);
    assert_int_equal(sys_deliver(s, EXTERNAL(0x20)), 0x20);
    assert_int_equal(s->cpu.cpl, 3);
    assert_int_equal(s->cpu.seg[SEG_CS].selector, S_CONFORMING | 3);
    assert_int_equal(sp(s), AT_USER_STACK - 12);
    assert_true(s->cpu.iflag);
    sys_free(s);
}

static void test_legacy_16bit_gate(void **state)
{
    struct sys *s = sys_protected(3);
    sys_descriptor(s, S_KCODE16, AT_HANDLER, 0xffff, ATTR_P | ATTR_S | 0xa);
    sys_idt_gate(s, 0x20, DESC_INT16, S_KCODE16, 0xabcd0200, 0, true, 0);
    s->cpu.rip = 0x12345;
    s->cpu.exc = EXTERNAL(0x20);
    bt_deliver(&s->cpu);
    assert_int_equal(s->cpu.rip, 0x200);
    assert_int_equal(sp(s), AT_STACK0 - 10);
    static const uint64_t frame[] = {0x2345, S_UCODE, FLAG_IF | 2, AT_USER_STACK & 0xffff, S_UDATA};
    for (unsigned i = 0; i < ARRAY_SIZE(frame); i++)
        assert_int_equal(sys_get(s, sp(s) + i * 2, 2), frame[i]);
    sys_free(s);
}

static void test_legacy_tss_faults(void **state)
{
    static const struct {
        uint16_t ss;
        uint32_t esp;
        unsigned vector;
        uint32_t error;
    } cases[] = {
        {0, AT_STACK0, VEC_TS, 1},
        {S_UDATA, AT_STACK0, VEC_TS, (S_UDATA & 0xfffc) | 1},
        {S_KDATA | 1, AT_STACK0, VEC_TS, S_KDATA | 1},
        {S_READ_ONLY, AT_STACK0, VEC_TS, S_READ_ONLY | 1},
        {0xff8, AT_STACK0, VEC_TS, 0xff8 | 1},
        {S_ABSENT, AT_STACK0, VEC_SS, S_ABSENT | 1},
        {S_SMALL, 0x200, VEC_SS, S_SMALL | 1}, /* outside the new stack's limit */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct sys *s = sys_protected(3);
        /* The fault's own handler is conforming, so that it needs no stack from the TSS. */
        sys_idt_gate(s, cases[i].vector, DESC_INT32, S_CONFORMING, AT_HANDLER + cases[i].vector * 16, 0, true,
                     0);
        sys_put(s, AT_TSS + 4, 4, cases[i].esp);
        sys_put(s, AT_TSS + 8, 4, cases[i].ss);
        assert_int_equal(sys_deliver(s, EXTERNAL(0x20)), cases[i].vector);
        assert_int_equal(sys_get(s, sp(s), 4), cases[i].error);
        sys_free(s);
    }
    struct sys *s = sys_protected(3);
    sys_idt_gate(s, VEC_TS, DESC_INT32, S_CONFORMING, AT_HANDLER + VEC_TS * 16, 0, true, 0);
    s->cpu.seg[SEG_TR].limit = 8;
    assert_int_equal(sys_deliver(s, EXTERNAL(0x20)), VEC_TS);
    assert_int_equal(sys_get(s, sp(s), 4), S_TSS | 1);
    sys_free(s);
}

static void test_stack_limit_same_level(void **state)
{
    struct sys *s = sys_protected(0);
    sys_segments(s, S_KCODE, S_SMALL, 0);
    s->cpu.gpr[R_RSP] = 0x8; /* three dwords wrap below zero, outside the limit */
    assert_int_equal(sys_deliver(s, EXTERNAL(0x20)), -1);
    assert_int_equal(sp(s), 8);
    sys_free(s);
}

/* ---- virtual-8086 and real mode ---- */

static void test_v86(void **state)
{
    struct sys *s = sys_v86(0);
    assert_int_equal(sys_deliver(s, FAULT_ERROR(VEC_GP, 0)), VEC_GP);
    assert_int_equal(sp(s), AT_STACK0 - 40);
    static const uint64_t frame[] = {
        0, 0x100, 0x1010, FLAG_VM | FLAG_IF | FLAG_RF | 2, 0x8000, 0x1020, 0x1000, 0x1030, 0x1040, 0x1050};
    for (unsigned i = 0; i < ARRAY_SIZE(frame); i++)
        assert_int_equal(sys_get(s, sp(s) + i * 4, 4), frame[i]);
    assert_int_equal(s->cpu.cpl, 0);
    assert_false(s->cpu.sysflags & FLAG_VM);
    for (unsigned i = SEG_DS; i <= SEG_GS; i++)
        assert_true(s->cpu.seg[i].attr & ATTR_UNUSABLE);
    s->cpu.gpr[R_RSP] += 4;
    assert_true(RUN(s, "\xcf"));
    assert_true(s->cpu.sysflags & FLAG_VM);
    assert_int_equal(s->cpu.cpl, 3);
    assert_int_equal(s->cpu.rip, 0x100);
    assert_int_equal(sp(s), 0x8000);
    for (unsigned i = 0; i < SEG_LDTR; i++) {
        assert_int_equal(s->cpu.seg[i].selector, 0x1000 + 0x10 * i);
        assert_int_equal(s->cpu.seg[i].base, 0x10000 + 0x100 * i);
        assert_int_equal(s->cpu.seg[i].limit, 0xffff);
        assert_int_equal(s->cpu.seg[i].attr, 0xf3);
    }
    sys_free(s);
    /* A handler that is not at level 0 is refused. */
    s = sys_v86(3);
    sys_idt_gate(s, 0x20, DESC_INT32, S_CODE1, AT_HANDLER, 3, true, 0);
    assert_int_equal(sys_deliver(s, SOFT(0x20, 0x102)), VEC_GP);
    assert_int_equal(sys_get(s, sp(s), 4), S_CODE1);
    sys_free(s);
}

static void test_v86_iopl(void **state)
{
    static const char *const sensitive[] = {"\xcd\x20", "\xcf", "\x9c", "\x9d", "\xfa", "\xfb"};
    for (unsigned i = 0; i < ARRAY_SIZE(sensitive); i++) {
        struct sys *s = sys_v86(2);
        assert_false(sys_run(s, sensitive[i], (unsigned)strlen(sensitive[i])));
        sys_expect(s, VEC_GP, 0);
        sys_free(s);
    }
    struct sys *s = sys_v86(3);
    assert_true(RUN(s, "\xfa"));
    assert_false(s->cpu.iflag);
    assert_true(RUN(s, "\x9c"));
    assert_int_equal(sys_get(s, 0x10200 + 0x7ffe, 2), FLAG_IOPL | 2);
    assert_false(RUN(s, "\xcd\x20"));
    sys_expect(s, 0x20, -1);
    assert_int_equal(s->cpu.exc.next_rip, 0x104);
    sys_free(s);
}

static void test_real(void **state)
{
    struct sys *s = sys_real();
    bt_set_rflags(&s->cpu, FLAG_IF | FLAG_TF | FLAG_AC | FLAG_ZF);
    assert_int_equal(sys_deliver(s, SOFT(0x21, 0x7c02)), 0x21);
    assert_int_equal(sp(s), 0x7ffa);
    assert_int_equal(sys_get(s, 0x7ffa, 2), 0x7c02);
    assert_int_equal(sys_get(s, 0x7ffc, 2), 0);
    assert_int_equal(sys_get(s, 0x7ffe, 2), FLAG_IF | FLAG_TF | FLAG_ZF | 2);
    assert_int_equal(bt_rflags(&s->cpu), FLAG_ZF | 2);
    assert_int_equal(s->cpu.seg[SEG_CS].base, AT_HANDLER);
    assert_true(RUN(s, "\xcf"));
    assert_int_equal(s->cpu.rip, 0x7c02);
    assert_int_equal(sp(s), 0x8000);
    /* No error codes in real mode; RSP's upper bits are left alone; SP wraps. */
    s->cpu.gpr[R_RSP] = UINT64_C(0x12340002);
    assert_int_equal(sys_deliver(s, FAULT_ERROR(VEC_GP, 5)), VEC_GP);
    assert_int_equal(sp(s), UINT64_C(0x1234fffc));
    assert_int_equal(sys_get(s, 0xfffc, 2), 0x7c02);
    assert_int_equal(sys_get(s, 0, 2) & FLAG_ZF, FLAG_ZF);
    /* An odd stack pointer of 1 cannot wrap within a word: #SS, and so on to shutdown. */
    s->cpu.gpr[R_RSP] = 1;
    assert_int_equal(sys_deliver(s, EXTERNAL(8)), -1);
    sys_free(s);
    s = sys_real();
    s->cpu.idtr.limit = 0x21 * 4 + 2;
    assert_int_equal(sys_deliver(s, SOFT(0x21, 0)), VEC_GP);
    sys_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rflags),
        cmocka_unit_test(test_long_from_user),
        cmocka_unit_test(test_long_same_level),
        cmocka_unit_test(test_long_ist_and_trap_gate),
        cmocka_unit_test(test_long_from_compat),
        cmocka_unit_test(test_long_bad_gates),
        cmocka_unit_test(test_legacy_bad_gates),
        cmocka_unit_test(test_idt_limit),
        cmocka_unit_test(test_double_faults),
        cmocka_unit_test(test_fault_on_stack),
        cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_db_and_nmi),
        cmocka_unit_test(test_legacy_from_user),
        cmocka_unit_test(test_legacy_same_level_and_conforming),
        cmocka_unit_test(test_legacy_16bit_gate),
        cmocka_unit_test(test_legacy_tss_faults),
        cmocka_unit_test(test_stack_limit_same_level),
        cmocka_unit_test(test_v86),
        cmocka_unit_test(test_v86_iopl),
        cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
