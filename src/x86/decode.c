/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Decoding by Zydis into struct x86_insn: the only file that knows Zydis's types. */
#include "x86/decode.h"

#include <stdio.h>

#include <Zydis/Zydis.h>

#include "base/util.h"

static bool decoder_for(ZydisDecoder *decoder, unsigned mode)
{
    switch (mode) {
    case 64:
        return ZYAN_SUCCESS(ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64));
    case 32:
        return ZYAN_SUCCESS(
            ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32));
    default:
        return ZYAN_SUCCESS(ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16));
    }
}

/* Number of a general-purpose register, whatever its width; REG_NONE for others. *high: AH CH DH BH. */
static uint8_t gpr_number(ZydisRegister reg, bool *high)
{
    *high = false;
    ZyanI8 id = ZydisRegisterGetId(reg);
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
        if (id < 4)
            return (uint8_t)id;
        *high = id < 8;
        return (uint8_t)(id - 4); /* AH..BH: 0..3; SPL..R15B: 4..15 */
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return (uint8_t)id;
    default:
        return REG_NONE;
    }
}

static uint8_t segment_number(ZydisRegister reg)
{
    switch (reg) {
    case ZYDIS_REGISTER_ES:
        return SEG_ES;
    case ZYDIS_REGISTER_CS:
        return SEG_CS;
    case ZYDIS_REGISTER_SS:
        return SEG_SS;
    case ZYDIS_REGISTER_DS:
        return SEG_DS;
    case ZYDIS_REGISTER_FS:
        return SEG_FS;
    case ZYDIS_REGISTER_GS:
        return SEG_GS;
    default:
        return SEG_NONE;
    }
}

static uint8_t address_register(ZydisRegister reg)
{
    bool high;
    if (reg == ZYDIS_REGISTER_NONE)
        return REG_NONE;
    if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_IP)
        return REG_PC;
    uint8_t n = gpr_number(reg, &high);
    return n != REG_NONE ? n : (uint8_t)ZydisRegisterGetId(reg);
}

static struct x86_field *field_of(struct x86_insn *insn, ZydisOperandEncoding encoding)
{
    switch (encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        return &insn->reg;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        return &insn->rm;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        return &insn->vvvv;
    case ZYDIS_OPERAND_ENCODING_OPCODE:
        return &insn->opreg;
    default:
        return NULL;
    }
}

static void take_register(struct x86_insn *insn, const ZydisDecodedOperand *op)
{
    ZydisRegisterClass cls = ZydisRegisterGetClass(op->reg.value);
    insn->x87 |= cls == ZYDIS_REGCLASS_MMX || cls == ZYDIS_REGCLASS_X87;
    bool high;
    bool read = op->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    bool written = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    uint8_t n = gpr_number(op->reg.value, &high);
    struct x86_field *field =
        op->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT ? field_of(insn, op->encoding) : NULL;
    if (field)
        *field = (struct x86_field){
            .kind = n == REG_NONE ? FIELD_OTHER
                    : high        ? FIELD_GPR_HIGH
                                  : FIELD_GPR,
            .reg = n == REG_NONE ? (uint8_t)ZydisRegisterGetId(op->reg.value) : n,
            .size = (uint8_t)(op->size / 8),
            .read = read,
            .written = written,
        };
    if (n == REG_NONE)
        return;
    /* A write of less than 32 bits, or one that may not happen, keeps the rest of the register. */
    if (read || (written && (op->size < 32 || (op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE))))
        insn->gpr_read |= (uint16_t)(1u << n);
    if (written)
        insn->gpr_written |= (uint16_t)(1u << n);
}

static bool is_cache_hint(const ZydisDecodedInstruction *zi)
{
    return zi->meta.category == ZYDIS_CATEGORY_PREFETCH || zi->meta.category == ZYDIS_CATEGORY_PREFETCHWT1 ||
           zi->meta.category == ZYDIS_CATEGORY_NOP || zi->meta.category == ZYDIS_CATEGORY_WIDENOP ||
           zi->meta.category == ZYDIS_CATEGORY_CLDEMOTE;
}

static void take_address_registers(struct x86_insn *insn, const ZydisDecodedOperand *op)
{
    uint8_t base = address_register(op->mem.base), index = address_register(op->mem.index);
    if (base < 16)
        insn->gpr_read |= (uint16_t)(1u << base);
    if (index < 16 && op->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
        insn->gpr_read |= (uint16_t)(1u << index);
}

static void take_memory(struct x86_insn *insn, const ZydisDecodedInstruction *zi,
                        const ZydisDecodedOperand *op)
{
    take_address_registers(insn, op);
    if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
        insn->hidden_mem = true;
        return;
    }
    struct x86_mem *mem = &insn->mem;
    if (mem->present) { /* a second one: string instructions name both */
        insn->hidden_mem = true;
        return;
    }
    mem->present = true;
    mem->vsib = op->mem.type == ZYDIS_MEMOP_TYPE_VSIB;
    mem->accessed = (op->mem.type == ZYDIS_MEMOP_TYPE_MEM || mem->vsib) && !is_cache_hint(zi);
    mem->read = mem->accessed && (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ);
    mem->written = mem->accessed && (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
    mem->seg = segment_number(op->mem.segment);
    mem->base = address_register(op->mem.base);
    mem->index = address_register(op->mem.index);
    mem->scale = op->mem.scale ? op->mem.scale : 1;
    mem->disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
    if ((zi->attributes & ZYDIS_ATTRIB_HAS_SIB) && zi->raw.modrm.mod == 0 && (zi->raw.sib.base & 7) == 5) {
        /* No base but a displacement; Zydis 4.0 sees R13D in it, when REX.B is set and the address size is 4.
         */
        mem->base = REG_NONE;
        mem->disp = zi->raw.disp.value;
    }
    mem->size = (uint16_t)(op->size / 8);
    switch (zi->mnemonic) {
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
        mem->size = 1;
        mem->read = true;
        break;
    default:
        break;
    }
    if (insn->mode == 64 && mem->seg != SEG_FS && mem->seg != SEG_GS)
        mem->seg = mem->seg == SEG_SS ? SEG_SS : SEG_DS; /* overrides of the flat ones mean nothing */
}

static void take_prefixes(struct x86_insn *insn, const ZydisDecodedInstruction *zi)
{
    for (unsigned i = 0; i < zi->raw.prefix_count; i++) {
        uint8_t value = zi->raw.prefixes[i].value;
        bool mandatory = zi->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY;
        if (mandatory && zi->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
            (value == 0x66 || value == 0xf2 || value == 0xf3))
            insn->mandatory = value;
        else if (value == 0x66)
            insn->opsize_prefix = true;
    }
    insn->lock = zi->attributes & ZYDIS_ATTRIB_HAS_LOCK;
    insn->rep = zi->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE);
    insn->repne = zi->attributes & ZYDIS_ATTRIB_HAS_REPNE;
}

static void take_encoding(struct x86_insn *insn, const ZydisDecodedInstruction *zi)
{
    insn->map = (uint8_t)zi->opcode_map;
    insn->opcode = zi->opcode;
    if (zi->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
        insn->has_modrm = true;
        insn->modrm = (uint8_t)(zi->raw.modrm.mod << 6 | zi->raw.modrm.reg << 3 | zi->raw.modrm.rm);
    }
    const uint8_t *raw = insn->bytes;
    switch (zi->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        insn->encoding = ENC_VEX;
        insn->rex_w = zi->raw.vex.W;
        if (raw[zi->raw.vex.offset] == 0xc5) { /* two-byte form */
            insn->vex[0] = (uint8_t)((raw[zi->raw.vex.offset + 1] & 0x80) | 0x61);
            insn->vex[1] = raw[zi->raw.vex.offset + 1] & 0x7f;
        } else {
            insn->vex[0] = raw[zi->raw.vex.offset + 1];
            insn->vex[1] = raw[zi->raw.vex.offset + 2];
        }
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        insn->encoding = ENC_EVEX;
        insn->rex_w = zi->raw.evex.W;
        for (unsigned i = 0; i < 3; i++)
            insn->vex[i] = raw[zi->raw.evex.offset + 1 + i];
        break;
    case ZYDIS_INSTRUCTION_ENCODING_XOP:
        insn->encoding = ENC_XOP;
        break;
    case ZYDIS_INSTRUCTION_ENCODING_3DNOW:
        insn->encoding = ENC_3DNOW;
        break;
    default:
        insn->encoding = ENC_LEGACY;
        insn->rex_w = zi->raw.rex.W;
        break;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (!zi->raw.imm[i].size)
            continue;
        insn->imm[insn->imm_count] = zi->raw.imm[i].value.s;
        insn->imm_len[insn->imm_count++] = zi->raw.imm[i].size / 8;
        if (zi->raw.imm[i].is_relative)
            insn->imm_relative = true;
    }
}

/* Sign-extends unsigned immediates too, so that imm[] always reads as it was encoded. */
static void normalise_immediates(struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->imm_count; i++) {
        unsigned shift = 64 - 8u * insn->imm_len[i];
        if (shift < 64)
            insn->imm[i] = (int64_t)((uint64_t)insn->imm[i] << shift) >> shift;
    }
}

static void take_flags(struct x86_insn *insn, const ZydisDecodedInstruction *zi)
{
    const ZydisAccessedFlags *f = zi->cpu_flags;
    if (!f)
        return;
    insn->flags_read = f->tested;
    uint32_t written = (f->modified | f->set_0 | f->set_1 | f->undefined);
    bool shift = zi->meta.category == ZYDIS_CATEGORY_SHIFT || zi->meta.category == ZYDIS_CATEGORY_ROTATE;
    bool by_constant = insn->imm_count && (insn->imm[0] & (insn->opsize == 8 ? 63 : 31));
    bool by_one = insn->encoding == ENC_LEGACY && insn->map == 0 && (insn->opcode & 0xfe) == 0xd0;
    /* Shifts by zero and REP with a zero count leave the flags alone. */
    if ((shift && insn->encoding == ENC_LEGACY && !by_constant && !by_one) || insn->rep || insn->repne)
        insn->flags_maybe = written;
    else
        insn->flags_written = written;
}

enum x86_decode_result x86_decode(struct x86_insn *insn, const uint8_t *code, size_t len, unsigned mode)
{
    static const uint8_t mode_bits[] = {[ZYDIS_CATEGORY_COND_BR] = 1,
                                        [ZYDIS_CATEGORY_UNCOND_BR] = 1,
                                        [ZYDIS_CATEGORY_CALL] = 1,
                                        [ZYDIS_CATEGORY_RET] = 1};
    ZydisDecoder decoder;
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    size_t avail = MIN(len, (size_t)X86_INSN_MAX);
    *insn = (struct x86_insn){.mode = (uint8_t)mode};
    insn->reg.reg = insn->rm.reg = insn->vvvv.reg = insn->opreg.reg = REG_NONE;
    insn->mem.base = insn->mem.index = REG_NONE;
    insn->mem.seg = SEG_NONE;
    if (!decoder_for(&decoder, mode))
        return DECODE_INVALID;
    ZyanStatus status = ZydisDecoderDecodeFull(&decoder, code, avail, &zi, ops);
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return len >= X86_INSN_MAX ? DECODE_TOO_LONG : DECODE_MORE;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return DECODE_TOO_LONG;
    if (!ZYAN_SUCCESS(status))
        return DECODE_INVALID;
    insn->mnemonic = (uint16_t)zi.mnemonic;
    insn->len = zi.length;
    memcpy(insn->bytes, code, zi.length);
    insn->opsize = zi.operand_width / 8;
    insn->addrsize = zi.address_width / 8;
    insn->category = (uint8_t)zi.meta.category;
    insn->isa_ext = (uint8_t)zi.meta.isa_ext;
    insn->isa_set = (uint16_t)zi.meta.isa_set;
    insn->branch = zi.meta.category < ARRAY_SIZE(mode_bits) && mode_bits[zi.meta.category];
    take_prefixes(insn, &zi);
    take_encoding(insn, &zi);
    normalise_immediates(insn);
    for (unsigned i = 0; i < zi.operand_count; i++) {
        if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
            take_register(insn, &ops[i]);
        else if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            take_memory(insn, &zi, &ops[i]);
    }
    take_flags(insn, &zi);
    return DECODE_OK;
}

void x86_format(const uint8_t *code, size_t len, unsigned mode, uint64_t rip, char *out, size_t out_size)
{
    static const ZydisMachineMode modes[] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                                             ZYDIS_MACHINE_MODE_LONG_64};
    ZydisDisassembledInstruction text;
    ZydisMachineMode m = modes[mode == 64 ? 2 : mode == 32 ? 1 : 0];
    if (ZYAN_SUCCESS(ZydisDisassembleIntel(m, rip, code, MIN(len, (size_t)X86_INSN_MAX), &text)))
        snprintf(out, out_size, "%s", text.text);
    else
        snprintf(out, out_size, "(invalid)");
}
