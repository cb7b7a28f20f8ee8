/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The few pieces of host code between C and translated code. Made once per engine at the start of the code
 * cache.
 *
 * Callouts: translated code does `call callout[n]` with arguments in T0 and T1 and status flags saved or
 * dead. The C function gets (cpu, t0, t1), sees and may change cpu->gpr. It returns what T0 becomes; 0 leaves
 * translated code for run.c with the cpu->exit_reason that it has set.
 */
#ifndef BT_THUNK_H
#define BT_THUNK_H

#include "engine/bt/cache.h"

enum bt_callout {
    CALLOUT_ACCESS, /* soft TLB miss: T0 linear address, T1 descriptor; gives the host address. See
                       struct bt_thunks: access */
    CALLOUT_PRE,  /* checked access: T0 offset in the segment, T1 descriptor; gives the address of the bounced
                     data */
    CALLOUT_POST, /* after CALLOUT_PRE and a writing instruction: writes back; T1 page offset of the next
                     instruction */
    CALLOUT_COUNT
};

typedef uint64_t bt_callout_fn(struct bt_cpu *cpu, uint64_t t0, uint64_t t1);

/* An access as told to a callout, in T1. */
#define DESC(off_, size_, write_, seg_)                                                                      \
    ((uint32_t)(off_) | (uint32_t)(size_) << 12 | (uint32_t)(write_) << 24 | (uint32_t)(seg_) << 25)
#define DESC_READ   ((uint32_t)1 << 28) /* for CALLOUT_PRE: the instruction reads the operand */
#define DESC_MERGED ((uint32_t)1 << 31) /* several accesses at once */
#define DESC_X87    ((uint32_t)1 << 30) /* the instruction reports pending x87 exceptions first */
#define DESC_ALIGNED                                                                                         \
    ((uint32_t)1 << 29) /* an address that is no multiple of the size is #GP, before anything else */
#define DESC_OFFSET(d_) ((unsigned)(d_)&0xfff)           /* page offset of the instruction */
#define DESC_SIZE(d_)   ((unsigned)((d_) >> 12) & 0xfff) /* bytes */
#define DESC_WRITE(d_)  (((d_) >> 24) & 1)
#define DESC_SEG(d_)    ((unsigned)((d_) >> 25) & 7)

_Static_assert(CALLOUT_COUNT == BT_CALLOUTS, "struct bt_thunks has one entry each");

/* Of where in the cache each of them is. */
uint32_t bt_thunks_hash(const struct bt_cache *cache, const struct bt_thunks *thunks);
void bt_thunks_make(struct bt_cache *cache, struct bt_thunks *thunks);
/*
 * Jumps to RIP in T0 by the jump cache; gives the jumps to be patched for a miss. T1 and the flags are lost.
 */
void bt_emit_jump(struct emitter *e, uint8_t *miss[2]);
void bt_patch_misses(struct emitter *e, uint8_t *miss[2], const uint8_t *target);

#endif
