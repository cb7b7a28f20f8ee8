/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's table of interrupt routes. Its first entries stand for the pins of an IOAPIC and are there
 * only because the kernel reports the EOI of those vectors that one of them has as level-triggered: a vector
 * gets its entry when the first such message uses it. The entries behind them are the messages of eventfds.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/util.h"
#include "engine/kvm/kvm.h"

#define EVERYBODY (KVM_MSI_ADDRESS | 0xff << KVM_MSI_DEST)

static struct kvm_irq_routing_entry message(unsigned gsi, uint64_t addr, uint32_t data)
{
    return (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_MSI,
        .u.msi = {.address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data}};
}

/* Gives the kernel the table as level_route and line have it. machine->lock held. */
static bool set_table(struct kvm_machine *m, struct error **err)
{
    cleanup(mem) struct kvm_irq_routing *table =
        calloc(1, sizeof(*table) + (KVM_PINS + KVM_LINES) * sizeof(struct kvm_irq_routing_entry));
    if (!table) {
        error_set_errno(err, ENOMEM, "cannot route an interrupt");
        return false;
    }
    for (unsigned i = KVM_FIRST_VECTOR; i < KVM_VECTORS; i++)
        if (m->level_route[i])
            table->entries[table->nr++] = message(i - KVM_FIRST_VECTOR, EVERYBODY, i | KVM_MSI_LEVEL);
    for (unsigned i = 0; i < KVM_LINES; i++)
        if (m->line[i].used)
            table->entries[table->nr++] = message(KVM_PINS + i, m->line[i].addr, m->line[i].data);
    return KVM_TRY(m->fd, KVM_SET_GSI_ROUTING, table, err);
}

bool kvm_route_level(struct kvm_machine *m, unsigned vector, struct error **err)
{
    if (vector < KVM_FIRST_VECTOR || vector >= KVM_VECTORS || m->level_route[vector])
        return true;
    m->level_route[vector] = true;
    return set_table(m, err);
}

/* ---- eventfds ---- */

/* Ties an eventfd to its entry or, with KVM_IRQFD_FLAG_DEASSIGN, unties it; by then what it had to deliver is
 * delivered. */
static bool tie(struct kvm_machine *m, const struct kvm_line *line, uint32_t flags, struct error **err)
{
    struct kvm_irqfd irqfd = {
        .fd = (uint32_t)line->fd, .gsi = KVM_PINS + (uint32_t)(line - m->line), .flags = flags};
    return KVM_TRY(m->fd, KVM_IRQFD, &irqfd, err);
}

static struct kvm_line *find(struct kvm_machine *m, int fd)
{
    for (unsigned i = 0; i < KVM_LINES; i++)
        if (m->line[i].used && m->line[i].fd == fd)
            return &m->line[i];
    return NULL;
}

static struct kvm_line *find_unused(struct kvm_machine *m)
{
    for (unsigned i = 0; i < KVM_LINES; i++)
        if (!m->line[i].used)
            return &m->line[i];
    return NULL;
}

/* The kernel takes the new message for eventfds that are tied already. machine->lock held. */
static bool set_line(struct kvm_machine *m, int fd, uint64_t addr, uint32_t data, struct error **err)
{
    struct kvm_line *line = find(m, fd);
    bool is_new = !line;
    if (is_new)
        line = find_unused(m);
    if (!line) {
        error_set(err, ENOSPC, "all %u lines of messages are in use", KVM_LINES);
        return false;
    }
    struct kvm_line before = *line;
    *line = (struct kvm_line){.used = true, .fd = fd, .addr = addr, .data = data};
    if (set_table(m, err) && (!is_new || tie(m, line, 0, err)))
        return true;
    *line = before;
    return false;
}

bool kvm_line_set(struct engine *e, int fd, uint64_t addr, uint32_t data, struct error **err)
{
    struct kvm_machine *m = kvm_machine_of(e);
    /* A level-triggered one needs an entry for its EOI too; devices' messages are not. */
    if (!kvm_msi_valid(addr, data) || (data & KVM_MSI_LEVEL)) {
        error_set(err, EINVAL, "0x%llx/0x%x is no message for a line", (unsigned long long)addr, data);
        return false;
    }
    pthread_mutex_lock(&m->lock);
    bool ok = set_line(m, fd, addr, data, err);
    pthread_mutex_unlock(&m->lock);
    return ok;
}

void kvm_line_drop(struct engine *e, int fd)
{
    struct kvm_machine *m = kvm_machine_of(e);
    struct error *err = NULL;
    bool ok = true;
    pthread_mutex_lock(&m->lock);
    struct kvm_line *line = find(m, fd);
    if (line) {
        ok = tie(m, line, KVM_IRQFD_FLAG_DEASSIGN, &err);
        line->used = false; /* its entry in the kernel's table goes with the next change: nothing uses it */
    }
    pthread_mutex_unlock(&m->lock);
    if (!ok)
        kvm_fail(m, err);
}

static bool tie_all(struct kvm_machine *m, uint32_t flags, struct error **err)
{
    for (unsigned i = 0; i < KVM_LINES; i++)
        if (m->line[i].used && !tie(m, &m->line[i], flags, err))
            return false;
    return true;
}

bool kvm_lines_hold(struct kvm_machine *m, struct error **err)
{
    return tie_all(m, KVM_IRQFD_FLAG_DEASSIGN, err);
}

bool kvm_lines_release(struct kvm_machine *m, struct error **err)
{
    return tie_all(m, 0, err);
}
