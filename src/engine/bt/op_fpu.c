/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions that save and restore x87, SSE and AVX state, and what happens to the others while the FPU is
 * off (SDM vol. 1 chapters 8 and 13, vol. 2). The host's own instructions do the work on the live registers;
 * images that go into registers are checked in a private copy first, as a bad one would fault in the engine.
 * The pointers to the last x87 instruction and operand are the host's: guests see zeros. gpr-only.
 *
 * Outside 64-bit mode only the first eight vector registers take part: such images are merged with
 * cpu->xsave.
 */
#include <Zydis/MetaInfo.h>

#include "base/util.h"
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"
#include "engine/bt/vec.h"

#define FXSAVE_SIZE  512u
#define COMPACTED    BIT(63)
#define LEGACY_BYTES 128u /* of eight vector registers */

enum save_kind { SAVE_FX, SAVE_X, SAVE_XC, SAVE_XOPT };

static bool gp(struct bt_cpu *cpu)
{
    return bt_raise_error(cpu, VEC_GP, 0);
}

/* ---- what is allowed ---- */

static bool fx_allowed(struct bt_cpu *cpu)
{
    return cpu->cr0 & (CR0_EM | CR0_TS) ? bt_raise(cpu, VEC_NM) : true;
}

static bool xsave_allowed(struct bt_cpu *cpu)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return bt_raise(cpu, VEC_UD);
    return cpu->cr0 & CR0_TS ? bt_raise(cpu, VEC_NM) : true;
}

static bool touches_mmx(const struct x86_insn *in)
{
    return in->isa_ext == ZYDIS_ISA_EXT_MMX || in->isa_set == ZYDIS_ISA_SET_SSE2MMX ||
           in->isa_set == ZYDIS_ISA_SET_SSSE3MMX;
}

/* Unmasked x87 exceptions wait to be reported. */
static bool x87_pending(const struct bt_cpu *cpu)
{
    uint16_t fsw = load_le16(cpu->xsave + XS_FSW);
    if (cpu->vec_live)
        __asm__ volatile("fnstsw %0" : "=a"(fsw));
    return fsw & FSW_ES;
}

static bool op_fwait(struct bt_cpu *cpu, const struct bt_op *op)
{
    if ((cpu->cr0 & CR0_MP) && (cpu->cr0 & CR0_TS))
        return bt_raise(cpu, VEC_NM);
    return x87_pending(cpu) ? bt_raise(cpu, VEC_MF) : bt_op_next(cpu, op);
}

bool bt_op_no_fpu(struct bt_cpu *cpu, const struct bt_op *op)
{
    const struct x86_insn *in = &op->insn;
    if (in->mnemonic == ZYDIS_MNEMONIC_FWAIT)
        return op_fwait(cpu, op);
    if (in->isa_ext == ZYDIS_ISA_EXT_X87)
        return bt_raise(cpu, VEC_NM);
    bool vex = in->encoding == ENC_VEX;
    bool off =
        vex ? !(cpu->mode & MODE_AVX) : (cpu->cr0 & CR0_EM) || (!touches_mmx(in) && !(cpu->cr4 & CR4_OSFXSR));
    return bt_raise(cpu, off || !(cpu->cr0 & CR0_TS) ? VEC_UD : VEC_NM);
}

/* ---- images in guest memory ---- */

/* Checks the operand of `len` bytes, aligned to `align`; gives its linear address. */
static bool area_linear(struct bt_cpu *cpu, const struct bt_op *op, unsigned len, unsigned align,
                        unsigned access, uint64_t *lin)
{
    uint64_t ea = bt_effective_address(cpu, &op->insn);
    if (!bt_seg_linear(cpu, op->insn.mem.seg, ea, len, access, lin))
        return false;
    return *lin & (align - 1) ? gp(cpu) : true;
}

/* Host address of [lin, lin + len) when that is RAM within one page; else NULL, with cpu->exc on a fault. */
static uint8_t *area_direct(struct bt_cpu *cpu, uint64_t lin, unsigned len, unsigned access)
{
    if ((lin & (GUEST_PAGE_SIZE - 1)) + len > GUEST_PAGE_SIZE)
        return NULL;
    return bt_host_ptr(cpu, lin, access);
}

static void copy_words(void *to, const void *from, uint64_t bytes)
{
    uint64_t words = bytes / 8;
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

static bool area_read(struct bt_cpu *cpu, uint64_t lin, uint8_t *image, unsigned len, unsigned access)
{
    const uint8_t *direct = area_direct(cpu, lin, len, access);
    if (direct)
        copy_words(image, direct, len);
    else if (cpu->exc.pending || !bt_read_lin(cpu, lin, image, len, access))
        return false;
    return true;
}

static void scrub_pointers(uint8_t *image)
{
    store_le16(image + XS_FOP, 0);
    store_le64(image + XS_FIP, 0);
    store_le64(image + XS_FDP, 0);
}

/* ---- saving ---- */

static void make_live(struct bt_cpu *cpu)
{
    if (!cpu->vec_live)
        bt_vec_load(cpu);
}

static void host_save(enum save_kind kind, uint8_t *area, uint64_t rfbm)
{
    uint32_t mask = (uint32_t)rfbm;
    switch (kind) {
    case SAVE_FX:
        __asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
        break;
    case SAVE_X:
        __asm__ volatile("xsave64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
        break;
    case SAVE_XC:
        __asm__ volatile("xsavec64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
        break;
    case SAVE_XOPT:
        __asm__ volatile("xsaveopt64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
        break;
    }
    bool skips_initial = kind == SAVE_XC || kind == SAVE_XOPT;
    if ((rfbm & XSTATE_X87) && (!skips_initial || (load_le64(area + XS_BV) & XSTATE_X87)))
        scrub_pointers(area);
}

/* Outside 64-bit mode: the upper eight registers' places stay as they were in memory. */
static void host_save_low(enum save_kind kind, uint8_t *area, uint64_t rfbm, bool avx)
{
    uint8_t xmm[LEGACY_BYTES], ymm[LEGACY_BYTES];
    copy_words(xmm, area + XS_XMM + LEGACY_BYTES, LEGACY_BYTES);
    if (avx)
        copy_words(ymm, area + XS_AVX + LEGACY_BYTES, LEGACY_BYTES);
    host_save(kind, area, rfbm);
    copy_words(area + XS_XMM + LEGACY_BYTES, xmm, LEGACY_BYTES);
    if (avx)
        copy_words(area + XS_AVX + LEGACY_BYTES, ymm, LEGACY_BYTES);
}

static bool save_area(struct bt_cpu *cpu, const struct bt_op *op, enum save_kind kind, uint64_t rfbm)
{
    uint8_t image[XS_END] __attribute__((aligned(64)));
    bool avx = kind != SAVE_FX && (rfbm & XSTATE_AVX);
    unsigned len = kind == SAVE_FX ? FXSAVE_SIZE : avx ? XS_END : XS_AVX;
    uint64_t lin;
    if (!area_linear(cpu, op, len, kind == SAVE_FX ? 16 : 64, BT_WRITE, &lin))
        return false;
    uint8_t *direct = bt_code64(cpu) ? area_direct(cpu, lin, len, BT_WRITE) : NULL;
    if (cpu->exc.pending)
        return false;
    if (direct) {
        make_live(cpu);
        host_save(kind, direct, rfbm);
        return bt_op_next(cpu, op);
    }
    if (!bt_read_lin(cpu, lin, image, len, BT_WRITE)) /* what saving leaves alone */
        return false;
    make_live(cpu);
    if (bt_code64(cpu))
        host_save(kind, image, rfbm);
    else
        host_save_low(kind, image, rfbm, avx);
    return bt_write_lin(cpu, lin, image, len, BT_WRITE) && bt_op_next(cpu, op);
}

static bool op_fxsave(struct bt_cpu *cpu, const struct bt_op *op)
{
    return fx_allowed(cpu) && save_area(cpu, op, SAVE_FX, XSTATE_X87 | XSTATE_SSE);
}

/* Components that EDX:EAX asks for. */
static uint64_t requested(const struct bt_cpu *cpu)
{
    uint64_t asked = (uint64_t)(uint32_t)cpu->gpr[R_RDX] << 32 | (uint32_t)cpu->gpr[R_RAX];
    return asked & cpu->xcr0;
}

static bool op_xsave(struct bt_cpu *cpu, const struct bt_op *op)
{
    return xsave_allowed(cpu) && save_area(cpu, op, SAVE_X, requested(cpu));
}

static bool op_xsavec(struct bt_cpu *cpu, const struct bt_op *op)
{
    return xsave_allowed(cpu) && save_area(cpu, op, SAVE_XC, requested(cpu));
}

static bool op_xsaveopt(struct bt_cpu *cpu, const struct bt_op *op)
{
    return xsave_allowed(cpu) && save_area(cpu, op, SAVE_XOPT, requested(cpu));
}

/* ---- restoring ---- */

/* An image that is to be loaded: which components, and from where. */
struct restore {
    uint8_t *image;
    uint64_t rfbm;    /* components to load or initialise */
    uint64_t present; /* of them those that the image holds */
    bool compacted;
};

static void merge_registers(uint8_t *to, const uint8_t *from, bool present)
{
    if (present)
        copy_words(to, from, LEGACY_BYTES);
    else
        for (unsigned i = 0; i < LEGACY_BYTES; i += 8)
            store_le64(to + i, 0);
}

static void merge_x87(uint8_t *area, const uint8_t *image, bool present)
{
    store_le64(area, present ? load_le64(image) : FCW_DEFAULT);
    merge_registers(area + XS_ST, image + XS_ST, present);
    scrub_pointers(area);
}

/* Outside 64-bit mode: into cpu->xsave, but for the upper eight registers. */
static void restore_low(struct bt_cpu *cpu, const struct restore *r)
{
    bt_vec_save(cpu);
    uint8_t *area = cpu->xsave;
    if (r->rfbm & XSTATE_X87)
        merge_x87(area, r->image, r->present & XSTATE_X87);
    if (r->rfbm & XSTATE_SSE)
        merge_registers(area + XS_XMM, r->image + XS_XMM, r->present & XSTATE_SSE);
    if (r->rfbm & XSTATE_AVX)
        merge_registers(area + XS_AVX, r->image + XS_AVX, r->present & XSTATE_AVX);
    if (r->compacted ? r->rfbm & XSTATE_SSE : r->rfbm & (XSTATE_SSE | XSTATE_AVX)) {
        bool load = !r->compacted || (r->present & XSTATE_SSE);
        store_le32(area + XS_MXCSR, load ? load_le32(r->image + XS_MXCSR) : MXCSR_DEFAULT);
    }
    store_le64(area + XS_BV, load_le64(area + XS_BV) | r->rfbm);
}

/* Whether loading the image would load MXCSR. */
static bool loads_mxcsr(const struct restore *r)
{
    return r->compacted ? r->present & XSTATE_SSE : r->rfbm & (XSTATE_SSE | XSTATE_AVX);
}

/* #GP for reserved bits where MXCSR counts; harmless where it does not. */
static bool settle_mxcsr(struct bt_cpu *cpu, const struct restore *r)
{
    bool bad = load_le32(r->image + XS_MXCSR) & ~bt_mxcsr_mask();
    if (bad && loads_mxcsr(r))
        return gp(cpu);
    if (bad)
        store_le32(r->image + XS_MXCSR, MXCSR_DEFAULT);
    return true;
}

static bool op_fxrstor(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint8_t image[FXSAVE_SIZE] __attribute__((aligned(64)));
    const uint64_t both = XSTATE_X87 | XSTATE_SSE;
    struct restore r = {.image = image, .rfbm = both, .present = both};
    uint64_t lin;
    if (!fx_allowed(cpu) || !area_linear(cpu, op, FXSAVE_SIZE, 16, BT_READ, &lin) ||
        !area_read(cpu, lin, image, FXSAVE_SIZE, BT_READ) || !settle_mxcsr(cpu, &r))
        return false;
    scrub_pointers(image);
    if (bt_code64(cpu)) {
        make_live(cpu);
        __asm__ volatile("fxrstor64 (%0)" : : "r"(image) : "memory");
    } else {
        restore_low(cpu, &r);
    }
    return bt_op_next(cpu, op);
}

/* The rules for an XSAVE header (SDM vol. 1 section 13.8); makes it one that the host takes, too. */
static bool take_header(struct bt_cpu *cpu, struct restore *r)
{
    uint64_t bv = load_le64(r->image + XS_BV), comp = load_le64(r->image + XS_COMP_BV), reserved = 0;
    r->compacted = comp & COMPACTED;
    unsigned first = XS_COMP_BV + 8, end = r->compacted ? XS_AVX : XS_BV + 24;
    for (unsigned i = first; i < end; i += 8)
        reserved |= load_le64(r->image + i);
    uint64_t unknown = ~cpu->xcr0;
    if (reserved || (bv & unknown))
        return gp(cpu);
    if (r->compacted) {
        bool offered = cpu->engine->config.cpu->xsave_features & BIT(1);
        if (!offered || (comp & ~COMPACTED & unknown) || (bv & ~comp))
            return gp(cpu);
    } else if (comp) {
        return gp(cpu);
    }
    for (unsigned i = end; i < XS_AVX; i += 8)
        store_le64(r->image + i, 0);
    r->present = bv & r->rfbm;
    return true;
}

static bool op_xrstor(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint8_t image[XS_END] __attribute__((aligned(64)));
    struct restore r = {.image = image, .rfbm = requested(cpu)};
    uint64_t lin;
    if (!xsave_allowed(cpu) || !area_linear(cpu, op, XS_AVX, 64, BT_READ, &lin) ||
        !area_read(cpu, lin, image, XS_AVX, BT_READ) || !take_header(cpu, &r) || !settle_mxcsr(cpu, &r))
        return false;
    bool avx = r.present & XSTATE_AVX;
    if (avx && (!area_linear(cpu, op, XS_END, 64, BT_READ, &lin) ||
                !area_read(cpu, lin + XS_AVX, image + XS_AVX, XS_END - XS_AVX, BT_READ)))
        return false;
    scrub_pointers(image);
    if (!bt_code64(cpu)) {
        restore_low(cpu, &r);
        return bt_op_next(cpu, op);
    }
    make_live(cpu);
    uint32_t mask = (uint32_t)r.rfbm;
    __asm__ volatile("xrstor64 (%0)" : : "r"(image), "a"(mask), "d"(0) : "memory");
    return bt_op_next(cpu, op);
}

/* ---- x87 environments ---- */

#define ENV_MAX 108u

/* Pointers and opcode within an environment of the 16- or 32-bit format; the formats of real mode agree in
 * zeros. */
static void scrub_environment(uint8_t *env, bool wide)
{
    if (wide) {
        store_le32(env + 12, 0);
        store_le64(env + 16, 0);
        store_le16(env + 24, 0);
    } else {
        store_le64(env + 6, 0);
    }
}

/* The image that FNSAVE or FNSTENV writes; the live state is changed as they do it. */
static void host_store_environment(uint8_t *env, bool whole, bool wide)
{
    if (whole && wide)
        __asm__ volatile("fnsave (%0)" : : "r"(env) : "memory");
    else if (whole)
        __asm__ volatile(".byte 0x66\n\tfnsave (%0)" : : "r"(env) : "memory");
    else if (wide)
        __asm__ volatile("fnstenv (%0)" : : "r"(env) : "memory");
    else
        __asm__ volatile(".byte 0x66\n\tfnstenv (%0)" : : "r"(env) : "memory");
    scrub_environment(env, wide);
}

static void host_load_environment(const uint8_t *env, bool whole, bool wide)
{
    if (whole && wide)
        __asm__ volatile("frstor (%0)" : : "r"(env) : "memory");
    else if (whole)
        __asm__ volatile(".byte 0x66\n\tfrstor (%0)" : : "r"(env) : "memory");
    else if (wide)
        __asm__ volatile("fldenv (%0)" : : "r"(env) : "memory");
    else
        __asm__ volatile(".byte 0x66\n\tfldenv (%0)" : : "r"(env) : "memory");
}

/* Heavy: cpu->xsave keeps the state from before until the image is known to fit into guest memory. */
static bool store_environment(struct bt_cpu *cpu, const struct bt_op *op, bool whole)
{
    uint8_t env[ENV_MAX];
    const struct x86_insn *in = &op->insn;
    bool wide = in->opsize != 2;
    if (!fx_allowed(cpu))
        return false;
    bt_vec_load(cpu);
    host_store_environment(env, whole, wide);
    bt_vec_discard(cpu);
    if (!bt_write_seg(cpu, in->mem.seg, bt_effective_address(cpu, in), env, in->mem.size))
        return false;
    bt_vec_load(cpu);
    host_store_environment(env, whole, wide);
    return bt_op_next(cpu, op);
}

static bool load_environment(struct bt_cpu *cpu, const struct bt_op *op, bool whole)
{
    uint8_t env[ENV_MAX];
    const struct x86_insn *in = &op->insn;
    bool wide = in->opsize != 2;
    if (!fx_allowed(cpu))
        return false;
    if (x87_pending(cpu))
        return bt_raise(cpu, VEC_MF);
    if (!bt_read_seg(cpu, in->mem.seg, bt_effective_address(cpu, in), env, in->mem.size))
        return false;
    scrub_environment(env, wide);
    make_live(cpu);
    host_load_environment(env, whole, wide);
    return bt_op_next(cpu, op);
}

static bool op_fnsave(struct bt_cpu *cpu, const struct bt_op *op)
{
    return store_environment(cpu, op, true);
}

static bool op_fnstenv(struct bt_cpu *cpu, const struct bt_op *op)
{
    return store_environment(cpu, op, false);
}

static bool op_frstor(struct bt_cpu *cpu, const struct bt_op *op)
{
    return load_environment(cpu, op, true);
}

static bool op_fldenv(struct bt_cpu *cpu, const struct bt_op *op)
{
    return load_environment(cpu, op, false);
}

const struct bt_op_entry bt_ops_fpu[] = {
    {.mnemonic = ZYDIS_MNEMONIC_FWAIT, .fn = op_fwait},
    {.mnemonic = ZYDIS_MNEMONIC_FXSAVE, .fn = op_fxsave},
    {.mnemonic = ZYDIS_MNEMONIC_FXSAVE64, .fn = op_fxsave},
    {.mnemonic = ZYDIS_MNEMONIC_FXRSTOR, .fn = op_fxrstor},
    {.mnemonic = ZYDIS_MNEMONIC_FXRSTOR64, .fn = op_fxrstor},
    {.mnemonic = ZYDIS_MNEMONIC_XSAVE, .fn = op_xsave},
    {.mnemonic = ZYDIS_MNEMONIC_XSAVE64, .fn = op_xsave},
    {.mnemonic = ZYDIS_MNEMONIC_XSAVEC, .fn = op_xsavec},
    {.mnemonic = ZYDIS_MNEMONIC_XSAVEC64, .fn = op_xsavec},
    {.mnemonic = ZYDIS_MNEMONIC_XSAVEOPT, .fn = op_xsaveopt},
    {.mnemonic = ZYDIS_MNEMONIC_XSAVEOPT64, .fn = op_xsaveopt},
    {.mnemonic = ZYDIS_MNEMONIC_XRSTOR, .fn = op_xrstor},
    {.mnemonic = ZYDIS_MNEMONIC_XRSTOR64, .fn = op_xrstor},
    {.mnemonic = ZYDIS_MNEMONIC_FNSAVE, .fn = op_fnsave, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_FRSTOR, .fn = op_frstor, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_FNSTENV, .fn = op_fnstenv, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_FLDENV, .fn = op_fldenv, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VGATHERDPS, .fn = bt_op_gather, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VGATHERDPD, .fn = bt_op_gather, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VGATHERQPS, .fn = bt_op_gather, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VGATHERQPD, .fn = bt_op_gather, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VPGATHERDD, .fn = bt_op_gather, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VPGATHERDQ, .fn = bt_op_gather, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VPGATHERQD, .fn = bt_op_gather, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VPGATHERQQ, .fn = bt_op_gather, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VMASKMOVPS, .opcode = 0x22c, .fn = bt_op_maskmov_load, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VMASKMOVPS, .opcode = 0x22e, .fn = bt_op_maskmov_store, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VMASKMOVPD, .opcode = 0x22d, .fn = bt_op_maskmov_load, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VMASKMOVPD, .opcode = 0x22f, .fn = bt_op_maskmov_store, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VPMASKMOVD, .opcode = 0x28c, .fn = bt_op_maskmov_load, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VPMASKMOVD, .opcode = 0x28e, .fn = bt_op_maskmov_store, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VPMASKMOVQ, .opcode = 0x28c, .fn = bt_op_maskmov_load, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VPMASKMOVQ, .opcode = 0x28e, .fn = bt_op_maskmov_store, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_MASKMOVDQU, .fn = bt_op_maskmovdqu, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VMASKMOVDQU, .fn = bt_op_maskmovdqu, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_MASKMOVQ, .fn = bt_op_maskmovq, .heavy = true},
    {0},
};
