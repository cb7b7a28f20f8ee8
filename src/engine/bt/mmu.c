/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Paging in software (SDM vol. 3 chapter 4): the page walk, the soft TLB, and linear memory for C code.
 * gpr-only: runs with the guest's vectors live; only device accesses save them.
 */
#include "base/util.h"
#include "engine/bt/cache.h"
#include "engine/bt/lapic.h"
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

/* What a walk has found. */
struct walk {
    uint64_t gpa;
    bool writable, user, nx, dirty, global, large, reserved;
    void *leaf; /* host address of the last entry */
};

static void mark_dirty(struct bt_engine *engine, uint64_t gpa)
{
    uint64_t *bits = atomic_load_explicit(&engine->dirty, memory_order_relaxed);
    if (!bits)
        return;
    long index = bt_page_index(engine->config.memory, gpa);
    if (index >= 0)
        __atomic_fetch_or(&bits[index / 64], BIT(index % 64), __ATOMIC_RELAXED);
}

/* Host address of guest RAM or ROM within one page; NULL: something else. */
static uint8_t *ram_ptr(const struct bt_cpu *cpu, uint64_t gpa, bool write)
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
    uint8_t *p = ram_ptr(cpu, gpa, true);
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
    mark_dirty(cpu->engine, gpa);
}

static void code_written(struct bt_cpu *cpu, uint64_t gpa, unsigned len)
{
    if (!bt_page_has_code(cpu->engine, gpa, len))
        return;
    bt_vec_save(cpu);
    bt_code_written(cpu->engine, gpa, len);
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
static bool walk_long(struct bt_cpu *cpu, uint64_t lin, struct walk *w)
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
        w->leaf = where;
        return true;
    }
}

/* Classic 32-bit paging. */
static bool walk_32(struct bt_cpu *cpu, uint64_t lin, struct walk *w)
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

/* Whether the access is allowed by what the walk found. */
static bool allowed(const struct bt_cpu *cpu, const struct walk *w, unsigned access, bool user)
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
    struct walk w = {0};
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

void bt_mark_host_dirty(struct bt_engine *engine, const void *host)
{
    const struct guest_memory *mem = engine->config.memory;
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_region *r = &mem->region[i];
        uint64_t off = (uint64_t)((const uint8_t *)host - r->host);
        if (off < r->size)
            mark_dirty(engine, r->gpa + off);
    }
}

/* ---- soft TLB ---- */

static struct bt_tlb_entry *tlb_slot(struct bt_tlb_entry *table, uint64_t lin)
{
    return &table[(lin >> GUEST_PAGE_SHIFT) & (BT_TLB_SIZE - 1)];
}

static void tlb_clear(struct bt_tlb_entry *entry)
{
    __atomic_store_n(&entry->read_tag, BT_TLB_NONE, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->write_tag, BT_TLB_NONE, __ATOMIC_RELAXED);
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
    for (unsigned mode = 0; mode < BT_TLB_MODES; mode++)
        flush_table(cpu, mode, global_too);
    if (global_too)
        cpu->large_count = 0;
    bt_jc_flush(cpu, global_too);
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
    if (in_large_region(cpu, lin)) { /* perhaps part of a larger page, whose other parts go with it */
        bt_tlb_flush(cpu, true);
        return;
    }
    for (unsigned mode = 0; mode < BT_TLB_MODES; mode++) {
        struct bt_tlb_entry *entry = tlb_slot(cpu->tlbs[mode], lin);
        if (entry->read_tag == round_down(lin, GUEST_PAGE_SIZE))
            tlb_clear(entry);
    }
    bt_jc_flush_page(cpu, lin);
}

void bt_tlb_deny_writes(struct bt_cpu *cpu, uint64_t host)
{
    for (unsigned mode = 0; mode < BT_TLB_MODES; mode++)
        for (unsigned i = 0; i < BT_TLB_SIZE; i++) {
            struct bt_tlb_entry *entry = &cpu->tlbs[mode][i];
            if (host && __atomic_load_n(&entry->host, __ATOMIC_RELAXED) != host)
                continue;
            uint64_t tag = __atomic_load_n(&entry->write_tag, __ATOMIC_RELAXED);
            if (!(tag & 0xfff))
                __atomic_compare_exchange_n(&entry->write_tag, &tag, tag ^ BIT(63) ^ 1, false,
                                            __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
        }
}

/* Whether a data breakpoint (DR0-3 by DR7) lies in the page. */
static bool page_watched(const struct bt_cpu *cpu, uint64_t lin)
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

/* Puts a translation into the table of the current access mode. `host` is the page's address. */
static void tlb_fill(struct bt_cpu *cpu, uint64_t lin, uint64_t gpa, uint8_t *host, uint64_t flags)
{
    struct bt_tlb_entry *entry = tlb_slot(cpu->tlb, lin);
    uint64_t page = round_down(lin, GUEST_PAGE_SIZE);
    __atomic_store_n(&entry->write_tag, BT_TLB_NONE, __ATOMIC_RELAXED);
    entry->read_tag = page;
    __atomic_store_n(&entry->host, (uint64_t)(uintptr_t)host, __ATOMIC_RELAXED);
    entry->flags = flags;
    if ((flags & BT_TLBE_LARGE) && !in_large_region(cpu, lin)) {
        if (cpu->large_count < BT_LARGE_REGIONS)
            cpu->large_region[cpu->large_count] = lin >> 30;
        cpu->large_count++;
    }
    if (!(flags & BT_TLBE_GLOBAL))
        log_slot(cpu, (unsigned)(entry - cpu->tlb));
    if (!(flags & BT_TLBE_WRITABLE))
        return;
    mark_dirty(cpu->engine, gpa);
    __atomic_store_n(&entry->write_tag, page, __ATOMIC_RELAXED);
    /* Pairs with the fence in bt_cache_protect: either it finds this entry or we find its code bits. */
    atomic_thread_fence(memory_order_seq_cst);
    if (bt_page_has_code(cpu->engine, round_down(gpa, GUEST_PAGE_SIZE), GUEST_PAGE_SIZE))
        __atomic_store_n(&entry->write_tag, BT_TLB_NONE, __ATOMIC_RELAXED);
}

static bool canonical(const struct bt_cpu *cpu, uint64_t lin)
{
    if (!bt_long_mode(cpu))
        return lin <= UINT32_MAX;
    return (uint64_t)((int64_t)(lin << 16) >> 16) == lin;
}

static void fail_at(struct bt_cpu *cpu, unsigned off, enum bt_exit reason)
{
    cpu->rip = bt_wrap_rip(cpu, cpu->pc_base + off);
    cpu->exit_reason = reason;
}

/* An access of the instruction at hand fails with cpu->exc; a pending x87 exception comes before that. */
static uint64_t pre_fault(struct bt_cpu *cpu, uint64_t desc)
{
    if ((desc & DESC_X87) && cpu->vec_live) {
        uint16_t status, control;
        __asm__ volatile("fnstsw %0; fnstcw %1" : "=a"(status), "=m"(control));
        if (status & ~control & X87_EXCEPTIONS)
            bt_raise(cpu, VEC_MF);
    }
    fail_at(cpu, DESC_OFFSET(desc), BT_EXIT_FAULT);
    return 0;
}

uint64_t bt_callout_access(struct bt_cpu *cpu, uint64_t lin, uint64_t desc)
{
    bool write = DESC_WRITE(desc);
    uint64_t gpa, flags;
    cpu->stat_tlb_miss++;
    if ((desc & DESC_ALIGNED) && (lin & (DESC_SIZE(desc) - 1))) {
        bt_raise_error(cpu, VEC_GP, 0);
        return pre_fault(cpu, desc);
    }
    /* Not canonical: a fault, or a tag that was taken away while it was looked at. The slow way finds out. */
    if ((lin & 0xfff) + DESC_SIZE(desc) > GUEST_PAGE_SIZE || !canonical(cpu, lin) || page_watched(cpu, lin)) {
        fail_at(cpu, DESC_OFFSET(desc), BT_EXIT_SLOW);
        return 0;
    }
    if (!bt_translate(cpu, lin, write ? BT_WRITE : BT_READ, &gpa, &flags))
        return pre_fault(cpu, desc);
    uint8_t *host = ram_ptr(cpu, gpa, false);
    if (!host || (write && !ram_ptr(cpu, gpa, true)) ||
        (write && bt_page_has_code(cpu->engine, gpa, DESC_SIZE(desc)))) {
        fail_at(cpu, DESC_OFFSET(desc), BT_EXIT_SLOW);
        return 0;
    }
    if (!ram_ptr(cpu, gpa, true))
        flags &= ~BT_TLBE_WRITABLE;
    tlb_fill(cpu, lin, gpa, host - (gpa & 0xfff), flags);
    if (write)
        mark_dirty(cpu->engine, gpa);
    return (uint64_t)(uintptr_t)host;
}

/* ---- devices ---- */

static uint64_t mmio_read(struct bt_cpu *cpu, uint64_t gpa, unsigned len)
{
    const struct engine_host *host = cpu->engine->config.host;
    bt_vec_save(cpu);
    if (bt_lapic_owns(cpu->lapic, gpa))
        return bt_lapic_read(cpu->lapic, gpa & 0xfff);
    return host->mmio_read(host->opaque, gpa, len);
}

static void mmio_write(struct bt_cpu *cpu, uint64_t gpa, unsigned len, uint64_t value)
{
    const struct engine_host *host = cpu->engine->config.host;
    bt_vec_save(cpu);
    cpu->event_check = true;
    if (bt_lapic_owns(cpu->lapic, gpa))
        bt_lapic_write(cpu->lapic, gpa & 0xfff, (uint32_t)value);
    else
        host->mmio_write(host->opaque, gpa, len, value);
}

/* Copies byte-wise: libc's copies would use vector registers. */
static void copy_bytes(void *to, const void *from, unsigned len)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
}

static uint64_t load_bytes(const uint8_t *p, unsigned len)
{
    uint64_t v = 0;
    copy_bytes(&v, p, len);
    return v;
}

/* One piece of device memory, in accesses of at most 8 bytes. */
static void device_read(struct bt_cpu *cpu, uint64_t gpa, uint8_t *buf, unsigned len)
{
    while (len) {
        unsigned n = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
        uint64_t v = mmio_read(cpu, gpa, n);
        copy_bytes(buf, &v, n);
        gpa += n;
        buf += n;
        len -= n;
    }
}

static void device_write(struct bt_cpu *cpu, uint64_t gpa, const uint8_t *buf, unsigned len)
{
    while (len) {
        unsigned n = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
        mmio_write(cpu, gpa, n, load_bytes(buf, n));
        gpa += n;
        buf += n;
        len -= n;
    }
}

/* ---- linear memory for C code ---- */

/* #AC: checked for accesses of user code only, when it wants that. */
static bool misaligned(const struct bt_cpu *cpu, uint64_t lin, unsigned len)
{
    return (cpu->mode & MODE_ALIGN) && is_pow2(len) && len <= 64 && (lin & (len - 1));
}

/* Fast way through the TLB of the current mode; NULL: miss. */
static uint8_t *tlb_hit(const struct bt_cpu *cpu, uint64_t lin, unsigned len, unsigned access)
{
    const struct bt_tlb_entry *entry = tlb_slot(cpu->tlb, lin);
    uint64_t tag = access & BT_WRITE ? entry->write_tag : entry->read_tag;
    if ((access & (BT_FETCH | BT_IMPLICIT | BT_USER)) || lin - tag > GUEST_PAGE_SIZE - len)
        return NULL;
    return (uint8_t *)(uintptr_t)entry->host + (lin - tag);
}

/* Up to two pages of an access. */
struct span {
    uint64_t gpa[2];
    unsigned len[2];
};

static bool span_translate(struct bt_cpu *cpu, uint64_t lin, unsigned len, unsigned access, struct span *s)
{
    s->len[0] = (unsigned)MIN((uint64_t)len, GUEST_PAGE_SIZE - (lin & 0xfff));
    s->len[1] = len - s->len[0];
    if (!bt_translate(cpu, lin, access, &s->gpa[0], NULL))
        return false;
    if (!s->len[1])
        return true;
    uint64_t next = lin + s->len[0];
    if (!bt_code64(cpu) && !bt_long_mode(cpu))
        next &= UINT32_MAX;
    return bt_translate(cpu, next, access, &s->gpa[1], NULL);
}

/* Data breakpoints hit by an access. */
static void check_watch(struct bt_cpu *cpu, uint64_t lin, unsigned len, bool write)
{
    static const uint8_t lengths[] = {1, 2, 8, 4};
    uint64_t dr7 = cpu->dr[7];
    for (unsigned i = 0; i < 4; i++) {
        unsigned type = dr7 >> (16 + 4 * i) & 3, size = lengths[dr7 >> (18 + 4 * i) & 3];
        uint64_t start = cpu->dr[i] & ~(uint64_t)(size - 1);
        if ((dr7 >> (2 * i) & 3) && (type == 3 || (type == 1 && write)) && start < lin + len &&
            lin < start + size)
            cpu->pending_db |= BIT(i);
    }
}

bool bt_read_lin(struct bt_cpu *cpu, uint64_t lin, void *buf, unsigned len, unsigned access)
{
    uint8_t *host = tlb_hit(cpu, lin, len, access);
    if (host) {
        copy_bytes(buf, host, len);
        return true;
    }
    struct span s;
    if (!span_translate(cpu, lin, len, access, &s))
        return false;
    uint8_t *to = buf;
    for (unsigned i = 0; i < 2 && s.len[i]; i++) {
        host = ram_ptr(cpu, s.gpa[i], false);
        if (host)
            copy_bytes(to, host, s.len[i]);
        else
            device_read(cpu, s.gpa[i], to, s.len[i]);
        to += s.len[i];
    }
    if (cpu->dr[7] & 0xff)
        check_watch(cpu, lin, len, false);
    return true;
}

bool bt_write_lin(struct bt_cpu *cpu, uint64_t lin, const void *buf, unsigned len, unsigned access)
{
    uint8_t *host = tlb_hit(cpu, lin, len, access | BT_WRITE);
    if (host) {
        copy_bytes(host, buf, len);
        return true;
    }
    struct span s;
    if (!span_translate(cpu, lin, len, access | BT_WRITE, &s))
        return false;
    const uint8_t *from = buf;
    for (unsigned i = 0; i < 2 && s.len[i]; i++) {
        host = ram_ptr(cpu, s.gpa[i], true);
        if (host) {
            copy_bytes(host, from, s.len[i]);
            mark_dirty(cpu->engine, s.gpa[i]);
            code_written(cpu, s.gpa[i], s.len[i]);
        } else if (!ram_ptr(cpu, s.gpa[i], false)) {
            device_write(cpu, s.gpa[i], from, s.len[i]);
        }
        from += s.len[i];
    }
    if (cpu->dr[7] & 0xff)
        check_watch(cpu, lin, len, true);
    return true;
}

uint8_t *bt_host_ptr(struct bt_cpu *cpu, uint64_t lin, unsigned access)
{
    uint64_t gpa, flags;
    uint8_t *host = tlb_hit(cpu, lin, 1, access);
    if (host)
        return host;
    if (page_watched(cpu, lin) || !canonical(cpu, lin) || !bt_translate(cpu, lin, access, &gpa, &flags))
        return NULL;
    bool write = access & BT_WRITE;
    host = ram_ptr(cpu, gpa, write);
    if (!host)
        return NULL;
    if (write) {
        mark_dirty(cpu->engine, gpa);
        code_written(cpu, round_down(gpa, GUEST_PAGE_SIZE), GUEST_PAGE_SIZE);
    }
    if (!(access & (BT_IMPLICIT | BT_USER)) && ram_ptr(cpu, gpa, true))
        tlb_fill(cpu, lin, gpa, host - (gpa & 0xfff), flags);
    return host;
}

/* ---- checked accesses of translated code ---- */

/* The operand in RAM, within one page: the instruction may work on it directly. */
static uint8_t *direct(struct bt_cpu *cpu, uint64_t lin, unsigned len, unsigned access, bool *fault)
{
    uint64_t gpa;
    *fault = false;
    if ((lin & 0xfff) + len > GUEST_PAGE_SIZE)
        return NULL;
    if (!bt_translate(cpu, lin, access, &gpa, NULL)) {
        *fault = true;
        return NULL;
    }
    uint8_t *host = ram_ptr(cpu, gpa, access & BT_WRITE);
    if (host && (access & BT_WRITE))
        mark_dirty(cpu->engine, gpa);
    return host;
}

static uint64_t segment_base(const struct bt_cpu *cpu, unsigned seg)
{
    return bt_code64(cpu) && seg != SEG_FS && seg != SEG_GS ? 0 : cpu->seg[seg].base;
}

/*
 * A read-modify-write by way of the bounce buffer is two accesses. Those that cross a page, the only ones in
 * RAM, exclude each other; device memory has no atomic accesses.
 */
static void split_lock(struct bt_cpu *cpu)
{
    while (atomic_flag_test_and_set(&cpu->engine->split_lock))
        bt_yield();
    cpu->slow_locked = true;
}

void bt_split_unlock(struct bt_cpu *cpu)
{
    cpu->slow_locked = false;
    atomic_flag_clear(&cpu->engine->split_lock);
}

uint64_t bt_callout_pre(struct bt_cpu *cpu, uint64_t ea, uint64_t desc)
{
    unsigned access = DESC_WRITE(desc) ? BT_WRITE : BT_READ, len = DESC_SIZE(desc);
    uint64_t lin;
    bool fault;
    struct span s;
    if ((desc & DESC_ALIGNED) && ((ea + segment_base(cpu, DESC_SEG(desc))) & (len - 1))) {
        bt_raise_error(cpu, VEC_GP, 0);
        return pre_fault(cpu, desc);
    }
    if (!bt_seg_linear(cpu, DESC_SEG(desc), ea, len, access, &lin))
        return pre_fault(cpu, desc);
    cpu->slow_lin = lin;
    cpu->slow_len = len;
    uint8_t *host = direct(cpu, lin, len, access, &fault);
    if (fault)
        return pre_fault(cpu, desc);
    if (misaligned(cpu, lin, len)) {
        bt_raise_error(cpu, VEC_AC, 0);
        return pre_fault(cpu, desc);
    }
    cpu->slow_direct = host != NULL;
    if (!host) {
        host = cpu->bounce + (lin & 63);
        if (access == BT_WRITE && !span_translate(cpu, lin, len, BT_WRITE, &s))
            return pre_fault(cpu, desc);
        if ((desc & DESC_READ) && access == BT_WRITE)
            split_lock(cpu);
        if ((desc & DESC_READ) && !bt_read_lin(cpu, lin, host, len, BT_READ))
            return pre_fault(cpu, desc);
    }
    if (cpu->dr[7] & 0xff)
        check_watch(cpu, lin, len, access == BT_WRITE);
    if (!cpu->vec_live)
        bt_vec_load(cpu);
    return (uint64_t)(uintptr_t)host;
}

uint64_t bt_callout_post(struct bt_cpu *cpu, uint64_t unused, uint64_t next_off)
{
    uint64_t gpa;
    uint64_t killed = cpu->engine->cache->stat_killed;
    if (!cpu->slow_direct) {
        /* Checked before the instruction; a page table that changed since is the guest's own race. */
        if (!bt_write_lin(cpu, cpu->slow_lin, cpu->bounce + (cpu->slow_lin & 63), cpu->slow_len, BT_WRITE))
            cpu->exc.pending = false;
    } else if (bt_translate(cpu, cpu->slow_lin, BT_WRITE, &gpa, NULL)) {
        code_written(cpu, gpa, cpu->slow_len);
    } else {
        cpu->exc.pending = false;
    }
    if (cpu->slow_locked)
        bt_split_unlock(cpu);
    if (!cpu->vec_live)
        bt_vec_load(cpu);
    if (cpu->engine->cache->stat_killed == killed)
        return 1;
    fail_at(cpu, (unsigned)next_off, BT_EXIT_LOOKUP); /* this block may be among the killed */
    return 0;
}

/* ---- segmentation ---- */

/* Base and limit checks outside of 64-bit mode (SDM vol. 3 section 5.3). */
static bool segment_allows(const struct bt_cpu *cpu, const struct x86_segment *s, uint64_t ea, unsigned len,
                           unsigned access)
{
    uint64_t last = ea + len - 1;
    bool code = s->attr & 8;
    if (bt_protected(cpu)) {
        if (s->attr & ATTR_UNUSABLE)
            return false;
        if ((access & BT_WRITE) && (code || !(s->attr & 2)))
            return false;
        if (!(access & (BT_WRITE | BT_FETCH)) && code && !(s->attr & 2))
            return false;
    }
    if (!code && (s->attr & 4)) { /* expand down */
        uint64_t top = s->attr & ATTR_DB ? UINT32_MAX : 0xffff;
        return ea > s->limit && last <= top;
    }
    return last <= s->limit;
}

bool bt_seg_linear(struct bt_cpu *cpu, unsigned seg, uint64_t ea, unsigned len, unsigned access,
                   uint64_t *lin)
{
    const struct x86_segment *s = &cpu->seg[seg];
    unsigned vector = seg == SEG_SS ? VEC_SS : VEC_GP;
    if (bt_code64(cpu)) {
        *lin = ea + (seg == SEG_FS || seg == SEG_GS ? s->base : 0);
        if (!canonical(cpu, *lin) || !canonical(cpu, *lin + len - 1))
            return bt_raise_error(cpu, vector, 0);
        return true;
    }
    ea &= UINT32_MAX;
    if (!segment_allows(cpu, s, ea, len, access))
        return bt_raise_error(cpu, vector, 0);
    *lin = (ea + s->base) & UINT32_MAX;
    return true;
}

bool bt_read_seg(struct bt_cpu *cpu, unsigned seg, uint64_t ea, void *buf, unsigned len)
{
    uint64_t lin;
    if (!bt_seg_linear(cpu, seg, ea, len, BT_READ, &lin) || !bt_read_lin(cpu, lin, buf, len, BT_READ))
        return false;
    return !misaligned(cpu, lin, len) || bt_raise_error(cpu, VEC_AC, 0);
}

bool bt_write_seg(struct bt_cpu *cpu, unsigned seg, uint64_t ea, const void *buf, unsigned len)
{
    uint64_t lin;
    if (!bt_seg_linear(cpu, seg, ea, len, BT_WRITE, &lin))
        return false;
    if (misaligned(cpu, lin, len)) {
        struct span s;
        return span_translate(cpu, lin, len, BT_WRITE, &s) && bt_raise_error(cpu, VEC_AC, 0);
    }
    return bt_write_lin(cpu, lin, buf, len, BT_WRITE);
}

bool bt_can_write_seg(struct bt_cpu *cpu, unsigned seg, uint64_t ea, unsigned len)
{
    uint64_t lin;
    struct span s;
    return bt_seg_linear(cpu, seg, ea, len, BT_WRITE, &lin) && span_translate(cpu, lin, len, BT_WRITE, &s);
}

uint64_t bt_effective_address(const struct bt_cpu *cpu, const struct x86_insn *insn)
{
    const struct x86_mem *m = &insn->mem;
    uint64_t ea = (uint64_t)m->disp;
    if (m->base == REG_PC)
        ea += cpu->rip + insn->len;
    else if (m->base != REG_NONE)
        ea += cpu->gpr[m->base];
    if (m->index != REG_NONE && !m->vsib)
        ea += cpu->gpr[m->index] * m->scale;
    return insn->addrsize == 8 ? ea : insn->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
}

unsigned bt_fetch(struct bt_cpu *cpu, uint64_t rip, uint8_t buf[16])
{
    uint64_t lin = rip + (bt_code64(cpu) ? 0 : cpu->seg[SEG_CS].base), gpa;
    unsigned first = (unsigned)MIN(UINT64_C(15), GUEST_PAGE_SIZE - (lin & 0xfff));
    if (!bt_translate(cpu, lin, BT_FETCH, &gpa, NULL))
        return 0;
    const uint8_t *host = ram_ptr(cpu, gpa, false);
    if (!host)
        return 0;
    copy_bytes(buf, host, first);
    if (first == 15)
        return 15;
    if (!bt_translate(cpu, lin + first, BT_FETCH, &gpa, NULL)) {
        cpu->exc.pending = false;
        return first;
    }
    host = ram_ptr(cpu, gpa, false);
    if (!host)
        return first;
    copy_bytes(buf + first, host, 15 - first);
    return 15;
}
