/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A processor of engine bt on the real MMU and processor state, but without the translator: for tests of the
 * C functions of single instructions. Every test gets a fresh one, in 64-bit kernel code with paging on.
 */
#ifndef TESTS_ENGINE_BT_OPS_H
#define TESTS_ENGINE_BT_OPS_H

#include "core/engine.h"
#include "engine/bt/flags.h"
#include "engine/bt/ops.h"
#include "engine/bt/vec.h"

#define PAGE_TABLES 0x1000
#define CODE        0x8000
#define WINDOW      0x100000 /* linear; the pages behind it are out of order */
#define PAGES       8
#define WINDOW_SIZE (PAGES * GUEST_PAGE_SIZE)
#define WINDOW_PHYS 0x200000
#define TSS         0x20000

extern struct cpuid_model model;
extern struct guest_memory *memory;
extern const struct engine_ops *ops;
extern struct bt_cpu *cpu;
/* Every port reads as this, one more each time, and takes what is written; accesses are counted. */
extern uint32_t port_value;
extern unsigned port_reads, port_writes;

int bt_ops_setup(void **state);
int bt_ops_teardown(void **state);

void compatibility_mode(void);
void user_mode(void);

/* The pages behind the window. */
uint8_t *window_host(unsigned offset);
void write_window(unsigned offset, const uint8_t *data, unsigned len);
void read_window(unsigned offset, uint8_t *data, unsigned len);

enum outcome { DONE, AGAIN, FAULT };

/* Executes one instruction (once, when it repeats). */
enum outcome run(const void *code, size_t len);
enum outcome run_to_end(const void *code, size_t len);
void assert_exception(enum outcome o, unsigned vector);

#define RUN(bytes)       run(bytes, sizeof(bytes) - 1)
#define ASSERT_GP(bytes) assert_exception(RUN(bytes), VEC_GP)
#define ASSERT_UD(bytes) assert_exception(RUN(bytes), VEC_UD)
#define ASSERT_OK(bytes) assert_int_equal(RUN(bytes), DONE)

/* Seeds rand() from the clock and prints the seed. */
void seed(void);
uint64_t random64(void);

#endif
