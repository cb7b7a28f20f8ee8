/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads of system registers in place: the time-stamp counter, segment selectors, CR0, CR2, CR3 and CR4. A
 * kernel does one or the other in nearly every system call and fault.
 */
#include <Zydis/Mnemonic.h>

#include "engine/bt/translate.h"

#define MOV_FROM_SEG 0x8c /* opcode */
#define MOV_FROM_CR  0x20 /* in map 1 */

static unsigned modrm_reg(const struct x86_insn *insn)
{
    return insn->modrm >> 3 & 7;
}

static bool reads_selector(const struct x86_insn *insn)
{
    return insn->mnemonic == ZYDIS_MNEMONIC_MOV && insn->map == 0 && insn->opcode == MOV_FROM_SEG &&
           !insn->mem.present && insn->opsize != 2 && modrm_reg(insn) <= SEG_GS;
}

static bool reads_cr(const struct x86_insn *insn)
{
    unsigned cr = insn->reg.reg;
    return insn->mnemonic == ZYDIS_MNEMONIC_MOV && insn->map == 1 && insn->opcode == MOV_FROM_CR &&
           (cr == 0 || (cr >= 2 && cr <= 4));
}

static bool reads_time(const struct x86_insn *insn)
{
    return insn->mnemonic == ZYDIS_MNEMONIC_RDTSC || insn->mnemonic == ZYDIS_MNEMONIC_RDTSCP;
}

bool tr_is_system_read(const struct tr *t, const struct x86_insn *insn, bool kernel)
{
    bool plain = tr_flat(t) && (t->mode & MODE_CODE64);
    return plain && (reads_selector(insn) || (kernel && (reads_cr(insn) || reads_time(insn))));
}

/* The host's counter is the guest's but for an offset; time that stands still is for vCPUs that do not run.
 */
static void read_time(struct tr *t, bool with_aux)
{
    static const uint8_t rdtsc[] = {0x0f, 0x31}, rdtscp[] = {0x0f, 0x01, 0xf9};
    struct emitter *e = &t->e;
    tr_clobber_flags(t);
    emit_bytes(e, with_aux ? rdtscp : rdtsc, with_aux ? sizeof(rdtscp) : sizeof(rdtsc));
    emit_shift(e, SHIFT_SHL, 8, H_RDX, 32);
    emit_alu_op(e, ALU_OR, 8, H_RAX, H_RDX);
    emit_alu_mem(e, ALU_ADD, 8, H_RAX, CPU(tsc_offset));
    emit_mov(e, 8, H_RDX, H_RAX);
    emit_shift(e, SHIFT_SHR, 8, H_RDX, 32);
    emit_mov(e, 4, H_RAX, H_RAX);
    if (with_aux)
        emit_load(e, 4, H_RCX, CPU(tsc_aux));
}

static void put_gpr(struct tr *t, unsigned guest)
{
    if (bt_host_reg[guest] != H_NONE)
        emit_mov(&t->e, 8, bt_host_reg[guest], T0);
    else
        emit_store(&t->e, 8, CPU_GPR(guest), T0);
}

void tr_system_read(struct tr *t, const struct x86_insn *insn)
{
    static const size_t cr[] = {[0] = offsetof(struct bt_cpu, cr0),
                                [2] = offsetof(struct bt_cpu, cr2),
                                [3] = offsetof(struct bt_cpu, cr3),
                                [4] = offsetof(struct bt_cpu, cr4)};
    if (reads_time(insn)) {
        read_time(t, insn->mnemonic == ZYDIS_MNEMONIC_RDTSCP);
        return;
    }
    if (reads_cr(insn))
        emit_load(&t->e, 8, T0, CPU_AT(cr[insn->reg.reg]));
    else
        emit_load(&t->e, 2, T0,
                  CPU_AT(offsetof(struct bt_cpu, seg) + sizeof(struct x86_segment) * modrm_reg(insn) +
                         offsetof(struct x86_segment, selector)));
    put_gpr(t, insn->rm.reg & 15);
}
