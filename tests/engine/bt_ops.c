/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The processor that bt_ops.h tells of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "bt_ops.h"
#include "os/loop.h"

struct cpuid_model model;
struct guest_memory *memory;
const struct engine_ops *ops;
static struct engine *engine;
struct bt_cpu *cpu;
uint32_t port_value;
unsigned port_reads, port_writes;

static uint32_t port_read(void *opaque, uint16_t port, unsigned size)
{
    port_reads++;
    return port_value++;
}

static void port_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    port_writes++;
    port_value = value;
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    return ~UINT64_C(0);
}

static void mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
}

static uint64_t host_now(void *opaque)
{
    return monotonic_ns();
}

static const struct engine_host host = {.port_read = port_read,
                                        .port_write = port_write,
                                        .mmio_read = mmio_read,
                                        .mmio_write = mmio_write,
                                        .now = host_now};

static uint64_t window_gpa(unsigned page)
{
    return WINDOW_PHYS + (uint64_t)(page * 5 % PAGES) * GUEST_PAGE_SIZE;
}

uint8_t *window_host(unsigned offset)
{
    return (uint8_t *)guest_ptr(memory, window_gpa(offset / GUEST_PAGE_SIZE), GUEST_PAGE_SIZE, true) +
           offset % GUEST_PAGE_SIZE;
}

static void put64(uint64_t gpa, uint64_t value)
{
    assert_true(guest_write(memory, gpa, &value, sizeof(value)));
}

static void map_pages(void)
{
    for (unsigned level = 0; level < 3; level++)
        put64(PAGE_TABLES + level * 0x1000, (PAGE_TABLES + (level + 1) * 0x1000) | 7);
    for (unsigned i = 0; i < 512; i++)
        put64(PAGE_TABLES + 0x3000 + 8 * i, (uint64_t)i << 12 | 7);
    unsigned first = WINDOW / GUEST_PAGE_SIZE;
    for (unsigned i = 0; i < PAGES; i++)
        put64(PAGE_TABLES + 0x3000 + 8 * (first + i), window_gpa(i) | 7);
    put64(PAGE_TABLES + 0x3000 + 8 * (first - 1), 0);
    put64(PAGE_TABLES + 0x3000 + 8 * (first + PAGES), 0);
}

/* 64-bit kernel code, flat, paging on. */
static void long_mode(void)
{
    const uint32_t data = ATTR_P | ATTR_S | 3;
    for (unsigned i = 0; i <= SEG_GS; i++)
        cpu->seg[i] =
            (struct x86_segment){.selector = 0x10, .attr = data | ATTR_DB | ATTR_G, .limit = UINT32_MAX};
    cpu->seg[SEG_CS].attr = ATTR_P | ATTR_S | ATTR_L | ATTR_G | 11;
    cpu->seg[SEG_TR] =
        (struct x86_segment){.selector = 0x20, .attr = ATTR_P | 11, .limit = 0x67, .base = TSS};
    cpu->cr0 = CR0_PG | CR0_PE | CR0_WP | CR0_NE | CR0_ET | CR0_MP;
    cpu->cr3 = PAGE_TABLES;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_PGE;
    if (model.xcr0_mask & 2)
        cpu->cr4 |= CR4_OSXSAVE;
    cpu->xcr0 = model.xcr0_mask;
    cpu->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    cpu->cpl = 0;
    bt_set_rflags(cpu, 2);
    bt_tlb_flush(cpu, true);
    bt_mode_update(cpu);
}

/* 32-bit code of the same (compatibility mode). */
void compatibility_mode(void)
{
    cpu->seg[SEG_CS].attr = ATTR_P | ATTR_S | ATTR_DB | ATTR_G | 11;
    bt_mode_update(cpu);
}

void user_mode(void)
{
    cpu->cpl = 3;
    bt_mode_update(cpu);
}

int bt_ops_setup(void **state)
{
    struct error *err = NULL;
    assert_true(cpuid_model_build(&model, "host", 1, NULL));
    memory = guest_memory_new(4 * MIB, NULL);
    assert_non_null(memory);
    for (unsigned i = 0; engines[i]; i++)
        if (!strcmp(engines[i]->name, "bt"))
            ops = engines[i];
    assert_non_null(ops);
    struct engine_config config = {.memory = memory, .host = &host, .cpu_count = 1, .cpu = &model};
    engine = ops->open(&config, &err);
    if (!engine)
        fail_msg("%s", error_text(err));
    cpu = (struct bt_cpu *)(void *)ops->vcpu_new(engine, 0, &err);
    ops->run_time(engine, true);
    assert_non_null(cpu);
    map_pages();
    long_mode();
    port_reads = port_writes = 0;
    return 0;
}

int bt_ops_teardown(void **state)
{
    ops->close(engine);
    guest_memory_free(memory);
    return 0;
}

enum outcome run(const void *code, size_t len)
{
    struct bt_op op = {0};
    assert_int_equal(x86_decode(&op.insn, code, len, cpu->mode & MODE_CODE64 ? 64 : 32), DECODE_OK);
    assert_int_equal(op.insn.len, len);
    op.run = bt_op_find(&op.insn, &op.heavy);
    assert_non_null(op.run);
    cpu->rip = CODE;
    cpu->exc = (struct bt_exception){0};
    if (op.heavy)
        bt_vec_save(cpu);
    bool ok = op.run(cpu, &op);
    bt_vec_save(cpu);
    assert_int_equal(ok, !cpu->exc.pending);
    if (!ok)
        assert_int_equal(cpu->rip, CODE);
    return !ok ? FAULT : cpu->rip == CODE ? AGAIN : DONE;
}

enum outcome run_to_end(const void *code, size_t len)
{
    enum outcome o;
    while ((o = run(code, len)) == AGAIN)
        ;
    return o;
}

void assert_exception(enum outcome o, unsigned vector)
{
    assert_int_equal(o, FAULT);
    assert_int_equal(cpu->exc.vector, vector);
}

uint64_t random64(void)
{
    return (uint64_t)(unsigned)rand() << 42 ^ (uint64_t)(unsigned)rand() << 21 ^ (uint64_t)(unsigned)rand();
}

void seed(void)
{
    unsigned s = (unsigned)monotonic_ns();
    print_message("seed %u\n", s);
    srand(s);
}
void write_window(unsigned offset, const uint8_t *data, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        *window_host(offset + i) = data[i];
}

void read_window(unsigned offset, uint8_t *data, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        data[i] = *window_host(offset + i);
}
