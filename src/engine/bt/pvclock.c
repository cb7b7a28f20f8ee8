/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The paravirtual clock's pages in guest memory, as Linux documents them under virt/kvm/x86/msr. gpr-only. */
#include "engine/bt/pvclock.h"

#include <time.h>

#include "base/util.h"

#define NS_PER_SECOND UINT64_C(1000000000)

#define MSR_WALL_CLOCK_OLD  0x11u
#define MSR_SYSTEM_TIME_OLD 0x12u
#define MSR_WALL_CLOCK      0x4b564d00u
#define MSR_SYSTEM_TIME     0x4b564d01u

#define SYSTEM_TIME_ENABLE BIT(0)
#define FLAG_TSC_STABLE    1u

/* Layouts are the guest's. An odd version means that the rest is being changed. */
struct time_page {
    uint32_t version, pad0;
    uint64_t tsc_timestamp; /* guest TSC ... */
    uint64_t system_time;   /* ... and nanoseconds at that moment */
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad[2];
};
_Static_assert(sizeof(struct time_page) == 32, "the guest's layout");

struct wall_page {
    uint32_t version, sec, nsec;
};

static uint64_t machine_ns(const struct bt_engine *engine)
{
    return engine->config.host->now(engine->config.host->opaque);
}

static uint64_t shifted(uint64_t hz, int shift)
{
    return shift < 0 ? hz >> -shift : hz << shift;
}

/*
 * The guest computes ns = ((tsc << shift, or >> -shift) * mul) >> 32. The shift brings the frequency into
 * (1 GHz, 2 GHz], which leaves mul its 31 leading bits.
 */
static void tsc_scale(uint64_t hz, uint32_t *mul, int8_t *shift)
{
    int s = 0;
    while (shifted(hz, s) > 2 * NS_PER_SECOND)
        s--;
    while (shifted(hz, s) <= NS_PER_SECOND)
        s++;
    unsigned __int128 scaled = (unsigned __int128)NS_PER_SECOND << (s < 0 ? 32 - s : 32);
    unsigned __int128 m = scaled / (s < 0 ? hz : hz << s);
    *mul = m > UINT32_MAX ? UINT32_MAX : (uint32_t)m;
    *shift = (int8_t)s;
}

/* TSC and machine time at one moment. */
static void take_pair(struct bt_engine *engine)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 8; i++) {
        uint64_t before = bt_engine_tsc(engine), ns = machine_ns(engine), after = bt_engine_tsc(engine);
        if (after - before >= best)
            continue;
        best = after - before;
        engine->pv_tsc = before + best / 2;
        engine->pv_ns = ns;
    }
}

void bt_pvclock_skip(struct bt_engine *engine, uint64_t ticks)
{
    if (engine->pv_tsc)
        engine->pv_tsc += ticks;
}

void bt_pvclock_publish(struct bt_cpu *cpu)
{
    if (!(cpu->pv_system_time_msr & SYSTEM_TIME_ENABLE))
        return;
    bt_vec_save(cpu);
    struct bt_engine *engine = cpu->engine;
    uint64_t gpa = cpu->pv_system_time_msr & ~SYSTEM_TIME_ENABLE;
    struct time_page *page = guest_ptr(engine->config.memory, gpa, sizeof(*page), true);
    if (!page)
        return;
    pthread_mutex_lock(&engine->lock);
    if (!engine->pv_tsc)
        take_pair(engine);
    uint64_t tsc = engine->pv_tsc, ns = engine->pv_ns;
    pthread_mutex_unlock(&engine->lock);

    struct time_page v = {
        .flags = FLAG_TSC_STABLE, .tsc_timestamp = tsc + cpu->tsc_offset, .system_time = ns};
    tsc_scale(engine->config.cpu->tsc_hz, &v.tsc_to_system_mul, &v.tsc_shift);
    uint32_t version = (load_le32(&page->version) & ~1u) + 1;
    __atomic_store_n(&page->version, version, __ATOMIC_RELAXED);
    atomic_thread_fence(memory_order_release); /* odd before the change ... */
    memcpy((char *)page + sizeof(version), (const char *)&v + sizeof(version), sizeof(v) - sizeof(version));
    __atomic_store_n(&page->version, version + 1, __ATOMIC_RELEASE); /* ... even after it */
    guest_mark_written(engine->config.memory, gpa, sizeof(*page));
}

/* The wall clock at machine time 0. */
static bool write_wall_clock(struct bt_cpu *cpu, uint64_t gpa)
{
    struct bt_engine *engine = cpu->engine;
    struct timespec ts;
    struct wall_page v;
    bt_vec_save(cpu);
    if (!guest_read(engine->config.memory, gpa, &v, sizeof(v)))
        return true;
    clock_gettime(CLOCK_REALTIME, &ts);
    uint64_t ns = (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec - machine_ns(engine);
    uint32_t version = (v.version & ~1u) + 1;
    guest_write(engine->config.memory, gpa, &version, sizeof(version));
    v = (struct wall_page){version + 1, (uint32_t)(ns / NS_PER_SECOND), (uint32_t)(ns % NS_PER_SECOND)};
    guest_write(engine->config.memory, gpa + sizeof(version), &v.sec, sizeof(v) - sizeof(version));
    guest_write(engine->config.memory, gpa, &v.version, sizeof(v.version));
    return true;
}

bool bt_pvclock_rdmsr(struct bt_cpu *cpu, uint32_t msr, uint64_t *value)
{
    switch (msr) {
    case MSR_WALL_CLOCK_OLD:
    case MSR_WALL_CLOCK:
        *value = cpu->pv_wall_clock_msr;
        return true;
    case MSR_SYSTEM_TIME_OLD:
    case MSR_SYSTEM_TIME:
        *value = cpu->pv_system_time_msr;
        return true;
    default:
        return false;
    }
}

bool bt_pvclock_wrmsr(struct bt_cpu *cpu, uint32_t msr, uint64_t value)
{
    switch (msr) {
    case MSR_WALL_CLOCK_OLD:
    case MSR_WALL_CLOCK:
        cpu->pv_wall_clock_msr = value;
        return write_wall_clock(cpu, value);
    case MSR_SYSTEM_TIME_OLD:
    case MSR_SYSTEM_TIME:
        cpu->pv_system_time_msr = value;
        bt_pvclock_publish(cpu);
        return true;
    default:
        return false;
    }
}
