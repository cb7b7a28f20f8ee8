/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest `native`: instructions that could behave otherwise when user code runs on the host, and exceptions.
 */
#include "native.h"

#define DATA        (TEST_BASE + 0x800000)
#define LOW_CODE    0x3e00000u /* physical and linear, for 32-bit code */
#define CR4_FSGS    BIT(16)
#define MSR_STAR    0xc0000081
#define MSR_LSTAR   0xc0000082
#define MSR_SFMASK  0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define DR6_NONE    UINT64_C(0xffff0ff0)

extern const uint8_t guest_vectors[];

/* --- answers --- */

#define CODE_CPUID  "mov %rdi, %rax; xor %ecx, %ecx; cpuid"
#define CODE_XGETBV "xor %ecx, %ecx; xgetbv"
#define CODE_TSCP   "rdtscp; xor %eax, %eax; xor %edx, %edx"
#define CODE_RDPID  ".byte 0xf3, 0x0f, 0xc7, 0xf8"
#define CODE_QUERY                                                                                           \
    "xor %esi, %esi; lar %edi, %eax; setz %sil; lsl %edi, %ebx; setz %ch; verr %di; setz %dl; verw %di; "    \
    "setz %dh;"
#define CODE_TABLES                                                                                          \
    "sub $64, %rsp; sgdt (%rsp); sidt 16(%rsp); mov 2(%rsp), %rax; mov 18(%rsp), %rbx;"                      \
    "movzwl (%rsp), %ecx; movzwl 16(%rsp), %edx; sldt %esi; str %r8d; smsw %r9d; add $64, %rsp"
USER(ask_cpuid, CODE_CPUID);
USER(ask_xgetbv, CODE_XGETBV);
USER(ask_tscp, CODE_TSCP);
USER(ask_rdpid, CODE_RDPID);
USER(ask_query, "xor %edx, %edx; xor %ecx, %ecx;" CODE_QUERY);
USER(ask_tables, CODE_TABLES);

/* What user code is told is what the kernel is told, interrupts on or off. */
static void same_answer(const char *name, const uint8_t *code, const uint8_t *next, uint64_t rdi)
{
    uint64_t at = place_code(code, next, NULL);
    struct context user[2];
    for (unsigned i = 0; i < 2; i++) {
        user[i] = native_context(at);
        user[i].gpr[RDI] = rdi;
        if (!i)
            user[i].rflags &= ~(uint64_t)FL_IF;
        guest_run(&user[i]);
        expect_equal(user[i].vector, VECTOR_DONE, name);
    }
    for (unsigned r = 0; r < 16; r++)
        expect_equal(user[1].gpr[r], user[0].gpr[r], name);
}

static void answers(void)
{
    static const uint32_t leaves[] = {
        0, 1, 2, 4, 7, 0xa, 0xb, 0xd, 0x14, 0x1f, 0x40000000, 0x40000001, 0x80000000, 0x80000001, 0x80000008};
    for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++)
        same_answer("CPUID", ask_cpuid, ask_cpuid_next, leaves[i]);
    if (have_avx)
        same_answer("XGETBV", ask_xgetbv, ask_xgetbv_next, 0);
    wrmsr(0xc0000103, 0x12345);
    if (cpu_has(0x80000001, 3, 27))
        same_answer("RDTSCP", ask_tscp, ask_tscp_next, 0);
    if (cpu_has(7, 2, 22))
        same_answer("RDPID", ask_rdpid, ask_rdpid_next, 0);
    for (unsigned sel = 0; sel < 0x100; sel += 8)
        same_answer("LAR, LSL, VERR, VERW", ask_query, ask_query_next, sel | (sel & 8 ? 3 : 0));
    same_answer("SGDT and company", ask_tables, ask_tables_next, 0);
    verdict("user code is told what the model says");
}

USER(save_all, "mov $7, %eax; xor %edx, %edx; xsave64 (%rdi)");
USER(read_clock, "rdtsc; shl $32, %rdx; or %rdx, %rax; mov %rax, %rbx; mov $10000, %ecx; 1: loop 1b; rdtsc; "
                 "shl $32, %rdx; or %rdx, %rax");

static void extents(void)
{
    uint8_t *area = new_page();
    if (have_avx) {
        map_page(DATA, (uintptr_t)area, PG_P | PG_W | PG_U);
        uint64_t code = place_code(save_all, save_all_next, NULL);
        for (unsigned i = 0; i < 3; i++) {
            memset(area, 0xee, 4096);
            memset(area + 512, 0, 64);
            struct context c = run_user(code, DATA, 0);
            expect_equal(c.vector, VECTOR_DONE, "vector");
            expect_equal(area[512] & ~7u, 0, "components");
            for (unsigned at = 832; at < 4096; at++)
                if (area[at] != 0xee) {
                    expect_equal(at, 0, "beyond the end");
                    break;
                }
        }
        verdict("XSAVE writes what it should");
    }
    uint64_t code = place_code(read_clock, read_clock_next, NULL);
    for (unsigned i = 0; i < 20; i++) {
        uint64_t before = rdtsc();
        struct context c = run_user(code, 0, 0);
        uint64_t after = rdtsc();
        expect(before <= c.gpr[RBX] && c.gpr[RBX] < c.gpr[RAX] && c.gpr[RAX] <= after, "order");
    }
    verdict("RDTSC goes on in user code as in the kernel");
}

/* --- exceptions --- */

USER(x_divide, "xor %ecx, %ecx; mov $7, %eax; 9: div %ecx");
USER(x_int3, "int3");
USER(x_int_3, ".byte 0xcd, 3");
USER(x_int_4, "int $4");
USER(x_int_20, "int $0x20");
USER(x_int_80, "mov $-2, %rax; int $0x80");
USER(x_ud2, "ud2");
USER(x_hlt, "hlt");
USER(x_cli, "cli");
USER(x_in, "in $0x80, %al");
USER(x_cr, "mov %cr0, %rax");
USER(x_hole, "mov $0x800000000000, %rax; mov (%rax), %ebx");
USER(x_stack_hole, "mov $0x800000000010, %rsp; push %rax");
USER(x_kernel, "mov $-4096, %rax; mov (%rax), %ebx");
USER(x_unaligned, "movaps %xmm0, -8(%rsp)");
USER(x_sysenter, "xor %ecx, %ecx; xor %edx, %edx; sysenter");
USER(x_mov_ds, "mov $8, %eax; mov %eax, %ds");
USER(x_mov_ss, "mov $0x33, %eax; mov %eax, %ss");
USER(x_float, "fninit; fldcw (%rdi); fldz; fld1; fdiv %st(1), %st; fwait");
USER(x_simd, "ldmxcsr 4(%rdi); pxor %xmm1, %xmm1; movsd 8(%rdi), %xmm0; divsd %xmm1, %xmm0");
USER(x_align, "pushfq; orl $0x40000, (%rsp); popfq; mov 1(%rsp), %eax");
USER(x_popf_if, "push $2; popfq; pushfq; pop %rax");
USER(x_step, "pushfq; orl $0x100, (%rsp); popfq; nop; nop");
USER(x_step_int3, "pushfq; orl $0x100, (%rsp); popfq; int3");
USER(x_far_pages, "mov $0x800000000000, %rax; jmp *%rax");

static void exceptions(void)
{
    /* After how many bytes of code RIP is; 255: at its end. */
    static const struct {
        const char *name;
        const uint8_t *code, *next;
        unsigned vector, error, rip;
    } cases[] = {
#define X(n, vector, error, rip) {#n, x_##n, x_##n##_next, vector, error, rip}
        X(divide, DE, 0, 7),      X(int3, BP, 0, 255),
        X(int_3, BP, 0, 255),     X(int_4, OF, 0, 255),
        X(int_20, GP, 0x102, 0),  X(int_80, 0x80, 0, 255),
        X(ud2, UD, 0, 0),         X(hlt, GP, 0, 0),
        X(cli, GP, 0, 0),         X(in, GP, 0, 0),
        X(cr, GP, 0, 0),          X(hole, GP, 0, 10),
        X(stack_hole, SS, 0, 10), X(kernel, PF, 4, 7),
        X(unaligned, GP, 0, 0),   X(sysenter, GP, 0, 4),
        X(mov_ds, GP, 8, 5),      X(mov_ss, GP, 0x30, 5),
        X(float, MF, 0, 10),      X(simd, XM, 0, 13),
        X(align, AC, 0, 9),       X(popf_if, VECTOR_DONE, 0, 254),
        X(step, DB, 0, 10),       X(step_int3, BP, 0, 255),
    };
    uint64_t *data = (uint64_t *)(void *)new_page();
    map_page(DATA, (uintptr_t)data, PG_P | PG_W | PG_U);
    data[0] = 0x37b | UINT64_C(0x1d80) << 32;
    data[1] = UINT64_C(0x3ff0000000000000); /* 1.0 */
    set_gate(0x80, guest_vectors + 16 * 0x80, 0xee, 1);
    write_cr0(read_cr0() | BIT(18));
    wrmsr(0x174, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t at = place_code(cases[i].code, cases[i].next, NULL);
        unsigned len = (unsigned)(cases[i].next - cases[i].code);
        for (unsigned again = 0; again < 2; again++) {
            write_dr6(DR6_NONE);
            struct context c = run_user(at, DATA, UINT64_C(0x1122334455667788));
            if (cases[i].code == x_sysenter && c.vector == UD)
                c.vector = GP; /* AMD's have no SYSENTER in long mode */
            expect_equal(c.vector, cases[i].vector, cases[i].name);
            expect_equal(c.error, cases[i].error, cases[i].name);
            unsigned rip = cases[i].rip == 255 ? len : cases[i].rip == 254 ? len + 2 : cases[i].rip;
            expect_equal(c.rip, at + rip, cases[i].name);
            if (cases[i].vector == 0x80)
                expect_equal(c.gpr[RAX], UINT64_MAX - 1, "RAX at INT 80h");
            if (cases[i].vector == VECTOR_DONE)
                expect_equal(c.gpr[RAX] & (FL_IF | 0x3000), FL_IF, "flags that POPF leaves");
            if (cases[i].vector == DB)
                expect_equal(read_dr6(), DR6_NONE | BIT(14), "DR6");
        }
    }
    write_cr0(read_cr0() & ~BIT(18));
    verdict("exceptions");
    uint64_t at = place_code(x_far_pages, x_far_pages_next, NULL);
    struct context c = run_user(at, 0, 0);
    expect_equal(c.vector, GP, "vector");
    expect(c.rip == at + 10 || c.rip == UINT64_C(0x800000000000), "RIP");
    verdict("a jump to a non-canonical address");
}

/* --- SYSCALL --- */

SNIPPET(on_syscall, "", "int $0x81");
USER(do_syscall, "mov $1, %ecx; mov $2, %r11d; stc; syscall");

static void system_calls(void)
{
    uint64_t at = place_code(do_syscall, do_syscall_next, NULL), efer = rdmsr(0xc0000080);
    wrmsr(MSR_STAR, (uint64_t)SEL_KCODE64 << 32 | (uint64_t)0x23 << 48);
    wrmsr(MSR_LSTAR, (uintptr_t)on_syscall);
    wrmsr(MSR_SFMASK, FL_IF | FL_CF);
    for (unsigned i = 0; i < 4; i++) {
        struct context c = run_user(at, 0, 77);
        uint64_t end = at + (uint64_t)(do_syscall_next - do_syscall);
        expect_equal(c.vector, VECTOR_DONE, "vector");
        expect_equal(c.cs, SEL_KCODE64, "CS");
        expect_equal(c.gpr[RCX], end, "RCX");
        expect_equal(c.gpr[R11] & (FL_IF | FL_CF), FL_IF | FL_CF, "R11");
        expect_equal(c.rflags & (FL_IF | FL_CF), 0, "flags");
        expect_equal(c.gpr[RAX], 77, "RAX");
    }
    verdict("SYSCALL");
    wrmsr(0xc0000080, efer & ~UINT64_C(1));
    struct context c = run_user(at, 0, 77);
    wrmsr(0xc0000080, efer);
    expect_equal(c.vector, UD, "vector");
    expect_equal(c.gpr[RCX], 1, "RCX");
    expect_equal(c.gpr[R11], 2, "R11");
    verdict("#UD: SYSCALL without EFER.SCE");
}

/* --- debug registers --- */

USER(watched, "mov %rax, (%rdi); nop; nop; mov (%rdi), %rbx");

static void breakpoints(void)
{
    uint64_t *data = (uint64_t *)(void *)new_page();
    uint64_t at = place_code(watched, watched_next, NULL);
    map_page(DATA, (uintptr_t)data, PG_P | PG_W | PG_U);
    for (unsigned i = 0; i < 4; i++) {
        struct context c = run_user(at, DATA, i);
        expect_equal(c.vector, VECTOR_DONE, "vector without breakpoints");
        write_dr6(DR6_NONE);
        write_dr0(i & 1 ? DATA : at + 4);
        write_dr7(0x400 | 1 | (i & 1 ? UINT64_C(0xd0000) : 0));
        c = run_user(at, DATA, i);
        write_dr7(0x400);
        expect_equal(c.vector, DB, "vector");
        expect_equal(c.rip, at + (i & 1 ? 3 : 4), "RIP");
        expect_equal(read_dr6() & 0xf, 1, "DR6");
    }
    verdict("hardware breakpoints between stays");
}

/* --- segments --- */

USER(load_selectors, "mov $0x2b, %eax; mov %eax, %ds; mov %eax, %es; mov $0x2b, %ecx; 1: loop 1b");
USER(read_bases, "mov %fs:0, %rax; mov %gs:0, %rbx");
USER(set_gs_base, "mov $-4096, %rax; wrgsbase %rax");
USER(set_bases,
     "mov $0x123456789a, %rax; wrfsbase %rax; inc %rax; wrgsbase %rax; rdfsbase %rbx; rdgsbase %rcx");
/* To the 32-bit code at EDI by a far return, and round and round there. */
USER(to_32, "push $0x23; push %rdi; lretq");

static void segments(void)
{
    uint16_t ds, es;
    struct context c = run_user(place_code(load_selectors, load_selectors_next, NULL), 0, 0);
    __asm__ volatile("mov %%ds, %0; mov %%es, %1; mov %2, %%ds; mov %2, %%es"
                     : "=&r"(ds), "=&r"(es)
                     : "r"(0));
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(ds, 0x2b, "DS");
    expect_equal(es, 0x2b, "ES");
    verdict("selectors that user code loads");
    uint64_t *data = (uint64_t *)(void *)new_page();
    map_page(DATA, (uintptr_t)data, PG_P | PG_W | PG_U);
    data[0] = 11;
    data[9] = 22;
    uint64_t at = place_code(read_bases, read_bases_next, NULL);
    for (unsigned i = 0; i < 4; i++) {
        wrmsr(MSR_FS_BASE, i & 1 ? DATA : DATA + 72);
        wrmsr(MSR_GS_BASE, i & 1 ? DATA + 72 : DATA);
        c = run_user(at, 0, 0);
        expect_equal(c.gpr[RAX], i & 1 ? 11 : 22, "by FS");
        expect_equal(c.gpr[RBX], i & 1 ? 22 : 11, "by GS");
    }
    verdict("bases of FS and GS");
    if (!cpu_has(7, 1, 0)) {
        skip("WRGSBASE", "not offered");
        return;
    }
    c = run_user(place_code(set_gs_base, set_gs_base_next, NULL), 0, 0);
    expect(c.vector == UD || c.vector == VECTOR_DONE, "vector");
    expect_equal(rdmsr(MSR_GS_BASE), DATA + 72, "base");
    verdict("user code cannot change the base of GS unless it may");
    write_cr4(read_cr4() | CR4_FSGS);
    c = run_user(place_code(set_bases, set_bases_next, NULL), 0, 0);
    write_cr4(read_cr4() & ~CR4_FSGS);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RBX], 0x123456789a, "FS read");
    expect_equal(rdmsr(MSR_FS_BASE), 0x123456789a, "FS");
    expect_equal(rdmsr(MSR_GS_BASE), 0x123456789b, "GS");
    verdict("WRFSBASE and WRGSBASE");
}

/* mov $7, %eax; mov ECX, %ecx; 1: dec %ecx (INC EAX's REX-like byte first); jnz 1b; int $0x81 */
static const uint8_t code_32[] = {0xb8, 7, 0,    0,    0,    0xb9, 0x40, 0x4b,
                                  0x4c, 0, 0x40, 0x49, 0x75, 0xfc, 0xcd, VECTOR_DONE};

static void to_32_bits(void)
{
    uint64_t *table = (uint64_t *)(void *)new_page(), old = guest_pd[LOW_CODE >> 21];
    for (unsigned i = 0; i < 512; i++)
        table[i] = (LOW_CODE & ~UINT64_C(0x1fffff)) + i * 4096 + (PG_P | PG_U);
    memcpy((void *)(uintptr_t)LOW_CODE, code_32, sizeof(code_32));
    guest_pml4[0] |= PG_U;
    guest_pdpt[0] |= PG_U;
    guest_pd[LOW_CODE >> 21] = (uintptr_t)table | PG_P | PG_W | PG_U;
    write_cr3(read_cr3());
    uint64_t at = place_code(to_32, to_32_next, NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct context c = run_user(at, LOW_CODE, 0);
        expect_equal(c.vector, VECTOR_DONE, "vector");
        expect_equal(c.cs, SEL_UCODE32, "CS");
        expect_equal(c.rip, LOW_CODE + sizeof(code_32), "RIP");
        expect_equal(c.gpr[RAX], 7 + 5000000, "EAX");
    }
    guest_pd[LOW_CODE >> 21] = old;
    guest_pml4[0] &= ~(uint64_t)PG_U;
    guest_pdpt[0] &= ~(uint64_t)PG_U;
    write_cr3(read_cr3());
    verdict("a far return to 32-bit code");
}

void native_instructions(void)
{
    answers();
    extents();
    exceptions();
    system_calls();
    breakpoints();
    segments();
    to_32_bits();
}
