/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Engine `bt` as the machine sees it: struct engine_ops. */
#include <asm/prctl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "engine/bt/cpu_state.h"
#include "engine/bt/jitdump.h"
#include "engine/bt/kept.h"
#include "engine/bt/lapic.h"
#include "engine/bt/native.h"
#include "engine/bt/pvclock.h"
#include "engine/bt/run.h"
#include "engine/bt/table.h"
#include "engine/bt/translate.h"
#include "engine/bt/watch.h"

#define JCS_SIZE (2 * BT_JC_SIZE * sizeof(struct bt_jc_entry))

static struct bt_engine *engine_of(struct engine *e)
{
    return (struct bt_engine *)(void *)e;
}

static struct bt_cpu *cpu_of(struct vcpu *v)
{
    return (struct bt_cpu *)(void *)v;
}

static bool bt_probe(struct error **err)
{
    int fd = memfd_create("ruche-probe", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 4096) < 0) {
        error_set_errno(err, errno, "engine bt cannot make memory for code");
        if (fd >= 0)
            close(fd);
        return false;
    }
    void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    int saved = errno;
    close(fd);
    if (p == MAP_FAILED) {
        error_set_errno(err, saved, "engine bt cannot map executable memory");
        return false;
    }
    munmap(p, 4096);
    return true;
}

static void cpu_free(struct bt_cpu *cpu)
{
    if (!cpu)
        return;
    bt_lapic_free(cpu->lapic);
    bt_native_free(cpu->native);
    for (unsigned i = 0; i < BT_TLB_MODES; i++)
        free(cpu->tlbs[i]);
    bt_table_free(cpu->jcs[0], JCS_SIZE);
    free(cpu);
}

static void bt_close(struct engine *engine)
{
    struct bt_engine *e = engine_of(engine);
    if (e->config.memory->written_opaque == e) {
        e->config.memory->written = NULL;
        e->config.memory->written_opaque = NULL;
    }
    for (unsigned i = 0; i < BT_CPU_MAX; i++)
        cpu_free(e->cpu[i]);
    bt_cache_free(e->cache);
    bt_kept_close(e->kept);
    bt_jitdump_close(e->jitdump);
    pthread_mutex_destroy(&e->lock);
    free(e->dirty_bits);
    free(e->doubt_bits);
    free(e->tr);
    free(e);
}

static void mark_range(struct bt_engine *e, uint64_t gpa, uint64_t len)
{
    uint64_t *bits = atomic_load(&e->dirty);
    if (!bits)
        return;
    for (uint64_t at = round_down(gpa, GUEST_PAGE_SIZE); at < gpa + len; at += GUEST_PAGE_SIZE) {
        long index = bt_page_index(e->config.memory, at);
        if (index >= 0)
            __atomic_fetch_or(&bits[index / 64], BIT(index % 64), __ATOMIC_RELAXED);
    }
}

/* Devices wrote guest memory. */
static void on_written(void *opaque, uint64_t gpa, uint64_t len)
{
    struct bt_engine *e = opaque;
    mark_range(e, gpa, len);
    bt_code_written(e, gpa, len);
}

static struct engine *bt_open(const struct engine_config *config, struct error **err)
{
    struct bt_engine *e = calloc(1, sizeof(*e));
    if (!e || !(e->tr = calloc(1, sizeof(*e->tr)))) {
        error_set_errno(err, ENOMEM, "cannot make engine bt");
        free(e);
        return NULL;
    }
    e->config = *config;
    e->cache = bt_cache_new(config->memory, BT_CACHE_SIZE, err);
    if (e->cache && config->jitdump)
        e->jitdump = bt_jitdump_open(config->jitdump, err);
    if (!e->cache || (config->jitdump && !e->jitdump)) {
        bt_cache_free(e->cache);
        free(e->tr);
        free(e);
        return NULL;
    }
    pthread_mutex_init(&e->lock, NULL);
    e->frozen_tsc = bt_host_tsc();
    bt_thunks_make(e->cache, &e->thunks);
    if (config->translations)
        e->kept = bt_kept_open(config->translations, config->cpu, bt_thunks_hash(e->cache, &e->thunks));
    config->memory->written = on_written;
    config->memory->written_opaque = e;
    return (struct engine *)(void *)e;
}

static void clear_tables(struct bt_cpu *cpu)
{
    for (unsigned mode = 0; mode < BT_TLB_MODES; mode++)
        for (uint64_t i = 0; i < BT_TLB_SIZE; i++) {
            uint64_t none = BT_TLB_NONE(i << GUEST_PAGE_SHIFT);
            cpu->tlbs[mode][i] = (struct bt_tlb_entry){.read_tag = none, .write_tag = none};
        }
    for (unsigned i = 0; i < BT_JC_SIZE; i++)
        cpu->jcs[0][i].target = cpu->jcs[1][i].target = BT_JC_NONE;
    for (unsigned i = 0; i < BT_ITLB_SIZE; i++)
        cpu->itlb[i].tag = BT_ITLB_NONE;
}

static struct vcpu *bt_vcpu_new(struct engine *engine, unsigned index, struct error **err)
{
    struct bt_engine *e = engine_of(engine);
    struct bt_cpu *cpu = aligned_alloc(64, round_up(sizeof(*cpu), 64));
    bool ok = cpu != NULL;
    if (ok) {
        memset(cpu, 0, sizeof(*cpu));
        cpu->self = cpu;
        cpu->target_end = BT_TARGET_END;
        cpu->engine = e;
        cpu->index = index;
        cpu->native_refused = BT_NATIVE_NONE;
        memset(cpu->native_hot, 0xff, sizeof(cpu->native_hot)); /* BT_NATIVE_NONE */
        cpu->jc = cpu->jcs[0] = bt_table_new(JCS_SIZE);
        cpu->jcs[1] = cpu->jc + BT_JC_SIZE;
        ok = cpu->jc && (cpu->lapic = bt_lapic_new(cpu));
        for (unsigned i = 0; ok && i < BT_TLB_MODES; i++)
            ok = (cpu->tlbs[i] = aligned_alloc(64, BT_TLB_SIZE * sizeof(struct bt_tlb_entry))) != NULL;
    }
    if (!ok) {
        error_set_errno(err, ENOMEM, "cannot make vCPU %u", index);
        cpu_free(cpu);
        return NULL;
    }
    cpu->callout[CALLOUT_ACCESS] = (void *)(uintptr_t)bt_callout_access;
    cpu->callout[CALLOUT_PRE] = (void *)(uintptr_t)bt_callout_pre;
    cpu->callout[CALLOUT_POST] = (void *)(uintptr_t)bt_callout_post;
    clear_tables(cpu);
    bt_cpu_reset(cpu, false);
    e->cpu[index] = cpu;
    return (struct vcpu *)(void *)cpu;
}

static void bt_run(struct vcpu *v, struct vm_exit *exit)
{
    static const enum vm_exit_kind kinds[] = {[BT_RUN_STOPPED] = VM_EXIT_INTERRUPTED,
                                              [BT_RUN_SHUTDOWN] = VM_EXIT_SHUTDOWN,
                                              [BT_RUN_FAILED] = VM_EXIT_ERROR};
    struct bt_cpu *cpu = cpu_of(v);
    struct error *err = NULL;
    exit->text[0] = 0;
    if (!bt_faults_enter(cpu, &err) || syscall(SYS_arch_prctl, ARCH_SET_GS, cpu) < 0) {
        exit->kind = VM_EXIT_ERROR;
        snprintf(exit->text, sizeof(exit->text), "vCPU %u cannot start: %s", cpu->index, error_text(err));
        error_free(err);
        return;
    }
    prctl(PR_SET_TIMERSLACK, 1); /* HLT ends when the guest's timer says so */
    exit->kind = kinds[bt_run_loop(cpu)];
    bt_faults_leave(cpu);
    if (exit->kind != VM_EXIT_INTERRUPTED)
        snprintf(exit->text, sizeof(exit->text), "%s", cpu->why);
}

static void bt_kick(struct vcpu *v)
{
    bt_request(cpu_of(v), BT_REQ_STOP);
}

static void bt_reset(struct vcpu *v)
{
    struct bt_cpu *cpu = cpu_of(v);
    bt_cpu_reset(cpu, false);
    bt_tlb_flush(cpu, true);
}

static void bt_run_time(struct engine *engine, bool running)
{
    struct bt_engine *e = engine_of(engine);
    if (!running && !e->frozen_tsc)
        e->frozen_tsc = bt_host_tsc();
    if (!running || !e->frozen_tsc)
        return;
    uint64_t stood_still = bt_host_tsc() - e->frozen_tsc;
    e->frozen_tsc = 0;
    bt_pvclock_skip(e, stood_still);
    for (unsigned i = 0; i < e->config.cpu_count; i++) {
        if (!e->cpu[i])
            continue;
        e->cpu[i]->tsc_offset -= stood_still;
        bt_lapic_tsc_changed(e->cpu[i]->lapic);
    }
}

static void bt_set_intr(struct engine *engine, bool level)
{
    struct bt_engine *e = engine_of(engine);
    atomic_store(&e->intr, level);
    bt_lapic_intr_changed(e);
}

static void bt_nmi(struct vcpu *v)
{
    struct bt_cpu *cpu = cpu_of(v);
    atomic_store(&cpu->nmi_request, true);
    bt_request(cpu, BT_REQ_EVENT);
}

static void bt_msi(struct engine *engine, uint64_t addr, uint32_t data)
{
    bt_lapic_deliver_msi(engine_of(engine), addr, data);
}

static void bt_get_state(struct vcpu *v, struct x86_state *out)
{
    bt_cpu_get_state(cpu_of(v), out);
}

static bool bt_set_state(struct vcpu *v, const struct x86_state *in, struct error **err)
{
    return bt_cpu_set_state(cpu_of(v), in, err);
}

static size_t dirty_words(const struct bt_engine *e)
{
    return (e->cache->page_count + 63) / 64;
}

/*
 * The next write to any page is to be noticed. A vCPU may have passed its check already, and be kept from
 * writing by the host's scheduler over several fetches: such pages are in doubt until it has come out of
 * translated code. What is in doubt counts as dirty.
 */
static void deny_all_writes(struct bt_engine *e)
{
    pthread_mutex_lock(&e->lock);
    if (bt_cache_grace_passed(e, e->doubt_epoch))
        memset(e->doubt_bits, 0, dirty_words(e) * sizeof(uint64_t));
    for (unsigned i = 0; i < e->config.cpu_count; i++)
        if (e->cpu[i])
            bt_tlb_deny_writes(e->cpu[i], 0, true);
    e->doubt_epoch = ++e->cache->epoch;
    pthread_mutex_unlock(&e->lock);
    for (unsigned i = 0; i < e->config.cpu_count; i++)
        if (e->cpu[i]) /* a loop checks a page only when it comes to it */
            bt_request(e->cpu[i], BT_REQ_EVENT);
    for (size_t i = 0; i < dirty_words(e); i++)
        if (e->doubt_bits[i])
            __atomic_fetch_or(&e->dirty_bits[i], e->doubt_bits[i], __ATOMIC_RELAXED);
}

/*
 * Waits until no vCPU uses what it looked up before rights to write were taken back. False: one is kept from
 * coming out for long.
 */
static bool all_came_out(struct bt_engine *e)
{
    for (unsigned try = 0; try < 1000; try++) {
        bool all = true;
        for (unsigned i = 0; i < e->config.cpu_count && all; i++) {
            struct bt_cpu *cpu = e->cpu[i];
            uint64_t seen = cpu && !atomic_load(&cpu->in_host) ? atomic_load(&cpu->code_epoch) : 0;
            all = !seen || seen >= e->doubt_epoch;
        }
        if (all)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    return false;
}

static bool bt_dirty_start(struct engine *engine, struct error **err)
{
    struct bt_engine *e = engine_of(engine);
    if (!e->dirty_bits)
        e->dirty_bits = calloc(dirty_words(e), sizeof(uint64_t));
    if (!e->doubt_bits)
        e->doubt_bits = calloc(dirty_words(e), sizeof(uint64_t));
    if (!e->dirty_bits || !e->doubt_bits) {
        error_set_errno(err, ENOMEM, "cannot make a dirty log");
        return false;
    }
    memset(e->dirty_bits, 0, dirty_words(e) * sizeof(uint64_t));
    atomic_store(&e->dirty, e->dirty_bits);
    deny_all_writes(e);
    /* Look-ups of before may have no entry any more: without a wait every page that had one is in doubt. */
    bool sure = all_came_out(e);
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < dirty_words(e); i++) {
        e->doubt_bits[i] =
            sure ? 0 : e->doubt_bits[i] | __atomic_load_n(&e->cache->writable[i], __ATOMIC_RELAXED);
        if (e->doubt_bits[i])
            __atomic_fetch_or(&e->dirty_bits[i], e->doubt_bits[i], __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&e->lock);
    return true;
}

static void bt_dirty_stop(struct engine *engine)
{
    atomic_store(&engine_of(engine)->dirty, NULL);
}

static void bt_dirty_fetch(struct engine *engine, unsigned region, uint64_t *bitmap, size_t words)
{
    struct bt_engine *e = engine_of(engine);
    const struct guest_memory *mem = e->config.memory;
    uint64_t *bits = atomic_load(&e->dirty);
    memset(bitmap, 0, words * sizeof(*bitmap));
    if (!bits)
        return;
    long first = bt_page_index(mem, mem->region[region].gpa);
    size_t pages = MIN(mem->region[region].size >> GUEST_PAGE_SHIFT, words * 64);
    for (size_t i = 0; i < pages; i++) {
        size_t index = (size_t)first + i;
        if (__atomic_fetch_and(&bits[index / 64], ~BIT(index % 64), __ATOMIC_RELAXED) & BIT(index % 64))
            bitmap[i / 64] |= BIT(i % 64);
    }
    deny_all_writes(e);
}

const struct engine_ops bt_engine_ops = {
    .name = "bt",
    .help = "dynamic translation of x86-64 to x86-64; needs no hardware virtualisation",
    .probe = bt_probe,
    .open = bt_open,
    .close = bt_close,
    .vcpu_new = bt_vcpu_new,
    .run = bt_run,
    .kick = bt_kick,
    .reset = bt_reset,
    .run_time = bt_run_time,
    .set_intr = bt_set_intr,
    .nmi = bt_nmi,
    .msi = bt_msi,
    .get_state = bt_get_state,
    .set_state = bt_set_state,
    .dirty_start = bt_dirty_start,
    .dirty_stop = bt_dirty_stop,
    .dirty_fetch = bt_dirty_fetch,
    .stats = bt_stats,
};
