/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Several processors: start-up, IPIs, memory ordering (litmus tests), locked instructions, TLB shootdowns,
 * code written by another processor.
 */
#include "guest.h"

static unsigned cpus;

/* Fewer when processors share those of the host: each meeting is then a change of threads. */
static bool few;
#define ROUNDS     (few ? 100u : 20000u)
#define IPI_ROUNDS (few ? 10u : 200u)

/* --- barriers --- */

static volatile uint32_t arrived, generation;

static void meet(void)
{
    uint32_t g = generation;
    if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == cpus) {
        arrived = 0;
        __atomic_add_fetch(&generation, 1, __ATOMIC_SEQ_CST);
        return;
    }
    while (generation == g)
        pause();
}

/*
 * Meetings are as quick as the processors are at the same time. Where threads of others take turns with them
 * on the host each may take a time slice, and a test of thousands of them many minutes: it ends early then.
 */
#define ROUNDS_LEAST 100u
#define TICKS_MOST   BIT(31) /* of the TSC: about a second */

static volatile uint32_t rounds; /* how many there were */
static volatile bool enough;

/* Begins round i of `most` with a meeting; false: there is none. Processor 0 says so, before all meet. */
static bool next_round(unsigned i, unsigned most)
{
    static uint64_t begin;
    if (!this_processor()) {
        begin = i ? begin : rdtsc();
        enough = i >= most || (i >= ROUNDS_LEAST && rdtsc() - begin > TICKS_MOST);
        rounds = i;
    }
    meet();
    return !enough;
}

/* --- IPIs --- */

static volatile uint32_t ipis[MAX_CPUS];

static bool note_ipi(struct frame *f)
{
    (void)f;
    __atomic_add_fetch(&ipis[this_processor()], 1, __ATOMIC_SEQ_CST);
    apic_write(APIC_EOI, 0);
    return true;
}

static volatile bool serve;

static void wait_with_interrupts(void *arg)
{
    if (!this_processor()) {
        for (unsigned round = 0; round < IPI_ROUNDS; round++)
            for (unsigned c = 1; c < cpus; c++) {
                uint32_t before = ipis[c];
                apic_ipi(c, 0x60);
                while (ipis[c] == before)
                    pause();
            }
        for (unsigned round = 0; round < IPI_ROUNDS; round++) {
            uint32_t before[MAX_CPUS];
            for (unsigned c = 1; c < cpus; c++)
                before[c] = ipis[c];
            apic_write(APIC_ICR, 0xc4061); /* all but self */
            for (unsigned c = 1; c < cpus; c++)
                while (ipis[c] == before[c])
                    pause();
        }
        serve = false;
        apic_write(APIC_ICR, 0xc4062);
        return;
    }
    bool sleeper = arg;
    while (serve)
        if (sleeper)
            __asm__ volatile("cli; cmpb $0, %0; jz 1f; sti; hlt; 1: sti" : : "m"(serve) : "cc");
        else
            __asm__ volatile("sti; pause");
    __asm__ volatile("cli");
}

static void ipi_tests(void)
{
    for (unsigned v = 0x60; v < 0x63; v++)
        handlers[v] = note_ipi;
    for (unsigned sleeping = 0; sleeping < 2; sleeping++) {
        serve = true;
        on_all(wait_with_interrupts, sleeping ? scratch : NULL);
        for (unsigned c = 1; c < cpus; c++)
            expect(ipis[c] >= 2 * IPI_ROUNDS * (sleeping + 1), "IPIs taken");
        verdict(sleeping ? "IPIs wake processors that sleep" : "IPIs reach processors that spin");
    }
}

/* --- litmus tests on the first two (four) processors --- */

static volatile uint64_t x __attribute__((aligned(64))), y __attribute__((aligned(64)));
static volatile uint64_t r[MAX_CPUS][2] __attribute__((aligned(64)));
static volatile uint64_t seen[8];

static void random_delay(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    for (uint32_t i = *state >> 27; i; i--)
        barrier();
}

/* Counts of outcomes go to seen[]; `fence` puts MFENCE or a locked instruction between. */
static void store_buffer(void *arg)
{
    unsigned me = this_processor();
    unsigned fence = *(unsigned *)arg;
    uint32_t state = me + 1;
    for (unsigned i = 0; next_round(i, ROUNDS); i++) {
        random_delay(&state);
        uint64_t got = 0;
        if (me == 0 || me == 1) {
            volatile uint64_t *mine = me ? &y : &x, *other = me ? &x : &y;
            *mine = 1;
            if (fence == 1)
                __asm__ volatile("mfence" : : : "memory");
            else if (fence == 2)
                __asm__ volatile("lock addl $0, -4(%%rsp)" : : : "memory", "cc");
            else if (fence == 3)
                __asm__ volatile("xchg %0, %1" : "+r"(got), "+m"(r[me][1]) : : "memory");
            got = *other;
            r[me][0] = got;
        }
        meet();
        if (me == 0) {
            seen[r[0][0] * 2 + r[1][0]]++;
            x = y = 0;
        }
    }
}

static void message_passing(void *arg)
{
    unsigned me = this_processor();
    uint32_t state = me + 7;
    (void)arg;
    for (unsigned i = 0; next_round(i, ROUNDS); i++) {
        random_delay(&state);
        if (me == 0) {
            x = 1;
            y = 1;
        } else if (me == 1) {
            r[1][0] = y;
            r[1][1] = x;
        }
        meet();
        if (me == 0) {
            seen[r[1][0] * 2 + r[1][1]]++;
            x = y = 0;
        }
    }
}

static void load_buffer(void *arg)
{
    unsigned me = this_processor();
    uint32_t state = me + 9;
    (void)arg;
    for (unsigned i = 0; next_round(i, ROUNDS); i++) {
        random_delay(&state);
        if (me == 0) {
            r[0][0] = y;
            x = 1;
        } else if (me == 1) {
            r[1][0] = x;
            y = 1;
        }
        meet();
        if (me == 0) {
            seen[r[0][0] * 2 + r[1][0]]++;
            x = y = 0;
        }
    }
}

/* Independent reads of independent writes: two processors must not see the writes in different orders. */
static void iriw(void *arg)
{
    unsigned me = this_processor();
    uint32_t state = me + 11;
    (void)arg;
    for (unsigned i = 0; next_round(i, ROUNDS); i++) {
        random_delay(&state);
        if (me == 0)
            x = 1;
        else if (me == 1)
            y = 1;
        else if (me == 2) {
            r[2][0] = x;
            r[2][1] = y;
        } else if (me == 3) {
            r[3][0] = y;
            r[3][1] = x;
        }
        meet();
        if (me == 0) {
            seen[r[2][0] && !r[2][1] && r[3][0] && !r[3][1]]++;
            x = y = 0;
        }
    }
}

static void forget(void)
{
    for (unsigned i = 0; i < 8; i++)
        seen[i] = 0;
    x = y = 0;
    for (unsigned i = 0; i < MAX_CPUS; i++)
        r[i][0] = r[i][1] = 0;
}

static void litmus(void)
{
    unsigned fence = 0;
    forget();
    on_all(store_buffer, &fence);
    print("# store buffering without a fence, both old: ");
    print_hex(seen[0]);
    print("\n");
    for (fence = 1; fence < 4; fence++) {
        forget();
        on_all(store_buffer, &fence);
        expect_equal(seen[0], 0, "both read the old value");
    }
    verdict("store buffering is ended by MFENCE, LOCK and XCHG");
    forget();
    on_all(message_passing, NULL);
    expect_equal(seen[2], 0, "flag without data");
    expect_equal(seen[0] + seen[1] + seen[3], rounds, "rounds");
    expect(rounds >= ROUNDS_LEAST, "enough of them");
    verdict("message passing");
    forget();
    on_all(load_buffer, NULL);
    expect_equal(seen[3], 0, "both read the later store");
    verdict("load buffering");
    if (cpus < 4)
        return;
    forget();
    on_all(iriw, NULL);
    expect_equal(seen[1], 0, "two orders");
    verdict("independent reads of independent writes");
}

/* --- locked instructions --- */

static uint64_t shared[64] __attribute__((aligned(4096)));
static volatile uint32_t spin;

static void locked(void *arg)
{
    (void)arg;
    meet();
    for (unsigned i = 0; i < ROUNDS; i++) {
        __asm__ volatile("lock incq %0" : "+m"(shared[0]) : : "cc");
        __asm__ volatile("lock addl $3, %0" : "+m"(*(uint32_t *)&shared[1]) : : "cc");
        uint64_t v = 1;
        __asm__ volatile("lock xaddq %0, %1" : "+r"(v), "+m"(shared[2]) : : "cc");
        uint64_t old = shared[3];
        do
            v = old + 2;
        while (!__atomic_compare_exchange_n(&shared[3], &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
        /* Across a cache line. */
        __asm__ volatile("lock incl %0" : "+m"(*(uint32_t *)(void *)((uint8_t *)shared + 126)) : : "cc");
        uint32_t one = 1;
        do
            __asm__ volatile("xchg %0, %1" : "+r"(one), "+m"(spin) : : "memory");
        while (one && (pause(), true));
        shared[20]++;
        barrier();
        spin = 0;
        /* 16 bytes at once */
        uint64_t lo = shared[30], hi = shared[31];
        uint8_t done;
        do
            __asm__ volatile("lock cmpxchg16b %1; setz %0"
                             : "=q"(done), "+m"(*(unsigned __int128 *)(void *)&shared[30]), "+a"(lo), "+d"(hi)
                             : "b"(lo + 1), "c"(hi + 1)
                             : "cc");
        while (!done);
        uint64_t bit;
        __asm__ volatile("lock btcq $17, %1; setc %b0" : "=q"(bit), "+m"(shared[40]) : : "cc");
    }
    meet();
}

static void locked_tests(void)
{
    uint64_t n = (uint64_t)cpus * ROUNDS;
    on_all(locked, NULL);
    expect_equal(shared[0], n, "INC");
    expect_equal(shared[1], 3 * n & UINT32_MAX, "ADD");
    expect_equal(shared[2], n, "XADD");
    expect_equal(shared[3], 2 * n, "CMPXCHG");
    expect_equal(*(uint32_t *)(void *)((uint8_t *)shared + 126), n, "INC across a cache line");
    expect_equal(shared[20], n, "counter under an XCHG lock");
    expect_equal(shared[30], n, "CMPXCHG16B low");
    expect_equal(shared[31], n, "CMPXCHG16B high");
    expect_equal(shared[40], n & 1 ? BIT(17) : 0, "BTC");
    verdict("locked instructions lose nothing");
    /* Across a page. */
    static uint8_t *a, *b;
    a = new_page();
    b = new_page();
    map_page(TEST_BASE + 0x20000, (uintptr_t)a, PG_P | PG_W);
    map_page(TEST_BASE + 0x21000, (uintptr_t)b, PG_P | PG_W);
}

static void locked_across(void *arg)
{
    meet();
    for (unsigned i = 0; i < ROUNDS / 10; i++)
        __asm__ volatile("lock incl (%0)" : : "r"(arg) : "memory", "cc");
    meet();
}

/* --- TLB shootdown --- */

#define SHOT_VA (TEST_BASE + 0x40000)
static volatile uint64_t shot_round, shot_acknowledged, shot_bad;
static uint64_t *shot_pages[2];

static bool shoot(struct frame *f)
{
    (void)f;
    invlpg(SHOT_VA);
    __atomic_add_fetch(&shot_acknowledged, 1, __ATOMIC_SEQ_CST);
    apic_write(APIC_EOI, 0);
    return true;
}

/* Processor 0 remaps; the others read all the time. After the acknowledgement none may see the old page. */
static void shootdown(void *arg)
{
    (void)arg;
    volatile uint64_t *at = (volatile uint64_t *)SHOT_VA;
    if (!this_processor()) {
        for (uint64_t i = 1; i <= (few ? 60 : 300); i++) {
            *shot_pages[i & 1] = i;
            map_page(SHOT_VA, (uintptr_t)shot_pages[i & 1], PG_P | PG_W);
            shot_acknowledged = 0;
            apic_write(APIC_ICR, 0xc4065);
            while (shot_acknowledged != cpus - 1)
                pause();
            __atomic_store_n(&shot_round, i, __ATOMIC_SEQ_CST);
            /* The old page is someone else's now. */
            *shot_pages[~i & 1] = UINT64_MAX;
        }
        __atomic_store_n(&shot_round, UINT64_MAX, __ATOMIC_SEQ_CST);
        return;
    }
    __asm__ volatile("sti");
    for (uint64_t round; (round = shot_round) != UINT64_MAX;) {
        uint64_t v = *at;
        if (v < round || v == UINT64_MAX)
            shot_bad++;
    }
    __asm__ volatile("cli");
}

/* --- code written by another processor --- */

static uint8_t *code;
static volatile uint64_t code_called;

static void cross_modify(void *arg)
{
    (void)arg;
    unsigned me = this_processor();
    for (uint32_t i = 1; next_round(i - 1, ROUNDS / 10); i++) {
        if (!me) {
            code[0] = 0xb8;
            *(volatile uint32_t *)(void *)(code + 1) = i;
            code[5] = 0xc3;
        }
        meet();
        uint32_t regs[4], v;
        cpuid(0, 0, regs); /* the other processor must serialise */
        __asm__ volatile("call *%1" : "=a"(v) : "r"(code) : "memory", "cc");
        if (v != i)
            __atomic_add_fetch(&code_called, 1, __ATOMIC_SEQ_CST);
        meet();
    }
}

/* Without a handshake: an aligned immediate flips between two values while the others run it. */
static volatile bool flipping;

static void flip(void *arg)
{
    (void)arg;
    if (!this_processor()) {
        for (uint32_t i = 0; i < 3000; i++) {
            *(volatile uint32_t *)(void *)(code + 16) = i & 1 ? 0x11111111 : 0x22222222;
            for (unsigned j = 0; j < 100; j++)
                barrier();
        }
        flipping = false;
        return;
    }
    while (flipping) {
        uint32_t v;
        __asm__ volatile("call *%1" : "=a"(v) : "r"(code + 15) : "memory", "cc");
        if (v != 0x11111111 && v != 0x22222222)
            __atomic_add_fetch(&code_called, 1, __ATOMIC_SEQ_CST);
    }
}

/*
 * A constant in code grows, and then a number that says how far it has come: who has read the number and
 * serialises must not execute an older constant. As other code of the page stays, it is known for code all
 * the time; the writer's translation of its address is new each time.
 */
#define OVERTAKE_AT 64
static volatile uint32_t constant_written;

static uint32_t call_code(unsigned offset)
{
    uint32_t v;
    __asm__ volatile("call *%1" : "=a"(v) : "r"(code + offset) : "memory", "cc");
    return v;
}

static void overtake(void *arg)
{
    bool with_strings = arg;
    uint32_t state = 5, regs[4];
    volatile uint32_t *constant = (volatile uint32_t *)(void *)(code + OVERTAKE_AT + 4);
    if (!this_processor()) {
        for (uint32_t i = 1; i < (few ? 2000 : 30000); i++) {
            invlpg((uintptr_t)code);
            if (with_strings) {
                uint32_t v = i, *to = (uint32_t *)(void *)(code + OVERTAKE_AT + 4);
                uint64_t n = 1;
                const uint32_t *from = &v;
                __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
            } else {
                *constant = i;
            }
            constant_written = i;
            random_delay(&state);
        }
        constant_written = UINT32_MAX;
        return;
    }
    for (uint32_t written; (written = constant_written) != UINT32_MAX;) {
        cpuid(0, 0, regs);
        if (call_code(OVERTAKE_AT + 3) < written)
            __atomic_add_fetch(&code_called, 1, __ATOMIC_SEQ_CST);
        call_code(256);
    }
}

static void overtake_tests(void)
{
    code = new_page();
    code[OVERTAKE_AT + 3] = 0xb8;
    code[OVERTAKE_AT + 8] = 0xc3;
    code[256] = 0xc3;
    for (unsigned strings = 0; strings < 2; strings++) {
        constant_written = 0;
        *(volatile uint32_t *)(void *)(code + OVERTAKE_AT + 4) = 0;
        on_all(overtake, strings ? scratch : NULL);
        check_equal(code_called, 0,
                    strings ? "no older code by a string instruction" : "no older code after it was written");
    }
}

static void code_tests(void)
{
    code = new_page();
    on_all(cross_modify, NULL);
    check_equal(code_called, 0, "code written by another processor");
    code[15] = 0xb8;
    *(volatile uint32_t *)(void *)(code + 16) = 0x11111111;
    code[20] = 0xc3;
    flipping = true;
    on_all(flip, NULL);
    check_equal(code_called, 0, "a constant in code written while others run it");
    overtake_tests();
}

/* --- all at once: a lock-protected list of work --- */

static uint64_t primes_found;
static uint64_t next_number;

static void count_primes(void *arg)
{
    (void)arg;
    for (;;) {
        uint64_t n = __atomic_fetch_add(&next_number, 1, __ATOMIC_SEQ_CST);
        if (n >= 20000)
            return;
        bool prime = n > 1;
        for (uint64_t d = 2; d * d <= n; d++)
            prime &= n % d != 0;
        if (prime)
            __atomic_add_fetch(&primes_found, 1, __ATOMIC_SEQ_CST);
    }
}

void guest_main(void)
{
    cpus = start_processors();
    print("# processors: ");
    print_hex(cpus);
    print("\n");
    check(cpus > 1, "INIT and SIPI start the other processors");
    if (cpus < 2)
        return;
    few = cpus > 2 || (harness_limits() & LIMIT_TRANSLATOR);
    on_all(count_primes, NULL);
    check_equal(primes_found, 2262, "primes counted together");
    ipi_tests();
    litmus();
    locked_tests();
    on_all(locked_across, (void *)(TEST_BASE + 0x21000 - 2));
    check_equal(*(volatile uint32_t *)(TEST_BASE + 0x21000 - 2), (uint64_t)cpus * (ROUNDS / 10),
                "LOCK INC across two pages");
    shot_pages[0] = (uint64_t *)(void *)new_page();
    shot_pages[1] = (uint64_t *)(void *)new_page();
    map_page(SHOT_VA, (uintptr_t)shot_pages[0], PG_P | PG_W);
    handlers[0x65] = shoot;
    on_all(shootdown, NULL);
    check_equal(shot_bad, 0, "TLB shootdown");
    code_tests();
}
