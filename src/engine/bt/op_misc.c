/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Debug registers, time, CPUID, HLT, PAUSE, random numbers, hypercalls and the instructions that are never
 * defined (SDM vol. 2; KVM's hypercalls as Linux documents them under virt/kvm/x86/hypercalls). gpr-only.
 */
#include <sys/random.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "engine/bt/lapic.h"
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

#define DR6_ONES 0xffff0ff0u
#define DR6_BITS 0x0000e00fu
#define DR6_BD   BIT(13)
#define DR7_ONES 0x00000400u
#define DR7_BITS 0xffff23ffu
#define DR7_GD   BIT(13)
#define DR7_ANY  0xffu

#define MOV_FROM_DR 0x121
#define MOV_TO_DR   0x123

static bool gp(struct bt_cpu *cpu)
{
    return bt_raise_error(cpu, VEC_GP, 0);
}

/* ---- debug registers ---- */

/* The register meant, with 4 and 5 as 6 and 7; false: a fault was raised. */
static bool debug_register(struct bt_cpu *cpu, const struct bt_op *op, unsigned *number)
{
    unsigned n = op->insn.reg.reg;
    if (n > 7 || ((n == 4 || n == 5) && (cpu->cr4 & CR4_DE)))
        return bt_raise(cpu, VEC_UD);
    if (cpu->cpl)
        return gp(cpu);
    if (cpu->dr[7] & DR7_GD) {
        bt_raise(cpu, VEC_DB);
        cpu->exc.dr6 = DR6_BD;
        return false;
    }
    *number = n == 4 || n == 5 ? n + 2 : n;
    return true;
}

static bool op_mov_from_dr(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned n;
    if (!debug_register(cpu, op, &n))
        return false;
    bt_gpr_write(cpu, op->insn.rm.reg & 15, bt_code64(cpu) ? 8 : 4, cpu->dr[n]);
    return bt_op_next(cpu, op);
}

static bool op_mov_to_dr(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned n;
    if (!debug_register(cpu, op, &n))
        return false;
    uint64_t value = bt_zext(cpu->gpr[op->insn.rm.reg & 15], bt_code64(cpu) ? 8 : 4), before = cpu->dr[7];
    if (n >= 6 && value >> 32)
        return gp(cpu);
    if (n == 6)
        value = (value & DR6_BITS) | DR6_ONES;
    else if (n == 7)
        value = (value & DR7_BITS) | DR7_ONES;
    cpu->dr[n] = value;
    if (n != 6 && ((before | cpu->dr[7]) & DR7_ANY)) { /* watched pages are kept out of the TLB */
        bt_tlb_flush(cpu, true);
        bt_mode_update(cpu);
    }
    return bt_op_next(cpu, op);
}

/* ---- time and identity ---- */

static void put_edx_eax(struct bt_cpu *cpu, uint64_t value)
{
    cpu->gpr[R_RAX] = (uint32_t)value;
    cpu->gpr[R_RDX] = value >> 32;
}

static bool time_refused(const struct bt_cpu *cpu)
{
    return (cpu->cr4 & CR4_TSD) && cpu->cpl > 0;
}

static bool op_rdtsc(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (time_refused(cpu))
        return gp(cpu);
    put_edx_eax(cpu, bt_rdtsc(cpu));
    return bt_op_next(cpu, op);
}

static bool op_rdtscp(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (time_refused(cpu))
        return gp(cpu);
    put_edx_eax(cpu, bt_rdtsc(cpu));
    cpu->gpr[R_RCX] = (uint32_t)cpu->tsc_aux;
    return bt_op_next(cpu, op);
}

static bool op_rdpid(struct bt_cpu *cpu, const struct bt_op *op)
{
    bt_gpr_write(cpu, op->insn.rm.reg & 15, bt_code64(cpu) ? 8 : 4, (uint32_t)cpu->tsc_aux);
    return bt_op_next(cpu, op);
}

/* There are no performance counters. */
static bool op_rdpmc(struct bt_cpu *cpu, const struct bt_op *op)
{
    return gp(cpu);
}

static bool op_cpuid(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint32_t r[4], function = (uint32_t)cpu->gpr[R_RAX];
    uint64_t apic_base = 0;
    cpuid_model_query(cpu->engine->config.cpu, function, (uint32_t)cpu->gpr[R_RCX], cpu->index, cpu->cr4,
                      cpu->xcr0, r);
    bt_lapic_rdmsr(cpu->lapic, 0x1b, &apic_base);
    if ((function == 1 || function == 0x80000001) && !(apic_base & BIT(11)))
        r[3] &= ~(uint32_t)BIT(9); /* an APIC that is off does not show */
    cpu->gpr[R_RAX] = r[0];
    cpu->gpr[R_RBX] = r[1];
    cpu->gpr[R_RCX] = r[2];
    cpu->gpr[R_RDX] = r[3];
    return bt_op_next(cpu, op);
}

/* ---- waiting ---- */

static bool op_hlt(struct bt_cpu *cpu, const struct bt_op *op)
{
    if (cpu->cpl)
        return gp(cpu);
    __atomic_store_n(&cpu->mp_state, MP_HALTED, __ATOMIC_SEQ_CST);
    return bt_op_next(cpu, op);
}

void bt_yield(void)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_sched_yield) : "rcx", "r11", "memory");
}

/* A loop that pauses often waits for another vCPU, which may not be running: let it. */
static bool op_pause(struct bt_cpu *cpu, const struct bt_op *op)
{
    static _Thread_local unsigned count;
    enum { PAUSES_BEFORE_YIELD = 32 };
    if (++count % PAUSES_BEFORE_YIELD == 0)
        bt_yield();
    else
        __builtin_ia32_pause();
    return bt_op_next(cpu, op);
}

/* ---- random numbers, for hosts without the instructions ---- */

static bool op_random(struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t value = 0;
    bool got = getrandom(&value, sizeof(value), 0) == (ssize_t)sizeof(value);
    bt_gpr_write(cpu, op->insn.rm.reg & 15, op->insn.opsize, got ? value : 0);
    bt_set_status(cpu, got ? FLAG_CF : 0);
    return bt_op_next(cpu, op);
}

/* ---- hypercalls ---- */

#define HC_VAPIC_POLL_IRQ 1
#define HC_SEND_IPI       10
#define HC_SCHED_YIELD    11
#define HC_ENOSYS         (-1000)
#define HC_EPERM          (-1)

static int64_t hypercall(struct bt_cpu *cpu, uint64_t number, const uint64_t arg[4])
{
    switch (number) {
    case HC_VAPIC_POLL_IRQ:
        return 0;
    case HC_SEND_IPI:
        return bt_lapic_send_mask(cpu->engine, arg, arg[2], (uint32_t)arg[3]);
    case HC_SCHED_YIELD:
        bt_yield();
        return 0;
    default:
        return HC_ENOSYS;
    }
}

static bool op_vmcall(struct bt_cpu *cpu, const struct bt_op *op)
{
    unsigned size = bt_code64(cpu) ? 8 : 4;
    const uint64_t arg[4] = {bt_zext(cpu->gpr[R_RBX], size), bt_zext(cpu->gpr[R_RCX], size),
                             bt_zext(cpu->gpr[R_RDX], size), bt_zext(cpu->gpr[R_RSI], size)};
    int64_t result = HC_EPERM;
    if (!cpu->cpl)
        result = hypercall(cpu, bt_zext(cpu->gpr[R_RAX], size), arg);
    bt_gpr_write(cpu, R_RAX, size, (uint64_t)result);
    return bt_op_next(cpu, op);
}

static bool op_ud(struct bt_cpu *cpu, const struct bt_op *op)
{
    return bt_raise(cpu, VEC_UD);
}

const struct bt_op_entry bt_ops_misc[] = {
    {.mnemonic = ZYDIS_MNEMONIC_MOV, .opcode = MOV_FROM_DR, .fn = op_mov_from_dr},
    {.mnemonic = ZYDIS_MNEMONIC_MOV, .opcode = MOV_TO_DR, .fn = op_mov_to_dr},
    {.mnemonic = ZYDIS_MNEMONIC_RDTSC, .fn = op_rdtsc},
    {.mnemonic = ZYDIS_MNEMONIC_RDTSCP, .fn = op_rdtscp},
    {.mnemonic = ZYDIS_MNEMONIC_RDPID, .fn = op_rdpid},
    {.mnemonic = ZYDIS_MNEMONIC_RDPMC, .fn = op_rdpmc},
    {.mnemonic = ZYDIS_MNEMONIC_CPUID, .fn = op_cpuid, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_HLT, .fn = op_hlt},
    {.mnemonic = ZYDIS_MNEMONIC_PAUSE, .fn = op_pause},
    {.mnemonic = ZYDIS_MNEMONIC_RDRAND, .fn = op_random, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_RDSEED, .fn = op_random, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VMCALL, .fn = op_vmcall, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_VMMCALL, .fn = op_vmcall, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_UD0, .fn = op_ud},
    {.mnemonic = ZYDIS_MNEMONIC_UD1, .fn = op_ud},
    {.mnemonic = ZYDIS_MNEMONIC_UD2, .fn = op_ud},
    {0},
};
