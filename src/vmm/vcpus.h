/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The threads that run the virtual processors: started parked, paused and resumed together. */
#ifndef VMM_VCPUS_H
#define VMM_VCPUS_H

#include <stdbool.h>

#include "core/engine.h"
#include "core/machine.h"

struct error;
struct vcpus;

/*
 * Called on a vCPU's thread with the machine lock held, when `run` returned for a reason of its own (not for
 * a kick). All vCPUs have been asked to pause by then.
 */
typedef void vcpus_exit_fn(void *opaque, unsigned index, const struct vm_exit *exit);

/* Makes m->cpu_count vCPUs of the engine and their threads, all parked. NULL and *err on failure. */
struct vcpus *vcpus_new(struct machine *m, const struct engine_ops *ops, struct engine *engine,
                        vcpus_exit_fn *exited, void *opaque, struct error **err);
/* Ends the threads. Machine lock not held. NULL is fine. */
void vcpus_free(struct vcpus *v);

/* Asks all to park; does not wait. Any thread, with or without the machine lock. */
void vcpus_pause_soon(struct vcpus *v);
/* Waits until all are parked. Main loop with the machine lock held, which is dropped while waiting. */
void vcpus_pause(struct vcpus *v);
/* Machine lock held. */
void vcpus_resume(struct vcpus *v);

struct vcpu *vcpus_get(const struct vcpus *v, unsigned index);
/* The host's thread id. */
long vcpus_thread_id(const struct vcpus *v, unsigned index);

#endif
