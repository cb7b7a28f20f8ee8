/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KVM's paravirtual clock: a page in guest memory that turns TSC values into nanoseconds of machine time, and
 * the wall clock at machine time 0. All processors share one pair of host TSC and machine time, so that their
 * clocks agree exactly (the "stable" flag). vCPU thread, or vCPU not running; the guest's vectors are saved
 * first.
 */
#ifndef BT_PVCLOCK_H
#define BT_PVCLOCK_H

#include "engine/bt/bt.h"

/* KVM's MSRs, old and new numbers. False: not one of them, or a value that is refused (#GP). */
bool bt_pvclock_rdmsr(struct bt_cpu *cpu, uint32_t msr, uint64_t *value);
bool bt_pvclock_wrmsr(struct bt_cpu *cpu, uint32_t msr, uint64_t value);

/* Writes the vCPU's clock page again, if it has one: after its TSC was moved. */
void bt_pvclock_publish(struct bt_cpu *cpu);

/* Guest time has stood still for `ticks` of the host's TSC. No vCPU is running. */
void bt_pvclock_skip(struct bt_engine *engine, uint64_t ticks);

#endif
