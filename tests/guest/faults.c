/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A page fault at every access of instructions with one or more accesses. Memory operands lie around the
 * boundary of two pages; one or both are absent or read-only at first and are put right at each fault. In the
 * end registers, flags and memory must be what they are without faults, and at a fault nothing may have
 * changed yet.
 */
#include "guest.h"

#define FIRST  TEST_BASE             /* operands by RDI */
#define SECOND (TEST_BASE + 0x10000) /* by RSI */
#define THIRD  (TEST_BASE + 0x20000) /* by RSP */
#define EDGE   0x1000
#define AREAS  3

static const uint64_t areas[AREAS] = {FIRST, SECOND, THIRD};
static uint8_t *pages[AREAS][2];
static uint8_t before[AREAS][2][4096], reference[AREAS][2][4096];

/* RDI, RSI and RSP are at the edge plus an offset; RAX, RBX, RCX, RDX hold numbers. */
#define LIST(X)                                                                                              \
    X(load8, "mov (%rdi), %al")                                                                              \
    X(load64, "mov (%rdi), %rax")                                                                            \
    X(store16, "mov %ax, (%rdi)")                                                                            \
    X(store32, "mov %eax, (%rdi)")                                                                           \
    X(store64, "mov %rax, (%rdi)")                                                                           \
    X(store_imm, "movl $0x12345678, (%rdi)")                                                                 \
    X(add_mem, "add %rax, (%rdi)")                                                                           \
    X(adc_mem, "stc; adc %eax, (%rdi)")                                                                      \
    X(inc_mem, "incq (%rdi)")                                                                                \
    X(neg_mem, "negl (%rdi)")                                                                                \
    X(shl_mem, "shlq $3, (%rdi)")                                                                            \
    X(rcr_mem, "rcrl $1, (%rdi)")                                                                            \
    X(shld_mem, "shld $5, %rax, (%rdi)")                                                                     \
    X(setc_mem, "stc; setc (%rdi)")                                                                          \
    X(xchg_mem, "xchg %rax, (%rdi)")                                                                         \
    X(xadd_mem, "xadd %rax, (%rdi)")                                                                         \
    X(lock_xadd, "lock xadd %eax, (%rdi)")                                                                   \
    X(lock_add, "lock addq $7, (%rdi)")                                                                      \
    X(lock_cmpxchg, "lock cmpxchg %rbx, (%rdi)")                                                             \
    X(cmpxchg_fail, "cmpxchg %ebx, (%rdi)")                                                                  \
    X(cmpxchg_good, "mov (%rsi), %rax; cmpxchg %rbx, (%rsi)")                                                \
    X(cmpxchg8b_, "cmpxchg8b (%rdi)")                                                                        \
    X(bts_mem, "bts %rcx, (%rdi)")                                                                           \
    X(btc_imm, "btcq $60, (%rdi)")                                                                           \
    X(push_reg, "push %rax")                                                                                 \
    X(push_imm, "push $0x77")                                                                                \
    X(push_mem, "pushq (%rdi)")                                                                              \
    X(push_rsp, "push %rsp")                                                                                 \
    X(push16, "pushw %ax")                                                                                   \
    X(pushf_, "pushfq")                                                                                      \
    X(pop_reg, "pop %rax")                                                                                   \
    X(pop_mem, "popq (%rdi)")                                                                                \
    X(pop_rsp_mem, "popq -8(%rsp)")                                                                          \
    X(pop_rsp, "pop %rsp")                                                                                   \
    X(call_near, "call 1f; nop; 1: nop")                                                                     \
    X(call_reg, "lea 1f(%rip), %rax; call *%rax; nop; 1: nop")                                               \
    X(call_mem, "lea 1f(%rip), %rax; mov %rax, (%rdi); call *(%rdi); nop; 1: nop")                           \
    X(jmp_mem, "lea 1f(%rip), %rax; mov %rax, (%rdi); jmp *(%rdi); nop; 1: nop")                             \
    X(ret_, "lea 1f(%rip), %rax; push %rax; ret; nop; 1: nop")                                               \
    X(ret_imm, "lea 1f(%rip), %rax; push %rax; ret $24; nop; 1: nop")                                        \
    X(enter0, "enter $32, $0")                                                                               \
    X(enter2, "lea 64(%rsp), %rbp; enter $16, $2")                                                           \
    X(leave_, "mov %rsp, %rbp; leave")                                                                       \
    X(movsb_, "movsb")                                                                                       \
    X(movsq_, "movsq")                                                                                       \
    X(movsq_down, "std; movsq; cld")                                                                         \
    X(stosd_, "stosl")                                                                                       \
    X(lodsw_, "lodsw")                                                                                       \
    X(cmpsq_, "cmpsq")                                                                                       \
    X(scasd_, "scasl")                                                                                       \
    X(rep_movsb, "mov $100, %ecx; rep movsb")                                                                \
    X(rep_movsq, "mov $20, %ecx; rep movsq")                                                                 \
    X(rep_movsd_down, "std; mov $20, %ecx; rep movsl; cld")                                                  \
    X(rep_stosq, "mov $20, %ecx; rep stosq")                                                                 \
    X(rep_stosb_down, "std; mov $30, %ecx; rep stosb; cld")                                                  \
    X(rep_lodsd, "mov $20, %ecx; rep lodsl")                                                                 \
    X(repe_cmpsb, "mov $100, %ecx; repe cmpsb")                                                              \
    X(repne_scasw, "mov $40, %ecx; mov $0x5a5b, %eax; repne scasw")                                          \
    X(mul_mem, "mulq (%rdi); cmp %rax, %rbx")                                                                \
    X(div_mem, "xor %edx, %edx; divq (%rdi)")                                                                \
    X(movups_load, "movups (%rdi), %xmm1; movq %xmm1, %rax")                                                 \
    X(movups_store, "movq %rax, %xmm1; punpcklqdq %xmm1, %xmm1; movups %xmm1, (%rdi)")                       \
    X(movq_store, "movq %rax, %xmm2; movq %xmm2, (%rdi)")                                                    \
    X(pinsrw_load, "pinsrw $3, (%rdi), %xmm1; movq %xmm1, %rax")                                             \
    X(maskmov, "movq %rax, %xmm1; pcmpeqd %xmm2, %xmm2; maskmovdqu %xmm2, %xmm1")                            \
    X(fld_, "fninit; fldl (%rdi); fstpl -200(%rsi)")                                                         \
    X(fst80, "fninit; fldpi; fstpt (%rdi)")                                                                  \
    X(fld80, "fninit; fldpi; fstpt -200(%rsi); fldt (%rdi); fstpt -300(%rsi)")                               \
    X(fistp_, "fninit; fld1; fistpq (%rdi)")                                                                 \
    X(fnstenv_, "fninit; fnstenv (%rdi); movq $0, 12(%rdi); movq $0, 20(%rdi)")                              \
    X(fnsave_, "fninit; fnsave (%rdi); movq $0, 12(%rdi); movq $0, 20(%rdi)")                                \
    X(stmxcsr_, "stmxcsr (%rdi)")                                                                            \
    X(movbe_, "bswap %rax; mov %rax, (%rdi)")                                                                \
    X(xlat_, "mov %rdi, %rbx; xlat")                                                                         \
    X(movnti_, "movnti %rax, (%rdi)")                                                                        \
    X(cmpsb_two, "cmpsb; cmpsb")                                                                             \
    X(two_pushes, "push %rax; push %rbx; push %rcx; pop %rdx; pop %rsi; pop %rdi")                           \
    X(base_run,                                                                                              \
      "mov %rax, (%rdi); mov %rbx, 8(%rdi); mov 4(%rdi), %rcx; add %rcx, 16(%rdi); mov %edx, -4(%rdi)")      \
    X(flags_kept, "stc; mov (%rdi), %rbx; adc $0, %rax; mov %rax, 8(%rdi); adc $0, %rdx; setc 16(%rdi)")     \
    X(two_loads, "mov (%rdi), %rax; mov (%rsi), %rbx; mov (%rsp), %rcx; add %rax, %rbx; adc %rbx, %rcx")

#define SNIP(name, text) SNIPPET(name, text, "");
LIST(SNIP)

static const struct access {
    const char *name;
    const uint8_t *code;
    const uint8_t *end;
} accesses[] = {
#define ROW(name, text) {#name, name, name##_next},
    LIST(ROW)};

static void fill(void)
{
    uint64_t x = 0x243f6a8885a308d3;
    for (unsigned a = 0; a < AREAS; a++)
        for (unsigned p = 0; p < 2; p++)
            for (unsigned i = 0; i < 4096; i++) {
                x = x * 6364136223846793005u + 1442695040888963407u;
                /* Areas 0 and 1 agree for a while, so that comparisons go on. */
                pages[a][p][i] = a < 2 && (i < 60 || i > 4000) ? (uint8_t)(i * 7) : (uint8_t)(x >> 56);
            }
}

static void copy_pages(uint8_t to[AREAS][2][4096])
{
    for (unsigned a = 0; a < AREAS; a++)
        for (unsigned p = 0; p < 2; p++)
            memcpy(to[a][p], pages[a][p], 4096);
}

static bool same_pages(uint8_t with[AREAS][2][4096])
{
    for (unsigned a = 0; a < AREAS; a++)
        for (unsigned p = 0; p < 2; p++) {
            const uint64_t *x = (const uint64_t *)(const void *)pages[a][p],
                           *y = (uint64_t *)(void *)with[a][p];
            for (unsigned i = 0; i < 512; i++)
                if (x[i] != y[i])
                    return false;
        }
    return true;
}

static void set_page(unsigned a, unsigned p, uint64_t flags)
{
    map_page(areas[a] + p * EDGE, (uintptr_t)pages[a][p], flags);
}

static struct context start_at(const struct access *x, int offset, bool user)
{
    struct context c = user ? user_context(x->code) : kernel_context(x->code);
    c.gpr[RAX] = 0x1122334455667788;
    c.gpr[RBX] = 0x99aabbccddeeff00;
    c.gpr[RCX] = 3;
    c.gpr[RDX] = 5;
    c.gpr[RBP] = 0xb0b;
    c.gpr[RDI] = FIRST + EDGE + (uint64_t)(int64_t)offset;
    c.gpr[RSI] = SECOND + EDGE + (uint64_t)(int64_t)offset;
    c.gpr[RSP] = THIRD + EDGE + (uint64_t)(int64_t)offset;
    c.rflags = 2;
    return c;
}

/* Whether the instruction at RIP may have gone part of its way: a repeated string instruction. */
static bool repeats(uint64_t rip, bool user)
{
    const uint8_t *p = (const uint8_t *)(uintptr_t)(rip - (user ? USER_ALIAS : 0));
    return *p == 0xf3 || *p == 0xf2;
}

static bool same_registers(const struct context *a, const struct context *b)
{
    for (unsigned i = 0; i < 16; i++)
        if (a->gpr[i] != b->gpr[i])
            return false;
    return true;
}

/*
 * Runs with pages of `flags` where a bit of `which` is set (two bits an area), putting each right at its
 * fault. At a fault, going back to it must change nothing: it is taken twice.
 */
static void run_with_faults(const struct access *x, int offset, bool user, unsigned which, uint64_t flags,
                            const struct context *want)
{
    const uint64_t good = PG_P | PG_W | PG_U;
    fill();
    for (unsigned i = 0; i < 2 * AREAS; i++)
        set_page(i / 2, i % 2, which >> i & 1 ? flags : good);
    struct context c = start_at(x, offset, user);
    for (unsigned faults = 0; faults < 20; faults++) {
        guest_run(&c);
        if (c.vector != PF)
            break;
        unsigned area = (unsigned)((c.cr2 - TEST_BASE) >> 16), page = c.cr2 >> 12 & 1;
        expect(area < AREAS && (which >> (2 * area + page) & 1), "CR2 is in a page that faults");
        if (area >= AREAS)
            break;
        uint64_t write = c.error & 2;
        expect_equal(c.error, (flags & PG_P) | write | (user ? 4 : 0), "error code");
        expect(!(flags & PG_P) || write, "only writes fault on a read-only page");
        struct context again = c;
        copy_pages(before);
        guest_run(&again);
        expect_equal(again.vector, PF, "vector the second time");
        expect_equal(again.rip, c.rip, "RIP the second time");
        expect_equal(again.cr2, c.cr2, "CR2 the second time");
        expect(repeats(c.rip, user) || same_registers(&again, &c), "registers as before the fault");
        expect(repeats(c.rip, user) || same_pages(before), "memory as before the fault");
        set_page(area, page, good);
    }
    expect_equal(c.vector, VECTOR_DONE, "vector at the end");
    expect(same_registers(&c, want), "registers at the end");
    expect_equal(c.rflags & ~FL_RF, want->rflags & ~FL_RF, "flags at the end");
    expect(same_pages(reference), "memory at the end");
}

/* Of the combinations of pages each offset takes one in `share`, in turns, so that all offsets have them all.
 */
static unsigned share = 1;

static void test(const struct access *x)
{
    static const int offsets[] = {-17, -16, -12, -8, -7, -5, -4, -3, -2,   -1,
                                  0,   1,   2,   4,  7,  8,  9,  16, -100, 60};
    for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++)
        for (unsigned user = 0; user < 2; user++) {
            fill();
            for (unsigned p = 0; p < 2 * AREAS; p++)
                set_page(p / 2, p % 2, PG_P | PG_W | PG_U);
            struct context want = start_at(x, offsets[i], user);
            guest_run(&want);
            expect_equal(want.vector, VECTOR_DONE, "vector of the reference");
            copy_pages(reference);
            unsigned step = user ? 5 : 1;
            for (unsigned which = 1 + i % share * step; which < 1 << (2 * AREAS); which += share * step) {
                run_with_faults(x, offsets[i], user, which, 0, &want);
                if (which % 3 == 0)
                    run_with_faults(x, offsets[i], user, which, PG_P | PG_U, &want);
            }
        }
    verdict(x->name);
}

void guest_main(void)
{
    if (harness_limits() & LIMIT_TRANSLATOR)
        share = 3;
    for (unsigned a = 0; a < AREAS; a++)
        for (unsigned p = 0; p < 2; p++)
            pages[a][p] = new_page();
    for (unsigned i = 0; i < ARRAY_SIZE(accesses); i++)
        /* QEMU's translator changes the flags of RCR before the store that faults. */
        if (accesses[i].code != rcr_mem || in_harness())
            test(&accesses[i]);
}
