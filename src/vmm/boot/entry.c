/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptor table, page tables and register state for entering an image without firmware. */
#include "vmm/boot/entry.h"

#include <string.h>

#include "base/util.h"

#define GDT_ENTRIES 5
#define PAGE_TABLES 6 /* PML4, PDPT, four page directories */

#define TYPE_DATA   0x3 /* read/write, accessed */
#define TYPE_CODE   0xb /* execute/read, accessed */
#define TYPE_TSS    0xb /* 32- or 64-bit, busy */
#define TSS_LIMIT   0x67
#define PTE_PRESENT BIT(0)
#define PTE_WRITE   BIT(1)
#define PTE_LARGE   BIT(7)

/* SDM vol. 3 figure 3-8. A limit of 4 GiB - 1 is stored in pages. */
static uint64_t descriptor(uint32_t attr, uint32_t limit)
{
    uint64_t units = attr & ATTR_G ? limit >> 12 : limit;
    return (units & 0xffff) | (uint64_t)(attr & 0xf0ff) << 40 | (units >> 16 & 0xf) << 48;
}

static uint32_t code_attr(enum boot_mode mode)
{
    return TYPE_CODE | ATTR_S | ATTR_P | ATTR_G | (mode == BOOT_MODE_LONG ? ATTR_L : ATTR_DB);
}

static const uint32_t data_attr = TYPE_DATA | ATTR_S | ATTR_P | ATTR_G | ATTR_DB;
static const uint32_t tss_attr = TYPE_TSS | ATTR_P;

/* Maps the first 4 GiB one to one in pages of 2 MiB. */
static void build_page_tables(struct boot_space *s, uint64_t at)
{
    uint64_t table[512] = {at + GUEST_PAGE_SIZE + (PTE_PRESENT | PTE_WRITE)};

    boot_space_write(s, at, table, sizeof(table));
    memset(table, 0, sizeof(table));
    for (unsigned i = 0; i < 4; i++)
        table[i] = (at + (2 + i) * GUEST_PAGE_SIZE) | PTE_PRESENT | PTE_WRITE;
    boot_space_write(s, at + GUEST_PAGE_SIZE, table, sizeof(table));
    for (uint64_t dir = 0; dir < 4; dir++) {
        for (uint64_t i = 0; i < 512; i++)
            table[i] = (dir * 512 + i) * 2 * MIB | PTE_PRESENT | PTE_WRITE | PTE_LARGE;
        boot_space_write(s, at + (2 + dir) * GUEST_PAGE_SIZE, table, sizeof(table));
    }
}

bool boot_entry_prepare(struct boot_entry *e, struct boot_space *s, enum boot_mode mode, struct error **err)
{
    uint64_t gdt[GDT_ENTRIES] = {0};

    *e = (struct boot_entry){.mode = mode};
    e->gdt = boot_space_find(s, sizeof(gdt), 16, 0, BOOT_LOW_END, false, "descriptor table", err);
    if (e->gdt == BOOT_NOWHERE)
        return false;
    gdt[BOOT_CS / 8] = descriptor(code_attr(mode), UINT32_MAX);
    gdt[BOOT_DS / 8] = descriptor(data_attr, UINT32_MAX);
    gdt[BOOT_TR / 8] = descriptor(tss_attr, TSS_LIMIT);
    boot_space_write(s, e->gdt, gdt, sizeof(gdt));
    if (mode == BOOT_MODE_PROTECTED)
        return true;
    e->cr3 = boot_space_find(s, PAGE_TABLES * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE, 0, BOOT_LOW_END, false,
                             "boot page tables", err);
    if (e->cr3 == BOOT_NOWHERE)
        return false;
    build_page_tables(s, e->cr3);
    return true;
}

void boot_entry_apply(const struct boot_entry *e, struct x86_state *state)
{
    struct x86_segment data = {.selector = BOOT_DS, .attr = data_attr, .limit = UINT32_MAX};
    bool is_long = e->mode == BOOT_MODE_LONG;

    memset(state->gpr, 0, sizeof(state->gpr));
    state->gpr[R_RAX] = e->rax;
    state->gpr[R_RBX] = e->rbx;
    state->gpr[R_RSI] = e->rsi;
    state->rip = e->rip;
    state->rflags = 2;
    for (int i = SEG_ES; i <= SEG_GS; i++)
        state->seg[i] = data;
    state->seg[SEG_CS] =
        (struct x86_segment){.selector = BOOT_CS, .attr = code_attr(e->mode), .limit = UINT32_MAX};
    state->seg[SEG_TR] = (struct x86_segment){.selector = BOOT_TR, .attr = tss_attr, .limit = TSS_LIMIT};
    state->gdtr = (struct x86_table){.base = e->gdt, .limit = GDT_ENTRIES * 8 - 1};
    state->idtr = (struct x86_table){0};
    state->cr0 = CR0_PE | CR0_ET | (is_long ? CR0_PG : 0);
    state->cr3 = is_long ? e->cr3 : 0;
    state->cr4 = is_long ? CR4_PAE : 0;
    state->efer = is_long ? EFER_LME | EFER_LMA : 0;
    state->mp_state = MP_RUNNING;
}
