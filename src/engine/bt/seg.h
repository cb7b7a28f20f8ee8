/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Segmentation as exceptions, transfers and segment loads share it: descriptors, checked loads, stacks. All
 * of it runs on the vCPU's thread and is gpr-only. Functions that return bool leave cpu->exc filled on false
 * and no register changed. `ext` is the EXT bit (0 or 1) for error codes, `vector` the exception a bad
 * descriptor raises (#GP, or #TS when the selector came out of a TSS). SDM vol. 3 chapters 3, 5, 6 and 8.
 */
#ifndef BT_SEG_H
#define BT_SEG_H

#include "engine/bt/bt.h"
#include "engine/bt/flags.h"

/* System descriptor types. */
enum bt_desc_type {
    DESC_TSS16 = 1,
    DESC_LDT = 2,
    DESC_TSS16_BUSY = 3,
    DESC_CALL16 = 4,
    DESC_TASK_GATE = 5,
    DESC_INT16 = 6,
    DESC_TRAP16 = 7,
    DESC_TSS32 = 9, /* 64-bit TSS in long mode */
    DESC_TSS32_BUSY = 11,
    DESC_CALL32 = 12, /* 64-bit call gate in long mode */
    DESC_INT32 = 14,
    DESC_TRAP32 = 15,
};

#define SEG_TYPE_ACCESSED   1u
#define SEG_TYPE_WRITABLE   2u /* data */
#define SEG_TYPE_READABLE   2u /* code */
#define SEG_TYPE_DOWN       4u /* data: grows down */
#define SEG_TYPE_CONFORMING 4u /* code */
#define SEG_TYPE_CODE       8u

/* A descriptor as read from the GDT or LDT, and where it lies. */
struct bt_desc {
    uint64_t lin;
    uint32_t low, high;
    uint32_t top; /* base 63..32 of a 16-byte descriptor */
};

static inline uint32_t bt_desc_attr(const struct bt_desc *d)
{
    return (d->high >> 8) & 0xf0ff;
}

static inline unsigned bt_desc_type(const struct bt_desc *d)
{
    return (d->high >> 8) & 0xf;
}

static inline unsigned bt_desc_dpl(const struct bt_desc *d)
{
    return (d->high >> 13) & 3;
}

static inline bool bt_desc_present(const struct bt_desc *d)
{
    return d->high & 0x8000;
}

/* Code or data, as opposed to system. */
static inline bool bt_desc_user(const struct bt_desc *d)
{
    return d->high & 0x1000;
}

static inline bool bt_desc_code(const struct bt_desc *d)
{
    return (d->high & 0x1800) == 0x1800;
}

static inline bool bt_desc_conforming(const struct bt_desc *d)
{
    return d->high & 0x400;
}

static inline uint32_t bt_desc_limit(const struct bt_desc *d)
{
    uint32_t limit = (d->low & 0xffff) | (d->high & 0xf0000);
    return (d->high & 0x800000) ? limit << 12 | 0xfff : limit;
}

static inline uint64_t bt_desc_base(const struct bt_desc *d)
{
    return (d->low >> 16) | (d->high & 0xff) << 16 | (d->high & 0xff000000) | (uint64_t)d->top << 32;
}

static inline unsigned bt_attr_dpl(uint32_t attr)
{
    return (attr & ATTR_DPL) >> ATTR_DPL_SHIFT;
}

static inline bool bt_selector_null(uint16_t sel)
{
    return !(sel & 0xfffc);
}

static inline bool bt_canonical(uint64_t addr)
{
    return (uint64_t)((int64_t)(addr << 16) >> 16) == addr;
}

/* v cut to `size` 2, 4 or 8 bytes. */
static inline uint64_t bt_zext(uint64_t v, unsigned size)
{
    return size == 8 ? v : size == 4 ? (uint32_t)v : (uint16_t)v;
}

/* RIP after the instruction: 64 bits in 64-bit code, else 32. */
static inline uint64_t bt_next_rip(const struct bt_cpu *cpu, const struct bt_op *op)
{
    uint64_t rip = cpu->rip + op->insn.len;
    return bt_code64(cpu) ? rip : (uint32_t)rip;
}

/* ---- descriptors ---- */

/* Reads the descriptor of a selector that is not null. vector(sel) when it is outside its table. */
bool bt_desc_read(struct bt_cpu *cpu, uint16_t sel, unsigned vector, unsigned ext, struct bt_desc *d);
/* For system descriptors: reads the upper half too in long mode. */
bool bt_desc_read_system(struct bt_cpu *cpu, uint16_t sel, unsigned vector, unsigned ext, struct bt_desc *d);
/* Sets the accessed bit in memory and in *d if it is clear. */
bool bt_desc_mark_accessed(struct bt_cpu *cpu, struct bt_desc *d);
/* Sets or clears a TSS descriptor's busy bit in memory and in *d. */
bool bt_desc_set_busy(struct bt_cpu *cpu, struct bt_desc *d, bool busy);
void bt_desc_segment(const struct bt_desc *d, uint16_t sel, struct x86_segment *out);

/* ---- segment registers ---- */

/* What a null selector leaves in DS, ES, FS, GS or (64-bit mode) SS; dpl is 0 but for SS. */
void bt_seg_null(struct x86_segment *out, uint16_t sel, unsigned dpl);
/*
 * Protected mode: checks a selector for ES DS FS GS or SS at privilege `cpl`, sets the accessed bit and gives
 * what to load. null_ok allows a null SS (64-bit mode, below CPL 3).
 */
bool bt_seg_check(struct bt_cpu *cpu, unsigned seg, uint16_t sel, unsigned cpl, bool null_ok, unsigned vector,
                  unsigned ext, struct x86_segment *out);
/* Real and virtual-8086 mode. */
void bt_seg_set_real(struct bt_cpu *cpu, unsigned seg, uint16_t sel);
/* MOV, POP, LDS...: loads ES DS FS GS or SS in any mode and updates the mode. */
bool bt_seg_load(struct bt_cpu *cpu, unsigned seg, uint16_t sel);
/* After a return to a less privileged level: data segments that it may not use become null. No mode update.
 */
void bt_seg_drop_inner(struct bt_cpu *cpu);
/* FS or GS base, with its copy for translated code. */
void bt_seg_set_base(struct bt_cpu *cpu, unsigned seg, uint64_t base);

/* Whether `rip` may be executed in code segment `cs`: limit, or canonical for 64-bit code; else #GP(ext). */
bool bt_code_target(struct bt_cpu *cpu, const struct x86_segment *cs, uint64_t rip, unsigned ext);
/* Loads CS with RPL and CPL = cpl (RPL only where it is no privileged matter). No mode update. */
void bt_cs_set(struct bt_cpu *cpu, const struct x86_segment *cs, unsigned cpl);
/* The flat CS and SS of SYSCALL, SYSENTER and their returns; sets CPL; bits: 32, 64. No mode update. */
void bt_flat_cs_ss(struct bt_cpu *cpu, uint16_t cs, uint16_t ss, unsigned cpl, unsigned bits);

/* ---- stacks ---- */

#define BT_STACK_MAX 256u /* bytes that one event or instruction pushes at most */

/* Values pushed on a stack that is not written until bt_stack_commit. */
struct bt_stack {
    uint64_t sp, mask; /* mask: ~0, 0xffffffff or 0xffff */
    uint64_t base;
    uint32_t limit, attr;
    unsigned access; /* BT_IMPLICIT for a more privileged stack */
    unsigned size;   /* bytes of each value */
    unsigned used;
    uint8_t buf[BT_STACK_MAX]; /* filled from the end */
};

/* The current stack, with values of `size` bytes. */
void bt_stack_open(const struct bt_cpu *cpu, struct bt_stack *s, unsigned size);
/* Another stack; ss is NULL for one in 64-bit mode. */
void bt_stack_open_at(const struct bt_cpu *cpu, struct bt_stack *s, const struct x86_segment *ss, uint64_t sp,
                      unsigned size);
void bt_stack_push(struct bt_stack *s, uint64_t value);
/* Writes it all or nothing; #SS(error) where it does not fit. Sets s->sp. */
bool bt_stack_commit(struct bt_cpu *cpu, struct bt_stack *s, uint32_t error);
/* RSP := sp in the width of `mask`. */
void bt_set_sp(struct bt_cpu *cpu, uint64_t sp, uint64_t mask);
/* Width of the current stack pointer. */
uint64_t bt_stack_mask(const struct bt_cpu *cpu);
/* Reads `size` bytes `offset` above the stack pointer. */
bool bt_stack_peek(struct bt_cpu *cpu, uint64_t offset, unsigned size, uint64_t *value);
/* RSP += bytes. */
void bt_stack_drop(struct bt_cpu *cpu, uint64_t bytes);

/* Stack of privilege `level` in the current 16- or 32-bit TSS; checked SS in *ss. */
bool bt_tss_stack(struct bt_cpu *cpu, unsigned level, unsigned ext, struct x86_segment *ss, uint64_t *sp);
/* Stack pointer in the 64-bit TSS: slot 0..2 RSP0..2, 4..10 IST1..7. */
bool bt_tss_stack64(struct bt_cpu *cpu, unsigned slot, unsigned ext, uint64_t *rsp);

/* ---- task.c ---- */

enum bt_task_cause { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT };

struct bt_task_switch {
    enum bt_task_cause cause;
    unsigned ext;
    uint64_t rip, rflags;  /* what the old task's TSS gets */
    const uint32_t *error; /* goes onto the new task's stack; NULL: none */
};

/*
 * Switches to the task of TSS selector `sel`. Checks before the switch fail with the old task's state
 * untouched; a fault while the new task's segments load is, as on the processor, the new task's: registers
 * are its own then.
 */
bool bt_task_switch(struct bt_cpu *cpu, uint16_t sel, const struct bt_task_switch *how);
/* The same through a task gate. */
bool bt_task_gate(struct bt_cpu *cpu, const struct bt_desc *gate, const struct bt_task_switch *how);

/* ---- why.c ---- */

/* Puts the reason of a triple fault into cpu->why. */
void bt_why_shutdown(struct bt_cpu *cpu, const struct bt_exception *first, const struct bt_exception *second);

#endif
