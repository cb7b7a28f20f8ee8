/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between struct bt_cpu and the neutral struct x86_state. The vCPU is not in run. */
#ifndef BT_CPU_STATE_H
#define BT_CPU_STATE_H

#include "engine/bt/bt.h"

void bt_cpu_get_state(struct bt_cpu *cpu, struct x86_state *out);
/* Checks, then takes over everything; false and *err with the vCPU unchanged. */
bool bt_cpu_set_state(struct bt_cpu *cpu, const struct x86_state *in, struct error **err);

#endif
