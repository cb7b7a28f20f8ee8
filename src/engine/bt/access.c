/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Linear and segmented memory for C code, devices included, and the checked accesses of translated code
 * (CALLOUT_PRE and CALLOUT_POST). gpr-only: runs with the guest's vectors live; only device accesses save
 * them.
 */
#include "base/util.h"
#include "engine/bt/cache.h"
#include "engine/bt/lapic.h"
#include "engine/bt/mmu.h"
#include "engine/bt/thunk.h"

static void code_written(struct bt_cpu *cpu, uint64_t gpa, unsigned len)
{
    /* Pairs with the one in bt_cache_protect: either it reads what was written or we find its code bits. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!bt_page_has_code(cpu->engine, gpa, len))
        return;
    bt_vec_save(cpu);
    bt_code_written(cpu->engine, gpa, len);
}

/* ---- devices ---- */

static uint64_t mmio_read(struct bt_cpu *cpu, uint64_t gpa, unsigned len)
{
    const struct engine_host *host = cpu->engine->config.host;
    bt_vec_save(cpu);
    if (bt_lapic_owns(cpu->lapic, gpa))
        return bt_lapic_read(cpu->lapic, gpa & 0xfff);
    atomic_store(&cpu->in_host, true);
    uint64_t value = host->mmio_read(host->opaque, gpa, len);
    atomic_store(&cpu->in_host, false);
    return value;
}

static void mmio_write(struct bt_cpu *cpu, uint64_t gpa, unsigned len, uint64_t value)
{
    const struct engine_host *host = cpu->engine->config.host;
    bt_vec_save(cpu);
    cpu->event_check = true;
    if (bt_lapic_owns(cpu->lapic, gpa)) {
        bt_lapic_write(cpu->lapic, gpa & 0xfff, (uint32_t)value);
        return;
    }
    atomic_store(&cpu->in_host, true);
    host->mmio_write(host->opaque, gpa, len, value);
    atomic_store(&cpu->in_host, false);
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
    return bt_checks_alignment(cpu) && is_pow2(len) && (lin & (MIN(len, 16u) - 1));
}

/* Fast way through the TLB of the current mode; NULL: miss. */
static uint8_t *tlb_hit(const struct bt_cpu *cpu, uint64_t lin, unsigned len, unsigned access)
{
    const struct bt_tlb_entry *entry = bt_tlb_slot(cpu->tlb, lin);
    uint64_t tag = access & BT_WRITE ? entry->write_tag : entry->read_tag;
    if ((access & (BT_FETCH | BT_IMPLICIT | BT_USER)) || lin - tag > GUEST_PAGE_SIZE - len)
        return NULL;
    return (uint8_t *)(uintptr_t)(entry->addend + lin);
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
        host = bt_ram_ptr(cpu, s.gpa[i], false);
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
        host = bt_ram_ptr(cpu, s.gpa[i], true);
        if (host) {
            copy_bytes(host, from, s.len[i]);
            bt_mark_dirty(cpu->engine, s.gpa[i]);
            code_written(cpu, s.gpa[i], s.len[i]);
        } else if (!bt_ram_ptr(cpu, s.gpa[i], false)) {
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
    if (bt_page_watched(cpu, lin) || !bt_canonical_lin(cpu, lin) ||
        !bt_translate(cpu, lin, access, &gpa, &flags))
        return NULL;
    bool write = access & BT_WRITE;
    host = bt_ram_ptr(cpu, gpa, write);
    if (!host)
        return NULL;
    if (write) {
        bt_mark_dirty(cpu->engine, gpa);
        code_written(cpu, round_down(gpa, GUEST_PAGE_SIZE), GUEST_PAGE_SIZE);
    }
    bool filled = !(access & (BT_IMPLICIT | BT_USER)) && bt_ram_ptr(cpu, gpa, true) &&
                  bt_tlb_fill(cpu, lin, gpa, host - (gpa & 0xfff), flags, write);
    return !write || filled || cpu->engine->config.cpu_count == 1 ? host : NULL;
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
    uint8_t *host = bt_ram_ptr(cpu, gpa, access & BT_WRITE);
    if (host && (access & BT_WRITE))
        bt_mark_dirty(cpu->engine, gpa);
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

/* What a span holds, as far as that is RAM. */
static void read_ram(struct bt_cpu *cpu, const struct span *s, uint8_t *to)
{
    for (unsigned i = 0; i < 2 && s->len[i]; i++) {
        const uint8_t *host = bt_ram_ptr(cpu, s->gpa[i], false);
        if (host)
            copy_bytes(to, host, s->len[i]);
        to += s->len[i];
    }
}

uint64_t bt_callout_pre(struct bt_cpu *cpu, uint64_t ea, uint64_t desc)
{
    unsigned access = DESC_WRITE(desc) ? BT_WRITE : BT_READ, len = DESC_SIZE(desc);
    uint64_t lin;
    bool fault;
    struct span s;
    if ((desc & DESC_ALIGNED) && ((ea + segment_base(cpu, DESC_SEG(desc))) & (len - 1))) {
        bt_raise_error(cpu, VEC_GP, 0);
        return bt_access_fault(cpu, desc);
    }
    if (!bt_seg_linear(cpu, DESC_SEG(desc), ea, len, access, &lin))
        return bt_access_fault(cpu, desc);
    cpu->slow_lin = lin;
    cpu->slow_len = len;
    fault = false;
    uint8_t *host = NULL;
    bool unaligned = misaligned(cpu, lin, len);
    if (!unaligned) /* #AC comes before #PF */
        host = direct(cpu, lin, len, access, &fault);
    if (fault)
        return bt_access_fault(cpu, desc);
    if (unaligned) {
        bt_raise_error(cpu, VEC_AC, 0);
        return bt_access_fault(cpu, desc);
    }
    cpu->slow_direct = host != NULL;
    if (!host) {
        host = cpu->bounce + (lin & 63);
        if (access == BT_WRITE && !span_translate(cpu, lin, len, BT_WRITE, &s))
            return bt_access_fault(cpu, desc);
        if ((desc & DESC_READ) && access == BT_WRITE)
            split_lock(cpu);
        if ((desc & DESC_READ) && !bt_read_lin(cpu, lin, host, len, BT_READ))
            return bt_access_fault(cpu, desc);
        if (!(desc & DESC_READ) && (desc & DESC_X87)) /* may store nothing at all, and report that later */
            read_ram(cpu, &s, host);
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
        bt_mark_dirty(cpu->engine, gpa); /* the log may have been fetched since PRE */
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
    bt_leave_at(cpu, (unsigned)next_off, BT_EXIT_LOOKUP); /* this block may be among the killed */
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
        if (!bt_canonical_lin(cpu, *lin) || !bt_canonical_lin(cpu, *lin + len - 1))
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
    const uint8_t *host = bt_ram_ptr(cpu, gpa, false);
    if (!host)
        return 0;
    copy_bytes(buf, host, first);
    if (first == 15)
        return 15;
    if (!bt_translate(cpu, lin + first, BT_FETCH, &gpa, NULL)) {
        cpu->exc.pending = false;
        return first;
    }
    host = bt_ram_ptr(cpu, gpa, false);
    if (!host)
        return first;
    copy_bytes(buf + first, host, 15 - first);
    return 15;
}
