/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an oracle sequence consists of: weighted kinds of instructions, patterns of several (branches, loops,
 * calls, FPU state), and the initial values of registers and memory.
 */
#include <string.h>

#include "oracle_emit.h"

/* --- single instructions --- */

/* Loads of small numbers into RCX before a repeated string instruction, so that most end. */
static bool emit_string(struct oracle_builder *b)
{
    uint64_t *r = &b->random;
    const struct oracle_form *form = oracle_form_pick(GROUP_STRING, r);
    if (!form)
        return false;
    struct oracle_form f = *form;
    unsigned kind = oracle_below(r, 100);
    if (kind < 70) {
        unsigned count = kind < 45   ? oracle_below(r, 24)
                         : kind < 60 ? oracle_below(r, 300)
                         : kind < 67 ? oracle_below(r, 2000)
                                     : 0x7fffffff;
        if (oracle_percent(r, 97) && !oracle_load(b, R_RCX, count))
            return false;
        /* The operand size of a repeated form comes from its own 66 or REX.W: F2 and F3 go in front. */
        struct oracle_form rep = f;
        rep.group = GROUP_STRING;
        struct oracle_mark mark = oracle_mark(b);
        if (oracle_emit_repeated(b, &rep, oracle_percent(r, 60) ? 0xf3 : 0xf2))
            return true;
        oracle_rollback(b, &mark);
    }
    return oracle_emit_form(b, &f);
}

static bool emit_divide(struct oracle_builder *b)
{
    if (oracle_percent(&b->random, 70))
        oracle_append_hex(b, oracle_percent(&b->random, 50) ? "31 d2" : "48 99");
    return oracle_emit_form(b, oracle_form_pick(GROUP_DIVIDE, &b->random));
}

/* An address in the window for the fixed encodings below; it fits a signed 32-bit displacement. */
static uint32_t place(struct oracle_builder *b, unsigned size, unsigned align)
{
    uint64_t a = b->window + oracle_below(&b->random, ORACLE_WINDOW - size);
    return (uint32_t)(a & ~(uint64_t)(align - 1));
}

/* VPGATHER and VGATHER: an index vector of small numbers, a mask, the gather. */
static bool emit_gather(struct oracle_builder *b)
{
    uint64_t *r = &b->random;
    unsigned opcode = 0x90 + oracle_below(r, 4), w = oracle_below(r, 2), l = oracle_below(r, 2);
    unsigned dst = oracle_below(r, 16), mask = (dst + 1 + oracle_below(r, 7)) & 15, index = (mask + 1) & 15;
    if (index == dst)
        index = (index + 1) & 15;
    unsigned base = oracle_below(r, 16), scale = oracle_below(r, 4);
    if (base == R_RSP || (base & 7) == 5)
        base = R_RBX;
    bool qword_index = opcode & 1;
    uint32_t table = (uint32_t)b->window + ORACLE_WINDOW +
                     (qword_index ? ORACLE_RO_QWORDS + 8 * oracle_below(r, 28)
                                  : ORACLE_RO_DWORDS + 4 * oracle_below(r, 24));
    /* vmovdqu index, [table] */
    if (!oracle_append_hex(b, "c4 %b %b 6f %b 25 %d", (index > 7 ? 0x61 : 0xe1), 0x7e, 4 | (index & 7) << 3,
                           table))
        return false;
    /* vpcmpeqd mask, mask, mask, or whatever the register holds */
    if (oracle_percent(r, 60) &&
        !oracle_append_hex(b, "c4 %b %b 76 %b", mask > 7 ? 0x41 : 0xe1, 0x05 | (~mask & 15) << 3,
                           0xc0 | (mask & 7) << 3 | (mask & 7)))
        return false;
    if (!oracle_load(b, base, b->window + 0x200 + oracle_below(r, 0x1000)))
        return false;
    unsigned rxb = (dst > 7 ? 0 : 0x80) | (index > 7 ? 0 : 0x40) | (base > 7 ? 0 : 0x20);
    return oracle_append_hex(b, "c4 %b %b %b %b %b", rxb | 2, w << 7 | (~mask & 15) << 3 | l << 2 | 1, opcode,
                             4 | (dst & 7) << 3, scale << 6 | (index & 7) << 3 | (base & 7));
}

/* --- control and status of the FPU and SSE --- */

static bool zero_qword(struct oracle_builder *b, uint32_t at)
{
    return oracle_append_hex(b, "48 c7 04 25 %d 00000000", at);
}

static bool emit_mxcsr(struct oracle_builder *b)
{
    uint32_t at = place(b, 4, 1), value = (uint32_t)oracle_random(&b->random) & 0xffff;
    if (oracle_percent(&b->random, 85))
        value |= 0x1f80;
    if (oracle_percent(&b->random, 2))
        value |= 0x10000;
    return oracle_append_hex(b, "c7 04 25 %d %d", at, value) && oracle_append_hex(b, "0f ae 14 25 %d", at);
}

static bool emit_fpu_control(struct oracle_builder *b)
{
    uint32_t at = place(b, 2, 1), value = (uint32_t)oracle_random(&b->random) & 0x1f7f;
    if (oracle_percent(&b->random, 90))
        value |= 0x3f;
    return oracle_append_hex(b, "66 c7 04 25 %d %w", at, value) && oracle_append_hex(b, "d9 2c 25 %d", at);
}

/*
 * Saving the FPU's state. The pointers to the last instruction and operand are not compared (an engine's copy
 * of the instruction lies elsewhere), so they are cleared in memory. A POPF before may have set TF, whose
 * trap must not come in between: it comes after a NOP.
 */
static bool emit_fpu_save(struct oracle_builder *b)
{
    bool good;
    uint32_t at;
    if (!oracle_append_hex(b, "90"))
        return false;
    switch (oracle_below(&b->random, 4)) {
    case 0: /* FNSTENV */
        at = place(b, 28, 1);
        return oracle_append_hex(b, "d9 34 25 %d", at) && zero_qword(b, at + 12) && zero_qword(b, at + 20);
    case 1: /* FNSAVE */
        at = place(b, 108, 1);
        good = oracle_append_hex(b, "dd 34 25 %d", at) && zero_qword(b, at + 12) && zero_qword(b, at + 20);
        return good &&
               (oracle_percent(&b->random, 50) || oracle_append_hex(b, "dd 24 25 %d", at)); /* FRSTOR */
    default: /* FXSAVE, with REX.W or without */
        at = place(b, 512, 16);
        good = oracle_append_hex(b, oracle_percent(&b->random, 50) ? "0f ae 04 25 %d" : "48 0f ae 04 25 %d",
                                 at) &&
               oracle_append_hex(b, "66 c7 04 25 %d 0000", at + 6) && zero_qword(b, at + 8) &&
               zero_qword(b, at + 16);
        if (!good || oracle_percent(&b->random, 40))
            return good;
        /* Change something and load it back. */
        return oracle_append_hex(b, "c7 04 25 %d %d", at + 32 + 4 * oracle_below(&b->random, 90),
                                 (uint32_t)oracle_random(&b->random)) &&
               oracle_append_hex(b, "0f ae 0c 25 %d", at);
    }
}

static bool emit_fpu_load(struct oracle_builder *b)
{
    return oracle_append_hex(b, oracle_percent(&b->random, 50) ? "d9 24 25 %d" : "dd 24 25 %d",
                             place(b, 108, 1));
}

/* --- the stack and flags --- */

static bool stack_ready(struct oracle_builder *b)
{
    if ((b->known & 1 << R_RSP) && b->value[R_RSP] - b->window - 0x200 < ORACLE_WINDOW - 0x400) {
        b->seq->fixed |= (uint16_t)((b->initial & 1 << R_RSP));
        return true;
    }
    return oracle_load(b, R_RSP, b->window + 0xc00 + 8 * oracle_below(&b->random, 128));
}

static bool emit_popf(struct oracle_builder *b)
{
    uint64_t *r = &b->random;
    uint32_t flags = (uint32_t)oracle_random(r) & (uint32_t)(FLAGS_STATUS | FLAG_DF | FLAG_ID);
    if (oracle_percent(r, 80))
        flags &= ~(uint32_t)FLAG_DF;
    flags |= b->seq->mode == ORACLE_KERNEL ? (uint32_t)FLAG_IF : 0;
    if (b->seq->mode == ORACLE_USER && oracle_percent(r, 2))
        flags |= oracle_percent(r, 50) ? (uint32_t)FLAG_TF : (uint32_t)FLAG_AC;
    b->alignment_checks |= flags & FLAG_AC;
    return stack_ready(b) && oracle_append_hex(b, "68 %d", flags) &&
           oracle_append_hex(b, oracle_percent(r, 85) ? "9d" : "66 9d");
}

static bool emit_enter(struct oracle_builder *b)
{
    unsigned level = oracle_percent(&b->random, 60) ? 0 : oracle_below(&b->random, 5);
    if (level && !oracle_load(b, R_RBP, b->window + 0x800 + oracle_below(&b->random, 0x800)))
        return false;
    return stack_ready(b) &&
           oracle_append_hex(b, oracle_percent(&b->random, 85) ? "c8 %w %b" : "66 c8 %w %b",
                             oracle_below(&b->random, 64), level) &&
           (oracle_percent(&b->random, 50) || oracle_append_hex(b, "c9"));
}

static bool emit_stack(struct oracle_builder *b)
{
    unsigned kind = oracle_below(&b->random, 100);
    if (oracle_is_narrow(b->seq->mode))
        return false; /* pushes and pops are of another size */
    if (kind < 8)
        return emit_popf(b);
    if (kind < 14)
        return emit_enter(b);
    if (kind < 96 && !stack_ready(b))
        return false;
    return oracle_emit_form(b, oracle_form_pick(GROUP_STACK, &b->random));
}

/* --- choosing --- */

/* All of a pattern or nothing. */
static bool emit_whole(struct oracle_builder *b, bool (*emit)(struct oracle_builder *b))
{
    struct oracle_mark mark = oracle_mark(b);
    if (emit(b))
        return true;
    oracle_rollback(b, &mark);
    return false;
}

#define ALIGNMENT_SIMPLE (1u << GROUP_INTEGER | 1u << GROUP_SSE | 1u << GROUP_DIVIDE)

/* One instruction, or a few that belong together, without a change of flow. */
static bool emit_plain(struct oracle_builder *b)
{
    static const struct {
        uint8_t weight;
        uint8_t group;
    } weights[] = {{38, GROUP_INTEGER}, {1, GROUP_DIVIDE}, {9, GROUP_STACK},
                   {5, GROUP_STRING},   {8, GROUP_X87},    {4, GROUP_MMX},
                   {13, GROUP_SSE},     {13, GROUP_AVX},   {1, GROUP_GATHER}};
    unsigned n = oracle_below(&b->random, 100), i = 0;
    for (; i < ARRAY_SIZE(weights); i++) {
        if (n < weights[i].weight)
            break;
        n -= weights[i].weight;
    }
    /* What else long instructions touch when alignment is checked differs between processors. */
    if (b->alignment_checks && (i == ARRAY_SIZE(weights) || (1u << weights[i].group & ALIGNMENT_SIMPLE) == 0))
        return false;
    if (i == ARRAY_SIZE(weights)) {
        bool narrow = oracle_is_narrow(b->seq->mode); /* where the FPU's environment has another layout */
        switch (oracle_below(&b->random, 24)) {
        case 0:
            return !narrow && emit_whole(b, emit_fpu_save);
        case 1:
            return oracle_percent(&b->random, 30) && !narrow ? emit_fpu_load(b) : emit_fpu_control(b);
        case 2:
            return emit_mxcsr(b);
        case 3:
            return oracle_percent(&b->random, 25) &&
                   oracle_emit_form(b, oracle_form_pick(GROUP_PRIVILEGED, &b->random));
        default:
            return oracle_emit_random(b);
        }
    }
    switch (weights[i].group) {
    case GROUP_STRING:
        return emit_string(b);
    case GROUP_DIVIDE:
        return emit_divide(b);
    case GROUP_STACK:
        return emit_stack(b);
    case GROUP_GATHER:
        return oracle_form_pick(GROUP_AVX, &b->random) && emit_gather(b);
    default:
        return oracle_emit_form(b, oracle_form_pick(weights[i].group, &b->random));
    }
}

/* --- changes of flow; see oracle_track_flags for what they mean to undefined flags --- */

static void set_branch(struct oracle_builder *b, unsigned from, unsigned to, unsigned tie)
{
    struct oracle_seq *seq = b->seq;
    struct oracle_insn *insn = &seq->insn[from];
    unsigned end = insn->offset + insn->len;
    int32_t distance = (int32_t)(to < seq->count ? seq->insn[to].offset : seq->len) - (int32_t)end;
    const uint8_t *opcode = seq->code + insn->offset;
    while (*opcode == 0x3e || *opcode == 0x67)
        opcode++;
    bool is_short = (*opcode & 0xf0) == 0x70 || *opcode == 0xeb || (*opcode & 0xfc) == 0xe0;
    unsigned size = is_short ? 1 : 4;
    memcpy(seq->code + end - size, &distance, size);
    memcpy(seq->guest_code + end - size, &distance, size);
    insn->target = (int16_t)to;
    insn->tie = (uint8_t)tie;
}

/* What is known where two paths meet. */
static void join(struct oracle_builder *b, const struct oracle_builder *other)
{
    for (unsigned i = 0; i < 16; i++)
        if (!(other->known >> i & 1) || other->value[i] != b->value[i])
            b->known &= (uint16_t) ~(1u << i);
    b->undefined |= other->undefined;
    b->initial &= other->initial;
}

static bool emit_some(struct oracle_builder *b, unsigned n)
{
    for (unsigned tries = 0; n && tries < 40; tries++)
        if (emit_plain(b))
            n--;
    return !n;
}

/* Jcc, JMP, JRCXZ over a few instructions. */
static bool emit_forward(struct oracle_builder *b)
{
    uint64_t *r = &b->random;
    unsigned kind = oracle_below(r, 100), cc = oracle_below(r, 16), from;
    bool good;
    if (kind < 85 && b->undefined && !oracle_define_flags(b))
        return false;
    from = b->seq->count;
    if (kind < 60)
        good = oracle_append_hex(b, "%b 00", 0x70 | cc);
    else if (kind < 85)
        good = oracle_append_hex(b, "0f %b 00000000", 0x80 | cc);
    else if (kind < 92)
        good = oracle_append_hex(b, "eb 00");
    else if (kind < 95)
        good = oracle_append_hex(b, "e9 00000000");
    else
        good = oracle_append_hex(b, kind < 98 ? "e3 00" : "67 e3 00");
    if (!good)
        return false;
    struct oracle_builder before = *b;
    emit_some(b, 1 + oracle_below(r, 2));
    if (b->seq->len - b->seq->insn[from].offset > 120)
        return false;
    set_branch(b, from, b->seq->count, 0);
    join(b, &before);
    return true;
}

/* A counted loop. Its body leaves the counter and the registers that it relies on alone. */
static bool emit_loop(struct oracle_builder *b, unsigned tie)
{
    uint64_t *r = &b->random;
    bool use_loop = oracle_percent(r, 40);
    unsigned counter = use_loop
                           ? R_RCX
                           : (unsigned[]){R_RBX, R_RCX, R_RDX, R_R9,
                                          R_R12}[oracle_below(r, oracle_is_narrow(b->seq->mode) ? 3 : 5)];
    unsigned pointer = counter == R_RSI ? R_RDI : R_RSI;
    if (!oracle_load(b, counter, 1 + oracle_below(r, 6)) ||
        !oracle_load(b, pointer, b->window + 0x800 + oracle_below(r, 0x800)) || !stack_ready(b))
        return false;
    uint16_t kept = (uint16_t)(1u << counter | 1u << pointer | 1u << R_RSP);
    unsigned head = b->seq->count, done = 0, wanted = 1 + oracle_below(r, 4);
    b->known &= kept;
    b->initial = 0;
    b->undefined = FLAGS_STATUS;
    for (unsigned tries = 0; done < wanted && tries < 20; tries++) {
        struct oracle_mark mark = oracle_mark(b);
        uint64_t rsp = b->value[R_RSP];
        /* The counter as an address would leave the window after one round. */
        b->known &= (uint16_t) ~(1u << counter);
        bool good = emit_plain(b) && (b->known & kept) == (kept & ~(1u << counter)) &&
                    b->value[R_RSP] == rsp && !oracle_wrote(b, &mark, counter);
        if (good) {
            done++;
            b->known |= (uint16_t)(1u << counter);
        } else {
            oracle_rollback(b, &mark);
        }
    }
    if (!use_loop && !(counter > 7 ? oracle_append_hex(b, "41 ff %b", 0xc8 | (counter & 7))
                                   : oracle_append_hex(b, "ff %b", 0xc8 | counter)))
        return false;
    if (use_loop && b->undefined && oracle_percent(r, 70))
        oracle_define_flags(b);
    /* LOOP, LOOPE or LOOPNE; or JNZ */
    unsigned opcode = use_loop ? (b->undefined ? 0xe2 : 0xe0 + oracle_below(r, 3)) : 0x75;
    if (!oracle_append_hex(b, "%b 00", opcode))
        return false;
    unsigned last = b->seq->count - 1;
    if (b->seq->len - b->seq->insn[head].offset > 126)
        return false;
    b->known &= (uint16_t) ~(1u << counter);
    set_branch(b, last, head, tie);
    if (!use_loop)
        b->seq->insn[last - 1].tie = (uint8_t)tie;
    return true;
}

/* CALL to a body further on, what follows the call, and a jump over the body, which ends in RET. */
static bool emit_call(struct oracle_builder *b, unsigned tie)
{
    uint64_t *r = &b->random;
    if (!stack_ready(b))
        return false;
    uint64_t rsp = b->value[R_RSP];
    unsigned call = b->seq->count;
    if (!oracle_append_hex(b, "e8 00000000"))
        return false;
    struct oracle_builder at_call = *b;
    /* After the return: nothing is known but the stack. */
    b->known = 1 << R_RSP;
    b->value[R_RSP] = rsp;
    b->initial = 0;
    b->undefined = FLAGS_STATUS;
    emit_some(b, oracle_below(r, 3));
    unsigned jump = b->seq->count;
    if (!oracle_append_hex(b, "e9 00000000"))
        return false;
    struct oracle_builder after = *b;
    at_call.random = b->random;
    *b = at_call;
    b->known |= 1 << R_RSP;
    b->value[R_RSP] = rsp - 8;
    unsigned body = b->seq->count;
    emit_some(b, oracle_below(r, 3));
    if (!(b->known & 1 << R_RSP) || b->value[R_RSP] != rsp - 8)
        if (!oracle_load(b, R_RSP, rsp - 8))
            return false;
    if (!oracle_append_hex(b, oracle_percent(r, 80) ? "c3" : oracle_percent(r, 50) ? "f3 c3" : "c2 0000"))
        return false;
    b->seq->insn[b->seq->count - 1].tie = (uint8_t)tie;
    set_branch(b, call, body, tie);
    b->seq->insn[jump].tie = (uint8_t)tie;
    after.random = b->random;
    *b = after;
    set_branch(b, jump, b->seq->count, tie);
    return true;
}

/* An indirect jump or call, or a return to a pushed address, over a few bytes of rubbish. */
static bool emit_indirect(struct oracle_builder *b, unsigned tie)
{
    uint64_t *r = &b->random;
    unsigned reg = (unsigned[]){R_RAX, R_RDX, R_RDI, R_RBP}[oracle_below(r, 4)], kind = oracle_below(r, 5);
    uint32_t slot = place(b, 8, 1);
    unsigned first = b->seq->count, lea_end;
    bool good = stack_ready(b);
    first = b->seq->count;
    good = good && oracle_append_hex(b, "48 8d %b 00000000", 5 | reg << 3); /* lea reg, [rip + ...] */
    lea_end = b->seq->len;
    if (!good)
        return false;
    switch (kind) {
    case 0:
        good = oracle_append_hex(b, "ff %b", 0xe0 | reg); /* jmp reg */
        break;
    case 1:
        good = oracle_append_hex(b, "ff %b", 0xd0 | reg); /* call reg */
        b->value[R_RSP] -= 8;
        b->known |= 1 << R_RSP;
        break;
    case 2:
        good = oracle_append_hex(b, "%b", 0x50 | reg) && oracle_append_hex(b, "c3"); /* push reg; ret */
        b->value[R_RSP] += 8;
        b->known |= 1 << R_RSP;
        break;
    default:
        good = oracle_append_hex(b, "48 89 %b 25 %d", 4 | reg << 3, slot) && /* mov [slot], reg */
               oracle_append_hex(b, "ff 24 25 %d", slot);                    /* jmp [slot] */
        break;
    }
    if (!good)
        return false;
    for (unsigned i = first; i < b->seq->count; i++)
        b->seq->insn[i].tie = (uint8_t)tie;
    unsigned rubbish = oracle_below(r, 9);
    for (unsigned i = 0; i < rubbish; i++)
        b->seq->code[b->seq->len++] = (uint8_t)oracle_random(r);
    uint32_t distance = b->seq->len - lea_end;
    memcpy(b->seq->code + lea_end - 4, &distance, 4);
    memcpy(b->seq->guest_code + lea_end - 4, b->seq->code + lea_end - 4, b->seq->len - lea_end + 4);
    return true;
}

/* --- whole sequences --- */

static const uint64_t interesting[] = {
    0,
    1,
    2,
    7,
    8,
    0x1f,
    0x20,
    0x3f,
    0x40,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fffffff,
    0x80000000,
    0xffffffff,
    0x100000000,
    0x7fffffffffffffff,
    0x8000000000000000,
    0xffffffffffffffff,
    0xfffffffffffffffe,
    0xffffffffffffff80,
    0xffffffff80000000,
    0x5555555555555555,
    0xaaaaaaaaaaaaaaaa,
    0x0123456789abcdef,
};

static uint64_t random_value(uint64_t *r)
{
    switch (oracle_below(r, 4)) {
    case 0:
        return oracle_random(r);
    case 1:
        return oracle_random(r) >> oracle_below(r, 64);
    default:
        return interesting[oracle_below(r, ARRAY_SIZE(interesting))];
    }
}

/* Narrow code never sees the upper halves; natively they stay zero. */
static uint64_t value_mask(const struct oracle_seq *seq)
{
    return oracle_is_narrow(seq->mode) ? UINT32_MAX : UINT64_MAX;
}

static void initial_registers(struct oracle_builder *b)
{
    uint64_t *r = &b->random;
    for (unsigned i = 0; i < 16; i++) {
        unsigned kind = oracle_below(r, 10);
        if (kind < 4)
            b->value[i] = b->window + oracle_below(r, ORACLE_WINDOW);
        else if (kind < 6)
            b->value[i] = oracle_below(r, 100);
        else
            b->value[i] = random_value(r);
    }
    for (unsigned i = 0; i < 16; i++)
        b->value[i] &= value_mask(b->seq);
    b->value[R_RSP] = b->window + 0xc00 + 8 * oracle_below(r, 128);
    if (oracle_percent(r, 20))
        b->value[R_RSP] = b->window + 0x1000 - oracle_below(r, 16);
    b->known = b->initial = 0xffff;
    memcpy(b->seq->gpr, b->value, sizeof(b->value));
}

/* jmp [rip]; address. In narrow code, int. */
static void put_end(struct oracle_seq *seq)
{
    const uint8_t end[ORACLE_END_SIZE - 8] = {0xff, 0x25};
    const uint64_t trampoline = ORACLE_TRAMPOLINE;
    memcpy(seq->code + seq->len, end, sizeof(end));
    memcpy(seq->code + seq->len + sizeof(end), &trampoline, sizeof(trampoline));
    memcpy(seq->guest_code + seq->len, seq->code + seq->len, ORACLE_END_SIZE);
    if (oracle_is_narrow(seq->mode)) {
        seq->guest_code[seq->len] = 0xcd; /* int */
        seq->guest_code[seq->len + 1] = ORACLE_DONE_VECTOR;
    }
    seq->len += sizeof(end) + sizeof(trampoline);
}

void oracle_generate(struct oracle_seq *seq, uint64_t seed, unsigned slot, enum oracle_mode mode)
{
    memset(seq, 0, sizeof(*seq));
    seq->seed = seed;
    seq->slot = slot;
    seq->mode = mode;
    seq->base = ORACLE_CODE + (uint64_t)slot * ORACLE_CODE_STRIDE;
    seq->fixed = 1 << R_RSP;
    struct oracle_builder b = {.seq = seq, .random = seed, .window = oracle_window(slot)};
    b.segment_base[0] = oracle_window(slot) + ORACLE_FS_OFFSET;
    b.segment_base[1] = oracle_window(slot) + ORACLE_GS_OFFSET;
    initial_registers(&b);
    unsigned wanted = 1 + oracle_below(&b.random, oracle_percent(&b.random, 50) ? 8 : 24), tie = 0;
    for (unsigned tries = 0; seq->count < wanted && tries < 200; tries++) {
        struct oracle_mark mark = oracle_mark(&b);
        unsigned kind = oracle_below(&b.random, 100);
        bool good;
        bool narrow = oracle_is_narrow(mode);
        if (kind < 88 || (narrow && kind >= 96))
            good = emit_plain(&b);
        else if (kind < 94)
            good = emit_forward(&b);
        else if (kind < 96)
            good = emit_loop(&b, ++tie);
        else if (kind < 98)
            good = emit_call(&b, ++tie);
        else
            good = emit_indirect(&b, ++tie);
        if (!good && seq->count != mark.count && kind >= 88)
            oracle_rollback(&b, &mark);
    }
    if (oracle_percent(&b.random, 1))
        oracle_append_hex(&b, oracle_percent(&b.random, 50) ? "cc" : "0f 0b"); /* INT3, UD2 */
    seq->undefined_after = b.undefined;
    put_end(seq);
}

void oracle_blank(struct oracle_seq *seq)
{
    seq->len = seq->count = 0;
    seq->undefined_after = 0;
    put_end(seq);
}

bool oracle_track_flags(struct oracle_seq *seq)
{
    uint32_t at[ORACLE_INSN_MAX + 1] = {0};
    /* The head of a loop is entered with whatever its end left; a call's return likewise. */
    for (unsigned i = 0; i < seq->count; i++) {
        if (seq->insn[i].target >= 0 && seq->insn[i].target <= (int)i)
            at[seq->insn[i].target] = FLAGS_STATUS;
        if (seq->insn[i].target >= 0 && seq->code[seq->insn[i].offset] == 0xe8)
            at[i + 1] = FLAGS_STATUS;
    }
    uint32_t undefined = 0;
    for (unsigned i = 0; i < seq->count; i++) {
        struct oracle_insn *insn = &seq->insn[i];
        undefined |= at[i];
        insn->undefined_before = undefined;
        if (insn->reads & undefined)
            return false;
        undefined = (undefined & ~insn->defines) | insn->undefines;
        if (insn->target > (int)i)
            at[insn->target] |= undefined;
    }
    seq->undefined_after = undefined | at[seq->count];
    return true;
}

/* --- initial values --- */

static void random_float(uint64_t *r, uint8_t *out, unsigned size)
{
    uint64_t v = oracle_random(r);
    switch (oracle_below(r, 8)) {
    case 0:
        v = 0;
        break;
    case 1: /* infinities and NaNs */
        v |= size == 8 ? UINT64_C(0x7ff0000000000000) : 0x7f800000;
        if (oracle_percent(r, 50))
            v &= size == 8 ? UINT64_C(0xfff0000000000000) : 0xff800000;
        break;
    case 2: /* denormals */
        v &= size == 8 ? UINT64_C(0x800fffffffffffff) : 0x807fffff;
        break;
    case 3: { /* small whole numbers */
        double d = (double)((int)oracle_below(r, 2000) - 1000) / 4;
        float f = (float)d;
        memcpy(&v, size == 8 ? (void *)&d : (void *)&f, size);
        break;
    }
    default: /* moderate exponents */
        v = size == 8 ? (v & UINT64_C(0x803fffffffffffff)) | UINT64_C(0x3fc0000000000000)
                      : (v & 0x807fffff) | (uint32_t)(120 + oracle_below(r, 16)) << 23;
        break;
    }
    memcpy(out, &v, size);
}

static void random_bytes(uint64_t *r, uint8_t *out, unsigned len)
{
    for (unsigned i = 0; i < len; i += 16) {
        unsigned kind = oracle_below(r, 8);
        for (unsigned j = i; j < i + 16 && j < len; j += 8) {
            uint64_t v = kind == 0 ? random_value(r) : oracle_random(r);
            if (kind == 1 || kind == 2)
                random_float(r, (uint8_t *)&v, 8);
            if (kind == 3 || kind == 4)
                for (unsigned k = 0; k < 8; k += 4)
                    random_float(r, (uint8_t *)&v + k, 4);
            memcpy(out + j, &v, MIN(8u, len - j));
        }
    }
}

/* An 80-bit number of any class. */
static void random_extended(uint64_t *r, uint8_t *out)
{
    uint64_t mantissa = oracle_random(r);
    uint16_t exponent = (uint16_t)(0x3fff - 20 + oracle_below(r, 40));
    switch (oracle_below(r, 8)) {
    case 0:
        mantissa = 0;
        exponent = 0;
        break;
    case 1:
        exponent = 0x7fff;
        break;
    case 2:
        exponent = 0;
        break;
    case 3: /* any, also the invalid encodings */
        exponent = (uint16_t)oracle_random(r);
        break;
    default:
        mantissa |= UINT64_C(1) << 63;
        break;
    }
    exponent |= (uint16_t)(oracle_random(r) & 0x8000);
    memcpy(out, &mantissa, 8);
    memcpy(out + 8, &exponent, 2);
}

static void random_xsave(uint64_t *r, uint8_t *x)
{
    uint16_t fcw = (uint16_t)((oracle_random(r) & 0x0f00) | 0x7f),
             fsw = (uint16_t)(oracle_random(r) & 0x7f00);
    uint32_t mxcsr = oracle_percent(r, 70) ? 0x1f80 : (uint32_t)((oracle_random(r) & 0xe07f) | 0x1f80);
    uint64_t features = 7;
    if (oracle_percent(r, 95))
        fcw = (uint16_t)((fcw & 0x0c00) | 0x37f);
    fsw &= (uint16_t)~0x8080;
    memset(x, 0, ORACLE_XSAVE_SIZE);
    memcpy(x, &fcw, 2);
    memcpy(x + 2, &fsw, 2);
    x[4] = oracle_percent(r, 40) ? 0 : (uint8_t)oracle_random(r);
    memcpy(x + 24, &mxcsr, 4);
    for (unsigned i = 0; i < 8; i++)
        random_extended(r, x + 32 + 16 * i);
    random_bytes(r, x + 160, 256);
    memcpy(x + 512, &features, 8);
    random_bytes(r, x + 576, 256);
}

void oracle_inputs(const struct oracle_seq *seq, unsigned pass, struct oracle_regs *regs, uint8_t *window)
{
    uint64_t r = seq->seed ^ (UINT64_C(0x5851f42d4c957f2d) * (pass + 1));
    memset(regs, 0, sizeof(*regs));
    for (unsigned i = 0; i < 16; i++) {
        uint64_t other = oracle_percent(&r, 30) ? oracle_window(seq->slot) + oracle_below(&r, ORACLE_WINDOW)
                                                : random_value(&r);
        regs->gpr[i] = (seq->fixed >> i & 1) || !pass ? seq->gpr[i] : other & value_mask(seq);
    }
    regs->rip = seq->base;
    regs->rflags = (oracle_random(&r) & (FLAGS_STATUS | FLAG_ID)) | FLAG_IF | 2;
    if (oracle_percent(&r, 10))
        regs->rflags |= FLAG_DF;
    random_xsave(&r, regs->xsave);
    random_bytes(&r, window, ORACLE_WINDOW);
}

void oracle_read_only_page(uint8_t *page)
{
    uint64_t r = 42;
    random_bytes(&r, page, ORACLE_RO_SIZE);
    for (unsigned i = 0; i < 32; i++) {
        uint32_t d = oracle_below(&r, 200);
        uint64_t q = oracle_below(&r, 200);
        memcpy(page + ORACLE_RO_DWORDS + 4 * i, &d, 4);
        memcpy(page + ORACLE_RO_QWORDS + 8 * i, &q, 8);
    }
}
