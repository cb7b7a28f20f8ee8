/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Paging in software (SDM vol. 3 chapter 4): the page walk and the soft TLB. gpr-only: runs with the guest's
 * vectors live.
 */
#include "engine/bt/mmu.h"
#include "base/util.h"
#include "engine/bt/cache.h"
#include "engine/bt/thunk.h"

#define PTE_P    BIT(0)
#define PTE_W    BIT(1)
#define PTE_U    BIT(2)
#define PTE_A    BIT(5)
#define PTE_D    BIT(6)
#define PTE_PS   BIT(7)
#define PTE_G    BIT(8)
#define PTE_NX   BIT(63)
#define PTE_ADDR UINT64_C(0x000ffffffffff000)

#define X87_EXCEPTIONS 0x3fu /* flags in the status word, masks in the control word */

#define PF_P    1u
#define PF_W    2u
#define PF_U    4u
#define PF_RSVD 8u
#define PF_I    16u

static void mark(struct bt_engine *engine, uint64_t *bits, uint64_t gpa)
{
    long index = bt_page_index(engine->config.memory, gpa);
    if (index >= 0)
        __atomic_fetch_or(&bits[index / 64], BIT(index % 64), __ATOMIC_RELAXED);
}

void bt_mark_dirty(struct bt_engine *engine, uint64_t gpa)
{
    uint64_t *bits = atomic_load_explicit(&engine->dirty, memory_order_relaxed);
    if (bits)
        mark(engine, bits, gpa);
}

/* Host address of guest RAM or ROM within one page; NULL: something else. */
uint8_t *bt_ram_ptr(const struct bt_cpu *cpu, uint64_t gpa, bool write)
{
    const struct guest_memory *mem = cpu->engine->config.memory;
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_region *r = &mem->region[i];
        if (gpa - r->gpa < r->size)
            return write && (r->flags & REGION_ROM) ? NULL : r->host + (gpa - r->gpa);
    }
    return NULL;
}

/* Reads a table entry of `size` 4 or 8 and sets A (and D) in it. 0 when it is not in RAM. */
static uint64_t read_entry(struct bt_cpu *cpu, uint64_t gpa, unsigned size, void **where)
{
    uint8_t *p = bt_ram_ptr(cpu, gpa, true);
    *where = p;
    if (!p)
        return 0;
    return size == 8 ? __atomic_load_n((uint64_t *)(void *)p, __ATOMIC_RELAXED)
                     : __atomic_load_n((uint32_t *)(void *)p, __ATOMIC_RELAXED);
}

static void set_entry_bits(struct bt_cpu *cpu, uint64_t gpa, void *where, uint64_t entry, uint64_t bits)
{
    if ((entry & bits) == bits)
        return;
    __atomic_fetch_or((uint32_t *)where, (uint32_t)bits, __ATOMIC_SEQ_CST); /* A and D are in the low half */
    bt_mark_dirty(cpu->engine, gpa);
}

static bool entry_reserved(const struct bt_cpu *cpu, uint64_t entry, unsigned level, bool large)
{
    uint64_t reserved = PTE_ADDR & ~(BIT(cpu->engine->config.cpu->phys_bits) - 1);
    if (!(cpu->efer & EFER_NXE))
        reserved |= PTE_NX;
    if (large && level == 2)
        reserved |= 0x1fe000;
    if (large && level == 3)
        reserved |= 0x3fffe000;
    if (level == 4)
        reserved |= PTE_PS;
    if (!bt_long_mode(cpu))
        reserved |= UINT64_C(0x7ff0000000000000);
    return entry & reserved;
}

/* 4-level and PAE paging. False: not present (or reserved bits, with w->reserved). */
static bool walk_long(struct bt_cpu *cpu, uint64_t lin, struct bt_walk *w)
{
    bool pae = !bt_long_mode(cpu);
    unsigned level = pae ? 2 : 4;
    uint64_t table;
    w->writable = w->user = true;
    if (pae) {
        uint64_t pdpte = cpu->pdpte[(lin >> 30) & 3];
        if (!(pdpte & PTE_P))
            return false;
        table = pdpte & PTE_ADDR;
    } else {
        table = cpu->cr3 & PTE_ADDR;
    }
    for (;; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        uint64_t at = table + ((lin >> shift) & 511) * 8;
        void *where;
        uint64_t entry = read_entry(cpu, at, 8, &where);
        if (!(entry & PTE_P))
            return false;
        bool leaf = level == 1 || ((entry & PTE_PS) && level <= 3);
        if (entry_reserved(cpu, entry, level, leaf && level > 1)) {
            w->reserved = true;
            return false;
        }
        w->writable &= !!(entry & PTE_W);
        w->user &= !!(entry & PTE_U);
        w->nx |= !!(entry & PTE_NX);
        if (!leaf) {
            set_entry_bits(cpu, at, where, entry, PTE_A);
            table = entry & PTE_ADDR;
            continue;
        }
        uint64_t mask = BIT(shift) - 1;
        w->gpa = (entry & PTE_ADDR & ~mask) | (lin & mask);
        w->global = (entry & PTE_G) && (cpu->cr4 & CR4_PGE);
        w->large = level > 1;
        w->dirty = entry & PTE_D;
        w->accessed = entry & PTE_A;
        w->leaf = where;
        return true;
    }
}

/* Classic 32-bit paging. */
static bool walk_32(struct bt_cpu *cpu, uint64_t lin, struct bt_walk *w)
{
    void *where;
    uint64_t at = (cpu->cr3 & 0xfffff000) + ((lin >> 22) & 1023) * 4;
    uint64_t entry = read_entry(cpu, at, 4, &where);
    if (!(entry & PTE_P))
        return false;
    w->writable = entry & PTE_W;
    w->user = entry & PTE_U;
    if ((entry & PTE_PS) && (cpu->cr4 & CR4_PSE)) {
        if (entry & BIT(21)) {
            w->reserved = true;
            return false;
        }
        w->gpa = (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32 | (lin & 0x3fffff);
        w->large = true;
    } else {
        set_entry_bits(cpu, at, where, entry, PTE_A);
        at = (entry & 0xfffff000) + ((lin >> 12) & 1023) * 4;
        entry = read_entry(cpu, at, 4, &where);
        if (!(entry & PTE_P))
            return false;
        w->writable &= !!(entry & PTE_W);
        w->user &= !!(entry & PTE_U);
        w->gpa = (entry & 0xfffff000) | (lin & 0xfff);
    }
    w->global = (entry & PTE_G) && (cpu->cr4 & CR4_PGE);
    w->dirty = entry & PTE_D;
    w->leaf = where;
    return true;
}

bool bt_walk64(struct bt_cpu *cpu, uint64_t lin, struct bt_walk *w)
{
    *w = (struct bt_walk){0};
    return walk_long(cpu, lin, w);
}

/* Whether the access is allowed by what the walk found. */
static bool allowed(const struct bt_cpu *cpu, const struct bt_walk *w, unsigned access, bool user)
{
    if (user && !w->user)
        return false;
    if (access & BT_FETCH)
        return !w->nx && (user || !(w->user && (cpu->cr4 & CR4_SMEP)));
    if (!user && w->user && (cpu->cr4 & CR4_SMAP) && (!(cpu->sysflags & FLAG_AC) || (access & BT_IMPLICIT)))
        return false;
    if ((access & BT_WRITE) && !w->writable)
        return !user && !(cpu->cr0 & CR0_WP);
    return true;
}

bool bt_translate(struct bt_cpu *cpu, uint64_t lin, unsigned access, uint64_t *gpa, uint64_t *page_flags)
{
    if (!(cpu->cr0 & CR0_PG)) {
        *gpa = lin & UINT32_MAX;
        if (page_flags)
            *page_flags = BT_TLBE_GLOBAL | BT_TLBE_WRITABLE;
        return true;
    }
    bool user = ((cpu->cpl == 3) && !(access & BT_IMPLICIT)) || (access & BT_USER);
    bool extended = cpu->cr4 & CR4_PAE;
    struct bt_walk w = {0};
    bool present = extended ? walk_long(cpu, lin, &w) : walk_32(cpu, lin, &w);
    if (!present || !allowed(cpu, &w, access, user)) {
        uint32_t error = (present || w.reserved ? PF_P : 0) | (w.reserved ? PF_RSVD : 0) |
                         (access & BT_WRITE ? PF_W : 0) | (user ? PF_U : 0);
        if ((access & BT_FETCH) && ((extended && (cpu->efer & EFER_NXE)) || (cpu->cr4 & CR4_SMEP)))
            error |= PF_I;
        return bt_raise_pf(cpu, lin, error);
    }
    uint64_t bits = PTE_A | (access & BT_WRITE ? PTE_D : 0);
    uint32_t old = *(uint32_t *)w.leaf;
    if ((old & bits) != bits) {
        __atomic_fetch_or((uint32_t *)w.leaf, (uint32_t)bits, __ATOMIC_SEQ_CST);
        w.dirty |= !!(access & BT_WRITE);
        if (atomic_load_explicit(&cpu->engine->dirty, memory_order_relaxed))
            bt_mark_host_dirty(cpu->engine, w.leaf);
    }
    *gpa = w.gpa;
    if (page_flags)
        *page_flags = (w.global ? BT_TLBE_GLOBAL : 0) | (w.large ? BT_TLBE_LARGE : 0) |
                      (w.dirty && (w.writable || (!user && !(cpu->cr0 & CR0_WP))) ? BT_TLBE_WRITABLE : 0);
    return true;
}

static void mark_host(struct bt_engine *engine, uint64_t *bits, const void *host)
{
    const struct guest_memory *mem = engine->config.memory;
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_region *r = &mem->region[i];
        uint64_t off = (uint64_t)((const uint8_t *)host - r->host);
        if (off < r->size)
            mark(engine, bits, r->gpa + off);
    }
}

void bt_mark_host_dirty(struct bt_engine *engine, const void *host)
{
    uint64_t *bits = atomic_load_explicit(&engine->dirty, memory_order_relaxed);
    if (bits)
        mark_host(engine, bits, host);
}

/* ---- soft TLB ---- */

static void tlb_clear(struct bt_tlb_entry *entry)
{
    if (entry->read_tag & 1)
        return; /* clear already */
    uint64_t none = BT_TLB_NONE(entry->read_tag);
    __atomic_store_n(&entry->read_tag, none, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->write_tag, none, __ATOMIC_RELAXED);
    entry->flags = 0;
}

static void flush_table(struct bt_cpu *cpu, unsigned mode, bool global_too)
{
    struct bt_tlb_entry *table = cpu->tlbs[mode];
    unsigned count = cpu->tlb_log[mode].count;
    cpu->tlb_log[mode].count = 0;
    if (!global_too && count <= BT_TLB_SIZE) {
        for (unsigned i = 0; i < count; i++)
            if (!(table[cpu->tlb_log[mode].slot[i]].flags & BT_TLBE_GLOBAL))
                tlb_clear(&table[cpu->tlb_log[mode].slot[i]]);
        return;
    }
    for (unsigned i = 0; i < BT_TLB_SIZE; i++)
        if (global_too || !(table[i].flags & BT_TLBE_GLOBAL))
            tlb_clear(&table[i]);
}

void bt_tlb_flush(struct bt_cpu *cpu, bool global_too)
{
    cpu->native_stale = true;
    bt_stat_add(&cpu->stats.tlb_flushes, 1);
    for (unsigned mode = 0; mode < BT_TLB_MODES; mode++)
        flush_table(cpu, mode, global_too);
    if (global_too)
        cpu->large_count = 0;
    bt_view_flush(cpu, global_too);
}

static bool in_large_region(const struct bt_cpu *cpu, uint64_t lin)
{
    if (cpu->large_count > BT_LARGE_REGIONS)
        return true;
    for (unsigned i = 0; i < cpu->large_count; i++)
        if (cpu->large_region[i] == lin >> 30)
            return true;
    return false;
}

void bt_tlb_flush_page(struct bt_cpu *cpu, uint64_t lin)
{
    cpu->native_stale = true;
    if (in_large_region(cpu, lin)) { /* perhaps part of a larger page, whose other parts go with it */
        bt_tlb_flush(cpu, true);
        return;
    }
    for (unsigned mode = 0; mode < BT_TLB_MODES; mode++) {
        struct bt_tlb_entry *entry = bt_tlb_slot(cpu->tlbs[mode], lin);
        if (entry->read_tag == round_down(lin, GUEST_PAGE_SIZE))
            tlb_clear(entry);
    }
    bt_view_flush_page(cpu, lin);
}

void bt_tlb_deny_writes(struct bt_cpu *cpu, uint64_t host, bool doubt)
{
    atomic_fetch_add(&cpu->native_denied, 1); /* native code may have the page too */
    for (unsigned mode = 0; mode < BT_TLB_MODES; mode++)
        for (unsigned i = 0; i < BT_TLB_SIZE; i++) {
            struct bt_tlb_entry *entry = &cpu->tlbs[mode][i];
            uint64_t page = __atomic_load_n(&entry->read_tag, __ATOMIC_RELAXED);
            uint64_t at = page + __atomic_load_n(&entry->addend, __ATOMIC_RELAXED);
            if (host && at != host)
                continue;
            uint64_t tag = __atomic_load_n(&entry->write_tag, __ATOMIC_RELAXED);
            if ((tag & 0xfff) || !__atomic_compare_exchange_n(&entry->write_tag, &tag, BT_TLB_NONE(tag),
                                                              false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
                continue;
            if (doubt && atomic_load(&cpu->code_epoch))
                mark_host(cpu->engine, cpu->engine->doubt_bits, (const void *)(uintptr_t)at);
        }
}

/* Whether a data breakpoint (DR0-3 by DR7) lies in the page. */
bool bt_page_watched(const struct bt_cpu *cpu, uint64_t lin)
{
    uint64_t dr7 = cpu->dr[7];
    if (!(dr7 & 0xff))
        return false;
    for (unsigned i = 0; i < 4; i++)
        if ((dr7 >> (2 * i) & 3) && (dr7 >> (16 + 4 * i) & 3) && (cpu->dr[i] ^ lin) < GUEST_PAGE_SIZE)
            return true;
    return false;
}

static void log_slot(struct bt_cpu *cpu, unsigned slot)
{
    unsigned mode = 0;
    while (cpu->tlbs[mode] != cpu->tlb)
        mode++;
    if (cpu->tlb_log[mode].count < BT_TLB_SIZE)
        cpu->tlb_log[mode].slot[cpu->tlb_log[mode].count] = (uint16_t)slot;
    cpu->tlb_log[mode].count += cpu->tlb_log[mode].count <= BT_TLB_SIZE;
}

static bool dirty_logging(const struct bt_engine *engine)
{
    return atomic_load_explicit(&engine->dirty, memory_order_relaxed);
}

static void touch_memory(struct bt_cpu *cpu, uint64_t gpa)
{
    const struct guest_memory *mem = cpu->engine->config.memory;
    if (guest_memory_touched(mem, gpa))
        return;
    bool live = cpu->vec_live;
    bt_vec_save(cpu);
    guest_memory_touch(mem, gpa);
    if (live)
        bt_vec_load(cpu);
}

bool bt_tlb_fill(struct bt_cpu *cpu, uint64_t lin, uint64_t gpa, uint8_t *host, uint64_t flags, bool write)
{
    struct bt_tlb_entry *entry = bt_tlb_slot(cpu->tlb, lin);
    uint64_t page = round_down(lin, GUEST_PAGE_SIZE);
    touch_memory(cpu, gpa);
    __atomic_store_n(&entry->write_tag, BT_TLB_NONE(page), __ATOMIC_RELAXED);
    __atomic_store_n(&entry->read_tag, page, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->addend, (uint64_t)(uintptr_t)host - page, __ATOMIC_RELAXED);
    entry->flags = flags;
    if ((flags & BT_TLBE_LARGE) && !in_large_region(cpu, lin)) {
        if (cpu->large_count < BT_LARGE_REGIONS)
            cpu->large_region[cpu->large_count] = lin >> 30;
        cpu->large_count++;
    }
    if (!(flags & BT_TLBE_GLOBAL))
        log_slot(cpu, (unsigned)(entry - cpu->tlb));
    if (!(flags & BT_TLBE_WRITABLE))
        return false;
    bt_page_writable(cpu->engine, gpa);
    __atomic_store_n(&entry->write_tag, page, __ATOMIC_RELAXED);
    /*
     * Pairs with the fence in bt_cache_protect: either it finds this entry or we find its code bits. The same
     * for a dirty log that is being started, which must see the first write to a page that was only read.
     */
    atomic_thread_fence(memory_order_seq_cst);
    bool code = bt_page_has_code(cpu->engine, round_down(gpa, GUEST_PAGE_SIZE), GUEST_PAGE_SIZE);
    if (code || (!write && dirty_logging(cpu->engine)))
        __atomic_store_n(&entry->write_tag, BT_TLB_NONE(page), __ATOMIC_RELAXED);
    if (write)
        bt_mark_dirty(cpu->engine, gpa);
    return !code && (write || !dirty_logging(cpu->engine));
}

/*
 * A write that has missed the TLB may go ahead at the address that it gets: whoever translates code in the
 * page finds the entry and waits until it is done. Without an entry, as where the page has code already, that
 * is so only when there is no other processor to translate.
 */
static bool write_goes_ahead(const struct bt_cpu *cpu, bool filled)
{
    return filled || cpu->engine->config.cpu_count == 1;
}

void bt_leave_at(struct bt_cpu *cpu, unsigned off, enum bt_exit reason)
{
    cpu->rip = bt_wrap_rip(cpu, cpu->pc_base + off);
    cpu->exit_reason = reason;
}

/* An access of the instruction at hand fails with cpu->exc; a pending x87 exception comes before that. */
uint64_t bt_access_fault(struct bt_cpu *cpu, uint64_t desc)
{
    if ((desc & DESC_X87) && cpu->vec_live) {
        uint16_t status, control;
        __asm__ volatile("fnstsw %0; fnstcw %1" : "=a"(status), "=m"(control));
        if (status & ~control & X87_EXCEPTIONS)
            bt_raise(cpu, VEC_MF);
    }
    bt_leave_at(cpu, DESC_OFFSET(desc), BT_EXIT_FAULT);
    return 0;
}

/*
 * While dirty pages are logged: whether the slot for `lin` is another page's, which the block may be using to
 * write without looking again. Who takes back rights to write would not find it any more, so the block is
 * left.
 */
static bool takes_written_slot(struct bt_cpu *cpu, uint64_t lin)
{
    struct bt_tlb_entry *entry = bt_tlb_slot(cpu->tlb, lin);
    uint64_t tag = __atomic_load_n(&entry->write_tag, __ATOMIC_RELAXED);
    if (!dirty_logging(cpu->engine) || (tag & 0xfff) || tag == round_down(lin, GUEST_PAGE_SIZE))
        return false;
    tlb_clear(entry);
    return true;
}

/* A span that several accesses share: plain memory, or the block is left for one without such spans. */
static uint64_t merged_access(struct bt_cpu *cpu, uint64_t lin, uint64_t desc)
{
    bool write = DESC_WRITE(desc);
    uint64_t gpa, flags;
    if ((lin & 0xfff) + DESC_SIZE(desc) <= GUEST_PAGE_SIZE && bt_canonical_lin(cpu, lin) &&
        !bt_page_watched(cpu, lin) && !takes_written_slot(cpu, lin) &&
        bt_translate(cpu, lin, write ? BT_WRITE : BT_READ, &gpa, &flags)) {
        uint8_t *host = bt_ram_ptr(cpu, gpa, false);
        bool writable = bt_ram_ptr(cpu, gpa, true);
        if (host && (writable || !write) && !(write && bt_page_has_code(cpu->engine, gpa, DESC_SIZE(desc)))) {
            bool filled = bt_tlb_fill(cpu, lin, gpa, host - (gpa & 0xfff),
                                      writable ? flags : flags & ~(uint64_t)BT_TLBE_WRITABLE, write);
            if (!write || write_goes_ahead(cpu, filled))
                return (uint64_t)(uintptr_t)host;
        }
    }
    cpu->exc.pending = false;
    bt_leave_at(cpu, DESC_OFFSET(desc), BT_EXIT_PRECISE);
    return 0;
}

uint64_t bt_callout_access(struct bt_cpu *cpu, uint64_t lin, uint64_t desc)
{
    bool write = DESC_WRITE(desc);
    uint64_t gpa, flags;
    bt_stat_add(&cpu->stats.tlb_misses, 1);
    if (desc & DESC_MERGED) /* what is wrong is found out access by access */
        return merged_access(cpu, lin, desc);
    /* Not canonical: a fault, or a tag that was taken away while it was looked at, and then its low bits are
     * wrong too. The slow way finds out. */
    bool canonical = bt_canonical_lin(cpu, lin);
    if (canonical && (desc & DESC_ALIGNED) && (lin & (DESC_SIZE(desc) - 1))) {
        bt_raise_error(cpu, VEC_GP, 0);
        return bt_access_fault(cpu, desc);
    }
    if (!canonical || (lin & 0xfff) + DESC_SIZE(desc) > GUEST_PAGE_SIZE || bt_page_watched(cpu, lin)) {
        bt_leave_at(cpu, DESC_OFFSET(desc), BT_EXIT_SLOW);
        return 0;
    }
    if (takes_written_slot(cpu, lin)) {
        bt_leave_at(cpu, DESC_OFFSET(desc), BT_EXIT_PRECISE);
        return 0;
    }
    if (!bt_translate(cpu, lin, write ? BT_WRITE : BT_READ, &gpa, &flags))
        return bt_access_fault(cpu, desc);
    uint8_t *host = bt_ram_ptr(cpu, gpa, false);
    if (!host || (write && !bt_ram_ptr(cpu, gpa, true)) ||
        (write && bt_page_has_code(cpu->engine, gpa, DESC_SIZE(desc)))) {
        bt_leave_at(cpu, DESC_OFFSET(desc), BT_EXIT_SLOW);
        return 0;
    }
    if (!bt_ram_ptr(cpu, gpa, true))
        flags &= ~BT_TLBE_WRITABLE;
    bool filled = bt_tlb_fill(cpu, lin, gpa, host - (gpa & 0xfff), flags, write);
    if (write && !write_goes_ahead(cpu, filled)) {
        bt_leave_at(cpu, DESC_OFFSET(desc), BT_EXIT_SLOW);
        return 0;
    }
    return (uint64_t)(uintptr_t)host;
}
