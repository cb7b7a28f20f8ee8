/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Building one instruction at a time onto a sequence (oracle_emit.c), for the generator's choices
 * (oracle_gen.c). Keeps track of which general registers have a value that is known here, so that addresses
 * can be made to hit.
 */
#ifndef TESTS_ENGINE_ORACLE_EMIT_H
#define TESTS_ENGINE_ORACLE_EMIT_H

#include "oracle.h"

struct oracle_builder {
    struct oracle_seq *seq;
    uint64_t random;
    uint64_t window;
    uint64_t value[16]; /* of registers in `known` */
    uint16_t known;
    uint16_t initial; /* registers that still have their initial value */
    uint32_t undefined;
    bool alignment_checks;             /* EFLAGS.AC may be set */
    uint16_t written[ORACLE_INSN_MAX]; /* registers each instruction writes */
    uint64_t segment_base[2];          /* FS, GS */
};

/* Where a memory operand of `size` bytes should lie. */
uint64_t oracle_target(struct oracle_builder *b, unsigned size, bool write, bool aligned);

/* Appends bytes as one instruction whatever they are; flags and written registers as the decoder says. False:
 * no room. */
bool oracle_append(struct oracle_builder *b, const uint8_t *code, unsigned len);
/* The same with a format of hexadecimal bytes, where %b %w %d %q take an argument of that size. */
bool oracle_append_hex(struct oracle_builder *b, const char *format, ...);

/* A known value into a register. */
bool oracle_load(struct oracle_builder *b, unsigned reg, uint64_t value);
/* Makes all status flags defined. */
bool oracle_define_flags(struct oracle_builder *b);

/*
 * One instruction of this form with random operands, prefixes and immediate; a memory operand mostly hits the
 * window. False when nothing was added.
 */
bool oracle_emit_form(struct oracle_builder *b, const struct oracle_form *form);
/* A string instruction with a repeat prefix, F2 or F3. */
bool oracle_emit_repeated(struct oracle_builder *b, const struct oracle_form *form, uint8_t repeat);
/* One instruction from random opcode, prefix and operand bytes. */
bool oracle_emit_random(struct oracle_builder *b);

/* Undoing: what was added since the mark goes away. */
struct oracle_mark {
    struct oracle_builder builder;
    unsigned len, count;
};
struct oracle_mark oracle_mark(const struct oracle_builder *b);
void oracle_rollback(struct oracle_builder *b, const struct oracle_mark *mark);

/* Whether an instruction since the mark writes (part of) a register. */
bool oracle_wrote(const struct oracle_builder *b, const struct oracle_mark *mark, unsigned reg);

bool oracle_has_room(const struct oracle_builder *b);

#endif
