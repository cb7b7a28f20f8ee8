/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Single-stepping over instructions of every kind, and hardware breakpoints. */
#include "guest.h"

#define DR6_BS   BIT(14)
#define DR6_BD   BIT(13)
#define DR6_NONE UINT64_C(0xffff0ff0)

/* --- single step --- */

#define STEPS_MAX 64
static uint64_t steps[STEPS_MAX], step_dr6[STEPS_MAX];
static unsigned step_count;

static bool note_step(struct frame *f)
{
    if (step_count < STEPS_MAX) {
        steps[step_count] = f->rip;
        step_dr6[step_count] = read_dr6();
    }
    step_count++;
    write_dr6(DR6_NONE);
    if (step_count > 2 * STEPS_MAX)
        panic("single steps without end");
    return true;
}

/*
 * Code in which each label 10..NN marks where a trap is due, in order, given in a table. It begins with POPFQ
 * of TF: the first trap comes after the instruction behind it.
 */
#define STEP(name, text, marks)                                                                              \
    extern const uint8_t name[];                                                                             \
    extern const uint64_t name##_marks[], name##_marks_end[];                                                \
    __asm__(".pushsection .text.snippets, \"ax\"\n.globl " #name "\n" #name                                  \
            ": pushfq; orl $0x100, (%rsp); popfq\n" text                                                     \
            "\npushfq; andl $~0x100, (%rsp); popfq\n99: nop\nint $0x81\n"                                    \
            ".pushsection .rodata\n.balign 8\n.globl " #name "_marks, " #name "_marks_end\n" #name           \
            "_marks: " marks "\n" #name "_marks_end:\n.popsection\n.popsection\n")

STEP(step_nops, "nop; 1: nop; 2: nop; 3:", ".quad 1b, 2b, 3b, 3b + 1, 3b + 8, 99b");
STEP(step_alu,
     "add $1, %rax; 1: imul %rax, %rbx; 2: shl %cl, %rdx; 3:", ".quad 1b, 2b, 3b, 3b + 1, 3b + 8, 99b");
STEP(step_stack,
     "push %rax; 1: pop %rbx; 2: push $5; 3: add $8, %rsp; 4:", ".quad 1b, 2b, 3b, 4b, 4b + 1, 4b + 8, 99b");
STEP(step_jump, "jmp 1f; nop; 1: xor %eax, %eax; 2: jz 3f; nop; 3: jnz 2b; 4:",
     ".quad 1b, 2b, 3b, 4b, 4b + 1, 4b + 8, 99b");
STEP(step_call, "call 1f; 4: jmp 3f; 1: nop; 2: ret; 3:", ".quad 1b, 2b, 4b, 3b, 3b + 1, 3b + 8, 99b");
STEP(step_indirect, "lea 2f(%rip), %rax; 1: jmp *%rax; nop; 2: push %rax; 3: pop %rax; 4:",
     ".quad 1b, 2b, 3b, 4b, 4b + 1, 4b + 8, 99b");
STEP(step_loop, "mov $3, %ecx; 1: loop 1b; 2:", ".quad 1b, 1b, 1b, 2b, 2b + 1, 2b + 8, 99b");
STEP(step_string,
     "lea scratch(%rip), %rdi; 1: stosb; 2: mov $3, %ecx; 3: rep stosb; 4: xor %ecx, %ecx; 5: rep stosb; 6:",
     ".quad 1b, 2b, 3b, 3b, 3b, 4b, 5b, 6b, 6b + 1, 6b + 8, 99b");
STEP(step_repe, "lea scratch(%rip), %rdi; 1: mov %rdi, %rsi; 2: mov $2, %ecx; 3: repe cmpsb; 4:",
     ".quad 1b, 2b, 3b, 3b, 4b, 4b + 1, 4b + 8, 99b");
STEP(step_mov_ss, "mov %ss, %eax; 1: mov %eax, %ss; 2: nop; 3: push %rax; 4: pop %rax; 5:",
     ".quad 1b, 3b, 4b, 5b, 5b + 1, 5b + 8, 99b");
STEP(step_system,
     "mov %cr3, %rax; 1: mov %rax, %cr3; 2: cpuid; 3: rdtsc; 4: mov $0xe9, %edx; 5: in %dx, %al; 6: clts; 7:",
     ".quad 1b, 2b, 3b, 4b, 5b, 6b, 7b, 7b + 1, 7b + 8, 99b");
STEP(step_vector, "fninit; 1: fld1; 2: fstp %st(0); 3: pxor %xmm0, %xmm0; 4: movups %xmm0, scratch(%rip); 5:",
     ".quad 1b, 2b, 3b, 4b, 5b, 5b + 1, 5b + 8, 99b");
STEP(step_lock,
     "lock incl scratch(%rip); 1: xchg %rax, scratch(%rip); 2: lock cmpxchg %rbx, scratch(%rip); 3:",
     ".quad 1b, 2b, 3b, 3b + 1, 3b + 8, 99b");
STEP(step_int, "nop; 1: int $0x82; 2: nop; 3: nop; 4:", ".quad 1b, 3b, 4b, 4b + 1, 4b + 8, 99b");
STEP(step_iret,
     "mov %rsp, %rax; 1: mov %ss, %edx; 2: push %rdx; 3: push %rax; 4: pushfq; 5: push $8; 6: lea 8f(%rip), "
     "%rbx;"
     "7: push %rbx; 70: iretq; nop; 8: nop; 9:",
     ".quad 1b, 2b, 3b, 4b, 5b, 6b, 7b, 70b, 8b, 9b, 9b + 1, 9b + 8, 99b");
STEP(step_far, "push $8; 1: lea 4f(%rip), %rax; 2: push %rax; 3: lretq; nop; 4:",
     ".quad 1b, 2b, 3b, 4b, 4b + 1, 4b + 8, 99b");
STEP(step_enter,
     "push %rbp; 1: enter $16, $0; 2: leave; 3: pop %rbp; 4:", ".quad 1b, 2b, 3b, 4b, 4b + 1, 4b + 8, 99b");
STEP(step_popf, "pushfq; 1: popfq; 2: nop; 3:", ".quad 1b, 2b, 3b, 3b + 1, 3b + 8, 99b");
__asm__(".pushsection .text\nstep_iret_only: iretq\n.popsection");
extern const uint8_t step_iret_only[];

static const struct step {
    const char *name;
    const uint8_t *code;
    const uint64_t *marks, *end;
    bool user;
} step_tests[] = {
#define ROW(text, name, user)                                                                                \
    {                                                                                                        \
        text, name, name##_marks, name##_marks_end, user                                                     \
    }
    ROW("single step: NOP", step_nops, true),
    ROW("single step: arithmetic", step_alu, true),
    ROW("single step: the stack", step_stack, true),
    ROW("single step: jumps", step_jump, true),
    ROW("single step: CALL and RET", step_call, true),
    ROW("single step: indirect jumps", step_indirect, true),
    ROW("single step: LOOP", step_loop, true),
    ROW("single step: STOS and REP STOS", step_string, true),
    ROW("single step: REPE CMPS", step_repe, true),
    ROW("single step: MOV SS holds the trap off", step_mov_ss, false),
    ROW("single step: system instructions", step_system, false),
    ROW("single step: x87 and SSE", step_vector, true),
    ROW("single step: LOCK", step_lock, true),
    ROW("single step: INT and back", step_int, true),
    ROW("single step: IRET", step_iret, false),
    ROW("single step: far return", step_far, false),
    ROW("single step: ENTER and LEAVE", step_enter, true),
    ROW("single step: POPF", step_popf, true),
};

static void single_step(const struct step *t, bool user)
{
    struct context c = user ? user_context(t->code) : kernel_context(t->code);
    uint64_t shift = user ? USER_ALIAS : 0;
    unsigned want = (unsigned)(t->end - t->marks);
    step_count = 0;
    write_dr6(DR6_NONE);
    handlers[DB] = note_step;
    guest_run(&c);
    handlers[DB] = NULL;
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(step_count, want, "number of traps");
    for (unsigned i = 0; i < want && i < step_count; i++) {
        expect_equal(steps[i], t->marks[i] + shift, "RIP of the trap");
        expect_equal(step_dr6[i], DR6_NONE | DR6_BS, "DR6");
    }
}

/* --- breakpoints --- */

static struct {
    unsigned count;
    uint64_t rip, dr6, rflags;
} hit;

static bool note_break(struct frame *f)
{
    hit.count++;
    hit.rip = f->rip;
    hit.dr6 = read_dr6();
    hit.rflags = f->rflags;
    write_dr6(DR6_NONE);
    f->rflags |= FL_RF;
    return true;
}

enum { BREAK_EXECUTE = 0, BREAK_WRITE = 1, BREAK_IO = 2, BREAK_READ_WRITE = 3 };

static void set_break(unsigned n, uint64_t address, unsigned kind, unsigned length)
{
    static const uint8_t code[9] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    if (n == 0)
        write_dr0(address);
    else
        write_dr3(address);
    uint64_t dr7 = read_dr7() & ~(UINT64_C(0xf) << (16 + 4 * n));
    write_dr7(dr7 | BIT(2 * n) | (uint64_t)(kind | code[length] << 2) << (16 + 4 * n));
    hit.count = 0;
}

static void no_breaks(void)
{
    write_dr7(0x400);
}

static void run_broken(const uint8_t *code, bool user)
{
    struct context c = user ? user_context(code) : kernel_context(code);
    c.gpr[RDI] = (uintptr_t)scratch + (user ? USER_ALIAS : 0);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
}

SNIPPET(break_here, "nop; nop", "inc %eax");
SNIPPET(store4, "mov $7, %eax", "mov %eax, 4(%rdi)");
SNIPPET(load4, "", "mov 4(%rdi), %eax");
SNIPPET(store_around, "", "mov %rax, 1(%rdi)");
SNIPPET(store_beside, "", "mov %eax, 8(%rdi); mov %eax, (%rdi)");
SNIPPET(push_break, "lea 16(%rdi), %rsp", "push %rax; push %rax; push %rax");
SNIPPET(rep_break, "mov $10, %ecx", "rep stosb; nop");
SNIPPET(io_break, "mov $0xe9, %edx", "in %dx, %al");
SNIPPET(dr_access, "", "mov %dr0, %rax");
SNIPPET(dr4_access, "", "mov %dr4, %rax");
SNIPPET(icebp, "", ".byte 0xf1");

/* What QEMU's translator does not have. */
static void not_in_qemu(void)
{
    write_dr7(0x2400);
    struct context c = kernel_context(dr_access);
    guest_run(&c);
    uint64_t dr6 = read_dr6(), dr7 = read_dr7();
    expect_equal(c.vector, DB, "vector");
    expect_equal(c.rip, (uintptr_t)dr_access_at, "RIP");
    expect_equal(dr6, DR6_NONE | DR6_BD, "DR6");
    expect_equal(dr7, 0x400, "GD is cleared");
    verdict("#DB: debug register under general detect");
    write_dr6(DR6_NONE);
    c = user_context(icebp);
    guest_run(&c);
    expect_equal(c.vector, DB, "vector");
    expect_equal(c.rip, (uintptr_t)user_pointer(icebp_next), "RIP");
    expect_equal(read_dr6() & DR6_BS, 0, "DR6");
    verdict("#DB: INT1");
}

static void breakpoints(void)
{
    handlers[DB] = note_break;
    for (unsigned user = 0; user < 2; user++) {
        uint64_t shift = user ? USER_ALIAS : 0, data = (uintptr_t)scratch + shift;
        set_break(0, (uintptr_t)break_here_at + shift, BREAK_EXECUTE, 1);
        for (unsigned i = 0; i < 5; i++)
            run_broken(break_here, user);
        expect_equal(hit.count, 5, "hits");
        expect_equal(hit.rip, (uintptr_t)break_here_at + shift, "RIP");
        expect_equal(hit.dr6, DR6_NONE | 1, "DR6");
        if (in_harness())
            expect_equal(hit.rflags & FL_RF, 0, "RF");
        verdict("breakpoint on execution");
        no_breaks();
        run_broken(break_here, user);
        expect_equal(hit.count, 5, "hits when off");
        verdict("breakpoint taken away");

        set_break(3, data + 4, BREAK_WRITE, 4);
        run_broken(store4, user);
        expect_equal(hit.count, 1, "hits");
        expect_equal(hit.rip, (uintptr_t)store4_next + shift, "RIP is after the store");
        expect_equal(hit.dr6, DR6_NONE | 8, "DR6");
        run_broken(load4, user);
        expect_equal(hit.count, 1, "hits of a load");
        run_broken(store_around, user);
        expect_equal(hit.count, 2, "hits of a store that overlaps");
        run_broken(store_beside, user);
        expect_equal(hit.count, 2, "hits of stores beside it");
        verdict("breakpoint on writes");
        set_break(3, data + 4, BREAK_READ_WRITE, 1);
        run_broken(load4, user);
        run_broken(store4, user);
        expect_equal(hit.count, 2, "hits");
        verdict("breakpoint on reads and writes");
        set_break(3, data, BREAK_WRITE, 8);
        run_broken(push_break, user);
        expect_equal(hit.count, 1, "hits");
        verdict("breakpoint on the stack");
        set_break(3, data + 4, BREAK_WRITE, 2);
        run_broken(rep_break, user);
        expect_equal(hit.count, 2, "hits");
        verdict("breakpoint within REP STOS");
        no_breaks();
    }
    write_cr4(read_cr4() | BIT(3));
    set_break(0, 0xe9, BREAK_IO, 1);
    run_broken(io_break, false);
    expect_equal(hit.count, 1, "hits");
    expect_equal(hit.rip, (uintptr_t)io_break_next, "RIP");
    verdict("breakpoint on a port");
    no_breaks();
    struct context c = kernel_context(dr4_access);
    guest_run(&c);
    expect_equal(c.vector, UD, "vector");
    verdict("#UD: DR4 under CR4.DE");
    write_cr4(read_cr4() & ~BIT(3));
    c = kernel_context(dr4_access);
    guest_run(&c);
    expect_equal(c.vector, VECTOR_DONE, "vector");
    expect_equal(c.gpr[RAX], read_dr6(), "DR4 is DR6");
    verdict("DR4 without CR4.DE");
    handlers[DB] = NULL;
    if (in_harness())
        not_in_qemu();
    write_dr6(0);
    expect_equal(read_dr6(), DR6_NONE, "DR6");
    write_dr7(UINT64_C(0x3ff) | 0xf0000000);
    expect_equal(read_dr7(), 0xf00007ff, "DR7");
    write_dr7(0);
    expect_equal(read_dr7(), 0x400, "DR7");
    verdict("fixed bits of DR6 and DR7");
}

void guest_main(void)
{
    set_gate(0x82, step_iret_only, 0xee, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(step_tests); i++) {
        single_step(&step_tests[i], false);
        if (step_tests[i].user)
            single_step(&step_tests[i], true);
        verdict(step_tests[i].name);
    }
    breakpoints();
}
