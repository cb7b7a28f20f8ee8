/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The test processor: see bt_sys.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bt_sys.h"

#define CODE_ATTR (ATTR_P | ATTR_S | SEG_TYPE_CODE | SEG_TYPE_READABLE)
#define DATA_ATTR (ATTR_P | ATTR_S | SEG_TYPE_WRITABLE)
#define FLAT32    (ATTR_DB | ATTR_G)
#define USER      ATTR_DPL

/* Tables of other parts of the engine, empty here. */
const struct bt_op_entry bt_ops_msr[] = {{0}};
const struct bt_op_entry bt_ops_cr[] = {{0}};
const struct bt_op_entry bt_ops_fpu[] = {{0}};
const struct bt_op_entry bt_ops_string[] = {{0}};
const struct bt_op_entry bt_ops_io[] = {{0}};
const struct bt_op_entry bt_ops_misc[] = {{0}};

static struct sys *of(struct bt_cpu *cpu)
{
    return CONTAINER_OF(cpu, struct sys, cpu);
}

/* ---- what mmu.c, run.c and vec.c do ---- */

void bt_mode_update(struct bt_cpu *cpu)
{
    uint32_t attr = cpu->seg[SEG_CS].attr;
    bool code64 = bt_long_mode(cpu) && (attr & ATTR_L);
    cpu->mode = (code64 ? MODE_CODE64 : (attr & ATTR_DB) ? MODE_CODE32 : 0) | (cpu->cpl == 3 ? MODE_USER : 0);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        cpu->seg_base[i] = cpu->seg[i].base;
}

void bt_vec_save(struct bt_cpu *cpu)
{
    cpu->vec_live = false;
}

bool bt_cr3_load(struct bt_cpu *cpu, uint64_t value)
{
    cpu->cr3 = value;
    return true;
}

static bool check_pages(struct bt_cpu *cpu, uint64_t lin, unsigned len, unsigned access)
{
    struct sys *s = of(cpu);
    for (uint64_t a = lin; a < lin + len; a = (a | 4095) + 1) {
        bool out = a >= SYS_MEMORY;
        bool user = cpu->cpl == 3 && !(access & BT_IMPLICIT);
        uint32_t error = ((access & BT_WRITE) ? 2 : 0) | (user ? 4 : 0);
        if (out || s->absent[a / 4096])
            return bt_raise_pf(cpu, a, error);
        if ((access & BT_WRITE) && s->read_only[a / 4096])
            return bt_raise_pf(cpu, a, error | 1);
    }
    return true;
}

bool bt_translate(struct bt_cpu *cpu, uint64_t lin, unsigned access, uint64_t *gpa, uint64_t *page_flags)
{
    *gpa = lin;
    return check_pages(cpu, lin, 1, access);
}

bool bt_read_lin(struct bt_cpu *cpu, uint64_t lin, void *buf, unsigned len, unsigned access)
{
    if (!check_pages(cpu, lin, len, access))
        return false;
    memcpy(buf, of(cpu)->memory + lin, len);
    return true;
}

bool bt_write_lin(struct bt_cpu *cpu, uint64_t lin, const void *buf, unsigned len, unsigned access)
{
    if (!check_pages(cpu, lin, len, access))
        return false;
    memcpy(of(cpu)->memory + lin, buf, len);
    return true;
}

bool bt_seg_linear(struct bt_cpu *cpu, unsigned seg, uint64_t ea, unsigned len, unsigned access,
                   uint64_t *lin)
{
    const struct x86_segment *sg = &cpu->seg[seg];
    unsigned vector = seg == SEG_SS ? VEC_SS : VEC_GP;
    if (bt_code64(cpu)) {
        *lin = ea + (seg == SEG_FS || seg == SEG_GS ? sg->base : 0);
        bool ok = bt_canonical(*lin) && bt_canonical(*lin + len - 1);
        return ok || bt_raise_error(cpu, vector, 0);
    }
    bool down = (sg->attr & (SEG_TYPE_CODE | SEG_TYPE_DOWN)) == SEG_TYPE_DOWN;
    bool inside = down ? ea > sg->limit : ea + len - 1 <= sg->limit;
    *lin = (uint32_t)(sg->base + ea);
    return (inside && !(sg->attr & ATTR_UNUSABLE)) || bt_raise_error(cpu, vector, 0);
}

bool bt_read_seg(struct bt_cpu *cpu, unsigned seg, uint64_t ea, void *buf, unsigned len)
{
    uint64_t lin;
    return bt_seg_linear(cpu, seg, ea, len, BT_READ, &lin) && bt_read_lin(cpu, lin, buf, len, BT_READ);
}

bool bt_write_seg(struct bt_cpu *cpu, unsigned seg, uint64_t ea, const void *buf, unsigned len)
{
    uint64_t lin;
    return bt_seg_linear(cpu, seg, ea, len, BT_WRITE, &lin) && bt_write_lin(cpu, lin, buf, len, BT_WRITE);
}

uint64_t bt_effective_address(const struct bt_cpu *cpu, const struct x86_insn *insn)
{
    uint64_t ea = (uint64_t)insn->mem.disp;
    if (insn->mem.base < 16)
        ea += cpu->gpr[insn->mem.base];
    if (insn->mem.index < 16)
        ea += cpu->gpr[insn->mem.index] * insn->mem.scale;
    return bt_zext(ea, insn->addrsize);
}

/* ---- setting up ---- */

uint64_t sys_get(const struct sys *s, uint64_t addr, unsigned size)
{
    uint64_t v = 0;
    assert_true(addr + size <= SYS_MEMORY);
    memcpy(&v, s->memory + addr, size);
    return v;
}

void sys_put(struct sys *s, uint64_t addr, unsigned size, uint64_t value)
{
    assert_true(addr + size <= SYS_MEMORY);
    memcpy(s->memory + addr, &value, size);
}

void sys_descriptor(struct sys *s, uint16_t sel, uint64_t base, uint32_t limit, uint32_t attr)
{
    uint32_t raw_limit = (attr & ATTR_G) ? limit >> 12 : limit;
    uint64_t at = AT_GDT + (sel & 0xfff8u);
    sys_put(s, at, 4, (raw_limit & 0xffff) | (base & 0xffff) << 16);
    sys_put(s, at + 4, 4,
            (base >> 16 & 0xff) | (base & 0xff000000) | (raw_limit & 0xf0000) | (attr & 0xf0ff) << 8);
    if (bt_long_mode(&s->cpu) && !(attr & ATTR_S))
        sys_put(s, at + 8, 8, base >> 32);
}

static uint64_t gate_low(unsigned type, uint16_t sel, uint64_t offset, unsigned dpl, bool present,
                         unsigned low5)
{
    return (offset & 0xffff) | (uint64_t)sel << 16 | (uint64_t)low5 << 32 |
           (uint64_t)(type | dpl << 5 | (present ? 0x80 : 0)) << 40 | (offset >> 16 & 0xffff) << 48;
}

void sys_idt_gate(struct sys *s, unsigned vector, unsigned type, uint16_t sel, uint64_t offset, unsigned dpl,
                  bool present, unsigned ist)
{
    bool wide = bt_long_mode(&s->cpu);
    uint64_t at = AT_IDT + vector * (wide ? 16 : 8);
    sys_put(s, at, 8, gate_low(type, sel, offset, dpl, present, ist));
    if (wide)
        sys_put(s, at + 8, 8, offset >> 32);
}

void sys_gdt_gate(struct sys *s, uint16_t gate, unsigned type, uint16_t sel, uint64_t offset, unsigned dpl,
                  unsigned count)
{
    uint64_t at = AT_GDT + (gate & 0xfff8u);
    sys_put(s, at, 8, gate_low(type, sel, offset, dpl, true, count));
    if (bt_long_mode(&s->cpu))
        sys_put(s, at + 8, 8, offset >> 32);
}

static void build_gdt(struct sys *s)
{
    static const struct {
        uint16_t sel;
        uint32_t limit, attr;
    } flat[] = {
        {S_KCODE, ~0u, CODE_ATTR | FLAT32},
        {S_KDATA, ~0u, DATA_ATTR | FLAT32},
        {S_UCODE, ~0u, CODE_ATTR | FLAT32 | USER},
        {S_UDATA, ~0u, DATA_ATTR | FLAT32 | USER},
        {S_KCODE64, ~0u, CODE_ATTR | ATTR_L | ATTR_G},
        {S_KSTACK64, ~0u, DATA_ATTR | FLAT32},
        {S_UCODE64, ~0u, CODE_ATTR | ATTR_L | ATTR_G | USER},
        {S_CONFORMING, ~0u, CODE_ATTR | FLAT32 | SEG_TYPE_CONFORMING},
        {S_CODE1, ~0u, CODE_ATTR | FLAT32 | 1 << ATTR_DPL_SHIFT},
        {S_DATA1, ~0u, DATA_ATTR | FLAT32 | 1 << ATTR_DPL_SHIFT},
        {S_KCODE16, 0xffff, CODE_ATTR},
        {S_KDATA16, 0xffff, DATA_ATTR},
        {S_UCODE16, 0xffff, CODE_ATTR | USER},
        {S_UDATA16, 0xffff, DATA_ATTR | USER},
        {S_ABSENT, ~0u, (DATA_ATTR | FLAT32) & ~ATTR_P},
        {S_EXEC_ONLY, ~0u, (CODE_ATTR | FLAT32) & ~SEG_TYPE_READABLE},
        {S_READ_ONLY, ~0u, (DATA_ATTR | FLAT32) & ~SEG_TYPE_WRITABLE},
        {S_DOWN, 0xffff, DATA_ATTR | ATTR_DB | SEG_TYPE_DOWN},
        {S_ABSENT_CODE, ~0u, (CODE_ATTR | FLAT32) & ~ATTR_P},
        {S_UCONFORMING, ~0u, CODE_ATTR | FLAT32 | USER | SEG_TYPE_CONFORMING},
        {S_SMALL, 0xff, DATA_ATTR | ATTR_DB},
    };
    sys_descriptor(s, S_TSS, AT_TSS, 0x67, ATTR_P | DESC_TSS32_BUSY);
    if (!bt_long_mode(&s->cpu)) {
        sys_descriptor(s, S_TSS2, AT_TSS2, 0x67, ATTR_P | DESC_TSS32);
        sys_descriptor(s, S_TSS3, AT_TSS3, 0x2b, ATTR_P | DESC_TSS16);
    }
    sys_descriptor(s, S_LDT, AT_LDT, 0x1f, ATTR_P | DESC_LDT);
    for (unsigned i = 0; i < ARRAY_SIZE(flat); i++)
        sys_descriptor(s, flat[i].sel, 0, flat[i].limit, flat[i].attr);
}

static void load_segment(struct sys *s, unsigned seg, uint16_t sel)
{
    struct bt_desc d = {.low = (uint32_t)sys_get(s, AT_GDT + (sel & 0xfff8u), 4),
                        .high = (uint32_t)sys_get(s, AT_GDT + (sel & 0xfff8u) + 4, 4)};
    if (bt_selector_null(sel))
        bt_seg_null(&s->cpu.seg[seg], sel, seg == SEG_SS ? sel & 3 : 0);
    else
        bt_desc_segment(&d, sel, &s->cpu.seg[seg]);
}

void sys_segments(struct sys *s, uint16_t cs, uint16_t ss, unsigned cpl)
{
    uint16_t data = cpl == 3 ? S_UDATA : S_KDATA;
    load_segment(s, SEG_CS, (uint16_t)((cs & 0xfffc) | cpl));
    load_segment(s, SEG_SS, ss);
    load_segment(s, SEG_DS, data);
    load_segment(s, SEG_ES, data);
    load_segment(s, SEG_FS, 0);
    load_segment(s, SEG_GS, 0);
    s->cpu.cpl = (uint8_t)cpl;
    bt_mode_update(&s->cpu);
}

static struct sys *new_sys(uint64_t cr0, uint64_t efer)
{
    struct sys *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    struct bt_cpu *cpu = &s->cpu;
    cpu->engine = &s->engine;
    s->engine.config.cpu = &s->model;
    s->model.count = 1;
    s->model.leaf[0].ebx = 0x756e6547; /* GenuineIntel */
    cpu->cr0 = cr0;
    cpu->efer = efer;
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[7] = 0x400;
    for (unsigned i = 0; i < 16; i++)
        cpu->gpr[i] = UINT64_C(0x1111111111111111) * i;
    cpu->gdtr = (struct x86_table){AT_GDT, SYS_GDT_LIMIT};
    cpu->idtr = (struct x86_table){AT_IDT, 0xfff};
    bt_flags_store(cpu, FLAG_IF);
    cpu->rip = AT_CODE;
    return s;
}

/* What all protected modes share. */
static struct sys *new_protected(uint64_t efer, uint16_t handler_cs)
{
    struct sys *s = new_sys(CR0_PE | CR0_PG, efer);
    bool wide = bt_long_mode(&s->cpu);
    build_gdt(s);
    for (unsigned v = 0; v < 256; v++)
        sys_idt_gate(s, v, DESC_INT32, handler_cs, AT_HANDLER + v * 16, v >= 32 ? 3 : 0, true, 0);
    bt_seg_null(&s->cpu.seg[SEG_LDTR], 0, 0);
    s->cpu.seg[SEG_TR] = (struct x86_segment){S_TSS, ATTR_P | DESC_TSS32_BUSY, 0x67, AT_TSS};
    if (wide) {
        sys_put(s, AT_TSS + 4, 8, AT_STACK0);
        sys_put(s, AT_TSS + 12, 8, AT_STACK1);
        sys_put(s, AT_TSS + 0x24, 8, AT_IST1 + 5); /* unaligned on purpose */
    } else {
        sys_put(s, AT_TSS + 4, 4, AT_STACK0);
        sys_put(s, AT_TSS + 8, 4, S_KDATA);
        sys_put(s, AT_TSS + 12, 4, AT_STACK1);
        sys_put(s, AT_TSS + 16, 4, S_DATA1 | 1);
    }
    return s;
}

struct sys *sys_real(void)
{
    struct sys *s = new_sys(0, 0);
    for (unsigned i = 0; i < SEG_LDTR; i++)
        s->cpu.seg[i] = (struct x86_segment){0, i == SEG_CS ? CODE_ATTR : DATA_ATTR, 0xffff, 0};
    for (unsigned v = 0; v < 256; v++)
        sys_put(s, AT_IDT + v * 4, 4, (AT_HANDLER >> 4) << 16 | v * 16);
    s->cpu.idtr = (struct x86_table){AT_IDT, 0x3ff};
    s->cpu.gpr[R_RSP] = 0x8000;
    s->cpu.rip = 0x7c00;
    bt_mode_update(&s->cpu);
    return s;
}

struct sys *sys_protected(unsigned cpl)
{
    struct sys *s = new_protected(0, S_KCODE);
    for (unsigned i = 0; i < 8; i++)
        s->cpu.gpr[i] = (uint32_t)s->cpu.gpr[i];
    if (cpl == 3)
        sys_segments(s, S_UCODE, S_UDATA, 3);
    else
        sys_segments(s, cpl == 1 ? S_CODE1 : S_KCODE, (uint16_t)(cpl == 1 ? S_DATA1 | 1 : S_KDATA), cpl);
    s->cpu.gpr[R_RSP] = cpl == 3 ? AT_USER_STACK : cpl == 1 ? AT_STACK1 - 0x100 : AT_STACK0 - 0x100;
    return s;
}

struct sys *sys_v86(unsigned iopl)
{
    struct sys *s = sys_protected(0);
    s->cpu.cpl = 3;
    bt_flags_store(&s->cpu, FLAG_IF | FLAG_VM | iopl << 12);
    for (unsigned i = 0; i < SEG_LDTR; i++)
        bt_seg_set_real(&s->cpu, i, (uint16_t)(0x1000 + 0x10 * i));
    s->cpu.rip = 0x100;
    s->cpu.gpr[R_RSP] = 0x8000;
    bt_mode_update(&s->cpu);
    return s;
}

struct sys *sys_long(unsigned cpl)
{
    struct sys *s = new_protected(EFER_SCE | EFER_LME | EFER_LMA, S_KCODE64);
    if (cpl == 3)
        sys_segments(s, S_UCODE64, S_UDATA, 3);
    else
        sys_segments(s, S_KCODE64, S_KSTACK64, 0);
    s->cpu.gpr[R_RSP] = cpl == 3 ? AT_USER_STACK : AT_STACK0 - 0x108;
    return s;
}

struct sys *sys_compat(unsigned cpl)
{
    struct sys *s = sys_long(cpl);
    sys_segments(s, cpl == 3 ? S_UCODE : S_KCODE, cpl == 3 ? S_UDATA : S_KDATA, cpl);
    return s;
}

void sys_free(struct sys *s)
{
    free(s);
}

/* ---- running ---- */

/* All architectural registers that an instruction of these could change. */
struct registers {
    uint64_t gpr[16], rip, rflags, cr0, cr3, kernel_gs_base;
    struct x86_segment seg[SEG_COUNT];
    struct x86_table gdtr, idtr;
    uint8_t cpl;
};

static void snapshot(const struct bt_cpu *cpu, struct registers *r)
{
    memset(r, 0, sizeof(*r));
    memcpy(r->gpr, cpu->gpr, sizeof(r->gpr));
    r->rip = cpu->rip;
    r->rflags = bt_rflags(cpu);
    r->cr0 = cpu->cr0;
    r->cr3 = cpu->cr3;
    r->kernel_gs_base = cpu->kernel_gs_base;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        r->seg[i].selector = cpu->seg[i].selector;
        r->seg[i].attr = cpu->seg[i].attr;
        r->seg[i].limit = cpu->seg[i].limit;
        r->seg[i].base = cpu->seg[i].base;
    }
    r->gdtr.base = cpu->gdtr.base;
    r->gdtr.limit = cpu->gdtr.limit;
    r->idtr.base = cpu->idtr.base;
    r->idtr.limit = cpu->idtr.limit;
    r->cpl = cpu->cpl;
}

static bool run(struct sys *s, const char *bytes, unsigned len, bool precise)
{
    struct bt_cpu *cpu = &s->cpu;
    uint8_t code[X86_INSN_MAX] = {0};
    struct bt_op op;
    bool heavy;
    memcpy(code, bytes, len);
    unsigned mode = bt_code64(cpu) ? 64 : (cpu->mode & MODE_CODE32) ? 32 : 16;
    assert_int_equal(x86_decode(&op.insn, code, sizeof(code), mode), DECODE_OK);
    assert_int_equal(op.insn.len, len);
    op.run = bt_op_find(&op.insn, &heavy);
    assert_non_null(op.run);
    struct registers before, after;
    snapshot(cpu, &before);
    cpu->exc.pending = false;
    if (op.run(cpu, &op)) {
        assert_false(cpu->exc.pending);
        return true;
    }
    assert_true(cpu->exc.pending);
    snapshot(cpu, &after);
    if (precise)
        assert_memory_equal(&before, &after, sizeof(before));
    return false;
}

bool sys_run(struct sys *s, const char *bytes, unsigned len)
{
    return run(s, bytes, len, true);
}

bool sys_run_task(struct sys *s, const char *bytes, unsigned len)
{
    return run(s, bytes, len, false);
}

void sys_stack(struct sys *s, unsigned size, const uint64_t *values, unsigned count)
{
    uint64_t base = bt_code64(&s->cpu) ? 0 : s->cpu.seg[SEG_SS].base;
    for (unsigned i = 0; i < count; i++)
        sys_put(s, base + s->cpu.gpr[R_RSP] + i * size, size, values[i]);
}

int sys_deliver(struct sys *s, struct bt_exception e)
{
    e.pending = true;
    s->cpu.exc = e;
    bt_deliver(&s->cpu);
    assert_false(s->cpu.exc.pending);
    if (s->cpu.shutdown)
        return -1;
    uint64_t at = s->cpu.rip;
    if (!(s->cpu.cr0 & CR0_PE))
        at += s->cpu.seg[SEG_CS].base;
    assert_true(at >= AT_HANDLER && at < AT_HANDLER + 256 * 16 && at % 16 == 0);
    return (int)((at - AT_HANDLER) / 16);
}

void sys_expect(const struct sys *s, unsigned vector, int64_t error)
{
    assert_true(s->cpu.exc.pending);
    assert_int_equal(s->cpu.exc.vector, vector);
    assert_int_equal(s->cpu.exc.has_error, error >= 0);
    if (error >= 0)
        assert_int_equal(s->cpu.exc.error, error);
}
