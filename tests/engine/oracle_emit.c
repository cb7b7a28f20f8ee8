/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encoding random instructions: see oracle_emit.h. An instruction is put together from a form and random
 * operands, shown to the decoder, and taken when the decoder agrees that it may run.
 */
#include "oracle_emit.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_BYTES 15u

/* An instruction being encoded. */
struct draft {
    struct oracle_form form;
    uint8_t prefix[4];
    unsigned prefix_count;
    bool operand_size; /* an extra 66 */
    bool address_size; /* 67 */
    uint8_t segment;   /* 0, 0x64, 0x65 or another segment's prefix */
    bool lock;
    bool rex;     /* although not needed */
    uint8_t reg;  /* 0..15 */
    uint8_t rm;   /* 0..15, register form or base */
    uint8_t vvvv; /* 0..15 */
    bool memory;
    /* Memory form. */
    uint8_t mod;
    bool sib, rip;
    uint8_t index; /* 0..15; 4: none */
    uint8_t scale; /* 0..3 */
    bool base;     /* false: SIB without base */
    int32_t disp;
    uint64_t target; /* for RIP-relative and absolute addresses */
};

bool oracle_has_room(const struct oracle_builder *b)
{
    return b->seq->len + ROOM_BYTES <= ORACLE_CODE_MAX && b->seq->count < ORACLE_INSN_MAX;
}

struct oracle_mark oracle_mark(const struct oracle_builder *b)
{
    return (struct oracle_mark){.builder = *b, .len = b->seq->len, .count = b->seq->count};
}

void oracle_rollback(struct oracle_builder *b, const struct oracle_mark *mark)
{
    uint64_t random = b->random; /* or the same would come again */
    *b = mark->builder;
    b->random = random;
    b->seq->len = mark->len;
    b->seq->count = mark->count;
}

static unsigned gpr_number(ZydisRegister reg)
{
    ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    return full >= ZYDIS_REGISTER_RAX && full <= ZYDIS_REGISTER_R15 ? (unsigned)(full - ZYDIS_REGISTER_RAX)
                                                                    : 16;
}

/* Forgets what the instruction overwrites; keeps up with RSP for pushes and pops. */
static void forget_written(struct oracle_builder *b, const ZydisDecodedInstruction *insn,
                           const ZydisDecodedOperand *operands)
{
    uint16_t written = 0;
    bool rsp_explicit = false;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        const ZydisDecodedOperand *op = &operands[i];
        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        unsigned reg = gpr_number(op->reg.value);
        if (reg < 16)
            written |= (uint16_t)(1u << reg);
        rsp_explicit |= reg == R_RSP && op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN;
    }
    b->written[b->seq->count] = written;
    uint64_t rsp = b->value[R_RSP];
    bool keep = (b->known & 1 << R_RSP) && !rsp_explicit;
    b->known &= (uint16_t)~written;
    b->initial &= (uint16_t)~written;
    if (!keep || !(written & 1 << R_RSP))
        return;
    if (insn->meta.category == ZYDIS_CATEGORY_PUSH)
        rsp -= insn->operand_width / 8;
    else if (insn->meta.category == ZYDIS_CATEGORY_POP)
        rsp += insn->operand_width / 8;
    else
        return;
    b->known |= 1 << R_RSP;
    b->value[R_RSP] = rsp;
}

bool oracle_append(struct oracle_builder *b, const uint8_t *code, unsigned len)
{
    struct oracle_seq *seq = b->seq;
    static ZydisDecoder decoder;
    static bool ready;
    if (!ready)
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ready = true;
    if (!oracle_has_room(b))
        return false;
    struct oracle_insn *out = &seq->insn[seq->count];
    *out = (struct oracle_insn){.offset = (uint16_t)seq->len, .len = (uint8_t)len, .target = -1};
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, len, &insn, operands)) || insn.length != len)
        return false;
    uint8_t *guest_code = seq->guest_code + seq->len;
    if (!oracle_is_narrow(seq->mode))
        memcpy(guest_code, code, len);
    else if (!oracle_narrow(seq->mode, code, len, guest_code))
        return false;
    oracle_flags(&insn, operands, out);
    out->undefined_before = b->undefined;
    b->undefined = (b->undefined & ~out->defines) | out->undefines;
    forget_written(b, &insn, operands);
    memcpy(seq->code + seq->len, code, len);
    seq->len += len;
    seq->count++;
    return true;
}

bool oracle_append_hex(struct oracle_builder *b, const char *format, ...)
{
    uint8_t code[32];
    unsigned n = 0;
    if (b->seq->mode == ORACLE_CODE16)
        code[n++] = 0x3e;
    if (oracle_is_narrow(b->seq->mode))
        code[n++] = 0x67;
    va_list args;
    va_start(args, format);
    for (const char *p = format; *p && n + 8 < sizeof(code); p++) {
        if (*p == ' ')
            continue;
        if (*p != '%') {
            const char digits[3] = {p[0], p[1], 0};
            code[n++] = (uint8_t)strtoul(digits, NULL, 16);
            p++;
            continue;
        }
        unsigned size = *++p == 'b' ? 1 : *p == 'w' ? 2 : *p == 'd' ? 4 : 8;
        uint64_t v = size == 8 ? va_arg(args, uint64_t) : va_arg(args, uint32_t);
        memcpy(code + n, &v, size);
        n += size;
    }
    va_end(args);
    return oracle_append(b, code, n);
}

bool oracle_load(struct oracle_builder *b, unsigned reg, uint64_t value)
{
    bool done;
    if (value <= UINT32_MAX && reg < 8)
        done = oracle_append_hex(b, "%b %d", 0xb8 + reg, (uint32_t)value);
    else if (value <= UINT32_MAX)
        done = oracle_append_hex(b, "41 %b %d", 0xb8 + (reg & 7), (uint32_t)value);
    else
        done = oracle_append_hex(b, "%b %b %q", 0x48 + (reg >> 3), 0xb8 + (reg & 7), value);
    if (done) {
        b->known |= (uint16_t)(1u << reg);
        b->value[reg] = value;
    }
    return done;
}

bool oracle_define_flags(struct oracle_builder *b)
{
    unsigned x = oracle_below(&b->random, 8), y = oracle_below(&b->random, 8);
    return oracle_append_hex(b, oracle_is_narrow(b->seq->mode) ? "39 %b" : "48 39 %b",
                             0xc0 | x << 3 | y); /* cmp */
}

/* --- memory operands --- */

uint64_t oracle_target(struct oracle_builder *b, unsigned size, bool write, bool aligned)
{
    uint64_t *r = &b->random, w = b->window, a;
    unsigned kind = oracle_below(r, 100);
    if (!size)
        size = 1;
    if (kind < 64)
        a = w + 0x1000 - 64 + oracle_below(r, 320);
    else if (kind < 75)
        a = w + oracle_below(r, ORACLE_WINDOW - size);
    else if (kind < 86)
        a = w + 0x1000 - oracle_below(r, size) - (size == 1);
    else if (kind < 94)
        a = w + ORACLE_WINDOW + oracle_below(r, ORACLE_RO_SIZE - size);
    else if (kind < 97)
        a = w + ORACLE_WINDOW - oracle_below(r, size + 1);
    else if (kind < 98)
        a = w + ORACLE_WINDOW + ORACLE_RO_SIZE - oracle_below(r, size + 1);
    else if (kind < 99)
        a = w - oracle_below(r, size + 1);
    else
        a = w - oracle_below(r, ORACLE_HOLE);
    /* Most writes stay clear of the read-only page, or few sequences would get far. */
    if (write && kind >= 86 && oracle_percent(r, 85))
        a = w + oracle_below(r, ORACLE_WINDOW - size);
    return aligned ? a & ~(uint64_t)(size - 1) : a;
}

static bool known(const struct oracle_builder *b, unsigned reg)
{
    return b->known >> reg & 1;
}

/* Uses a register's known value: an initial one must then be the same in every pass. */
static uint64_t use(struct oracle_builder *b, unsigned reg)
{
    if (b->initial >> reg & 1)
        b->seq->fixed |= (uint16_t)(1u << reg);
    return b->value[reg];
}

static void set_mod(struct oracle_builder *b, struct draft *d)
{
    d->mod = 2;
    if (d->disp == 0 && (d->rm & 7) != 5 && oracle_percent(&b->random, 80))
        d->mod = 0;
    else if (d->disp >= -128 && d->disp < 128 && oracle_percent(&b->random, 80))
        d->mod = 1;
}

/* Tries base + index * scale + disp with registers of known value. */
static bool address_by_registers(struct oracle_builder *b, struct draft *d, uint64_t offset)
{
    for (unsigned tries = 0; tries < 12; tries++) {
        unsigned range = oracle_is_narrow(b->seq->mode) ? 8 : 16;
        unsigned base = oracle_below(&b->random, range), index = oracle_below(&b->random, range);
        bool with_index = oracle_percent(&b->random, 40), with_base = oracle_percent(&b->random, 92);
        if (!with_base)
            with_index = true;
        if ((with_base && !known(b, base)) || (with_index && (index == 4 || !known(b, index))))
            continue;
        unsigned scale = oracle_below(&b->random, 4);
        uint64_t rest = offset;
        if (with_base)
            rest -= b->value[base];
        if (with_index)
            rest -= b->value[index] << scale;
        if (d->address_size)
            rest = (uint64_t)(int32_t)rest;
        if ((int64_t)rest != (int32_t)rest)
            continue;
        if (with_base)
            use(b, base);
        if (with_index)
            use(b, index);
        d->base = with_base;
        d->rm = with_base ? (uint8_t)base : 5;
        d->index = with_index ? (uint8_t)index : 4;
        d->scale = (uint8_t)scale;
        d->sib = with_index || (base & 7) == 4 || oracle_percent(&b->random, 10);
        d->disp = (int32_t)rest;
        if (with_base)
            set_mod(b, d);
        else
            d->mod = 0;
        return true;
    }
    return false;
}

/* A memory operand at `target`, by whatever addressing mode can reach it. */
static void address(struct oracle_builder *b, struct draft *d, uint64_t target)
{
    uint64_t base = d->segment == 0x64 ? b->segment_base[0] : d->segment == 0x65 ? b->segment_base[1] : 0;
    d->memory = true;
    d->index = 4;
    d->target = target - base;
    if (oracle_percent(&b->random, 85) && address_by_registers(b, d, target - base))
        return;
    d->mod = 0;
    d->base = false;
    d->rm = 5;
    d->rip = oracle_percent(&b->random, 60) && !oracle_is_narrow(b->seq->mode);
    d->sib = !d->rip;
    d->disp = (int32_t)d->target;
}

/* An address that may be anything. */
static void wild_address(struct oracle_builder *b, struct draft *d)
{
    d->memory = d->base = true;
    unsigned range = oracle_is_narrow(b->seq->mode) ? 8 : 16;
    d->rm = (uint8_t)oracle_below(&b->random, range);
    d->index = (uint8_t)oracle_below(&b->random, range);
    d->scale = (uint8_t)oracle_below(&b->random, 4);
    d->sib = d->index != 4 || (d->rm & 7) == 4;
    d->disp = (int32_t)oracle_random(&b->random);
    set_mod(b, d);
    if (known(b, d->rm))
        use(b, d->rm);
    if (known(b, d->index))
        use(b, d->index);
}

/* --- putting the bytes together --- */

static unsigned put_modrm(const struct draft *d, uint8_t *code)
{
    unsigned n = 0;
    if (!d->memory) {
        code[n++] = (uint8_t)(0xc0 | (d->reg & 7) << 3 | (d->rm & 7));
        return n;
    }
    unsigned rm = d->rip ? 5 : d->sib ? 4 : d->rm & 7;
    code[n++] = (uint8_t)(d->mod << 6 | (d->reg & 7) << 3 | rm);
    if (d->sib && !d->rip)
        code[n++] = (uint8_t)(d->scale << 6 | (d->index & 7) << 3 | (d->base ? d->rm & 7 : 5));
    unsigned size = d->rip || d->mod == 2 || (d->sib && !d->base) ? 4 : d->mod == 1 ? 1 : 0;
    memcpy(code + n, &d->disp, size);
    return n + size;
}

static unsigned put_vex(struct oracle_builder *b, const struct draft *d, uint8_t *code)
{
    const struct oracle_form *f = &d->form;
    bool r = d->reg > 7, x = d->memory && d->sib && d->index > 7, bb = (!d->memory || d->base) && d->rm > 7;
    unsigned pp = f->mandatory == 0x66 ? 1 : f->mandatory == 0xf3 ? 2 : f->mandatory == 0xf2 ? 3 : 0;
    unsigned last = (~(f->vvvv ? d->vvvv : 0u) & 15) << 3 | (unsigned)f->l << 2 | pp;
    if (f->map == 1 && !x && !bb && !f->w && oracle_percent(&b->random, 70)) {
        code[0] = 0xc5;
        code[1] = (uint8_t)(!r << 7 | last);
        return 2;
    }
    code[0] = 0xc4;
    code[1] = (uint8_t)(!r << 7 | !x << 6 | !bb << 5 | f->map);
    code[2] = (uint8_t)(f->w << 7 | last);
    return 3;
}

static unsigned put_legacy(const struct draft *d, uint8_t *code)
{
    const struct oracle_form *f = &d->form;
    unsigned n = 0;
    if (d->lock)
        code[n++] = 0xf0;
    if (d->operand_size && f->mandatory != 0x66)
        code[n++] = 0x66;
    if (f->mandatory)
        code[n++] = f->mandatory;
    uint8_t rex =
        (uint8_t)(0x40 | f->w << 3 | (d->reg > 7) << 2 | (d->memory && d->sib && d->index > 7) << 1 |
                  ((!d->memory || d->base) && d->rm > 7));
    if (rex != 0x40 || d->rex)
        code[n++] = rex;
    if (f->map)
        code[n++] = 0x0f;
    if (f->map > 1)
        code[n++] = f->map == 2 ? 0x38 : 0x3a;
    return n;
}

/* Immediates that are more often interesting than not. */
static void put_immediate(struct oracle_builder *b, uint8_t *code, unsigned len)
{
    static const uint8_t bytes[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0x1f, 0x20, 0x3f};
    for (unsigned i = 0; i < len; i++)
        code[i] = (uint8_t)oracle_random(&b->random);
    if (oracle_percent(&b->random, 50))
        memset(code, bytes[oracle_below(&b->random, 8)], len);
    if (oracle_percent(&b->random, 20))
        code[0] = bytes[oracle_below(&b->random, 8)];
}

/* Returns the length, 0 when there is no such instruction. */
static unsigned encode(struct oracle_builder *b, struct draft *d, uint8_t *code,
                       ZydisDecodedInstruction *insn, ZydisDecodedOperand *operands)
{
    unsigned n = 0, disp_at = 0;
    enum oracle_group group;
    for (unsigned i = 0; i < d->prefix_count; i++)
        code[n++] = d->prefix[i];
    if (d->segment)
        code[n++] = d->segment;
    if (d->address_size)
        code[n++] = 0x67;
    n += d->form.vex ? put_vex(b, d, code + n) : put_legacy(d, code + n);
    code[n++] = d->form.opcode;
    if (d->form.modrm) {
        n += put_modrm(d, code + n);
        disp_at = n - 4;
    } else if (d->form.memory) { /* moffs */
        memcpy(code + n, &d->target, 8);
        n += d->address_size ? 4 : 8;
    }
    put_immediate(b, code + n, 32 - n);
    if (!oracle_decode(code, 15, b->seq->mode, insn, operands, &group))
        return 0;
    if (d->memory && d->rip) {
        uint64_t next = b->seq->base + b->seq->len + insn->length;
        uint32_t disp = (uint32_t)(d->target - next);
        memcpy(code + disp_at, &disp, 4);
    }
    return insn->length;
}

/* The size of the explicit memory operand, and whether it is written. */
static unsigned memory_size(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operands,
                            bool *write)
{
    *write = false;
    for (unsigned i = 0; i < insn->operand_count_visible; i++)
        if (operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            *write = operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
            return operands[i].size / 8;
        }
    return 0;
}

/* Pointers that an instruction uses without naming them (strings, XLAT, MASKMOV, the stack) get values that
 * hit. */
static bool prepare_hidden(struct oracle_builder *b, const ZydisDecodedInstruction *insn,
                           const ZydisDecodedOperand *operands)
{
    for (unsigned i = 0; i < insn->operand_count; i++) {
        const ZydisDecodedOperand *op = &operands[i];
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            continue;
        unsigned reg = gpr_number(op->mem.base);
        if (reg > 15)
            continue;
        /* Whether bytes that are not stored may fault is the processor's choice. */
        bool masked = reg == R_RDI && insn->meta.category != ZYDIS_CATEGORY_STRINGOP;
        if (masked && !oracle_load(b, reg, b->window + oracle_below(&b->random, ORACLE_WINDOW - 16)))
            return false;
        if (masked || oracle_percent(&b->random, 2))
            continue;
        bool near_window = known(b, reg) && b->value[reg] - b->window < ORACLE_WINDOW;
        if (near_window && oracle_percent(&b->random, 70)) {
            use(b, reg);
            continue;
        }
        bool stack = reg == R_RSP || reg == R_RBP;
        uint64_t at = oracle_target(b, op->size / 8, op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE, stack);
        if (stack && oracle_percent(&b->random, 90))
            at = b->window + 0xf00 + 8 * oracle_below(&b->random, 64);
        if (!oracle_load(b, reg, at))
            return false;
    }
    return true;
}

/* Registers, prefixes and addressing of a draft whose form is set. */
static void choose_operands(struct oracle_builder *b, struct draft *d)
{
    const struct oracle_form *f = &d->form;
    uint64_t *r = &b->random;
    bool narrow = oracle_is_narrow(b->seq->mode);
    unsigned range = oracle_percent(r, 60) && !narrow ? 16 : 8;
    d->reg = f->modrm_reg >= 0 ? (uint8_t)f->modrm_reg : (uint8_t)oracle_below(r, range);
    d->rm = f->modrm_rm >= 0 ? (uint8_t)f->modrm_rm : (uint8_t)oracle_below(r, range);
    /* RSP as an operand loses the stack; now and then that is wanted. */
    if (f->modrm_reg < 0 && d->reg == R_RSP && oracle_percent(r, 80))
        d->reg = R_RBX;
    if (f->modrm_rm < 0 && d->rm == R_RSP && oracle_percent(r, 80))
        d->rm = R_RCX;
    d->vvvv = (uint8_t)oracle_below(r, narrow ? 8 : 16);
    if (d->vvvv == R_RSP)
        d->vvvv = R_RDI;
    d->memory = f->memory;
    if (narrow) {
        d->address_size = true;
        if (b->seq->mode == ORACLE_CODE16)
            d->prefix[d->prefix_count++] = 0x3e;
        return;
    }
    d->rex = oracle_percent(r, 10);
    if (!f->vex && !f->w && f->group == GROUP_STACK)
        d->form.w = oracle_percent(r, 5);
    if (oracle_percent(r, 4))
        d->prefix[d->prefix_count++] = (uint8_t[]){0x2e, 0x3e, 0x26, 0x36}[oracle_below(r, 4)];
    if (!f->memory)
        return;
    d->address_size = oracle_percent(r, 7);
    if (oracle_percent(r, 12))
        d->segment = oracle_percent(r, 50) ? 0x64 : 0x65;
}

static bool emit_draft(struct oracle_builder *b, struct draft *d)
{
    uint8_t code[48];
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    /* A first look at it, with a dummy address, tells the operand's size. */
    struct draft look = *d;
    look.rm = d->memory ? R_RBX : d->rm;
    look.base = true;
    look.index = 4;
    if (!encode(b, &look, code, &insn, operands))
        return false;
    bool write = false;
    unsigned size = memory_size(&insn, operands, &write);
    if (!prepare_hidden(b, &insn, operands) || !oracle_has_room(b))
        return false;
    /* A bit number in a register reaches up to 2^60 bytes away. */
    bool bit_string = d->memory && d->form.map == 1 && (d->form.opcode & 0xe7) == 0xa3;
    if (bit_string && oracle_percent(&b->random, 95) &&
        !oracle_load(b, d->reg, (uint64_t)((int64_t)oracle_below(&b->random, 4000) - 1000)))
        return false;
    if (d->memory && oracle_percent(&b->random, 1))
        wild_address(b, d);
    else if (d->memory)
        address(
            b, d,
            oracle_target(b, size, write, oracle_percent(&b->random, size >= 16 && size <= 32 ? 80 : 30)));
    unsigned len = encode(b, d, code, &insn, operands);
    if (!len)
        return false;
    struct oracle_insn flags;
    oracle_flags(&insn, operands, &flags);
    if ((flags.reads & b->undefined) && (!oracle_define_flags(b) || d->rip))
        return false;
    return oracle_append(b, code, len);
}

bool oracle_emit_form(struct oracle_builder *b, const struct oracle_form *form)
{
    if (!form)
        return false;
    struct draft d = {.form = *form};
    choose_operands(b, &d);
    /* The list was made without LOCK; the decoder knows where it may stand. */
    if (form->memory && !form->vex && form->group == GROUP_INTEGER && oracle_percent(&b->random, 30)) {
        struct draft locked = d;
        locked.lock = true;
        if (emit_draft(b, &locked))
            return true;
    }
    return emit_draft(b, &d);
}

bool oracle_emit_repeated(struct oracle_builder *b, const struct oracle_form *form, uint8_t repeat)
{
    struct draft d = {.form = *form, .prefix = {repeat}, .prefix_count = 1};
    choose_operands(b, &d);
    return emit_draft(b, &d);
}

bool oracle_wrote(const struct oracle_builder *b, const struct oracle_mark *mark, unsigned reg)
{
    for (unsigned i = mark->count; i < b->seq->count; i++)
        if (b->written[i] >> reg & 1)
            return true;
    return false;
}

bool oracle_emit_random(struct oracle_builder *b)
{
    static const uint8_t prefixes[] = {0x66, 0xf2, 0xf3, 0x2e, 0x3e, 0x26, 0x36, 0x64, 0x65, 0xf0};
    uint64_t *r = &b->random;
    bool narrow = oracle_is_narrow(b->seq->mode);
    for (unsigned tries = 0; tries < 200; tries++) {
        struct draft d = {
            .form = {.vex = oracle_percent(r, 25), .modrm_reg = -1, .modrm_rm = -1, .group = GROUP_SSE}};
        struct oracle_form *f = &d.form;
        f->map = (uint8_t)(oracle_below(r, 3) + (f->vex || oracle_percent(r, 30)));
        f->opcode = (uint8_t)oracle_random(r);
        f->mandatory = (uint8_t[]){0, 0, 0x66, 0xf2, 0xf3}[oracle_below(r, 5)];
        f->w = oracle_percent(r, 30) && !(narrow && !f->vex);
        f->l = oracle_percent(r, 50);
        f->vvvv = oracle_percent(r, 50);
        f->modrm = true;
        f->memory = oracle_percent(r, 50);
        choose_operands(b, &d);
        for (unsigned i = 0; i < 2 && !f->vex && !narrow; i++)
            if (oracle_percent(r, 15)) {
                uint8_t p = prefixes[oracle_below(r, sizeof(prefixes))];
                if (p == 0x64 || p == 0x65)
                    d.segment = p;
                else
                    d.prefix[d.prefix_count++] = p;
            }
        if (emit_draft(b, &d))
            return true;
    }
    return false;
}
