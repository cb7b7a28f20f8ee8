/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What C and assembly of the test guests agree on. */
#ifndef TESTS_GUEST_LAYOUT_H
#define TESTS_GUEST_LAYOUT_H

#define SEL_KCODE64 0x08
#define SEL_KDATA   0x10
#define SEL_KCODE32 0x18
#define SEL_UCODE32 0x23
#define SEL_UDATA   0x2b
#define SEL_UCODE64 0x33
#define SEL_TSS     0x40  /* one of 16 bytes per processor */
#define SEL_FREE    0x140 /* for tests */
#define GDT_ENTRIES 64

#define MAX_CPUS      8
#define AP_TRAMPOLINE 0x8000

/* All physical memory again, for CPL 3, from this linear address: slot 1 of the top-level table. */
#define USER_ALIAS_SLOT 1
#define USER_ALIAS      0x8000000000

/* Offsets in struct context. */
#define CTX_RSP    32
#define CTX_RIP    128
#define CTX_CS     136
#define CTX_RFLAGS 144
#define CTX_SS     152

#endif
