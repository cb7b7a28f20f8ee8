/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What mmu.c (paging, soft TLB) and access.c (linear and segmented memory for C code) share. gpr-only. */
#ifndef BT_MMU_H
#define BT_MMU_H

#include "engine/bt/bt.h"

/* Host address of guest RAM or, when !write, ROM, good to the end of its page; NULL: something else is there.
 */
uint8_t *bt_ram_ptr(const struct bt_cpu *cpu, uint64_t gpa, bool write);
/* What a page walk has found. */
struct bt_walk {
    uint64_t gpa;
    bool writable, user, nx, accessed, dirty, global;
    bool large;    /* a page of 2 MiB or more */
    bool reserved; /* a fault by reserved bits */
    void *leaf;    /* host address of the last entry */
};
/* Walks the tables of 64-bit mode for linear address `lin`, leaving the last entry as it is. False: nothing
 * there. */
bool bt_walk64(struct bt_cpu *cpu, uint64_t lin, struct bt_walk *w);
/* Dirty log: the page at gpa. */
void bt_mark_dirty(struct bt_engine *engine, uint64_t gpa);
/*
 * Puts a translation into the table of the current access mode. `host` is the page's address; `write`: the
 * access at hand writes. A page that is only read is not yet writable while dirty pages are logged. True: the
 * entry lets writes go ahead until somebody takes that back.
 */
bool bt_tlb_fill(struct bt_cpu *cpu, uint64_t lin, uint64_t gpa, uint8_t *host, uint64_t flags, bool write);
/* Whether a data breakpoint (DR0-3 by DR7) lies in the page. */
bool bt_page_watched(const struct bt_cpu *cpu, uint64_t lin);
/* A callout leaves translated code at the instruction at page offset `off`. */
void bt_leave_at(struct bt_cpu *cpu, unsigned off, enum bt_exit reason);
/*
 * An access of the instruction at hand fails with cpu->exc; a pending x87 exception comes before that.
 * Returns what the callout returns: 0.
 */
uint64_t bt_access_fault(struct bt_cpu *cpu, uint64_t desc);

static inline struct bt_tlb_entry *bt_tlb_slot(struct bt_tlb_entry *table, uint64_t lin)
{
    return &table[(lin >> GUEST_PAGE_SHIFT) & (BT_TLB_SIZE - 1)];
}

static inline bool bt_canonical_lin(const struct bt_cpu *cpu, uint64_t lin)
{
    if (!bt_long_mode(cpu))
        return lin <= UINT32_MAX;
    return (uint64_t)((int64_t)(lin << 16) >> 16) == lin;
}

#endif
