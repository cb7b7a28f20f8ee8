/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The story of a triple fault in words, for the log. Not gpr-only: it formats. */
#include <inttypes.h>
#include <stdio.h>

#include "engine/bt/seg.h"

void bt_why_shutdown(struct bt_cpu *cpu, const struct bt_exception *first, const struct bt_exception *second)
{
    bt_vec_save(cpu);
    snprintf(cpu->why, sizeof(cpu->why),
             "triple fault: vector %u (error 0x%" PRIx32 ") in delivery of vector %u (error 0x%" PRIx32
             "), rip %x:%" PRIx64 " rsp %x:%" PRIx64 " cpl %u rflags %" PRIx64 " cr0 %" PRIx64 " cr2 %" PRIx64
             " cr3 %" PRIx64 " cr4 %" PRIx64 " efer %" PRIx64 " idt %" PRIx64 "+%x",
             second->vector, second->error, first->vector, first->error, cpu->seg[SEG_CS].selector, cpu->rip,
             cpu->seg[SEG_SS].selector, cpu->gpr[R_RSP], cpu->cpl, bt_rflags(cpu), cpu->cr0, cpu->cr2,
             cpu->cr3, cpu->cr4, cpu->efer, cpu->idtr.base, cpu->idtr.limit);
}
