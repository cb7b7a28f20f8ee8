/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What becomes of a machine that does nothing. */
#ifndef BT_IDLE_H
#define BT_IDLE_H

#include "engine/bt/bt.h"

/*
 * A vCPU is about to halt: every few seconds, whether the machine has done next to nothing since the last
 * time. Then its translations go. On the vCPU's thread, vectors saved, engine->lock not held.
 */
void bt_idle_check(struct bt_engine *e);

#endif
