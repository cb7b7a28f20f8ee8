/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The loop of a vCPU: see bt.h. gpr-only: the guest's vectors stay in host registers from block to block;
 * what may clobber them is marked by bt_vec_save.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/bt/idle.h"
#include "engine/bt/lapic.h"
#include "engine/bt/native.h"
#include "engine/bt/native_child.h"
#include "engine/bt/run.h"
#include "engine/bt/translate.h"
#include "engine/bt/watch.h"

#define DR6_BS BIT(14)

void bt_request(struct bt_cpu *cpu, uint32_t request)
{
    atomic_fetch_or(&cpu->requests, request);
    atomic_store(&cpu->kick, 1);
    if (atomic_load(&cpu->sleeping))
        syscall(SYS_futex, &cpu->kick, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    int native_fd = atomic_load(&cpu->native_fd);
    if (native_fd)
        native_child_interrupt(native_fd - 1);
}

static bool flat_data(const struct x86_segment *s)
{
    return s->base == 0 && s->limit == UINT32_MAX && !(s->attr & ATTR_UNUSABLE) && (s->attr & 0xe) == 2;
}

void bt_mode_update(struct bt_cpu *cpu)
{
    uint32_t mode = 0;
    const struct x86_segment *seg = cpu->seg;
    if (bt_long_mode(cpu) && (seg[SEG_CS].attr & ATTR_L)) {
        mode |= MODE_CODE64 | MODE_FLAT;
    } else {
        mode |= seg[SEG_CS].attr & ATTR_DB ? MODE_CODE32 : 0;
        mode |= seg[SEG_SS].attr & ATTR_DB ? MODE_STACK32 : 0;
        if (bt_protected(cpu) && seg[SEG_CS].base == 0 && seg[SEG_CS].limit == UINT32_MAX &&
            (seg[SEG_CS].attr & 2) && flat_data(&seg[SEG_DS]) && flat_data(&seg[SEG_ES]) &&
            flat_data(&seg[SEG_SS]))
            mode |= MODE_FLAT;
    }
    enum bt_tlb_mode tlb = BT_TLB_KERNEL;
    if (cpu->cpl == 3) {
        bt_stat_add(&cpu->stats.user_entries, !(cpu->mode & MODE_USER));
        mode |= MODE_USER;
        mode |= (cpu->cr0 & CR0_AM) && (cpu->sysflags & FLAG_AC) ? MODE_ALIGN : 0;
        tlb = BT_TLB_USER;
    } else if ((cpu->cr4 & CR4_SMAP) && !(cpu->sysflags & FLAG_AC)) {
        mode |= MODE_SMAP;
        tlb = BT_TLB_KERNEL_SMAP;
    }
    mode |= cpu->cpl % 3 && (mode & MODE_CODE64) ? MODE_ALIGN : 0; /* CPL 1 and 2 */
    mode |= cpu->cr0 & (CR0_TS | CR0_EM) ? MODE_NO_FPU : 0;
    mode |= cpu->cr4 & CR4_OSFXSR ? MODE_SSE : 0;
    mode |= (cpu->cr4 & CR4_OSXSAVE) && (cpu->xcr0 & 6) == 6 ? MODE_AVX : 0;
    cpu->tlb = cpu->tlbs[tlb];
    cpu->mode = mode;
    bt_view_mode_changed(cpu);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        cpu->seg_base[i] = seg[i].base;
}

static struct bt_jc_entry *jc_slot(struct bt_cpu *cpu, uint64_t rip)
{
    return &cpu->jc[((uint32_t)rip >> 10 ^ (uint32_t)rip) & (BT_JC_SIZE - 1)];
}

/* Linear address of RIP, after the checks that fetching makes. */
static bool fetch_address(struct bt_cpu *cpu, uint64_t *lin)
{
    if (cpu->mode & MODE_CODE64) {
        *lin = cpu->rip;
        if ((uint64_t)((int64_t)(cpu->rip << 16) >> 16) == cpu->rip)
            return true;
        if (cpu->branch_off != BT_NO_BRANCH) { /* the branch faults, not its target */
            cpu->rip = cpu->pc_base + cpu->branch_off;
            cpu->gpr[R_RSP] += (uint64_t)(int64_t)cpu->branch_undo;
        }
        return bt_raise_error(cpu, VEC_GP, 0);
    }
    *lin = (cpu->rip + cpu->seg[SEG_CS].base) & UINT32_MAX;
    if (cpu->rip > cpu->seg[SEG_CS].limit)
        return bt_raise_error(cpu, VEC_GP, 0);
    return true;
}

/* Physical address of code, through the instruction TLB. False: cpu->exc. */
static bool fetch_physical(struct bt_cpu *cpu, uint64_t lin, uint64_t *phys)
{
    struct bt_itlb_entry *entry = &cpu->itlb[(lin >> GUEST_PAGE_SHIFT) & (BT_ITLB_SIZE - 1)];
    uint64_t tag = round_down(lin, GUEST_PAGE_SIZE) ^ cpu->jc_key;
    if (entry->tag != tag) {
        uint64_t flags;
        if (!bt_translate(cpu, lin, BT_FETCH, phys, &flags))
            return false;
        bt_view_note_page(cpu, lin, *phys, flags & BT_TLBE_GLOBAL);
        entry->tag = tag;
        entry->phys = round_down(*phys, GUEST_PAGE_SIZE);
    }
    *phys = entry->phys | (lin & 0xfff);
    return true;
}

/* A block that crosses a page is good only while its second page is what it was. */
static bool second_page_holds(struct bt_cpu *cpu, const struct bt_block *block, uint64_t lin)
{
    uint64_t gpa, next = round_down(lin, GUEST_PAGE_SIZE) + GUEST_PAGE_SIZE;
    if (!block->page2)
        return true;
    if (!bt_long_mode(cpu))
        next &= UINT32_MAX;
    return fetch_physical(cpu, next, &gpa) && gpa == bt_block_phys2(block);
}

/* Lets other vCPUs come out of blocks that are about to be reused. */
static void wait_for_grace(struct bt_cpu *cpu)
{
    cpu->exit_link = NULL; /* its block may go */
    atomic_store(&cpu->code_epoch, 0);
    sched_yield();
    atomic_store(&cpu->code_epoch, atomic_load(&cpu->engine->cache->epoch));
}

/* Translates under the lock. NULL: cpu->exc is pending, or cpu->why says why not. */
static struct bt_block *make_block(struct bt_cpu *cpu, uint64_t lin, uint64_t phys, uint32_t mode)
{
    struct bt_engine *engine = cpu->engine;
    bt_vec_save(cpu);
    for (;;) {
        struct bt_block *block;
        pthread_mutex_lock(&engine->lock);
        block = bt_cache_find(engine->cache, phys, mode);
        if (block && !second_page_holds(cpu, block, lin)) {
            bool fault = cpu->exc.pending;
            if (!fault)
                bt_cache_invalidate(engine, block->phys, 1);
            block = NULL;
            if (fault) {
                pthread_mutex_unlock(&engine->lock);
                return NULL;
            }
        }
        enum bt_translate_result r = BT_TRANSLATED;
        if (!block) {
            uint64_t begin = bt_host_tsc();
            r = bt_translate_block(cpu, lin, phys, mode, &block);
            bt_stat_add(&cpu->stats.translate_cycles, bt_host_tsc() - begin);
        }
        pthread_mutex_unlock(&engine->lock);
        if (r == BT_TRANSLATED)
            return block;
        if (r == BT_TRANSLATE_FAULT)
            return NULL;
        if (r == BT_TRANSLATE_ERROR) {
            cpu->failed = true;
            return NULL;
        }
        wait_for_grace(cpu);
    }
}

/* The block at RIP for cpu->mode | extra; sets pc_base. NULL: as make_block. */
static struct bt_block *find_block(struct bt_cpu *cpu, uint32_t extra)
{
    uint64_t lin, phys;
    uint32_t mode = cpu->mode | extra;
    if (!fetch_address(cpu, &lin) || !fetch_physical(cpu, lin, &phys))
        return NULL;
    cpu->pc_base = cpu->rip - (lin & 0xfff);
    bt_stat_add(&cpu->stats.block_lookups, 1);
    struct bt_block *block = bt_cache_find(cpu->engine->cache, phys, mode);
    if (!block || !second_page_holds(cpu, block, lin))
        block = cpu->exc.pending ? NULL : make_block(cpu, lin, phys, mode);
    return block;
}

static void chain(struct bt_cpu *cpu, struct bt_block *to)
{
    struct bt_link *link = cpu->exit_link;
    if (!BT_CHAINS || !link || (to->page2 && !to->asks) || link->to)
        return;
    bt_vec_save(cpu);
    pthread_mutex_lock(&cpu->engine->lock);
    /* Made for an offset in its own page; an interrupt may have taken RIP elsewhere meanwhile. */
    if (to->phys == round_down(bt_link_from(link)->phys, GUEST_PAGE_SIZE) + link->target &&
        to->mode == link->mode)
        bt_cache_link(cpu->engine->cache, link, to);
    pthread_mutex_unlock(&cpu->engine->lock);
}

/* RIP, for those reasons to come out that say it by their argument. */
static void take_argument(struct bt_cpu *cpu)
{
    uint64_t off = cpu->exit_arg;
    switch (cpu->exit_reason) {
    case BT_EXIT_LINK:
        cpu->exit_link = (struct bt_link *)(uintptr_t)cpu->exit_arg;
        off = cpu->exit_link->target;
        break;
    case BT_EXIT_OP:
        off = ((const struct bt_op *)(uintptr_t)cpu->exit_arg)->page_off;
        break;
    case BT_EXIT_POLL:
    case BT_EXIT_MOVED:
        break;
    default:
        return;
    }
    cpu->rip = bt_wrap_rip(cpu, cpu->pc_base + off);
}

static void enter(struct bt_cpu *cpu, const uint8_t *entry, uint64_t t0)
{
    if (!cpu->vec_live)
        bt_vec_load(cpu);
    cpu->exit_reason = BT_EXIT_NONE;
    cpu->branch_off = BT_NO_BRANCH;
    cpu->engine->thunks.enter(cpu, entry, t0);
    take_argument(cpu);
    if (cpu->slow_locked)
        bt_split_unlock(cpu);
}

/* Runs from RIP until translated code comes back. False: nothing could be entered (cpu->exc or cpu->failed).
 */
static bool run_blocks(struct bt_cpu *cpu, uint32_t extra)
{
    const struct bt_link *link = cpu->exit_link;
    bool linking = cpu->exit_reason == BT_EXIT_LINK && link && !extra;
    if (linking)
        extra = link->mode & (MODE_PRECISE | MODE_LOOP);
    bool cacheable = BT_CACHES_JUMPS && (cpu->mode & (MODE_FLAT | MODE_ALIGN)) == MODE_FLAT && !extra;
    struct bt_jc_entry *slot = jc_slot(cpu, cpu->rip);
    if (cpu->exit_reason == BT_EXIT_DEAD || cpu->exit_reason == BT_EXIT_MOVED)
        slot->target = BT_JC_NONE;
    uint64_t target = slot->target ^ cpu->jc_key;
    if (cacheable && !linking && slot->rip == cpu->rip && target < BT_TARGET_END) {
        enter(cpu, (const uint8_t *)(uintptr_t)target, cpu->rip);
        return true;
    }
    struct bt_block *block = find_block(cpu, extra);
    if (!block)
        return false;
    if (linking)
        chain(cpu, block);
    if (cacheable && (!block->page2 || block->asks)) {
        slot->rip = cpu->rip;
        slot->target = (uint64_t)(uintptr_t)bt_block_exec(cpu->engine->cache, block, 0) ^ cpu->jc_key;
    }
    enter(cpu, bt_block_exec(cpu->engine->cache, block, block->entry), 0);
    return true;
}

/* ---- events ---- */

static void take_requests(struct bt_cpu *cpu)
{
    atomic_store(&cpu->kick, 0);
    uint32_t requests = atomic_exchange(&cpu->requests, 0);
    if (requests & BT_REQ_FLUSH_JC)
        bt_view_flush(cpu, true);
    if (requests & BT_REQ_FLUSH_TLB)
        bt_tlb_flush(cpu, true);
    if (requests & BT_REQ_STOP)
        cpu->stop = true;
    cpu->event_check = true;
}

static void deliver_external(struct bt_cpu *cpu, uint8_t vector)
{
    bt_stat_add(&cpu->stats.interrupts, 1);
    cpu->exc = (struct bt_exception){.pending = true, .vector = vector, .external = true};
    cpu->mp_state = MP_RUNNING;
    bt_deliver(cpu);
}

static void deliver_interrupt(struct bt_cpu *cpu)
{
    bt_vec_save(cpu);
    int vector = bt_lapic_acknowledge(cpu->lapic);
    if (vector >= 0)
        deliver_external(cpu, (uint8_t)vector);
}

static void deliver_nmi(struct bt_cpu *cpu)
{
    cpu->nmi_pending = false;
    cpu->nmi_blocked = true;
    deliver_external(cpu, VEC_NMI);
}

static void startup_ipi(struct bt_cpu *cpu, uint8_t vector)
{
    cpu->seg[SEG_CS].selector = (uint16_t)(vector << 8);
    cpu->seg[SEG_CS].base = (uint64_t)vector << 12;
    cpu->rip = 0;
    cpu->mp_state = MP_RUNNING;
    bt_mode_update(cpu);
}

/* INIT, SIPI, timer; then what interrupts. */
static void take_events(struct bt_cpu *cpu)
{
    uint8_t sipi;
    bt_vec_save(cpu);
    for (enum bt_lapic_event event; (event = bt_lapic_take_event(cpu->lapic, &sipi)) != BT_LAPIC_NONE;) {
        if (event == BT_LAPIC_INIT)
            bt_cpu_reset(cpu, true);
        else if (cpu->mp_state == MP_WAIT_SIPI)
            startup_ipi(cpu, sipi);
    }
    bt_lapic_check_timer(cpu->lapic);
    if (atomic_exchange(&cpu->nmi_request, false))
        cpu->nmi_pending = true;
}

static bool deliverable(struct bt_cpu *cpu)
{
    return (cpu->nmi_pending && !cpu->nmi_blocked) || (cpu->iflag && bt_lapic_pending(cpu->lapic));
}

/* Delivers at most one thing. */
static void deliver_events(struct bt_cpu *cpu)
{
    if (cpu->pending_db) {
        cpu->exc = (struct bt_exception){.pending = true, .vector = VEC_DB, .dr6 = cpu->pending_db};
        cpu->pending_db = 0;
        bt_deliver(cpu);
        return;
    }
    if (cpu->interrupt_pending) {
        cpu->interrupt_pending = false;
        deliver_external(cpu, cpu->interrupt_vector);
        return;
    }
    if (!cpu->event_check || cpu->mp_state == MP_WAIT_SIPI)
        return;
    if (cpu->shadow) {
        cpu->event_check = deliverable(cpu); /* then step() comes back here after one instruction */
        return;
    }
    if (cpu->nmi_pending && !cpu->nmi_blocked) {
        deliver_nmi(cpu);
        return;
    }
    bool waiting = bt_lapic_pending(cpu->lapic);
    /* Looked at again when IF is set: by C, or, when one is waiting, by STI's coming out. */
    cpu->irq_waiting = waiting && !cpu->iflag;
    if (waiting && cpu->iflag)
        deliver_interrupt(cpu);
    else
        cpu->event_check = false;
}

/* HLT and wait-for-SIPI. Returns when something may have changed. */
static void sleep_until_event(struct bt_cpu *cpu)
{
    uint64_t deadline = cpu->mp_state == MP_WAIT_SIPI ? UINT64_MAX : bt_lapic_next_expiry(cpu->lapic);
    struct timespec ts = {.tv_sec = (time_t)(deadline / 1000000000),
                          .tv_nsec = (long)(deadline % 1000000000)};
    bt_vec_save(cpu);
    cpu->exit_link = NULL; /* its block may go */
    atomic_store(&cpu->code_epoch, 0);
    bt_idle_check(cpu->engine);
    atomic_store(&cpu->sleeping, true);
    uint64_t begin = bt_host_tsc();
    atomic_store(&cpu->sleeping_since, begin);
    if (!atomic_load(&cpu->kick))
        syscall(SYS_futex, &cpu->kick, FUTEX_WAIT_BITSET_PRIVATE, 0, deadline == UINT64_MAX ? NULL : &ts,
                NULL, FUTEX_BITSET_MATCH_ANY);
    atomic_store(&cpu->sleeping_since, 0);
    bt_stat_add(&cpu->stats.halt_cycles, bt_host_tsc() - begin);
    atomic_store(&cpu->sleeping, false);
    atomic_store(&cpu->code_epoch, atomic_load(&cpu->engine->cache->epoch));
    take_requests(cpu);
    take_events(cpu);
    if (cpu->mp_state == MP_HALTED && deliverable(cpu))
        cpu->mp_state = MP_RUNNING;
}

/* ---- one round ---- */

static bool breakpoints_on(const struct bt_cpu *cpu)
{
    uint64_t dr7 = cpu->dr[7];
    if (!(dr7 & 0xff))
        return false;
    for (unsigned i = 0; i < 4; i++)
        if ((dr7 >> (2 * i) & 3) && !(dr7 >> (16 + 4 * i) & 3))
            return true;
    return false;
}

/* Instruction breakpoint at RIP: a fault before the instruction, unless RF is set. */
static bool hits_breakpoint(struct bt_cpu *cpu)
{
    uint64_t lin = cpu->rip + (cpu->mode & MODE_CODE64 ? 0 : cpu->seg[SEG_CS].base), hits = 0;
    for (unsigned i = 0; i < 4; i++)
        if ((cpu->dr[7] >> (2 * i) & 3) && !(cpu->dr[7] >> (16 + 4 * i) & 3) && cpu->dr[i] == lin)
            hits |= BIT(i);
    if (!hits || (cpu->sysflags & FLAG_RF))
        return false;
    cpu->exc = (struct bt_exception){.pending = true, .vector = VEC_DB, .dr6 = hits};
    bt_deliver(cpu);
    return true;
}

static bool run_op(struct bt_cpu *cpu)
{
    const struct bt_op *op = (const struct bt_op *)(uintptr_t)cpu->exit_arg;
    if (op->heavy)
        bt_vec_save(cpu);
    cpu->event_check = true;
    return op->run(cpu, op);
}

/* From RIP to the next return from translated code, and what that asks for. */
static void step(struct bt_cpu *cpu)
{
    bool stepping = cpu->sysflags & FLAG_TF;
    bool careful = stepping || breakpoints_on(cpu) || (cpu->sysflags & FLAG_RF);
    if (careful && hits_breakpoint(cpu))
        return;
    cpu->sysflags &= ~FLAG_RF; /* holds for one instruction, whose own IRET or POPF may set it anew */
    bool shadow = cpu->shadow, trap_shadow = cpu->trap_shadow;
    uint64_t from = cpu->rip;
    cpu->shadow = cpu->trap_shadow = false; /* the instruction may begin new ones */
    /* Something may be waiting for the end of the shadow: exactly one instruction, then. */
    careful |= shadow && cpu->event_check;
    uint32_t extra = careful || cpu->exit_reason == BT_EXIT_SLOW ? MODE_SLOW
                     : cpu->exit_reason == BT_EXIT_PRECISE       ? MODE_PRECISE
                                                                 : 0;
    bool done = run_blocks(cpu, extra);
    cpu->event_check |= cpu->shadow; /* STI came out */
    if (done) {
        bt_stat_add(&cpu->stats.exits[cpu->exit_reason], 1);
        if (cpu->engine->config.trace)
            bt_trace_exit(cpu);
        if (cpu->exit_reason == BT_EXIT_OP)
            done = run_op(cpu);
        else if (cpu->exit_reason == BT_EXIT_FAULT)
            done = false;
    }
    bool at_start =
        cpu->rip == from && (cpu->exit_reason == BT_EXIT_POLL || cpu->exit_reason == BT_EXIT_PRECISE ||
                             cpu->exit_reason == BT_EXIT_LINK || cpu->exit_reason == BT_EXIT_DEAD ||
                             cpu->exit_reason == BT_EXIT_MOVED);
    bool ran = done && cpu->exit_reason != BT_EXIT_SLOW && !at_start;
    if (!ran && !cpu->exc.pending) {
        cpu->shadow = shadow;
        cpu->trap_shadow = trap_shadow;
    }
    if (cpu->exc.pending) {
        cpu->exit_reason = BT_EXIT_NONE;
        bt_deliver(cpu);
    } else if (ran && stepping && !cpu->trap_shadow) {
        cpu->pending_db |= DR6_BS;
    }
}

/* User code goes on natively for a while. True: something is to be looked at before the next step. */
static bool go_native(struct bt_cpu *cpu)
{
    bt_vec_save(cpu);
    bt_native_run(cpu);
    return cpu->failed || cpu->pending_db || atomic_load(&cpu->kick);
}

enum bt_run_result bt_run_loop(struct bt_cpu *cpu)
{
    cpu->exit_reason = BT_EXIT_NONE;
    cpu->event_check = true;
    for (;;) {
        uint64_t epoch = atomic_load(&cpu->engine->cache->epoch);
        if (epoch != atomic_load(&cpu->code_epoch)) {
            cpu->exit_link = NULL; /* from now on its block may go */
            atomic_store(&cpu->code_epoch, epoch);
        }
        if (atomic_load(&cpu->kick)) {
            take_requests(cpu);
            take_events(cpu);
            if (cpu->cpl == 3)
                bt_native_sample(cpu);
        }
        if (cpu->stop || cpu->shutdown || cpu->failed)
            break;
        if (cpu->mp_state != MP_RUNNING) {
            if (cpu->mp_state == MP_HALTED && deliverable(cpu))
                cpu->mp_state = MP_RUNNING;
            else {
                sleep_until_event(cpu);
                continue;
            }
        }
        if (cpu->event_check || cpu->pending_db) {
            deliver_events(cpu);
            if (cpu->shutdown)
                break;
        }
        if (cpu->cpl == 3 && bt_native_wanted(cpu) && go_native(cpu))
            continue;
        step(cpu);
    }
    bt_vec_save(cpu);
    atomic_store(&cpu->code_epoch, 0);
    if (cpu->stop) {
        cpu->stop = false;
        return BT_RUN_STOPPED;
    }
    return cpu->shutdown ? BT_RUN_SHUTDOWN : BT_RUN_FAILED;
}
