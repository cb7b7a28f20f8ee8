/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Decoding of memory operands: forms in which a field's usual meaning does not hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/util.h"
#include "x86/decode.h"

static const struct row {
    const char *bytes;
    uint8_t len, base, index;
    int64_t disp;
} rows[] = {
    /* SIB base 101b without a base, whatever REX.B and the address size. */
    {"\x8b\x04\x25\x10\x32\x54\x76", 7, REG_NONE, REG_NONE, 0x76543210},
    {"\x41\x8b\x04\x25\x10\x32\x54\x76", 8, REG_NONE, REG_NONE, 0x76543210},
    {"\x67\x41\x8b\x04\x25\x10\x32\x54\x76", 9, REG_NONE, REG_NONE, 0x76543210},
    {"\x47\x8c\x24\x3d\x0c\x80\x96\x1f", 8, REG_NONE, R_R15, 0x1f96800c},
    {"\x67\x47\x8c\x24\x3d\x0c\x80\x96\x1f", 9, REG_NONE, R_R15, 0x1f96800c},
    /* With a displacement in ModRM there is one. */
    {"\x67\x47\x8b\x64\x3d\xf0", 6, R_R13, R_R15, -16},
    {"\x41\x8b\x84\x25\x10\x32\x54\x76", 8, R_R13, REG_NONE, 0x76543210},
    /* Index 100b is none, but R12 with REX.X. */
    {"\x8b\x04\x24", 3, R_RSP, REG_NONE, 0},
    {"\x42\x8b\x04\x24", 4, R_RSP, R_R12, 0},
    /* ModRM 101b without a displacement of its own is relative to the instruction's end. */
    {"\x41\x8b\x05\x10\x32\x54\x76", 7, REG_PC, REG_NONE, 0x76543210},
};

static void test_operands(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct x86_insn insn;
        assert_int_equal(x86_decode(&insn, (const uint8_t *)rows[i].bytes, rows[i].len, 64), DECODE_OK);
        assert_int_equal(insn.len, rows[i].len);
        assert_int_equal(insn.mem.base, rows[i].base);
        assert_int_equal(insn.mem.index, rows[i].index);
        assert_true(insn.mem.disp == rows[i].disp);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_operands)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
