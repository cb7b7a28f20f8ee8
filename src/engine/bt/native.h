/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Native execution of user code that computes. Guest and host share an instruction set, and what a 64-bit
 * program does between two system calls needs nothing of the translator but an address space in which its
 * pages are where it expects them. So a program that keeps computing goes on in a process of its own
 * (native_child.h), which has the guest's pages mapped (native_space.h), until it makes a system call,
 * faults, or is wanted for an interrupt; then its registers come back and the translator goes on exactly
 * where it stopped. Whatever native code cannot do, it does by faulting, and the translator does it instead.
 *
 * A round costs some 20 to 50 µs, so it must be worth it: see native.c for when.
 *
 * All functions are the vCPU thread's, with the guest's vectors saved.
 */
#ifndef BT_NATIVE_H
#define BT_NATIVE_H

#include "base/util.h"
#include "engine/bt/bt.h"

/* Whether the present address space's user code is to go on natively. Without vectors, whoever has them. */
static inline bool bt_native_wanted(const struct bt_cpu *cpu)
{
    bool wanted = cpu->engine->config.native == ENGINE_NATIVE_ALWAYS;
    for (unsigned i = 0; i < BT_NATIVE_HOT; i++)
        wanted |= cpu->native_hot[i] == cpu->cr3;
    return wanted && (cpu->native_refused != round_down(cpu->rip, GUEST_PAGE_SIZE) ||
                      cpu->native_refused_cr3 != cpu->cr3);
}

/* User code was interrupted: looks whether it has been computing for long. */
void bt_native_sample(struct bt_cpu *cpu);
/*
 * Lets user code at RIP go on natively if it may. Afterwards the vCPU's state is where it stopped, perhaps
 * where it was.
 */
void bt_native_run(struct bt_cpu *cpu);
/* Ends the processes. No vCPU runs. */
void bt_native_free(struct bt_native *native);

#endif
