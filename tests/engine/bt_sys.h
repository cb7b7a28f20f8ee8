/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A processor of engine bt without translator and MMU, for tests of exceptions, transfers and segmentation:
 * linear memory is one array, some of whose pages can be made to fault. One instruction at a time is decoded
 * and executed by its C function.
 */
#ifndef TESTS_ENGINE_BT_SYS_H
#define TESTS_ENGINE_BT_SYS_H

#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

#define SYS_MEMORY (1u << 20)

/* Where things lie. */
enum {
    AT_GDT = 0x1000,
    AT_IDT = 0x2000,
    AT_TSS = 0x4000,  /* current: 64-bit or 32-bit */
    AT_TSS2 = 0x4400, /* another 32-bit one */
    AT_TSS3 = 0x4800, /* a 16-bit one */
    AT_LDT = 0x4c00,
    AT_CODE = 0x10000,
    AT_USER_STACK = 0x20000, /* tops of stacks */
    AT_STACK0 = 0x30000,
    AT_STACK1 = 0x34000,
    AT_IST1 = 0x38000,
    AT_DATA = 0x50000,
    AT_HANDLER = 0x60000, /* vector n's is n * 16 above */
};

/* Selectors of the test GDT. */
enum {
    S_KCODE = 0x08, /* 32-bit, DPL 0 */
    S_KDATA = 0x10,
    S_UCODE = 0x18 | 3,
    S_UDATA = 0x20 | 3,
    S_KCODE64 = 0x28,
    S_KSTACK64 = 0x30, /* follows S_KCODE64, as SYSCALL wants */
    S_UCODE64 = 0x38 | 3,
    S_TSS = 0x40,
    S_TSS2 = 0x50,
    S_TSS3 = 0x58,
    S_CONFORMING = 0x60, /* 32-bit code, DPL 0 */
    S_CODE1 = 0x68,      /* 32-bit code, DPL 1 */
    S_DATA1 = 0x70,
    S_KCODE16 = 0x78,
    S_KDATA16 = 0x80,
    S_UCODE16 = 0x88 | 3,
    S_UDATA16 = 0x90 | 3,
    S_ABSENT = 0x98,      /* data, not present */
    S_EXEC_ONLY = 0xa0,   /* code, not readable */
    S_READ_ONLY = 0xa8,   /* data */
    S_DOWN = 0xb0,        /* expand-down data, valid above 0xffff */
    S_LDT = 0xb8,         /* 16 bytes in long mode */
    S_GATE = 0xc8,        /* free for a test's gate, 16 bytes in long mode */
    S_ABSENT_CODE = 0xd8, /* code, not present */
    S_UCONFORMING = 0xe0, /* code, conforming, DPL 3 */
    S_SMALL = 0xe8,       /* data, limit 0xff */
};
#define SYS_GDT_LIMIT 0xf7

struct sys {
    struct bt_cpu cpu;
    struct bt_engine engine;
    struct cpuid_model model;
    uint8_t memory[SYS_MEMORY];
    uint8_t absent[SYS_MEMORY / 4096];    /* page faults on access */
    uint8_t read_only[SYS_MEMORY / 4096]; /* page faults on writes */
};

/* Each sets everything up anew: descriptor tables, IDT with present interrupt gates for all vectors, TSS,
 * stacks. */
struct sys *sys_real(void);
struct sys *sys_protected(unsigned cpl); /* 32-bit */
struct sys *sys_v86(unsigned iopl);
struct sys *sys_long(unsigned cpl);   /* 64-bit code */
struct sys *sys_compat(unsigned cpl); /* 32-bit code in long mode */

void sys_free(struct sys *s);

uint64_t sys_get(const struct sys *s, uint64_t addr, unsigned size);
void sys_put(struct sys *s, uint64_t addr, unsigned size, uint64_t value);
/* GDT entry; `flags` are attribute bits as in enum x86_seg_attr. */
void sys_descriptor(struct sys *s, uint16_t sel, uint64_t base, uint32_t limit, uint32_t attr);
/* IDT entry of the mode's format. */
void sys_idt_gate(struct sys *s, unsigned vector, unsigned type, uint16_t sel, uint64_t offset, unsigned dpl,
                  bool present, unsigned ist);
/* Call or task gate in the GDT. */
void sys_gdt_gate(struct sys *s, uint16_t gate, unsigned type, uint16_t sel, uint64_t offset, unsigned dpl,
                  unsigned count);
/* Loads CS, SS, DS, ES at `cpl` as if they had been there. */
void sys_segments(struct sys *s, uint16_t cs, uint16_t ss, unsigned cpl);

/*
 * Decodes and executes the bytes at CS:RIP. On a fault it checks that no register has changed, and returns
 * false with cpu.exc set. sys_run_task leaves that check out, for faults of a new task.
 */
bool sys_run(struct sys *s, const char *bytes, unsigned len);
bool sys_run_task(struct sys *s, const char *bytes, unsigned len);
#define RUN(s, text) sys_run((s), (text), sizeof(text) - 1)

/* Pushes a value in the current stack's width of step, as test setup. */
void sys_stack(struct sys *s, unsigned size, const uint64_t *values, unsigned count);
#define STACK(s, size, ...)                                                                                  \
    sys_stack((s), (size), (const uint64_t[]){__VA_ARGS__},                                                  \
              sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* Delivers an exception and returns the vector whose handler it arrived in; -1 for shutdown. */
int sys_deliver(struct sys *s, struct bt_exception e);

/* Asserts that an exception is pending with this vector and error code (error < 0: none). */
void sys_expect(const struct sys *s, unsigned vector, int64_t error);

#endif
