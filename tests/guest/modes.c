/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Modes and the ways between them. modes_code.S goes from long mode down to legacy protected mode, rings,
 * tasks, virtual-8086 mode, 32-bit and PAE paging, 16-bit protected mode and real mode, and leaves what it
 * saw at MODES_AT; here the tables for it are made and the results checked.
 */
#include "modes.h"

#include "guest.h"

/* modes_code.S */
void modes_run(void);
extern const uint8_t modes_vectors[], modes_low[], modes_low_end[], gate_entry32[], task_entry[];
extern const uint8_t modes_ring0_stack_end[], modes_task_stack_end[];

struct pointer32 {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

static uint64_t modes_gdt[M_GDT_LENGTH] __attribute__((aligned(8)));
static uint64_t modes_idt[64] __attribute__((aligned(8)));
static uint64_t modes_ldt[2];
extern uint32_t modes_tss[26], modes_tss_other[26];
uint32_t modes_tss[26], modes_tss_other[26];
extern struct pointer32 modes_gdt_pointer, modes_idt_pointer;
struct pointer32 modes_gdt_pointer, modes_idt_pointer;

static const struct {
    uint32_t index, want;
    const char *name;
} checks[] = {
#define RESULT(index, want, name) {index, want, name},
    MODES_LIST(RESULT)
#undef RESULT
};

static uint64_t segment(const void *base, uint32_t limit, uint32_t access, uint32_t flags)
{
    uint64_t b = (uintptr_t)base;
    return (limit & 0xffff) | (b & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (b >> 24 & 0xff) << 56;
}

static uint64_t gate(const void *entry, uint32_t selector, uint32_t access, uint32_t parameters)
{
    uint64_t a = (uintptr_t)entry;
    return (a & 0xffff) | (uint64_t)selector << 16 | (uint64_t)parameters << 32 | (uint64_t)access << 40 |
           (a >> 16 & 0xffff) << 48;
}

static void make_gdt(void)
{
    uint64_t *g = modes_gdt;
    g[M_CODE32 / 8] = segment(NULL, 0xfffff, 0x9b, 0xc);
    g[M_DATA32 / 8] = segment(NULL, 0xfffff, 0x93, 0xc);
    g[M_CODE16 / 8] = segment(NULL, 0xffff, 0x9b, 0);
    g[M_DATA16 / 8] = segment(NULL, 0xffff, 0x93, 0);
    g[M_SMALL / 8] = segment(scratch, 0xfff, 0x93, 4);
    g[M_DOWN / 8] = segment(scratch, 0xfff, 0x97, 4);
    g[M_READONLY / 8] = segment(scratch, 0xffff, 0x91, 4);
    g[M_EXECONLY / 8] = segment(NULL, 0xfffff, 0x99, 0xc);
    g[M_UCODE32 / 8] = segment(NULL, 0xfffff, 0xfb, 0xc);
    g[M_UDATA32 / 8] = segment(NULL, 0xfffff, 0xf3, 0xc);
    g[M_TSS / 8] = segment(modes_tss, sizeof(modes_tss) - 1, 0x89, 0);
    g[M_TSS_OTHER / 8] = segment(modes_tss_other, sizeof(modes_tss_other) - 1, 0x89, 0);
    g[M_TASK_GATE / 8] = gate(NULL, M_TSS_OTHER, 0xe5, 0);
    g[M_CALL_GATE / 8] = gate(gate_entry32, M_CODE32, 0xec, 2);
    g[M_LDT / 8] = segment(modes_ldt, sizeof(modes_ldt) - 1, 0x82, 0);
    g[M_ABSENT / 8] = segment(NULL, 0xfffff, 0x13, 0xc);
    modes_ldt[0] = segment(scratch, 0xffff, 0x93, 4);
    modes_gdt_pointer = (struct pointer32){sizeof(modes_gdt) - 1, (uint32_t)(uintptr_t)modes_gdt};
}

static void make_idt(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(modes_idt); i++)
        modes_idt[i] =
            gate(modes_vectors + 16 * i, M_CODE32, i == 0x30 || i == BP || i == OF ? 0xee : 0x8e, 0);
    modes_idt[0x32] = gate(NULL, M_TSS_OTHER, 0xe5, 0);
    modes_idt_pointer = (struct pointer32){sizeof(modes_idt) - 1, (uint32_t)(uintptr_t)modes_idt};
}

static void make_tasks(void)
{
    modes_tss[1] = (uint32_t)(uintptr_t)modes_ring0_stack_end;
    modes_tss[2] = M_DATA32;
    modes_tss[25] = sizeof(modes_tss) << 16;
    uint32_t *t = modes_tss_other;
    t[8] = (uint32_t)(uintptr_t)task_entry;
    t[9] = 2; /* EFLAGS */
    t[14] = (uint32_t)(uintptr_t)modes_task_stack_end;
    for (unsigned i = 18; i < 24; i++) /* ES CS SS DS FS GS */
        t[i] = i == 19 ? M_CODE32 : M_DATA32;
    t[25] = sizeof(modes_tss_other) << 16;
}

/* QEMU's translator knows no segment limits and types. */
static bool is_strict(uint32_t index)
{
    static const uint8_t strict[] = {6, 7, 8, 9, 11, 12, 13, 14, 84, 96, 105};
    for (unsigned i = 0; i < ARRAY_SIZE(strict); i++)
        if (strict[i] == index)
            return true;
    return false;
}

void guest_main(void)
{
    volatile uint32_t *results = (volatile uint32_t *)MODES_AT;
    for (unsigned i = 0; i < MODES_RESULTS; i++)
        results[i] = 0xdeadbeef;
    memcpy((void *)MODES_LOW, modes_low, (size_t)(modes_low_end - modes_low));
    make_gdt();
    make_idt();
    make_tasks();
    modes_run();
    for (unsigned i = 0; i < ARRAY_SIZE(checks); i++)
        if (in_harness() || !is_strict(checks[i].index))
            check_equal(results[checks[i].index], checks[i].want, checks[i].name);
}
