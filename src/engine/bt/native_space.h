/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One guest address space as a process for native code has it (native_child.h): which of its pages are mapped
 * there, and with which rights. It is filled page by page as user code faults, like a TLB, and like a TLB it
 * may be behind the guest's page tables until the guest flushes: then native_space_check compares.
 *
 * Only on the vCPU's thread, with the guest's vectors saved.
 */
#ifndef BT_NATIVE_SPACE_H
#define BT_NATIVE_SPACE_H

#include "engine/bt/bt.h"
#include "engine/bt/native_child.h"

/* A page, or a part of 2 MiB of a larger one, that is mapped. */
struct native_page {
    uint64_t lin, gpa;
    uint8_t prot; /* PROT_* */
    bool large;
    uint32_t version; /* of code, as the cache has it */
};

struct native_space {
    uint64_t cr3;
    struct native_child *child; /* NULL: none yet */
    struct native_page *page;
    unsigned count, capacity; /* of page[] */
    uint32_t *slot;           /* hash of page[] by lin: index + 1; 2 * capacity of them */
    bool stale;               /* the guest has flushed since the last check */
    uint32_t denied, written; /* cpu->native_denied and the cache's native_writes then */
    uint64_t used;            /* for replacing the one that has not been used for longest */
    uint8_t vectors[X86_XSAVE_MAX] __attribute__((aligned(64))); /* that the process has */
    bool vectors_known;
    /* Mapping calls that are one as far as they go on evenly. */
    struct {
        uint64_t lin, len, offset;
        unsigned region;
        int prot;
    } run;
};

enum native_fill {
    NATIVE_FILLED,  /* try again */
    NATIVE_REFUSED, /* what is there is not for native code, or not at all: let bt do it */
    NATIVE_BROKEN,  /* the process is of no more use */
};

/* Whether the guest's address space has nothing where our pages are. */
bool native_space_possible(struct bt_cpu *cpu);
/* User code faulted at `lin`; `fetch`: as it fetched an instruction there. */
enum native_fill native_space_fill(struct bt_cpu *cpu, struct native_space *space, uint64_t lin, bool fetch);
/* Takes away what the guest's tables no longer say, and rights to write where code is now. False: broken. */
bool native_space_check(struct bt_cpu *cpu, struct native_space *space);
/* Marks all that native code may write in the dirty log. */
void native_space_mark_dirty(struct bt_cpu *cpu, const struct native_space *space);
/* Nothing is mapped any more; another address space may follow. False: broken. */
bool native_space_clear(struct native_space *space);
/* Frees all that it has; it can be used again. */
void native_space_free(struct native_space *space);

/* ---- native_scan.c ---- */

/*
 * Whether a page of code is fit to run natively: has no instructions that do something else there than in the
 * guest and do not fault. `len` is its size and that of what is known of the next page, which an instruction
 * may go on in: up to X86_INSN_MAX bytes.
 */
bool native_code_fits(const uint8_t *page, unsigned len);

#endif
