/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of processor features, and what instructions each CPUID bit stands for. */
#include "x86/features.h"

#include <Zydis/Zydis.h>

enum { EAX, EBX, ECX, EDX };

#define LEAF7_1 X86_SUBLEAF(7, 1)
#define LEAFD_1 X86_SUBLEAF(0xd, 1)

#define F_CX8      X86_FEATURE(1, EDX, 8)
#define F_SEP      X86_FEATURE(1, EDX, 11)
#define F_CMOV     X86_FEATURE(1, EDX, 15)
#define F_MMX      X86_FEATURE(1, EDX, 23)
#define F_FXSR     X86_FEATURE(1, EDX, 24)
#define F_SSE      X86_FEATURE(1, EDX, 25)
#define F_SSE2     X86_FEATURE(1, EDX, 26)
#define F_CLFLUSH  X86_FEATURE(1, EDX, 19)
#define F_SSE3     X86_FEATURE(1, ECX, 0)
#define F_PCLMUL   X86_FEATURE(1, ECX, 1)
#define F_SSSE3    X86_FEATURE(1, ECX, 9)
#define F_FMA      X86_FEATURE(1, ECX, 12)
#define F_CX16     X86_FEATURE(1, ECX, 13)
#define F_SSE41    X86_FEATURE(1, ECX, 19)
#define F_SSE42    X86_FEATURE(1, ECX, 20)
#define F_MOVBE    X86_FEATURE(1, ECX, 22)
#define F_POPCNT   X86_FEATURE(1, ECX, 23)
#define F_AES      X86_FEATURE(1, ECX, 25)
#define F_XSAVE    X86_FEATURE(1, ECX, 26)
#define F_AVX      X86_FEATURE(1, ECX, 28)
#define F_F16C     X86_FEATURE(1, ECX, 29)
#define F_RDRAND   X86_FEATURE(1, ECX, 30)
#define F_FSGSBASE X86_FEATURE(7, EBX, 0)
#define F_BMI1     X86_FEATURE(7, EBX, 3)
#define F_AVX2     X86_FEATURE(7, EBX, 5)
#define F_BMI2     X86_FEATURE(7, EBX, 8)
#define F_INVPCID  X86_FEATURE(7, EBX, 10)
#define F_RDSEED   X86_FEATURE(7, EBX, 18)
#define F_ADX      X86_FEATURE(7, EBX, 19)
#define F_SMAP     X86_FEATURE(7, EBX, 20)
#define F_CLFLUSHO X86_FEATURE(7, EBX, 23)
#define F_CLWB     X86_FEATURE(7, EBX, 24)
#define F_SHA      X86_FEATURE(7, EBX, 29)
#define F_GFNI     X86_FEATURE(7, ECX, 8)
#define F_VAES     X86_FEATURE(7, ECX, 9)
#define F_VPCLMUL  X86_FEATURE(7, ECX, 10)
#define F_RDPID    X86_FEATURE(7, ECX, 22)
#define F_AVX_VNNI X86_FEATURE(LEAF7_1, EAX, 4)
#define F_XSAVEOPT X86_FEATURE(LEAFD_1, EAX, 0)
#define F_XSAVEC   X86_FEATURE(LEAFD_1, EAX, 1)
#define F_LAHF     X86_FEATURE(0x80000001, ECX, 0)
#define F_LZCNT    X86_FEATURE(0x80000001, ECX, 5)
#define F_SSE4A    X86_FEATURE(0x80000001, ECX, 6)
#define F_RDTSCP   X86_FEATURE(0x80000001, EDX, 27)

#define OURS(name, feature, levels)                                                                          \
    {                                                                                                        \
        name, feature, false, levels, 0                                                                      \
    }
#define HOST(name, feature, levels)                                                                          \
    {                                                                                                        \
        name, feature, true, levels, 0                                                                       \
    }
#define HOST_OPTIONAL(name, feature, levels)                                                                 \
    {                                                                                                        \
        name, feature, true, 0, levels                                                                       \
    }

const struct x86_feature_rule x86_feature_rules[] = {
    HOST("fpu", X86_FEATURE(1, EDX, 0), LEVEL_FROM_V1),
    OURS("de", X86_FEATURE(1, EDX, 2), LEVEL_FROM_V1),
    OURS("pse", X86_FEATURE(1, EDX, 3), LEVEL_FROM_V1),
    OURS("tsc", X86_FEATURE(1, EDX, 4), LEVEL_FROM_V1),
    OURS("msr", X86_FEATURE(1, EDX, 5), LEVEL_FROM_V1),
    OURS("pae", X86_FEATURE(1, EDX, 6), LEVEL_FROM_V1),
    OURS("mce", X86_FEATURE(1, EDX, 7), LEVEL_FROM_V1),
    HOST("cx8", F_CX8, LEVEL_FROM_V1),
    OURS("apic", X86_FEATURE(1, EDX, 9), LEVEL_FROM_V1),
    OURS("sep", F_SEP, LEVEL_FROM_V1),
    OURS("mtrr", X86_FEATURE(1, EDX, 12), LEVEL_FROM_V1),
    OURS("pge", X86_FEATURE(1, EDX, 13), LEVEL_FROM_V1),
    OURS("mca", X86_FEATURE(1, EDX, 14), LEVEL_FROM_V1),
    HOST("cmov", F_CMOV, LEVEL_FROM_V1),
    OURS("pat", X86_FEATURE(1, EDX, 16), LEVEL_FROM_V1),
    OURS("pse36", X86_FEATURE(1, EDX, 17), LEVEL_FROM_V1),
    HOST("clflush", F_CLFLUSH, LEVEL_FROM_V1),
    HOST("mmx", F_MMX, LEVEL_FROM_V1),
    HOST("fxsr", F_FXSR, LEVEL_FROM_V1),
    HOST("sse", F_SSE, LEVEL_FROM_V1),
    HOST("sse2", F_SSE2, LEVEL_FROM_V1),
    OURS("ss", X86_FEATURE(1, EDX, 27), LEVEL_FROM_V1),
    HOST("pni", F_SSE3, LEVEL_FROM_V2),
    HOST_OPTIONAL("pclmulqdq", F_PCLMUL, LEVEL_FROM_V2),
    HOST("ssse3", F_SSSE3, LEVEL_FROM_V2),
    HOST("fma", F_FMA, LEVEL_FROM_V3),
    HOST("cx16", F_CX16, LEVEL_FROM_V2),
    OURS("pcid", X86_FEATURE(1, ECX, 17), LEVEL_FROM_V1),
    HOST("sse4_1", F_SSE41, LEVEL_FROM_V2),
    HOST("sse4_2", F_SSE42, LEVEL_FROM_V2),
    OURS("x2apic", X86_FEATURE(1, ECX, 21), LEVEL_FROM_V1),
    HOST("movbe", F_MOVBE, LEVEL_FROM_V3),
    HOST("popcnt", F_POPCNT, LEVEL_FROM_V2),
    OURS("tsc_deadline_timer", X86_FEATURE(1, ECX, 24), LEVEL_FROM_V1),
    HOST_OPTIONAL("aes", F_AES, LEVEL_FROM_V2),
    HOST("xsave", F_XSAVE, LEVEL_FROM_V3),
    HOST("avx", F_AVX, LEVEL_FROM_V3),
    HOST("f16c", F_F16C, LEVEL_FROM_V3),
    OURS("rdrand", F_RDRAND, LEVEL_FROM_V1),
    OURS("hypervisor", X86_FEATURE(1, ECX, 31), LEVEL_FROM_V1),

    OURS("fsgsbase", F_FSGSBASE, LEVEL_FROM_V1),
    OURS("tsc_adjust", X86_FEATURE(7, EBX, 1), LEVEL_FROM_V1),
    HOST("bmi1", F_BMI1, LEVEL_FROM_V3),
    HOST("avx2", F_AVX2, LEVEL_FROM_V3),
    /* x87 data pointers and selectors are not kept: no code address of the host may show in them. */
    OURS("fdp_excptn_only", X86_FEATURE(7, EBX, 6), LEVEL_FROM_V1),
    OURS("smep", X86_FEATURE(7, EBX, 7), LEVEL_FROM_V1),
    HOST("bmi2", F_BMI2, LEVEL_FROM_V3),
    OURS("erms", X86_FEATURE(7, EBX, 9), LEVEL_FROM_V1),
    OURS("invpcid", F_INVPCID, LEVEL_FROM_V1),
    OURS("zero_fcs_fds", X86_FEATURE(7, EBX, 13), LEVEL_FROM_V1),
    OURS("rdseed", F_RDSEED, LEVEL_FROM_V1),
    HOST_OPTIONAL("adx", F_ADX, LEVEL_FROM_V3),
    OURS("smap", F_SMAP, LEVEL_FROM_V1),
    HOST_OPTIONAL("clflushopt", F_CLFLUSHO, LEVEL_FROM_V3),
    HOST_OPTIONAL("clwb", F_CLWB, LEVEL_FROM_V3),
    HOST_OPTIONAL("sha_ni", F_SHA, LEVEL_FROM_V3),
    OURS("umip", X86_FEATURE(7, ECX, 2), LEVEL_FROM_V1),
    HOST_OPTIONAL("gfni", F_GFNI, LEVEL_FROM_V3),
    HOST_OPTIONAL("vaes", F_VAES, LEVEL_FROM_V3),
    HOST_OPTIONAL("vpclmulqdq", F_VPCLMUL, LEVEL_FROM_V3),
    OURS("rdpid", F_RDPID, LEVEL_FROM_V3),
    OURS("fsrm", X86_FEATURE(7, EDX, 4), LEVEL_FROM_V1),
    HOST_OPTIONAL("avx_vnni", F_AVX_VNNI, LEVEL_HOST),

    HOST_OPTIONAL("xsaveopt", F_XSAVEOPT, LEVEL_FROM_V3),
    HOST_OPTIONAL("xsavec", F_XSAVEC, LEVEL_FROM_V3),
    HOST_OPTIONAL("xgetbv1", X86_FEATURE(LEAFD_1, EAX, 2), LEVEL_FROM_V3),

    HOST("lahf_lm", F_LAHF, LEVEL_FROM_V2),
    HOST("abm", F_LZCNT, LEVEL_FROM_V3),
    HOST_OPTIONAL("sse4a", F_SSE4A, LEVEL_HOST),
    HOST_OPTIONAL("misalignsse", X86_FEATURE(0x80000001, ECX, 7), LEVEL_HOST),
    HOST_OPTIONAL("3dnowprefetch", X86_FEATURE(0x80000001, ECX, 8), LEVEL_FROM_V3),
    OURS("syscall", X86_FEATURE(0x80000001, EDX, 11), LEVEL_FROM_V1),
    OURS("nx", X86_FEATURE(0x80000001, EDX, 20), LEVEL_FROM_V1),
    OURS("pdpe1gb", X86_FEATURE(0x80000001, EDX, 26), LEVEL_FROM_V1),
    OURS("rdtscp", F_RDTSCP, LEVEL_FROM_V1),
    HOST("lm", X86_FEATURE(0x80000001, EDX, 29), LEVEL_FROM_V1),
    OURS("nonstop_tsc", X86_FEATURE(0x80000007, EDX, 8), LEVEL_FROM_V1),
    {0},
};

enum verdict { NEVER, ALWAYS, IF_FEATURE };

struct set_rule {
    uint8_t verdict;
    struct x86_feature feature;
};

#define WHEN(set, f) [ZYDIS_ISA_SET_##set] = {IF_FEATURE, f}
#define PLAIN(set)   [ZYDIS_ISA_SET_##set] = {ALWAYS, {0}}

/* What is not named here is refused. */
static const struct set_rule set_rules[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
    WHEN(ADOX_ADCX, F_ADX),
    WHEN(AES, F_AES),
    WHEN(AVX, F_AVX),
    WHEN(AVX2, F_AVX2),
    WHEN(AVX2GATHER, F_AVX2),
    WHEN(AVXAES, F_AES),
    WHEN(AVX_GFNI, F_GFNI),
    WHEN(AVX_VNNI, F_AVX_VNNI),
    WHEN(BMI1, F_BMI1),
    WHEN(BMI2, F_BMI2),
    WHEN(CLFLUSHOPT, F_CLFLUSHO),
    WHEN(CLFSH, F_CLFLUSH),
    WHEN(CLWB, F_CLWB),
    WHEN(CMOV, F_CMOV),
    WHEN(CMPXCHG16B, F_CX16),
    WHEN(F16C, F_F16C),
    WHEN(FCMOV, F_CMOV),
    WHEN(FMA, F_FMA),
    WHEN(FXSAVE, F_FXSR),
    WHEN(FXSAVE64, F_FXSR),
    WHEN(GFNI, F_GFNI),
    WHEN(INVPCID, F_INVPCID),
    WHEN(MOVBE, F_MOVBE),
    WHEN(PCLMULQDQ, F_PCLMUL),
    WHEN(PENTIUMMMX, F_MMX),
    WHEN(POPCNT, F_POPCNT),
    WHEN(RDPID, F_RDPID),
    WHEN(RDRAND, F_RDRAND),
    WHEN(RDSEED, F_RDSEED),
    WHEN(RDTSCP, F_RDTSCP),
    WHEN(RDWRFSGS, F_FSGSBASE),
    WHEN(SHA, F_SHA),
    WHEN(SMAP, F_SMAP),
    WHEN(SSE, F_SSE),
    WHEN(SSE2, F_SSE2),
    WHEN(SSE2MMX, F_SSE2),
    WHEN(SSE3, F_SSE3),
    WHEN(SSE3X87, F_SSE3),
    WHEN(SSE4, F_SSE41),
    WHEN(SSE42, F_SSE42),
    WHEN(SSE4A, F_SSE4A),
    WHEN(SSEMXCSR, F_SSE),
    WHEN(SSSE3, F_SSSE3),
    WHEN(SSSE3MMX, F_SSSE3),
    WHEN(VAES, F_VAES),
    WHEN(VPCLMULQDQ, F_VPCLMUL),
    WHEN(XSAVE, F_XSAVE),
    WHEN(XSAVEC, F_XSAVEC),
    WHEN(XSAVEOPT, F_XSAVEOPT),
    PLAIN(AMD),
    PLAIN(CLDEMOTE), /* a no-operation where it is not known */
    PLAIN(FAT_NOP),
    PLAIN(I186),
    PLAIN(I286PROTECTED),
    PLAIN(I286REAL),
    PLAIN(I386),
    PLAIN(I486),
    PLAIN(I486REAL),
    PLAIN(I86),
    PLAIN(LONGMODE),
    PLAIN(LZCNT), /* BSR where it is not known: what runs is up to the host */
    PLAIN(MPX),   /* no-operations while MPX is off */
    PLAIN(PAUSE),
    PLAIN(PENTIUMREAL),
    PLAIN(PPRO),
    PLAIN(PREFETCHWT1),
    PLAIN(PREFETCH_NOP),
    PLAIN(RDPMC),
    PLAIN(SSE_PREFETCH),
    PLAIN(X87),
};

/* Single instructions whose set is refused or conditional, but which every processor executes. */
static bool always_offered(const struct x86_insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_TZCNT: /* BSF where it is not known; compilers rely on that */
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_RDSSPD:
    case ZYDIS_MNEMONIC_RDSSPQ:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_VMCALL: /* hypercalls */
    case ZYDIS_MNEMONIC_VMMCALL:
        return true;
    default:
        return false;
    }
}

bool x86_insn_offered(const struct cpuid_model *model, const struct x86_insn *insn)
{
    if (insn->encoding == ENC_EVEX || insn->encoding == ENC_XOP)
        return false;
    if (always_offered(insn))
        return true;
    if (insn->isa_set == ZYDIS_ISA_SET_LAHF)
        return insn->mode != 64 || cpuid_model_has(model, F_LAHF);
    if (insn->isa_set > ZYDIS_ISA_SET_MAX_VALUE)
        return false;
    const struct set_rule *rule = &set_rules[insn->isa_set];
    return rule->verdict == ALWAYS || (rule->verdict == IF_FEATURE && cpuid_model_has(model, rule->feature));
}
