/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The oracle's instructions: which encodings exist and may take part. The list is not written by hand: every
 * opcode with every mandatory prefix and extension is shown to the decoder, and what it knows, the machine
 * offers and behaves the same on every run is taken.
 */
#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ZydisDecoder decoder;

/* Instruction sets by the CPUID bit that offers them; leaf 0: always there. */
static const struct isa {
    uint16_t set;
    uint32_t leaf;
    uint8_t reg, bit;
} isas[] = {
    {ZYDIS_ISA_SET_I86, 0, 0, 0},
    {ZYDIS_ISA_SET_I186, 0, 0, 0},
    {ZYDIS_ISA_SET_I286REAL, 0, 0, 0},
    {ZYDIS_ISA_SET_I286PROTECTED, 0, 0, 0},
    {ZYDIS_ISA_SET_I386, 0, 0, 0},
    {ZYDIS_ISA_SET_I486, 0, 0, 0},
    {ZYDIS_ISA_SET_I486REAL, 0, 0, 0},
    {ZYDIS_ISA_SET_PENTIUMREAL, 0, 0, 0},
    {ZYDIS_ISA_SET_PPRO, 0, 0, 0},
    {ZYDIS_ISA_SET_CMOV, 0, 0, 0},
    {ZYDIS_ISA_SET_FCMOV, 0, 0, 0},
    {ZYDIS_ISA_SET_LONGMODE, 0, 0, 0},
    {ZYDIS_ISA_SET_FAT_NOP, 0, 0, 0},
    {ZYDIS_ISA_SET_PREFETCH_NOP, 0, 0, 0},
    {ZYDIS_ISA_SET_PAUSE, 0, 0, 0},
    {ZYDIS_ISA_SET_X87, 0, 0, 0},
    {ZYDIS_ISA_SET_PENTIUMMMX, 0, 0, 0},
    {ZYDIS_ISA_SET_SSE, 0, 0, 0},
    {ZYDIS_ISA_SET_SSEMXCSR, 0, 0, 0},
    {ZYDIS_ISA_SET_SSE_PREFETCH, 0, 0, 0},
    {ZYDIS_ISA_SET_SSE2, 0, 0, 0},
    {ZYDIS_ISA_SET_SSE2MMX, 0, 0, 0},
    {ZYDIS_ISA_SET_CLFSH, 1, 3, 19},
    {ZYDIS_ISA_SET_SSE3, 1, 2, 0},
    {ZYDIS_ISA_SET_SSE3X87, 1, 2, 0},
    {ZYDIS_ISA_SET_PCLMULQDQ, 1, 2, 1},
    {ZYDIS_ISA_SET_SSSE3, 1, 2, 9},
    {ZYDIS_ISA_SET_SSSE3MMX, 1, 2, 9},
    {ZYDIS_ISA_SET_FMA, 1, 2, 12},
    {ZYDIS_ISA_SET_CMPXCHG16B, 1, 2, 13},
    {ZYDIS_ISA_SET_SSE4, 1, 2, 19},
    {ZYDIS_ISA_SET_SSE42, 1, 2, 20},
    {ZYDIS_ISA_SET_MOVBE, 1, 2, 22},
    {ZYDIS_ISA_SET_POPCNT, 1, 2, 23},
    {ZYDIS_ISA_SET_AES, 1, 2, 25},
    {ZYDIS_ISA_SET_AVXAES, 1, 2, 25},
    {ZYDIS_ISA_SET_AVX, 1, 2, 28},
    {ZYDIS_ISA_SET_F16C, 1, 2, 29},
    {ZYDIS_ISA_SET_BMI1, 7, 1, 3},
    {ZYDIS_ISA_SET_AVX2, 7, 1, 5},
    {ZYDIS_ISA_SET_AVX2GATHER, 7, 1, 5},
    {ZYDIS_ISA_SET_BMI2, 7, 1, 8},
    {ZYDIS_ISA_SET_ADOX_ADCX, 7, 1, 19},
    {ZYDIS_ISA_SET_CLFLUSHOPT, 7, 1, 23},
    {ZYDIS_ISA_SET_CLWB, 7, 1, 24},
    {ZYDIS_ISA_SET_SHA, 7, 1, 29},
    {ZYDIS_ISA_SET_GFNI, 7, 2, 8},
    {ZYDIS_ISA_SET_AVX_GFNI, 7, 2, 8},
    {ZYDIS_ISA_SET_VAES, 7, 2, 9},
    {ZYDIS_ISA_SET_VPCLMULQDQ, 7, 2, 10},
    {ZYDIS_ISA_SET_LAHF, 0x80000001, 2, 0},
    {ZYDIS_ISA_SET_LZCNT, 0x80000001, 2, 5},
    {ZYDIS_ISA_SET_SSE4A, 0x80000001, 2, 6},
};

static bool offered[ZYDIS_ISA_SET_MAX_VALUE + 1];

/*
 * Never at random: what tells the host from the guest, is not deterministic, leaves the sequence, or stores
 * the FPU's instruction pointer. Some come in oracle_gen.c by other ways.
 */
static const uint16_t excluded[] = {
    ZYDIS_MNEMONIC_CPUID,    ZYDIS_MNEMONIC_RDTSC,   ZYDIS_MNEMONIC_RDPMC,     ZYDIS_MNEMONIC_SGDT,
    ZYDIS_MNEMONIC_SIDT,     ZYDIS_MNEMONIC_SLDT,    ZYDIS_MNEMONIC_STR,       ZYDIS_MNEMONIC_SMSW,
    ZYDIS_MNEMONIC_LAR,      ZYDIS_MNEMONIC_LSL,     ZYDIS_MNEMONIC_VERR,      ZYDIS_MNEMONIC_VERW,
    ZYDIS_MNEMONIC_INT,      ZYDIS_MNEMONIC_INT1,    ZYDIS_MNEMONIC_INT3,      ZYDIS_MNEMONIC_SYSCALL,
    ZYDIS_MNEMONIC_SYSENTER, ZYDIS_MNEMONIC_IRET,    ZYDIS_MNEMONIC_IRETD,     ZYDIS_MNEMONIC_IRETQ,
    ZYDIS_MNEMONIC_LSS,      ZYDIS_MNEMONIC_LFS,     ZYDIS_MNEMONIC_LGS,       ZYDIS_MNEMONIC_FXSAVE,
    ZYDIS_MNEMONIC_FXSAVE64, ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_FXRSTOR64, ZYDIS_MNEMONIC_FNSAVE,
    ZYDIS_MNEMONIC_FNSTENV,  ZYDIS_MNEMONIC_UD0,     ZYDIS_MNEMONIC_UD1,       ZYDIS_MNEMONIC_UD2,
    ZYDIS_MNEMONIC_RSM,      ZYDIS_MNEMONIC_POPF,    ZYDIS_MNEMONIC_POPFD,     ZYDIS_MNEMONIC_POPFQ,
    ZYDIS_MNEMONIC_ENTER,    ZYDIS_MNEMONIC_SYSEXIT, ZYDIS_MNEMONIC_SYSRET,    ZYDIS_MNEMONIC_LDMXCSR,
    ZYDIS_MNEMONIC_VLDMXCSR, ZYDIS_MNEMONIC_FLDENV,  ZYDIS_MNEMONIC_FRSTOR,
};

static const uint16_t privileged[] = {
    ZYDIS_MNEMONIC_HLT,   ZYDIS_MNEMONIC_CLI,   ZYDIS_MNEMONIC_STI,    ZYDIS_MNEMONIC_CLTS,
    ZYDIS_MNEMONIC_LGDT,  ZYDIS_MNEMONIC_LIDT,  ZYDIS_MNEMONIC_LLDT,   ZYDIS_MNEMONIC_LTR,
    ZYDIS_MNEMONIC_LMSW,  ZYDIS_MNEMONIC_INVD,  ZYDIS_MNEMONIC_WBINVD, ZYDIS_MNEMONIC_INVLPG,
    ZYDIS_MNEMONIC_RDMSR, ZYDIS_MNEMONIC_WRMSR, ZYDIS_MNEMONIC_SWAPGS,
};

static bool listed(const uint16_t *list, unsigned count, uint16_t mnemonic)
{
    for (unsigned i = 0; i < count; i++)
        if (list[i] == mnemonic)
            return true;
    return false;
}

static bool segment_register(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_SEGMENT &&
           op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN;
}

static bool is_privileged(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operands)
{
    if (listed(privileged, ARRAY_SIZE(privileged), insn->mnemonic) ||
        insn->meta.category == ZYDIS_CATEGORY_IO || insn->meta.category == ZYDIS_CATEGORY_IOSTRINGOP)
        return true;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        ZydisRegisterClass c = operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER
                                   ? ZydisRegisterGetClass(operands[i].reg.value)
                                   : ZYDIS_REGCLASS_INVALID;
        /* CR0 is also a hidden operand of x87 instructions. */
        if ((c == ZYDIS_REGCLASS_CONTROL || c == ZYDIS_REGCLASS_DEBUG) &&
            insn->mnemonic == ZYDIS_MNEMONIC_MOV)
            return true;
    }
    return false;
}

static bool touches_segment_register(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operands,
                                     bool kernel)
{
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (segment_register(&operands[i]) &&
            (kernel || (operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)))
            return true;
    return false;
}

static enum oracle_group group_of(const ZydisDecodedInstruction *insn)
{
    switch (insn->meta.isa_set) {
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE3X87:
        return GROUP_X87;
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSSE3MMX:
        return GROUP_MMX;
    case ZYDIS_ISA_SET_AVX2GATHER:
        return GROUP_GATHER;
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_CLFSH:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
        return GROUP_INTEGER;
    default:
        break;
    }
    switch (insn->meta.category) {
    case ZYDIS_CATEGORY_STRINGOP:
        return GROUP_STRING;
    case ZYDIS_CATEGORY_X87_ALU:
        return GROUP_X87;
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
        return GROUP_STACK;
    default:
        break;
    }
    if (insn->mnemonic == ZYDIS_MNEMONIC_LEAVE)
        return GROUP_STACK;
    if (insn->mnemonic == ZYDIS_MNEMONIC_DIV || insn->mnemonic == ZYDIS_MNEMONIC_IDIV)
        return GROUP_DIVIDE;
    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        return GROUP_AVX;
    if (insn->meta.isa_set >= ZYDIS_ISA_SET_SSE && insn->meta.isa_set <= ZYDIS_ISA_SET_SSSE3)
        return GROUP_SSE;
    switch (insn->meta.isa_set) {
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_GFNI:
        return GROUP_SSE;
    default:
        return GROUP_INTEGER;
    }
}

static bool changes_flow(const ZydisDecodedInstruction *insn)
{
    switch (insn->meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_INTERRUPT:
        return true;
    default:
        return false;
    }
}

bool oracle_decode(const uint8_t *code, unsigned len, enum oracle_mode mode, ZydisDecodedInstruction *insn,
                   ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT], enum oracle_group *group)
{
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, len, insn, operands)))
        return false;
    if (insn->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
        insn->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return false;
    if (!offered[insn->meta.isa_set] || changes_flow(insn) ||
        listed(excluded, ARRAY_SIZE(excluded), insn->mnemonic) ||
        touches_segment_register(insn, operands, mode != ORACLE_USER))
        return false;
    /* AMD's processors take PAUSE with REX.B as XCHG. */
    if (insn->mnemonic == ZYDIS_MNEMONIC_PAUSE && insn->raw.rex.B)
        return false;
    /* The register form of PREFETCH: no operation to Intel, undefined to AMD. */
    if (insn->mnemonic == ZYDIS_MNEMONIC_NOP && insn->opcode_map == ZYDIS_OPCODE_MAP_0F &&
        insn->opcode == 0x0d)
        return false;
    /* It must stay within its window: whether bytes that are not stored may fault is the processor's choice.
     */
    bool masked_move = insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
                       insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
                       insn->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
    if (masked_move && ((insn->attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS))))
        return false;
    bool special = is_privileged(insn, operands);
    *group = special ? GROUP_PRIVILEGED : group_of(insn);
    return !(special && mode != ORACLE_USER);
}

/* Whether a shift or rotate may have a count of zero, which leaves the flags alone. */
static bool maybe_no_shift(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operands)
{
    if (insn->meta.category != ZYDIS_CATEGORY_SHIFT && insn->meta.category != ZYDIS_CATEGORY_ROTATE)
        return false;
    for (unsigned i = 0; i < insn->operand_count_visible; i++)
        if (operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return !(operands[i].imm.value.u & 31) ||
                   (insn->operand_width == 64 && !(operands[i].imm.value.u & 63));
    return true;
}

void oracle_flags(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operands,
                  struct oracle_insn *out)
{
    const ZydisAccessedFlags *f = insn->cpu_flags;
    out->reads = out->defines = out->undefines = 0;
    if (!f)
        return;
    out->reads = f->tested & FLAGS_STATUS;
    out->undefines = f->undefined & FLAGS_STATUS;
    out->defines = (f->modified | f->set_0 | f->set_1) & ~f->undefined & FLAGS_STATUS;
    if (maybe_no_shift(insn, operands) ||
        (insn->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)))
        out->defines = 0;
}

/* --- 32- and 16-bit code --- */

static bool same_operand(const ZydisDecodedOperand *a, const ZydisDecodedOperand *b)
{
    if (a->type != b->type || a->size != b->size)
        return false;
    switch (a->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        return a->reg.value == b->reg.value || a->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return a->mem.base == b->mem.base && a->mem.index == b->mem.index && a->mem.scale == b->mem.scale &&
               a->mem.disp.value == b->mem.disp.value;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        return a->imm.value.u == b->imm.value.u;
    default:
        return true;
    }
}

static bool same_operation(const ZydisDecodedInstruction *a, const ZydisDecodedOperand *x,
                           const ZydisDecodedInstruction *b, const ZydisDecodedOperand *y)
{
    if (a->mnemonic != b->mnemonic || a->length != b->length || a->encoding != b->encoding ||
        a->operand_count_visible != b->operand_count_visible || a->operand_width != b->operand_width)
        return false;
    for (unsigned i = 0; i < a->operand_count; i++) {
        if (x[i].type == ZYDIS_OPERAND_TYPE_MEMORY && a->address_width != b->address_width)
            return false;
        if (i < a->operand_count_visible || x[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            if (i >= b->operand_count || !same_operand(&x[i], &y[i]))
                return false;
    }
    return true;
}

/* Exchanges the first prefix `from` for `to`; false when there is none. */
static bool exchange_prefix(const uint8_t *code, unsigned len, uint8_t from, uint8_t to, uint8_t *out)
{
    memcpy(out, code, len);
    for (unsigned i = 0; i < len; i++) {
        if (code[i] == from) {
            out[i] = to;
            return true;
        }
        if (!strchr("\x66\x67\x3e\x2e\x26\x36\xf2\xf3\xf0", code[i]))
            break;
    }
    return false;
}

/* Narrow code has no FS and GS, and a CS with a base. */
#define SEGMENTS_OTHER                                                                                       \
    (ZYDIS_ATTRIB_HAS_SEGMENT_CS | ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS)

bool oracle_narrow(enum oracle_mode mode, const uint8_t *code, unsigned len, uint8_t *out)
{
    static const struct {
        uint8_t from, to;
    } ways[2][3] = {{{0x67, 0x3e}, {0x3e, 0x3e}, {0, 0}}, {{0x67, 0x67}, {0x3e, 0x66}, {0x66, 0x3e}}};
    bool code16 = mode == ORACLE_CODE16;
    ZydisDecoder narrow;
    ZydisDecodedInstruction a, b;
    ZydisDecodedOperand x[ZYDIS_MAX_OPERAND_COUNT], y[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, len, &a, x)))
        return false;
    ZydisDecoderInit(&narrow, code16 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_16 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                     code16 ? ZYDIS_STACK_WIDTH_16 : ZYDIS_STACK_WIDTH_32);
    for (unsigned i = 0; i < 3; i++)
        if (exchange_prefix(code, len, ways[code16][i].from, ways[code16][i].to, out) &&
            ZYAN_SUCCESS(ZydisDecoderDecodeFull(&narrow, out, len, &b, y)) && same_operation(&a, x, &b, y))
            return !(b.attributes & SEGMENTS_OTHER);
    return false;
}

void oracle_print_insn(const uint8_t *code, unsigned len, uint64_t rip, char *out, unsigned size)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisFormatter formatter;
    int at = 0;
    for (unsigned i = 0; i < len; i++)
        at += snprintf(out + at, size - (unsigned)at, "%02x", code[i]);
    at += snprintf(out + at, size - (unsigned)at, "%*s", MAX(1, 32 - at), "");
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, len, &insn, operands)) ||
        !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &insn, operands, insn.operand_count_visible,
                                                      out + at, size - (unsigned)at, rip, NULL)))
        snprintf(out + at, size - (unsigned)at, "(invalid)");
}

/* --- the list of forms --- */

#define FORM_MAX 20000u
static struct oracle_form *forms;
static unsigned form_count;
/* Per group: the numbers of its mnemonics' first forms; forms are sorted by group and mnemonic. */
static struct {
    uint16_t *first;
    unsigned count;
    unsigned forms;
} groups[GROUP_COUNT];

/* Writes a form with a given ModRM; returns its length without what follows the ModRM. */
static unsigned write_form(const struct oracle_form *f, uint8_t modrm, uint8_t *code)
{
    static const uint8_t escapes[4][2] = {{0}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
    unsigned n = 0;
    if (f->vex) {
        unsigned pp = f->mandatory == 0x66 ? 1 : f->mandatory == 0xf3 ? 2 : f->mandatory == 0xf2 ? 3 : 0;
        code[n++] = 0xc4;
        code[n++] = 0xe0 | f->map;
        code[n++] = (uint8_t)(f->w << 7 | (f->vvvv ? 13 : 15) << 3 | f->l << 2 | pp);
    } else {
        if (f->mandatory)
            code[n++] = f->mandatory;
        if (f->w)
            code[n++] = 0x48;
        for (unsigned i = 0; i < (f->map ? MIN(f->map, 2u) : 0); i++)
            code[n++] = escapes[f->map][i];
    }
    code[n++] = f->opcode;
    code[n++] = modrm;
    return n;
}

/* Shows one encoding to the decoder; a new form is added. */
static uint16_t try_form(struct oracle_form f, uint8_t modrm, bool fixed_reg, bool fixed_rm, bool add)
{
    uint8_t code[32] = {0};
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    enum oracle_group group;
    write_form(&f, modrm, code);
    if (!oracle_decode(code, 15, ORACLE_USER, &insn, operands, &group))
        return 0;
    f.mnemonic = insn.mnemonic;
    f.group = (uint8_t)group;
    f.modrm = insn.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    f.memory = f.modrm ? modrm >> 6 != 3 : insn.raw.disp.size == 64;
    f.reg = f.modrm && modrm >> 6 == 3;
    f.modrm_reg = fixed_reg ? (int8_t)(modrm >> 3 & 7) : -1;
    f.modrm_rm = fixed_rm ? (int8_t)(modrm & 7) : -1;
    if (add && form_count < FORM_MAX)
        forms[form_count++] = f;
    return f.modrm ? insn.mnemonic : UINT16_MAX;
}

/* All ModRM variants of one opcode. */
static void try_opcode(struct oracle_form f)
{
    if (try_form(f, 0x03, false, false, false) == UINT16_MAX) {
        try_form(f, 0x03, false, false, true);
        return;
    }
    uint16_t seen[8][2];
    bool extension = false;
    for (unsigned reg = 0; reg < 8; reg++)
        for (unsigned kind = 0; kind < 2; kind++) {
            seen[reg][kind] = try_form(f, (uint8_t)(reg << 3 | (kind ? 0xc1 : 0x03)), false, false, false);
            extension |= seen[reg][kind] != seen[0][kind];
        }
    /* x87: both fields choose the instruction in the register form. */
    bool x87 = !f.vex && !f.map && f.opcode >= 0xd8 && f.opcode <= 0xdf;
    for (unsigned reg = 0; reg < (extension || x87 ? 8 : 1); reg++) {
        if (seen[reg][0])
            try_form(f, (uint8_t)(reg << 3 | 3), extension || x87, false, true);
        for (unsigned rm = 0; x87 && rm < 8; rm++)
            try_form(f, (uint8_t)(0xc0 | reg << 3 | rm), true, true, true);
        if (!x87 && seen[reg][1])
            try_form(f, (uint8_t)(0xc1 | reg << 3), extension, false, true);
    }
}

static bool is_prefix(unsigned map, unsigned opcode)
{
    switch (opcode) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
    case 0x0f:
    case 0xc4:
    case 0xc5:
    case 0x62:
        return map == 0;
    default:
        return map == 0 && (opcode & 0xf0) == 0x40;
    }
}

/* F2 and F3 where they only repeat a string instruction or mean nothing make no form of their own. */
static bool prefix_matters(struct oracle_form f)
{
    if (f.mandatory != 0xf2 && f.mandatory != 0xf3)
        return true;
    struct oracle_form plain = f;
    plain.mandatory = 0;
    for (unsigned modrm = 0; modrm < 0x100; modrm += 1 + 7 * (modrm < 0xc0)) {
        uint16_t with = try_form(f, (uint8_t)modrm, false, false, false);
        if (with && with != UINT16_MAX && with != try_form(plain, (uint8_t)modrm, false, false, false))
            return true;
    }
    return false;
}

static void enumerate(void)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    for (unsigned vex = 0; vex < 2; vex++)
        for (unsigned map = vex; map < 4; map++)
            for (unsigned opcode = 0; opcode < 256; opcode++)
                for (unsigned p = 0; p < 4; p++)
                    for (unsigned v = 0; v < 8; v++) {
                        struct oracle_form f = {.vex = vex,
                                                .map = (uint8_t)map,
                                                .opcode = (uint8_t)opcode,
                                                .mandatory = prefixes[p],
                                                .w = v & 1,
                                                .l = v & 2,
                                                .vvvv = v & 4};
                        if ((!vex && (v & 6)) || (!vex && is_prefix(map, opcode)))
                            continue;
                        if (!vex && !prefix_matters(f))
                            continue;
                        try_opcode(f);
                    }
}

static int compare_forms(const void *a, const void *b)
{
    const struct oracle_form *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return x->mnemonic < y->mnemonic ? -1 : x->mnemonic > y->mnemonic;
}

void oracle_forms_init(const struct cpuid_model *model)
{
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned i = 0; i < ARRAY_SIZE(isas); i++)
        offered[isas[i].set] =
            !isas[i].leaf || cpuid_model_has(model, X86_FEATURE(isas[i].leaf, isas[i].reg, isas[i].bit));
    forms = calloc(FORM_MAX, sizeof(*forms));
    if (!forms)
        abort();
    enumerate();
    qsort(forms, form_count, sizeof(*forms), compare_forms);
    for (unsigned i = 0; i < form_count; i++) {
        unsigned g = forms[i].group;
        if (!groups[g].first)
            groups[g].first = calloc(form_count + 1, sizeof(uint16_t));
        if (!groups[g].first)
            abort();
        groups[g].forms++;
        if (!i || compare_forms(&forms[i - 1], &forms[i]) != 0)
            groups[g].first[groups[g].count++] = (uint16_t)i;
    }
}

const struct oracle_form *oracle_form_pick(enum oracle_group group, uint64_t *random)
{
    if (!groups[group].count)
        return NULL;
    unsigned first = groups[group].first[oracle_below(random, groups[group].count)], n = 1;
    while (first + n < form_count && compare_forms(&forms[first], &forms[first + n]) == 0)
        n++;
    return &forms[first + oracle_below(random, n)];
}

void oracle_forms_print(void)
{
    static const char *const names[] = {"integer", "divide", "stack", "string", "x87",
                                        "mmx",     "sse",    "avx",   "gather", "privileged"};
    for (unsigned g = 0; g < GROUP_COUNT; g++) {
        printf("%-10s %4u mnemonics %5u forms:", names[g], groups[g].count, groups[g].forms);
        for (unsigned i = 0; i < groups[g].count; i++)
            printf(" %s", ZydisMnemonicGetString(forms[groups[g].first[i]].mnemonic));
        printf("\n");
    }
}
