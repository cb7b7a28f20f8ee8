/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that user code runs in natively (native.h): an address space with nothing in it but what it is
 * told to map of the guest's RAM, and one page of ours, at NATIVE_STUB. It is traced by the vCPU's thread,
 * which alone may call these functions, native_child_interrupt and native_child_free apart.
 *
 * What the guest's code can do there: compute, and touch what is mapped. Its system calls stop before they
 * are made; should one ever get through, a seccomp filter stops it, which lets nothing pass but calls made by
 * our page, while it does our bidding. The process has no files but the guest's RAM.
 */
#ifndef BT_NATIVE_CHILD_H
#define BT_NATIVE_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "core/memory.h"

struct error;

/* Where our pages are: where programs have nothing, between their heaps and what they map. */
#define NATIVE_STUB     UINT64_C(0x6a5bc3d41000)
#define NATIVE_STUB_END (NATIVE_STUB + 0x4000)
/* User code's addresses end here, as Linux has it. */
#define NATIVE_TOP UINT64_C(0x7ffffffff000)

#define NATIVE_XSTATE_MAX 16384u

struct native_child {
    pid_t pid;
    int pid_fd;
    struct native_op *ops;           /* NATIVE_OPS_MAX of them, read by the process */
    unsigned op_count;               /* waiting for native_child_flush */
    unsigned xstate_size;            /* of the host's XSAVE area, bytes */
    int region_fd[GUEST_REGION_MAX]; /* there */
    int args_fd;                     /* there, before it has mapped the ops */
};

/* Why user code came back. */
enum native_stop {
    NATIVE_STOP_KICKED,  /* native_child_interrupt */
    NATIVE_STOP_ACCESS,  /* memory that is not mapped so: at `address` */
    NATIVE_STOP_SYSCALL, /* RIP is behind the instruction */
    NATIVE_STOP_TRAP,    /* INT3 and the like: RIP is behind the instruction */
    NATIVE_STOP_STEP,    /* behind an instruction that TF has stepped */
    NATIVE_STOP_FAULT,   /* anything else, at RIP */
    NATIVE_STOP_STRAY,   /* a call by another way than SYSCALL, at RIP; the process is not to be used again */
    NATIVE_STOP_DEAD,    /* the process is no more */
};

/* NULL and *err when processes cannot be had or traced here. */
struct native_child *native_child_new(const struct guest_memory *memory, struct error **err);
void native_child_free(struct native_child *child);

/*
 * [lin, lin + len) shows `region` from `offset` on with PROT_* rights; or, with prot 0, nothing any more.
 * Takes effect with native_child_flush, which happens by itself when there are many. False: the process is of
 * no more use.
 */
bool native_child_map(struct native_child *child, uint64_t lin, uint64_t len, unsigned region,
                      uint64_t offset, int prot);
bool native_child_flush(struct native_child *child);
/* Nothing is mapped any more but our pages. */
bool native_child_clear(struct native_child *child);

/* Registers; the vectors as an XSAVE area in standard form of xstate_size bytes. */
bool native_child_get(struct native_child *child, struct user_regs_struct *regs);
bool native_child_set(struct native_child *child, const struct user_regs_struct *regs);
bool native_child_get_xstate(struct native_child *child, void *area);
bool native_child_set_xstate(struct native_child *child, const void *area);
/* MXCSR, which the kernel does not tell in the area when all vectors are in their initial state. The
 * registers must have been read; they are lost. */
bool native_child_get_mxcsr(struct native_child *child, uint32_t *mxcsr);

/* Runs user code with the registers that were set until it stops. */
enum native_stop native_child_run(struct native_child *child, uint64_t *address);

/* Makes a run in progress, or the next one, stop soon. Any thread, async-signal-safe. */
void native_child_interrupt(int pid_fd);

#endif
