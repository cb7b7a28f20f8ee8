/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changes of privilege, stack and code segment in long mode: SYSCALL, INT, IRET, far calls, gates, IST, FS
 * and GS. */
#include "guest.h"

#define MSR_STAR     0xc0000081
#define MSR_LSTAR    0xc0000082
#define MSR_SFMASK   0xc0000084
#define MSR_FS_BASE  0xc0000100
#define MSR_GS_BASE  0xc0000101
#define MSR_KERNELGS 0xc0000102
#define EFER         0xc0000080

/* --- SYSCALL and SYSRET --- */

SNIPPET(user_syscall, "", "syscall");
SNIPPET(syscall_entry, "", "nop");
SNIPPET(do_sysretq, "", "sysretq");
SNIPPET(do_sysretl, "", "sysretl");
SNIPPET(user_done, "", "nop");
SNIPPET(compat_done, ".code32", "nop");
SNIPPET(syscall_round, "mov $1000, %ebx", "syscall; dec %ebx; jnz syscall_round_at");
__asm__(".pushsection .text\n.globl syscall_return\nsyscall_return: sysretq\n.popsection");
extern const uint8_t syscall_return[];

static void syscalls(void)
{
    wrmsr(MSR_STAR, (uint64_t)SEL_UCODE32 << 48 | (uint64_t)SEL_KCODE64 << 32);
    wrmsr(MSR_LSTAR, (uintptr_t)syscall_entry);
    wrmsr(MSR_SFMASK, FL_DF | FL_IF | FL_TF | FL_AC);
    struct context c = user_context(user_syscall);
    c.rflags = 2 | FL_CF | FL_DF | FL_AC;
    uint64_t rsp = c.gpr[RSP];
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.rip, (uintptr_t)syscall_entry_next + 2, "RIP");
    expect_equal(c.cs, SEL_KCODE64, "CS");
    expect_equal(c.ss, SEL_KDATA, "SS");
    expect_equal(c.gpr[RSP], rsp, "RSP");
    expect_equal(c.gpr[RCX], (uintptr_t)user_pointer(user_syscall_next), "RCX");
    expect_equal(c.gpr[R11], 2 | FL_CF | FL_DF | FL_AC, "R11");
    if (in_harness()) /* QEMU's translator loses CF */
        expect_equal(c.rflags, 2 | FL_CF, "RFLAGS");
    verdict("SYSCALL");

    c = kernel_context(do_sysretq);
    c.gpr[RCX] = (uintptr_t)user_pointer(user_done);
    c.gpr[R11] = 2 | FL_CF | FL_DF | (in_harness() ? FL_RF : 0);
    rsp = c.gpr[RSP];
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.rip, (uintptr_t)user_pointer(user_done_next) + 2, "RIP");
    expect_equal(c.cs, SEL_UCODE64, "CS");
    expect_equal(c.ss, SEL_UDATA, "SS");
    expect_equal(c.gpr[RSP], rsp, "RSP");
    expect_equal(c.rflags, 2 | FL_CF | FL_DF, "RFLAGS");
    verdict("SYSRET to 64-bit mode");

    compat_context(compat_done);
    c = kernel_context(do_sysretl);
    c.gpr[RCX] = (uintptr_t)compat_done | UINT64_C(0xabcd00000000);
    c.gpr[R11] = 2;
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.rip, (uintptr_t)compat_done_next + 2, "RIP");
    expect_equal(c.cs, SEL_UCODE32, "CS");
    expect_equal(c.ss, SEL_UDATA, "SS");
    verdict("SYSRET to compatibility mode");

    wrmsr(MSR_LSTAR, (uintptr_t)syscall_return);
    c = user_context(syscall_round);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RBX], 0, "rounds left");
    verdict("SYSCALL and SYSRET, a thousand times");

    wrmsr(EFER, rdmsr(EFER) & ~UINT64_C(1));
    c = user_context(user_syscall);
    guest_run(&c);
    wrmsr(EFER, rdmsr(EFER) | 1);
    expect_equal(c.vector, UD, "vector");
    expect_equal(c.rip, (uintptr_t)user_pointer(user_syscall_at), "RIP");
    verdict("#UD: SYSCALL without EFER.SCE");
}

/* --- stacks of handlers --- */

static struct frame *seen_frame;

static bool note_frame(struct frame *f)
{
    seen_frame = f;
    return false;
}

static void interrupt_stacks(void)
{
    static uint8_t kernel_stack[4096] __attribute__((aligned(16)));
    uint64_t top = (uintptr_t)kernel_stack + sizeof(kernel_stack), rsp0 = guest_tss[0].rsp[0];
    handlers[VECTOR_DONE] = note_frame;
    guest_idt[VECTOR_DONE].ist = 0;
    for (unsigned i = 0; i < 16; i++) {
        struct context c = kernel_context(user_done);
        c.gpr[RSP] = top - 64 - i;
        guest_run(&c);
        expect_equal((uintptr_t)(seen_frame + 1), (top - 64 - i) & ~UINT64_C(15), "where the frame ends");
        expect_equal(c.gpr[RSP], top - 64 - i, "RSP in the frame");
        expect_equal(c.ss, SEL_KDATA, "SS in the frame");
    }
    verdict("interrupt without a change of stack aligns it");
    guest_tss[0].rsp[0] = top - 128;
    struct context c = user_context(user_done);
    uint64_t user_rsp = c.gpr[RSP];
    guest_run(&c);
    expect_equal((uintptr_t)(seen_frame + 1), top - 128, "where the frame ends");
    expect_equal(c.gpr[RSP], user_rsp, "RSP in the frame");
    expect_equal(c.ss, SEL_UDATA, "SS in the frame");
    verdict("interrupt from CPL 3 takes RSP0");
    guest_idt[VECTOR_DONE].ist = 5;
    guest_tss[0].ist[4] = top - 256;
    for (unsigned i = 0; i < 2; i++) {
        c = i ? user_context(user_done) : kernel_context(user_done);
        guest_run(&c);
        expect_equal((uintptr_t)(seen_frame + 1), top - 256, "where the frame ends");
    }
    verdict("interrupt through IST 5");
    guest_tss[0].rsp[0] = rsp0;
    guest_idt[VECTOR_DONE].ist = 1;
    handlers[VECTOR_DONE] = NULL;
    /* A trap gate leaves IF set, an interrupt gate clears it; TF, NT and RF are cleared by both. */
    for (unsigned trap = 0; trap < 2; trap++) {
        extern const uint8_t flags_entry[];
        set_gate(0x82, flags_entry, trap ? 0xef : 0xee, 1);
        extern const uint8_t int_82[];
        c = user_context(int_82);
        c.rflags = 2 | FL_IF | FL_NT | FL_CF;
        guest_run(&c);
        expect_equal(c.vector, VECTOR_DONE, "vector");
        expect_equal(c.gpr[RAX] & ~UINT64_C(0x8d4), 2 | (trap ? FL_IF : 0) | FL_CF, "RFLAGS in the handler");
        expect_equal(c.rflags & (FL_IF | FL_NT), FL_IF | FL_NT, "RFLAGS after IRET");
    }
    verdict("interrupt and trap gates");
}
SNIPPET(int_82, "", "int $0x82");
__asm__(".pushsection .text\n.globl flags_entry\nflags_entry: pushfq; pop %rax; iretq\n.popsection");

/* --- IRET --- */

SNIPPET(
    iret_same,
    "mov %rsp, %rax; push $0x10; push %rax; push $0x203; lea iret_same_next(%rip), %rcx; push $8; push %rcx",
    "iretq");
SNIPPET(iret32, "mov %rsp, %rax; push $0x2b; push $0x3000; push $0x3; push $0x23; push $compat_done",
        "iretq");
SNIPPET(iret_user,
        "mov $0x8000000000, %rdx; mov %rsp, %rax; add %rdx, %rax; push $0x2b; push %rax; push $0x3003;"
        "lea user_done(%rip), %rcx; add %rdx, %rcx; push $0x33; push %rcx",
        "iretq");
SNIPPET(iret_from_user,
        "mov %rsp, %rax; push $0x2b; push %rax; push $0x3ed7; push $0x33; lea 1f(%rip), %rcx; push %rcx",
        "iretq; 1: pushfq; pop %rbx");
SNIPPET(iret_ss_null,
        "mov %rsp, %rax; push $0; push %rax; push $2; push $8; lea iret_ss_null_next(%rip), %rcx; push %rcx",
        "iretq");

static void irets(void)
{
    struct context c = kernel_context(iret_same);
    uint64_t rsp = c.gpr[RSP];
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.rflags, 0x203, "RFLAGS");
    expect_equal(c.gpr[RSP], rsp, "RSP");
    verdict("IRET within CPL 0");
    c = kernel_context(iret32);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.cs, SEL_UCODE32, "CS");
    expect_equal(c.gpr[RSP], 0x3000, "RSP");
    verdict("IRET to compatibility mode");
    c = kernel_context(iret_user);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.cs, SEL_UCODE64, "CS");
    expect_equal(c.rflags, 0x3003, "RFLAGS: IOPL is taken at CPL 0");
    verdict("IRET to CPL 3");
    c = user_context(iret_from_user);
    c.rflags = 2 | FL_IF;
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RBX], 0xed7 & ~UINT64_C(0x100), "RFLAGS: IOPL is not taken at CPL 3");
    verdict("IRET within CPL 3");
    c = kernel_context(iret_ss_null);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.ss, 0, "SS");
    verdict("IRET to CPL 0 with a null SS in 64-bit mode");
}

/* --- far calls, jumps and returns; call gates --- */

SNIPPET(far_call_same, "push $8; lea far_target(%rip), %rax; push %rax; mov %rsp, %rdx",
        ".byte 0x48; lcall *(%rdx)");
__asm__(".pushsection .text\n.globl far_target\nfar_target: mov (%rsp), %rbx; mov 8(%rsp), %rcx; "
        "lretq\n.popsection");
SNIPPET(
    far_jump_compat, "push $0; lea 1f(%rip), %rax; mov %eax, (%rsp); movw $0x18, 4(%rsp)",
    "ljmp *(%rsp); 1: .code32; mov $0xffffffff, %eax; inc %eax; mov %cs, %ebx; ljmp $8, $2f; .code64; 2:");
SNIPPET(far_return, "push $8; lea far_return_next(%rip), %rax; push %rax", "lretq");
SNIPPET(far_return_imm, "push $0; push $0; push $8; lea far_return_imm_next(%rip), %rax; push %rax",
        "lretq $16");
SNIPPET(gate_call, "push $0; movw $0x153, 4(%rsp)", "lcall *(%rsp)");
SNIPPET(gate_jump, "push $0; movw $0x150, 4(%rsp)", "ljmp *(%rsp)");
__asm__(".pushsection .text\n.globl gate_target\ngate_target: mov %cs, %eax; mov (%rsp), %rbx; mov 8(%rsp), "
        "%rcx; mov 16(%rsp), %rdx;"
        "mov 24(%rsp), %rsi; mov %rsp, %rdi; mov %ss, %r8d; lretq\n"
        ".globl gate_jump_target\ngate_jump_target: int $0x81\n.popsection");
extern const uint8_t gate_target[], gate_jump_target[];
SNIPPET(conforming_call, "push $0; lea 1f(%rip), %rax; mov %eax, (%rsp); movw $0x163, 4(%rsp)",
        "ljmp *(%rsp); 1: mov %cs, %eax; mov %eax, %ebx");

static void set_call_gate(unsigned selector, const void *target, unsigned type)
{
    uint64_t a = (uintptr_t)target;
    guest_gdt[selector / 8] =
        (a & 0xffff) | SEL_KCODE64 << 16 | (uint64_t)type << 40 | (a >> 16 & 0xffff) << 48;
    guest_gdt[selector / 8 + 1] = a >> 32;
}

static void far_transfers(void)
{
    struct context c = kernel_context(far_call_same);
    uint64_t rsp = c.gpr[RSP];
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RBX], (uintptr_t)far_call_same_next, "pushed RIP");
    expect_equal(c.gpr[RCX], SEL_KCODE64, "pushed CS");
    expect_equal(c.gpr[RSP], rsp - 16, "RSP");
    verdict("far call and return, 64-bit operands");
    c = kernel_context(far_jump_compat);
    c.gpr[RAX] = UINT64_MAX;
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RAX], 0, "RAX");
    expect_equal(c.gpr[RBX] & 0xffff, SEL_KCODE32, "CS in compatibility mode");
    expect_equal(c.cs, SEL_KCODE64, "CS after");
    verdict("far jump to compatibility mode at CPL 0 and back");
    c = kernel_context(far_return);
    rsp = c.gpr[RSP];
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RSP], rsp, "RSP");
    c = kernel_context(far_return_imm);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RSP], rsp, "RSP after RETF 16");
    verdict("far return");

    static uint8_t gate_stack[1024] __attribute__((aligned(16)));
    uint64_t rsp0 = guest_tss[0].rsp[0];
    guest_tss[0].rsp[0] = (uintptr_t)gate_stack + sizeof(gate_stack);
    set_call_gate(0x150, gate_target, 0xec);
    c = user_context(gate_call);
    rsp = c.gpr[RSP];
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.cs, SEL_UCODE64, "CS after");
    expect_equal(c.gpr[RAX] & 0xffff, SEL_KCODE64, "CS in the gate's code");
    expect_equal(c.gpr[RBX], (uintptr_t)user_pointer(gate_call_next), "pushed RIP");
    expect_equal(c.gpr[RCX], SEL_UCODE64, "pushed CS");
    expect_equal(c.gpr[RDX], rsp - 8, "pushed RSP");
    expect_equal(c.gpr[RSI], SEL_UDATA, "pushed SS");
    expect_equal(c.gpr[RDI], (uintptr_t)gate_stack + sizeof(gate_stack) - 32, "RSP");
    expect_equal(c.gpr[R8] & 0xffff, 0, "SS is null after a change of privilege");
    expect_equal(c.gpr[RSP], rsp - 8, "RSP after");
    verdict("call gate from CPL 3 and far return");
    guest_tss[0].rsp[0] = rsp0;
    set_call_gate(0x150, gate_target, 0x8c);
    c = user_context(gate_call);
    guest_run(&c);
    expect_equal(c.vector, GP, "vector");
    expect_equal(c.error, 0x150, "error code");
    verdict("#GP: call gate of DPL 0 at CPL 3");
    set_call_gate(0x150, gate_target, 0x6c);
    c = user_context(gate_call);
    guest_run(&c);
    expect_equal(c.vector, NP, "vector");
    expect_equal(c.error, 0x150, "error code");
    verdict("#NP: absent call gate");
    set_call_gate(0x150, gate_jump_target, 0xec);
    c = kernel_context(gate_jump);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.rip, (uintptr_t)gate_jump_target + 2, "RIP");
    verdict("jump through a call gate");
    guest_gdt[0x160 / 8] = UINT64_C(0x00af9f000000ffff); /* conforming, DPL 0 */
    c = compat_context(conforming_call);
    c.cs = SEL_UCODE64;
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RBX] & 0xffff, 0x163, "CS keeps CPL 3");
    expect_equal(c.ss, SEL_UDATA, "SS");
    verdict("far jump to a conforming segment");
}

/* --- FS and GS --- */

SNIPPET(read_fs_gs, "", "mov %fs:8, %rax; mov %gs:8, %rbx");
SNIPPET(do_swapgs, "mov %gs:8, %rax; swapgs; mov %gs:8, %rbx; swapgs", "mov %gs:8, %rcx");
SNIPPET(fsgsbase, "rdfsbase %rax; mov $0x123456789, %rcx; wrfsbase %rcx; rdfsbase %rbx; wrfsbase %rax",
        "wrgsbase %ecx; rdgsbase %rdx");
SNIPPET(fsgsbase_off, "", "rdfsbase %rax");

static void fs_gs(void)
{
    static uint64_t area[3][2] = {{0, 0xf5}, {0, 0x65}, {0, 0x6b}};
    wrmsr(MSR_FS_BASE, (uintptr_t)area[0]);
    wrmsr(MSR_GS_BASE, (uintptr_t)area[1]);
    wrmsr(MSR_KERNELGS, (uintptr_t)area[2]);
    struct context c = kernel_context(read_fs_gs);
    guest_run(&c);
    expect_equal(c.gpr[RAX], 0xf5, "by FS");
    expect_equal(c.gpr[RBX], 0x65, "by GS");
    verdict("FS and GS bases from MSRs");
    c = kernel_context(do_swapgs);
    guest_run(&c);
    expect_equal(c.gpr[RAX], 0x65, "GS");
    expect_equal(c.gpr[RBX], 0x6b, "kernel GS");
    expect_equal(c.gpr[RCX], 0x65, "GS again");
    expect_equal(rdmsr(MSR_GS_BASE), (uintptr_t)area[1], "MSR");
    verdict("SWAPGS");
    __asm__ volatile("mov %0, %%fs" : : "r"(SEL_KDATA));
    expect_equal(rdmsr(MSR_FS_BASE), 0, "base after loading FS");
    verdict("loading FS takes the descriptor's base");
    c = kernel_context(fsgsbase_off);
    guest_run(&c);
    expect_equal(c.vector, UD, "vector");
    verdict("#UD: RDFSBASE without CR4.FSGSBASE");
    if (!cpu_has(7, 1, 0)) {
        check(true, "FSGSBASE: not offered");
        return;
    }
    write_cr4(read_cr4() | BIT(16));
    c = user_context(fsgsbase);
    wrmsr(MSR_FS_BASE, 0x4567);
    guest_run(&c);
    write_cr4(read_cr4() & ~BIT(16));
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RAX], 0x4567, "RDFSBASE");
    expect_equal(c.gpr[RBX], 0x123456789, "WRFSBASE");
    expect_equal(c.gpr[RDX], 0x23456789, "WRGSBASE, 32 bits");
    verdict("RDFSBASE, WRFSBASE at CPL 3");
}

/* --- UMIP, LAR and company --- */

SNIPPET(umip_sgdt, "", "sgdt -16(%rsp)");
SNIPPET(umip_str, "", "str %eax");
SNIPPET(umip_smsw, "", "smsw %eax");
SNIPPET(lar_lsl,
        "mov $0x2b, %ecx; lar %ecx, %eax; setz %r8b; lsl %ecx, %ebx; setz %r9b; verr %cx; setz %r10b",
        "mov $0x33, %ecx; verw %cx; setz %r11b; mov $8, %ecx; lar %ecx, %edx; setz %r12b");

static void descriptor_queries(void)
{
    struct context c = user_context(lar_lsl);
    guest_run(&c);
    expect_equal(c.gpr[RAX] & 0xf0ff00, 0xc0f300, "LAR");
    expect_equal(c.gpr[RBX], 0xffffffff, "LSL");
    expect_equal(c.gpr[R8] & 1, 1, "LAR is allowed");
    expect_equal(c.gpr[R9] & 1, 1, "LSL is allowed");
    expect_equal(c.gpr[R10] & 1, 1, "VERR is allowed");
    expect_equal(c.gpr[R11] & 1, 0, "VERW of code");
    expect_equal(c.gpr[R12] & 1, 0, "LAR of a kernel segment");
    verdict("LAR, LSL, VERR, VERW at CPL 3");
    if (!cpu_has(7, 2, 2)) {
        check(true, "UMIP: not offered");
        return;
    }
    static const uint8_t *const codes[] = {umip_sgdt, umip_str, umip_smsw};
    for (unsigned on = 0; on < 2; on++)
        for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
            write_cr4(on ? read_cr4() | BIT(11) : read_cr4() & ~BIT(11));
            c = user_context(codes[i]);
            guest_run(&c);
            expect_equal(c.vector, on ? GP : VECTOR_DONE, "vector at CPL 3");
            c = kernel_context(codes[i]);
            guest_run(&c);
            expect_equal(c.vector, VECTOR_DONE, "vector at CPL 0");
        }
    write_cr4(read_cr4() & ~BIT(11));
    verdict("UMIP");
}

/* --- addresses that are none --- */

SNIPPET(jump_beyond, "", "jmp *%rax");

static __attribute__((noinline)) void kernel_function(void)
{
    __asm__ volatile("cli" : : : "memory");
}

/* Whatever an engine makes of addresses to find code by, these are not the kernel's code again. */
static void branch_beyond(void)
{
    void (*volatile function)(void) = kernel_function;
    for (unsigned i = 0; i < 4; i++)
        function();
    for (uint64_t bits = 1; bits < 0x8000; bits++) {
        struct context c = user_context(jump_beyond);
        uint64_t rsp = c.gpr[RSP];
        c.gpr[RAX] = (uintptr_t)kernel_function ^ bits << 49;
        guest_run(&c);
        expect_equal(c.vector, GP, "vector");
        expect_equal(c.rip, (uintptr_t)user_pointer(jump_beyond_at), "RIP");
        expect_equal(c.gpr[RSP], rsp, "RSP");
        if (c.vector != GP)
            break;
    }
    verdict("branches beyond canonical addresses");
}

void guest_main(void)
{
    syscalls();
    interrupt_stacks();
    irets();
    far_transfers();
    fs_gs();
    descriptor_queries();
    branch_beyond();
}
