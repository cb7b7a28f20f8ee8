/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The processor in a saved machine's description. It is saved as the table of CPUID leaves that the guest has
 * seen, so a restored guest sees the same one, whatever the host's processor is.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "vmm/save_config.h"
#include "x86/features.h"
#include "x86/state.h"

#define TSC_HZ_MIN 1000000
#define TSC_HZ_MAX 1000000000000

json_t *save_describe_cpu(const struct cpuid_model *cpu)
{
    json_t *leaves = json_array();

    for (unsigned i = 0; i < cpu->count; i++) {
        const struct cpuid_leaf *l = &cpu->leaf[i];
        json_array_append_new(leaves, json_pack("[I, I, b, I, I, I, I]", (json_int_t)l->function,
                                                (json_int_t)l->index, l->indexed, (json_int_t)l->eax,
                                                (json_int_t)l->ebx, (json_int_t)l->ecx, (json_int_t)l->edx));
    }
    return json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:i, s:o}", "model", cpu->name, "processors",
                     (int)cpu->cpu_count, "tsc-hz", (json_int_t)cpu->tsc_hz, "xcr0",
                     (json_int_t)cpu->xcr0_mask, "xsave-features", (json_int_t)cpu->xsave_features,
                     "xsave-size", (json_int_t)cpu->xsave_size, "address-bits", (int)cpu->phys_bits, "cpuid",
                     leaves);
}

static bool wrong(struct error **err, const char *what)
{
    error_set(err, EINVAL, "the processor of the saved machine is not one that this Ruche reads: %s", what);
    return false;
}

static bool read_leaf(json_t *o, struct cpuid_leaf *l, struct error **err)
{
    json_int_t v[6];
    int indexed;
    json_error_t e;

    if (json_unpack_ex(o, &e, 0, "[I, I, b, I, I, I, I !]", &v[0], &v[1], &indexed, &v[2], &v[3], &v[4],
                       &v[5]) < 0)
        return wrong(err, e.text);
    for (unsigned i = 0; i < ARRAY_SIZE(v); i++)
        if (v[i] < 0 || v[i] > UINT32_MAX)
            return wrong(err, "a number with more than 32 bits");
    *l = (struct cpuid_leaf){.function = (uint32_t)v[0],
                             .index = (uint32_t)v[1],
                             .indexed = indexed,
                             .eax = (uint32_t)v[2],
                             .ebx = (uint32_t)v[3],
                             .ecx = (uint32_t)v[4],
                             .edx = (uint32_t)v[5]};
    return true;
}

bool saved_read_cpu(json_t *o, struct cpuid_model *cpu, struct error **err)
{
    const char *model;
    int count, bits;
    json_int_t hz, xcr0, xsave_features, xsave_size;
    json_t *leaves;
    json_error_t e;

    if (json_unpack_ex(o, &e, 0, "{s:s, s:i, s:I, s:I, s:I, s:I, s:i, s:o !}", "model", &model, "processors",
                       &count, "tsc-hz", &hz, "xcr0", &xcr0, "xsave-features", &xsave_features, "xsave-size",
                       &xsave_size, "address-bits", &bits, "cpuid", &leaves) < 0)
        return wrong(err, e.text);
    if (count < 1 || hz < TSC_HZ_MIN || hz > TSC_HZ_MAX || xcr0 < 0 || xsave_features < 0 ||
        xsave_features > UINT32_MAX || xsave_size < 512 || xsave_size > X86_XSAVE_MAX || bits < 36 ||
        bits > 52)
        return wrong(err, "a number out of range");
    if (!json_is_array(leaves) || json_array_size(leaves) > CPUID_LEAF_MAX)
        return wrong(err, "cpuid");
    *cpu = (struct cpuid_model){.count = (unsigned)json_array_size(leaves),
                                .cpu_count = (unsigned)count,
                                .tsc_hz = (uint64_t)hz,
                                .xcr0_mask = (uint64_t)xcr0,
                                .xsave_features = (uint32_t)xsave_features,
                                .xsave_size = (uint32_t)xsave_size,
                                .phys_bits = (unsigned)bits};
    snprintf(cpu->name, sizeof(cpu->name), "%s", model);
    for (unsigned i = 0; i < cpu->count; i++)
        if (!read_leaf(json_array_get(leaves, i), &cpu->leaf[i], err))
            return false;
    return true;
}

/* Sub-leaves of 0Dh say where the parts of the XSAVE area lie: processors need not agree on it. */
static bool same_layout(const struct cpuid_model *saved, const struct cpuid_model *ours)
{
    for (uint32_t part = 2; part < 63; part++) {
        uint32_t a[4], b[4];
        if (!(saved->xcr0_mask & BIT(part)))
            continue;
        cpuid_model_query(saved, 0xd, part, 0, 0, 1, a);
        cpuid_model_query(ours, 0xd, part, 0, 0, 1, b);
        if (a[0] != b[0] || a[1] != b[1])
            return false;
    }
    return true;
}

static bool check_tsc(const struct cpuid_model *saved, const struct cpuid_model *ours, struct error **err)
{
    uint64_t a = saved->tsc_hz, b = ours->tsc_hz;

    if ((a > b ? a - b : b - a) <= HOST_TSC_TOLERANCE(a)) /* guests' own corrections reach that far */
        return true;
    error_set(err, ENOTSUP,
              "the saved machine's time stamp counter runs at %llu kHz, this host's at %llu kHz",
              (unsigned long long)(a / 1000), (unsigned long long)(b / 1000));
    return false;
}

bool saved_check_cpu(const struct cpuid_model *cpu, struct error **err)
{
    struct cpuid_model ours;

    host_tsc_expect(cpu->tsc_hz);
    if (!cpuid_model_build(&ours, "host", cpu->cpu_count, err))
        return false;
    for (const struct x86_feature_rule *r = x86_feature_rules; r->name; r++) {
        if (cpuid_model_has(cpu, r->feature) && !cpuid_model_has(&ours, r->feature)) {
            error_set(err, ENOTSUP, "the saved machine's processor has %s, and this host's has not", r->name);
            return false;
        }
    }
    if ((cpu->xcr0_mask & ~ours.xcr0_mask) || (cpu->xsave_features & ~ours.xsave_features) ||
        !same_layout(cpu, &ours)) {
        error_set(err, ENOTSUP,
                  "the saved machine's processor has vector registers that this host cannot give it");
        return false;
    }
    if (cpu->phys_bits > ours.phys_bits) {
        error_set(err, ENOTSUP, "the saved machine's processor has %u address bits; this Ruche offers %u",
                  cpu->phys_bits, ours.phys_bits);
        return false;
    }
    return check_tsc(cpu, &ours, err);
}
