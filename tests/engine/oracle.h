/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The processor oracle: random sequences of user-mode instructions run on the host's processor in a child
 * process and in a guest under an engine; every register, flag and byte of memory must agree afterwards.
 *
 * Code and data lie at the same linear addresses on both sides, so that addresses in registers and in memory
 * are the same numbers. A batch is ORACLE_BATCH sequences, each with a code slot and a data window of its
 * own:
 *
 *     ORACLE_CODE + slot * ORACLE_CODE_STRIDE   the sequence, ending in a jump to ORACLE_TRAMPOLINE
 *     ORACLE_DATA + slot * ORACLE_DATA_STRIDE   a hole, two writable pages (the window), one read-only page
 *
 * Narrow code differs by prefixes from what runs natively, so no sequence should read code: it lies where
 * single bits and small sums do not point.
 */
#ifndef TESTS_ENGINE_ORACLE_H
#define TESTS_ENGINE_ORACLE_H

/* Known to the assembly files. */
#define ORACLE_REGS_RIP    128
#define ORACLE_REGS_FLAGS  136
#define ORACLE_REGS_VECTOR 144
#define ORACLE_REGS_ERROR  152
#define ORACLE_REGS_CR2    160
#define ORACLE_REGS_CS     168 /* inputs only: CS, SS and the data segments to start with */
#define ORACLE_REGS_SS     176
#define ORACLE_REGS_DS     184
#define ORACLE_REGS_XSAVE  192
#define ORACLE_REGS_SIZE   1088
#define ORACLE_DONE_VECTOR 0x81
#define HARNESS_EXIT       0xf4
#define ORACLE_DATA        0x20000000
#define ORACLE_DATA_STRIDE 0x4000
#define ORACLE_HOLE        0x1000 /* from the slot's start to its window */
/* The sequence's FS and GS bases, from its window. */
#define ORACLE_FS_OFFSET 0x40
#define ORACLE_GS_OFFSET 0xff0

#ifndef __ASSEMBLER__

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdint.h>

#include "harness.h"
#include "x86/state.h"

#define ORACLE_BATCH       256u
#define ORACLE_CODE        UINT64_C(0x15a6d000)
#define ORACLE_CODE_STRIDE 600u
#define ORACLE_CODE_SIZE   (ORACLE_BATCH * ORACLE_CODE_STRIDE)
#define ORACLE_CODE_MAX    500u /* bytes of a sequence without the final jump */
#define ORACLE_END_SIZE    14u  /* the final jump */
#define ORACLE_INSN_MAX    96u
#define ORACLE_WINDOW      0x2000u
#define ORACLE_RO_SIZE     0x1000u /* read-only, right after the window; the same page for all slots */
#define ORACLE_TRAMPOLINE  UINT64_C(0x7e0000000000)
#define ORACLE_XSAVE_SIZE  832u /* x87, SSE, header, AVX */

/* The read-only page begins with small numbers, for gathers: 32 of 4 bytes, then 32 of 8 bytes. */
#define ORACLE_RO_DWORDS 0u
#define ORACLE_RO_QWORDS 128u

struct oracle_regs {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    uint64_t vector; /* results: ORACLE_DONE_VECTOR or the exception's */
    uint64_t error;
    uint64_t cr2;
    uint64_t cs, ss, ds;
    uint8_t xsave[896] __attribute__((aligned(64)));
};
_Static_assert(sizeof(struct oracle_regs) == ORACLE_REGS_SIZE, "known to the assembly files");

/* One instruction of a sequence. Flags are masks of FLAGS_STATUS. */
struct oracle_insn {
    uint16_t offset;
    uint8_t len;
    uint32_t reads;     /* flags it tests */
    uint32_t defines;   /* flags it always sets to something the manuals define */
    uint32_t undefines; /* flags it may leave undefined */
    uint32_t undefined_before;
    int16_t target; /* for a branch within the sequence: the instruction's number, else -1 */
    uint8_t tie;    /* instructions with the same number make sense only together; 0: none */
};

/* How the guest runs a sequence. Narrow code runs natively in its 64-bit form. */
enum oracle_mode { ORACLE_USER, ORACLE_KERNEL, ORACLE_CODE32, ORACLE_CODE16, ORACLE_MODES };

static inline bool oracle_is_narrow(enum oracle_mode mode)
{
    return mode == ORACLE_CODE32 || mode == ORACLE_CODE16;
}

struct oracle_seq {
    uint64_t seed;
    unsigned slot;
    enum oracle_mode mode;
    uint64_t base;
    uint8_t code[ORACLE_CODE_STRIDE];
    uint8_t guest_code[ORACLE_CODE_STRIDE]; /* the same instructions for the guest's mode, byte for byte as
                                               long */
    unsigned len;                           /* with the final jump */
    struct oracle_insn insn[ORACLE_INSN_MAX];
    unsigned count;
    uint32_t undefined_after;
    uint64_t gpr[16]; /* initial values that the code's addresses rely on */
    uint16_t fixed;   /* which of them */
};

static inline uint64_t oracle_window(unsigned slot)
{
    return (uint64_t)ORACLE_DATA + (uint64_t)slot * ORACLE_DATA_STRIDE + ORACLE_HOLE;
}

/* --- random numbers (splitmix64) --- */
static inline uint64_t oracle_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline unsigned oracle_below(uint64_t *state, unsigned n)
{
    return (unsigned)((oracle_random(state) >> 32) * n >> 32);
}

static inline bool oracle_percent(uint64_t *state, unsigned percent)
{
    return oracle_below(state, 100) < percent;
}

/* --- oracle_insn.c: which instructions there are --- */

enum oracle_group {
    GROUP_INTEGER,
    GROUP_DIVIDE,
    GROUP_STACK,
    GROUP_STRING,
    GROUP_X87,
    GROUP_MMX,
    GROUP_SSE,
    GROUP_AVX,
    GROUP_GATHER,
    GROUP_PRIVILEGED, /* #GP at CPL 3 */
    GROUP_COUNT
};

/* An encoding without operands. */
struct oracle_form {
    uint16_t mnemonic;
    uint8_t group;
    uint8_t map, opcode;
    uint8_t mandatory;    /* 0, 0x66, 0xF2, 0xF3 */
    bool vex, w, l, vvvv; /* VEX fields; vvvv: names a register */
    bool modrm;
    bool memory;      /* has a memory form */
    bool reg;         /* has a register form */
    int8_t modrm_reg; /* fixed extension, or -1 */
    int8_t modrm_rm;  /* fixed in the register form, or -1 */
};

/* Makes the list of all encodings that the model offers. Once. */
void oracle_forms_init(const struct cpuid_model *model);
/* A random form of a random mnemonic of the group; NULL when the group is empty. */
const struct oracle_form *oracle_form_pick(enum oracle_group group, uint64_t *random);
/* Decodes; false when invalid, not offered, not deterministic, or not to be run at this privilege. */
bool oracle_decode(const uint8_t *code, unsigned len, enum oracle_mode mode, ZydisDecodedInstruction *insn,
                   ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT], enum oracle_group *group);
/* Flags of a decoded instruction into an oracle_insn. */
void oracle_flags(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operands,
                  struct oracle_insn *out);
/*
 * The bytes of a 64-bit instruction for 32- or 16-bit code: the same operation on the same operands and of
 * the same length, which takes a prefix DS (3E) or address size (67) in it to be exchanged. False: there is
 * none.
 */
bool oracle_narrow(enum oracle_mode mode, const uint8_t *code, unsigned len, uint8_t *out);
void oracle_print_insn(const uint8_t *code, unsigned len, uint64_t rip, char *out, unsigned size);
/* Prints how many mnemonics and forms each group has. */
void oracle_forms_print(void);

/* --- oracle_gen.c: sequences and initial values --- */
void oracle_generate(struct oracle_seq *seq, uint64_t seed, unsigned slot, enum oracle_mode mode);
/* Leaves nothing of a sequence but its end. */
void oracle_blank(struct oracle_seq *seq);
/* Initial registers and window of pass `pass`. */
void oracle_inputs(const struct oracle_seq *seq, unsigned pass, struct oracle_regs *regs, uint8_t *window);
void oracle_read_only_page(uint8_t *page);
/* Recomputes the undefined flags after instructions were replaced. False: one now reads an undefined flag. */
bool oracle_track_flags(struct oracle_seq *seq);

/* --- oracle_native.c: the host's processor --- */
struct oracle_native;
struct oracle_native *oracle_native_new(void);
void oracle_native_free(struct oracle_native *n);
/* For writing inputs and reading results between runs. */
uint8_t *oracle_native_code(struct oracle_native *n);
uint8_t *oracle_native_window(struct oracle_native *n, unsigned slot);
struct oracle_regs *oracle_native_in(struct oracle_native *n);
const struct oracle_regs *oracle_native_out(const struct oracle_native *n);
/* Runs slots [first, first + count) in the child: start returns at once, wait gives false when the child is
 * lost. */
void oracle_native_start(struct oracle_native *n, unsigned first, unsigned count);
bool oracle_native_wait(struct oracle_native *n);
/* The slot that was run last: when the child was lost, the one that has no end. */
unsigned oracle_native_current(const struct oracle_native *n);

/* --- oracle_guest.c: the engine --- */
struct oracle_guest;
struct oracle_guest *oracle_guest_new(struct harness *h);
void oracle_guest_free(struct oracle_guest *g);
void oracle_guest_code(struct oracle_guest *g, const uint8_t *code);
void oracle_guest_window(struct oracle_guest *g, unsigned slot, const uint8_t *window);
const uint8_t *oracle_guest_peek(struct oracle_guest *g, unsigned slot);
/* Runs slots [first, first + count) from `in`. False: *why says what ended the run, *index the slot it was
 * in. */
bool oracle_guest_run(struct oracle_guest *g, const struct oracle_regs *in, unsigned first, unsigned count,
                      unsigned *index, const char **why);
/* Fills in the selectors of an input; the code segments of 16-bit code do not begin at 0. */
void oracle_guest_selectors(const struct oracle_seq *seq, struct oracle_regs *in);
uint64_t oracle_guest_code_base(const struct oracle_seq *seq);
const struct oracle_regs *oracle_guest_out(struct oracle_guest *g);

#endif
#endif
