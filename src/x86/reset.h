/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The state of a processor after power-on or RESET. */
#ifndef X86_RESET_H
#define X86_RESET_H

#include "x86/cpuid.h"
#include "x86/state.h"

/*
 * SDM vol. 3 table 10-1 and section 11.4.7.1, for processor `index` of a machine with this CPUID model: the
 * first one runs, the others wait for a SIPI. TSC and machine time are 0.
 */
void x86_state_reset(struct x86_state *s, const struct cpuid_model *model, unsigned index);

#endif
