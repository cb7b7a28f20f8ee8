/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vCPU loop, for engine.c. */
#ifndef BT_RUN_H
#define BT_RUN_H

#include "engine/bt/bt.h"

enum bt_run_result {
    BT_RUN_STOPPED,  /* BT_REQ_STOP */
    BT_RUN_SHUTDOWN, /* triple fault; cpu->why */
    BT_RUN_FAILED,   /* the engine cannot go on; cpu->why */
};

/* Runs on the calling thread, whose GS base is `cpu`, until one of these. */
enum bt_run_result bt_run_loop(struct bt_cpu *cpu);

/* RESET, or INIT when `init`: SDM vol. 3 table 10-1. The BSP of a RESET runs, others wait for SIPI. */
void bt_cpu_reset(struct bt_cpu *cpu, bool init);

/* ---- fault.c: faults of guest instructions that run natively ---- */
/* Installs the handlers (once a process) and this thread's alternate stack. */
bool bt_faults_enter(struct bt_cpu *cpu, struct error **err);
void bt_faults_leave(struct bt_cpu *cpu);

#endif
