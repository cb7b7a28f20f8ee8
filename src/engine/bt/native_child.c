/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process for native user code: see native_child.h. It begins as a program of one page, made here, which
 * is executed from memory: so it has nothing of ours from the start, however large we are. Its only code
 * makes system calls from a list in a page that it can read and we write:
 *
 *     loop: load RAX, RDI, RSI, RDX, R10, R8, R9 from [RBX]
 *           syscall
 *           failed? stop
 *           next, R12 times
 *     stop: int3
 *
 * and, for what the kernel does not tell of its registers, stores MXCSR in a page that both can write.
 */
#include "engine/bt/native_child.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

/* One call for the process to make. */
struct native_op {
    uint64_t number, argument[6];
};

#define ARGS_ADDR    (NATIVE_STUB + 0x1000)
#define OPS_SIZE     0x2000u
#define ARGS_SIZE    0x3000u /* the last page is the process's to write */
#define OPS_MAX      ((unsigned)(OPS_SIZE / sizeof(struct native_op)))
#define CODE_OFFSET  0x200u /* in the program's page, behind headers and filter */
#define FILTER_START 0x100u
#define FILTER_PROG  0x1c0u
#define NO_SIGNALS   0x1f0u /* a mask of zeroes */
#define USER_CS      0x33
#define USER_SS      0x2b
#define INTERRUPT    SIGUSR1
#define STACK_SIZE   (16u * 1024)

static const uint8_t code[] = {
    0x48, 0x8b, 0x03,                   /* mov rax, [rbx] */
    0x48, 0x8b, 0x7b, 0x08,             /* mov rdi, [rbx + 8] */
    0x48, 0x8b, 0x73, 0x10,             /* mov rsi, [rbx + 16] */
    0x48, 0x8b, 0x53, 0x18,             /* mov rdx, [rbx + 24] */
    0x4c, 0x8b, 0x53, 0x20,             /* mov r10, [rbx + 32] */
    0x4c, 0x8b, 0x43, 0x28,             /* mov r8, [rbx + 40] */
    0x4c, 0x8b, 0x4b, 0x30,             /* mov r9, [rbx + 48] */
    0x0f, 0x05,                         /* syscall */
    0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, /* cmp rax, -4095 */
    0x73, 0x09,                         /* jae stop */
    0x48, 0x83, 0xc3, 0x38,             /* add rbx, 56 */
    0x49, 0xff, 0xcc,                   /* dec r12 */
    0x75, 0xd2,                         /* jnz loop */
    0xcc,                               /* stop: int3 */
    0x0f, 0xae, 0x1b,                   /* mxcsr: stmxcsr [rbx] */
    0xcc,                               /* int3 */
};
#define CODE_STOP     46u
#define CODE_MXCSR    47u
#define AFTER_SYSCALL (NATIVE_STUB + CODE_OFFSET + 29)
_Static_assert(sizeof(struct native_op) == 56, "the code goes on by 56");

/* ---- the program ---- */

/* Calls of our code are allowed; all others are stopped where they are. */
static void write_filter(uint8_t *page)
{
    const struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)AFTER_SYSCALL, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(AFTER_SYSCALL >> 32), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
    };
    _Static_assert(FILTER_START + sizeof(filter) <= FILTER_PROG, "the filter has its room");
    memcpy(page + FILTER_START, filter, sizeof(filter));
    store_le16(page + FILTER_PROG, ARRAY_SIZE(filter)); /* struct sock_fprog */
    store_le64(page + FILTER_PROG + 8, NATIVE_STUB + FILTER_START);
}

static void write_program(uint8_t *page)
{
    Elf64_Ehdr header = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = NATIVE_STUB + CODE_OFFSET + CODE_STOP,
        .e_phoff = sizeof(header),
        .e_ehsize = sizeof(header),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 2,
    };
    const Elf64_Phdr parts[2] = {
        {.p_type = PT_LOAD,
         .p_flags = PF_R | PF_X,
         .p_vaddr = NATIVE_STUB,
         .p_paddr = NATIVE_STUB,
         .p_filesz = GUEST_PAGE_SIZE,
         .p_memsz = GUEST_PAGE_SIZE,
         .p_align = GUEST_PAGE_SIZE},
        {.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W}, /* else all that can be read could be executed */
    };
    _Static_assert(sizeof(header) + sizeof(parts) <= FILTER_START, "the headers have their room");
    memset(page, 0, GUEST_PAGE_SIZE);
    memcpy(page, &header, sizeof(header));
    memcpy(page + sizeof(header), parts, sizeof(parts));
    write_filter(page);
    memcpy(page + CODE_OFFSET, code, sizeof(code));
}

static int make_program(struct error **err)
{
    uint8_t page[GUEST_PAGE_SIZE];
    int fd = memfd_create("ruche-native", MFD_CLOEXEC | MFD_EXEC);
    if (fd < 0 && errno == EINVAL) /* before Linux 6.3, where all are executable */
        fd = memfd_create("ruche-native", MFD_CLOEXEC);
    write_program(page);
    if (fd >= 0 && pwrite(fd, page, sizeof(page), 0) == (ssize_t)sizeof(page))
        return fd;
    error_set_errno(err, errno, "cannot make the program for native code");
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ---- its start ---- */

struct start {
    struct native_child *child;
    const struct guest_memory *memory;
    int program_fd, args_fd;
    pid_t parent;
    int failed; /* errno */
};

/*
 * In the new process, which still shares our memory while we wait: takes along what it needs and becomes the
 * program. Only system calls from here on.
 */
static int start_child(void *opaque)
{
    static char name[] = "ruche-native", *const argv[] = {name, NULL}, *const envp[] = {NULL};
    struct start *s = opaque;
    struct native_child *child = s->child;
    /* Who is killed before he traces us leaves nothing behind. */
    bool ok = !prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) && getppid() == s->parent &&
              !syscall(SYS_close_range, 0, ~0U, CLOSE_RANGE_CLOEXEC) &&
              (child->args_fd = fcntl(s->args_fd, F_DUPFD, 0)) >= 0;
    for (unsigned i = 0; ok && i < s->memory->region_count; i++) {
        child->region_fd[i] = -1;
        if (s->memory->region[i].fd >= 0)
            ok = (child->region_fd[i] = fcntl(s->memory->region[i].fd, F_DUPFD, 0)) >= 0;
    }
    if (ok && !ptrace(PTRACE_TRACEME, 0, NULL, NULL) && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        syscall(SYS_execveat, s->program_fd, "", argv, envp, AT_EMPTY_PATH);
    s->failed = errno;
    syscall(SYS_exit, 0);
    return 0;
}

static bool spawn(struct start *s, struct error **err)
{
    struct native_child *child = s->child;
    uint8_t *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) {
        error_set_errno(err, errno, "cannot start a process for native code");
        return false;
    }
    /* No SIGCHLD: nobody else is to hear of it. And no signal may find it while it has our handlers and
     * memory; the program unblocks them itself. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    child->pid =
        clone(start_child, stack + STACK_SIZE, CLONE_VM | CLONE_VFORK | CLONE_PIDFD, s, &child->pid_fd);
    int saved = child->pid < 0 ? errno : s->failed;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    munmap(stack, STACK_SIZE);
    if (saved) {
        error_set_errno(err, saved, "cannot start a process for native code");
        return false;
    }
    return true;
}

/* Waits for a stop. False: it is gone. */
static bool wait_stopped(struct native_child *child, int *status)
{
    pid_t pid;
    do
        pid = waitpid(child->pid, status, __WALL);
    while (pid < 0 && errno == EINTR);
    if (pid == child->pid && WIFSTOPPED(*status))
        return true;
    if (pid == child->pid)
        child->pid = -1; /* reaped */
    return false;
}

static bool add_op(struct native_child *child, uint64_t number, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f)
{
    if (child->op_count == OPS_MAX && !native_child_flush(child))
        return false;
    child->ops[child->op_count++] = (struct native_op){number, {a, b, c, d, e, f}};
    return true;
}

/*
 * Lets our code run to its INT3. Signals from elsewhere are of no interest here: interrupts that were meant
 * for user code (cpu->kick is looked at), or what a terminal sends to all of us.
 */
static bool cont_to_trap(struct native_child *child)
{
    int status;
    for (;;) {
        if (ptrace(PTRACE_CONT, child->pid, NULL, NULL) || !wait_stopped(child, &status))
            return false;
        switch (WSTOPSIG(status)) {
        case SIGTRAP:
            return true;
        case SIGSEGV:
        case SIGBUS:
        case SIGILL:
        case SIGFPE:
        case SIGSYS:
            return false;
        default:
            break;
        }
    }
}

/* Runs our code from `offset` on until its INT3. */
static bool run_stub(struct native_child *child, unsigned offset, uint64_t rbx, uint64_t r12)
{
    struct user_regs_struct regs = {.rip = NATIVE_STUB + CODE_OFFSET + offset,
                                    .rbx = rbx,
                                    .r12 = r12,
                                    .cs = USER_CS,
                                    .ss = USER_SS,
                                    .eflags = 0x202,
                                    .orig_rax = ~0ULL};
    return native_child_set(child, &regs) && cont_to_trap(child) && native_child_get(child, &regs) &&
           !regs.r12;
}

bool native_child_get_mxcsr(struct native_child *child, uint32_t *mxcsr)
{
    if (!run_stub(child, CODE_MXCSR, ARGS_ADDR + OPS_SIZE, 0))
        return false;
    *mxcsr = load_le32((const uint8_t *)child->ops + OPS_SIZE);
    return true;
}

bool native_child_flush(struct native_child *child)
{
    unsigned count = child->op_count;
    child->op_count = 0;
    return !count || run_stub(child, 0, ARGS_ADDR, count);
}

/* The first calls: one by one with the process's registers, before it can see the list. */
static bool call(struct native_child *child, uint64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                 uint64_t e, uint64_t f)
{
    struct user_regs_struct regs = {.rip = AFTER_SYSCALL - 2,
                                    .rax = number,
                                    .rdi = a,
                                    .rsi = b,
                                    .rdx = c,
                                    .r10 = d,
                                    .r8 = e,
                                    .r9 = f,
                                    .r12 = 1,
                                    .cs = USER_CS,
                                    .ss = USER_SS,
                                    .eflags = 0x202,
                                    .orig_rax = ~0ULL};
    return native_child_set(child, &regs) && cont_to_trap(child) && native_child_get(child, &regs) &&
           !regs.r12;
}

static bool set_up(struct native_child *child)
{
    uint8_t area[NATIVE_XSTATE_MAX];
    struct iovec v = {area, sizeof(area)};
    const uint64_t options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL;
    int status;
    if (!wait_stopped(child, &status) || ptrace(PTRACE_SETOPTIONS, child->pid, NULL, options))
        return false;
    if (ptrace(PTRACE_GETREGSET, child->pid, NT_X86_XSTATE, &v))
        return false;
    child->xstate_size = (unsigned)v.iov_len;
    return call(child, SYS_mmap, ARGS_ADDR, OPS_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED,
                (uint64_t)child->args_fd, 0) &&
           add_op(child, SYS_mmap, ARGS_ADDR + OPS_SIZE, ARGS_SIZE - OPS_SIZE, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_FIXED, (uint64_t)child->args_fd, OPS_SIZE) &&
           add_op(child, SYS_close, (uint64_t)child->args_fd, 0, 0, 0, 0, 0) &&
           add_op(child, SYS_rt_sigprocmask, SIG_SETMASK, NATIVE_STUB + NO_SIGNALS, 0, sizeof(uint64_t), 0,
                  0) &&
           add_op(child, SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0, 0) &&
           add_op(child, SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NATIVE_STUB + FILTER_PROG, 0, 0, 0) &&
           native_child_clear(child);
}

struct native_child *native_child_new(const struct guest_memory *memory, struct error **err)
{
    struct native_child *child = calloc(1, sizeof(*child));
    if (!child) {
        error_set_errno(err, ENOMEM, "cannot make a process for native code");
        return NULL;
    }
    *child = (struct native_child){.pid = -1, .pid_fd = -1, .ops = MAP_FAILED};
    struct start s = {
        .child = child, .memory = memory, .program_fd = make_program(err), .args_fd = -1, .parent = getpid()};
    if (s.program_fd < 0)
        goto fail;
    s.args_fd = memfd_create("ruche-native-ops", MFD_CLOEXEC);
    if (s.args_fd >= 0 && !ftruncate(s.args_fd, ARGS_SIZE))
        child->ops = mmap(NULL, ARGS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s.args_fd, 0);
    if (child->ops == MAP_FAILED) {
        error_set_errno(err, errno, "cannot share memory with a process for native code");
        goto fail;
    }
    if (!spawn(&s, err))
        goto fail;
    if (!set_up(child)) {
        error_set(err, EPERM, "cannot trace a process for native code");
        goto fail;
    }
    close(s.program_fd);
    close(s.args_fd);
    return child;

fail:
    if (s.program_fd >= 0)
        close(s.program_fd);
    if (s.args_fd >= 0)
        close(s.args_fd);
    native_child_free(child);
    return NULL;
}

void native_child_free(struct native_child *child)
{
    if (!child)
        return;
    if (child->pid > 0) {
        int status;
        kill(child->pid, SIGKILL);
        while (wait_stopped(child, &status))
            ;
    }
    if (child->pid_fd >= 0)
        close(child->pid_fd);
    if (child->ops != MAP_FAILED)
        munmap(child->ops, ARGS_SIZE);
    free(child);
}

/* ---- use ---- */

bool native_child_map(struct native_child *child, uint64_t lin, uint64_t len, unsigned region,
                      uint64_t offset, int prot)
{
    if (!prot)
        return add_op(child, SYS_munmap, lin, len, 0, 0, 0, 0);
    return add_op(child, SYS_mmap, lin, len, (uint64_t)prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
                  (uint64_t)child->region_fd[region], offset);
}

bool native_child_clear(struct native_child *child)
{
    return add_op(child, SYS_munmap, 0, NATIVE_STUB, 0, 0, 0, 0) &&
           add_op(child, SYS_munmap, NATIVE_STUB_END, NATIVE_TOP - NATIVE_STUB_END, 0, 0, 0, 0) &&
           native_child_flush(child);
}

bool native_child_get(struct native_child *child, struct user_regs_struct *regs)
{
    return !ptrace(PTRACE_GETREGS, child->pid, NULL, regs);
}

bool native_child_set(struct native_child *child, const struct user_regs_struct *regs)
{
    return !ptrace(PTRACE_SETREGS, child->pid, NULL, regs);
}

bool native_child_get_xstate(struct native_child *child, void *area)
{
    struct iovec v = {area, child->xstate_size};
    return !ptrace(PTRACE_GETREGSET, child->pid, NT_X86_XSTATE, &v);
}

bool native_child_set_xstate(struct native_child *child, const void *area)
{
    struct iovec v = {(void *)(uintptr_t)area, child->xstate_size};
    return !ptrace(PTRACE_SETREGSET, child->pid, NT_X86_XSTATE, &v);
}

/* SIGSEGV is a page fault when it has an address; all else that raises it has none. */
static enum native_stop segv(struct native_child *child, uint64_t *address)
{
    siginfo_t info;
    if (ptrace(PTRACE_GETSIGINFO, child->pid, NULL, &info))
        return NATIVE_STOP_DEAD;
    if (info.si_code != SEGV_MAPERR && info.si_code != SEGV_ACCERR)
        return NATIVE_STOP_FAULT;
    *address = (uint64_t)(uintptr_t)info.si_addr;
    return NATIVE_STOP_ACCESS;
}

/* INT3, INT1, a single step. */
static enum native_stop trap(struct native_child *child)
{
    siginfo_t info;
    if (ptrace(PTRACE_GETSIGINFO, child->pid, NULL, &info))
        return NATIVE_STOP_DEAD;
    return info.si_code == TRAP_TRACE ? NATIVE_STOP_STEP : NATIVE_STOP_TRAP;
}

enum native_stop native_child_run(struct native_child *child, uint64_t *address)
{
    int status;
    if (ptrace(PTRACE_SYSEMU, child->pid, NULL, NULL) || !wait_stopped(child, &status))
        return NATIVE_STOP_DEAD;
    if (status >> 16 == PTRACE_EVENT_SECCOMP) /* the kernel's emulation of the vsyscall page */
        return NATIVE_STOP_STRAY;
    switch (WSTOPSIG(status)) {
    case SIGTRAP | 0x80:
        return NATIVE_STOP_SYSCALL;
    case SIGTRAP:
        return trap(child);
    case SIGSEGV:
        return segv(child, address);
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
        return NATIVE_STOP_FAULT;
    default: /* INTERRUPT, or what is no business of user code */
        return NATIVE_STOP_KICKED;
    }
}

void native_child_interrupt(int pid_fd)
{
    int saved = errno;
    syscall(SYS_pidfd_send_signal, pid_fd, INTERRUPT, NULL, 0);
    errno = saved;
}
