/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions that run as they are: put together again with renamed registers and with [T0] as memory
 * operand. What an instruction may do is decided by allow-lists: nothing privileged, nothing that leaves the
 * block, no hidden memory.
 */
#include <Zydis/Zydis.h>

#include "base/util.h"
#include "engine/bt/translate.h"

static bool native_category(uint8_t category)
{
    switch (category) {
    case ZYDIS_CATEGORY_ADOX_ADCX:
    case ZYDIS_CATEGORY_AES:
    case ZYDIS_CATEGORY_AVX:
    case ZYDIS_CATEGORY_AVX2:
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_BLEND:
    case ZYDIS_CATEGORY_BMI1:
    case ZYDIS_CATEGORY_BMI2:
    case ZYDIS_CATEGORY_BROADCAST:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_FCMOV:
    case ZYDIS_CATEGORY_GFNI:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_LOGICAL_FP:
    case ZYDIS_CATEGORY_LZCNT:
    case ZYDIS_CATEGORY_MMX:
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_PCLMULQDQ:
    case ZYDIS_CATEGORY_PREFETCH:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_SEMAPHORE:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHA:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_SSE:
    case ZYDIS_CATEGORY_STTNI:
    case ZYDIS_CATEGORY_VAES:
    case ZYDIS_CATEGORY_VFMA:
    case ZYDIS_CATEGORY_VPCLMULQDQ:
    case ZYDIS_CATEGORY_WIDENOP:
    case ZYDIS_CATEGORY_X87_ALU:
    case ZYDIS_CATEGORY_CLFLUSHOPT:
    case ZYDIS_CATEGORY_CLWB:
        return true;
    default:
        return false;
    }
}

/* Members of other categories that are harmless. */
static bool native_extra(uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_CMC:
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_VZEROALL:
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_CRC32:
        return true;
    default:
        return false;
    }
}

/* Members of the native categories that are not: they touch more than registers and one operand, or need
 * care. */
static bool never_native(uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_SALC:
        return true;
    default:
        return false;
    }
}

bool tr_is_native(const struct x86_insn *insn)
{
    if (insn->hidden_mem || insn->branch || insn->mem.vsib || never_native(insn->mnemonic))
        return false;
    if (insn->encoding != ENC_LEGACY && insn->encoding != ENC_VEX)
        return false;
    if (insn->map == 0 && (insn->opcode == 0x8c || insn->opcode == 0x8e)) /* segment registers */
        return false;
    if (insn->map == 1 && insn->encoding == ENC_LEGACY && insn->opcode >= 0x20 && insn->opcode <= 0x26)
        return false; /* control and debug registers */
    if (insn->mem.accessed && (insn->mem.size == 0 || insn->mem.size > 64))
        return false;
    return native_category(insn->category) || native_extra(insn->mnemonic);
}

bool tr_is_avx(const struct x86_insn *insn)
{
    return (insn->encoding == ENC_VEX && insn->isa_ext != ZYDIS_ISA_EXT_BMI1 &&
            insn->isa_ext != ZYDIS_ISA_EXT_BMI2) ||
           insn->encoding == ENC_EVEX;
}

bool tr_is_sse(const struct x86_insn *insn)
{
    switch (insn->isa_ext) {
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_SHA:
    case ZYDIS_ISA_EXT_GFNI:
        break;
    default:
        return false;
    }
    switch (insn->mnemonic) { /* neither need nor touch vector state */
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return false;
    default:
        return true;
    }
}

bool tr_is_fpu(const struct x86_insn *insn)
{
    return insn->isa_ext == ZYDIS_ISA_EXT_X87 || insn->isa_ext == ZYDIS_ISA_EXT_MMX || tr_is_sse(insn) ||
           tr_is_avx(insn) || insn->mnemonic == ZYDIS_MNEMONIC_EMMS;
}

/* How the fields of the instruction end up in host registers. */
struct rename {
    uint8_t reg, rm, vvvv, opreg; /* host register of each FIELD_GPR */
    const struct host_mem *mem;   /* the memory operand, or NULL */
    struct {
        uint8_t guest, host;
    } loaded[4]; /* memory-homed registers in temporaries */
    unsigned loaded_count;
    uint8_t borrowed[BT_SPILLS]; /* host registers whose guest value is in cpu->spill[i] */
    unsigned borrowed_count;
};

/* A host register that the instruction does not use; its guest value goes to cpu->spill. */
static uint8_t borrow(struct tr *t, struct rename *r, const struct x86_insn *insn, const uint8_t *pool,
                      unsigned n)
{
    uint16_t used = insn->gpr_read | insn->gpr_written;
    for (unsigned i = 0; i < n; i++) {
        bool taken = false;
        for (unsigned j = 0; j < r->borrowed_count; j++)
            taken |= r->borrowed[j] == pool[i];
        if (taken || (used & BIT(pool[i])))
            continue;
        emit_store(&t->e, 8, CPU_AT(offsetof(struct bt_cpu, spill) + 8u * r->borrowed_count), pool[i]);
        r->borrowed[r->borrowed_count++] = pool[i];
        return pool[i];
    }
    t->e.full = true; /* cannot be: an instruction names at most seven registers */
    return T1;
}

/* Registers that are the same in guest and host: low ones need no REX prefix. */
static const uint8_t low_pool[] = {H_RSI, H_RDI, H_RBP, H_RBX, H_RDX, H_RCX, H_RAX};
static const uint8_t high_pool[] = {H_R12, H_R13, H_R14, H_R15, H_R8, H_RBX, H_RBP};

static uint8_t place(struct tr *t, struct rename *r, const struct x86_insn *insn, const struct x86_field *f,
                     bool low)
{
    if (f->kind != FIELD_GPR)
        return H_NONE;
    uint8_t host = bt_host_reg[f->reg];
    if (host != H_NONE && !(low && host >= 8))
        return host;
    for (unsigned i = 0; i < r->loaded_count; i++)
        if (r->loaded[i].guest == f->reg)
            return r->loaded[i].host;
    uint8_t temp;
    bool t0_used = tr_uses(r->mem, T0), t1_used = tr_uses(r->mem, T1);
    for (unsigned i = 0; i < r->loaded_count; i++) {
        t0_used |= r->loaded[i].host == T0;
        t1_used |= r->loaded[i].host == T1;
    }
    if (low)
        temp = borrow(t, r, insn, low_pool, ARRAY_SIZE(low_pool));
    else if (!t1_used)
        temp = tr_scratch(t);
    else if (!t0_used)
        temp = T0;
    else
        temp = borrow(t, r, insn, high_pool, ARRAY_SIZE(high_pool));
    if (host != H_NONE)
        emit_mov(&t->e, 8, temp, host);
    else
        emit_load(&t->e, 8, temp, CPU_GPR(f->reg));
    r->loaded[r->loaded_count].guest = f->reg;
    r->loaded[r->loaded_count++].host = temp;
    return temp;
}

static void write_back(struct tr *t, const struct rename *r, const struct x86_insn *insn)
{
    for (unsigned i = 0; i < r->loaded_count; i++) {
        uint8_t guest = r->loaded[i].guest;
        if (!(insn->gpr_written & BIT(guest)))
            continue;
        if (bt_host_reg[guest] != H_NONE)
            emit_mov(&t->e, 8, bt_host_reg[guest], r->loaded[i].host);
        else
            emit_store(&t->e, 8, CPU_GPR(guest), r->loaded[i].host);
    }
    for (unsigned i = 0; i < r->borrowed_count; i++)
        emit_load(&t->e, 8, r->borrowed[i], CPU_AT(offsetof(struct bt_cpu, spill) + 8u * i));
}

/* Number that goes into a register field, four bits. */
static uint8_t number(const struct x86_field *f, uint8_t host)
{
    if (f->kind == FIELD_GPR)
        return host;
    if (f->kind == FIELD_GPR_HIGH)
        return f->reg + 4;
    return 0;
}

static bool wants_rex(const struct x86_field *f, uint8_t host)
{
    return f->kind == FIELD_GPR && f->size == 1 && host >= 4 && host < 8;
}

/* Whether the copy needs an operand size prefix: 64-bit mode's default is 4 bytes. */
static bool wants_66(const struct x86_insn *insn)
{
    if (insn->mandatory == 0x66)
        return true;
    if (insn->mode != 16)
        return insn->opsize_prefix && insn->opsize == 2;
    bool word = (insn->reg.kind == FIELD_GPR && insn->reg.size == 2) ||
                (insn->rm.kind == FIELD_GPR && insn->rm.size == 2) ||
                (insn->opreg.kind == FIELD_GPR && insn->opreg.size == 2);
    return insn->opsize == 2 && (word || insn->isa_ext == ZYDIS_ISA_EXT_BASE);
}

static uint8_t modrm_reg(const struct x86_insn *insn, const struct rename *r)
{
    switch (insn->reg.kind) {
    case FIELD_NONE:
        return (insn->modrm >> 3) & 7;
    case FIELD_OTHER:
        return insn->reg.reg & 15;
    default:
        return number(&insn->reg, r->reg);
    }
}

static uint8_t modrm_rm(const struct x86_insn *insn, const struct rename *r)
{
    switch (insn->rm.kind) {
    case FIELD_NONE:
        return insn->modrm & 7;
    case FIELD_OTHER:
        return insn->rm.reg & 15;
    default:
        return number(&insn->rm, r->rm);
    }
}

static void emit_legacy(struct tr *t, const struct x86_insn *insn, const struct rename *r)
{
    struct emitter *e = &t->e;
    uint8_t opcode = insn->opcode, reg = 0, rm = 0;
    bool modrm = insn->has_modrm;
    if (insn->lock)
        emit_u8(e, 0xf0);
    if (wants_66(insn))
        emit_u8(e, 0x66);
    if (insn->mandatory == 0xf2 || insn->mandatory == 0xf3)
        emit_u8(e, insn->mandatory);
    uint8_t rex = insn->rex_w ? 8 : 0;
    bool force =
        wants_rex(&insn->reg, r->reg) || wants_rex(&insn->rm, r->rm) || wants_rex(&insn->opreg, r->opreg);
    if (insn->map == 0 && opcode >= 0xa0 && opcode <= 0xa3) { /* MOV with absolute address */
        opcode = (uint8_t)(0x88 | (opcode & 1) | (opcode < 0xa2 ? 2 : 0));
        modrm = true;
    } else if (modrm) {
        reg = modrm_reg(insn, r);
        rm = modrm_rm(insn, r);
    } else if (insn->map == 0 && insn->mode != 64 && opcode >= 0x40 && opcode <= 0x4f) { /* INC, DEC */
        reg = opcode >= 0x48;
        opcode = 0xff;
        rm = r->opreg;
        modrm = true;
    } else if (insn->opreg.kind != FIELD_NONE) {
        uint8_t n = number(&insn->opreg, r->opreg);
        opcode = (uint8_t)((opcode & ~7) | (n & 7));
        rex |= n >= 8 ? 1 : 0;
    }
    if (insn->map == 0 && opcode == 0x82)
        opcode = 0x80;
    if (modrm)
        rex |= (uint8_t)((reg >= 8 ? 4 : 0) | (r->mem ? emit_mem_rex(*r->mem) : rm >= 8 ? 1 : 0));
    if (rex || force)
        emit_u8(e, 0x40 | rex);
    if (insn->map)
        emit_u8(e, 0x0f);
    if (insn->map >= 2)
        emit_u8(e, insn->map == 2 ? 0x38 : 0x3a);
    emit_u8(e, opcode);
    if (modrm && r->mem)
        emit_mem(e, reg, *r->mem);
    else if (modrm)
        emit_u8(e, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

static void emit_vex(struct tr *t, const struct x86_insn *insn, const struct rename *r)
{
    struct emitter *e = &t->e;
    uint8_t reg = modrm_reg(insn, r), rm = r->mem ? 0 : modrm_rm(insn, r);
    uint8_t rex = r->mem ? emit_mem_rex(*r->mem) : rm >= 8 ? 1 : 0;
    uint8_t second = insn->vex[1];
    if (insn->vvvv.kind == FIELD_GPR)
        second = (uint8_t)((second & 0x87) | (~r->vvvv & 15) << 3);
    emit_u8(e, 0xc4);
    emit_u8(e, (uint8_t)((insn->vex[0] & 0x1f) | (reg >= 8 ? 0 : 0x80) | (rex & 2 ? 0 : 0x40) |
                         (rex & 1 ? 0 : 0x20)));
    emit_u8(e, second);
    emit_u8(e, insn->opcode);
    if (!insn->has_modrm) /* VZEROALL, VZEROUPPER */
        return;
    if (r->mem)
        emit_mem(e, reg, *r->mem);
    else
        emit_u8(e, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

void tr_emit_native(struct tr *t, const struct x86_insn *insn, const struct host_mem *mem)
{
    struct host_mem low_mem;
    struct rename r = {.mem = mem};
    t->native_flags_host = t->flags_host;
    t->native_flags_saved = t->flags_saved;
    t->native_producer = t->producer;
    bool low = insn->reg.kind == FIELD_GPR_HIGH || insn->rm.kind == FIELD_GPR_HIGH ||
               insn->opreg.kind == FIELD_GPR_HIGH;
    if (low && mem) { /* AH and the like cannot be named with a REX prefix, which T0 and T1 need */
        low_mem = MEM_AT(borrow(t, &r, insn, low_pool, ARRAY_SIZE(low_pool)));
        emit_lea(&t->e, 8, low_mem.base, *mem);
        r.mem = &low_mem;
    }
    r.reg = place(t, &r, insn, &insn->reg, low);
    r.rm = place(t, &r, insn, &insn->rm, low);
    r.vvvv = place(t, &r, insn, &insn->vvvv, low);
    r.opreg = place(t, &r, insn, &insn->opreg, low);
    if (insn->encoding == ENC_VEX)
        emit_vex(t, insn, &r);
    else
        emit_legacy(t, insn, &r);
    bool moffs =
        insn->encoding == ENC_LEGACY && insn->map == 0 && insn->opcode >= 0xa0 && insn->opcode <= 0xa3;
    for (unsigned i = 0; i < insn->imm_count && !moffs; i++)
        emit_bytes(&t->e, (const uint8_t *)&insn->imm[i], insn->imm_len[i]);
    t->native_borrowed_count = (uint8_t)r.borrowed_count;
    memcpy(t->native_borrowed, r.borrowed, sizeof(r.borrowed));
    write_back(t, &r, insn);
}

/* Legacy SSE operands of 16 bytes and the aligned VEX moves: SDM vol. 2 tables 2-21 and 2-22. */
static bool wants_alignment(const struct x86_insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        return true;
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return false;
    default:
        return insn->encoding == ENC_LEGACY && insn->mem.size == 16 && tr_is_sse(insn) &&
               insn->isa_ext != ZYDIS_ISA_EXT_SHA; /* processors differ: theirs is decided by the host */
    }
}

/* Waiting x87 and MMX instructions report an unmasked exception that an earlier one left. */
static bool reports_x87(const struct x86_insn *insn)
{
    return insn->mnemonic != ZYDIS_MNEMONIC_FNSTCW && insn->mnemonic != ZYDIS_MNEMONIC_FNSTSW &&
           (insn->x87 || insn->isa_ext == ZYDIS_ISA_EXT_X87);
}

static uint32_t describe(const struct tr *t, const struct x86_insn *insn)
{
    return DESC(tr_this_off(t), insn->mem.size, insn->mem.written, insn->mem.seg) |
           (insn->mem.read ? DESC_READ : 0) | (wants_alignment(insn) ? DESC_ALIGNED : 0) |
           (reports_x87(insn) ? DESC_X87 : 0);
}

/* Whether it reads status flags or leaves some as they were. */
static bool needs_flags(const struct x86_insn *insn)
{
    uint32_t touched = (insn->flags_written | insn->flags_maybe) & FLAGS_STATUS;
    return (insn->flags_read & FLAGS_STATUS) ||
           (touched && (insn->flags_written & FLAGS_STATUS) != FLAGS_STATUS);
}

static void after_flags(struct tr *t, const struct x86_insn *insn)
{
    if ((insn->flags_written | insn->flags_maybe) & FLAGS_STATUS) {
        t->flags_host = true;
        t->flags_saved = false;
        t->producer = (int)t->i;
    }
}

/* The memory operand by way of C: slow mode, and segments that are not flat. */
static void native_checked(struct tr *t, const struct x86_insn *insn)
{
    struct emitter *e = &t->e;
    if (!t->flags_host && !t->flags_saved) {
        tr_regen_flags(t);
        t->flags_host = true;
    }
    tr_need_saved_flags(t);
    t->flags_host = false;
    tr_address(t, insn);
    emit_mov_imm(e, tr_scratch(t), describe(t, insn));
    emit_call_to(e, t->engine->thunks.callout[CALLOUT_PRE]);
    const struct host_mem mem = MEM_AT(T0);
    if (needs_flags(insn))
        tr_need_host_flags(t, &mem);
    tr_emit_native(t, insn, &mem);
    after_flags(t, insn);
    if (!insn->mem.written)
        return;
    tr_need_saved_flags(t);
    t->flags_host = false;
    emit_mov_imm(e, T1, (uint64_t)tr_next_off(t));
    emit_call_to(e, t->engine->thunks.callout[CALLOUT_POST]);
}

void tr_native(struct tr *t, const struct x86_insn *insn)
{
    if (insn->mem.present && insn->mem.accessed && !tr_direct_mem(t, insn)) {
        native_checked(t, insn);
        return;
    }
    struct host_mem operand;
    const struct host_mem *mem = NULL;
    if (insn->mem.present && insn->mem.accessed) {
        operand = tr_mem_desc(t, TR_OPERAND, describe(t, insn) & (DESC_ALIGNED | DESC_X87));
        mem = &operand;
    }
    if (needs_flags(insn))
        tr_need_host_flags(t, mem);
    tr_emit_native(t, insn, mem);
    after_flags(t, insn);
}

void tr_lea(struct tr *t, const struct x86_insn *insn)
{
    struct x86_insn plain = *insn;
    plain.mem.seg = SEG_DS; /* LEA ignores segments */
    tr_address(t, &plain);
    uint8_t host = bt_host_reg[insn->reg.reg];
    if (insn->opsize == 2) {
        if (host == H_NONE) {
            emit_op_mem(&t->e, 0x89, 2, T0, CPU_GPR(insn->reg.reg));
            return;
        }
        emit_mov(&t->e, 2, host, T0);
        return;
    }
    if (host != H_NONE) {
        emit_mov(&t->e, insn->opsize, host, T0);
        return;
    }
    if (insn->opsize == 4)
        emit_mov(&t->e, 4, T0, T0);
    emit_store(&t->e, 8, CPU_GPR(insn->reg.reg), T0);
}

/* BT, BTS, BTR, BTC with a bit number in a register: the number reaches beyond the operand. */
void tr_bit_string(struct tr *t, const struct x86_insn *insn)
{
    struct emitter *e = &t->e;
    unsigned size = insn->opsize, bits = size * 8;
    struct x86_insn plain = *insn;
    plain.mem.seg = SEG_DS; /* the segment's base comes last, after the offset has wrapped */
    bool direct = tr_direct_mem(t, insn),
         based = direct && (insn->mem.seg == SEG_FS || insn->mem.seg == SEG_GS);
    tr_clobber_flags(t);
    tr_address(t, &plain);
    uint8_t number_reg = tr_gpr(t, insn->reg.reg, T1);
    if (size == 2) { /* movsx */
        emit_bytes(e,
                   (const uint8_t[]){0x4c | (number_reg >= 8), 0x0f, 0xbf,
                                     (uint8_t)(0xc0 | (T1 & 7) << 3 | (number_reg & 7))},
                   4);
    } else if (size == 4) {
        emit_op_reg(e, 0x63, 8, T1, number_reg); /* movsxd */
    } else {
        emit_mov(e, 8, T1, number_reg);
    }
    emit_shift(e, SHIFT_SAR, 8, T1, (uint8_t)__builtin_ctz(bits));
    emit_lea(e, insn->addrsize == 8 ? 8 : 4, T0, (struct host_mem){T0, T1, (uint8_t)size, 0});
    if (insn->addrsize == 2)
        emit_bytes(e, (const uint8_t[]){0x45, 0x0f, 0xb7, 0xd2}, 4); /* movzx t0d, t0w */
    bool written = insn->mem.written;
    if (based) {
        emit_load(e, 8, T1, CPU_AT(offsetof(struct bt_cpu, seg_base) + 8u * insn->mem.seg));
        emit_lea(e, 8, T0, (struct host_mem){T0, T1, 1, 0});
    }
    if (direct) {
        tr_check(t, size, written, insn->mem.seg);
    } else {
        emit_mov_imm(e, T1, DESC(tr_this_off(t), size, written, insn->mem.seg) | DESC_READ);
        emit_call_to(e, t->engine->thunks.callout[CALLOUT_PRE]);
    }
    emit_mov(e, 4, T1, tr_gpr(t, insn->reg.reg, T1));
    emit_alu_imm(e, ALU_AND, 4, T1, (int32_t)(bits - 1));
    emit_store(e, 8, CPU(spill), T1);
    t->flags_host = false;
    tr_need_host_flags(t, NULL); /* all but CF stay */
    emit_load(e, 8, T1, CPU(spill));
    if (insn->lock)
        emit_u8(e, 0xf0);
    if (size == 2)
        emit_u8(e, 0x66);
    emit_u8(e, (uint8_t)(0x45 | (size == 8 ? 8 : 0))); /* REX.R T1, REX.B T0 */
    emit_u8(e, 0x0f);
    emit_u8(e, insn->opcode);
    emit_mem(e, T1, MEM_AT(T0));
    t->flags_host = true;
    t->flags_saved = false;
    t->producer = (int)t->i;
    if (written && !direct) {
        tr_need_saved_flags(t);
        t->flags_host = false;
        emit_mov_imm(e, T1, (uint64_t)tr_next_off(t));
        emit_call_to(e, t->engine->thunks.callout[CALLOUT_POST]);
    }
}
