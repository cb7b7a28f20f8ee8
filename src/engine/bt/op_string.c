/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MOVS, STOS, LODS, SCAS, CMPS, INS and OUTS with REP (SDM vol. 1 section 7.3.9). Runs that lie in plain RAM
 * go at the host's speed, a page at a time; all else one element at a time. Registers are committed for every
 * element that is done, so that a fault, an interrupt or a debug trap finds the instruction between two
 * elements. gpr-only.
 *
 * Forms: `left` elements remain (RCX cut to the address size, or 1 without REP), `step` is +size or -size by
 * DF.
 */
#include "base/util.h"
#include "engine/bt/io.h"
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

/* Steps (elements, or runs within a page) done at most before the engine looks around. */
#define ELEMENTS_PER_ROUND 1024u

#define REPNE 0xf2
#define REP   0xf3

struct string_op {
    struct bt_cpu *cpu;
    unsigned size;       /* of an element */
    unsigned addrsize;   /* of RSI, RDI and RCX */
    unsigned source_seg; /* DS or the override */
    uint8_t rep;         /* REP, REPNE or 0 */
    bool runs;           /* may go by runs: repeats, no single steps, no checks of alignment */
    int step;
    uint64_t left;
    unsigned budget; /* of this round, in elements or pages */
};

/* REP, REPNE or 0: the last such prefix. */
static uint8_t rep_prefix(const struct x86_insn *insn)
{
    uint8_t rep = 0;
    for (unsigned i = 0; i < insn->len && insn->bytes[i] != insn->opcode; i++)
        if (insn->bytes[i] == REP || insn->bytes[i] == REPNE)
            rep = insn->bytes[i];
    return rep;
}

static void string_begin(struct string_op *s, struct bt_cpu *cpu, const struct bt_op *op)
{
    s->cpu = cpu;
    s->size = op->insn.opsize;
    s->addrsize = op->insn.addrsize;
    s->source_seg = bt_segment_override(&op->insn);
    s->rep = rep_prefix(&op->insn);
    s->runs = s->rep && !(cpu->sysflags & FLAG_TF) && !(cpu->mode & MODE_ALIGN);
    s->step = cpu->df ? -(int)s->size : (int)s->size;
    s->left = s->rep ? bt_zext(cpu->gpr[R_RCX], s->addrsize) : 1;
    s->budget = ELEMENTS_PER_ROUND;
}

static uint64_t index_of(const struct string_op *s, unsigned reg)
{
    return bt_zext(s->cpu->gpr[reg], s->addrsize);
}

static void advance(const struct string_op *s, unsigned reg, uint64_t elements)
{
    bt_gpr_write(s->cpu, reg, s->addrsize, s->cpu->gpr[reg] + elements * (uint64_t)(int64_t)s->step);
}

/* `elements` are done and RSI and RDI moved: counts them off. Whether to go on in this round. */
static bool count_off(struct string_op *s, uint64_t elements)
{
    s->left -= elements;
    if (!s->rep)
        return false;
    bt_gpr_write(s->cpu, R_RCX, s->addrsize, s->left);
    bool interrupted = atomic_load_explicit(&s->cpu->kick, memory_order_relaxed) || s->cpu->pending_db ||
                       (s->cpu->sysflags & FLAG_TF);
    return s->left && --s->budget && !interrupted;
}

/* Ends a round: with elements left the instruction runs again after whatever waits (RIP stays). */
static bool string_end(const struct string_op *s, const struct bt_op *op)
{
    return s->left ? true : bt_op_next(s->cpu, op);
}

static bool load_element(const struct string_op *s, unsigned seg, unsigned reg, uint64_t *value)
{
    *value = 0;
    return bt_read_seg(s->cpu, seg, index_of(s, reg), value, s->size);
}

static bool store_element(const struct string_op *s, uint64_t value)
{
    return bt_write_seg(s->cpu, SEG_ES, index_of(s, R_RDI), &value, s->size);
}

/* ---- runs in plain RAM ---- */

/* How many elements from `ea` on lie within the page of `lin`, the segment and the address size. */
static uint64_t elements_in_page(const struct string_op *s, unsigned seg, uint64_t ea, uint64_t lin)
{
    uint64_t off = lin & (GUEST_PAGE_SIZE - 1), top = bt_zext(~UINT64_C(0), s->addrsize);
    const struct x86_segment *segment = &s->cpu->seg[seg];
    bool limited = !bt_code64(s->cpu);
    if (off + s->size > GUEST_PAGE_SIZE || top - ea < s->size)
        return 0;
    if (limited && (segment->attr & (SEG_TYPE_CODE | SEG_TYPE_DOWN)) == SEG_TYPE_DOWN)
        return 0;
    if (s->step < 0)
        return MIN(off, ea) / s->size + 1;
    uint64_t bytes = MIN(GUEST_PAGE_SIZE - off, top - ea);
    if (limited)
        bytes = MIN(bytes, (uint64_t)segment->limit - ea + 1);
    return bytes / s->size;
}

/*
 * A run of elements from the one that `reg` points at, in plain RAM: their number and the first one's host
 * address. None (0) where the element has to be accessed by itself. False: the first element faults, cpu->exc
 * is set.
 */
static bool find_run(const struct string_op *s, unsigned seg, unsigned reg, unsigned access,
                     uint64_t *elements, uint8_t **host)
{
    uint64_t lin, ea = index_of(s, reg);
    *elements = 0;
    if (!bt_seg_linear(s->cpu, seg, ea, s->size, access, &lin))
        return false;
    uint64_t n = elements_in_page(s, seg, ea, lin);
    if (!n)
        return true;
    *host = bt_host_ptr(s->cpu, lin, access);
    if (!*host)
        return !s->cpu->exc.pending;
    *elements = MIN(n, s->left);
    return true;
}

/* The processor's own instruction, so that overlapping and aliasing runs come out as they do there. */
#define HOST_STRING(insn, suffix)                                                                            \
    __asm__ volatile("rep " insn suffix : "+D"(to), "+S"(from), "+c"(elements) : "a"(value) : "memory")
#define HOST_STRING_DOWN(insn, suffix)                                                                       \
    __asm__ volatile("std; rep " insn suffix "; cld"                                                         \
                     : "+D"(to), "+S"(from), "+c"(elements)                                                  \
                     : "a"(value)                                                                            \
                     : "memory", "cc")
#define HOST_STRING_SIZES(form, insn)                                                                        \
    switch (size) {                                                                                          \
    case 1:                                                                                                  \
        form(insn, "b");                                                                                     \
        break;                                                                                               \
    case 2:                                                                                                  \
        form(insn, "w");                                                                                     \
        break;                                                                                               \
    case 4:                                                                                                  \
        form(insn, "l");                                                                                     \
        break;                                                                                               \
    default:                                                                                                 \
        form(insn, "q");                                                                                     \
        break;                                                                                               \
    }

static void host_movs(uint8_t *to, const uint8_t *from, uint64_t elements, unsigned size, bool down)
{
    const uint64_t value = 0;
    if (down)
        HOST_STRING_SIZES(HOST_STRING_DOWN, "movs")
    else
        HOST_STRING_SIZES(HOST_STRING, "movs")
}

static void host_stos(uint8_t *to, uint64_t value, uint64_t elements, unsigned size, bool down)
{
    const uint8_t *from = NULL;
    if (down)
        HOST_STRING_SIZES(HOST_STRING_DOWN, "stos")
    else
        HOST_STRING_SIZES(HOST_STRING, "stos")
}

/* ---- MOVS, STOS, LODS ---- */

static bool movs_element(const struct string_op *s)
{
    uint64_t value;
    return load_element(s, s->source_seg, R_RSI, &value) && store_element(s, value);
}

static bool op_movs(struct bt_cpu *cpu, const struct bt_op *op)
{
    struct string_op s;
    string_begin(&s, cpu, op);
    bool more = s.left;
    while (more) {
        uint64_t n = 0, m = 0;
        uint8_t *from, *to;
        if (s.runs && (!find_run(&s, s.source_seg, R_RSI, BT_READ, &n, &from) ||
                       (n && !find_run(&s, SEG_ES, R_RDI, BT_WRITE, &m, &to))))
            return false;
        n = MIN(n, m);
        if (n)
            host_movs(to, from, n, s.size, s.step < 0);
        else if (!movs_element(&s))
            return false;
        n = MAX(n, 1u);
        advance(&s, R_RSI, n);
        advance(&s, R_RDI, n);
        more = count_off(&s, n);
    }
    return string_end(&s, op);
}

static bool op_stos(struct bt_cpu *cpu, const struct bt_op *op)
{
    struct string_op s;
    string_begin(&s, cpu, op);
    bool more = s.left;
    while (more) {
        uint64_t n = 0;
        uint8_t *to;
        if (s.runs && !find_run(&s, SEG_ES, R_RDI, BT_WRITE, &n, &to))
            return false;
        if (n)
            host_stos(to, cpu->gpr[R_RAX], n, s.size, s.step < 0);
        else if (!store_element(&s, cpu->gpr[R_RAX]))
            return false;
        n = MAX(n, 1u);
        advance(&s, R_RDI, n);
        more = count_off(&s, n);
    }
    return string_end(&s, op);
}

static void set_accumulator(struct bt_cpu *cpu, unsigned size, uint64_t value)
{
    const struct x86_field al = {.kind = FIELD_GPR, .reg = R_RAX};
    bt_reg_write(cpu, &al, size, value);
}

static bool op_lods(struct bt_cpu *cpu, const struct bt_op *op)
{
    struct string_op s;
    string_begin(&s, cpu, op);
    bool more = s.left;
    while (more) {
        uint64_t value;
        if (!load_element(&s, s.source_seg, R_RSI, &value))
            return false;
        set_accumulator(cpu, s.size, value);
        advance(&s, R_RSI, 1);
        more = count_off(&s, 1);
    }
    return string_end(&s, op);
}

/* ---- CMPS, SCAS ---- */

/* Status flags of a - b. */
static uint64_t compare(uint64_t a, uint64_t b, unsigned size)
{
    unsigned shift = 64 - 8 * size;
    uint64_t x = a << shift, y = b << shift, r = x - y, flags = 0;
    flags |= x < y ? FLAG_CF : 0;
    flags |= __builtin_parity((unsigned)(r >> shift) & 0xff) ? 0 : FLAG_PF;
    flags |= (a & 15) < (b & 15) ? FLAG_AF : 0;
    flags |= r ? 0 : FLAG_ZF;
    flags |= r >> 63 ? FLAG_SF : 0;
    flags |= ((x ^ y) & (x ^ r)) >> 63 ? FLAG_OF : 0;
    return flags;
}

static uint64_t load_host(const uint8_t *p, unsigned size)
{
    switch (size) {
    case 1:
        return *p;
    case 2:
        return load_le16(p);
    case 4:
        return load_le32(p);
    default:
        return load_le64(p);
    }
}

/* Whether a repeated comparison ends after this outcome. */
static bool decided(const struct string_op *s, bool equal)
{
    return s->rep && equal != (s->rep == REP);
}

/*
 * Compares elements until one decides; sets *a, *b to the last pair and *done to their number, at least 1. A
 * side is host memory (stepping), or the accumulator where its pointer is NULL. False: a fault.
 */
static bool compare_run(const struct string_op *s, bool cmps, uint64_t *a, uint64_t *b, uint64_t *done)
{
    uint64_t n = 0, m = UINT64_MAX;
    uint8_t *left = NULL, *right = NULL;
    *done = 1;
    *a = bt_zext(s->cpu->gpr[R_RAX], 8);
    if (s->runs && ((cmps && !find_run(s, s->source_seg, R_RSI, BT_READ, &m, &left)) ||
                    (m && !find_run(s, SEG_ES, R_RDI, BT_READ, &n, &right))))
        return false;
    n = MIN(n, m);
    if (!n)
        return (!cmps || load_element(s, s->source_seg, R_RSI, a)) && load_element(s, SEG_ES, R_RDI, b);
    uint64_t mask = ~UINT64_C(0) >> (64 - 8 * s->size);
    for (uint64_t i = 0;; i++) {
        int64_t off = (int64_t)i * s->step;
        if (cmps)
            *a = load_host(left + off, s->size);
        *b = load_host(right + off, s->size);
        if (i + 1 == n || decided(s, !((*a ^ *b) & mask))) {
            *done = i + 1;
            return true;
        }
    }
}

static bool compare_strings(struct bt_cpu *cpu, const struct bt_op *op, bool cmps)
{
    struct string_op s;
    string_begin(&s, cpu, op);
    bool more = s.left, found = false;
    while (more && !found) {
        uint64_t a, b, done;
        if (!compare_run(&s, cmps, &a, &b, &done))
            return false;
        if (cmps)
            advance(&s, R_RSI, done);
        advance(&s, R_RDI, done);
        more = count_off(&s, done);
        uint64_t flags = compare(a, b, s.size);
        bt_set_status(cpu, flags);
        found = decided(&s, flags & FLAG_ZF);
    }
    return found ? bt_op_next(cpu, op) : string_end(&s, op);
}

static bool op_cmps(struct bt_cpu *cpu, const struct bt_op *op)
{
    return compare_strings(cpu, op, true);
}

static bool op_scas(struct bt_cpu *cpu, const struct bt_op *op)
{
    return compare_strings(cpu, op, false);
}

/* ---- INS, OUTS ---- */

static bool port_string(struct bt_cpu *cpu, const struct bt_op *op, bool in)
{
    struct string_op s;
    string_begin(&s, cpu, op);
    s.size = MIN(s.size, 4u); /* REX.W changes nothing */
    s.step = cpu->df ? -(int)s.size : (int)s.size;
    uint16_t port = (uint16_t)cpu->gpr[R_RDX];
    if (!bt_io_allowed(cpu, port, s.size))
        return false;
    bool more = s.left;
    while (more) {
        uint64_t value;
        /* Asked before the port is read, which cannot be undone. */
        if (in ? !bt_can_write_seg(cpu, SEG_ES, index_of(&s, R_RDI), s.size)
               : !load_element(&s, s.source_seg, R_RSI, &value))
            return false;
        if (!in)
            bt_io_write(cpu, port, s.size, (uint32_t)value);
        else if (!store_element(&s, bt_io_read(cpu, port, s.size)))
            return false;
        advance(&s, in ? R_RDI : R_RSI, 1);
        more = count_off(&s, 1);
    }
    return string_end(&s, op);
}

static bool op_ins(struct bt_cpu *cpu, const struct bt_op *op)
{
    return port_string(cpu, op, true);
}

static bool op_outs(struct bt_cpu *cpu, const struct bt_op *op)
{
    return port_string(cpu, op, false);
}

/* MOVSD and CMPSD name SSE2 instructions too: those are told apart by their opcodes. */
const struct bt_op_entry bt_ops_string[] = {
    {.mnemonic = ZYDIS_MNEMONIC_MOVSB, .fn = op_movs},
    {.mnemonic = ZYDIS_MNEMONIC_MOVSW, .fn = op_movs},
    {.mnemonic = ZYDIS_MNEMONIC_MOVSD, .opcode = 0xa5, .fn = op_movs},
    {.mnemonic = ZYDIS_MNEMONIC_MOVSQ, .fn = op_movs},
    {.mnemonic = ZYDIS_MNEMONIC_STOSB, .fn = op_stos},
    {.mnemonic = ZYDIS_MNEMONIC_STOSW, .fn = op_stos},
    {.mnemonic = ZYDIS_MNEMONIC_STOSD, .fn = op_stos},
    {.mnemonic = ZYDIS_MNEMONIC_STOSQ, .fn = op_stos},
    {.mnemonic = ZYDIS_MNEMONIC_LODSB, .fn = op_lods},
    {.mnemonic = ZYDIS_MNEMONIC_LODSW, .fn = op_lods},
    {.mnemonic = ZYDIS_MNEMONIC_LODSD, .fn = op_lods},
    {.mnemonic = ZYDIS_MNEMONIC_LODSQ, .fn = op_lods},
    {.mnemonic = ZYDIS_MNEMONIC_SCASB, .fn = op_scas},
    {.mnemonic = ZYDIS_MNEMONIC_SCASW, .fn = op_scas},
    {.mnemonic = ZYDIS_MNEMONIC_SCASD, .fn = op_scas},
    {.mnemonic = ZYDIS_MNEMONIC_SCASQ, .fn = op_scas},
    {.mnemonic = ZYDIS_MNEMONIC_CMPSB, .fn = op_cmps},
    {.mnemonic = ZYDIS_MNEMONIC_CMPSW, .fn = op_cmps},
    {.mnemonic = ZYDIS_MNEMONIC_CMPSD, .opcode = 0xa7, .fn = op_cmps},
    {.mnemonic = ZYDIS_MNEMONIC_CMPSQ, .fn = op_cmps},
    {.mnemonic = ZYDIS_MNEMONIC_INSB, .fn = op_ins, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_INSW, .fn = op_ins, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_INSD, .fn = op_ins, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_OUTSB, .fn = op_outs, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_OUTSW, .fn = op_outs, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_OUTSD, .fn = op_outs, .heavy = true},
    {0},
};
