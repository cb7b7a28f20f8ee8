/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Native execution of user code: see native.h.
 *
 * When. The guest's own interrupts are the clock: a program that is found at work by one, and has entered the
 * kernel so seldom since the last that each stay lasted BURST_MIN on average, is hot. A hot address space
 * runs natively each time it comes to user code, until its stays have become shorter on average than
 * BURST_END; then it takes twice as many findings as before until it is hot again.
 */
#include "engine/bt/native.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "base/util.h"
#include "engine/bt/native_space.h"
#include "engine/bt/seg.h"
#include "engine/bt/vec.h"

/* TSC ticks, of which a microsecond has 2000 to 4000, without those that mapping pages took. */
#define BURST_MIN    400000
#define BURST_END    120000
#define FAULT_TICKS  20000 /* at least what a stop costs beside that: about as much, on slow hosts too */
#define FINDINGS_MAX 8u
#define AVERAGE_OF   16 /* stays */
/* Selectors of 64-bit user code on Linux, here and there. */
#define USER_CS     0x33
#define USER_SS     0x2b
#define CR3_ADDRESS UINT64_C(0x000ffffffffff000)
#define DR6_BS      BIT(14)
/* What user code can change of RFLAGS beside status flags and DF, and does only for special ends. */
#define ODD_FLAGS (FLAG_TF | FLAG_NT | FLAG_AC | FLAG_ID)

struct bt_native {
    struct native_space space[BT_NATIVE_HOT];
    uint64_t clock;                      /* counts uses of spaces */
    uint64_t sample_tsc, sample_entries; /* at the last finding */
    uint64_t candidate;                  /* CR3 that has been found at work */
    unsigned found, wanted;              /* how often, and how often it takes */
    uint64_t burst[BT_NATIVE_HOT];       /* average stay of each in cpu->native_hot, TSC ticks */
    unsigned next;                       /* of them to be replaced */
    uint64_t mapping;                    /* ticks that mapping pages took in this stay */
    bool unavailable;
    uint8_t area[NATIVE_XSTATE_MAX] __attribute__((aligned(64)));
};

static struct bt_native *native_of(struct bt_cpu *cpu)
{
    if (cpu->native)
        return cpu->native;
    struct bt_native *n = aligned_alloc(64, round_up(sizeof(*n), 64));
    if (n) {
        memset(n, 0, sizeof(*n));
        n->wanted = 1;
    }
    cpu->native = n;
    return n;
}

void bt_native_free(struct bt_native *native)
{
    if (!native)
        return;
    for (unsigned i = 0; i < BT_NATIVE_HOT; i++)
        native_space_free(&native->space[i]);
    free(native);
}

/* ---- when ---- */

static bool space_may(const struct bt_cpu *cpu)
{
    const uint32_t mode = MODE_CODE64 | MODE_USER | MODE_FLAT | MODE_SSE | MODE_AVX;
    return (cpu->mode & (mode | MODE_NO_FPU | MODE_ALIGN)) == mode && !(cpu->dr[7] & 0xff) &&
           (cpu->efer & EFER_SCE) && /* else SYSCALL must leave RCX and R11 as they are */
           cpu->xcr0 == bt_vec_components(cpu) && !cpu->engine->config.memory->private &&
           !atomic_load_explicit(&cpu->engine->dirty, memory_order_relaxed);
}

/* Whether the registers are such that a process can have them. */
static bool registers_may(const struct bt_cpu *cpu)
{
    const struct x86_segment *seg = cpu->seg;
    return seg[SEG_CS].selector == USER_CS && seg[SEG_SS].selector == USER_SS && !seg[SEG_DS].selector &&
           !seg[SEG_ES].selector && !seg[SEG_FS].selector && !seg[SEG_GS].selector &&
           seg[SEG_FS].base < NATIVE_TOP && seg[SEG_GS].base < NATIVE_TOP && cpu->rip < NATIVE_TOP &&
           !(cpu->sysflags & (FLAG_IOPL | FLAG_VIF | FLAG_VIP | ODD_FLAGS)) && cpu->iflag &&
           !cpu->exc.pending && !cpu->pending_db && !cpu->shadow && !cpu->interrupt_pending;
}

void bt_native_sample(struct bt_cpu *cpu)
{
    cpu->native_refused = BT_NATIVE_NONE; /* perhaps it only was being written */
    if (cpu->engine->config.native != ENGINE_NATIVE_AUTO || !space_may(cpu))
        return;
    struct bt_native *n = native_of(cpu);
    if (!n || n->unavailable)
        return;
    uint64_t now = bt_host_tsc(), stays = cpu->stats.user_entries - n->sample_entries + 1;
    bool at_work = (now - n->sample_tsc) / stays >= BURST_MIN;
    n->sample_tsc = now;
    n->sample_entries = cpu->stats.user_entries;
    if (!at_work || bt_native_wanted(cpu))
        return;
    n->found = n->candidate == cpu->cr3 ? n->found + 1 : 1;
    n->candidate = cpu->cr3;
    if (n->found < n->wanted)
        return;
    cpu->native_hot[n->next] = cpu->cr3;
    n->burst[n->next] = 2 * (uint64_t)BURST_MIN;
    n->next = (n->next + 1) % BT_NATIVE_HOT;
    n->found = 0;
}

/* After a stay that computed for `ticks`. */
static void account(struct bt_cpu *cpu, uint64_t ticks)
{
    struct bt_native *n = cpu->native;
    for (unsigned i = 0; i < BT_NATIVE_HOT; i++) {
        if (cpu->native_hot[i] != cpu->cr3)
            continue;
        n->burst[i] += ticks / AVERAGE_OF - n->burst[i] / AVERAGE_OF;
        if (n->burst[i] < BURST_END) {
            cpu->native_hot[i] = BT_NATIVE_NONE;
            n->wanted = MIN(2 * n->wanted, FINDINGS_MAX);
        } else if (n->burst[i] > 2 * (uint64_t)BURST_MIN) {
            n->wanted = 1;
        }
    }
}

/* ---- spaces ---- */

static struct native_space *space_of(struct bt_cpu *cpu)
{
    struct bt_native *n = cpu->native;
    struct native_space *s = NULL;
    uint64_t cr3 = cpu->cr3 & CR3_ADDRESS;
    for (unsigned i = 0; i < BT_NATIVE_HOT && !s; i++)
        if (n->space[i].child && n->space[i].cr3 == cr3)
            s = &n->space[i];
    if (!s) {
        s = &n->space[0];
        for (unsigned i = 1; i < BT_NATIVE_HOT; i++)
            if (n->space[i].used < s->used)
                s = &n->space[i];
        if (s->child && !native_space_clear(s))
            native_space_free(s);
    }
    if (!s->child) {
        struct error *err = NULL;
        s->child = native_child_new(cpu->engine->config.memory, &err);
        if (!s->child) {
            log_line(LOG_INFO, "user code does not run natively: %s", error_text(err));
            error_free(err);
            n->unavailable = true;
            memset(cpu->native_hot, 0xff, sizeof(cpu->native_hot));
            return NULL;
        }
    }
    s->cr3 = cr3;
    s->used = ++n->clock;
    return s;
}

/* What the guest has flushed, it has flushed for all its address spaces: it may not say for which. */
static void spread_staleness(struct bt_cpu *cpu)
{
    for (unsigned i = 0; cpu->native_stale && i < BT_NATIVE_HOT; i++)
        cpu->native->space[i].stale = true;
    cpu->native_stale = false;
}

/* ---- registers ---- */

static const size_t reg_of[16] = {
    offsetof(struct user_regs_struct, rax), offsetof(struct user_regs_struct, rcx),
    offsetof(struct user_regs_struct, rdx), offsetof(struct user_regs_struct, rbx),
    offsetof(struct user_regs_struct, rsp), offsetof(struct user_regs_struct, rbp),
    offsetof(struct user_regs_struct, rsi), offsetof(struct user_regs_struct, rdi),
    offsetof(struct user_regs_struct, r8),  offsetof(struct user_regs_struct, r9),
    offsetof(struct user_regs_struct, r10), offsetof(struct user_regs_struct, r11),
    offsetof(struct user_regs_struct, r12), offsetof(struct user_regs_struct, r13),
    offsetof(struct user_regs_struct, r14), offsetof(struct user_regs_struct, r15)};

static void get_registers(const struct bt_cpu *cpu, struct user_regs_struct *regs)
{
    *regs = (struct user_regs_struct){.rip = cpu->rip,
                                      .eflags = bt_rflags(cpu),
                                      .cs = USER_CS,
                                      .ss = USER_SS,
                                      .fs_base = cpu->seg[SEG_FS].base,
                                      .gs_base = cpu->seg[SEG_GS].base,
                                      .orig_rax = ~0ULL};
    for (unsigned i = 0; i < 16; i++)
        memcpy((uint8_t *)regs + reg_of[i], &cpu->gpr[i], sizeof(uint64_t));
}

/* Selectors that user code has loaded, as what the guest's descriptors say. */
static void take_selectors(struct bt_cpu *cpu, const struct user_regs_struct *regs)
{
    const uint64_t selector[] = {
        [SEG_DS] = regs->ds, [SEG_ES] = regs->es, [SEG_FS] = regs->fs, [SEG_GS] = regs->gs};
    const unsigned segs[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < ARRAY_SIZE(segs); i++)
        if (selector[segs[i]] && !bt_seg_load(cpu, segs[i], (uint16_t)selector[segs[i]]))
            cpu->exc.pending = false; /* it stays null: the guest has no such descriptor */
}

/* The code segment, when a far transfer has changed it: the host has one of 32 bits too. */
static void take_code_segment(struct bt_cpu *cpu, const struct user_regs_struct *regs)
{
    struct bt_desc d;
    if (regs->cs == USER_CS)
        return;
    if (bt_desc_read(cpu, (uint16_t)regs->cs, VEC_GP, 0, &d) && bt_desc_present(&d) && bt_desc_code(&d) &&
        !bt_desc_conforming(&d) && bt_desc_dpl(&d) == 3 && bt_desc_mark_accessed(cpu, &d))
        bt_desc_segment(&d, (uint16_t)regs->cs, &cpu->seg[SEG_CS]);
    cpu->exc.pending = false; /* the guest has no such descriptor: it stays in the old one */
}

/*
 * Bases of FS and GS. Where the guest has not allowed WRFSBASE and WRGSBASE, what they wrote is taken back:
 * its kernel may rely on what only it can have written. 0 is what a null selector leaves.
 */
static void take_bases(struct bt_cpu *cpu, const struct user_regs_struct *regs)
{
    bool allowed = cpu->cr4 & CR4_FSGSBASE;
    if (allowed || !regs->fs_base)
        bt_seg_set_base(cpu, SEG_FS, regs->fs_base);
    if (allowed || !regs->gs_base)
        bt_seg_set_base(cpu, SEG_GS, regs->gs_base);
}

static void put_registers(struct bt_cpu *cpu, const struct user_regs_struct *regs)
{
    for (unsigned i = 0; i < 16; i++)
        memcpy(&cpu->gpr[i], (const uint8_t *)regs + reg_of[i], sizeof(uint64_t));
    if (cpu->rip != regs->rip) { /* what the last block left behind is not about this place */
        cpu->sysflags &= ~FLAG_RF;
        cpu->exit_reason = BT_EXIT_NONE;
        cpu->exit_link = 0;
        cpu->branch_off = BT_NO_BRANCH;
    }
    cpu->rip = regs->rip;
    take_selectors(cpu, regs);
    take_bases(cpu, regs);
    take_code_segment(cpu, regs);
    const uint64_t own = FLAGS_STATUS | FLAG_DF | ODD_FLAGS;
    bt_set_rflags(cpu, (bt_rflags(cpu) & ~own) | (regs->eflags & own));
    bt_mode_update(cpu); /* AC, and perhaps CS */
}

static bool send_vectors(struct bt_cpu *cpu, struct native_space *s)
{
    uint8_t *area = cpu->native->area;
    bt_vec_sanitize(cpu); /* SSE is there: MXCSR would get lost with it */
    if (s->vectors_known && !memcmp(s->vectors, cpu->xsave, XS_END))
        return true;
    memset(area, 0, s->child->xstate_size);
    memcpy(area, cpu->xsave, XS_END);
    memset(area + XS_LEGACY_END - 48, 0, 48); /* the kernel's own */
    return native_child_set_xstate(s->child, area);
}

static bool fetch_vectors(struct bt_cpu *cpu, struct native_space *s)
{
    uint8_t *area = cpu->native->area;
    if (!native_child_get_xstate(s->child, area))
        return false;
    if (!(load_le64(area + XS_BV) & (XSTATE_SSE | XSTATE_AVX))) {
        uint32_t mxcsr;
        if (!native_child_get_mxcsr(s->child, &mxcsr))
            return false;
        store_le32(area + XS_MXCSR, mxcsr);
    }
    memcpy(cpu->xsave, area, XS_END);
    bt_vec_sanitize(cpu);
    memcpy(s->vectors, cpu->xsave, XS_END);
    s->vectors_known = true;
    return true;
}

/* ---- a stay ---- */

static bool code_is(struct bt_cpu *cpu, uint64_t rip, uint8_t first, int second)
{
    uint8_t bytes[2];
    bool read = bt_read_lin(cpu, rip, bytes, second < 0 ? 1 : 2, BT_READ);
    cpu->exc.pending = false;
    return read && bytes[0] == first && (second < 0 || bytes[1] == second);
}

/* RIP behind an instruction that the translator is to execute: back to it. */
static void step_back(struct bt_cpu *cpu, struct user_regs_struct *regs, enum native_stop stop)
{
    if (stop == NATIVE_STOP_SYSCALL) {
        regs->rip -= 2;
        regs->rax = regs->orig_rax;
    } else if (stop == NATIVE_STOP_STEP) {
        cpu->pending_db |= DR6_BS; /* an instruction that user code has stepped by itself */
    } else if (code_is(cpu, regs->rip - 1, 0xcc, -1) || code_is(cpu, regs->rip - 1, 0xf1, -1)) {
        regs->rip -= 1;
    } else if (code_is(cpu, regs->rip - 2, 0xcd, 0x03)) {
        regs->rip -= 2;
    }
}

static bool is_fetch(const struct user_regs_struct *regs, uint64_t address)
{
    return address - regs->rip < X86_INSN_MAX;
}

/* Until the translator is needed. Registers are those of the stop. False: the process is gone, and with it
 * they. */
static bool stay(struct bt_cpu *cpu, struct native_space *s, struct user_regs_struct *regs)
{
    while (!atomic_load(&cpu->kick)) {
        uint64_t address = 0;
        enum native_stop stop = native_child_run(s->child, &address);
        if (stop == NATIVE_STOP_DEAD || !native_child_get(s->child, regs))
            return false;
        if (stop == NATIVE_STOP_KICKED)
            continue;
        if (stop == NATIVE_STOP_ACCESS) {
            bool fetch = is_fetch(regs, address);
            uint64_t begin = bt_host_tsc();
            enum native_fill fill = native_space_fill(cpu, s, address, fetch);
            uint64_t ticks = bt_host_tsc() - begin;
            cpu->native->mapping += ticks + MAX(ticks, (uint64_t)FAULT_TICKS);
            if (fill == NATIVE_FILLED && native_child_set(s->child, regs))
                continue;
            if (fill == NATIVE_REFUSED && fetch) {
                cpu->native_refused = round_down(address, GUEST_PAGE_SIZE);
                cpu->native_refused_cr3 = cpu->cr3;
            }
            if (fill == NATIVE_REFUSED)
                return true;
            s->cr3 = UINT64_MAX; /* the registers are good, the process is not */
            return true;
        }
        if (stop == NATIVE_STOP_SYSCALL || stop == NATIVE_STOP_TRAP || stop == NATIVE_STOP_STEP)
            step_back(cpu, regs, stop);
        if (stop == NATIVE_STOP_STRAY)
            s->cr3 = UINT64_MAX;
        return true;
    }
    return true;
}

/* Who sets cpu->kick later than we look at it finds the process. */
static bool stay_interruptible(struct bt_cpu *cpu, struct native_space *s, struct user_regs_struct *regs)
{
    atomic_store(&cpu->native_fd, s->child->pid_fd + 1);
    bool good = stay(cpu, s, regs);
    atomic_store(&cpu->native_fd, 0);
    return good;
}

static void lost(struct bt_cpu *cpu, struct native_space *s)
{
    native_space_free(s);
    snprintf(cpu->why, sizeof(cpu->why), "the process that ran the guest's user code was killed");
    cpu->failed = true;
}

void bt_native_run(struct bt_cpu *cpu)
{
    struct user_regs_struct regs;
    struct bt_native *n = native_of(cpu);
    if (!n || n->unavailable || !registers_may(cpu) || !space_may(cpu))
        return;
    cpu->native_refused = BT_NATIVE_NONE;
    struct native_space *s = native_space_possible(cpu) ? space_of(cpu) : NULL;
    if (!s)
        return;
    spread_staleness(cpu);
    get_registers(cpu, &regs);
    if (!native_space_check(cpu, s) || !native_child_set(s->child, &regs) || !send_vectors(cpu, s)) {
        native_space_free(s);
        return;
    }
    uint64_t begin = bt_host_tsc();
    n->mapping = 0;
    bt_stat_add(&cpu->stats.native_stays, 1);
    if (!stay_interruptible(cpu, s, &regs) || !fetch_vectors(cpu, s)) {
        lost(cpu, s);
        return;
    }
    put_registers(cpu, &regs);
    uint64_t ticks = bt_host_tsc() - begin;
    bt_stat_add(&cpu->stats.native_cycles, ticks);
    account(cpu, ticks - MIN(ticks, n->mapping));
    if (atomic_load_explicit(&cpu->engine->dirty, memory_order_relaxed))
        native_space_mark_dirty(cpu, s);
    if (s->cr3 == UINT64_MAX || (cpu->sysflags & FLAG_ID))
        native_space_free(s);
}
