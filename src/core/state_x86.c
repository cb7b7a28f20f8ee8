/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The fields of a processor's saved state. */
#include "core/state_x86.h"

#include <errno.h>

#include "base/error.h"
#include "x86/state.h"

_Static_assert(sizeof(enum x86_mp_state) == 4, "saved as a 32-bit number");

static const struct state_field segment_fields[] = {
    STATE_FIELD_U16(struct x86_segment, selector),
    STATE_FIELD_U32(struct x86_segment, attr),
    STATE_FIELD_U32(struct x86_segment, limit),
    STATE_FIELD_U64(struct x86_segment, base),
    STATE_FIELD_END,
};
static const struct state_desc segment_state = {
    .name = "x86-segment", .version = 1, .min_version = 1, .fields = segment_fields};

static const struct state_field table_fields[] = {
    STATE_FIELD_U64(struct x86_table, base),
    STATE_FIELD_U16(struct x86_table, limit),
    STATE_FIELD_END,
};
static const struct state_desc table_state = {
    .name = "x86-table", .version = 1, .min_version = 1, .fields = table_fields};

static const struct state_field lapic_fields[] = {
    STATE_FIELD_U64(struct x86_lapic, base),         STATE_FIELD_U32(struct x86_lapic, id),
    STATE_FIELD_U32(struct x86_lapic, tpr),          STATE_FIELD_U32(struct x86_lapic, ldr),
    STATE_FIELD_U32(struct x86_lapic, dfr),          STATE_FIELD_U32(struct x86_lapic, svr),
    STATE_FIELD_U32(struct x86_lapic, esr),          STATE_FIELD_U32_ARRAY(struct x86_lapic, isr, 8),
    STATE_FIELD_U32_ARRAY(struct x86_lapic, tmr, 8), STATE_FIELD_U32_ARRAY(struct x86_lapic, irr, 8),
    STATE_FIELD_U32(struct x86_lapic, icr_low),      STATE_FIELD_U32(struct x86_lapic, icr_high),
    STATE_FIELD_U32(struct x86_lapic, lvt_cmci),     STATE_FIELD_U32(struct x86_lapic, lvt_timer),
    STATE_FIELD_U32(struct x86_lapic, lvt_thermal),  STATE_FIELD_U32(struct x86_lapic, lvt_pmc),
    STATE_FIELD_U32(struct x86_lapic, lvt_lint0),    STATE_FIELD_U32(struct x86_lapic, lvt_lint1),
    STATE_FIELD_U32(struct x86_lapic, lvt_error),    STATE_FIELD_U32(struct x86_lapic, timer_initial),
    STATE_FIELD_U32(struct x86_lapic, timer_divide), STATE_FIELD_U64(struct x86_lapic, timer_start_ns),
    STATE_FIELD_U64(struct x86_lapic, tsc_deadline), STATE_FIELD_END,
};
static const struct state_desc lapic_state = {
    .name = "x86-lapic", .version = 1, .min_version = 1, .fields = lapic_fields};

static bool cpu_post_load(void *object, struct error **err)
{
    const struct x86_state *s = object;

    if (s->mp_state <= MP_WAIT_SIPI && s->exception_vector < 32)
        return true;
    error_set(err, EINVAL, "the saved state of the processor has impossible values");
    return false;
}

static const struct state_field cpu_fields[] = {
    STATE_FIELD_U64_ARRAY(struct x86_state, gpr, 16),
    STATE_FIELD_U64(struct x86_state, rip),
    STATE_FIELD_U64(struct x86_state, rflags),
    STATE_FIELD_STRUCT(struct x86_state, seg, SEG_COUNT, &segment_state),
    STATE_FIELD_STRUCT(struct x86_state, gdtr, 1, &table_state),
    STATE_FIELD_STRUCT(struct x86_state, idtr, 1, &table_state),
    STATE_FIELD_U64(struct x86_state, cr0),
    STATE_FIELD_U64(struct x86_state, cr2),
    STATE_FIELD_U64(struct x86_state, cr3),
    STATE_FIELD_U64(struct x86_state, cr4),
    STATE_FIELD_U64(struct x86_state, cr8),
    STATE_FIELD_U64(struct x86_state, xcr0),
    STATE_FIELD_U64(struct x86_state, efer),
    STATE_FIELD_U64_ARRAY(struct x86_state, dr, 8),
    STATE_FIELD_U64(struct x86_state, star),
    STATE_FIELD_U64(struct x86_state, lstar),
    STATE_FIELD_U64(struct x86_state, cstar),
    STATE_FIELD_U64(struct x86_state, sfmask),
    STATE_FIELD_U64(struct x86_state, kernel_gs_base),
    STATE_FIELD_U64(struct x86_state, sysenter_cs),
    STATE_FIELD_U64(struct x86_state, sysenter_esp),
    STATE_FIELD_U64(struct x86_state, sysenter_eip),
    STATE_FIELD_U64(struct x86_state, pat),
    STATE_FIELD_U64(struct x86_state, tsc_aux),
    STATE_FIELD_U64(struct x86_state, misc_enable),
    STATE_FIELD_U64(struct x86_state, spec_ctrl),
    STATE_FIELD_U64(struct x86_state, mtrr_def_type),
    STATE_FIELD_U64_ARRAY(struct x86_state, mtrr_fixed, 11),
    STATE_FIELD_U64_ARRAY(struct x86_state, mtrr_base, X86_VAR_MTRRS),
    STATE_FIELD_U64_ARRAY(struct x86_state, mtrr_mask, X86_VAR_MTRRS),
    STATE_FIELD_U64(struct x86_state, mcg_status),
    STATE_FIELD_U64(struct x86_state, tsc_adjust),
    STATE_FIELD_U64(struct x86_state, tsc),
    STATE_FIELD_U64(struct x86_state, clock_ns),
    STATE_FIELD_U64(struct x86_state, pv_system_time_msr),
    STATE_FIELD_U64(struct x86_state, pv_wall_clock_msr),
    STATE_FIELD_U64(struct x86_state, pv_eoi_msr),
    STATE_FIELD_U64(struct x86_state, pv_steal_msr),
    STATE_FIELD_U64(struct x86_state, pv_async_msr),
    STATE_FIELD_STRUCT(struct x86_state, lapic, 1, &lapic_state),
    STATE_FIELD_BYTES(struct x86_state, xsave, X86_XSAVE_MAX),
    STATE_FIELD_(struct x86_state, STATE_U32, mp_state, 1, 4),
    STATE_FIELD_U8(struct x86_state, sipi_vector),
    STATE_FIELD_BOOL(struct x86_state, nmi_pending),
    STATE_FIELD_BOOL(struct x86_state, nmi_blocked),
    STATE_FIELD_BOOL(struct x86_state, smi_pending),
    STATE_FIELD_BOOL(struct x86_state, init_pending),
    STATE_FIELD_BOOL(struct x86_state, sipi_pending),
    STATE_FIELD_BOOL(struct x86_state, interrupt_shadow),
    STATE_FIELD_BOOL(struct x86_state, exception_pending),
    STATE_FIELD_U8(struct x86_state, exception_vector),
    STATE_FIELD_BOOL(struct x86_state, exception_has_error),
    STATE_FIELD_U32(struct x86_state, exception_error),
    STATE_FIELD_BOOL(struct x86_state, interrupt_pending),
    STATE_FIELD_U8(struct x86_state, interrupt_vector),
    {.name = "pdpte_valid",
     .type = STATE_BOOL,
     .offset = offsetof(struct x86_state, pdpte_valid),
     .count = 1,
     .stride = sizeof(bool),
     .since = 2},
    {.name = "pdpte",
     .type = STATE_U64,
     .offset = offsetof(struct x86_state, pdpte),
     .count = X86_PDPTES,
     .stride = sizeof(uint64_t),
     .since = 2},
    STATE_FIELD_END,
};

const struct state_desc x86_cpu_state = {
    .name = "x86-cpu", .version = 2, .min_version = 1, .fields = cpu_fields, .post_load = cpu_post_load};
