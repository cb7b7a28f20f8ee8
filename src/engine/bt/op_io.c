/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IN and OUT, and who may use which port (SDM vol. 1 section 19.5). */
#include "base/util.h"
#include "engine/bt/io.h"
#include "engine/bt/ops.h"
#include "engine/bt/seg.h"

#define IMMEDIATE_BIT 0x08 /* of the opcode: set where DX holds the port */

/* Where a 32- or 64-bit TSS says how far into it the bitmap is. */
#define TSS_IO_BASE 102u

bool bt_io_allowed(struct bt_cpu *cpu, uint16_t port, unsigned size)
{
    bool vm86 = cpu->sysflags & FLAG_VM;
    if (!(cpu->cr0 & CR0_PE) || (!vm86 && cpu->cpl <= bt_iopl(cpu)))
        return true;
    const struct x86_segment *tr = &cpu->seg[SEG_TR];
    unsigned type = tr->attr & ATTR_TYPE;
    uint16_t base, bits;
    bool tss32 = type == DESC_TSS32 || type == DESC_TSS32_BUSY;
    if ((tr->attr & ATTR_UNUSABLE) || !tss32 || tr->limit < TSS_IO_BASE + 1)
        return bt_raise_error(cpu, VEC_GP, 0);
    if (!bt_read_lin(cpu, tr->base + TSS_IO_BASE, &base, sizeof(base), BT_IMPLICIT))
        return false;
    /* Two bytes are read always, so that one access tests all bits. */
    uint32_t at = base + port / 8u;
    if (at + 1 > tr->limit)
        return bt_raise_error(cpu, VEC_GP, 0);
    if (!bt_read_lin(cpu, tr->base + at, &bits, sizeof(bits), BT_IMPLICIT))
        return false;
    if (bits >> (port & 7) & ((1u << size) - 1))
        return bt_raise_error(cpu, VEC_GP, 0);
    return true;
}

/* Breakpoints on ports (SDM vol. 3 section 18.2.5): a trap after the access. */
static void check_breakpoints(struct bt_cpu *cpu, uint16_t port, unsigned size)
{
    enum { ON_PORT = 2 };
    uint64_t dr7 = cpu->dr[7];
    if (!(dr7 & 0xff) || !(cpu->cr4 & CR4_DE))
        return;
    for (unsigned i = 0; i < 4; i++) {
        unsigned kind = dr7 >> (16 + 4 * i) & 3, len = (dr7 >> (18 + 4 * i) & 3) + 1;
        uint64_t first = cpu->dr[i] & ~(uint64_t)(len - 1);
        bool on = dr7 >> (2 * i) & 3;
        if (on && kind == ON_PORT && port < first + len && first < port + (uint64_t)size)
            cpu->pending_db |= BIT(i);
    }
}

uint32_t bt_io_read(struct bt_cpu *cpu, uint16_t port, unsigned size)
{
    check_breakpoints(cpu, port, size);
    const struct engine_host *host = cpu->engine->config.host;
    atomic_store(&cpu->in_host, true);
    uint32_t value = host->port_read(host->opaque, port, size);
    atomic_store(&cpu->in_host, false);
    return value;
}

void bt_io_write(struct bt_cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    check_breakpoints(cpu, port, size);
    const struct engine_host *host = cpu->engine->config.host;
    atomic_store(&cpu->in_host, true);
    host->port_write(host->opaque, port, size, value);
    atomic_store(&cpu->in_host, false);
}

static uint16_t port_of(const struct bt_cpu *cpu, const struct bt_op *op)
{
    return op->insn.opcode & IMMEDIATE_BIT ? (uint16_t)cpu->gpr[R_RDX] : (uint8_t)op->insn.imm[0];
}

/* Ports are 1, 2 or 4 bytes wide: REX.W changes nothing. */
static unsigned port_size(const struct bt_op *op)
{
    return MIN(op->insn.opsize, 4u);
}

static bool op_in(struct bt_cpu *cpu, const struct bt_op *op)
{
    const struct x86_field al = {.kind = FIELD_GPR, .reg = R_RAX};
    unsigned size = port_size(op);
    uint16_t port = port_of(cpu, op);
    if (!bt_io_allowed(cpu, port, size))
        return false;
    bt_reg_write(cpu, &al, size, bt_io_read(cpu, port, size));
    return bt_op_next(cpu, op);
}

static bool op_out(struct bt_cpu *cpu, const struct bt_op *op)
{
    const struct x86_field al = {.kind = FIELD_GPR, .reg = R_RAX};
    unsigned size = port_size(op);
    uint16_t port = port_of(cpu, op);
    if (!bt_io_allowed(cpu, port, size))
        return false;
    bt_io_write(cpu, port, size, (uint32_t)bt_reg_read(cpu, &al, size));
    return bt_op_next(cpu, op);
}

const struct bt_op_entry bt_ops_io[] = {
    {.mnemonic = ZYDIS_MNEMONIC_IN, .fn = op_in, .heavy = true},
    {.mnemonic = ZYDIS_MNEMONIC_OUT, .fn = op_out, .heavy = true},
    {0},
};
