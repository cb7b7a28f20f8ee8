/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The software local APIC (SDM vol. 3 chapter 11), xAPIC and x2APIC, one per vCPU. Registers that other
 * threads change (IRR, pending INIT/SIPI/NMI) are atomic; the rest belongs to the vCPU's thread. Never takes
 * the machine lock.
 */
#ifndef BT_LAPIC_H
#define BT_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/bt/bt.h"

struct bt_lapic *bt_lapic_new(struct bt_cpu *cpu);
void bt_lapic_free(struct bt_lapic *l);
/* RESET; `init` true for INIT (keeps the APIC id and base). vCPU thread or not running. */
void bt_lapic_reset(struct bt_lapic *l, bool init);

/* Register access at an offset 0..0xFFC of the APIC page (xAPIC), or by x2APIC MSR. vCPU thread. */
uint32_t bt_lapic_read(struct bt_lapic *l, uint32_t offset);
void bt_lapic_write(struct bt_lapic *l, uint32_t offset, uint32_t value);
/* MSRs 0x1B, 0x6E0, 0x800..0x8FF. False: #GP. */
bool bt_lapic_rdmsr(struct bt_lapic *l, uint32_t msr, uint64_t *value);
bool bt_lapic_wrmsr(struct bt_lapic *l, uint32_t msr, uint64_t value);
/* Whether gpa lies in this APIC's enabled xAPIC page. */
bool bt_lapic_owns(const struct bt_lapic *l, uint64_t gpa);

uint64_t bt_lapic_cr8(const struct bt_lapic *l);
void bt_lapic_set_cr8(struct bt_lapic *l, uint64_t cr8);

/* Highest deliverable vector by priority, or -1. Also true of ExtINT from the PIC: see bt_lapic_acknowledge.
 * vCPU thread. */
bool bt_lapic_pending(struct bt_lapic *l);
/* INTA: moves the vector to ISR and returns it (or asks the PIC); -1 when nothing is left. vCPU thread, may
 * take the machine lock. */
int bt_lapic_acknowledge(struct bt_lapic *l);

/* An MSI or IPI for this engine's processors. Any thread. */
void bt_lapic_deliver_msi(struct bt_engine *e, uint64_t addr, uint32_t data);
/*
 * KVM's send-IPI hypercall: `icr` (vector and delivery mode) to the processors whose bits are set, bit 0 of
 * mask[0] being the one with APIC id `first`. Returns how many there were. vCPU thread, vectors saved.
 */
unsigned bt_lapic_send_mask(struct bt_engine *e, const uint64_t mask[2], uint64_t first, uint32_t icr);
/* The PIC's INTR changed. Any thread. */
void bt_lapic_intr_changed(struct bt_engine *e);
/* INIT or SIPI waiting? Takes them: returns true and the kind. vCPU thread. */
enum bt_lapic_event { BT_LAPIC_NONE, BT_LAPIC_INIT, BT_LAPIC_SIPI };
enum bt_lapic_event bt_lapic_take_event(struct bt_lapic *l, uint8_t *sipi_vector);

/*
 * Timer (one-shot, periodic, TSC deadline). The next expiry in host CLOCK_MONOTONIC nanoseconds, UINT64_MAX
 * for none; and the check that fires it when due. vCPU thread. A per-engine timer thread kicks running vCPUs
 * when theirs is due.
 */
uint64_t bt_lapic_next_expiry(struct bt_lapic *l);
void bt_lapic_check_timer(struct bt_lapic *l);
/* To be called after cpu->tsc_offset changed. vCPU thread or not running. */
void bt_lapic_tsc_changed(struct bt_lapic *l);

void bt_lapic_get(struct bt_lapic *l, struct x86_lapic *out);
void bt_lapic_set(struct bt_lapic *l, const struct x86_lapic *in);

#endif
