/* SPDX-License-Identifier: GPL-2.0-or-later */
/* In what state the first processor enters a loaded image. */
#ifndef VMM_BOOT_ENTRY_H
#define VMM_BOOT_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/boot/space.h"
#include "x86/state.h"

enum boot_mode {
    BOOT_MODE_PROTECTED, /* 32-bit, flat, no paging */
    BOOT_MODE_LONG,      /* 64-bit, the first 4 GiB mapped one to one */
};

struct boot_entry {
    enum boot_mode mode;
    uint64_t rip, rax, rbx, rsi;
    uint64_t gdt; /* guest address of the descriptor table */
    uint64_t cr3; /* BOOT_MODE_LONG */
};

/* Selectors of the descriptor table: those that Linux's boot protocols ask for. */
#define BOOT_CS 0x10
#define BOOT_DS 0x18
#define BOOT_TR 0x20

/* Places the descriptor table and, for BOOT_MODE_LONG, page tables in low memory; fills mode, gdt and cr3. */
bool boot_entry_prepare(struct boot_entry *e, struct boot_space *s, enum boot_mode mode, struct error **err);

/* Makes the state of a processor after RESET into the one at entry: interrupts off, flat segments. */
void boot_entry_apply(const struct boot_entry *e, struct x86_state *state);

#endif
