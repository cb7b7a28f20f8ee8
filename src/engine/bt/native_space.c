/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages of a guest address space in a process for native code: see native_space.h. */
#include "engine/bt/native_space.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/util.h"
#include "engine/bt/cache.h"
#include "engine/bt/mmu.h"

#define LARGE_SIZE UINT64_C(0x200000)
/* Pages looked at around one that user code asks for: faults are dear. */
#define AROUND 16u
/* The host allows some 65000 mappings in a process. */
#define PAGES_MAX   16384u
#define PAGES_FIRST 256u
/* Where the host may let nothing be mapped (vm.mmap_min_addr). */
#define LOWEST UINT64_C(0x10000)

static uint64_t size_of(const struct native_page *page)
{
    return page->large ? LARGE_SIZE : GUEST_PAGE_SIZE;
}

/* ---- which pages are mapped ---- */

static unsigned hash_of(const struct native_space *s, uint64_t lin)
{
    return (unsigned)((lin >> GUEST_PAGE_SHIFT) * UINT64_C(0x9e3779b97f4a7c15) >> 40) & (2 * s->capacity - 1);
}

static struct native_page *find_at(const struct native_space *s, uint64_t lin, bool large)
{
    for (unsigned h = hash_of(s, lin); s->capacity && s->slot[h]; h = (h + 1) & (2 * s->capacity - 1)) {
        struct native_page *page = &s->page[s->slot[h] - 1];
        if (page->lin == lin && page->large == large)
            return page;
    }
    return NULL;
}

static struct native_page *find(const struct native_space *s, uint64_t lin)
{
    struct native_page *page = find_at(s, round_down(lin, LARGE_SIZE), true);
    return page ? page : find_at(s, round_down(lin, GUEST_PAGE_SIZE), false);
}

static void enter_slot(struct native_space *s, unsigned index)
{
    unsigned h = hash_of(s, s->page[index].lin);
    while (s->slot[h])
        h = (h + 1) & (2 * s->capacity - 1);
    s->slot[h] = index + 1;
}

static void enter_all(struct native_space *s)
{
    memset(s->slot, 0, 2 * s->capacity * sizeof(*s->slot));
    for (unsigned i = 0; i < s->count; i++)
        enter_slot(s, i);
}

/* Room for one more. False: no memory. */
static bool make_room(struct native_space *s)
{
    if (s->count < s->capacity)
        return true;
    unsigned capacity = s->capacity ? 2 * s->capacity : PAGES_FIRST;
    struct native_page *page = realloc(s->page, capacity * sizeof(*page));
    if (page)
        s->page = page;
    uint32_t *slot = page ? realloc(s->slot, 2 * capacity * sizeof(*slot)) : NULL;
    if (!slot)
        return false;
    s->slot = slot;
    s->capacity = capacity;
    enter_all(s);
    return true;
}

/* ---- mapping ---- */

static bool end_run(struct native_space *s)
{
    uint64_t len = s->run.len;
    s->run.len = 0;
    return !len || native_child_map(s->child, s->run.lin, len, s->run.region, s->run.offset, s->run.prot);
}

/* A mapping call, which is made together with those before it where they are one. */
static bool show(struct native_space *s, uint64_t lin, uint64_t len, unsigned region, uint64_t offset,
                 int prot)
{
    if (s->run.len && s->run.lin + s->run.len == lin && s->run.prot == prot &&
        (!prot || (s->run.region == region && s->run.offset + s->run.len == offset))) {
        s->run.len += len;
        return true;
    }
    if (!end_run(s))
        return false;
    s->run.lin = lin;
    s->run.len = len;
    s->run.region = region;
    s->run.offset = offset;
    s->run.prot = prot;
    return true;
}

static bool flush(struct native_space *s)
{
    return end_run(s) && native_child_flush(s->child);
}

static bool show_page(struct bt_cpu *cpu, struct native_space *s, const struct native_page *page)
{
    const struct guest_memory *mem = cpu->engine->config.memory;
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_region *r = &mem->region[i];
        if (page->gpa - r->gpa < r->size)
            return show(s, page->lin, size_of(page), i, page->gpa - r->gpa, page->prot);
    }
    return false;
}

/* ---- rights ---- */

static bool has_code(const struct bt_cpu *cpu, const struct native_page *page)
{
    for (uint64_t at = 0; at < size_of(page); at += GUEST_PAGE_SIZE)
        if (bt_page_has_code(cpu->engine, page->gpa + at, GUEST_PAGE_SIZE))
            return true;
    return false;
}

/* As in bt_tlb_fill: either the translator finds the page as writable or we find its code. */
static bool may_write(struct bt_cpu *cpu, const struct native_page *page)
{
    for (uint64_t at = 0; at < size_of(page); at += GUEST_PAGE_SIZE)
        bt_page_writable(cpu->engine, page->gpa + at);
    atomic_thread_fence(memory_order_seq_cst);
    return !has_code(cpu, page);
}

static bool may_execute(struct bt_cpu *cpu, const uint8_t *code, struct native_page *page)
{
    uint8_t bytes[GUEST_PAGE_SIZE + X86_INSN_MAX];
    struct bt_walk w;
    unsigned len = GUEST_PAGE_SIZE;
    pthread_mutex_lock(&cpu->engine->lock);
    bool protected = bt_cache_protect_native(cpu->engine, page->gpa, &page->version);
    pthread_mutex_unlock(&cpu->engine->lock);
    if (!protected)
        return false; /* somebody may be writing it just now */
    memcpy(bytes, code, len);
    if (bt_walk64(cpu, page->lin + len, &w) && w.user && !w.nx) {
        const uint8_t *next = bt_ram_ptr(cpu, round_down(w.gpa, GUEST_PAGE_SIZE), false);
        memcpy(bytes + len, next ? next : bytes, next ? X86_INSN_MAX : 0);
        len += next ? X86_INSN_MAX : 0;
    }
    return native_code_fits(bytes, len);
}

bool native_space_possible(struct bt_cpu *cpu)
{
    for (uint64_t at = NATIVE_STUB; at < NATIVE_STUB_END; at += GUEST_PAGE_SIZE) {
        struct bt_walk w;
        if (bt_walk64(cpu, at, &w))
            return false;
    }
    return true;
}

/* What a walk found as a page to be mapped; `fetch`: to execute it is wanted. False: no plain memory. */
static bool describe(struct bt_cpu *cpu, uint64_t lin, const struct bt_walk *w, bool fetch,
                     struct native_page *page)
{
    uint64_t size = w->large ? LARGE_SIZE : GUEST_PAGE_SIZE;
    *page = (struct native_page){
        .lin = round_down(lin, size), .gpa = round_down(w->gpa, size), .prot = PROT_READ, .large = w->large};
    const struct guest_region *r = guest_region_find(cpu->engine->config.memory, page->gpa);
    if (!r || r->fd < 0 || page->lin < LOWEST || page->gpa - r->gpa + size > r->size ||
        (page->lin < NATIVE_STUB_END && page->lin + size > NATIVE_STUB) || page->lin + size > NATIVE_TOP)
        return false;
    for (uint64_t at = 0; at < size; at += GUEST_PIECE)
        guest_memory_touch(cpu->engine->config.memory, page->gpa + at);
    if (w->writable && w->dirty && r->flags != REGION_ROM && may_write(cpu, page))
        page->prot |= PROT_WRITE;
    if (fetch && !w->nx && !w->writable && !w->large &&
        may_execute(cpu, r->host + (page->gpa - r->gpa), page))
        page->prot |= PROT_EXEC;
    return true;
}

static bool add(struct bt_cpu *cpu, struct native_space *s, const struct native_page *page)
{
    if (!make_room(s))
        return true; /* it comes again when it is asked for */
    s->page[s->count] = *page;
    enter_slot(s, s->count++);
    return show_page(cpu, s, page);
}

/* Neighbours that the guest has touched before, so that nothing is to be noted in its tables. */
static bool fill_around(struct bt_cpu *cpu, struct native_space *s, uint64_t lin, bool fetch)
{
    uint64_t first = round_down(lin, AROUND * GUEST_PAGE_SIZE);
    for (uint64_t at = first; at < first + AROUND * GUEST_PAGE_SIZE; at += GUEST_PAGE_SIZE) {
        struct bt_walk w;
        struct native_page page;
        if (!find(s, at) && bt_walk64(cpu, at, &w) && w.user && w.accessed && !w.large &&
            describe(cpu, at, &w, fetch, &page) && !add(cpu, s, &page))
            return false;
    }
    return true;
}

enum native_fill native_space_fill(struct bt_cpu *cpu, struct native_space *space, uint64_t lin, bool fetch)
{
    struct native_page *old = find(space, lin), page;
    struct bt_walk w;
    uint64_t gpa;
    int wanted = fetch ? PROT_EXEC : old ? PROT_WRITE : PROT_READ;
    if (lin >= NATIVE_TOP || (old && (old->prot & wanted)) ||
        !bt_translate(cpu, lin,
                      fetch                  ? BT_FETCH
                      : wanted == PROT_WRITE ? BT_WRITE
                                             : BT_READ,
                      &gpa, NULL) ||
        !bt_walk64(cpu, lin, &w) ||
        !describe(cpu, lin, &w, fetch || (old && (old->prot & PROT_EXEC)), &page) || !(page.prot & wanted)) {
        cpu->exc.pending = false;
        return NATIVE_REFUSED;
    }
    bool ok = true;
    if (old && old->lin == page.lin && old->large == page.large) {
        *old = page;
        ok = show_page(cpu, space, old);
    } else if (old || space->count + AROUND > PAGES_MAX) {
        ok = native_space_clear(space) && add(cpu, space, &page);
    } else {
        ok = add(cpu, space, &page) && (page.large || fill_around(cpu, space, lin, fetch));
    }
    /* Code was found in what is mapped to be written: perhaps the same page, by another address. */
    if (ok && atomic_load(&cpu->native_denied) != space->denied)
        ok = native_space_check(cpu, space);
    return ok && flush(space) ? NATIVE_FILLED : NATIVE_BROKEN;
}

/* Whether the guest's tables still say what the page is mapped as. */
static bool holds(struct bt_cpu *cpu, const struct native_page *page)
{
    struct bt_walk w;
    if (!bt_walk64(cpu, page->lin, &w) || !w.user || !w.accessed || w.large != page->large ||
        round_down(w.gpa, size_of(page)) != page->gpa)
        return false;
    return (!(page->prot & PROT_WRITE) || (w.writable && w.dirty)) &&
           (!(page->prot & PROT_EXEC) || (!w.nx && !w.writable));
}

/* Whether code is what it was when it was looked at. */
static bool code_holds(const struct bt_cpu *cpu, const struct native_page *page)
{
    return !(page->prot & PROT_EXEC) || bt_cache_native_version(cpu->engine, page->gpa) == page->version;
}

bool native_space_check(struct bt_cpu *cpu, struct native_space *space)
{
    uint32_t denied = atomic_load(&cpu->native_denied);
    uint32_t written = atomic_load(&cpu->engine->cache->native_writes);
    bool ok = true, again = space->denied != denied, changed = space->written != written;
    unsigned kept = 0;
    if (!space->stale && !again && !changed)
        return true;
    for (unsigned i = 0; ok && i < space->count; i++) {
        struct native_page *page = &space->page[i];
        bool good = (!space->stale || holds(cpu, page)) && (!changed || code_holds(cpu, page));
        if (!good) {
            ok = show(space, page->lin, size_of(page), 0, 0, 0);
            continue;
        }
        /* What stays must be known as writable again, or nobody asks us the next time. */
        if (again && (page->prot & PROT_WRITE) && !may_write(cpu, page)) {
            page->prot &= (uint8_t)~PROT_WRITE;
            ok = show_page(cpu, space, page);
        }
        space->page[kept++] = *page;
    }
    if (kept != space->count) {
        space->count = kept;
        enter_all(space);
    }
    space->stale = false;
    space->denied = denied;
    space->written = written;
    return ok && flush(space);
}

void native_space_mark_dirty(struct bt_cpu *cpu, const struct native_space *space)
{
    for (unsigned i = 0; i < space->count; i++)
        for (uint64_t at = 0; (space->page[i].prot & PROT_WRITE) && at < size_of(&space->page[i]);
             at += GUEST_PAGE_SIZE)
            bt_mark_dirty(cpu->engine, space->page[i].gpa + at);
}

bool native_space_clear(struct native_space *space)
{
    bool any = space->count;
    space->count = 0;
    space->vectors_known = false; /* what the host has beyond them must not stay */
    space->run.len = 0;
    if (any)
        enter_all(space);
    return !any || native_child_clear(space->child);
}

void native_space_free(struct native_space *space)
{
    native_child_free(space->child);
    free(space->page);
    free(space->slot);
    memset(space, 0, sizeof(*space));
}
