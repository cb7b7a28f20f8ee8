/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Status flags between RFLAGS and cpu->status, which holds what AX holds after `lahf; seto al`: bits 15..8
 * are SF:ZF:0:AF:0:PF:1:CF, bit 0 is OF. Pure functions and plain stores; gpr-only.
 */
#ifndef BT_FLAGS_H
#define BT_FLAGS_H

#include "engine/bt/bt.h"

/* What lives in cpu->sysflags. */
#define BT_SYSFLAGS                                                                                          \
    (FLAG_TF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID)

#define BT_STATUS_AH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF)

static inline uint32_t bt_status_pack(uint64_t rflags)
{
    return (uint32_t)((rflags & BT_STATUS_AH) << 8 | 0x200 | ((rflags & FLAG_OF) != 0));
}

static inline uint64_t bt_status_unpack(uint32_t status)
{
    return ((status >> 8) & BT_STATUS_AH) | ((status & 1) ? FLAG_OF : 0);
}

/* Status flags of the processor, as RFLAGS bits. */
static inline uint64_t bt_status(const struct bt_cpu *cpu)
{
    return bt_status_unpack(cpu->status);
}

static inline void bt_set_status(struct bt_cpu *cpu, uint64_t rflags)
{
    cpu->status = bt_status_pack(rflags);
}

/* bt_set_rflags without bt_mode_update: for callers that change more and update once. */
static inline void bt_flags_store(struct bt_cpu *cpu, uint64_t rflags)
{
    bt_set_status(cpu, rflags);
    cpu->df = (uint32_t)(rflags & FLAG_DF);
    cpu->iflag = (uint32_t)(rflags & FLAG_IF);
    cpu->sysflags = rflags & BT_SYSFLAGS;
}

static inline unsigned bt_iopl(const struct bt_cpu *cpu)
{
    return (cpu->sysflags >> 12) & 3;
}

#endif
