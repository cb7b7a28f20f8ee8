/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counters and the trace of exits, for who wants to see what a machine does. */
#ifndef BT_WATCH_H
#define BT_WATCH_H

#include "engine/bt/bt.h"

/* See engine_ops.stats. */
unsigned bt_stats(struct vcpu *v, struct engine_stat *out, unsigned room);

/*
 * A line in config.trace for the exit that was just taken: guest TSC, processor, CPL, RIP, reason, and what
 * belongs to it. Saves the vectors. On the vCPU's thread.
 */
void bt_trace_exit(struct bt_cpu *cpu);

#endif
