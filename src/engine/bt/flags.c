/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RFLAGS as a whole, put together from where its parts live. */
#include "engine/bt/flags.h"

uint64_t bt_rflags(const struct bt_cpu *cpu)
{
    return (cpu->sysflags & BT_SYSFLAGS) | bt_status(cpu) | cpu->df | cpu->iflag | 2;
}

void bt_set_rflags(struct bt_cpu *cpu, uint64_t rflags)
{
    uint64_t changed = (rflags ^ cpu->sysflags) & (FLAG_AC | FLAG_VM);
    bt_flags_store(cpu, rflags);
    if (changed)
        bt_mode_update(cpu);
}
