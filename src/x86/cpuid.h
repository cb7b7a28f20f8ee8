/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPUID models: what a guest's processor says it is. A model is a table of leaves, made once per machine from
 * a name (v1, v2, v3: the x86-64 psABI levels; host: all that this host and both engines can do) and the
 * host's own CPUID.
 */
#ifndef X86_CPUID_H
#define X86_CPUID_H

#include <stdbool.h>
#include <stdint.h>

struct error;

struct cpuid_leaf {
    uint32_t function, index;
    bool indexed; /* index matters */
    uint32_t eax, ebx, ecx, edx;
};

#define CPUID_LEAF_MAX 64

struct cpuid_model {
    char name[16];
    struct cpuid_leaf leaf[CPUID_LEAF_MAX];
    unsigned count;
    unsigned cpu_count;
    uint64_t tsc_hz;
    uint64_t xcr0_mask;      /* bits of XCR0 that may be set */
    uint32_t xsave_features; /* CPUID 0xD.1 EAX: XSAVEOPT, XSAVEC, XGETBV1 */
    uint32_t xsave_size;     /* bytes, standard format, all of xcr0_mask */
    unsigned phys_bits;      /* guest physical address width */
};

/*
 * Builds the model `name` ("v1", "v2", "v3", "host"; NULL: the best of v1..v3 that the host can honour) for a
 * machine of `cpu_count` processors. False and *err when the name is unknown or the host lacks something that
 * the model promises (the message names the feature).
 */
bool cpuid_model_build(struct cpuid_model *model, const char *name, unsigned cpu_count, struct error **err);

/*
 * The answer to CPUID on vCPU `apic_id`. Fills in what depends on the vCPU (APIC id, topology) and on its
 * state: OSXSAVE from cr4, XSAVE sizes from xcr0 (0xD.0.EBX and 0xD.1.EBX). Out-of-range leaves answer as the
 * vendor's do: Intel's with the highest basic leaf, AMD's with zeros.
 */
void cpuid_model_query(const struct cpuid_model *model, uint32_t function, uint32_t index, uint32_t apic_id,
                       uint64_t cr4, uint64_t xcr0, uint32_t out[4]);

/* Whether a feature bit (see X86_FEATURE) is in the model. */
#define X86_FEATURE(leaf_, reg_, bit_) ((struct x86_feature){(leaf_), (reg_), (bit_)})
struct x86_feature {
    uint32_t leaf;
    uint8_t reg; /* 0..3: eax ebx ecx edx */
    uint8_t bit;
};
/* Names a sub-leaf other than 0 of a basic leaf in x86_feature.leaf. */
#define X86_SUBLEAF(leaf_, index_) ((leaf_) | (uint32_t)(index_) << 16)
bool cpuid_model_has(const struct cpuid_model *model, struct x86_feature feature);

/* The bits of a CPUID register that an engine can honour on this host. */
typedef uint32_t cpuid_offer_fn(void *opaque, uint32_t function, uint32_t index, unsigned reg);

/*
 * Takes out of a fresh model what `offered` lacks. False and *err when the lack breaks the model's promise:
 * the user instructions of its level. The rest (paging and interrupt features, immunities to speculation
 * flaws, the width of addresses) is what the host and its engine happen to have.
 */
bool cpuid_model_limit(struct cpuid_model *model, cpuid_offer_fn *offered, void *opaque, struct error **err);

/* Whether all of the model is offered; *err names what is not. */
bool cpuid_model_within(const struct cpuid_model *model, cpuid_offer_fn *offered, void *opaque,
                        struct error **err);

/* Whether the host's processor can run guests by itself: Intel's VMX or AMD's SVM. */
bool host_has_virtualization(void);

/* The host's TSC frequency in Hz: CPUID 0x15/0x16, the kernel's figure where readable, else measured once (10
 * ms). */
uint64_t host_tsc_hz(void);
/*
 * Before the first call of host_tsc_hz: the counter is thought to run at `hz`. When a short look (2 ms) finds
 * no more than HOST_TSC_TOLERANCE between them, that is the answer.
 */
void host_tsc_expect(uint64_t hz);
#define HOST_TSC_TOLERANCE(hz) ((hz) / 4000)

#endif
