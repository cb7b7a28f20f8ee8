/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bt engine's local APIC with an engine that only counts: priorities, messages, timers, MSR rules, state.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/bt/lapic.h"
#include "os/loop.h"

#define CPUS 4

static struct bt_engine engine;
static struct cpuid_model model;
static unsigned requests[CPUS], eois, last_eoi;
static int pic_vector;
static bool time_stands;
static uint64_t fixed_time;

void bt_request(struct bt_cpu *cpu, uint32_t request)
{
    atomic_fetch_or(&cpu->requests, request);
    atomic_store(&cpu->kick, 1);
    __atomic_fetch_add(&requests[cpu->index], 1, __ATOMIC_SEQ_CST);
}

void bt_vec_save(struct bt_cpu *cpu)
{
    cpu->vec_live = false;
}

static void host_eoi(void *opaque, uint8_t vector)
{
    eois++;
    last_eoi = vector;
}

static int host_pic(void *opaque)
{
    return pic_vector;
}

static uint64_t host_now(void *opaque)
{
    return time_stands ? fixed_time : monotonic_ns();
}

static const struct engine_host host = {.eoi = host_eoi, .pic_acknowledge = host_pic, .now = host_now};

static int setup(void **state)
{
    memset(&engine, 0, sizeof(engine));
    memset(requests, 0, sizeof(requests));
    eois = 0;
    time_stands = false;
    model.phys_bits = 46;
    model.tsc_hz = host_tsc_hz();
    engine.config.cpu = &model;
    engine.config.cpu_count = CPUS;
    engine.config.host = &host;
    for (unsigned i = 0; i < CPUS; i++) {
        struct bt_cpu *cpu = calloc(1, sizeof(*cpu));
        cpu->engine = &engine;
        cpu->index = i;
        engine.cpu[i] = cpu;
        cpu->lapic = bt_lapic_new(cpu);
        bt_lapic_write(cpu->lapic, 0xf0, 0x1ff);
    }
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < CPUS; i++) {
        bt_lapic_free(engine.cpu[i]->lapic);
        free(engine.cpu[i]);
    }
    return 0;
}

static struct bt_lapic *lapic(unsigned i)
{
    return engine.cpu[i]->lapic;
}

static void x2apic(unsigned i)
{
    uint64_t base;
    assert_true(bt_lapic_rdmsr(lapic(i), 0x1b, &base));
    assert_true(bt_lapic_wrmsr(lapic(i), 0x1b, base | BIT(10)));
}

static void msi(unsigned dest, bool logical, uint32_t data)
{
    bt_lapic_deliver_msi(&engine, 0xfee00000u | dest << 12 | (logical ? 4 : 0), data);
}

static int take(unsigned i)
{
    return bt_lapic_pending(lapic(i)) ? bt_lapic_acknowledge(lapic(i)) : -1;
}

static void end(unsigned i)
{
    bt_lapic_write(lapic(i), 0xb0, 0);
}

/* Takes and ends every pending vector; how many there were. */
static unsigned drain(unsigned i)
{
    unsigned n = 0;
    for (; take(i) >= 0; n++)
        end(i);
    return n;
}

static void test_reset(void **state)
{
    struct bt_lapic *l = lapic(1);
    bt_lapic_reset(l, false);
    uint64_t base;
    assert_true(bt_lapic_rdmsr(l, 0x1b, &base));
    assert_int_equal(base, 0xfee00800);
    assert_true(bt_lapic_rdmsr(lapic(0), 0x1b, &base));
    assert_int_equal(base, 0xfee00900);
    assert_int_equal(bt_lapic_read(l, 0x20), 1u << 24);
    assert_int_equal(bt_lapic_read(l, 0xf0), 0xff);
    assert_int_equal(bt_lapic_read(l, 0xe0), 0xffffffff);
    for (unsigned reg = 0x320; reg <= 0x370; reg += 0x10)
        assert_int_equal(bt_lapic_read(l, reg), 0x10000);
    assert_true(bt_lapic_owns(l, 0xfee00ffc));
    assert_false(bt_lapic_owns(l, 0xfee01000));
    assert_false(bt_lapic_owns(l, 0xfedfffff));
    assert_false(bt_lapic_owns(l, UINT64_C(0x1fee00000)));
}

static void test_priority(void **state)
{
    msi(0, false, 0x31);
    msi(0, false, 0x52);
    msi(0, false, 0x55);
    assert_int_equal(take(0), 0x55);
    assert_int_equal(take(0), -1); /* 0x52 is of the same class */
    msi(0, false, 0x61);
    assert_int_equal(take(0), 0x61); /* nests */
    assert_int_equal(bt_lapic_read(lapic(0), 0xa0), 0x60);
    end(0);
    assert_int_equal(take(0), -1);
    end(0);
    assert_int_equal(take(0), 0x52);
    end(0);
    bt_lapic_set_cr8(lapic(0), 3);
    assert_int_equal(bt_lapic_read(lapic(0), 0x80), 0x30);
    assert_int_equal(take(0), -1);
    engine.cpu[0]->kick = 0;
    bt_lapic_set_cr8(lapic(0), 2);
    assert_int_equal(engine.cpu[0]->kick, 1);
    assert_int_equal(take(0), 0x31);
    end(0);
    assert_int_equal(eois, 0);
}

/* Every vector at every task priority, against the rule itself. */
static void test_priority_all(void **state)
{
    for (unsigned vector = 16; vector < 256; vector++)
        for (unsigned tpr = 0; tpr < 16; tpr++) {
            bt_lapic_set_cr8(lapic(0), tpr);
            msi(0, false, vector);
            assert_int_equal(bt_lapic_pending(lapic(0)), vector >> 4 > tpr);
            bt_lapic_set_cr8(lapic(0), 0);
            assert_int_equal(take(0), vector);
            end(0);
        }
}

static void test_level_eoi(void **state)
{
    msi(2, false, 0x40 | 1 << 15);
    assert_int_equal(bt_lapic_read(lapic(2), 0x180 + 0x20), 1);
    assert_int_equal(take(2), 0x40);
    assert_int_equal(eois, 0);
    end(2);
    assert_int_equal(eois, 1);
    assert_int_equal(last_eoi, 0x40);
    msi(2, false, 0x40);
    assert_int_equal(take(2), 0x40);
    end(2);
    assert_int_equal(eois, 1);
    end(2); /* nothing in service */
    assert_int_equal(eois, 1);
}

static void test_destinations(void **state)
{
    /* Flat logical. */
    for (unsigned i = 0; i < CPUS; i++)
        bt_lapic_write(lapic(i), 0xd0, 1u << (24 + i));
    msi(0x5, true, 0x41);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(drain(i), i == 0 || i == 2);
    msi(0xff, false, 0x41);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(drain(i), 1);
    /* Cluster: two clusters of two. */
    for (unsigned i = 0; i < CPUS; i++) {
        bt_lapic_write(lapic(i), 0xe0, 0);
        bt_lapic_write(lapic(i), 0xd0, (i / 2) << 28 | 1u << (24 + i % 2));
    }
    msi(0x13, true, 0x41);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(drain(i), i >= 2);
    msi(0xf1, true, 0x41);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(drain(i), i % 2 == 0);
    /* Lowest priority: one, and the one with the lowest TPR. */
    bt_lapic_set_cr8(lapic(2), 3);
    msi(0x13, true, 0x41 | 1 << 8);
    assert_int_equal(drain(2), 0);
    assert_int_equal(drain(3), 1);
    /* Not an interrupt address. */
    bt_lapic_deliver_msi(&engine, 0xfed00000, 0x41);
    assert_int_equal(drain(0), 0);
}

static void test_ipis(void **state)
{
    struct bt_lapic *l = lapic(1);
    bt_lapic_write(l, 0x310, 3u << 24);
    bt_lapic_write(l, 0x300, 0x77);
    assert_int_equal(drain(3), 1);
    assert_true(requests[3] > 0);
    bt_lapic_write(l, 0x300, 0x77 | 1 << 18); /* self */
    assert_int_equal(drain(1), 1);
    bt_lapic_write(l, 0x300, 0x77 | 2 << 18); /* all */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(drain(i), 1);
    bt_lapic_write(l, 0x300, 0x77 | 3 << 18); /* others */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(drain(i), i != 1);
    /* An illegal vector is an error at the sender. */
    bt_lapic_write(l, 0x370, 0x99);
    bt_lapic_write(l, 0x300, 0x07 | 1 << 18);
    bt_lapic_write(l, 0x280, 0);
    assert_int_equal(bt_lapic_read(l, 0x280), 0x20);
    assert_int_equal(take(1), 0x99);
    end(1);
    /* NMI, INIT, SIPI. */
    bt_lapic_write(l, 0x310, 2u << 24);
    bt_lapic_write(l, 0x300, 4 << 8);
    assert_true(engine.cpu[2]->nmi_request);
    bt_lapic_write(l, 0x300, 5 << 8 | 1 << 15); /* de-assert: nothing */
    uint8_t vector = 0;
    assert_int_equal(bt_lapic_take_event(lapic(2), &vector), BT_LAPIC_NONE);
    bt_lapic_write(l, 0x300, 6 << 8 | 0x9a);
    assert_int_equal(bt_lapic_take_event(lapic(2), &vector), BT_LAPIC_NONE); /* it runs */
    bt_lapic_write(l, 0x300, 5 << 8 | 1 << 14);
    bt_lapic_write(l, 0x300, 6 << 8 | 0x9a);
    assert_int_equal(bt_lapic_take_event(lapic(2), &vector), BT_LAPIC_INIT);
    engine.cpu[2]->mp_state = MP_WAIT_SIPI;
    assert_int_equal(bt_lapic_take_event(lapic(2), &vector), BT_LAPIC_SIPI);
    assert_int_equal(vector, 0x9a);
    assert_int_equal(bt_lapic_take_event(lapic(2), &vector), BT_LAPIC_NONE);
}

static void test_software_disable(void **state)
{
    struct bt_lapic *l = lapic(0);
    msi(0, false, 0x41);
    bt_lapic_write(l, 0x350, 0x700);
    bt_lapic_write(l, 0xf0, 0xff);
    assert_int_equal(bt_lapic_read(l, 0x350), 0x10700);
    bt_lapic_write(l, 0x350, 0x700); /* the mask can't be taken off now */
    assert_int_equal(bt_lapic_read(l, 0x350), 0x10700);
    msi(0, false, 0x42);
    assert_int_equal(take(0), 0x41); /* came before */
    end(0);
    assert_int_equal(take(0), -1);
}

static void test_extint(void **state)
{
    struct bt_lapic *l = lapic(0);
    pic_vector = 0x08;
    engine.intr = true;
    bt_lapic_intr_changed(&engine);
    assert_false(bt_lapic_pending(l)); /* LINT0 is masked */
    bt_lapic_write(l, 0x350, 0x700);
    assert_true(bt_lapic_pending(l));
    assert_false(bt_lapic_pending(lapic(1)));
    bt_lapic_set_cr8(l, 15); /* priority does not hold it off */
    assert_int_equal(take(0), 8);
    pic_vector = -1;
    assert_int_equal(take(0), -1); /* spurious */
    /* Off: INTR is the processor's pin. */
    assert_true(bt_lapic_wrmsr(l, 0x1b, 0xfee00100));
    pic_vector = 0x09;
    assert_int_equal(take(0), 9);
    engine.intr = false;
    assert_false(bt_lapic_pending(l));
}

static void test_x2apic_rules(void **state)
{
    struct bt_lapic *l = lapic(1);
    uint64_t v;
    assert_false(bt_lapic_rdmsr(l, 0x802, &v));             /* not in x2APIC mode */
    assert_false(bt_lapic_wrmsr(l, 0x1b, 0xfee00400));      /* EXTD without EN */
    assert_false(bt_lapic_wrmsr(l, 0x1b, 0xfee00802));      /* reserved */
    assert_false(bt_lapic_wrmsr(l, 0x1b, BIT(46) | 0x800)); /* too wide */
    x2apic(1);
    assert_false(bt_lapic_owns(l, 0xfee00000));
    assert_false(bt_lapic_wrmsr(l, 0x1b, 0xfee00800)); /* back to xAPIC */
    assert_true(bt_lapic_rdmsr(l, 0x802, &v));
    assert_int_equal(v, 1);
    assert_true(bt_lapic_rdmsr(l, 0x80d, &v));
    assert_int_equal(v, 2);
    assert_true(bt_lapic_wrmsr(l, 0x80b, 0));
    const uint32_t bad_write[] = {0x802, 0x803, 0x80a, 0x80d, 0x80e, 0x810,
                                  0x831, 0x839, 0x82f, 0x800, 0x8ff};
    for (unsigned i = 0; i < ARRAY_SIZE(bad_write); i++)
        assert_false(bt_lapic_wrmsr(l, bad_write[i], 0));
    const uint32_t bad_read[] = {0x80b, 0x80e, 0x831, 0x83f, 0x800, 0x8ff, 0x82f};
    for (unsigned i = 0; i < ARRAY_SIZE(bad_read); i++)
        assert_false(bt_lapic_rdmsr(l, bad_read[i], &v));
    assert_false(bt_lapic_wrmsr(l, 0x80b, 1));
    assert_false(bt_lapic_wrmsr(l, 0x808, 0x100));
    assert_false(bt_lapic_wrmsr(l, 0x80f, 0x1000));
    assert_false(bt_lapic_wrmsr(l, 0x830, BIT(12)));
    assert_true(bt_lapic_wrmsr(l, 0x83f, 0x66));
    assert_int_equal(take(1), 0x66);
    assert_true(bt_lapic_wrmsr(l, 0x80b, 0));
    /* Broadcast and cluster addressing among x2APICs. */
    for (unsigned i = 0; i < CPUS; i++)
        if (i != 1)
            x2apic(i);
    assert_true(bt_lapic_wrmsr(l, 0x830, (uint64_t)UINT32_MAX << 32 | 0x71));
    for (unsigned i = 0; i < CPUS; i++) {
        assert_int_equal(take(i), 0x71);
        assert_true(bt_lapic_wrmsr(lapic(i), 0x80b, 0));
    }
    assert_true(bt_lapic_wrmsr(l, 0x830, UINT64_C(0x0000000a) << 32 | 0x71 | 1 << 11));
    for (unsigned i = 0; i < CPUS; i++) {
        assert_int_equal(take(i), i & 1 ? 0x71 : -1);
        assert_true(bt_lapic_wrmsr(lapic(i), 0x80b, 0));
    }
    /* Off resets. */
    assert_true(bt_lapic_wrmsr(l, 0x808, 0x20));
    assert_true(bt_lapic_wrmsr(l, 0x1b, 0xfee00000));
    assert_false(bt_lapic_wrmsr(l, 0x1b, 0xfee00c00)); /* not straight to x2APIC */
    assert_true(bt_lapic_wrmsr(l, 0x1b, 0xfee00800));
    assert_int_equal(bt_lapic_read(l, 0x80), 0);
}

static void test_timer_one_shot(void **state)
{
    struct bt_lapic *l = lapic(0);
    time_stands = true;
    fixed_time = 1000000;
    bt_lapic_write(l, 0x3e0, 0xb); /* by 1 */
    bt_lapic_write(l, 0x320, 0x80);
    bt_lapic_write(l, 0x380, 500000);
    assert_int_equal(bt_lapic_read(l, 0x390), 500000);
    fixed_time += 100000;
    assert_int_equal(bt_lapic_read(l, 0x390), 400000);
    bt_lapic_write(l, 0x3e0, 0); /* by 2: as many ticks left */
    assert_int_equal(bt_lapic_read(l, 0x390), 400000);
    fixed_time += 799998;
    assert_int_equal(bt_lapic_read(l, 0x390), 1);
    assert_int_equal(take(0), -1);
    fixed_time += 2;
    assert_int_equal(bt_lapic_read(l, 0x390), 0);
    assert_int_equal(take(0), 0x80);
    end(0);
    fixed_time += 10000000;
    assert_int_equal(bt_lapic_read(l, 0x390), 0);
    assert_int_equal(take(0), -1);
    assert_true(bt_lapic_next_expiry(l) == UINT64_MAX);
    /* Masked: counts, says nothing, also not after being unmasked. */
    bt_lapic_write(l, 0x320, 0x10080);
    bt_lapic_write(l, 0x380, 1000);
    fixed_time += 100000;
    bt_lapic_write(l, 0x320, 0x80);
    assert_int_equal(take(0), -1);
}

static void test_timer_periodic(void **state)
{
    struct bt_lapic *l = lapic(0);
    time_stands = true;
    fixed_time = 5000000;
    bt_lapic_write(l, 0x3e0, 0xb);
    bt_lapic_write(l, 0x320, 0x20080);
    bt_lapic_write(l, 0x380, 1000000);
    for (int i = 0; i < 5; i++) {
        fixed_time += 1000000;
        assert_int_equal(bt_lapic_read(l, 0x390), 1000000);
        assert_int_equal(drain(0), 1);
    }
    fixed_time += 7300000; /* missed ones come as one, the phase stays */
    assert_int_equal(bt_lapic_read(l, 0x390), 700000);
    assert_int_equal(drain(0), 1);
    bt_lapic_write(l, 0x380, 0);
    assert_true(bt_lapic_next_expiry(l) == UINT64_MAX);
    /* A hostile period is stretched. */
    bt_lapic_write(l, 0x380, 1);
    fixed_time += 19999;
    bt_lapic_read(l, 0x390);
    assert_int_equal(drain(0), 0);
    fixed_time += 1;
    bt_lapic_read(l, 0x390);
    assert_int_equal(drain(0), 1);
}

static bool wait_requested(unsigned i, unsigned ms)
{
    for (unsigned n = 0; n < ms; n++) {
        if (atomic_load(&engine.cpu[i]->kick))
            return true;
        struct timespec ts = {0, 1000000};
        nanosleep(&ts, NULL);
    }
    return false;
}

static void test_timer_deadline(void **state)
{
    struct bt_lapic *l = lapic(0);
    struct bt_cpu *cpu = engine.cpu[0];
    uint64_t v, ms = model.tsc_hz / 1000;
    cpu->tsc_offset = 0 - (uint64_t)12345678901;
    bt_lapic_wrmsr(l, 0x6e0, 1); /* ignored in another mode */
    bt_lapic_rdmsr(l, 0x6e0, &v);
    assert_int_equal(v, 0);
    bt_lapic_write(l, 0x320, 0x40090);
    bt_lapic_wrmsr(l, 0x6e0, bt_rdtsc(cpu) - 1); /* in the past */
    assert_int_equal(take(0), 0x90);
    end(0);
    bt_lapic_rdmsr(l, 0x6e0, &v);
    assert_int_equal(v, 0);
    /* The thread makes a running vCPU look. */
    cpu->kick = 0;
    uint64_t deadline = bt_rdtsc(cpu) + 20 * ms;
    bt_lapic_wrmsr(l, 0x6e0, deadline);
    bt_lapic_rdmsr(l, 0x6e0, &v);
    assert_true(v == deadline);
    uint64_t until = bt_lapic_next_expiry(l), now = monotonic_ns();
    assert_true(until > now + 10000000 && until < now + 21000000);
    assert_int_equal(take(0), -1);
    assert_true(wait_requested(0, 2000));
    assert_true(bt_rdtsc(cpu) >= deadline);
    assert_int_equal(take(0), 0x90);
    end(0);
    /* The furthest deadline there is must not wrap to now. */
    cpu->kick = 0;
    bt_lapic_wrmsr(l, 0x6e0, UINT64_MAX);
    assert_int_equal(take(0), -1);
    assert_false(wait_requested(0, 20));
    /* An earlier one takes over; a jump of the TSC counts. */
    bt_lapic_wrmsr(l, 0x6e0, bt_rdtsc(cpu) + 3600000 * ms);
    cpu->tsc_offset += 3600000 * ms;
    bt_lapic_tsc_changed(l);
    assert_int_equal(take(0), 0x90);
    end(0);
    /* Another mode disarms. */
    bt_lapic_wrmsr(l, 0x6e0, bt_rdtsc(cpu) + ms);
    bt_lapic_write(l, 0x320, 0x90);
    assert_true(bt_lapic_next_expiry(l) == UINT64_MAX);
}

/* Halted vCPUs are left to themselves, and looked after again once they run. */
static void test_timer_halted(void **state)
{
    struct bt_cpu *cpu = engine.cpu[1];
    uint64_t ms = model.tsc_hz / 1000;
    bt_lapic_write(lapic(1), 0x320, 0x40090);
    __atomic_store_n(&cpu->mp_state, MP_HALTED, __ATOMIC_SEQ_CST);
    bt_lapic_wrmsr(lapic(1), 0x6e0, bt_rdtsc(cpu) + 10 * ms);
    cpu->kick = 0;
    assert_false(wait_requested(1, 40));
    assert_int_equal(take(1), 0x90);
    end(1);
    bt_lapic_wrmsr(lapic(1), 0x6e0, bt_rdtsc(cpu) + 30 * ms);
    cpu->kick = 0;
    __atomic_store_n(&cpu->mp_state, MP_RUNNING, __ATOMIC_SEQ_CST);
    bt_lapic_check_timer(lapic(1));
    assert_true(wait_requested(1, 2000));
    assert_int_equal(take(1), 0x90);
}

/* Several vCPUs with random deadlines: each is told, none early. */
static void test_timer_many(void **state)
{
    uint64_t deadline[CPUS];
    unsigned seed = (unsigned)monotonic_ns();
    print_message("seed %u\n", seed);
    srand(seed);
    for (unsigned i = 0; i < CPUS; i++)
        bt_lapic_write(lapic(i), 0x320, 0x40090);
    for (int round = 0; round < 20; round++) {
        for (unsigned i = 0; i < CPUS; i++) {
            struct bt_cpu *cpu = engine.cpu[i];
            cpu->kick = 0;
            deadline[i] = bt_rdtsc(cpu) + (uint64_t)rand() % (model.tsc_hz / 200);
            bt_lapic_wrmsr(lapic(i), 0x6e0, deadline[i]);
        }
        for (unsigned i = 0; i < CPUS; i++) {
            assert_true(wait_requested(i, 2000));
            assert_true(bt_rdtsc(engine.cpu[i]) >= deadline[i]);
            assert_int_equal(take(i), 0x90);
            end(i);
        }
    }
}

static void test_state(void **state)
{
    struct x86_lapic a, b;
    time_stands = true;
    fixed_time = 1000000;
    msi(2, false, 0x45 | 1 << 15);
    msi(2, false, 0x33);
    assert_int_equal(take(2), 0x45);
    bt_lapic_write(lapic(2), 0x320, 0x20080);
    bt_lapic_write(lapic(2), 0x3e0, 3);
    bt_lapic_write(lapic(2), 0x380, 100000);
    bt_lapic_get(lapic(2), &a);
    bt_lapic_reset(lapic(2), false);
    bt_lapic_set(lapic(2), &a);
    bt_lapic_get(lapic(2), &b);
    size_t words = offsetof(struct x86_lapic, timer_divide) + sizeof(a.timer_divide);
    assert_memory_equal(&a, &b, words); /* padding follows */
    assert_int_equal(a.timer_start_ns, 1000000);
    assert_int_equal(b.timer_start_ns, 1000000);
    assert_int_equal(b.tsc_deadline, a.tsc_deadline);
    end(2);
    assert_int_equal(last_eoi, 0x45);
    assert_int_equal(take(2), 0x33);
    /* Hostile values are cut to what registers can hold. */
    memset(&a, 0xff, sizeof(a));
    a.base = UINT64_MAX;
    bt_lapic_set(lapic(2), &a);
    bt_lapic_get(lapic(2), &b);
    assert_int_equal(b.base >> 46, 0);
    assert_int_equal(b.isr[0] & 0xffff, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_reset),
        TEST(test_priority),
        TEST(test_priority_all),
        TEST(test_level_eoi),
        TEST(test_destinations),
        TEST(test_ipis),
        TEST(test_software_disable),
        TEST(test_extint),
        TEST(test_x2apic_rules),
        TEST(test_timer_one_shot),
        TEST(test_timer_periodic),
        TEST(test_timer_deadline),
        TEST(test_timer_halted),
        TEST(test_timer_many),
        TEST(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
