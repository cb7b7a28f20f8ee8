/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control registers, address-space flushes and XCR0 (SDM vol. 3 section 2.5, vol. 2 under MOV). The TLB keeps
 * no PCIDs: a change of address space forgets what is not global. gpr-only.
 */
#include "base/util.h"
#include "engine/bt/lapic.h"
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

#define PCID_MASK   UINT64_C(0xfff)
#define CR3_NOFLUSH BIT(63)

#define CR4_ALWAYS                                                                                           \
    (CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT |      \
     CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)

static bool gp(struct bt_cpu *cpu)
{
    return bt_raise_error(cpu, VEC_GP, 0);
}

/* ---- CR0 ---- */

/* Loads the four PAE page-directory-pointer entries that CR3 points at. False: reserved bits. */
static bool load_pdptes(struct bt_cpu *cpu, uint64_t cr3)
{
    const struct engine_config *config = &cpu->engine->config;
    uint64_t entry[4] = {0}, reserved = ~(BIT(config->cpu->phys_bits) - 1) | 0x1e6;
    bt_vec_save(cpu);
    const uint8_t *table = guest_ptr(config->memory, cr3 & 0xffffffe0, sizeof(entry), false);
    for (unsigned i = 0; i < 4; i++) {
        if (table)
            entry[i] = load_le64(table + 8 * i);
        if ((entry[i] & 1) && (entry[i] & reserved))
            return false;
    }
    for (unsigned i = 0; i < 4; i++)
        cpu->pdpte[i] = entry[i];
    return true;
}

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

/* Turning paging on or off moves the processor into or out of long mode. False: #GP. */
static bool check_paging_switch(struct bt_cpu *cpu, uint64_t cr0, uint64_t *efer)
{
    bool on = cr0 & CR0_PG;
    if (on && (*efer & EFER_LME)) {
        uint32_t tr = cpu->seg[SEG_TR].attr;
        bool tss16 =
            !(tr & ATTR_UNUSABLE) && ((tr & ATTR_TYPE) == DESC_TSS16 || (tr & ATTR_TYPE) == DESC_TSS16_BUSY);
        if (!(cpu->cr4 & CR4_PAE) || (cpu->seg[SEG_CS].attr & ATTR_L) || tss16)
            return false;
        *efer |= EFER_LMA;
    } else if (!on) {
        if (bt_code64(cpu) || (cpu->cr4 & CR4_PCIDE))
            return false;
        *efer &= ~EFER_LMA;
    }
    return true;
}

static bool set_cr0(struct bt_cpu *cpu, uint64_t value)
{
    const uint64_t known =
        CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
    if ((value >> 32) || ((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return gp(cpu);
    uint64_t cr0 = (value & known) | CR0_ET, changed = cr0 ^ cpu->cr0, efer = cpu->efer;
    if ((changed & CR0_PG) && !check_paging_switch(cpu, cr0, &efer))
        return gp(cpu);
    bool reload = changed & (CR0_PG | CR0_CD | CR0_NW);
    if (reload && pae_paging(cr0, cpu->cr4, efer) && !load_pdptes(cpu, cpu->cr3))
        return gp(cpu);
    cpu->cr0 = cr0;
    cpu->efer = efer;
    if (changed & (CR0_PG | CR0_PE | CR0_WP))
        bt_tlb_flush(cpu, true);
    bt_mode_update(cpu);
    return true;
}

/* ---- CR3 and CR4 ---- */

bool bt_cr3_load(struct bt_cpu *cpu, uint64_t value)
{
    if (pae_paging(cpu->cr0, cpu->cr4, cpu->efer) && !load_pdptes(cpu, value))
        return gp(cpu);
    cpu->cr3 = value;
    bt_tlb_flush(cpu, false);
    return true;
}

static bool set_cr3(struct bt_cpu *cpu, uint64_t value)
{
    bool keep = false;
    if (cpu->cr4 & CR4_PCIDE) {
        keep = value & CR3_NOFLUSH;
        value &= ~CR3_NOFLUSH;
    }
    if (bt_long_mode(cpu) && (value >> cpu->engine->config.cpu->phys_bits))
        return gp(cpu);
    if (keep && value == cpu->cr3)
        return true;
    return bt_cr3_load(cpu, value);
}

static bool cr4_allowed(struct bt_cpu *cpu, uint64_t value)
{
    uint64_t allowed = CR4_ALWAYS;
    if (cpu->engine->config.cpu->xcr0_mask & 2)
        allowed |= CR4_OSXSAVE;
    if (value & ~allowed)
        return false;
    if (bt_long_mode(cpu) && !(value & CR4_PAE))
        return false;
    bool pcid_on = (value & CR4_PCIDE) && !(cpu->cr4 & CR4_PCIDE);
    return !pcid_on || (bt_long_mode(cpu) && !(cpu->cr3 & PCID_MASK));
}

static bool set_cr4(struct bt_cpu *cpu, uint64_t value)
{
    if (!cr4_allowed(cpu, value))
        return gp(cpu);
    uint64_t changed = value ^ cpu->cr4;
    bool reload = changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP);
    if (reload && pae_paging(cpu->cr0, value, cpu->efer) && !load_pdptes(cpu, cpu->cr3))
        return gp(cpu);
    cpu->cr4 = value;
    if (changed & (CR4_PGE | CR4_PAE | CR4_PSE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
        bt_tlb_flush(cpu, true);
    bt_mode_update(cpu);
    return true;
}

static bool write_cr(struct bt_cpu *cpu, unsigned number, uint64_t value)
{
    switch (number) {
    case 0:
        return set_cr0(cpu, value);
    case 2:
        cpu->cr2 = value;
        return true;
    case 3:
        return set_cr3(cpu, value);
    case 4:
        return set_cr4(cpu, value);
    case 8:
        if (value > 15)
            return gp(cpu);
        bt_lapic_set_cr8(cpu->lapic, value);
        return true;
    default:
        return bt_raise(cpu, VEC_UD);
    }
}

/* In 64-bit mode MOV to and from these registers has 64-bit operands, else 32-bit ones. */
static unsigned mov_size(const struct bt_cpu *cpu)
{
    return bt_code64(cpu) ? 8 : 4;
}

static bool op_mov_to_cr(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (cpu->cpl)
        return gp(cpu);
    uint64_t value = bt_zext(cpu->gpr[op->insn.rm.reg & 15], mov_size(cpu));
    return write_cr(cpu, op->insn.reg.reg, value) && bt_op_next(cpu, op);
}

static bool op_mov_from_cr(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t value;
    if (cpu->cpl)
        return gp(cpu);
    switch (op->insn.reg.reg) {
    case 0:
        value = cpu->cr0;
        break;
    case 2:
        value = cpu->cr2;
        break;
    case 3:
        value = cpu->cr3;
        break;
    case 4:
        value = cpu->cr4;
        break;
    case 8:
        value = bt_lapic_cr8(cpu->lapic);
        break;
    default:
        return bt_raise(cpu, VEC_UD);
    }
    bt_gpr_write(cpu, op->insn.rm.reg & 15, mov_size(cpu), value);
    return bt_op_next(cpu, op);
}

static bool op_lmsw(struct bt_cpu *cpu, const struct bt_op *op)
{
    const uint64_t low = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    uint64_t value;
    if (cpu->cpl)
        return gp(cpu);
    if (!bt_rm_read(cpu, op, 2, &value))
        return false;
    value = (cpu->cr0 & ~low) | (value & low) | (cpu->cr0 & CR0_PE); /* PE can't be cleared */
    return set_cr0(cpu, value) && bt_op_next(cpu, op);
}

static bool op_smsw(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (cpu->cpl && (cpu->cr4 & CR4_UMIP))
        return gp(cpu);
    unsigned size = op->insn.mem.present ? 2 : op->insn.opsize;
    return bt_rm_write(cpu, op, size, cpu->cr0) && bt_op_next(cpu, op);
}

static bool op_clts(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (cpu->cpl)
        return gp(cpu);
    cpu->cr0 &= ~CR0_TS;
    bt_mode_update(cpu);
    return bt_op_next(cpu, op);
}

/* ---- flushes ---- */

static bool op_invlpg(struct bt_cpu *cpu, const struct bt_op *op)
{
    const struct x86_mem *mem = &op->insn.mem;
    if (cpu->cpl)
        return gp(cpu);
    uint64_t lin = cpu->seg[mem->seg].base + bt_effective_address(cpu, &op->insn);
    if (bt_code64(cpu) && mem->seg != SEG_FS && mem->seg != SEG_GS)
        lin = bt_effective_address(cpu, &op->insn);
    bt_tlb_flush_page(cpu, bt_zext(lin, bt_code64(cpu) ? 8 : 4));
    return bt_op_next(cpu, op);
}

static bool op_invpcid(struct bt_cpu *cpu, const struct bt_op *op)
{
    enum { ONE_ADDRESS, ONE_CONTEXT, ALL_AND_GLOBAL, ALL };
    uint64_t descriptor[2], type = bt_zext(cpu->gpr[op->insn.reg.reg & 15], mov_size(cpu));
    if (cpu->cpl || (cpu->sysflags & FLAG_VM) || type > ALL)
        return gp(cpu);
    if (!bt_read_seg(cpu, op->insn.mem.seg, bt_effective_address(cpu, &op->insn), descriptor,
                     sizeof(descriptor)))
        return false;
    uint64_t pcid = descriptor[0];
    if ((pcid & ~PCID_MASK) || (type <= ONE_CONTEXT && pcid && !(cpu->cr4 & CR4_PCIDE)))
        return gp(cpu);
    if (type == ONE_ADDRESS) {
        if (!bt_canonical(descriptor[1]))
            return gp(cpu);
        bt_tlb_flush_page(cpu, descriptor[1]);
    } else {
        bt_tlb_flush(cpu, type == ALL_AND_GLOBAL);
    }
    return bt_op_next(cpu, op);
}

/* Caches are coherent: WBINVD and INVD have nothing to do. */
static bool op_cache(struct bt_cpu *cpu, const struct bt_op *op)
{
    return cpu->cpl ? gp(cpu) : bt_op_next(cpu, op);
}

/* ---- XCR0 ---- */

#define XCR0_X87     BIT(0)
#define XCR0_SSE     BIT(1)
#define XCR0_AVX     BIT(2)
#define XSAVE_HEADER 512 /* XSTATE_BV in the saved area */

static bool op_xgetbv(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t value = cpu->xcr0;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return bt_raise(cpu, VEC_UD);
    uint32_t number = (uint32_t)cpu->gpr[R_RCX];
    bool in_use = number == 1 && (cpu->engine->config.cpu->xsave_features & BIT(2));
    if (number && !in_use)
        return gp(cpu);
    if (in_use) /* SSE counts as in use when only MXCSR differs, which the header does not show: say always */
        value &= load_le64(cpu->xsave + XSAVE_HEADER) | XCR0_SSE;
    cpu->gpr[R_RAX] = (uint32_t)value;
    cpu->gpr[R_RDX] = value >> 32;
    return bt_op_next(cpu, op);
}

static bool op_xsetbv(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return bt_raise(cpu, VEC_UD);
    uint64_t value = (uint64_t)(uint32_t)cpu->gpr[R_RDX] << 32 | (uint32_t)cpu->gpr[R_RAX];
    bool avx_alone = (value & (XCR0_AVX | XCR0_SSE)) == XCR0_AVX;
    if (cpu->cpl || (uint32_t)cpu->gpr[R_RCX] || !(value & XCR0_X87) || avx_alone ||
        (value & ~cpu->engine->config.cpu->xcr0_mask))
        return gp(cpu);
    cpu->xcr0 = value;
    bt_mode_update(cpu);
    return bt_op_next(cpu, op);
}

#define MOV_TO_CR   0x122
#define MOV_FROM_CR 0x120

const struct bt_op_entry bt_ops_cr[] = {
    {.mnemonic = ZYDIS_MNEMONIC_MOV, .opcode = MOV_TO_CR, .fn = op_mov_to_cr},
    {.mnemonic = ZYDIS_MNEMONIC_MOV, .opcode = MOV_FROM_CR, .fn = op_mov_from_cr},
    {.mnemonic = ZYDIS_MNEMONIC_LMSW, .fn = op_lmsw},
    {.mnemonic = ZYDIS_MNEMONIC_SMSW, .fn = op_smsw},
    {.mnemonic = ZYDIS_MNEMONIC_CLTS, .fn = op_clts},
    {.mnemonic = ZYDIS_MNEMONIC_INVLPG, .fn = op_invlpg},
    {.mnemonic = ZYDIS_MNEMONIC_INVPCID, .fn = op_invpcid},
    {.mnemonic = ZYDIS_MNEMONIC_WBINVD, .fn = op_cache},
    {.mnemonic = ZYDIS_MNEMONIC_INVD, .fn = op_cache},
    {.mnemonic = ZYDIS_MNEMONIC_XGETBV, .fn = op_xgetbv, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_XSETBV, .fn = op_xsetbv},
    {0},
};
