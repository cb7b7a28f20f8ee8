/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest instructions that run natively can fault natively: division, SSE alignment, unmasked floating-point
 * exceptions, what the host does not know. The host's signal is turned into the guest's exception: the
 * registers at the fault go to *cpu, and the thread leaves translated code. A signal that does not come from
 * translated code is the process's own.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/bt/cache.h"
#include "engine/bt/flags.h"
#include "engine/bt/run.h"

#define ALT_STACK_SIZE (64u * 1024)

static __thread struct bt_cpu *current;
static __thread void *alt_stack;
static const int signals[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL};
static struct sigaction previous[ARRAY_SIZE(signals)];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Where the kernel puts each host register. */
static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static void raise_guest(struct bt_cpu *cpu, long long trap)
{
    if (trap == VEC_XM && !(cpu->cr4 & CR4_OSXMMEXCPT))
        trap = VEC_UD;
    switch (trap) {
    case VEC_DE:
    case VEC_MF:
    case VEC_XM:
    case VEC_UD:
        bt_raise(cpu, (unsigned)trap);
        break;
    case VEC_AC:
        bt_raise_error(cpu, VEC_AC, 0);
        break;
    default:
        bt_raise_error(cpu, VEC_GP, 0);
        break;
    }
}

/* The instruction that the code at offset `off` stands for; NULL: none that may fault. */
static const struct bt_trap_at *trap_at(struct bt_block *block, unsigned off)
{
    const struct bt_trap_at *at = bt_block_traps(block);
    for (unsigned i = 0; i < block->trap_count; i++)
        if (off >= at[i].code && off < at[i].end)
            return &at[i];
    return NULL;
}

/* The host has raised something that nobody has thought of: the machine ends, not the process. */
static void stop_for(struct bt_cpu *cpu, const struct bt_block *block, greg_t trap)
{
    snprintf(cpu->why, sizeof(cpu->why),
             "the host raised vector %u in what was translated from physical address 0x%llx", (unsigned)trap,
             (unsigned long long)block->phys);
    cpu->failed = true;
    cpu->exit_reason = BT_EXIT_LOOKUP;
}

/* True when the fault was a guest instruction's. */
static bool take_fault(struct bt_cpu *cpu, ucontext_t *uc)
{
    greg_t *regs = uc->uc_mcontext.gregs;
    const uint8_t *pc = (const uint8_t *)(uintptr_t)regs[REG_RIP];
    struct bt_block *block = bt_cache_at(cpu->engine->cache, pc);
    if (!block || regs[REG_TRAPNO] == VEC_PF)
        return false;
    const struct bt_trap_at *at =
        trap_at(block, (unsigned)(pc - bt_block_exec(cpu->engine->cache, block, 0)));
    if (!at) {
        stop_for(cpu, block, regs[REG_TRAPNO]);
        regs[REG_RIP] = (greg_t)(uintptr_t)cpu->engine->thunks.leave;
        return true;
    }
    for (unsigned n = 0; n < 16; n++)
        if (bt_host_reg[n] != H_NONE)
            cpu->gpr[n] = (uint64_t)regs[greg_of[bt_host_reg[n]]];
    for (unsigned i = 0; i < at->borrowed_count; i++) /* those have the same number in guest and host */
        cpu->gpr[at->borrowed[i]] = cpu->spill[i];
    if (at->fault == BT_FAULT_FLAGS_HOST)
        bt_set_status(cpu, (uint64_t)regs[REG_EFL]);
    cpu->rip = bt_wrap_rip(cpu, cpu->pc_base + (block->phys & 0xfff) + at->guest);
    cpu->exit_reason = BT_EXIT_FAULT;
    raise_guest(cpu, regs[REG_TRAPNO]);
    const uint8_t *next = at->fault < BT_FAULT_CODE ? cpu->engine->thunks.leave
                                                    : bt_block_exec(cpu->engine->cache, block, at->fault);
    regs[REG_RIP] = (greg_t)(uintptr_t)next;
    return true;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    if (current && take_fault(current, context))
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        if (signals[i] == sig)
            sigaction(sig, &previous[i], NULL); /* happens again, with its old consequence */
}

static void install(void)
{
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&sa.sa_mask);
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &sa, &previous[i]);
}

bool bt_faults_enter(struct bt_cpu *cpu, struct error **err)
{
    pthread_once(&once, install);
    if (!alt_stack) {
        void *stack = mmap(NULL, ALT_STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        stack_t ss = {.ss_sp = stack, .ss_size = ALT_STACK_SIZE};
        if (stack == MAP_FAILED || sigaltstack(&ss, NULL) < 0) {
            error_set_errno(err, errno, "cannot make a signal stack for a vCPU");
            return false;
        }
        alt_stack = stack;
    }
    current = cpu;
    return true;
}

void bt_faults_leave(struct bt_cpu *cpu)
{
    current = NULL;
    stack_t off = {.ss_flags = SS_DISABLE};
    sigaltstack(&off, NULL);
    munmap(alt_stack, ALT_STACK_SIZE);
    alt_stack = NULL;
}
