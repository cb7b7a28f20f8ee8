/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The processor features that Ruche can offer, in one table: which CPUID bit announces each, whether the host
 * must have it, and which models carry it. cpuid.c builds models from it; translators ask it what is #UD.
 */
#ifndef X86_FEATURES_H
#define X86_FEATURES_H

#include <stdbool.h>

#include "x86/cpuid.h"
#include "x86/decode.h"

/* Bits for the models of cpuid.h, in their order. */
enum x86_level { LEVEL_V1 = 1, LEVEL_V2 = 2, LEVEL_V3 = 4, LEVEL_HOST = 8 };
#define LEVEL_FROM_V1 (LEVEL_V1 | LEVEL_V2 | LEVEL_V3 | LEVEL_HOST)
#define LEVEL_FROM_V2 (LEVEL_V2 | LEVEL_V3 | LEVEL_HOST)
#define LEVEL_FROM_V3 (LEVEL_V3 | LEVEL_HOST)

struct x86_feature_rule {
    const char *name;
    struct x86_feature feature;
    bool
        native; /* user instructions that the host executes: the host must have it; else engines provide it */
    unsigned required; /* models (enum x86_level) that promise it */
    unsigned optional; /* models that carry it where the host has it */
};

/* Ends with a rule without name. */
extern const struct x86_feature_rule x86_feature_rules[];

/*
 * Whether the model offers this instruction; if not it is #UD. Instructions that are no-operations or older
 * instructions on processors without the feature (TZCNT, LZCNT, prefetches, ENDBR) always are. Privilege and
 * control register enables are not looked at. Thread-safe.
 */
bool x86_insn_offered(const struct cpuid_model *model, const struct x86_insn *insn);

#endif
