/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPUID models. The vendor is the host's, as user instructions run on the host. Family and model are those of
 * a recent server processor of that vendor (AMD Zen 5, Intel Sapphire Rapids), with the bits that say "not
 * affected" for the speculation flaws and with automatic or enhanced IBRS, so that a guest kernel picks
 * neither page-table isolation nor retpolines. For Intel the rest of that statement is IA32_ARCH_CAPABILITIES
 * (the engines' MSR code).
 */
#include "x86/cpuid.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "x86/features.h"

enum { EAX, EBX, ECX, EDX };

#define SIGNATURE_AMD      0x00b00f21u /* family 1Ah model 02h stepping 1 */
#define SIGNATURE_INTEL    0x000806f8u /* family 6 model 8Fh stepping 8 */
#define MAX_BASIC          0x16u
#define MAX_EXTENDED_AMD   0x80000021u
#define MAX_EXTENDED_INTEL 0x80000008u
#define HYPERVISOR_BASE    0x40000000u
#define HYPERVISOR_MAX     0x40000010u
#define APIC_TIMER_KHZ     1000000u /* the local APIC's timer counts nanoseconds, as KVM's does */
#define PHYS_BITS          46u
#define LINEAR_BITS        48u

/* XSAVE areas (SDM vol. 1 section 13.4): legacy region and header, then AVX; the same on every processor. */
#define XSAVE_LEGACY_SIZE 576u
#define XSAVE_AVX_OFFSET  576u
#define XSAVE_AVX_SIZE    256u
#define XCR0_X87          BIT(0)
#define XCR0_SSE          BIT(1)
#define XCR0_AVX          BIT(2)

struct host_cpu {
    uint32_t max_basic, max_extended;
    char vendor[13];
    bool amd_like;
    uint64_t xcr0;
};

static const char *const level_names[] = {"v1", "v2", "v3", "host"};

static void host_cpuid(const struct host_cpu *host, uint32_t function, uint32_t index, uint32_t out[4])
{
    memset(out, 0, 16);
    if (function >= 0x80000000 ? function <= host->max_extended : function <= host->max_basic)
        __cpuid_count(function, index, out[EAX], out[EBX], out[ECX], out[EDX]);
}

static void host_probe(struct host_cpu *host)
{
    uint32_t r[4];
    __cpuid(0, host->max_basic, r[0], r[2], r[1]);
    memcpy(host->vendor, r, 12);
    host->vendor[12] = 0;
    __cpuid(0x80000000, host->max_extended, r[0], r[1], r[2]);
    host->amd_like = !strcmp(host->vendor, "AuthenticAMD") || !strcmp(host->vendor, "HygonGenuine");
    host->xcr0 = 0;
    host_cpuid(host, 1, 0, r);
    if (r[ECX] & BIT(27)) {
        uint32_t lo, hi;
        __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
        host->xcr0 = (uint64_t)hi << 32 | lo;
    }
}

bool host_has_virtualization(void)
{
    struct host_cpu host;
    uint32_t basic[4], extended[4];
    host_probe(&host);
    host_cpuid(&host, 1, 0, basic);
    host_cpuid(&host, 0x80000001, 0, extended);
    return basic[ECX] & BIT(5) || extended[ECX] & BIT(2);
}

/* LZCNT executes as BSR where it does not exist. Some clouds hide the CPUID bit of processors that have it.
 */
static bool host_has_lzcnt(void)
{
    uint32_t out;
    __asm__("lzcnt %1, %0" : "=r"(out) : "r"(1u) : "cc");
    return out == 31;
}

static bool is_feature(struct x86_feature f, uint32_t leaf, unsigned reg, unsigned bit)
{
    return f.leaf == leaf && f.reg == reg && f.bit == bit;
}

/* Instructions that touch AVX state: usable only where the host's kernel has enabled that. */
static bool needs_ymm(struct x86_feature f)
{
    return is_feature(f, 1, ECX, 28) || is_feature(f, 1, ECX, 12) || is_feature(f, 1, ECX, 29) ||
           is_feature(f, 7, EBX, 5) || is_feature(f, 7, ECX, 9) || is_feature(f, 7, ECX, 10);
}

static bool host_has(const struct host_cpu *host, struct x86_feature f)
{
    if (is_feature(f, 0x80000001, ECX, 5))
        return host_has_lzcnt();
    uint64_t ymm = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    if (needs_ymm(f) && (host->xcr0 & ymm) != ymm)
        return false;
    if (is_feature(f, 1, ECX, 26) && !host->xcr0)
        return false;
    uint32_t r[4];
    bool extended = f.leaf >= 0x80000000;
    host_cpuid(host, extended ? f.leaf : f.leaf & 0xffff, extended ? 0 : f.leaf >> 16, r);
    return r[f.reg] & BIT(f.bit);
}

/* The leaf (made when it is missing), or NULL when the table is full, which a new entry in this file would
 * show. */
static struct cpuid_leaf *leaf_get(struct cpuid_model *m, uint32_t function, uint32_t index, bool indexed)
{
    for (unsigned i = 0; i < m->count; i++)
        if (m->leaf[i].function == function && (!indexed || m->leaf[i].index == index))
            return &m->leaf[i];
    if (m->count == CPUID_LEAF_MAX)
        return NULL;
    struct cpuid_leaf *l = &m->leaf[m->count++];
    *l = (struct cpuid_leaf){.function = function, .index = index, .indexed = indexed};
    return l;
}

static void leaf_set(struct cpuid_model *m, uint32_t function, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    struct cpuid_leaf *l = leaf_get(m, function, 0, false);
    if (l)
        l->eax = a, l->ebx = b, l->ecx = c, l->edx = d;
}

static void leaf_set_indexed(struct cpuid_model *m, uint32_t function, uint32_t index, uint32_t a, uint32_t b,
                             uint32_t c, uint32_t d)
{
    struct cpuid_leaf *l = leaf_get(m, function, index, true);
    if (l)
        l->eax = a, l->ebx = b, l->ecx = c, l->edx = d;
}

static uint32_t *leaf_reg(struct cpuid_leaf *l, unsigned reg)
{
    return reg == EAX ? &l->eax : reg == EBX ? &l->ebx : reg == ECX ? &l->ecx : &l->edx;
}

static const struct cpuid_leaf *leaf_find(const struct cpuid_model *m, uint32_t function, uint32_t index)
{
    for (unsigned i = 0; i < m->count; i++) {
        const struct cpuid_leaf *l = &m->leaf[i];
        if (l->function == function && (!l->indexed || l->index == index))
            return l;
    }
    return NULL;
}

static void set_feature(struct cpuid_model *m, struct x86_feature f)
{
    bool extended = f.leaf >= 0x80000000;
    uint32_t function = extended ? f.leaf : f.leaf & 0xffff;
    bool indexed = function == 7 || function == 0xd;
    struct cpuid_leaf *l = leaf_get(m, function, extended ? 0 : f.leaf >> 16, indexed);
    if (l)
        *leaf_reg(l, f.reg) |= (uint32_t)BIT(f.bit);
}

/* Sets the features of `level`. False and *err when the host lacks a promised one. */
static bool add_features(struct cpuid_model *m, const struct host_cpu *host, unsigned level,
                         struct error **err)
{
    for (const struct x86_feature_rule *r = x86_feature_rules; r->name; r++) {
        if (!((r->required | r->optional) & level))
            continue;
        bool have = !r->native || host_has(host, r->feature);
        if (!have && (r->required & level) && level != LEVEL_HOST)
            return error_set(err, 0, "CPU model %s: this host's processor has no %s", m->name, r->name),
                   false;
        if (have)
            set_feature(m, r->feature);
    }
    return true;
}

/* Without AVX the instructions that build upon it are no use, and XSAVE has nothing to add. */
static void settle_xsave(struct cpuid_model *m)
{
    bool xsave = cpuid_model_has(m, X86_FEATURE(1, ECX, 26));
    bool avx = xsave && cpuid_model_has(m, X86_FEATURE(1, ECX, 28));
    m->xcr0_mask = avx ? XCR0_X87 | XCR0_SSE | XCR0_AVX : xsave ? XCR0_X87 | XCR0_SSE : XCR0_X87;
    m->xsave_size = avx ? XSAVE_AVX_OFFSET + XSAVE_AVX_SIZE : XSAVE_LEGACY_SIZE;
    uint32_t optional = 0;
    const struct cpuid_leaf *sub = leaf_find(m, 0xd, 1);
    if (sub)
        optional = sub->eax;
    m->xsave_features = xsave ? optional : 0;
    if (xsave) {
        /* EBX of both and the compacted size of sub-leaf 1 depend on XCR0: cpuid_model_query. */
        leaf_set_indexed(m, 0xd, 0, (uint32_t)m->xcr0_mask, m->xsave_size, m->xsave_size, 0);
        leaf_set_indexed(m, 0xd, 1, optional, 0, 0, 0);
    }
    if (avx)
        leaf_set_indexed(m, 0xd, 2, XSAVE_AVX_SIZE, XSAVE_AVX_OFFSET, 0, 0);
    else if (leaf_find(m, 0xd, 2))
        leaf_set_indexed(m, 0xd, 2, 0, 0, 0, 0);
}

/* Number of APIC id bits that count to n processors. */
static unsigned id_bits(unsigned n)
{
    unsigned bits = 0;
    while ((1u << bits) < n)
        bits++;
    return bits;
}

/* Deterministic cache parameters (leaf 4 and 8000001Dh have one format): EBX and ECX from geometry. */
static void add_cache(struct cpuid_model *m, uint32_t function, uint32_t index, unsigned type, unsigned level,
                      unsigned ways, unsigned sets, unsigned shared_by, uint32_t cores_field)
{
    uint32_t a = type | level << 5 | 1u << 8 | (shared_by - 1) << 14 | cores_field;
    leaf_set_indexed(m, function, index, a, 63u | (ways - 1) << 22, sets - 1, 0);
}

static void add_caches(struct cpuid_model *m, const struct host_cpu *host)
{
    uint32_t function = host->amd_like ? 0x8000001d : 4;
    uint32_t cores = host->amd_like ? 0 : ((1u << id_bits(m->cpu_count)) - 1) << 26;
    unsigned all = 1u << id_bits(m->cpu_count);
    enum { DATA = 1, CODE = 2, UNIFIED = 3 };
    add_cache(m, function, 0, DATA, 1, 12, 64, 1, cores);         /* 48 KiB */
    add_cache(m, function, 1, CODE, 1, 8, 64, 1, cores);          /* 32 KiB */
    add_cache(m, function, 2, UNIFIED, 2, 16, 1024, 1, cores);    /* 1 MiB */
    add_cache(m, function, 3, UNIFIED, 3, 16, 32768, all, cores); /* 32 MiB */
    leaf_set_indexed(m, function, 4, 0, 0, 0, 0);
    if (!host->amd_like) {
        leaf_set(m, 2, 0x00feff01, 0, 0, 0); /* "see leaf 4" */
        return;
    }
    leaf_set(m, 0x80000005, 0xff40ff40, 0xff40ff40, 48u << 24 | 12u << 16 | 1u << 8 | 64,
             32u << 24 | 8u << 16 | 1u << 8 | 64);
    leaf_set(m, 0x80000006, 0, 0x60006000, 1024u << 16 | 8u << 12 | 1u << 8 | 64,
             64u << 18 | 8u << 12 | 1u << 8 | 64);
}

static void set_brand(struct cpuid_model *m, const struct host_cpu *host, unsigned level)
{
    char brand[48] = {0};
    if (level == LEVEL_HOST && host->max_extended >= 0x80000004) {
        for (unsigned i = 0; i < 3; i++) {
            uint32_t r[4];
            host_cpuid(host, 0x80000002 + i, 0, r);
            memcpy(brand + 16 * i, r, 16);
        }
        brand[47] = 0;
    } else {
        snprintf(brand, sizeof(brand), "Ruche x86-64-%s Processor", m->name);
    }
    for (unsigned i = 0; i < 3; i++) {
        const char *p = brand + 16 * i;
        leaf_set(m, 0x80000002 + i, load_le32(p), load_le32(p + 4), load_le32(p + 8), load_le32(p + 12));
    }
}

/* The fraction next to hz / 1 GHz whose parts are small: guests multiply them in 32 bits. */
static void tsc_ratio(uint64_t hz, uint32_t *numerator, uint32_t *denominator)
{
    const uint64_t limit = 4294; /* times 1,000,000 kHz still fits 32 bits */
    uint64_t a = hz, b = (uint64_t)APIC_TIMER_KHZ * 1000;
    uint64_t n0 = 0, d0 = 1, n1 = 1, d1 = 0;
    while (b) {
        uint64_t q = a / b, r = a % b;
        uint64_t n = q * n1 + n0, d = q * d1 + d0;
        if (n > limit || d > UINT32_MAX)
            break;
        n0 = n1, d0 = d1, n1 = n, d1 = d;
        a = b, b = r;
    }
    *numerator = (uint32_t)n1;
    *denominator = (uint32_t)d1;
}

static void add_time(struct cpuid_model *m)
{
    uint32_t n, d, mhz = (uint32_t)((m->tsc_hz + 500000) / 1000000);
    tsc_ratio(m->tsc_hz, &n, &d);
    if (n && d)
        leaf_set(m, 0x15, d, n, APIC_TIMER_KHZ * 1000u, 0);
    leaf_set(m, 0x16, mhz, mhz, 100, 0);
    leaf_set(m, 6, (uint32_t)BIT(2), 0, 0, 0); /* ARAT */
}

static void add_hypervisor(struct cpuid_model *m)
{
    const char signature[13] = "KVMKVMKVM\0\0";
    leaf_set(m, HYPERVISOR_BASE, HYPERVISOR_MAX, load_le32(signature), load_le32(signature + 4),
             load_le32(signature + 8));
    /* NOP_IO_DELAY, CLOCKSOURCE2, PV_SEND_IPI, CLOCKSOURCE_STABLE */
    leaf_set(m, HYPERVISOR_BASE + 1, (uint32_t)(BIT(1) | BIT(3) | BIT(11) | BIT(24)), 0, 0, 0);
    leaf_set(m, HYPERVISOR_MAX, (uint32_t)(m->tsc_hz / 1000), APIC_TIMER_KHZ, 0, 0);
}

static void or_leaf(struct cpuid_model *m, uint32_t function, unsigned reg, uint32_t bits)
{
    struct cpuid_leaf *l = leaf_get(m, function, 0, function == 7);
    if (l)
        *leaf_reg(l, reg) |= bits;
}

/* AMD: copies of leaf 1's bits, topology, and "not affected" (APM vol. 3 appendix E). */
static void add_amd(struct cpuid_model *m)
{
    const uint32_t copied = 0x0183f3ff; /* bits that 80000001h.EDX repeats from 1.EDX */
    const struct cpuid_leaf *one = leaf_find(m, 1, 0);
    or_leaf(m, 0x80000001, EDX, (one ? one->edx & copied : 0) | (uint32_t)BIT(22)); /* MMXEXT: part of SSE */
    or_leaf(m, 0x80000001, ECX, (uint32_t)BIT(22));                                 /* TOPOEXT */
    or_leaf(m, 0x80000001, EAX, SIGNATURE_AMD);
    /* x87 error pointers do not leak (they are never kept), IBPB (of returns, too), SSB_NO, BTC_NO */
    or_leaf(m, 0x80000008, EBX, (uint32_t)(BIT(2) | BIT(12) | BIT(26) | BIT(29) | BIT(30)));
    or_leaf(m, 0x80000008, ECX, (m->cpu_count - 1) | id_bits(m->cpu_count) << 12);
    leaf_set(m, 0x8000001e, 0, 0, 0, 0);
    /*
     * EAX: no nested data breakpoints, LFENCE serialises, null selectors clear the base, automatic IBRS,
     * SRSO_NO. ECX: TSA_SQ_NO, TSA_L1_NO.
     */
    leaf_set(m, 0x80000021, (uint32_t)(BIT(0) | BIT(2) | BIT(6) | BIT(8) | BIT(29)), 0,
             (uint32_t)(BIT(1) | BIT(2)), 0);
}

/* Intel: IBRS/IBPB and the ARCH_CAPABILITIES MSR that says what the processor is not affected by. */
static void add_intel(struct cpuid_model *m)
{
    or_leaf(m, 7, EDX, (uint32_t)(BIT(26) | BIT(29)));
}

static void add_identity(struct cpuid_model *m, const struct host_cpu *host, unsigned level)
{
    const char *v = host->vendor;
    uint32_t b = load_le32(v), d = load_le32(v + 4), c = load_le32(v + 8);
    leaf_set(m, 0, MAX_BASIC, b, c, d);
    struct cpuid_leaf *one = leaf_get(m, 1, 0, false);
    if (one) {
        one->eax = host->amd_like ? SIGNATURE_AMD : SIGNATURE_INTEL;
        one->ebx = 8u << 8 | (1u << id_bits(m->cpu_count)) << 16; /* CLFLUSH line, logical processors */
        if (m->cpu_count > 1)
            one->edx |= (uint32_t)BIT(28); /* HTT */
    }
    if (host->amd_like)
        leaf_set(m, 0x80000000, MAX_EXTENDED_AMD, b, c, d);
    else
        leaf_set(m, 0x80000000, MAX_EXTENDED_INTEL, 0, 0, 0);
    m->phys_bits = PHYS_BITS;
    or_leaf(m, 0x80000008, EAX, PHYS_BITS | LINEAR_BITS << 8);
    set_brand(m, host, level);
}

static bool build_level(struct cpuid_model *m, const struct host_cpu *host, unsigned number,
                        unsigned cpu_count, struct error **err)
{
    unsigned level = 1u << number;
    memset(m, 0, sizeof(*m));
    snprintf(m->name, sizeof(m->name), "%s", level_names[number]);
    m->cpu_count = cpu_count;
    m->tsc_hz = host_tsc_hz();
    leaf_get(m, 0, 0, false); /* leaves in their order, basic ones first */
    leaf_get(m, 1, 0, false);
    if (!add_features(m, host, level, err))
        return false;
    struct cpuid_leaf *seven = leaf_get(m, 7, 0, true);
    if (seven)
        seven->eax = leaf_find(m, 7, 1) ? 1 : 0;
    settle_xsave(m);
    add_identity(m, host, level);
    add_caches(m, host);
    add_time(m);
    add_hypervisor(m);
    if (host->amd_like)
        add_amd(m);
    else
        add_intel(m);
    return true;
}

/* Registers whose bits are features, each by itself. */
static const struct feature_reg {
    uint32_t function, index;
    unsigned reg;
} feature_regs[] = {
    {1, 0, ECX},          {1, 0, EDX},          {7, 0, EBX},          {7, 0, ECX},
    {7, 0, EDX},          {7, 1, EAX},          {0xd, 1, EAX},        {0x80000001, 0, ECX},
    {0x80000001, 0, EDX}, {0x80000007, 0, EDX}, {0x80000008, 0, EBX}, {0x80000021, 0, EAX},
    {0x80000021, 0, ECX}, {0x40000001, 0, EAX},
};

/* The feature of a bit, with a name; NULL where the table has none. */
static const struct x86_feature_rule *rule_of(const struct feature_reg *r, unsigned bit)
{
    uint32_t leaf = r->function >= 0x80000000 ? r->function : X86_SUBLEAF(r->function, r->index);
    for (const struct x86_feature_rule *rule = x86_feature_rules; rule->name; rule++)
        if (is_feature(rule->feature, leaf, r->reg, bit))
            return rule;
    return NULL;
}

static bool not_offered(const struct cpuid_model *m, const struct feature_reg *r, unsigned bit,
                        struct error **err)
{
    static const char *const regs[] = {"EAX", "EBX", "ECX", "EDX"};
    const struct x86_feature_rule *rule = rule_of(r, bit);
    if (rule)
        error_set(err, 0, "CPU model %s: the engine has no %s here", m->name, rule->name);
    else
        error_set(err, 0, "CPU model %s: the engine has no bit %u of CPUID %x.%s here", m->name, bit,
                  r->function, regs[r->reg]);
    return false;
}

static uint32_t *feature_bits(struct cpuid_model *m, const struct feature_reg *r)
{
    for (unsigned i = 0; i < m->count; i++)
        if (m->leaf[i].function == r->function && (!m->leaf[i].indexed || m->leaf[i].index == r->index))
            return leaf_reg(&m->leaf[i], r->reg);
    return NULL;
}

static unsigned level_of(const struct cpuid_model *m)
{
    for (unsigned i = 0; i < ARRAY_SIZE(level_names); i++)
        if (!strcmp(m->name, level_names[i]))
            return 1u << i;
    return 0;
}

bool cpuid_model_limit(struct cpuid_model *m, cpuid_offer_fn *offered, void *opaque, struct error **err)
{
    unsigned level = level_of(m) & ~LEVEL_HOST;
    for (unsigned i = 0; i < ARRAY_SIZE(feature_regs); i++) {
        const struct feature_reg *r = &feature_regs[i];
        uint32_t *bits = feature_bits(m, r);
        if (!bits)
            continue;
        uint32_t lacking = *bits & ~offered(opaque, r->function, r->index, r->reg);
        for (unsigned bit = 0; bit < 32; bit++) {
            const struct x86_feature_rule *rule = lacking & BIT(bit) ? rule_of(r, bit) : NULL;
            if (rule && rule->native && (rule->required & level))
                return not_offered(m, r, bit, err);
        }
        *bits &= ~lacking;
    }
    unsigned host_bits = offered(opaque, 0x80000008, 0, EAX) & 0xff;
    uint32_t *widths = feature_bits(m, &(struct feature_reg){0x80000008, 0, EAX});
    if (widths && host_bits < m->phys_bits) {
        *widths = (*widths & ~0xffu) | host_bits;
        m->phys_bits = host_bits;
    }
    settle_xsave(m);
    return true;
}

bool cpuid_model_within(const struct cpuid_model *m, cpuid_offer_fn *offered, void *opaque,
                        struct error **err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(feature_regs); i++) {
        const struct feature_reg *r = &feature_regs[i];
        const struct cpuid_leaf *l = leaf_find(m, r->function, r->index);
        if (!l)
            continue;
        uint32_t bits = r->reg == EAX ? l->eax : r->reg == EBX ? l->ebx : r->reg == ECX ? l->ecx : l->edx;
        uint32_t lacking = bits & ~offered(opaque, r->function, r->index, r->reg);
        if (lacking)
            return not_offered(m, r, (unsigned)__builtin_ctz(lacking), err);
    }
    if (m->phys_bits <= (offered(opaque, 0x80000008, 0, EAX) & 0xff))
        return true;
    error_set(err, 0, "CPU model %s: this host addresses no more than %u bits, the model %u", m->name,
              offered(opaque, 0x80000008, 0, EAX) & 0xff, m->phys_bits);
    return false;
}

bool cpuid_model_build(struct cpuid_model *model, const char *name, unsigned cpu_count, struct error **err)
{
    struct host_cpu host;
    host_probe(&host);
    if (name) {
        for (unsigned i = 0; i < ARRAY_SIZE(level_names); i++)
            if (!strcmp(name, level_names[i]))
                return build_level(model, &host, i, cpu_count, err);
        return error_set(err, 0, "unknown CPU model '%s' (known: v1, v2, v3, host)", name), false;
    }
    if (build_level(model, &host, 2, cpu_count, NULL) || build_level(model, &host, 1, cpu_count, NULL))
        return true;
    return build_level(model, &host, 0, cpu_count, err);
}

bool cpuid_model_has(const struct cpuid_model *model, struct x86_feature f)
{
    bool extended = f.leaf >= 0x80000000;
    const struct cpuid_leaf *l =
        leaf_find(model, extended ? f.leaf : f.leaf & 0xffff, extended ? 0 : f.leaf >> 16);
    if (!l)
        return false;
    uint32_t v = f.reg == EAX ? l->eax : f.reg == EBX ? l->ebx : f.reg == ECX ? l->ecx : l->edx;
    return v & BIT(f.bit);
}

static uint32_t xsave_size(uint64_t xcr0)
{
    return xcr0 & XCR0_AVX ? XSAVE_AVX_OFFSET + XSAVE_AVX_SIZE : XSAVE_LEGACY_SIZE;
}

/* Leaf 0Bh: one thread a core, all cores in one package. */
static void topology(const struct cpuid_model *m, uint32_t index, uint32_t apic_id, uint32_t out[4])
{
    memset(out, 0, 16);
    out[ECX] = index & 0xff;
    out[EDX] = apic_id;
    if (index == 0) {
        out[EBX] = 1;
        out[ECX] |= 1u << 8;
    } else if (index == 1) {
        out[EAX] = id_bits(m->cpu_count);
        out[EBX] = m->cpu_count;
        out[ECX] |= 2u << 8;
    }
}

static uint32_t clamp_function(const struct cpuid_model *m, uint32_t function)
{
    bool extended = function >= 0x80000000;
    if (function >= HYPERVISOR_BASE && function < HYPERVISOR_BASE + 0x100)
        return function;
    const struct cpuid_leaf *top = leaf_find(m, extended ? 0x80000000 : 0, 0);
    if (!top || function <= top->eax)
        return function;
    return MAX_BASIC;
}

void cpuid_model_query(const struct cpuid_model *model, uint32_t function, uint32_t index, uint32_t apic_id,
                       uint64_t cr4, uint64_t xcr0, uint32_t out[4])
{
    bool amd_like = leaf_find(model, 0x80000021, 0);
    if (!amd_like)
        function = clamp_function(model, function);
    if (function == 0xb) {
        topology(model, index, apic_id, out);
        return;
    }
    memset(out, 0, 16);
    const struct cpuid_leaf *l = leaf_find(model, function, index);
    if (!l)
        return;
    out[EAX] = l->eax;
    out[EBX] = l->ebx;
    out[ECX] = l->ecx;
    out[EDX] = l->edx;
    if (function == 1) {
        out[EBX] |= apic_id << 24;
        if (cr4 & CR4_OSXSAVE)
            out[ECX] |= (uint32_t)BIT(27);
    } else if (function == 0xd && index <= 1) {
        out[EBX] = xsave_size(xcr0); /* with AVX as the only extended state both formats are as large */
    } else if (function == 0x8000001e) {
        out[EAX] = apic_id;
        out[EBX] = apic_id & 0xff;
    }
}
