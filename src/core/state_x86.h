/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a processor's state (x86/state.h) is saved: the same under every engine. */
#ifndef CORE_STATE_X86_H
#define CORE_STATE_X86_H

#include "core/state.h"

/* Of a struct x86_state. What loading accepts has values in range; whether they go together is the engine's
 * to check. */
extern const struct state_desc x86_cpu_state;

#endif
