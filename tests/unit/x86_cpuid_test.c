/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CPUID models: what they promise, that it is consistent in itself, and what instructions follow from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "x86/cpuid.h"
#include "x86/decode.h"
#include "x86/features.h"

enum { EAX, EBX, ECX, EDX };

static struct cpuid_model build(const char *name, unsigned cpus)
{
    struct cpuid_model m;
    struct error *err = NULL;
    if (!cpuid_model_build(&m, name, cpus, &err))
        fail_msg("%s", error_text(err));
    return m;
}

static void query(const struct cpuid_model *m, uint32_t function, uint32_t index, uint32_t out[4])
{
    cpuid_model_query(m, function, index, 3, CR4_OSXSAVE, m->xcr0_mask, out);
}

static bool offered(const struct cpuid_model *m, const void *code, size_t len)
{
    struct x86_insn insn;
    assert_int_equal(x86_decode(&insn, code, len, 64), DECODE_OK);
    return x86_insn_offered(m, &insn);
}
#define OFFERED(m, bytes) offered(m, bytes, sizeof(bytes) - 1)

static void test_names(void **state)
{
    struct cpuid_model m;
    struct error *err = NULL;
    assert_false(cpuid_model_build(&m, "v9", 1, &err));
    assert_non_null(strstr(error_text(err), "'v9'"));
    error_free(err);
    m = build(NULL, 2);
    assert_true(m.name[0] == 'v');
    assert_true(m.count < CPUID_LEAF_MAX);
    m = build("host", 32);
    assert_true(m.count < CPUID_LEAF_MAX);
}

static void test_levels_grow(void **state)
{
    struct cpuid_model v1 = build("v1", 1), v2 = build("v2", 1), host = build("host", 1);
    for (const struct x86_feature_rule *r = x86_feature_rules; r->name; r++) {
        if (cpuid_model_has(&v1, r->feature) && !cpuid_model_has(&v2, r->feature))
            fail_msg("v1 has %s, v2 not", r->name);
        if (cpuid_model_has(&v2, r->feature) && !cpuid_model_has(&host, r->feature))
            fail_msg("v2 has %s, host not", r->name);
    }
    assert_false(cpuid_model_has(&v1, X86_FEATURE(1, ECX, 13)));
    assert_true(cpuid_model_has(&v2, X86_FEATURE(1, ECX, 13)));
}

/* What an engine can't do must never be on offer. */
static void test_never_offered(void **state)
{
    const char *names[] = {"v1", "v2", "host"};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        struct cpuid_model m = build(names[i], 4);
        assert_false(cpuid_model_has(&m, X86_FEATURE(1, ECX, 5)));                   /* VMX */
        assert_false(cpuid_model_has(&m, X86_FEATURE(1, ECX, 3)));                   /* MONITOR */
        assert_false(cpuid_model_has(&m, X86_FEATURE(1, EDX, 1)));                   /* VME */
        assert_false(cpuid_model_has(&m, X86_FEATURE(7, EBX, 16)));                  /* AVX-512F */
        assert_false(cpuid_model_has(&m, X86_FEATURE(7, EBX, 11)));                  /* RTM */
        assert_false(cpuid_model_has(&m, X86_FEATURE(7, ECX, 3)));                   /* PKU */
        assert_false(cpuid_model_has(&m, X86_FEATURE(7, ECX, 16)));                  /* LA57 */
        assert_false(cpuid_model_has(&m, X86_FEATURE(7, ECX, 7)));                   /* CET_SS */
        assert_false(cpuid_model_has(&m, X86_FEATURE(0x80000001, ECX, 2)));          /* SVM */
        assert_false(cpuid_model_has(&m, X86_FEATURE(X86_SUBLEAF(0xd, 1), EAX, 3))); /* XSAVES */
        assert_true(cpuid_model_has(&m, X86_FEATURE(1, ECX, 31)));                   /* hypervisor */
        uint32_t r[4];
        query(&m, 0xa, 0, r);
        assert_int_equal(r[EAX] & 0xff, 0);
    }
}

static void test_topology(void **state)
{
    uint32_t r[4];
    for (unsigned cpus = 1; cpus <= 32; cpus++) {
        struct cpuid_model m = build("v1", cpus);
        query(&m, 1, 0, r);
        assert_int_equal(r[EBX] >> 24, 3);
        assert_int_equal(!!(r[EDX] & BIT(28)), cpus > 1);
        query(&m, 0xb, 0, r);
        assert_int_equal(r[EAX], 0);
        assert_int_equal(r[EBX], 1);
        assert_int_equal(r[ECX], 0x100);
        assert_int_equal(r[EDX], 3);
        query(&m, 0xb, 1, r);
        assert_true(1u << r[EAX] >= cpus && (cpus == 1 || 1u << r[EAX] < 2 * cpus));
        assert_int_equal(r[EBX], cpus);
        assert_int_equal(r[ECX], 0x201);
        query(&m, 0xb, 2, r);
        assert_int_equal(r[EBX], 0);
        assert_int_equal(r[ECX], 2);
    }
}

static void test_dynamic_bits(void **state)
{
    struct cpuid_model m = build("host", 1);
    uint32_t r[4];
    cpuid_model_query(&m, 1, 0, 0, 0, 1, r);
    assert_false(r[ECX] & BIT(27));
    cpuid_model_query(&m, 1, 0, 0, CR4_OSXSAVE, 1, r);
    assert_true(r[ECX] & BIT(27));
    if (!cpuid_model_has(&m, X86_FEATURE(1, ECX, 26)))
        return;
    cpuid_model_query(&m, 0xd, 0, 0, CR4_OSXSAVE, 3, r);
    assert_int_equal(r[EBX], 576);
    assert_int_equal(r[ECX], m.xsave_size);
    assert_int_equal(r[EAX], m.xcr0_mask);
    cpuid_model_query(&m, 0xd, 0, 0, CR4_OSXSAVE, m.xcr0_mask, r);
    assert_int_equal(r[EBX], m.xsave_size);
    cpuid_model_query(&m, 0xd, 5, 0, CR4_OSXSAVE, 3, r);
    assert_int_equal(r[EAX] | r[EBX] | r[ECX] | r[EDX], 0);
    assert_true(m.xsave_size <= X86_XSAVE_MAX);
}

static void test_hypervisor_and_time(void **state)
{
    struct cpuid_model m = build("v1", 1);
    uint32_t r[4];
    query(&m, 0x40000000, 0, r);
    assert_memory_equal(&r[EBX], "KVMKVMKVM\0\0", 12);
    query(&m, 0x40000010, 0, r);
    assert_int_equal(r[EAX], m.tsc_hz / 1000);
    query(&m, 0x15, 0, r);
    assert_true(r[EAX] && r[EBX] && (uint64_t)r[EBX] * (r[ECX] / 1000) <= UINT32_MAX);
    int64_t shown = (int64_t)((uint64_t)r[ECX] * r[EBX] / r[EAX]);
    int64_t off = shown - (int64_t)m.tsc_hz;
    assert_true(off * off < (int64_t)(m.tsc_hz / 1000000) * (int64_t)(m.tsc_hz / 1000000)); /* 1 ppm */
    assert_true(m.tsc_hz > 100000000 && m.tsc_hz < UINT64_C(10000000000));
}

/* A guest kernel must see a processor without the flaws whose mitigations are dear. */
static void test_not_affected(void **state)
{
    struct cpuid_model m = build("v1", 1);
    uint32_t r[4];
    query(&m, 0, 0, r);
    if (r[EBX] == 0x68747541) {
        assert_true(cpuid_model_has(&m, X86_FEATURE(0x80000021, EAX, 8)));  /* automatic IBRS */
        assert_true(cpuid_model_has(&m, X86_FEATURE(0x80000021, EAX, 29))); /* SRSO_NO */
        assert_true(cpuid_model_has(&m, X86_FEATURE(0x80000008, EBX, 26))); /* SSB_NO */
        query(&m, 0x80000001, 0, r);
        assert_int_equal(r[EAX], 0x00b00f21);
    } else {
        assert_true(cpuid_model_has(&m, X86_FEATURE(7, EDX, 29))); /* ARCH_CAPABILITIES */
    }
    query(&m, 0x80000008, 0, r);
    assert_int_equal(r[EAX] & 0xff, m.phys_bits);
}

static void test_instructions(void **state)
{
    struct cpuid_model v1 = build("v1", 1), v2 = build("v2", 1), host = build("host", 1);
    assert_true(OFFERED(&v1, "\x48\x01\xd8"));                /* add rax, rbx */
    assert_true(OFFERED(&v1, "\x0f\x58\xc1"));                /* addps */
    assert_true(OFFERED(&v1, "\x0f\x05"));                    /* syscall */
    assert_true(OFFERED(&v1, "\xf3\x0f\xbc\xc1"));            /* tzcnt */
    assert_true(OFFERED(&v1, "\xf3\x0f\xbd\xc1"));            /* lzcnt */
    assert_true(OFFERED(&v1, "\xf3\x0f\x1e\xfa"));            /* endbr64 */
    assert_true(OFFERED(&v1, "\x0f\x01\xc1"));                /* vmcall */
    assert_true(OFFERED(&v1, "\x0f\x01\xd9"));                /* vmmcall */
    assert_true(OFFERED(&v1, "\x0f\x01\xca"));                /* clac */
    assert_true(OFFERED(&v1, "\x0f\x01\xf8"));                /* swapgs */
    assert_true(OFFERED(&v1, "\x0f\xae\xf0"));                /* mfence */
    assert_true(OFFERED(&v1, "\xf3\x48\x0f\xae\xd0"));        /* wrfsbase rax */
    assert_false(OFFERED(&v1, "\xf3\x0f\xb8\xc1"));           /* popcnt */
    assert_true(OFFERED(&v2, "\xf3\x0f\xb8\xc1"));            /* popcnt */
    assert_false(OFFERED(&v1, "\x48\x0f\xc7\x09"));           /* cmpxchg16b [rcx] */
    assert_true(OFFERED(&v2, "\x48\x0f\xc7\x09"));            /* cmpxchg16b [rcx] */
    assert_false(OFFERED(&v1, "\x0f\xae\x20"));               /* xsave [rax] */
    assert_false(OFFERED(&v2, "\xc5\xf4\x58\xc2"));           /* vaddps ymm */
    assert_false(OFFERED(&host, "\x62\xf1\x74\x48\x58\xc2")); /* vaddps zmm */
    assert_false(OFFERED(&host, "\x0f\x01\xd6"));             /* xtest */
    assert_false(OFFERED(&host, "\x0f\x01\xef"));             /* wrpkru */
    assert_false(OFFERED(&host, "\x0f\x01\xc8"));             /* monitor */
    assert_false(OFFERED(&host, "\x0f\x01\xd8"));             /* vmrun */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),         cmocka_unit_test(test_levels_grow),
        cmocka_unit_test(test_never_offered), cmocka_unit_test(test_topology),
        cmocka_unit_test(test_dynamic_bits),  cmocka_unit_test(test_hypervisor_and_time),
        cmocka_unit_test(test_not_affected),  cmocka_unit_test(test_instructions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
