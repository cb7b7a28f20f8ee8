/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the guest `native` share. */
#ifndef TESTS_GUEST_NATIVE_H
#define TESTS_GUEST_NATIVE_H

#include "guest.h"

/* Code to be copied; the end is `name_next`. */
#define USER(name, text) SNIPPET(name, "", text)

extern bool have_avx;

/* Copies code to a page of its own, which the user may execute but not write. Gives its address; *page is the
 * page itself. */
uint64_t place_code(const uint8_t *code, const uint8_t *next, uint8_t **page);
/* A context at user address `code`, with interrupts on. */
struct context native_context(uint64_t code);
/* Runs it. */
struct context run_user(uint64_t code, uint64_t rdi, uint64_t rax);

/* The parts. */
void native_instructions(void);
void native_smp(void);

#endif
