/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One decoded instruction, in the form that translators and helpers want: what it touches, and its raw fields
 * so that it can be put together again with other registers. Decoding itself is Zydis's; no other file sees
 * Zydis.
 */
#ifndef X86_DECODE_H
#define X86_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/state.h"

#define X86_INSN_MAX 15

enum x86_encoding { ENC_LEGACY, ENC_3DNOW, ENC_XOP, ENC_VEX, ENC_EVEX };

#define REG_NONE 0xff
#define REG_PC   0xfe
#define SEG_NONE 0xff

/* What a field of the encoding names. */
enum x86_field_kind { FIELD_NONE, FIELD_GPR, FIELD_GPR_HIGH /* AH CH DH BH: number 0..3 */, FIELD_OTHER };

struct x86_field {
    uint8_t kind; /* enum x86_field_kind */
    uint8_t reg;  /* GPR number 0..15 for FIELD_GPR, 0..3 for FIELD_GPR_HIGH */
    uint8_t size; /* bytes */
    bool read, written;
};

struct x86_mem {
    bool present; /* an explicit ModRM or moffs memory operand that is really accessed or (LEA etc.) addressed
                   */
    bool accessed; /* false: address computation only (LEA, NOP, prefetch) */
    bool read, written;
    bool vsib;     /* index is a vector register */
    uint8_t seg;   /* enum x86_seg, override or default applied */
    uint8_t base;  /* GPR number, REG_PC or REG_NONE */
    uint8_t index; /* GPR (or vector register) number or REG_NONE */
    uint8_t scale; /* 1, 2, 4, 8 */
    uint16_t size; /* bytes accessed; 0 when not a fixed size (XSAVE...) */
    int64_t disp;  /* for REG_PC relative to the end of the instruction */
};

struct x86_insn {
    uint16_t mnemonic; /* ZydisMnemonic */
    uint8_t len;       /* bytes */
    uint8_t mode;      /* code size it was decoded for: 16, 32, 64 */
    uint8_t opsize;    /* effective operand size in bytes: 1, 2, 4, 8 (for string and stack operations too) */
    uint8_t addrsize;  /* effective address size in bytes: 2, 4, 8 */
    uint8_t encoding;  /* enum x86_encoding */
    uint8_t map;       /* opcode map: 0 none, 1 0F, 2 0F38, 3 0F3A, (VEX/EVEX/XOP: mmmmm) */
    uint8_t opcode;
    bool has_modrm;
    uint8_t modrm;
    uint8_t mandatory; /* mandatory prefix: 0, 0x66, 0xF2, 0xF3 */
    bool lock, rep, repne, opsize_prefix, rex_w;
    uint8_t vex[3]; /* payload bytes of VEX (normalised to the 3-byte form: [0], [1]) or EVEX (3) */
    uint8_t imm_count;
    uint8_t imm_len[2]; /* bytes */
    int64_t imm[2];     /* sign-extended as encoded; for relative branches the displacement */
    bool imm_relative;

    struct x86_field reg, rm, vvvv,
        opreg; /* ModRM.reg, ModRM.rm (register form), VEX.vvvv, register in the opcode byte */
    struct x86_mem mem;

    uint16_t gpr_read,
        gpr_written;     /* all GPRs incl. implicit ones and address registers; a partial write also reads */
    uint32_t flags_read; /* RFLAGS bits tested */
    uint32_t flags_written; /* always overwritten (also: left undefined) */
    uint32_t flags_maybe;   /* written only in some cases (shifts by CL, REP string) */
    bool hidden_mem;        /* implicit memory operands: stack, strings, MASKMOVDQU */
    bool branch;
    bool x87;         /* x87 or MMX state is used */
    uint8_t category; /* ZydisInstructionCategory */
    uint8_t isa_ext;  /* ZydisISAExt */
    uint16_t isa_set; /* ZydisISASet */
    uint8_t bytes[X86_INSN_MAX];
};

enum x86_decode_result {
    DECODE_OK,
    DECODE_INVALID,  /* #UD */
    DECODE_TOO_LONG, /* more than 15 bytes: #GP */
    DECODE_MORE,     /* `len` bytes do not hold the whole instruction */
};

/* Decodes the instruction at code[0, len), which must not change meanwhile, for code size `mode` 16, 32
 * or 64. Thread-safe. Uses vector registers. */
enum x86_decode_result x86_decode(struct x86_insn *insn, const uint8_t *code, size_t len, unsigned mode);

/* Intel-syntax text, for logs and debugging. */
void x86_format(const uint8_t *code, size_t len, unsigned mode, uint64_t rip, char *out, size_t out_size);

#endif
