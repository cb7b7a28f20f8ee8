/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which entries of the jump cache and of the instruction TLB hold: see struct bt_code_space. gpr-only.
 *
 * Entries are forgotten by a new generation, a part of their key. A guest that changes its address space
 * flushes what is not global; but code is mapped as it was the last time, nearly always. So each of the last
 * few address spaces has a generation of its own and a list of the pages that its entries came by; when the
 * guest comes back to one, its tables are walked for each of them, which is a fraction of what it costs to
 * find thousands of blocks again.
 */
#include "base/util.h"
#include "engine/bt/bt.h"
#include "engine/bt/mmu.h"

static void update_jc_key(struct bt_cpu *cpu)
{
    uint32_t generation =
        cpu->mode & MODE_USER ? cpu->space[cpu->space_now].generation : cpu->kernel_view.generation;
    cpu->jc_key = (uint64_t)(cpu->mode | generation << BT_MODE_BITS) << BT_JC_KEY_SHIFT;
}

void bt_view_mode_changed(struct bt_cpu *cpu)
{
    cpu->jc = cpu->jcs[(cpu->mode & MODE_USER) != 0];
    update_jc_key(cpu);
}

/* All generations have been before: what is left of them must go. Entries of the other kind stay. */
static void forget_entries(struct bt_cpu *cpu, bool user)
{
    for (unsigned i = 0; i < BT_JC_SIZE; i++)
        cpu->jcs[user][i].target = BT_JC_NONE;
    for (unsigned i = 0; i < BT_ITLB_SIZE; i++) {
        uint64_t tag = cpu->itlb[i].tag,
                 sign = (uint64_t)((int64_t)(tag << 16) >> 63); /* the key is over the signs */
        if ((bool)((tag ^ sign) >> BT_JC_KEY_SHIFT & MODE_USER) == user)
            cpu->itlb[i].tag = BT_ITLB_NONE;
    }
}

/* ---- user code ---- */

static void forget_spaces(struct bt_cpu *cpu)
{
    for (unsigned i = 0; i < BT_SPACES; i++)
        cpu->space[i].cr3 = BT_SPACE_NONE;
}

/* The space begins anew, as the guest's current one. */
static void renew_space(struct bt_cpu *cpu, struct bt_code_space *s)
{
    cpu->space_generation = (cpu->space_generation + 1) % BT_GENERATIONS;
    if (!cpu->space_generation) {
        forget_spaces(cpu);
        forget_entries(cpu, true);
    }
    s->generation = cpu->space_generation;
    s->count = 0;
    s->cr3 = cpu->cr3;
}

static bool page_holds(struct bt_cpu *cpu, const struct bt_code_page *page)
{
    struct bt_walk w;
    return bt_walk64(cpu, page->lin, &w) && w.user && !w.nx && w.accessed && w.gpa == page->phys;
}

static bool space_holds(struct bt_cpu *cpu, const struct bt_code_space *s)
{
    if (s->count > BT_SPACE_PAGES || !bt_long_mode(cpu))
        return false;
    for (unsigned i = 0; i < s->count; i++)
        if (!page_holds(cpu, &s->page[i]))
            return false;
    return true;
}

static void note_user_page(struct bt_cpu *cpu, uint64_t lin, uint64_t phys)
{
    struct bt_code_space *s = &cpu->space[cpu->space_now];
    for (unsigned i = 0; i < s->count && i < BT_SPACE_PAGES; i++)
        if (s->page[i].lin == lin)
            return;
    if (s->count < BT_SPACE_PAGES)
        s->page[s->count] = (struct bt_code_page){lin, phys};
    s->count += s->count <= BT_SPACE_PAGES;
}

/* The guest has loaded CR3. */
static void enter_space(struct bt_cpu *cpu)
{
    unsigned found = 0;
    for (unsigned i = 1; i < BT_SPACES && cpu->space[found].cr3 != cpu->cr3; i++)
        if (cpu->space[i].cr3 == cpu->cr3 || cpu->space[i].used < cpu->space[found].used)
            found = i;
    struct bt_code_space *s = &cpu->space[found];
    if (s->cr3 != cpu->cr3 || !space_holds(cpu, s))
        renew_space(cpu, s);
    s->used = ++cpu->space_clock;
    cpu->space_now = found;
}

static void flush_user_page(struct bt_cpu *cpu, uint64_t lin)
{
    struct bt_code_space *s = &cpu->space[cpu->space_now];
    bool holds = s->count <= BT_SPACE_PAGES;
    for (unsigned i = 0; holds && i < s->count; i++)
        if (s->page[i].lin == round_down(lin, GUEST_PAGE_SIZE))
            holds = page_holds(cpu, &s->page[i]);
    if (!holds)
        renew_space(cpu, s);
}

/* ---- the kernel's ---- */

static void renew_kernel(struct bt_cpu *cpu)
{
    struct bt_kernel_view *view = &cpu->kernel_view;
    view->generation = (view->generation + 1) % BT_GENERATIONS;
    view->local = false;
    for (unsigned i = 0; i < ARRAY_SIZE(view->code_pages); i++)
        view->code_pages[i] = 0;
    if (!view->generation)
        forget_entries(cpu, false);
}

static unsigned code_page_bit(uint64_t lin)
{
    uint64_t page = lin >> GUEST_PAGE_SHIFT, hash = (page ^ page >> 12 ^ page >> 24) & (BT_CODE_PAGES - 1);
    return (unsigned)hash + (lin >> 63 ? BT_CODE_PAGES : 0);
}

/* ---- both ---- */

void bt_view_note_page(struct bt_cpu *cpu, uint64_t lin, uint64_t phys, bool global)
{
    if (cpu->mode & MODE_USER) {
        note_user_page(cpu, round_down(lin, GUEST_PAGE_SIZE), round_down(phys, GUEST_PAGE_SIZE));
        return;
    }
    unsigned bit = code_page_bit(lin);
    cpu->kernel_view.local |= !global;
    cpu->kernel_view.code_pages[bit / 64] |= BIT(bit % 64);
}

void bt_view_flush(struct bt_cpu *cpu, bool global_too)
{
    if (global_too) {
        forget_spaces(cpu);
        cpu->space_now = 0;
        renew_space(cpu, &cpu->space[0]);
    } else {
        enter_space(cpu);
    }
    if (global_too || cpu->kernel_view.local)
        renew_kernel(cpu);
    update_jc_key(cpu);
}

void bt_view_flush_page(struct bt_cpu *cpu, uint64_t lin)
{
    unsigned bit = code_page_bit(lin);
    flush_user_page(cpu, lin);
    if (cpu->kernel_view.code_pages[bit / 64] & BIT(bit % 64))
        renew_kernel(cpu);
    update_jc_key(cpu);
}
