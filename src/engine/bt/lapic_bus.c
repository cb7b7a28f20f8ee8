/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages between local APICs: who is meant by a destination, IPIs, MSIs and the PIC's INTR. SDM vol. 3
 * sections 11.6 and 11.12.9 to 11.12.10. gpr-only; any thread but for lapic_send_ipi.
 */
#include "engine/bt/lapic_impl.h"

struct message {
    enum lapic_delivery mode;
    uint8_t vector;
    bool level;
    bool logical;
    bool wide; /* x2APIC destination: 32 bits, broadcast is all ones */
    uint32_t dest;
};

static bool is_broadcast(const struct message *m)
{
    return m->dest == (m->wide ? UINT32_MAX : 0xffu);
}

static bool matches_logical(const struct bt_lapic *l, const struct message *m)
{
    if (lapic_x2(l)) {
        uint32_t cluster = l->id >> 4, bit = 1u << (l->id & 15);
        return m->dest >> 16 == cluster && (m->dest & bit);
    }
    uint32_t ldr = l->ldr >> 24, dest = m->dest;
    if (dest > 0xff)
        return false;
    if (l->dfr >> 28 == 0xf)
        return ldr & dest;
    bool cluster = (dest & 0xf0) == 0xf0 || (dest & 0xf0) == (ldr & 0xf0);
    return cluster && (ldr & dest & 0xf);
}

static bool matches(const struct bt_lapic *l, const struct message *m)
{
    if (!lapic_enabled(l))
        return false;
    if (is_broadcast(m))
        return true;
    return m->logical ? matches_logical(l, m) : m->dest == l->id;
}

void lapic_post(struct bt_lapic *l, enum lapic_delivery mode, uint8_t vector, bool level, bool local)
{
    switch (mode) {
    case DELIVER_FIXED:
    case DELIVER_LOWEST:
        lapic_accept(l, vector, level, local);
        return;
    case DELIVER_NMI:
        l->cpu->nmi_request = true;
        break;
    case DELIVER_INIT:
        l->sipi_pending = false;
        l->init_pending = true;
        break;
    case DELIVER_SIPI:
        l->sipi_vector = vector;
        l->sipi_pending = true;
        break;
    case DELIVER_EXTINT:
        l->extint_pending = true;
        break;
    case DELIVER_SMI:
    case DELIVER_RESERVED:
        return; /* there is no system management mode */
    }
    lapic_notify(l, local);
}

static struct bt_lapic *lapic_of(const struct bt_engine *e, unsigned index)
{
    return e->cpu[index] ? e->cpu[index]->lapic : NULL;
}

/* Lowest priority: of those meant the one with the lowest task priority; equal ones take turns by vector. */
static struct bt_lapic *arbitrate(const struct bt_engine *e, const struct message *m)
{
    struct bt_lapic *best = NULL;
    unsigned count = e->config.cpu_count;
    for (unsigned n = 0; n < count; n++) {
        struct bt_lapic *l = lapic_of(e, (m->vector + n) % count);
        if (l && matches(l, m) && lapic_software_enabled(l) && (!best || l->tpr < best->tpr))
            best = l;
    }
    return best;
}

static void deliver(const struct bt_engine *e, const struct message *m)
{
    if (m->mode == DELIVER_LOWEST) {
        struct bt_lapic *l = arbitrate(e, m);
        if (l)
            lapic_post(l, m->mode, m->vector, m->level, false);
        return;
    }
    for (unsigned i = 0; i < e->config.cpu_count; i++) {
        struct bt_lapic *l = lapic_of(e, i);
        if (l && matches(l, m))
            lapic_post(l, m->mode, m->vector, m->level, false);
    }
}

/* Shorthands 2 and 3: all, and all but the sender. */
static void deliver_all(const struct bt_lapic *from, const struct message *m, bool self_too)
{
    const struct bt_engine *e = from->cpu->engine;
    for (unsigned i = 0; i < e->config.cpu_count; i++) {
        struct bt_lapic *l = lapic_of(e, i);
        if (l && lapic_enabled(l) && (self_too || l != from))
            lapic_post(l, m->mode, m->vector, m->level, false);
    }
}

void lapic_send_ipi(struct bt_lapic *l, uint32_t icr_low, uint32_t dest)
{
    enum { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };
    unsigned shorthand = icr_low >> 18 & 3;
    struct message m = {
        .mode = (enum lapic_delivery)(icr_low >> 8 & 7),
        .vector = icr_low & 0xff,
        .logical = icr_low & BIT(11),
        .wide = lapic_x2(l),
        .dest = dest,
    };
    bool deassert = (icr_low & (BIT(15) | BIT(14))) == BIT(15);
    if (m.mode == DELIVER_EXTINT || (m.mode == DELIVER_INIT && deassert))
        return;
    if ((m.mode == DELIVER_FIXED || m.mode == DELIVER_LOWEST) && m.vector < 16) {
        lapic_error(l, ESR_SEND_VECTOR, true);
        return;
    }
    if (shorthand == TO_SELF) {
        if (m.mode == DELIVER_FIXED)
            lapic_post(l, m.mode, m.vector, false, true);
        return;
    }
    lapic_leave_gpr(l); /* waking another vCPU goes through the C library */
    if (shorthand == TO_DEST)
        deliver(l->cpu->engine, &m);
    else
        deliver_all(l, &m, shorthand == TO_ALL);
}

unsigned bt_lapic_send_mask(struct bt_engine *e, const uint64_t mask[2], uint64_t first, uint32_t icr)
{
    enum lapic_delivery mode = (enum lapic_delivery)(icr >> 8 & 7);
    unsigned count = 0;
    if (mode != DELIVER_FIXED && mode != DELIVER_NMI)
        return 0;
    for (unsigned bit = 0; bit < 128; bit++) {
        uint64_t id = first + bit;
        if (!(mask[bit / 64] & BIT(bit % 64)) || id >= e->config.cpu_count)
            continue;
        struct bt_lapic *l = lapic_of(e, (unsigned)id);
        if (!l || !lapic_enabled(l))
            continue;
        lapic_post(l, mode, icr & 0xff, false, false);
        count++;
    }
    return count;
}

void bt_lapic_deliver_msi(struct bt_engine *e, uint64_t addr, uint32_t data)
{
    struct message m = {
        .mode = (enum lapic_delivery)(data >> 8 & 7),
        .vector = data & 0xff,
        .level = data & BIT(15),
        .logical = addr & BIT(2),
        .dest = (uint32_t)(addr >> 12) & 0xff,
    };
    if ((addr & UINT64_C(0xfffffffffff00000)) == APIC_BASE_ADDR)
        deliver(e, &m);
}

void bt_lapic_intr_changed(struct bt_engine *e)
{
    struct bt_lapic *l = lapic_of(e, 0);
    if (!l || !e->intr)
        return;
    uint32_t lint0 = l->lvt[LVT_LINT0];
    if (!lapic_enabled(l) || (lint0 >> 8 & 7) == DELIVER_EXTINT)
        bt_request(l->cpu, BT_REQ_EVENT);
    else
        lapic_local_interrupt(l, LVT_LINT0, false);
}
