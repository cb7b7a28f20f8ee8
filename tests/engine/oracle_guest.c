/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The oracle's guest side: a 64-bit guest whose page tables show the sequences' code and data at the same
 * linear addresses as in the native child, and a small kernel (oracle_guest.S) that runs them at CPL 3 or 0.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "oracle.h"

/* Guest physical memory. */
#define POOL_GPA       0x100000u
#define POOL_SIZE      0x200000u
#define KERNEL_GPA     0x400000u /* code, tables, stack, inputs and results */
#define KERNEL_SIZE    0x200000u
#define GDT_GPA        (KERNEL_GPA + 0x2000)
#define TSS_GPA        (KERNEL_GPA + 0x2200)
#define IDT_GPA        (KERNEL_GPA + 0x3000)
#define TRAMPOLINE_GPA (KERNEL_GPA + 0x4000)
#define READ_ONLY_GPA  (KERNEL_GPA + 0x5000)
#define STACK_TOP_GPA  (KERNEL_GPA + 0x8000)
#define IN_GPA         (KERNEL_GPA + 0x10000)
#define OUT_GPA        (KERNEL_GPA + 0x100000)
#define CODE_GPA       0x800000u
#define WINDOWS_GPA    0x1000000u

#define KERNEL_VA  UINT64_C(0xffff800000000000) /* of physical address 0 */
#define TIMEOUT_MS 10000u

/* Selectors as Linux has them, for sequences that read CS or SS. */
enum {
    KERNEL_CS = 0x10,
    KERNEL_SS = 0x18,
    USER_CS32 = 0x23,
    USER_SS = 0x2b,
    USER_CS = 0x33,
    TSS = 0x40,
    USER_CS16 = 0x53
};

/* 16-bit code reaches 64 KiB from its segment's base, so several segments cover the slots. */
#define CODE16_SLOTS    64u
#define CODE16_SEGMENTS (ORACLE_BATCH / CODE16_SLOTS)
#define GDT_ENTRIES     (USER_CS16 / 8 + CODE16_SEGMENTS)

/* The start of the kernel image. */
struct kernel_control {
    uint64_t in, out, index, last, stack, fault, unused[2]; /* the entry comes after it */
};

extern const uint8_t oracle_kernel[], oracle_kernel_end[], oracle_kernel_vectors[], oracle_kernel_done[];

struct oracle_guest {
    struct harness *h;
    struct harness_pager pager;
    struct x86_state start; /* at the kernel's entry */
    char why[768];
};

static void write_tables(struct oracle_guest *g)
{
    const uint64_t tss_base = KERNEL_VA + TSS_GPA, stack = KERNEL_VA + STACK_TOP_GPA;
    uint64_t gdt[GDT_ENTRIES] = {
        [KERNEL_CS / 8] = UINT64_C(0x00af9b000000ffff),
        [KERNEL_SS / 8] = UINT64_C(0x00cf93000000ffff),
        [USER_SS / 8] = UINT64_C(0x00cff3000000ffff),
        [USER_CS / 8] = UINT64_C(0x00affb000000ffff),
        [TSS / 8] =
            UINT64_C(0x00008b0000000067) | (tss_base & 0xffffff) << 16 | (tss_base >> 24 & 0xff) << 56,
        [TSS / 8 + 1] = tss_base >> 32,
        [USER_CS32 / 8] = UINT64_C(0x00cffb000000ffff),
    };
    for (unsigned i = 0; i < CODE16_SEGMENTS; i++) {
        uint64_t base = ORACLE_CODE + i * CODE16_SLOTS * ORACLE_CODE_STRIDE;
        gdt[USER_CS16 / 8 + i] = UINT64_C(0x0000fb000000ffff) | (base & 0xffffff) << 16 | base >> 24 << 56;
    }
    uint8_t tss[0x68] = {0};
    store_le64(tss + 4, stack);          /* RSP0 */
    store_le64(tss + 0x24, stack);       /* IST1 */
    store_le16(tss + 0x66, sizeof(tss)); /* no I/O permission bitmap */
    harness_write(g->h, GDT_GPA, gdt, sizeof(gdt));
    harness_write(g->h, TSS_GPA, tss, sizeof(tss));
    for (unsigned i = 0; i <= 32; i++) {
        unsigned vector = i < 32 ? i : ORACLE_DONE_VECTOR;
        uint64_t entry = KERNEL_VA + KERNEL_GPA + (uint64_t)(oracle_kernel_vectors - oracle_kernel) + 16 * i;
        bool user = vector == ORACLE_DONE_VECTOR || vector == VEC_BP || vector == VEC_OF;
        uint64_t gate[2] = {(entry & 0xffff) | KERNEL_CS << 16 | UINT64_C(1) << 32 |
                                (user ? UINT64_C(0xee) : UINT64_C(0x8e)) << 40 | (entry >> 16 & 0xffff) << 48,
                            entry >> 32};
        harness_write(g->h, IDT_GPA + 16 * vector, gate, sizeof(gate));
    }
}

static void write_memory(struct oracle_guest *g)
{
    uint8_t page[ORACLE_RO_SIZE];
    harness_write(g->h, KERNEL_GPA, oracle_kernel, (uint64_t)(oracle_kernel_end - oracle_kernel));
    harness_write(g->h, TRAMPOLINE_GPA, oracle_kernel_done, 2);
    oracle_read_only_page(page);
    harness_write(g->h, READ_ONLY_GPA, page, sizeof(page));
    harness_pager_init(&g->pager, g->h, POOL_GPA, POOL_SIZE);
    harness_map(&g->pager, KERNEL_VA + KERNEL_GPA, KERNEL_GPA, KERNEL_SIZE, PTE_P | PTE_W);
    harness_map(&g->pager, ORACLE_CODE, CODE_GPA, round_up(ORACLE_CODE_SIZE, 4096), PTE_P | PTE_U);
    harness_map(&g->pager, ORACLE_TRAMPOLINE, TRAMPOLINE_GPA, 4096, PTE_P | PTE_U);
    for (unsigned i = 0; i < ORACLE_BATCH; i++) {
        uint64_t window = oracle_window(i);
        harness_map(&g->pager, window, WINDOWS_GPA + i * ORACLE_WINDOW, ORACLE_WINDOW,
                    PTE_P | PTE_W | PTE_U | PTE_NX);
        harness_map(&g->pager, window + ORACLE_WINDOW, READ_ONLY_GPA, ORACLE_RO_SIZE, PTE_P | PTE_U | PTE_NX);
    }
}

static void prepare_state(struct oracle_guest *g)
{
    struct x86_state *s = &g->start;
    harness_state_long(g->h, s, g->pager.root);
    s->cr0 |= CR0_AM; /* as Linux has it */
    s->gdtr = (struct x86_table){KERNEL_VA + GDT_GPA, GDT_ENTRIES * 8 - 1};
    s->idtr = (struct x86_table){KERNEL_VA + IDT_GPA, 0xfff};
    s->seg[SEG_CS].selector = KERNEL_CS;
    s->seg[SEG_SS].selector = KERNEL_SS;
    static const unsigned data[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
        s->seg[data[i]] = harness_segment(0, 0, 0, ATTR_UNUSABLE);
    s->seg[SEG_TR] = harness_segment(TSS, KERNEL_VA + TSS_GPA, 0x67, ATTR_P | 0xb);
    s->rip = KERNEL_VA + KERNEL_GPA + sizeof(struct kernel_control);
    s->gpr[R_RSP] = KERNEL_VA + STACK_TOP_GPA;
}

struct oracle_guest *oracle_guest_new(struct harness *h)
{
    struct oracle_guest *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->h = h;
    write_memory(g);
    write_tables(g);
    prepare_state(g);
    return g;
}

void oracle_guest_free(struct oracle_guest *g)
{
    free(g);
}

void oracle_guest_code(struct oracle_guest *g, const uint8_t *code)
{
    harness_write(g->h, CODE_GPA, code, ORACLE_CODE_SIZE);
}

void oracle_guest_window(struct oracle_guest *g, unsigned slot, const uint8_t *window)
{
    harness_write(g->h, WINDOWS_GPA + slot * ORACLE_WINDOW, window, ORACLE_WINDOW);
}

const uint8_t *oracle_guest_peek(struct oracle_guest *g, unsigned slot)
{
    return harness_peek(g->h, WINDOWS_GPA + slot * ORACLE_WINDOW, ORACLE_WINDOW);
}

uint64_t oracle_guest_code_base(const struct oracle_seq *seq)
{
    return seq->mode == ORACLE_CODE16
               ? ORACLE_CODE + seq->slot / CODE16_SLOTS * CODE16_SLOTS * ORACLE_CODE_STRIDE
               : 0;
}

void oracle_guest_selectors(const struct oracle_seq *seq, struct oracle_regs *in)
{
    static const uint64_t cs[] = {USER_CS, KERNEL_CS, USER_CS32, USER_CS16};
    in->cs = cs[seq->mode] + (seq->mode == ORACLE_CODE16 ? 8 * (seq->slot / CODE16_SLOTS) : 0);
    in->ss = seq->mode == ORACLE_KERNEL ? KERNEL_SS : USER_SS;
    in->ds = oracle_is_narrow(seq->mode) ? USER_SS : 0;
}

const struct oracle_regs *oracle_guest_out(struct oracle_guest *g)
{
    return harness_peek(g->h, OUT_GPA, ORACLE_BATCH * sizeof(struct oracle_regs));
}

static enum harness_result run_slots(struct oracle_guest *g, unsigned first, unsigned last)
{
    struct kernel_control control = {
        .in = KERNEL_VA + IN_GPA,
        .out = KERNEL_VA + OUT_GPA,
        .index = first,
        .last = last,
        .stack = KERNEL_VA + STACK_TOP_GPA - 0x1000,
    };
    harness_write(g->h, KERNEL_GPA, &control, sizeof(control));
    harness_set(g->h, 0, &g->start);
    return harness_run(g->h, TIMEOUT_MS);
}

bool oracle_guest_run(struct oracle_guest *g, const struct oracle_regs *in, unsigned first, unsigned count,
                      unsigned *index, const char **why)
{
    static const uint8_t zero[ORACLE_BATCH * sizeof(struct oracle_regs)];
    const uint64_t offset = first * sizeof(*in), size = count * sizeof(*in);
    harness_write(g->h, IN_GPA + offset, in + first, size);
    harness_write(g->h, OUT_GPA + offset, zero, size);
    harness_clear(g->h);
    enum harness_result result = run_slots(g, first, first + count);
    struct kernel_control control;
    harness_read(g->h, KERNEL_GPA, &control, sizeof(control));
    if (result == HARNESS_EXITED && g->h->exit_value == 1 && control.index == first + count)
        return true;
    *index = (unsigned)control.index;
    if (result == HARNESS_EXITED)
        snprintf(g->why, sizeof(g->why), "the guest's kernel met exception %u", (unsigned)control.fault);
    else
        snprintf(g->why, sizeof(g->why), "%s: %s", harness_result_name(result), g->h->why);
    *why = g->why;
    return false;
}
