/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an onlooker sees of engine `bt`: counters, and the trace of exits. See watch.h. */
#include "engine/bt/watch.h"

#include <inttypes.h>
#include <stdio.h>

#include <Zydis/Mnemonic.h>

#include "base/util.h"
#include "engine/bt/cache.h"

static const char *const exit_names[BT_EXIT_COUNT] = {
    [BT_EXIT_NONE] = "none",       [BT_EXIT_LOOKUP] = "lookup", [BT_EXIT_LINK] = "link",
    [BT_EXIT_POLL] = "poll",       [BT_EXIT_OP] = "op",         [BT_EXIT_SLOW] = "slow",
    [BT_EXIT_FAULT] = "fault",     [BT_EXIT_DEAD] = "dead",     [BT_EXIT_MOVED] = "moved",
    [BT_EXIT_PRECISE] = "precise",
};

unsigned bt_stats(struct vcpu *v, struct engine_stat *out, unsigned room)
{
    static const char *const exit_stats[BT_EXIT_COUNT] = {
        [BT_EXIT_LOOKUP] = "exits-lookup",   [BT_EXIT_LINK] = "exits-link",
        [BT_EXIT_POLL] = "exits-poll",       [BT_EXIT_OP] = "exits-op",
        [BT_EXIT_SLOW] = "exits-slow",       [BT_EXIT_FAULT] = "exits-fault",
        [BT_EXIT_DEAD] = "exits-dead",       [BT_EXIT_MOVED] = "exits-moved",
        [BT_EXIT_PRECISE] = "exits-precise",
    };
    struct bt_cpu *cpu = (struct bt_cpu *)(void *)v;
    const struct bt_stats *s = &cpu->stats;
    const struct {
        const char *name;
        enum engine_stat_unit unit;
        const uint64_t *value;
    } all[] = {
        {"translations", ENGINE_STAT_COUNT, &s->translations},
        {"translations-kept", ENGINE_STAT_COUNT, &s->kept_translations},
        {"translate-cycles", ENGINE_STAT_CYCLES, &s->translate_cycles},
        {"halt-cycles", ENGINE_STAT_CYCLES, &s->halt_cycles},
        {"native-cycles", ENGINE_STAT_CYCLES, &s->native_cycles},
        {"native-stays", ENGINE_STAT_COUNT, &s->native_stays},
        {"user-entries", ENGINE_STAT_COUNT, &s->user_entries},
        {"tlb-misses", ENGINE_STAT_COUNT, &s->tlb_misses},
        {"tlb-flushes", ENGINE_STAT_COUNT, &s->tlb_flushes},
        {"block-lookups", ENGINE_STAT_COUNT, &s->block_lookups},
        {"interrupts", ENGINE_STAT_COUNT, &s->interrupts},
        {"machine-blocks-killed", ENGINE_STAT_COUNT, &cpu->engine->cache->stat_killed},
        {"machine-evictions", ENGINE_STAT_COUNT, &cpu->engine->cache->stat_evictions},
    };
    unsigned n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(all) && n < room; i++)
        out[n++] = (struct engine_stat){all[i].name, all[i].unit, bt_stat_get(all[i].value)};
    for (size_t i = 0; i < BT_EXIT_COUNT && n < room; i++)
        if (exit_stats[i])
            out[n++] = (struct engine_stat){exit_stats[i], ENGINE_STAT_COUNT, bt_stat_get(&s->exits[i])};
    return n;
}

void bt_trace_exit(struct bt_cpu *cpu)
{
    const char *what = "";
    bt_vec_save(cpu);
    if (cpu->exit_reason == BT_EXIT_OP) {
        const struct bt_op *op = (const struct bt_op *)(uintptr_t)cpu->exit_arg;
        what = ZydisMnemonicGetString((ZydisMnemonic)op->insn.mnemonic);
    }
    fprintf(cpu->engine->config.trace, "%" PRIu64 " cpu%u cpl%u %" PRIx64 " %s%s%s", bt_rdtsc(cpu),
            cpu->index, cpu->cpl, cpu->rip, exit_names[cpu->exit_reason], *what ? " " : "", what);
    if (cpu->exit_reason == BT_EXIT_FAULT)
        fprintf(cpu->engine->config.trace, " vector %u error %" PRIx32 " cr2 %" PRIx64, cpu->exc.vector,
                cpu->exc.error, cpu->exc.cr2);
    fputc('\n', cpu->engine->config.trace);
}
