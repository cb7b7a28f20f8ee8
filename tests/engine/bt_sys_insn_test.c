/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Engine bt: segment loads, descriptor tables, flags by privilege, near transfers, decimal and other legacy
 * code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "bt_sys.h"

static uint64_t sp(const struct sys *s)
{
    return s->cpu.gpr[R_RSP];
}

/* ---- segment registers ---- */

struct load_case {
    unsigned cpl;
    uint16_t sel;
    int vector; /* -1: loads */
    uint32_t error;
};

static void check_loads(const char *insn, unsigned seg, const struct load_case *cases, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct load_case *c = &cases[i];
        struct sys *s = sys_protected(c->cpl);
        s->cpu.gpr[R_RAX] = 0xffff0000 | c->sel;
        assert_int_equal(sys_run(s, insn, 2), c->vector < 0);
        if (c->vector >= 0) {
            sys_expect(s, (unsigned)c->vector, c->error);
            assert_false(s->cpu.shadow);
        } else {
            assert_int_equal(s->cpu.seg[seg].selector, c->sel);
            assert_int_equal(s->cpu.rip, AT_CODE + 2);
            assert_int_equal(s->cpu.shadow, seg == SEG_SS);
            if (c->sel & 0xfffc)
                assert_true(sys_get(s, AT_GDT + (c->sel & 0xfff8u) + 5, 1) & 1);
            else
                assert_true(s->cpu.seg[seg].attr & ATTR_UNUSABLE);
        }
        sys_free(s);
    }
}

static void test_mov_ds(void **state)
{
    static const struct load_case cases[] = {
        {0, S_KDATA, -1, 0},
        {0, S_KDATA | 3, VEC_GP, S_KDATA},
        {0, S_UDATA, -1, 0},
        {3, S_UDATA & ~3, -1, 0},
        {3, S_KDATA, VEC_GP, S_KDATA},
        {3, S_CONFORMING | 3, -1, 0}, /* conforming code may be read from anywhere */
        {3, S_KCODE, VEC_GP, S_KCODE},
        {0, S_KCODE, -1, 0},
        {0, S_EXEC_ONLY, VEC_GP, S_EXEC_ONLY},
        {0, S_READ_ONLY, -1, 0},
        {0, 0, -1, 0},
        {3, 3, -1, 0},
        {0, S_ABSENT, VEC_NP, S_ABSENT},
        {0, S_TSS, VEC_GP, S_TSS},
        {0, 0xff8, VEC_GP, 0xff8},
        {0, 0xff8 | 4, VEC_GP, 0xff8 | 4},
    };
    check_loads("\x8e\xd8", SEG_DS, cases, ARRAY_SIZE(cases));
}

static void test_mov_ss(void **state)
{
    static const struct load_case cases[] = {
        {0, S_KDATA, -1, 0},
        {3, S_UDATA, -1, 0},
        {3, S_UDATA & ~3, VEC_GP, S_UDATA & ~3},
        {0, S_UDATA, VEC_GP, S_UDATA & ~3},
        {0, 0, VEC_GP, 0},
        {0, S_READ_ONLY, VEC_GP, S_READ_ONLY},
        {0, S_KCODE, VEC_GP, S_KCODE},
        {0, S_ABSENT, VEC_SS, S_ABSENT},
    };
    check_loads("\x8e\xd0", SEG_SS, cases, ARRAY_SIZE(cases));
    /* 64-bit mode: a null SS below CPL 3 only, and RPL has to be CPL. */
    struct sys *s = sys_long(0);
    s->cpu.gpr[R_RAX] = 0;
    assert_true(RUN(s, "\x8e\xd0"));
    s->cpu.gpr[R_RAX] = 3;
    assert_false(RUN(s, "\x8e\xd0"));
    sys_expect(s, VEC_GP, 0);
    sys_free(s);
    s = sys_long(3);
    assert_false(RUN(s, "\x8e\xd0"));
    sys_free(s);
}

static void test_ldt(void **state)
{
    struct sys *s = sys_long(0);
    s->cpu.gpr[R_RAX] = S_LDT;
    assert_true(RUN(s, "\x0f\x00\xd0"));
    assert_int_equal(s->cpu.seg[SEG_LDTR].base, AT_LDT);
    sys_put(s, AT_LDT + 8, 8, sys_get(s, AT_GDT + S_KDATA, 8));
    s->cpu.gpr[R_RAX] = 0x8 | 4;
    assert_true(RUN(s, "\x8e\xc0"));
    s->cpu.gpr[R_RAX] = 0x20 | 4; /* past its limit */
    assert_false(RUN(s, "\x8e\xc0"));
    sys_expect(s, VEC_GP, 0x24);
    s->cpu.gpr[R_RAX] = S_KDATA;
    assert_false(RUN(s, "\x0f\x00\xd0"));
    sys_expect(s, VEC_GP, S_KDATA);
    s->cpu.gpr[R_RAX] = 0;
    assert_true(RUN(s, "\x0f\x00\xd0"));
    s->cpu.gpr[R_RAX] = 0x8 | 4;
    assert_false(RUN(s, "\x8e\xc0"));
    sys_expect(s, VEC_GP, 0xc);
    sys_free(s);
}

static void test_ltr(void **state)
{
    struct sys *s = sys_long(0);
    s->cpu.gpr[R_RAX] = S_TSS;
    assert_false(RUN(s, "\x0f\x00\xd8")); /* busy */
    sys_expect(s, VEC_GP, S_TSS);
    sys_descriptor(s, S_TSS, UINT64_C(0xffff880000004000), 0x67, ATTR_P | DESC_TSS32);
    assert_true(RUN(s, "\x0f\x00\xd8"));
    assert_int_equal(s->cpu.seg[SEG_TR].base, UINT64_C(0xffff880000004000));
    assert_int_equal(s->cpu.seg[SEG_TR].attr & ATTR_TYPE, DESC_TSS32_BUSY);
    assert_int_equal(sys_get(s, AT_GDT + S_TSS + 5, 1), 0x8b);
    sys_descriptor(s, S_TSS, UINT64_C(0x880000004000), 0x67, ATTR_P | DESC_TSS32);
    assert_false(RUN(s, "\x0f\x00\xd8")); /* base not canonical */
    s->cpu.gpr[R_RAX] = 0;
    assert_false(RUN(s, "\x0f\x00\xd8"));
    sys_expect(s, VEC_GP, 0);
    sys_free(s);
    s = sys_long(3);
    assert_false(RUN(s, "\x0f\x00\xd8"));
    sys_expect(s, VEC_GP, 0);
    sys_free(s);
}

static void test_real_loads(void **state)
{
    struct sys *s = sys_real();
    s->cpu.seg[SEG_ES].limit = 0xffffffff; /* "unreal" */
    s->cpu.seg[SEG_ES].attr |= ATTR_G | ATTR_DB;
    s->cpu.gpr[R_RAX] = 0xb800;
    assert_true(RUN(s, "\x8e\xc0"));
    assert_int_equal(s->cpu.seg[SEG_ES].base, 0xb8000);
    assert_int_equal(s->cpu.seg[SEG_ES].limit, 0xffffffff);
    assert_int_equal(s->cpu.seg_base[SEG_ES], 0xb8000);
    sys_free(s);
}

static void test_far_pointers_and_stack(void **state)
{
    struct sys *s = sys_protected(0);
    s->cpu.gpr[R_RAX] = AT_DATA;
    sys_put(s, AT_DATA, 4, 0x12345678);
    sys_put(s, AT_DATA + 4, 2, S_UDATA);
    assert_true(RUN(s, "\xc4\x18")); /* les ebx, [eax] */
    assert_int_equal(s->cpu.gpr[R_RBX], 0x12345678);
    assert_int_equal(s->cpu.seg[SEG_ES].selector, S_UDATA);
    sys_put(s, AT_DATA + 4, 2, S_ABSENT);
    assert_false(RUN(s, "\xc5\x18"));
    sys_expect(s, VEC_NP, S_ABSENT);
    assert_true(RUN(s, "\x06")); /* push es */
    assert_int_equal(sys_get(s, sp(s), 4), S_UDATA);
    assert_true(RUN(s, "\x1f")); /* pop ds */
    assert_int_equal(s->cpu.seg[SEG_DS].selector, S_UDATA);
    s->cpu.gpr[R_RSP] = 0x1fffe;
    sys_put(s, sp(s), 4, S_KDATA16);
    assert_true(RUN(s, "\x17")); /* pop ss: ESP moves by the old width */
    assert_int_equal(sp(s), 0x20002);
    assert_true(s->cpu.shadow);
    sys_free(s);
}

static void test_table_registers(void **state)
{
    struct sys *s = sys_long(0);
    s->cpu.gpr[R_RAX] = AT_DATA;
    sys_put(s, AT_DATA, 2, 0xabc);
    sys_put(s, AT_DATA + 2, 8, UINT64_C(0xffff880000001000));
    assert_true(RUN(s, "\x0f\x01\x18")); /* lidt */
    assert_int_equal(s->cpu.idtr.base, UINT64_C(0xffff880000001000));
    assert_int_equal(s->cpu.idtr.limit, 0xabc);
    s->cpu.gpr[R_RAX] = AT_DATA + 0x100;
    assert_true(RUN(s, "\x0f\x01\x08")); /* sidt */
    assert_memory_equal(s->memory + AT_DATA, s->memory + AT_DATA + 0x100, 10);
    sys_put(s, AT_DATA + 0x102, 8, UINT64_C(0x880000001000));
    assert_false(RUN(s, "\x0f\x01\x10"));
    sys_expect(s, VEC_GP, 0);
    sys_free(s);
    s = sys_long(3);
    s->cpu.gpr[R_RAX] = AT_DATA;
    assert_true(RUN(s, "\x0f\x01\x00"));
    assert_true(RUN(s, "\x0f\x00\xc8")); /* str eax */
    assert_int_equal(s->cpu.gpr[R_RAX], S_TSS);
    s->cpu.cr4 |= CR4_UMIP;
    assert_false(RUN(s, "\x0f\x01\x00"));
    sys_expect(s, VEC_GP, 0);
    assert_false(RUN(s, "\x0f\x00\xc8"));
    assert_false(RUN(s, "\x0f\x01\x10")); /* lgdt */
    sys_free(s);
    s = sys_real();
    s->cpu.gpr[R_RBX] = 0x500;
    sys_put(s, 0x500, 6, UINT64_C(0x123456780027));
    assert_true(RUN(s, "\x0f\x01\x17")); /* 16-bit operand size: 24 bits of base */
    assert_int_equal(s->cpu.gdtr.base, 0x345678);
    assert_true(RUN(s, "\x66\x0f\x01\x17"));
    assert_int_equal(s->cpu.gdtr.base, 0x12345678);
    sys_free(s);
}

static void test_looking(void **state)
{
    static const struct {
        unsigned cpl;
        uint16_t sel;
        bool lar, lsl, verr, verw;
        uint32_t rights, limit;
    } cases[] = {
        {0, S_KDATA, true, true, true, true, 0xcf9200, ~0u},
        {3, S_KDATA, false, false, false, false, 0, 0},
        {0, S_KDATA | 3, false, false, false, false, 0, 0},
        {0, S_UCODE, true, true, true, false, 0xcffa00, ~0u},
        {3, S_CONFORMING, true, true, true, false, 0xcf9e00, ~0u},
        {0, S_EXEC_ONLY, true, true, false, false, 0xcf9800, ~0u},
        {0, S_READ_ONLY, true, true, true, false, 0xcf9000, ~0u},
        {0, S_TSS, true, true, false, false, 0x008b00, 0x67},
        {0, S_SMALL, true, true, true, true, 0x409200, 0xff},
        {0, S_GATE, false, false, false, false, 0, 0}, /* type 0 */
        {0, 0, false, false, false, false, 0, 0},
        {0, 0xff8, false, false, false, false, 0, 0},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct sys *s = sys_protected(cases[i].cpl);
        bt_set_status(&s->cpu, FLAG_CF | FLAG_OF);
        s->cpu.gpr[R_RCX] = cases[i].sel;
        s->cpu.gpr[R_RAX] = 0x55;
        assert_true(RUN(s, "\x0f\x02\xc1"));
        assert_int_equal(bt_status(&s->cpu), FLAG_CF | FLAG_OF | (cases[i].lar ? FLAG_ZF : 0));
        assert_int_equal(s->cpu.gpr[R_RAX], cases[i].lar ? cases[i].rights : 0x55);
        assert_true(RUN(s, "\x0f\x03\xc1"));
        assert_int_equal(!!(bt_status(&s->cpu) & FLAG_ZF), cases[i].lsl);
        if (cases[i].lsl)
            assert_int_equal(s->cpu.gpr[R_RAX], cases[i].limit);
        assert_true(RUN(s, "\x0f\x00\xe1"));
        assert_int_equal(!!(bt_status(&s->cpu) & FLAG_ZF), cases[i].verr);
        assert_true(RUN(s, "\x0f\x00\xe9"));
        assert_int_equal(!!(bt_status(&s->cpu) & FLAG_ZF), cases[i].verw);
        sys_free(s);
    }
    struct sys *s = sys_protected(3);
    s->cpu.gpr[R_RAX] = 0x12340010;
    s->cpu.gpr[R_RCX] = 3;
    assert_true(RUN(s, "\x63\xc8")); /* arpl ax, cx */
    assert_int_equal(s->cpu.gpr[R_RAX], 0x12340013);
    assert_true(bt_status(&s->cpu) & FLAG_ZF);
    assert_true(RUN(s, "\x63\xc8"));
    assert_false(bt_status(&s->cpu) & FLAG_ZF);
    s->absent[AT_GDT / 4096] = 1;
    assert_false(RUN(s, "\x0f\x02\xc0"));
    sys_expect(s, VEC_PF, 0);
    sys_free(s);
}

static void test_bases(void **state)
{
    struct sys *s = sys_long(0);
    struct bt_cpu *cpu = &s->cpu;
    cpu->kernel_gs_base = 0x1234;
    bt_seg_set_base(cpu, SEG_GS, 0x5678);
    assert_true(RUN(s, "\x0f\x01\xf8"));
    assert_int_equal(cpu->seg_base[SEG_GS], 0x1234);
    assert_int_equal(cpu->kernel_gs_base, 0x5678);
    assert_false(RUN(s, "\xf3\x48\x0f\xae\xc0"));
    sys_expect(s, VEC_UD, -1);
    cpu->cr4 |= CR4_FSGSBASE;
    cpu->gpr[R_RAX] = UINT64_C(0xffff888812345678);
    assert_true(RUN(s, "\xf3\x48\x0f\xae\xd0"));
    assert_int_equal(cpu->seg_base[SEG_FS], UINT64_C(0xffff888812345678));
    assert_true(RUN(s, "\xf3\x0f\xae\xc0"));
    assert_int_equal(cpu->gpr[R_RAX], 0x12345678);
    cpu->gpr[R_RAX] = UINT64_C(0x888812345678);
    assert_false(RUN(s, "\xf3\x48\x0f\xae\xd8"));
    sys_expect(s, VEC_GP, 0);
    sys_free(s);
}

static void test_table_limit(void **state)
{
    struct sys *s = sys_protected(0);
    s->cpu.gpr[R_RAX] = S_SMALL;
    s->cpu.gdtr.limit = S_SMALL + 6; /* one byte short */
    assert_false(RUN(s, "\x8e\xd8"));
    sys_expect(s, VEC_GP, S_SMALL);
    s->cpu.gdtr.limit++;
    assert_true(RUN(s, "\x8e\xd8"));
    sys_free(s);
}

/* ---- flags ---- */

static void test_popf(void **state)
{
    const uint64_t all = 0x3f7fd7, status = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT;
    static const struct {
        unsigned cpl, iopl;
        uint64_t extra;
    } cases[] = {{0, 0, FLAG_IF | FLAG_IOPL}, {3, 0, 0}, {3, 3, FLAG_IF}};
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct sys *s = sys_protected(cases[i].cpl);
        uint64_t iopl = (uint64_t)cases[i].iopl << 12;
        bt_set_rflags(&s->cpu, iopl | FLAG_RF);
        STACK(s, 4, all);
        assert_true(RUN(s, "\x9d"));
        assert_int_equal(bt_rflags(&s->cpu), status | FLAG_AC | FLAG_ID | cases[i].extra | iopl | 2);
        STACK(s, 4, 0);
        assert_true(RUN(s, "\x66\x9d"));
        assert_int_equal(bt_rflags(&s->cpu),
                         FLAG_AC | FLAG_ID | 2 | ((cases[i].extra & FLAG_IOPL) ? 0 : iopl));
        sys_free(s);
    }
    struct sys *s = sys_long(3);
    bt_set_rflags(&s->cpu, FLAG_RF | FLAG_IF | FLAG_CF | FLAG_ID);
    assert_true(RUN(s, "\x9c"));
    assert_int_equal(sys_get(s, sp(s), 8), FLAG_IF | FLAG_CF | FLAG_ID | 2);
    assert_int_equal(sp(s), AT_USER_STACK - 8);
    sys_free(s);
}

static void test_cli_sti(void **state)
{
    struct sys *s = sys_long(3);
    assert_false(RUN(s, "\xfa"));
    sys_expect(s, VEC_GP, 0);
    assert_false(RUN(s, "\x0f\x01\xca"));
    sys_expect(s, VEC_UD, -1);
    sys_free(s);
    s = sys_long(0);
    assert_true(RUN(s, "\xfb"));
    assert_false(s->cpu.shadow); /* IF was set already */
    assert_true(RUN(s, "\xfa"));
    assert_false(s->cpu.iflag);
    assert_true(RUN(s, "\xfb"));
    assert_true(s->cpu.shadow);
    assert_true(RUN(s, "\x0f\x01\xcb"));
    assert_true(s->cpu.sysflags & FLAG_AC);
    assert_true(RUN(s, "\x0f\x01\xca"));
    assert_false(s->cpu.sysflags & FLAG_AC);
    assert_true(RUN(s, "\xfd"));
    assert_int_equal(s->cpu.df, FLAG_DF);
    assert_true(RUN(s, "\xfc"));
    assert_int_equal(s->cpu.df, 0);
    sys_free(s);
}

static void test_software_interrupts(void **state)
{
    struct sys *s = sys_long(3);
    assert_false(RUN(s, "\xcd\x80"));
    sys_expect(s, 0x80, -1);
    assert_true(s->cpu.exc.soft);
    assert_int_equal(s->cpu.exc.next_rip, AT_CODE + 2);
    assert_false(RUN(s, "\xcc"));
    sys_expect(s, VEC_BP, -1);
    assert_int_equal(sys_deliver(s, s->cpu.exc), VEC_GP); /* its gate has DPL 0 */
    assert_int_equal(sys_get(s, sp(s), 8), VEC_BP * 8 + 2);
    sys_free(s);
    s = sys_long(3);
    assert_false(sys_run_task(s, "\xf1", 1)); /* INT1 is past itself and asks no DPL */
    assert_int_equal(sys_deliver(s, s->cpu.exc), VEC_DB);
    assert_int_equal(sys_get(s, sp(s), 8), AT_CODE + 1);
    assert_int_equal(s->cpu.dr[6], 0xffff0ff0);
    sys_free(s);
    s = sys_protected(3);
    assert_true(RUN(s, "\xce"));
    bt_set_status(&s->cpu, FLAG_OF);
    assert_false(RUN(s, "\xce"));
    sys_expect(s, VEC_OF, -1);
    sys_free(s);
}

/* ---- near transfers and the stack ---- */

static void test_near_16bit(void **state)
{
    struct sys *s = sys_real();
    s->cpu.gpr[R_RSP] = UINT64_C(0xabcd0000);
    assert_true(RUN(s, "\xe8\x00\x90")); /* call: IP wraps within 16 bits */
    assert_int_equal(s->cpu.rip, (0x7c03 + 0x9000) & 0xffff);
    assert_int_equal(sp(s), UINT64_C(0xabcdfffe));
    assert_int_equal(sys_get(s, 0xfffe, 2), 0x7c03);
    assert_true(RUN(s, "\xc2\x04\x00"));
    assert_int_equal(s->cpu.rip, 0x7c03);
    assert_int_equal(sp(s), UINT64_C(0xabcd0004));
    s->cpu.gpr[R_RAX] = 0x10000;
    assert_false(RUN(s, "\x66\xff\xe0")); /* jmp eax, past the limit */
    sys_expect(s, VEC_GP, 0);
    assert_false(RUN(s, "\x66\xff\xd0"));
    sys_expect(s, VEC_GP, 0);
    assert_int_equal(sp(s), UINT64_C(0xabcd0004));
    sys_free(s);
}

static void test_jcc_and_loops(void **state)
{
    struct sys *s = sys_protected(0);
    for (unsigned cc = 0; cc < 16; cc++) {
        for (unsigned bits = 0; bits < 64; bits++) {
            static const uint64_t flag[] = {FLAG_CF, FLAG_PF, FLAG_AF, FLAG_ZF, FLAG_SF, FLAG_OF};
            uint64_t f = 0;
            for (unsigned i = 0; i < 6; i++)
                f |= (bits >> i & 1) ? flag[i] : 0;
            bool of = f & FLAG_OF, cf = f & FLAG_CF, zf = f & FLAG_ZF, sf = f & FLAG_SF, pf = f & FLAG_PF;
            const bool want[] = {of, !of, cf, !cf, zf,       !zf,      cf || zf,       !cf && !zf,
                                 sf, !sf, pf, !pf, sf != of, sf == of, zf || sf != of, !zf && sf == of};
            bt_set_status(&s->cpu, f);
            s->cpu.rip = AT_CODE;
            char code[] = {(char)(0x70 + cc), 0x10};
            assert_true(sys_run(s, code, 2));
            assert_int_equal(s->cpu.rip, AT_CODE + 2 + (want[cc] ? 0x10 : 0));
        }
    }
    s->cpu.rip = AT_CODE;
    s->cpu.gpr[R_RCX] = 0x10001;
    bt_set_status(&s->cpu, FLAG_ZF);
    assert_true(RUN(s, "\x67\xe2\xfd")); /* loop by CX: 0x10001 becomes 0x10000, not taken */
    assert_int_equal(s->cpu.gpr[R_RCX], 0x10000);
    assert_int_equal(s->cpu.rip, AT_CODE + 3);
    assert_true(RUN(s, "\xe1\xfe")); /* loope: taken, to itself */
    assert_int_equal(s->cpu.rip, AT_CODE + 3);
    assert_true(RUN(s, "\xe0\xfe")); /* loopne: not taken */
    assert_int_equal(s->cpu.rip, AT_CODE + 5);
    assert_int_equal(s->cpu.gpr[R_RCX], 0xfffe);
    s->cpu.gpr[R_RCX] = 0x10000;
    assert_true(RUN(s, "\xe3\x10"));
    assert_int_equal(s->cpu.rip, AT_CODE + 7);
    assert_true(RUN(s, "\x67\xe3\x10"));
    assert_int_equal(s->cpu.rip, AT_CODE + 10 + 0x10);
    sys_free(s);
}

static void test_push_pop(void **state)
{
    struct sys *s = sys_protected(0);
    uint64_t top = sp(s);
    assert_true(RUN(s, "\x54")); /* push esp: the old value */
    assert_int_equal(sys_get(s, sp(s), 4), top);
    assert_true(RUN(s, "\x5c")); /* pop esp: the popped value */
    assert_int_equal(sp(s), top);
    assert_true(RUN(s, "\x6a\x80"));
    assert_int_equal(sys_get(s, sp(s), 4), 0xffffff80);
    assert_true(RUN(s, "\x66\x68\x34\x12"));
    assert_int_equal(sp(s), top - 6);
    assert_true(RUN(s, "\x66\x58"));
    assert_int_equal(s->cpu.gpr[R_RAX], 0x1234);
    assert_true(RUN(s, "\x8f\x04\x24")); /* pop [esp]: the address counts from after the pop */
    assert_int_equal(sys_get(s, top, 4), 0xffffff80);
    s->read_only[top / 4096] = 1;
    assert_false(RUN(s, "\x8f\x04\x24"));
    assert_false(RUN(s, "\x50"));
    sys_expect(s, VEC_PF, 3);
    sys_free(s);
    /* An expand-down stack: offsets above the limit only. */
    s = sys_protected(0);
    sys_segments(s, S_KCODE, S_DOWN, 0);
    s->cpu.gpr[R_RSP] = 0x10004;
    assert_true(RUN(s, "\x50"));
    assert_false(RUN(s, "\x50"));
    sys_expect(s, VEC_SS, 0);
    sys_free(s);
    s = sys_long(3);
    s->cpu.gpr[R_RSP] = UINT64_C(0x800000000004);
    assert_false(RUN(s, "\x50"));
    sys_expect(s, VEC_SS, 0);
    sys_free(s);
}

static void test_pusha_enter_leave(void **state)
{
    struct sys *s = sys_protected(0);
    uint64_t top = sp(s), regs[8];
    memcpy(regs, s->cpu.gpr, sizeof(regs));
    assert_true(RUN(s, "\x60"));
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(sys_get(s, top - 4 * (i + 1), 4), regs[i]);
    for (unsigned i = 0; i < 8; i++)
        if (i != R_RSP)
            s->cpu.gpr[i] = 0;
    sys_put(s, top - 20, 4, 0xdead); /* ESP's slot is skipped */
    assert_true(RUN(s, "\x61"));
    assert_memory_equal(regs, s->cpu.gpr, sizeof(regs));

    uint64_t bp = s->cpu.gpr[R_RBP] = top + 0x40;
    sys_put(s, bp - 4, 4, 0xaaaa);
    sys_put(s, bp - 8, 4, 0xbbbb);
    assert_true(RUN(s, "\xc8\x20\x00\x03"));
    static const unsigned display[] = {0xaaaa, 0xbbbb};
    assert_int_equal(sys_get(s, top - 4, 4), bp);
    assert_int_equal(sys_get(s, top - 8, 4), display[0]);
    assert_int_equal(sys_get(s, top - 12, 4), display[1]);
    assert_int_equal(sys_get(s, top - 16, 4), top - 4);
    assert_int_equal(s->cpu.gpr[R_RBP], top - 4);
    assert_int_equal(sp(s), top - 16 - 0x20);
    assert_true(RUN(s, "\xc9"));
    assert_int_equal(sp(s), top);
    assert_int_equal(s->cpu.gpr[R_RBP], bp);
    s->absent[(top - 0x3000) / 4096] = 1;
    assert_false(RUN(s, "\xc8\x00\x30\x00")); /* what ENTER reserves has to be there */
    sys_expect(s, VEC_PF, 2);
    sys_free(s);
}

/* ---- legacy arithmetic ---- */

static void test_decimal(void **state)
{
    static const struct {
        const char *code;
        unsigned len;
        uint16_t ax;
        uint64_t flags_in;
        uint16_t want;
        uint64_t flags;
    } cases[] = {
        {"\x27", 1, 0x00ae, 0, 0x0014, FLAG_AF | FLAG_CF | FLAG_PF},                 /* daa */
        {"\x27", 1, 0x0042, 0, 0x0042, FLAG_PF},                                     /* daa */
        {"\x27", 1, 0x0013, FLAG_AF, 0x0019, FLAG_AF},                               /* daa */
        {"\x27", 1, 0x0099, FLAG_CF, 0x00f9, FLAG_CF | FLAG_SF | FLAG_PF},           /* daa */
        {"\x2f", 1, 0x00ee, 0, 0x0088, FLAG_AF | FLAG_CF | FLAG_SF | FLAG_PF},       /* das */
        {"\x2f", 1, 0x0005, FLAG_AF, 0x00ff, FLAG_AF | FLAG_CF | FLAG_SF | FLAG_PF}, /* das */
        {"\x37", 1, 0x010b, 0, 0x0201, FLAG_AF | FLAG_CF},                           /* aaa */
        {"\x37", 1, 0x0139, 0, 0x0109, FLAG_PF},                                     /* aaa */
        {"\x3f", 1, 0x02ff, FLAG_AF, 0x0109, FLAG_AF | FLAG_CF | FLAG_PF},           /* aas */
        {"\x3f", 1, 0x0203, FLAG_AF, 0x000d, FLAG_AF | FLAG_CF},                     /* aas borrows */
        {"\xd4\x0a", 2, 0x0063, 0, 0x0909, FLAG_PF},                                 /* aam */
        {"\xd4\x10", 2, 0x12ff, 0, 0x0f0f, FLAG_PF},                                 /* aam 16 */
        {"\xd5\x0a", 2, 0x0205, 0, 0x0019, 0},                                       /* aad */
        {"\xd6", 1, 0x1200, FLAG_CF, 0x12ff, FLAG_CF},                               /* salc */
        {"\xd6", 1, 0x12ff, 0, 0x1200, 0},                                           /* salc */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct sys *s = sys_protected(3);
        s->cpu.gpr[R_RAX] = 0xabcd0000 | cases[i].ax;
        bt_set_status(&s->cpu, cases[i].flags_in);
        assert_true(sys_run(s, cases[i].code, cases[i].len));
        assert_int_equal(s->cpu.gpr[R_RAX], 0xabcd0000 | cases[i].want);
        assert_int_equal(bt_status(&s->cpu), cases[i].flags);
        sys_free(s);
    }
    struct sys *s = sys_protected(3);
    assert_false(RUN(s, "\xd4\x00"));
    sys_expect(s, VEC_DE, -1);
    sys_free(s);
}

/* Every AL, against decimal arithmetic itself: packed and unpacked sums and differences of valid digits. */
static void test_decimal_exhaustive(void **state)
{
    struct sys *s = sys_protected(3);
    for (unsigned a = 0; a < 100; a++) {
        for (unsigned b = 0; b < 100; b++) {
            unsigned pa = a / 10 << 4 | a % 10, pb = b / 10 << 4 | b % 10, sum = pa + pb, diff = pa - pb;
            bool half_sum = (pa & 15) + (pb & 15) > 15, half_diff = (pa & 15) < (pb & 15);
            s->cpu.gpr[R_RAX] = sum & 0xff;
            bt_set_status(&s->cpu, (sum > 0xff ? FLAG_CF : 0) | (half_sum ? FLAG_AF : 0));
            assert_true(RUN(s, "\x27"));
            unsigned want = (a + b) % 100;
            assert_int_equal(s->cpu.gpr[R_RAX], want / 10 << 4 | want % 10);
            assert_int_equal(!!(bt_status(&s->cpu) & FLAG_CF), a + b >= 100);
            s->cpu.gpr[R_RAX] = diff & 0xff;
            bt_set_status(&s->cpu, (pa < pb ? FLAG_CF : 0) | (half_diff ? FLAG_AF : 0));
            assert_true(RUN(s, "\x2f"));
            want = (a + 100 - b) % 100;
            assert_int_equal(s->cpu.gpr[R_RAX], want / 10 << 4 | want % 10);
            assert_int_equal(!!(bt_status(&s->cpu) & FLAG_CF), a < b);
        }
    }
    sys_free(s);
}

static void test_bound_and_xlat(void **state)
{
    struct sys *s = sys_protected(3);
    s->cpu.gpr[R_RAX] = AT_DATA;
    sys_put(s, AT_DATA, 4, (uint32_t)-5);
    sys_put(s, AT_DATA + 4, 4, 7);
    static const int index[] = {-6, -5, 0, 7, 8};
    for (unsigned i = 0; i < ARRAY_SIZE(index); i++) {
        s->cpu.gpr[R_RCX] = (uint32_t)index[i];
        bool inside = index[i] >= -5 && index[i] <= 7;
        assert_int_equal(RUN(s, "\x62\x08"), inside);
        if (!inside)
            sys_expect(s, VEC_BR, -1);
    }
    s->cpu.gpr[R_RBX] = AT_DATA;
    s->cpu.gpr[R_RAX] = 0x12345600 | 0x20;
    sys_put(s, AT_DATA + 0x20, 1, 0x99);
    assert_true(RUN(s, "\xd7"));
    assert_int_equal(s->cpu.gpr[R_RAX], 0x12345699);
    assert_false(RUN(s, "\x64\xd7")); /* FS is null */
    sys_expect(s, VEC_GP, 0);
    sys_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mov_ds),
        cmocka_unit_test(test_mov_ss),
        cmocka_unit_test(test_ldt),
        cmocka_unit_test(test_ltr),
        cmocka_unit_test(test_real_loads),
        cmocka_unit_test(test_far_pointers_and_stack),
        cmocka_unit_test(test_table_registers),
        cmocka_unit_test(test_looking),
        cmocka_unit_test(test_bases),
        cmocka_unit_test(test_table_limit),
        cmocka_unit_test(test_popf),
        cmocka_unit_test(test_cli_sti),
        cmocka_unit_test(test_software_interrupts),
        cmocka_unit_test(test_near_16bit),
        cmocka_unit_test(test_jcc_and_loops),
        cmocka_unit_test(test_push_pop),
        cmocka_unit_test(test_pusha_enter_leave),
        cmocka_unit_test(test_decimal),
        cmocka_unit_test(test_decimal_exhaustive),
        cmocka_unit_test(test_bound_and_xlat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
