/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Conformance: a processor's state after reset; states that go in and come out the same; and a program that
 * is stopped at random points and goes on elsewhere, in another machine of this engine or of another one,
 * with the same result.
 */
#include "conform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "x86/reset.h"

/* ---- comparing ---- */

#define XSTATE_BV     512
#define XSAVE_LEGACY  416 /* FCW to XMM15 */
#define XSAVE_AVX     576
#define XSAVE_AVX_LEN 256

struct field {
    const char *name;
    size_t offset, size;
};

#define F(field)                                                                                             \
    {                                                                                                        \
#field, offsetof(struct x86_state, field), sizeof(((struct x86_state *)0)->field)                    \
    }

/* What two states must have in common. Segments, vectors and the timer are apart. */
static const struct field fields[] = {
    F(gpr),
    F(rip),
    F(rflags),
    F(cr0),
    F(cr2),
    F(cr3),
    F(cr4),
    F(cr8),
    F(xcr0),
    F(efer),
    F(dr[0]),
    F(dr[1]),
    F(dr[2]),
    F(dr[3]),
    F(dr[6]),
    F(dr[7]),
    F(star),
    F(lstar),
    F(cstar),
    F(sfmask),
    F(kernel_gs_base),
    F(sysenter_cs),
    F(sysenter_esp),
    F(sysenter_eip),
    F(pat),
    F(tsc_aux),
    F(misc_enable),
    F(mtrr_def_type),
    F(mtrr_fixed),
    F(mtrr_base),
    F(mtrr_mask),
    F(tsc_adjust),
    F(lapic.base),
    F(lapic.id),
    F(lapic.tpr),
    F(lapic.dfr),
    F(lapic.svr),
    F(lapic.esr),
    F(lapic.isr),
    F(lapic.tmr),
    F(lapic.irr),
    F(lapic.icr_low),
    F(lapic.icr_high),
    F(lapic.lvt_timer),
    F(lapic.lvt_thermal),
    F(lapic.lvt_pmc),
    F(lapic.lvt_lint0),
    F(lapic.lvt_lint1),
    F(lapic.lvt_error),
    F(lapic.timer_divide),
    F(mp_state),
    F(nmi_pending),
    F(nmi_blocked),
    F(interrupt_shadow),
};

static uint64_t first_bytes(const void *p, size_t size)
{
    uint64_t v = 0;
    memcpy(&v, p, MIN(size, sizeof(v)));
    return v;
}

static void compare_fields(struct conform *c, const struct x86_state *got, const struct x86_state *want)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        const char *a = (const char *)got + fields[i].offset, *b = (const char *)want + fields[i].offset;
        size_t at = 0;
        while (at < fields[i].size && a[at] == b[at])
            at++;
        if (at == fields[i].size)
            continue;
        at -= at % 8;
        conform_fail(c, "%s + %zu: got 0x%llx, want 0x%llx", fields[i].name, at,
                     (unsigned long long)first_bytes(a + at, fields[i].size - at),
                     (unsigned long long)first_bytes(b + at, fields[i].size - at));
    }
}

/* Of an unusable segment only the privilege of SS means anything. */
static void compare_segments(struct conform *c, const struct x86_state *got, const struct x86_state *want)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct x86_segment *a = &got->seg[i], *b = &want->seg[i];
        conform_equal(c, a->selector, b->selector, "selector");
        conform_equal(c, !!(a->attr & ATTR_UNUSABLE), !!(b->attr & ATTR_UNUSABLE), "unusable segment");
        if (b->attr & ATTR_UNUSABLE)
            continue;
        if (a->attr != b->attr || a->base != b->base || a->limit != b->limit)
            conform_fail(c, "segment %u: got %x %llx %x, want %x %llx %x", i, a->attr,
                         (unsigned long long)a->base, a->limit, b->attr, (unsigned long long)b->base,
                         b->limit);
    }
    conform_equal(c, got->gdtr.base, want->gdtr.base, "GDTR");
    conform_equal(c, got->gdtr.limit, want->gdtr.limit, "GDTR's limit");
    conform_equal(c, got->idtr.base, want->idtr.base, "IDTR");
    conform_equal(c, got->idtr.limit, want->idtr.limit, "IDTR's limit");
}

static bool component(const struct x86_state *s, unsigned n)
{
    return load_le64(s->xsave + XSTATE_BV) & BIT(n);
}

/* What is not in XSTATE_BV is in its initial state, whatever the area has there. */
static void compare_vectors(struct conform *c, const struct x86_state *got, const struct x86_state *want)
{
    static const uint8_t zero[256];
    for (unsigned i = 0; i < 16; i++) {
        const uint8_t *a = component(got, 1) ? got->xsave + 160 + 16 * i : zero;
        const uint8_t *b = component(want, 1) ? want->xsave + 160 + 16 * i : zero;
        if (memcmp(a, b, 16) != 0)
            conform_fail(c, "XMM%u differs", i);
    }
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *a = component(got, 0) ? got->xsave + 32 + 16 * i : zero;
        const uint8_t *b = component(want, 0) ? want->xsave + 32 + 16 * i : zero;
        if (memcmp(a, b, 10) != 0)
            conform_fail(c, "ST%u differs", i);
    }
    const uint8_t *a = component(got, 2) ? got->xsave + XSAVE_AVX : zero;
    const uint8_t *b = component(want, 2) ? want->xsave + XSAVE_AVX : zero;
    if ((want->xcr0 & 4) && memcmp(a, b, XSAVE_AVX_LEN) != 0)
        conform_fail(c, "upper halves of YMM differ");
    conform_equal(c, load_le16(got->xsave), load_le16(want->xsave), "FCW");
    conform_equal(c, load_le32(got->xsave + 24), load_le32(want->xsave + 24), "MXCSR");
}

static void compare(struct conform *c, const struct x86_state *got, const struct x86_state *want)
{
    compare_fields(c, got, want);
    compare_segments(c, got, want);
    compare_vectors(c, got, want);
}

/* ---- reset ---- */

static void reset_state(struct conform *c)
{
    struct x86_state got, want;
    harness_run_time(c->h, false);
    for (unsigned i = 0; i < 2; i++) {
        memset(&got, 0xff, sizeof(got));
        x86_state_reset(&want, &c->h->cpu, i);
        c->h->ops->reset(c->h->vcpu[i]);
        c->h->ops->get_state(c->h->vcpu[i], &got);
        compare(c, &got, &want);
        conform_equal(c, got.tsc, 0, "TSC");
        conform_equal(c, got.lapic.timer_start_ns, 0, "timer");
    }
}

/* ---- random states in and out ---- */

static uint64_t bits(struct conform *c, uint64_t mask)
{
    return conform_random(c) & mask;
}

static uint64_t address(struct conform *c)
{
    return (uint64_t)((int64_t)(conform_random(c) << 16) >> 16); /* canonical */
}

static void random_registers(struct conform *c, struct x86_state *s)
{
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = conform_random(c);
    s->rflags = 2 | bits(c, FLAGS_STATUS | FLAG_DF | FLAG_IF | FLAG_AC | FLAG_ID);
    for (unsigned i = 0; i < 4; i++)
        s->dr[i] = address(c);
    s->dr[6] = 0xffff0ff0 | bits(c, 0x600f);
    s->dr[7] = 0x400 | bits(c, 0x3ff);
    s->cr2 = conform_random(c);
    s->star = conform_random(c);
    s->lstar = address(c);
    s->cstar = address(c);
    s->sfmask = bits(c, UINT32_MAX);
    s->kernel_gs_base = address(c);
    s->sysenter_cs = bits(c, 0xffff);
    s->sysenter_esp =
        bits(c, UINT32_MAX); /* AMD processors keep 32 bits of them outside of long mode's use */
    s->sysenter_eip = bits(c, UINT32_MAX);
    s->tsc_aux = bits(c, UINT32_MAX);
    s->pat = UINT64_C(0x0007010600070106);
    s->mtrr_def_type = 0xc06;
    for (unsigned i = 0; i < 11; i++)
        s->mtrr_fixed[i] = UINT64_C(0x0606060606060606);
    s->mtrr_base[2] = 0xc0000000 | 6;
    s->mtrr_mask[2] = 0xc0000000 | BIT(11);
    s->tsc_adjust = conform_random(c);
}

static void random_vectors(struct conform *c, struct x86_state *s)
{
    memset(s->xsave, 0, sizeof(s->xsave));
    store_le16(s->xsave, (uint16_t)(0x37f & ~bits(c, 0xc00)));
    store_le32(s->xsave + 24, 0x1f80 | (uint32_t)bits(c, 0x6000));
    for (unsigned i = 0; i < 8; i++) {
        store_le64(s->xsave + 32 + 16 * i, conform_random(c) | BIT(63));
        store_le16(s->xsave + 40 + 16 * i, (uint16_t)bits(c, 0x7fff));
    }
    for (unsigned i = 160; i < XSAVE_LEGACY; i += 8)
        store_le64(s->xsave + i, conform_random(c));
    if (s->xcr0 & 4)
        for (unsigned i = 0; i < XSAVE_AVX_LEN; i += 8)
            store_le64(s->xsave + XSAVE_AVX + i, conform_random(c));
    store_le64(s->xsave + XSTATE_BV, s->xcr0 | 3);
}

static void random_apic(struct conform *c, struct x86_state *s)
{
    struct x86_lapic *l = &s->lapic;
    l->tpr = (uint32_t)bits(c, 0xf0);
    s->cr8 = l->tpr >> 4;
    l->svr = 0x1ff;
    l->ldr = (uint32_t)bits(c, 0xff) << 24;
    l->irr[3] = (uint32_t)conform_random(c);
    l->isr[2] = (uint32_t)BIT(bits(c, 31));
    l->tmr[3] = (uint32_t)conform_random(c);
    l->lvt_lint0 = 0x10000 | (uint32_t)bits(c, 0xff);
    l->lvt_lint1 = 0x400;
    l->lvt_error = 0xfe;
    l->icr_high = (uint32_t)bits(c, 0xff) << 24;
    l->icr_low = (uint32_t)bits(c, 0xff);
    l->lvt_timer = 0x20000 | 0x77; /* periodic */
    l->timer_divide = (uint32_t)bits(c, 0xb);
    l->timer_initial = (uint32_t)conform_random(c) | 0x1000000;
}

static void random_state(struct conform *c, struct x86_state *s, unsigned mode)
{
    uint64_t clock = c->h->host.now(c->h->host.opaque);
    if (mode == 0)
        harness_state_real(c->h, s);
    else if (mode == 1)
        harness_state_protected(c->h, s, true);
    else
        harness_state_long(c->h, s, 0x40000);
    random_registers(c, s);
    random_vectors(c, s);
    random_apic(c, s);
    if (mode != 2)
        for (unsigned i = 0; i < 16; i++)
            s->gpr[i] = i < 8 ? (uint32_t)s->gpr[i] : 0;
    s->rip = 0x1234;
    s->tsc = conform_random(c) >> 1;
    s->clock_ns = clock;
    s->lapic.timer_start_ns = clock > 1000 ? clock - 1000 : 1;
    s->mp_state = conform_random(c) % 4 ? MP_RUNNING : MP_HALTED;
    s->nmi_pending = bits(c, 1);
    s->nmi_blocked = bits(c, 1);
}

/* Ticks (1 << shift nanoseconds) that one reading of the timer may differ from another by rounding. */
static void compare_timer(struct conform *c, const struct x86_state *got, const struct x86_state *want)
{
    int64_t apart = (int64_t)((got->clock_ns - got->lapic.timer_start_ns) -
                              (want->clock_ns - want->lapic.timer_start_ns));
    conform_equal(c, got->lapic.timer_initial, want->lapic.timer_initial, "timer's initial count");
    if (llabs(apart) > 1000 + 128)
        conform_fail(c, "the timer has moved by %lld ns", (long long)apart);
}

static void round_trip(struct conform *c, struct harness *to, unsigned mode)
{
    struct x86_state want, got;
    harness_run_time(c->h, false);
    harness_run_time(to, false);
    random_state(c, &want, mode);
    harness_set(c->h, 0, &want);
    memset(&got, 0xff, sizeof(got));
    c->h->ops->get_state(c->h->vcpu[0], &got);
    compare(c, &got, &want);
    conform_equal(c, got.tsc, want.tsc, "TSC");
    compare_timer(c, &got, &want);
    if (to == c->h)
        return;
    harness_set(to, 0, &got);
    memset(&got, 0xff, sizeof(got));
    to->ops->get_state(to->vcpu[0], &got);
    compare(c, &got, &want);
    conform_equal(c, got.tsc, want.tsc, "TSC");
}

static void round_trips(struct conform *c)
{
    for (unsigned i = 0; i < 60; i++)
        round_trip(c, c->h, i % 3);
}

static struct harness *open_other(struct conform *c, const char *engine)
{
    const struct harness_options options = {.engine = engine, .memory = c->h->memory->ram_size};
    struct harness *h = harness_open(&options);
    if (!h)
        exit(1);
    return h;
}

static void round_trips_across(struct conform *c)
{
    struct harness *other = open_other(c, c->other);
    for (unsigned i = 0; i < 60; i++)
        round_trip(c, other, i % 3);
    harness_close(other);
}

/* ---- what the guest does shows in the state ---- */

CODE(set_xcr0, "code32",
     "xor %ecx, %ecx; xor %edx, %edx; mov $3, %eax; xsetbv; mov $1, %al; out %al, $0xf4; 9: jmp 9b");

static void xsetbv(struct conform *c)
{
    struct x86_state s;
    conform_prepare(c, 0, set_xcr0, CODE_SIZE(set_xcr0), &s);
    s.xcr0 = 1;
    conform_set(c, 0, &s);
    conform_run(c, HARNESS_EXITED, 20000);
    c->h->ops->get_state(c->h->vcpu[0], &s);
    conform_equal(c, s.xcr0, 3, "XCR0");
}

/* ---- a program on the move ---- */

/*
 * Sums, flags, strings, the stack, x87, SSE and locked instructions over 64 KiB of data, all of it feeding
 * one hash in RBP. RCX counts the rounds.
 */
CODE(
    traveller, "code64",
    "cld; fninit; fldpi; fldln2\n"
    "1: imul $0x19660d, %rax, %rax; add $0x3c6ef35f, %rax; mov %rax, %rbx; shr $40, %rbx; and $0xfff8, %ebx\n"
    "mov %rbp, %rdx; rol $13, %rdx; adc %rax, %rdx; xor 0x100000(%rbx), %rdx; mov %rdx, 0x100000(%rbx)\n"
    "lock xadd %rdx, 0x110000; xor %rdx, %rbp; push %rbp; call 2f; pop %rdx; add %rdx, %rbp\n"
    "movq %rbp, %xmm1; pshufd $0x1b, %xmm1, %xmm2; paddq %xmm2, %xmm3; pxor %xmm3, %xmm1; movq %xmm1, %rdx\n"
    "add %rdx, %rbp; lea 0x100000(%rbx), %rsi; mov $0x120000, %edi; push %rcx; mov $5, %ecx; rep movsw; pop "
    "%rcx\n"
    "xor 0x120000, %rbp; fld %st(1); fmul %st(1), %st; fstpl 0x120010; xor 0x120010, %rbp\n"
    "bsf %rbp, %rdx; cmovz %rax, %rdx; xor %rdx, %rbp; pushf; pop %rdx; and $0xcd5, %edx; add %rdx, %rbp\n"
    "dec %rcx; jnz 1b; mov %rbp, 0x120020; 9: out %al, $0xf4; jmp 9b\n"
    "2: ror $7, %rbp; bswap %rbp; sbb $3, %rbp; ret");

#define HOPS_MIN   5u
#define HOPS_MAX   300u
#define DATA_SIZE  0x21000u
#define JOURNEY_NS INT64_C(100000000)

static void prepare_traveller(struct conform *c, struct x86_state *s, uint64_t rounds)
{
    static const uint8_t clean[DATA_SIZE];
    harness_write(c->h, AT_DATA, clean, sizeof(clean));
    conform_prepare_long(c, traveller, CODE_SIZE(traveller), s);
    s->gpr[R_RAX] = 12345;
    s->gpr[R_RCX] = rounds;
    harness_set(c->h, 0, s);
}

/* Runs for about so long; true when the guest is done. */
static bool run_for(struct harness *h, unsigned ms)
{
    return harness_run(h, ms) == HARNESS_EXITED;
}

/* Rounds that take so long; they have been run. */
static uint64_t long_journey(struct conform *c, int64_t long_ns)
{
    struct x86_state s;
    for (uint64_t rounds = 2000;; rounds *= 2) {
        struct timespec begin, end;
        prepare_traveller(c, &s, rounds);
        clock_gettime(CLOCK_MONOTONIC, &begin);
        conform_run(c, HARNESS_EXITED, 100000);
        clock_gettime(CLOCK_MONOTONIC, &end);
        int64_t ns = (end.tv_sec - begin.tv_sec) * INT64_C(1000000000) + end.tv_nsec - begin.tv_nsec;
        if (ns > long_ns || c->bad)
            return rounds;
    }
}

static void move_machine(struct harness *from, struct harness *to)
{
    struct x86_state s;
    harness_run_time(from, false);
    from->ops->get_state(from->vcpu[0], &s);
    uint64_t size = from->memory->ram_size;
    harness_write(to, 0, harness_peek(from, 0, size), size);
    harness_run_time(to, false);
    harness_set(to, 0, &s);
    harness_run_time(to, true);
}

/* One journey of so many rounds, to and fro; gives the number of moves. */
static unsigned journey(struct conform *c, struct harness *other, uint64_t rounds, const uint8_t *want)
{
    struct harness *stop[2] = {c->h, other};
    struct x86_state s;
    unsigned hops = 0;
    prepare_traveller(c, &s, rounds);
    while (!run_for(stop[hops % 2], hops < HOPS_MAX ? 1 + (unsigned)bits(c, 3) : 100000)) {
        if (hops == HOPS_MAX) {
            stop[hops % 2]->ops->get_state(stop[hops % 2]->vcpu[0], &s);
            conform_fail(c, "the program does not end: RIP 0x%llx, RCX 0x%llx, RFLAGS 0x%llx, activity %u",
                         (unsigned long long)s.rip, (unsigned long long)s.gpr[R_RCX],
                         (unsigned long long)s.rflags, s.mp_state);
            return hops;
        }
        move_machine(stop[hops % 2], stop[(hops + 1) % 2]);
        hops++;
    }
    if (memcmp(harness_peek(stop[hops % 2], AT_DATA, DATA_SIZE), want, DATA_SIZE) != 0)
        conform_fail(c, "another result after %u moves", hops);
    return hops;
}

/* A journey of too few moves, on a host that had better things to do, is made again, and longer. */
static void travel(struct conform *c, const char *engine)
{
    uint8_t *want = malloc(DATA_SIZE);
    struct harness *other = open_other(c, engine);
    unsigned hops = 0;
    for (unsigned turn = 0; hops < HOPS_MIN && turn < 5 && !c->bad; turn++) {
        uint64_t rounds = long_journey(c, JOURNEY_NS << turn);
        memcpy(want, harness_peek(c->h, AT_DATA, DATA_SIZE), DATA_SIZE);
        hops = journey(c, other, rounds, want);
    }
    printf("# moved %u times\n", hops);
    if (hops < HOPS_MIN)
        conform_fail(c, "the program was moved only %u times", hops);
    harness_close(other);
    free(want);
}

static void travel_within(struct conform *c)
{
    travel(c, c->engine);
}

static void travel_across(struct conform *c)
{
    travel(c, c->other);
}

/* ---- PAE paging's top entries ---- */

/*
 * They are in the processor from the load of CR3 on (SDM vol. 3 section 4.4.1): what memory has there later
 * counts with the next load only, wherever the processor is by then. AT_DATA says how far the guest may go.
 */
CODE(pae_guest, "code32",
     "mov %ebx, %cr3; out %al, $0xf4; 1: cmpl $0, 0x100000; je 1b; mov 0x40000000, %al; out %al, $0xf4;"
     "2: cmpl $1, 0x100000; je 2b; mov %ebx, %cr3; mov 0x40000000, %al; out %al, $0xf4; 9: jmp 9b");

#define PAE_PDPT   AT_TABLES
#define PAE_LOW    (AT_TABLES + 0x1000) /* maps the first 16 MiB */
#define PAE_FIRST  (AT_TABLES + 0x2000) /* maps AT_FIRST at 1 GiB */
#define PAE_SECOND (AT_TABLES + 0x3000) /* AT_SECOND */
#define AT_FIRST   0x400000u
#define AT_SECOND  0x600000u

static void put(struct harness *h, uint64_t at, uint64_t value)
{
    harness_write(h, at, &value, sizeof(value));
}

static void prepare_pae(struct conform *c)
{
    struct x86_state s;
    const uint64_t large = PTE_P | PTE_W | PTE_A | PTE_D | PTE_PS;
    conform_prepare(c, 0, pae_guest, CODE_SIZE(pae_guest), &s);
    for (unsigned i = 0; i < 8; i++)
        put(c->h, PAE_LOW + 8 * i, i * 2 * MIB | large);
    put(c->h, PAE_FIRST, AT_FIRST | large);
    put(c->h, PAE_SECOND, AT_SECOND | large);
    put(c->h, AT_FIRST, 0x0a);
    put(c->h, AT_SECOND, 0x0b);
    put(c->h, PAE_PDPT, PAE_LOW | PTE_P);
    put(c->h, PAE_PDPT + 8, PAE_FIRST | PTE_P);
    put(c->h, AT_DATA, 0);
    s.cr0 |= CR0_PG;
    s.cr4 |= CR4_PAE;
    s.cr3 = s.gpr[R_RBX] = PAE_PDPT;
    conform_set(c, 0, &s);
}

/* The guest goes on to `step`, and has this mapped. */
static void pae_step(struct conform *c, struct harness *h, uint64_t step, uint64_t want)
{
    put(h, AT_DATA, step);
    conform_equal(c, harness_run(h, 20000), HARNESS_EXITED, "end");
    conform_equal(c, h->exit_value & 0xff, want, "what is mapped");
}

/* `to`: where it goes on, which may be here. */
static void pae(struct conform *c, struct harness *to)
{
    struct x86_state s;
    prepare_pae(c);
    conform_run(c, HARNESS_EXITED, 20000);
    conform_equal(c, *(const uint64_t *)harness_peek(c->h, PAE_PDPT, 8), PAE_LOW | PTE_P,
                  "the first in memory");
    put(c->h, PAE_PDPT, PAE_LOW | PTE_P);
    put(c->h, PAE_PDPT + 8, PAE_SECOND | PTE_P);
    c->h->ops->get_state(c->h->vcpu[0], &s);
    conform_equal(c, s.pdpte_valid, true, "the entries are in the state");
    conform_equal(c, s.pdpte[1], PAE_FIRST | PTE_P, "the second");
    if (to != c->h)
        move_machine(c->h, to);
    pae_step(c, to, 1, 0x0a);
    pae_step(c, to, 2, 0x0b);
}

static void pae_here(struct conform *c)
{
    pae(c, c->h);
}

static void pae_moved(struct conform *c)
{
    struct harness *to = open_other(c, c->engine);
    pae(c, to);
    harness_close(to);
}

static void pae_across(struct conform *c)
{
    struct harness *to = open_other(c, c->other);
    pae(c, to);
    harness_close(to);
}

/* A state from before there were such: those in memory. */
static void pae_unknown(struct conform *c)
{
    struct x86_state s;
    prepare_pae(c);
    conform_run(c, HARNESS_EXITED, 20000);
    put(c->h, PAE_PDPT + 8, PAE_SECOND | PTE_P);
    c->h->ops->get_state(c->h->vcpu[0], &s);
    s.pdpte_valid = false;
    conform_set(c, 0, &s);
    pae_step(c, c->h, 1, 0x0b);
}

const struct conform_case conform_state_cases[] = {
    {"state after reset", 2, reset_state},
    {"random states in and out", 1, round_trips},
    {"random states to the other engine", 1, round_trips_across},
    {"XSETBV shows in the state", 1, xsetbv},
    {"PAE entries count as they were loaded", 1, pae_here},
    {"PAE entries in another machine", 1, pae_moved},
    {"PAE entries in the other engine", 1, pae_across},
    {"PAE entries that a state does not have", 1, pae_unknown},
    {"a program stopped at random points goes on in another machine", 1, travel_within},
    {"a program stopped at random points goes on in the other engine", 1, travel_across},
    {NULL, 0, NULL},
};
