/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's x87, MMX, SSE and AVX state: its saved form in cpu->xsave (SDM vol. 1 section 13.4). gpr-only.
 */
#ifndef BT_VEC_H
#define BT_VEC_H

#include "engine/bt/bt.h"

#define XSTATE_X87 BIT(0)
#define XSTATE_SSE BIT(1)
#define XSTATE_AVX BIT(2)

/* Offsets in the area. */
enum {
    XS_FCW = 0,
    XS_FSW = 2,
    XS_FTW = 4, /* abridged: a bit for each register that is not empty */
    XS_FOP = 6,
    XS_FIP = 8,
    XS_FDP = 16,
    XS_MXCSR = 24,
    XS_MXCSR_MASK = 28,
    XS_ST = 32, /* 8 of 16 bytes: ST(0), ST(1)... */
    XS_XMM = 160,
    XS_LEGACY_END = 512,
    XS_BV = 512,
    XS_COMP_BV = 520,
    XS_AVX = 576, /* upper halves of YMM, 16 bytes each */
    XS_END = 832,
};

#define MXCSR_DEFAULT 0x1f80u
#define FCW_DEFAULT   0x37fu
#define FSW_ES        0x80u /* an unmasked exception waits */

/* Bits of MXCSR that may be set without #GP. */
uint32_t bt_mxcsr_mask(void);

/*
 * Makes cpu->xsave, filled from outside (a saved machine), something that can be loaded: unknown bits are
 * cleared. To be called before the vCPU runs on it; the vectors are not live.
 */
void bt_vec_sanitize(struct bt_cpu *cpu);

/* Forgets the live vectors: cpu->xsave, as it was when they were loaded, is the guest's state again. */
void bt_vec_discard(struct bt_cpu *cpu);

/* Components that the host keeps for the guest: the model's XCR0, and x87 and SSE always. */
static inline uint64_t bt_vec_components(const struct bt_cpu *cpu)
{
    return cpu->engine->config.cpu->xcr0_mask | XSTATE_X87 | XSTATE_SSE;
}

/* ---- op_vector.c: for the table in op_fpu.c; all heavy ---- */
bt_op_fn bt_op_gather, bt_op_maskmov_load, bt_op_maskmov_store, bt_op_maskmovdqu, bt_op_maskmovq;

#endif
