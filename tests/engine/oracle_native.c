/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The oracle's native side: a child process that runs sequences on the host's processor and reports
 * registers, memory and exceptions. Inputs and results lie in memory shared with the parent; a futex passes
 * each batch back and forth.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "oracle.h"

/* A batch takes milliseconds; a child that needs longer is lost. */
#define CHILD_TIMEOUT_S 5

enum turn { TURN_PARENT, TURN_CHILD };

/* Shared between parent and child. */
struct shared {
    atomic_int turn;
    unsigned first, count, current;
    struct oracle_regs in[ORACLE_BATCH], out[ORACLE_BATCH];
    uint8_t code[ORACLE_CODE_SIZE] __attribute__((aligned(4096)));
    uint8_t read_only[ORACLE_RO_SIZE] __attribute__((aligned(4096)));
    uint8_t window[ORACLE_BATCH][ORACLE_WINDOW];
};

struct oracle_native {
    struct shared *shared;
    int fd;
    pid_t child;
};

/* oracle_native.S */
void oracle_native_enter(const struct oracle_regs *in);
void oracle_native_exit(void);
void oracle_native_recover(void);
void oracle_native_handler(int sig, siginfo_t *info, void *context);
void oracle_native_fault(int sig, siginfo_t *info, ucontext_t *context);
extern struct oracle_regs oracle_native_result;
extern uint64_t oracle_native_guest_fs, oracle_native_host_fs, oracle_native_host_rsp;

_Noreturn static void fail(const char *what)
{
    perror(what);
    _exit(1);
}

static void futex_wait(atomic_int *word, int value, const struct timespec *timeout)
{
    syscall(SYS_futex, word, FUTEX_WAIT, value, timeout, NULL, 0);
}

static void hand_over(struct shared *s, enum turn turn)
{
    atomic_store(&s->turn, (int)turn);
    syscall(SYS_futex, &s->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* --- in the child --- */

/* The sequence's exception: all registers from the signal's frame, then back by oracle_native_recover. */
void oracle_native_fault(int sig, siginfo_t *info, ucontext_t *context)
{
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    greg_t *g = context->uc_mcontext.gregs;
    struct oracle_regs *out = &oracle_native_result;
    (void)sig;
    (void)info;
    for (unsigned i = 0; i < 16; i++)
        out->gpr[i] = (uint64_t)g[order[i]];
    out->rip = (uint64_t)g[REG_RIP];
    out->rflags = (uint64_t)g[REG_EFL];
    out->vector = (uint64_t)g[REG_TRAPNO];
    out->error = (uint64_t)g[REG_ERR];
    out->cr2 = out->vector == VEC_PF ? (uint64_t)g[REG_CR2] : 0;
    memcpy(out->xsave, context->uc_mcontext.fpregs, ORACLE_XSAVE_SIZE);
    g[REG_RIP] = (greg_t)(uintptr_t)oracle_native_recover;
    g[REG_RSP] = (greg_t)oracle_native_host_rsp; /* returning to a stack that is not canonical would fault */
    g[REG_EFL] = 0x202;
}

static void map_at(uint64_t address, uint64_t size, int prot, int fd, uint64_t offset)
{
    void *want = (void *)(uintptr_t)address;
    if (mmap(want, size, prot, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, (off_t)offset) != want)
        fail("oracle: mapping the sequences' memory in the child");
}

static void child_map(const struct oracle_native *n)
{
    map_at(ORACLE_CODE, round_up(ORACLE_CODE_SIZE, 4096), PROT_READ | PROT_EXEC, n->fd,
           offsetof(struct shared, code));
    for (unsigned i = 0; i < ORACLE_BATCH; i++) {
        map_at(oracle_window(i), ORACLE_WINDOW, PROT_READ | PROT_WRITE, n->fd,
               offsetof(struct shared, window[i]));
        map_at(oracle_window(i) + ORACLE_WINDOW, ORACLE_RO_SIZE, PROT_READ, n->fd,
               offsetof(struct shared, read_only));
    }
    uint8_t *page = mmap((void *)(uintptr_t)ORACLE_TRAMPOLINE, 4096, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page != (void *)(uintptr_t)ORACLE_TRAMPOLINE)
        fail("oracle: mapping the trampoline in the child");
    const uint8_t jump[8] = {0xff, 0x25,
                             2}; /* jmp [rip + 2], to an aligned address for the sake of EFLAGS.AC */
    const uint64_t target = (uintptr_t)oracle_native_exit;
    memcpy(page, jump, sizeof(jump));
    memcpy(page + sizeof(jump), &target, sizeof(target));
    if (mprotect(page, 4096, PROT_READ | PROT_EXEC) < 0)
        fail("oracle: mprotect");
}

static void child_signals(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    const size_t size = 0x10000;
    stack_t stack = {.ss_sp = malloc(size), .ss_size = size};
    if (!stack.ss_sp || sigaltstack(&stack, NULL) < 0)
        fail("oracle: sigaltstack");
    struct sigaction action = {.sa_sigaction = oracle_native_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        if (sigaction(signals[i], &action, NULL) < 0)
            fail("oracle: sigaction");
}

static void child_run(struct shared *s, unsigned slot)
{
    uint64_t window = oracle_window(slot);
    s->current = slot;
    oracle_native_guest_fs = window + ORACLE_FS_OFFSET;
    if (syscall(SYS_arch_prctl, ARCH_SET_GS, window + ORACLE_GS_OFFSET) < 0)
        fail("oracle: arch_prctl");
    memset(&oracle_native_result, 0, sizeof(oracle_native_result));
    oracle_native_enter(&s->in[slot]);
    s->out[slot] = oracle_native_result;
}

_Noreturn static void child_main(const struct oracle_native *n, pid_t parent)
{
    struct shared *s = n->shared;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    child_map(n);
    child_signals();
    if (syscall(SYS_arch_prctl, ARCH_GET_FS, &oracle_native_host_fs) < 0)
        fail("oracle: arch_prctl");
    for (;;) {
        while (atomic_load(&s->turn) != TURN_CHILD)
            futex_wait(&s->turn, TURN_PARENT, NULL);
        for (unsigned i = 0; i < s->count; i++)
            child_run(s, s->first + i);
        hand_over(s, TURN_PARENT);
    }
}

/* --- in the parent --- */

static void start_child(struct oracle_native *n)
{
    pid_t parent = getpid();
    atomic_store(&n->shared->turn, TURN_PARENT);
    fflush(NULL);
    n->child = fork();
    if (n->child < 0)
        fail("oracle: fork");
    if (!n->child)
        child_main(n, parent);
}

struct oracle_native *oracle_native_new(void)
{
    struct oracle_native *n = calloc(1, sizeof(*n));
    if (!n)
        fail("oracle");
    n->fd = memfd_create("oracle", MFD_CLOEXEC);
    if (n->fd < 0 || ftruncate(n->fd, sizeof(struct shared)) < 0)
        fail("oracle: memfd");
    n->shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, n->fd, 0);
    if (n->shared == MAP_FAILED)
        fail("oracle: mmap");
    oracle_read_only_page(n->shared->read_only);
    start_child(n);
    return n;
}

void oracle_native_free(struct oracle_native *n)
{
    kill(n->child, SIGKILL);
    waitpid(n->child, NULL, 0);
    munmap(n->shared, sizeof(struct shared));
    close(n->fd);
    free(n);
}

uint8_t *oracle_native_code(struct oracle_native *n)
{
    return n->shared->code;
}

uint8_t *oracle_native_window(struct oracle_native *n, unsigned slot)
{
    return n->shared->window[slot];
}

struct oracle_regs *oracle_native_in(struct oracle_native *n)
{
    return n->shared->in;
}

const struct oracle_regs *oracle_native_out(const struct oracle_native *n)
{
    return n->shared->out;
}

void oracle_native_start(struct oracle_native *n, unsigned first, unsigned count)
{
    n->shared->first = first;
    n->shared->count = count;
    hand_over(n->shared, TURN_CHILD);
}

unsigned oracle_native_current(const struct oracle_native *n)
{
    return n->shared->current;
}

bool oracle_native_wait(struct oracle_native *n)
{
    struct timespec limit, t;
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_sec += CHILD_TIMEOUT_S;
    while (atomic_load(&n->shared->turn) != TURN_PARENT) {
        const struct timespec slice = {.tv_nsec = 100000000};
        futex_wait(&n->shared->turn, TURN_CHILD, &slice);
        clock_gettime(CLOCK_MONOTONIC, &t);
        bool dead = waitpid(n->child, NULL, WNOHANG) == n->child;
        if (!dead && t.tv_sec <= limit.tv_sec)
            continue;
        if (!dead) {
            kill(n->child, SIGKILL);
            waitpid(n->child, NULL, 0);
        }
        start_child(n);
        return false;
    }
    return true;
}
