/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The code cache: see cache.h. */
#include "engine/bt/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/bt/table.h"

#define THUNK_ROOM    (16u * 1024)
#define PRESENT_PIECE (128u * 1024)
#define HASH_SIZE     (sizeof(struct bt_block *) << BT_HASH_BITS)
#define MIN_BLOCK     64u /* bytes of code that a block takes at least: bounds a segment's index */

long bt_page_index(const struct guest_memory *mem, uint64_t gpa)
{
    long first = 0;
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_region *r = &mem->region[i];
        if (gpa - r->gpa < r->size)
            return first + (long)((gpa - r->gpa) >> GUEST_PAGE_SHIFT);
        first += (long)(r->size >> GUEST_PAGE_SHIFT);
    }
    return -1;
}

static bool map_memory(struct bt_cache *c, struct error **err)
{
    c->fd = memfd_create("ruche-bt-code", MFD_CLOEXEC);
    if (c->fd < 0 || ftruncate(c->fd, (off_t)c->size) < 0) {
        error_set_errno(err, errno, "cannot make a code cache of %zu bytes", c->size);
        return false;
    }
    c->write = mmap(NULL, c->size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
    c->exec = mmap(NULL, c->size, PROT_READ | PROT_EXEC, MAP_SHARED, c->fd, 0);
    if (c->write == MAP_FAILED || c->exec == MAP_FAILED) {
        error_set_errno(err, errno, "cannot map the code cache (is executable memory forbidden here?)");
        return false;
    }
    return true;
}

struct bt_cache *bt_cache_new(const struct guest_memory *mem, size_t size, struct error **err)
{
    struct bt_cache *c = calloc(1, sizeof(*c));
    if (!c) {
        error_set_errno(err, ENOMEM, "cannot make a code cache");
        return NULL;
    }
    c->fd = -1;
    c->write = c->exec = MAP_FAILED;
    c->size = size;
    c->epoch = 1;
    for (unsigned i = 0; i < mem->region_count; i++)
        c->page_count += mem->region[i].size >> GUEST_PAGE_SHIFT;
    c->records_size = c->size / 4 * 3;
    c->records = bt_table_new(c->records_size);
    c->hash = bt_table_new(HASH_SIZE);
    c->pages = calloc(c->page_count, sizeof(c->pages[0]));
    c->writable = calloc((c->page_count + 63) / 64, sizeof(c->writable[0]));
    bool room_for_all = c->records && c->hash && c->pages && c->writable;
    if (!room_for_all || !map_memory(c, err)) {
        if (!room_for_all)
            error_set_errno(err, ENOMEM, "cannot make the index of %zu guest pages", c->page_count);
        bt_cache_free(c);
        return NULL;
    }
    size_t room = round_down((size - THUNK_ROOM) / BT_CACHE_SEGMENTS, 4096);
    c->max_blocks = (unsigned)(room / MIN_BLOCK);
    c->thunk_end = c->write + THUNK_ROOM;
    for (unsigned i = 0; i < BT_CACHE_SEGMENTS; i++) {
        struct bt_segment *s = &c->segment[i];
        s->start = s->next = c->thunk_end + i * room;
        s->end = s->start + room;
        s->records = s->record_next = c->records + i * (c->records_size / BT_CACHE_SEGMENTS);
        s->records_end = s->records + c->records_size / BT_CACHE_SEGMENTS;
        s->code_present = s->start;
        s->records_present = s->records;
        if (c->records_size / BT_CACHE_SEGMENTS % BT_HUGE_PAGE == 0)
            bt_table_small_pages(s->records, BT_HUGE_PAGE); /* all that an idle machine needs */
        s->blocks = calloc(c->max_blocks, sizeof(struct bt_block *));
        if (!s->blocks) {
            error_set_errno(err, ENOMEM, "cannot make the index of the code cache");
            bt_cache_free(c);
            return NULL;
        }
    }
    return c;
}

void bt_cache_free(struct bt_cache *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < BT_CACHE_SEGMENTS; i++) {
        struct bt_segment *s = &c->segment[i];
        free(s->blocks);
    }
    bt_table_free(c->records, c->records_size);
    bt_table_free((void *)(uintptr_t)c->hash, HASH_SIZE);
    for (size_t i = 0; c->pages && i < c->page_count; i++)
        free(c->pages[i]);
    free(c->pages);
    free(c->writable);
    if (c->write != MAP_FAILED)
        munmap(c->write, c->size);
    if (c->exec != MAP_FAILED)
        munmap(c->exec, c->size);
    if (c->fd >= 0)
        close(c->fd);
    free(c);
}

static unsigned hash_of(uint64_t phys, uint32_t mode)
{
    uint64_t h = (phys ^ ((uint64_t)mode << 44)) * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(h >> (64 - BT_HASH_BITS));
}

struct bt_block *bt_cache_find(struct bt_cache *c, uint64_t phys, uint32_t mode)
{
    struct bt_block *b = atomic_load_explicit(&c->hash[hash_of(phys, mode)], memory_order_acquire);
    while (b && (b->phys != phys || b->mode != mode))
        b = atomic_load_explicit(&b->hash_next, memory_order_acquire);
    return b;
}

struct bt_block *bt_cache_at(struct bt_cache *c, const uint8_t *pc)
{
    if (pc < c->exec || pc >= c->exec + c->size)
        return NULL;
    const uint8_t *write = c->write + (pc - c->exec);
    for (unsigned i = 0; i < BT_CACHE_SEGMENTS; i++) {
        struct bt_segment *s = &c->segment[i];
        if (write < s->start || write >= s->end)
            continue;
        unsigned low = 0, high = atomic_load_explicit(&s->count, memory_order_acquire);
        while (high - low > 1) {
            unsigned mid = (low + high) / 2;
            if (bt_block_write(c, s->blocks[mid], 0) <= write)
                low = mid;
            else
                high = mid;
        }
        struct bt_block *b = low < high ? s->blocks[low] : NULL;
        if (b && write >= bt_block_write(c, b, 0) && write < bt_block_write(c, b, b->code_len))
            return b;
    }
    return NULL;
}

/* Which page_next of a block belongs to the page at gpa. */
static unsigned side_of(const struct bt_block *block, uint64_t gpa)
{
    return round_down(block->phys, GUEST_PAGE_SIZE) == round_down(gpa, GUEST_PAGE_SIZE) ? 0 : 1;
}

static void page_remove(struct bt_cache *c, const struct guest_memory *mem, uint64_t gpa,
                        struct bt_block *block)
{
    struct bt_page *page = c->pages[bt_page_index(mem, gpa)];
    struct bt_block **at = &page->blocks;
    while (*at != block)
        at = &(*at)->page_next[side_of(*at, gpa)];
    *at = block->page_next[side_of(block, gpa)];
    if (!page->blocks && !page->native)
        page->code = 0;
}

/* Takes back what is marked as code but belongs to no block any more. */
static void page_recount(struct bt_page *page, uint64_t gpa)
{
    uint64_t code = page->native ? UINT64_MAX : 0;
    for (struct bt_block *b = page->blocks; b; b = b->page_next[side_of(b, gpa)]) {
        unsigned side = side_of(b, gpa);
        unsigned first = side ? 0 : (unsigned)(b->phys & 0xfff) / 64;
        unsigned last = side ? (unsigned)((b->phys + b->len - 1) & 0xfff) / 64
                             : MIN((unsigned)(b->phys & 0xfff) + b->len - 1u, 0xfffu) / 64;
        code |= (UINT64_MAX << first) & (UINT64_MAX >> (63 - last));
    }
    page->code = code;
}

static void kick_all(struct bt_engine *engine)
{
    for (unsigned i = 0; i < engine->config.cpu_count; i++)
        if (engine->cpu[i])
            bt_request(engine->cpu[i], BT_REQ_EVENT);
}

/*
 * Jump caches may still have the block: from now on its indirect entry, with which its code begins, leads
 * away. Its first instruction is longer than a jump and lies in 8 aligned bytes, which change at once.
 */
static void close_entry(struct bt_engine *engine, struct bt_block *block)
{
    uint8_t jump[8], *code = bt_block_write(engine->cache, block, 0);
    memcpy(jump, code, sizeof(jump));
    int32_t rel = (int32_t)(engine->thunks.dead - bt_block_exec(engine->cache, block, 5));
    jump[0] = 0xe9;
    memcpy(jump + 1, &rel, sizeof(rel));
    uint64_t word;
    memcpy(&word, jump, sizeof(word));
    __atomic_store_n((uint64_t *)(void *)code, word, __ATOMIC_RELEASE);
}

static void unlink_jump(struct bt_cache *c, struct bt_link *link)
{
    struct bt_block *from = bt_link_from(link);
    emit_patch(bt_block_write(c, from, link->at), bt_block_write(c, from, link->stub));
    link->to = NULL;
}

/* The block is found no more, and nothing jumps to it; its memory stays until its segment is reused. */
static void kill_block(struct bt_engine *engine, struct bt_block *block)
{
    struct bt_cache *c = engine->cache;
    struct bt_block *_Atomic *at = &c->hash[hash_of(block->phys, block->mode)];
    block->dead = true;
    close_entry(engine, block);
    if (block->mode & MODE_LOOP) /* nothing but the kick ends its own rounds */
        kick_all(engine);
    while (*at != block)
        at = &(*at)->hash_next;
    atomic_store_explicit(at, block->hash_next, memory_order_release);
    for (struct bt_link *in = block->in; in; in = in->next_in)
        unlink_jump(c, in);
    block->in = NULL;
    for (unsigned i = 0; i < block->link_count; i++) {
        struct bt_link *out = &block->link[i];
        if (!out->to)
            continue;
        struct bt_link **in = &out->to->in;
        while (*in != out)
            in = &(*in)->next_in;
        *in = out->next_in;
        unlink_jump(c, out);
    }
    page_remove(c, engine->config.memory, block->phys, block);
    if (block->page2)
        page_remove(c, engine->config.memory, bt_block_phys2(block), block);
    bt_stat_add(&c->stat_killed, 1);
}

/* After kills: every vCPU forgets its jump cache before it enters another block through it. */
static void forget_entries(struct bt_engine *engine)
{
    engine->cache->epoch++;
    for (unsigned i = 0; i < engine->config.cpu_count; i++)
        if (engine->cpu[i])
            bt_request(engine->cpu[i], BT_REQ_FLUSH_JC);
}

static void kill_segment(struct bt_engine *engine, struct bt_segment *s)
{
    for (unsigned i = 0; i < s->count; i++)
        if (!s->blocks[i]->dead)
            kill_block(engine, s->blocks[i]);
    forget_entries(engine);
    s->killed_at = engine->cache->epoch;
    bt_stat_add(&engine->cache->stat_evictions, 1);
}

bool bt_cache_grace_passed(struct bt_engine *engine, uint64_t epoch)
{
    for (unsigned i = 0; i < engine->config.cpu_count; i++) {
        struct bt_cpu *cpu = engine->cpu[i];
        if (!cpu)
            continue;
        uint64_t seen = atomic_load(&cpu->code_epoch);
        if (seen && seen < epoch)
            return false;
    }
    return true;
}

/* A page that is first touched costs many times what it costs among others: memory is asked for in pieces. */
static void make_present(struct bt_cache *c, struct bt_segment *s)
{
    if (s->next + BT_BLOCK_ROOM > s->code_present && s->code_present < s->end) {
        size_t len = MIN((size_t)(s->end - s->code_present), PRESENT_PIECE);
        madvise(s->code_present, len, MADV_POPULATE_WRITE);
        madvise(c->exec + (s->code_present - c->write), len, MADV_POPULATE_READ);
        s->code_present += len;
    }
    if (s->record_next + BT_RECORD_ROOM > s->records_present && s->records_present < s->records_end) {
        size_t len = MIN((size_t)(s->records_end - s->records_present), PRESENT_PIECE);
        madvise(s->records_present, len, MADV_POPULATE_WRITE);
        s->records_present += len;
    }
}

static bool segment_full(const struct bt_cache *c, const struct bt_segment *s)
{
    return (size_t)(s->end - s->next) < BT_BLOCK_ROOM ||
           (size_t)(s->records_end - s->record_next) < BT_RECORD_ROOM || s->count == c->max_blocks;
}

/* A killed segment that nobody can be in any more is empty. */
static void segment_reset(struct bt_segment *s)
{
    s->count = 0;
    s->next = s->start;
    s->record_next = s->records;
    s->killed_at = 0;
}

bool bt_cache_reserve(struct bt_engine *engine, struct emitter *e)
{
    struct bt_cache *c = engine->cache;
    struct bt_segment *s = &c->segment[c->current];
    if (!s->killed_at && segment_full(c, s)) {
        c->current = (c->current + 1) % BT_CACHE_SEGMENTS;
        s = &c->segment[c->current];
        if (s->count && !s->killed_at)
            kill_segment(engine, s);
    }
    if (s->killed_at) {
        if (!bt_cache_grace_passed(engine, s->killed_at))
            return false;
        segment_reset(s);
        /* Start the next grace period now, so that it is over when this segment is full. */
        struct bt_segment *after = &c->segment[(c->current + 1) % BT_CACHE_SEGMENTS];
        if (after->count && !after->killed_at)
            kill_segment(engine, after);
    }
    s->record_next += -(uintptr_t)s->record_next & (BT_BLOCK_LINE - 1);
    make_present(c, s);
    *e = (struct emitter){.p = s->next, .end = s->next + BT_BLOCK_ROOM, .delta = c->exec - c->write};
    return true;
}

size_t bt_cache_used(const struct bt_cache *c)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < BT_CACHE_SEGMENTS; i++)
        bytes += (size_t)(c->segment[i].next - c->segment[i].start) +
                 (size_t)(c->segment[i].record_next - c->segment[i].records);
    return bytes;
}

void bt_cache_empty(struct bt_engine *engine)
{
    struct bt_cache *c = engine->cache;
    for (unsigned i = 0; i < BT_CACHE_SEGMENTS; i++)
        if (c->segment[i].count && !c->segment[i].killed_at)
            kill_segment(engine, &c->segment[i]);
    for (unsigned i = 0; i < BT_CACHE_SEGMENTS; i++) {
        struct bt_segment *s = &c->segment[i];
        if (!s->killed_at || !bt_cache_grace_passed(engine, s->killed_at))
            continue;
        segment_reset(s);
        madvise(s->start, (size_t)(s->code_present - s->start), MADV_REMOVE);
        madvise(s->records, (size_t)(s->records_present - s->records), MADV_DONTNEED);
        s->code_present = s->start;
        s->records_present = s->records;
    }
}

void *bt_cache_record(struct bt_cache *c, size_t size)
{
    struct bt_segment *s = &c->segment[c->current];
    void *record = s->record_next;
    s->record_next += round_up(size, 8);
    return memset(record, 0, size);
}

size_t bt_cache_record_size(const struct bt_cache *c, const struct bt_block *block)
{
    return (size_t)(c->segment[c->current].record_next - (const uint8_t *)block);
}

void bt_cache_abandon(struct bt_cache *c, struct bt_block *block)
{
    c->segment[c->current].record_next = (uint8_t *)block;
}

static struct bt_page *page_get(struct bt_cache *c, const struct guest_memory *mem, uint64_t gpa)
{
    long index = bt_page_index(mem, gpa);
    struct bt_page *page = atomic_load_explicit(&c->pages[index], memory_order_acquire);
    if (!page) {
        page = calloc(1, sizeof(*page));
        if (!page)
            abort(); /* 16 bytes; the host is out of memory altogether */
        atomic_store_explicit(&c->pages[index], page, memory_order_release);
    }
    return page;
}

void bt_cache_add(struct bt_engine *engine, struct bt_block *block, const struct emitter *e)
{
    struct bt_cache *c = engine->cache;
    struct bt_segment *s = &c->segment[c->current];
    block->code = (uint32_t)(s->next - c->write);
    block->code_len = (uint16_t)(e->p - s->next);
    s->next = e->p + (-(uintptr_t)e->p & 15);
    s->blocks[s->count] = block;
    atomic_store_explicit(&s->count, s->count + 1, memory_order_release);
    struct bt_page *page = page_get(c, engine->config.memory, block->phys);
    block->page_next[0] = page->blocks;
    page->blocks = block;
    if (block->page2) {
        page = page_get(c, engine->config.memory, bt_block_phys2(block));
        block->page_next[1] = page->blocks;
        page->blocks = block;
    }
    struct bt_block *_Atomic *bucket = &c->hash[hash_of(block->phys, block->mode)];
    block->hash_next = *bucket;
    atomic_store_explicit(bucket, block, memory_order_release);
}

void bt_cache_link(struct bt_cache *c, struct bt_link *link, struct bt_block *to)
{
    const struct bt_block *from = bt_link_from(link);
    if (link->to || from->dead || to->dead)
        return;
    bool backward = link->target <= (from->phys & 0xfff) + from->len - 1u;
    unsigned entry = link->saved ? to->entry_saved : backward ? to->entry_poll : to->entry;
    link->to = to;
    link->next_in = to->in;
    to->in = link;
    emit_patch(bt_block_write(c, from, link->at), bt_block_write(c, to, entry));
}

static uint64_t granules(uint64_t gpa, unsigned len)
{
    unsigned first = (unsigned)(gpa & 0xfff) / 64, last = (unsigned)((gpa & 0xfff) + len - 1) / 64;
    return (UINT64_MAX << first) & (UINT64_MAX >> (63 - last));
}

void bt_page_writable(struct bt_engine *engine, uint64_t gpa)
{
    long index = bt_page_index(engine->config.memory, gpa);
    if (index < 0)
        return;
    uint64_t *word = &engine->cache->writable[index / 64], bit = BIT(index % 64);
    if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
        __atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
}

/*
 * Takes the page from all soft TLBs. Whether another vCPU may be about to write it all the same: also by a
 * look-up whose entry has gone since, as for all accesses of a block that share it.
 */
static bool deny_page(struct bt_engine *engine, uint64_t gpa)
{
    long index = bt_page_index(engine->config.memory, gpa);
    uint64_t *word = &engine->cache->writable[index / 64], bit = BIT(index % 64);
    /* Pairs with the fence in mmu.c: either the filler sees the page's code bits or we see its entry. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!(__atomic_fetch_and(word, ~bit, __ATOMIC_SEQ_CST) & bit))
        return false;
    const struct guest_region *r = guest_region_find(engine->config.memory, gpa);
    uint64_t host = (uint64_t)(uintptr_t)(r->host + (round_down(gpa, GUEST_PAGE_SIZE) - r->gpa));
    for (unsigned i = 0; i < engine->config.cpu_count; i++)
        if (engine->cpu[i])
            bt_tlb_deny_writes(engine->cpu[i], host, false);
    return engine->config.cpu_count > 1;
}

bool bt_cache_protect(struct bt_engine *engine, uint64_t gpa, unsigned len)
{
    struct bt_page *page = page_get(engine->cache, engine->config.memory, gpa);
    if (!atomic_fetch_or(&page->code, granules(gpa, len)) && deny_page(engine, gpa)) {
        page->denied_at = ++engine->cache->epoch;
        kick_all(engine);
    }
    if (page->denied_at && !bt_cache_grace_passed(engine, page->denied_at))
        return false;
    page->denied_at = 0;
    return true;
}

bool bt_cache_protect_native(struct bt_engine *engine, uint64_t gpa, uint32_t *version)
{
    uint64_t first = round_down(gpa, GUEST_PAGE_SIZE);
    struct bt_page *page = page_get(engine->cache, engine->config.memory, first);
    page->native = true;
    *version = atomic_load(&page->version);
    return bt_cache_protect(engine, first, GUEST_PAGE_SIZE);
}

uint32_t bt_cache_native_version(const struct bt_engine *engine, uint64_t gpa)
{
    const struct bt_page *page = engine->cache->pages[bt_page_index(engine->config.memory, gpa)];
    return page ? atomic_load(&page->version) : 0;
}

bool bt_page_has_code(const struct bt_engine *engine, uint64_t gpa, unsigned len)
{
    long index = bt_page_index(engine->config.memory, gpa);
    if (index < 0)
        return false;
    struct bt_page *page = atomic_load_explicit(&engine->cache->pages[index], memory_order_acquire);
    return page && (atomic_load(&page->code) & granules(gpa, len));
}

bool bt_cache_invalidate(struct bt_engine *engine, uint64_t gpa, uint64_t len)
{
    struct bt_cache *c = engine->cache;
    uint64_t end = gpa + len;
    bool any = false;
    for (uint64_t at = round_down(gpa, GUEST_PAGE_SIZE); at < end; at += GUEST_PAGE_SIZE) {
        long index = bt_page_index(engine->config.memory, at);
        struct bt_page *page = index < 0 ? NULL : c->pages[index];
        if (!page)
            continue;
        if (page->native) {
            page->native = false;
            atomic_fetch_add(&page->version, 1);
            atomic_fetch_add(&c->native_writes, 1);
        }
        for (struct bt_block *b = page->blocks, *next; b; b = next) {
            unsigned side = round_down(b->phys, GUEST_PAGE_SIZE) == at ? 0 : 1;
            uint64_t first = side ? at : b->phys;
            uint64_t last = !b->page2 ? b->phys + b->len
                            : side    ? at + ((b->phys + b->len) & 0xfff)
                                      : at + GUEST_PAGE_SIZE;
            next = b->page_next[side];
            if (first < end && last > gpa) {
                kill_block(engine, b);
                any = true;
            }
        }
        page_recount(page, at);
    }
    return any;
}

void bt_code_written(struct bt_engine *engine, uint64_t gpa, uint64_t len)
{
    uint64_t end = gpa + len;
    atomic_thread_fence(memory_order_seq_cst); /* see code_written in access.c */
    while (gpa < end) {
        unsigned n = (unsigned)MIN(end - gpa, GUEST_PAGE_SIZE - (gpa & 0xfff));
        if (bt_page_has_code(engine, gpa, n)) {
            pthread_mutex_lock(&engine->lock);
            bt_cache_invalidate(engine, gpa, n);
            pthread_mutex_unlock(&engine->lock);
        }
        gpa += n;
    }
}
