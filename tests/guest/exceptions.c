/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every exception: vector, error code, the pushed RIP (at or after the instruction), code segment and RF. */
#include "guest.h"

/* --- #DE --- */
SNIPPET(divide_zero, "xor %ecx, %ecx", "div %ecx");
SNIPPET(divide_overflow, "mov $-1, %rdx; mov $1, %ecx", "div %rcx");
SNIPPET(idivide_overflow, "mov $0x80000000, %eax; cdq; mov $-1, %ecx", "idiv %ecx");
/* --- #BP, #OF, #BR --- */
SNIPPET(breakpoint, "", "int3");
SNIPPET(breakpoint_long, "", ".byte 0xcd, 3");
SNIPPET(into32, ".code32; mov $0x7f, %al; add $1, %al", "into");
SNIPPET(int_4, "", "int $4");
SNIPPET(bound32, ".code32; mov $0x2b, %eax; mov %eax, %ds; mov $bound_table, %ebx; mov $11, %eax",
        "bound %eax, (%ebx)");
const int32_t bound_table[2] = {-10, 10};
/* --- #UD --- */
SNIPPET(undefined, "", "ud2");
SNIPPET(lock_register, "", ".byte 0xf0, 0x01, 0xc0");
SNIPPET(lock_nop, "", ".byte 0xf0, 0x90");
SNIPPET(push_es, "", ".byte 0x06");
SNIPPET(mov_to_cs, "xor %eax, %eax", ".byte 0x8e, 0xc8");
SNIPPET(mov_cr1, "", ".byte 0x0f, 0x20, 0xc8");
SNIPPET(sse, "", "movaps %xmm0, %xmm1");
SNIPPET(avx, "", "vaddps %ymm0, %ymm1, %ymm2");
SNIPPET(fpu, "", "fld1");
SNIPPET(wait, "", "fwait");
SNIPPET(mmx, "", "emms");
SNIPPET(xgetbv, "xor %ecx, %ecx", "xgetbv");
/* --- #GP --- */
SNIPPET(read_hole, "mov $0x800000000000, %rax", "mov (%rax), %ebx");
SNIPPET(write_hole, "mov $0x8000000000000000, %rax", "mov %ebx, 7(%rax)");
SNIPPET(push_hole, "mov $0x800000000010, %rsp", "push %rax");
SNIPPET(rbp_hole, "mov $0x800000000000, %rbp", "mov (%rbp), %al");
SNIPPET(leave_hole, "mov $0x8000000000001d4e, %rbp", "leave");
SNIPPET(call_hole, "mov $0x800000000000, %rax", "call *%rax");
SNIPPET(unaligned_sse, "", "movaps %xmm0, -8(%rsp)");
SNIPPET(cli, "", "cli");
SNIPPET(sti, "", "sti");
SNIPPET(hlt, "", "hlt");
SNIPPET(in_al, "", "in $0x80, %al");
SNIPPET(out_dx, "mov $0x80, %edx", "out %eax, %dx");
SNIPPET(outs, "mov $0x80, %edx", "outsb");
SNIPPET(lgdt, "", "lgdt -16(%rsp)");
SNIPPET(lmsw, "", "lmsw %ax");
SNIPPET(clts, "", "clts");
SNIPPET(read_cr0_code, "", "mov %cr0, %rax");
SNIPPET(read_dr7_code, "", "mov %dr7, %rax");
SNIPPET(rdmsr_code, "mov $0xc0000080, %ecx", "rdmsr");
SNIPPET(rdmsr_none, "mov $0x12345678, %ecx", "rdmsr");
SNIPPET(wrmsr_none, "mov $0x12345678, %ecx", "wrmsr");
SNIPPET(wrmsr_efer, "mov $0xc0000080, %ecx; rdmsr; or $2, %eax", "wrmsr");
SNIPPET(wrmsr_base, "mov $0xc0000100, %ecx; xor %eax, %eax; mov $0x8000, %edx", "wrmsr");
SNIPPET(cr4_reserved, "mov %cr4, %rax; bts $31, %rax", "mov %rax, %cr4");
SNIPPET(cr4_no_pae, "mov %cr4, %rax; btr $5, %rax", "mov %rax, %cr4");
SNIPPET(cr0_no_pe, "mov %cr0, %rax; btr $0, %rax", "mov %rax, %cr0");
SNIPPET(cr0_nw, "mov %cr0, %rax; bts $29, %rax", "mov %rax, %cr0");
SNIPPET(cr3_reserved, "mov %cr3, %rax; bts $62, %rax", "mov %rax, %cr3");
SNIPPET(cr8_reserved, "mov $16, %eax", "mov %rax, %cr8");
SNIPPET(invlpg_code, "", "invlpg (%rsp)");
SNIPPET(wbinvd_code, "", "wbinvd");
SNIPPET(too_long, "",
        ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
SNIPPET(int_kernel_gate, "", "int $0x20");
SNIPPET(int_absent_gate, "", "int $0x90");
SNIPPET(int_null_gate, "", "int $0x91");
SNIPPET(load_ds_beyond, "mov $0x7f8, %eax", "mov %ax, %ds");
SNIPPET(load_ds_tss, "mov $0x40, %eax", "mov %ax, %ds");
SNIPPET(load_ds_kernel, "mov $0x10, %eax", "mov %ax, %ds");
SNIPPET(load_ds_ldt, "mov $0x0c, %eax", "mov %ax, %ds");
SNIPPET(load_ds_absent, "mov $0x140, %eax", "mov %ax, %ds");
SNIPPET(load_ss_absent, "mov $0x140, %eax", "mov %ax, %ss");
SNIPPET(load_ss_null_user, "xor %eax, %eax", "mov %ax, %ss");
SNIPPET(load_ss_code, "mov $8, %eax", "mov %ax, %ss");
SNIPPET(load_ss_rpl, "mov $0x13, %eax", "mov %ax, %ss");
SNIPPET(pop_fs_beyond, "push $0x7f8", "popw %fs");
SNIPPET(ltr_data, "mov $0x10, %eax", "ltr %ax");
SNIPPET(ltr_busy, "mov $0x40, %eax", "ltr %ax");
SNIPPET(lldt_data, "mov $0x10, %eax", "lldt %ax");
SNIPPET(swapgs_code, "", "swapgs");
SNIPPET(sysret_code, "", "sysretq");
SNIPPET(iret_code, "push $0x2b; push %rsp; push $2; push $0x40; push $0", "iretq");
SNIPPET(iret_null, "push $0x10; push %rsp; push $2; push $0; push $0", "iretq");
SNIPPET(iret_hole, "push $0x10; push %rsp; push $2; push $8; mov $0x800000000000, %rax; push %rax", "iretq");
SNIPPET(iret_nt, "push $0x4002; popfq", "iretq");
SNIPPET(far_jump_data, "push $0x10; push $0", "ljmp *(%rsp)");
SNIPPET(far_jump_null, "push $0; push $0; mov %rsp, %rax", "ljmp *(%rax)");
SNIPPET(far_call_absent, "push $0; movl $0, (%rsp); movw $0x148, 4(%rsp)", "lcall *(%rsp)");
SNIPPET(monitor_user, "", "monitor");
/* --- #MF, #AC, #XM --- */
SNIPPET(fpu_error, "fninit; push $0x37b; fldcw (%rsp); fldz; fld1; fdiv %st(1), %st", "fwait");
SNIPPET(fpu_error_later, "fninit; push $0x37b; fldcw (%rsp); fldz; fld1; fdiv %st(1), %st; nop", "fld1");
SNIPPET(sse_error, "push $0x1d80; ldmxcsr (%rsp); xorps %xmm1, %xmm1; mov $1, %eax; cvtsi2ss %eax, %xmm0",
        "divss %xmm1, %xmm0");
SNIPPET(unaligned_read, "", "mov -7(%rsp), %eax");
SNIPPET(unaligned_write, "", "mov %ax, -7(%rsp)");
SNIPPET(masked_8, "lea -56(%rsp), %rdi; and $-16, %rdi; add $8, %rdi", "maskmovdqu %xmm0, %xmm1");
SNIPPET(masked_4, "lea -56(%rsp), %rdi; and $-16, %rdi; add $4, %rdi", "maskmovdqu %xmm0, %xmm1");
SNIPPET(aligned_byte, "", "mov -7(%rsp), %al");

/* --- the conditions some need, and their undoing --- */

static void set_cr0(uint64_t set, uint64_t clear)
{
    write_cr0((read_cr0() | set) & ~clear);
}

static void ts(bool on)
{
    set_cr0(on ? BIT(3) : 0, on ? 0 : BIT(3));
}

static void em(bool on)
{
    set_cr0(on ? BIT(2) : 0, on ? 0 : BIT(2));
}

static void no_osfxsr(bool on)
{
    write_cr4(on ? read_cr4() & ~BIT(9) : read_cr4() | BIT(9));
}

static void no_osxmmexcpt(bool on)
{
    write_cr4(on ? read_cr4() & ~BIT(10) : read_cr4() | BIT(10));
}

static void am(bool on)
{
    set_cr0(on ? BIT(18) : 0, on ? 0 : BIT(18));
}

enum {
    SYSTEM = 0,
    USER = 1,
    COMPAT = 2,
    TRAP = 4 /* RIP is after it */,
    AC_FLAG = 8,
    STRICT = 16 /* QEMU's translator is lax here */
};

static const struct exception {
    const char *name;
    const uint8_t *code, *at, *next;
    unsigned flags;
    unsigned vector;
    uint32_t error;
    void (*condition)(bool on);
} exceptions[] = {
#define CASE(name, snippet, ...)                                                                             \
    {                                                                                                        \
        name, snippet, snippet##_at, snippet##_next, __VA_ARGS__                                             \
    }
    CASE("#DE: DIV by zero", divide_zero, SYSTEM, DE),
    CASE("#DE: DIV by zero at CPL 3", divide_zero, USER, DE),
    CASE("#DE: DIV overflow", divide_overflow, USER, DE),
    CASE("#DE: IDIV overflow", idivide_overflow, USER, DE),
    CASE("#BP: INT3", breakpoint, SYSTEM | TRAP, BP),
    CASE("#BP: INT3 at CPL 3", breakpoint, USER | TRAP, BP),
    CASE("#BP: INT 3 at CPL 3", breakpoint_long, USER | TRAP, BP),
    CASE("#OF: INT 4", int_4, USER | TRAP, OF),
    CASE("#OF: INTO in compatibility mode", into32, COMPAT | TRAP, OF),
    CASE("#BR: BOUND in compatibility mode", bound32, COMPAT, BR),
    CASE("#UD: UD2", undefined, SYSTEM, UD),
    CASE("#UD: UD2 at CPL 3", undefined, USER, UD),
    CASE("#UD: UD2 in compatibility mode", undefined, COMPAT, UD),
    CASE("#UD: LOCK on a register", lock_register, USER, UD),
    CASE("#UD: LOCK NOP", lock_nop, USER, UD),
    CASE("#UD: PUSH ES in 64-bit mode", push_es, USER, UD),
    CASE("#UD: MOV to CS", mov_to_cs, SYSTEM, UD),
    CASE("#UD: MOV from CR1", mov_cr1, SYSTEM, UD),
    CASE("#UD: SSE under CR0.EM", sse, USER, UD, 0, em),
    CASE("#UD: MMX under CR0.EM", mmx, USER | STRICT, UD, 0, em),
    CASE("#UD: SSE without CR4.OSFXSR", sse, USER, UD, 0, no_osfxsr),
    CASE("#UD: AVX without CR4.OSXSAVE", avx, USER, UD),
    CASE("#UD: XGETBV without CR4.OSXSAVE", xgetbv, USER, UD),
    CASE("#NM: x87 under CR0.TS", fpu, USER, NM, 0, ts),
    CASE("#NM: x87 under CR0.EM", fpu, SYSTEM, NM, 0, em),
    CASE("#NM: WAIT under CR0.TS and MP", wait, USER, NM, 0, ts),
    CASE("#NM: SSE under CR0.TS", sse, SYSTEM, NM, 0, ts),
    CASE("#NM: MMX under CR0.TS", mmx, SYSTEM | STRICT, NM, 0, ts),
    CASE("#GP: reading a non-canonical address", read_hole, SYSTEM, GP),
    CASE("#GP: writing a non-canonical address at CPL 3", write_hole, USER, GP),
    CASE("#SS: pushing to a non-canonical address", push_hole, USER | STRICT, SS),
    CASE("#SS: non-canonical address by RBP", rbp_hole, USER | STRICT, SS),
    CASE("#SS: LEAVE from a non-canonical address", leave_hole, USER | STRICT, SS),
    CASE("#GP: call to a non-canonical address", call_hole, USER | STRICT, GP),
    CASE("#GP: MOVAPS to an unaligned address", unaligned_sse, USER, GP),
    CASE("#GP: CLI at CPL 3", cli, USER, GP),
    CASE("#GP: STI at CPL 3", sti, USER, GP),
    CASE("#GP: HLT at CPL 3", hlt, USER, GP),
    CASE("#GP: IN at CPL 3", in_al, USER, GP),
    CASE("#GP: OUT at CPL 3", out_dx, USER, GP),
    CASE("#GP: OUTSB at CPL 3", outs, USER, GP),
    CASE("#GP: LGDT at CPL 3", lgdt, USER, GP),
    CASE("#GP: LMSW at CPL 3", lmsw, USER, GP),
    CASE("#GP: CLTS at CPL 3", clts, USER, GP),
    CASE("#GP: MOV from CR0 at CPL 3", read_cr0_code, USER, GP),
    CASE("#GP: MOV from DR7 at CPL 3", read_dr7_code, USER, GP),
    CASE("#GP: RDMSR at CPL 3", rdmsr_code, USER, GP),
    CASE("#GP: INVLPG at CPL 3", invlpg_code, USER, GP),
    CASE("#GP: WBINVD at CPL 3", wbinvd_code, USER, GP),
    CASE("#GP: SWAPGS at CPL 3", swapgs_code, USER, GP),
    CASE("#GP: SYSRET at CPL 3", sysret_code, USER, GP),
    CASE("#GP: LTR at CPL 3", ltr_data, USER, GP),
    CASE("#GP: RDMSR of an unknown MSR", rdmsr_none, SYSTEM | STRICT, GP),
    CASE("#GP: WRMSR of an unknown MSR", wrmsr_none, SYSTEM | STRICT, GP),
    CASE("#GP: WRMSR of a reserved EFER bit", wrmsr_efer, SYSTEM | STRICT, GP),
    CASE("#GP: WRMSR of a non-canonical FS base", wrmsr_base, SYSTEM | STRICT, GP),
    CASE("#GP: reserved bit of CR4", cr4_reserved, SYSTEM | STRICT, GP),
    CASE("#GP: CR4.PAE off in long mode", cr4_no_pae, SYSTEM | STRICT, GP),
    CASE("#GP: CR0.PE off with paging on", cr0_no_pe, SYSTEM | STRICT, GP),
    CASE("#GP: CR0.NW without CD", cr0_nw, SYSTEM | STRICT, GP),
    CASE("#GP: reserved bit of CR3", cr3_reserved, SYSTEM | STRICT, GP),
    CASE("#GP: reserved bit of CR8", cr8_reserved, SYSTEM | STRICT, GP),
    CASE("#GP: an instruction of 16 bytes", too_long, USER, GP),
    CASE("#GP: INT of a gate with DPL 0 at CPL 3", int_kernel_gate, USER | STRICT, GP, 0x20 * 8 + 2),
    CASE("#NP: INT of an absent gate", int_absent_gate, SYSTEM | STRICT, NP, 0x90 * 8 + 2),
    CASE("#GP: INT of an empty gate", int_null_gate, SYSTEM | STRICT, GP, 0x91 * 8 + 2),
    CASE("#GP: DS beyond the GDT", load_ds_beyond, SYSTEM, GP, 0x7f8),
    CASE("#GP: DS of a TSS", load_ds_tss, SYSTEM, GP, 0x40),
    CASE("#GP: kernel DS at CPL 3", load_ds_kernel, USER, GP, 0x10),
    CASE("#GP: DS in an LDT that is not there", load_ds_ldt, SYSTEM, GP, 0x0c),
    CASE("#NP: absent DS", load_ds_absent, SYSTEM, NP, 0x140),
    CASE("#SS: absent SS", load_ss_absent, SYSTEM, SS, 0x140),
    CASE("#GP: null SS at CPL 3", load_ss_null_user, USER, GP),
    CASE("#GP: SS of a code segment", load_ss_code, SYSTEM, GP, 0x08),
    CASE("#GP: SS of the wrong RPL", load_ss_rpl, SYSTEM, GP, 0x10),
    CASE("#GP: POP FS beyond the GDT", pop_fs_beyond, SYSTEM, GP, 0x7f8),
    CASE("#GP: LTR of a data segment", ltr_data, SYSTEM, GP, 0x10),
    CASE("#GP: LTR of a busy TSS", ltr_busy, SYSTEM, GP, 0x40),
    CASE("#GP: LLDT of a data segment", lldt_data, SYSTEM, GP, 0x10),
    CASE("#GP: IRET to a TSS", iret_code, SYSTEM, GP, 0x40),
    CASE("#GP: IRET to a null CS", iret_null, SYSTEM, GP, 0),
    CASE("#GP: IRET to a non-canonical RIP", iret_hole, SYSTEM | STRICT, GP, 0),
    CASE("#GP: IRET with NT in long mode", iret_nt, SYSTEM, GP, 0),
    CASE("#GP: far jump to a null selector", far_jump_null, SYSTEM, GP, 0),
    CASE("#NP: far call of an absent segment", far_call_absent, SYSTEM, NP, 0x148),
    CASE("#MF: WAIT after a division by zero", fpu_error, USER, MF),
    CASE("#MF: the next x87 instruction", fpu_error_later, SYSTEM | STRICT, MF),
    CASE("#XM: SSE division by zero", sse_error, USER | STRICT, XM),
    CASE("#UD: SSE division by zero without OSXMMEXCPT", sse_error, USER | STRICT, UD, 0, no_osxmmexcpt),
    CASE("#AC: unaligned read at CPL 3", unaligned_read, USER | STRICT | AC_FLAG, AC, 0, am),
    CASE("#AC: unaligned write at CPL 3", unaligned_write, USER | STRICT | AC_FLAG, AC, 0, am),
    CASE("#AC: MASKMOVDQU to 4 beyond an aligned address", masked_4, USER | STRICT | AC_FLAG, AC, 0, am),
    CASE("no #AC: MASKMOVDQU to 8 beyond an aligned address", masked_8, USER | AC_FLAG | TRAP, VECTOR_DONE, 0,
         am),
    CASE("no #AC: a byte", aligned_byte, USER | AC_FLAG | TRAP, VECTOR_DONE, 0, am),
    CASE("no #AC: CR0.AM clear", unaligned_read, USER | AC_FLAG | TRAP, VECTOR_DONE),
    CASE("no #AC: EFLAGS.AC clear", unaligned_read, USER | TRAP, VECTOR_DONE, 0, am),
    CASE("no #AC: CPL 0", unaligned_read, SYSTEM | AC_FLAG | TRAP, VECTOR_DONE, 0, am),
};

/* A processor that lets this pass makes a state that no processor may be entered with. */
static bool ends_guest(const struct exception *e)
{
    bool invalid =
        e->code == wrmsr_base || e->code == cr0_no_pe || e->code == cr0_nw || e->code == cr3_reserved;
    if (!invalid || !(harness_limits() & LIMIT_TRANSLATOR))
        return false;
    skip(e->name, "QEMU's translator lets it pass");
    return true;
}

static void run_case(const struct exception *e)
{
    struct context c = e->flags & USER     ? user_context(e->code)
                       : e->flags & COMPAT ? compat_context(e->code)
                                           : kernel_context(e->code);
    uint64_t shift = c.rip - (uintptr_t)e->code, cs = c.cs;
    if (e->flags & AC_FLAG)
        c.rflags |= FL_AC;
    if (e->condition)
        e->condition(true);
    guest_run(&c);
    if (e->condition)
        e->condition(false);
    /* The harness can be held to RF; QEMU's translator leaves it out. */
    bool fault = !(e->flags & TRAP);
    uint64_t want_rip = (uintptr_t)(fault ? e->at : e->next) + shift;
    if (e->vector == VECTOR_DONE)
        want_rip += 2;
    expect_equal(c.vector, e->vector, "vector");
    expect_equal(c.error, e->error, "error code");
    expect_equal(c.rip, want_rip, "RIP");
    expect_equal(c.cs, cs, "CS");
    if (in_harness())
        expect_equal(!!(c.rflags & FL_RF), fault, "RF");
    verdict(e->name);
    __asm__ volatile("fninit");
}

/* --- addresses that differ from those of pages in use by bits that no address may have --- */

SNIPPET(stos, "", "rep stosb");
SNIPPET(leave, "", "leave");

static void not_canonical(uint64_t address)
{
    struct context c = user_context(stos);
    c.gpr[RDI] = address;
    c.gpr[RCX] = 8;
    guest_run(&c);
    expect_equal(c.vector, GP, "vector of STOS");
    expect_equal(c.gpr[RDI], address, "RDI");
    expect_equal(c.gpr[RCX], 8, "RCX");
    c = kernel_context(leave);
    c.gpr[RBP] = address;
    guest_run(&c);
    expect_equal(c.vector, SS, "vector of LEAVE");
    expect_equal(c.gpr[RBP], address, "RBP");
    expect(c.gpr[RSP] != address + 8, "RSP");
}

static void holes(void)
{
    for (unsigned bit = 47; bit < 64; bit++)
        for (uint64_t page = 0; page < 16; page++)
            not_canonical(BIT(bit) + (page << 12) + 0xd4e);
    verdict("non-canonical addresses: pages that nobody uses");
    code_page[0] = 0xcd; /* int $0x81 */
    code_page[1] = 0x81;
    struct context c = kernel_context(code_page);
    guest_run(&c);
    code_page[8] = 1; /* written, and code again */
    guest_run(&c);
    for (unsigned bit = 47; bit < 64; bit++)
        not_canonical(((uintptr_t)code_page + 8) ^ BIT(bit));
    verdict("non-canonical addresses: a page with code");
}

/* --- double faults and faults in delivery --- */

static void double_faults(void)
{
    struct gate pf = guest_idt[PF], ud = guest_idt[UD];
    struct context c = kernel_context(undefined);
    guest_idt[UD].type &= 0x7f;
    guest_run(&c);
    guest_idt[UD] = ud;
    expect_equal(c.vector, NP, "vector");
    if (in_harness())
        expect_equal(c.error, UD * 8 + 3, "error code");
    expect_equal(c.rip, (uintptr_t)undefined_at, "RIP");
    verdict("#NP: the gate of #UD is absent");

    extern const uint8_t read_absent[], read_absent_at[];
    c = kernel_context(read_absent);
    guest_idt[PF].type &= 0x7f;
    guest_run(&c);
    guest_idt[PF] = pf;
    expect_equal(c.vector, DF, "vector");
    expect_equal(c.error, 0, "error code");
    expect_equal(c.cr2, 0xffffffffc0000000, "CR2");
    verdict("#DF: the gate of #PF is absent");

    guest_idt[PF].ist = 3; /* a stack that is not there */
    guest_tss[0].ist[2] = 0xffffffffc0001000;
    c = user_context(read_absent);
    guest_run(&c);
    guest_idt[PF] = pf;
    expect_equal(c.vector, DF, "vector");
    expect_equal(c.error, 0, "error code");
    expect_equal(c.cs, SEL_UCODE64, "CS");
    expect_equal(c.rip, (uintptr_t)user_pointer(read_absent_at), "RIP");
    verdict("#DF: #PF on the stack of #PF");

    guest_idt[UD].ist = 3;
    guest_tss[0].ist[2] = 0x800000001000;
    c = kernel_context(undefined);
    guest_run(&c);
    guest_idt[UD] = ud;
    expect_equal(c.vector, SS, "vector");
    expect_equal(c.error & ~UINT64_C(1), 0, "error code");
    verdict("#SS: a non-canonical stack for #UD");
}
SNIPPET(read_absent, "mov $0xffffffffc0000000, %rax", "mov (%rax), %eax");

void guest_main(void)
{
    guest_gdt[SEL_FREE / 8] = UINT64_C(0x00cf13000000ffff);     /* absent data segment */
    guest_gdt[SEL_FREE / 8 + 1] = UINT64_C(0x00af1b000000ffff); /* absent code segment */
    guest_idt[0x90].type &= 0x7f;
    guest_idt[0x91] = (struct gate){0};
    for (unsigned i = 0; i < ARRAY_SIZE(exceptions); i++)
        if ((!(exceptions[i].flags & STRICT) || in_harness()) && !ends_guest(&exceptions[i]))
            run_case(&exceptions[i]);
    if (in_harness())
        holes();
    double_faults();
}
