/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine that idles gives back the memory of its code cache: see bt_idle_check. What little it still runs
 * is translated anew, which takes milliseconds; a host has many machines that do nothing.
 */
#include "engine/bt/idle.h"

#include "base/util.h"
#include "engine/bt/cache.h"
#include "engine/bt/kept.h"

#define WINDOW_SECONDS 5
#define BUSY_SHARE     200 /* idle: all processors together worked for less than a window / this */
#define WORTH_IT       (4u * 1024 * 1024) /* bytes of code and records */

/* For how long the vCPU has halted since it was made, in TSC ticks. */
static uint64_t halted(const struct bt_cpu *cpu, uint64_t now)
{
    uint64_t since = atomic_load(&cpu->sleeping_since);
    return bt_stat_get(&cpu->stats.halt_cycles) + (since && now > since ? now - since : 0);
}

static void rest(struct bt_engine *e)
{
    bt_cache_empty(e);
    bt_kept_rest(e->kept);
}

void bt_idle_check(struct bt_engine *e)
{
    uint64_t now = bt_host_tsc(), window = e->config.cpu->tsc_hz * WINDOW_SECONDS, halt = 0, all = 0;
    if (now - atomic_load_explicit(&e->idle_mark, memory_order_relaxed) < window ||
        pthread_mutex_trylock(&e->lock))
        return;
    uint64_t ticks = now - e->idle_mark;
    for (unsigned i = 0; i < e->config.cpu_count; i++) {
        if (!e->cpu[i])
            continue;
        halt += halted(e->cpu[i], now);
        all += ticks;
    }
    uint64_t worked = all - MIN(all, halt - MIN(halt, e->idle_halt));
    if (e->idle_mark && worked < window / BUSY_SHARE && bt_cache_used(e->cache) > WORTH_IT)
        rest(e);
    e->idle_mark = now;
    e->idle_halt = halt;
    pthread_mutex_unlock(&e->lock);
}
