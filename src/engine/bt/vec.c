/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest vectors between the host's registers and cpu->xsave. C code runs with the default rounding and masks.
 * The addresses of the last x87 instruction and operand, which are the host's, never get into the saved
 * state. gpr-only.
 */
#include "engine/bt/vec.h"

#include <stdatomic.h>

#include "base/util.h"

/* Sticky flags do not matter to C code, rounding, masks and FTZ/DAZ do. */
#define MXCSR_CONTROL 0xffc0u

static bool uses_xsave(const struct bt_cpu *cpu)
{
    return cpu->engine->config.cpu->xcr0_mask & XSTATE_AVX;
}

static uint32_t probe_mxcsr_mask(void)
{
    uint8_t image[512] __attribute__((aligned(16)));
    store_le32(image + XS_MXCSR_MASK, 0);
    __asm__ volatile("fxsave64 (%0)" : : "r"(image) : "memory");
    uint32_t mask = load_le32(image + XS_MXCSR_MASK);
    return mask ? mask : 0xffbf; /* SDM vol. 1 section 11.6.6 */
}

uint32_t bt_mxcsr_mask(void)
{
    static _Atomic uint32_t mask;
    uint32_t m = atomic_load_explicit(&mask, memory_order_relaxed);
    if (!m) {
        m = probe_mxcsr_mask();
        atomic_store_explicit(&mask, m, memory_order_relaxed);
    }
    return m;
}

void bt_vec_save(struct bt_cpu *cpu)
{
    if (!cpu->vec_live)
        return;
    cpu->vec_live = false;
    uint8_t *area = cpu->xsave;
    if (uses_xsave(cpu)) {
        uint32_t mask = (uint32_t)bt_vec_components(cpu);
        __asm__ volatile("xsave64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
    } else {
        __asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
        store_le64(area + XS_BV, XSTATE_X87 | XSTATE_SSE);
    }
    store_le16(area + XS_FOP, 0);
    store_le64(area + XS_FIP, 0);
    store_le64(area + XS_FDP, 0);
    if ((load_le32(area + XS_MXCSR) & MXCSR_CONTROL) != MXCSR_DEFAULT) {
        const uint32_t normal = MXCSR_DEFAULT;
        __asm__ volatile("ldmxcsr %0" : : "m"(normal));
    }
    if (load_le32(area + XS_FCW) != FCW_DEFAULT || area[XS_FTW]) /* FCW and FSW, and any register in use */
        __asm__ volatile("fninit");
}

void bt_vec_discard(struct bt_cpu *cpu)
{
    const uint32_t normal = MXCSR_DEFAULT;
    cpu->vec_live = false;
    __asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(normal));
}

void bt_vec_load(struct bt_cpu *cpu)
{
    const uint8_t *area = cpu->xsave;
    if (uses_xsave(cpu)) {
        uint32_t mask = (uint32_t)bt_vec_components(cpu);
        __asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
    } else {
        __asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
    }
    cpu->vec_live = true;
}

/* Initial contents of the components whose bit in XSTATE_BV is clear, so that the area can be read without
 * asking. */
static void fill_initial(uint8_t *area, uint64_t absent)
{
    if (absent & XSTATE_X87) {
        for (unsigned i = 0; i < XS_MXCSR; i += 8)
            store_le64(area + i, 0);
        store_le16(area + XS_FCW, FCW_DEFAULT);
        for (unsigned i = XS_ST; i < XS_XMM; i += 8)
            store_le64(area + i, 0);
    }
    if (absent & XSTATE_SSE)
        for (unsigned i = XS_XMM; i < XS_XMM + 256; i += 8)
            store_le64(area + i, 0);
    if (absent & XSTATE_AVX)
        for (unsigned i = XS_AVX; i < XS_END; i += 8)
            store_le64(area + i, 0);
}

void bt_vec_sanitize(struct bt_cpu *cpu)
{
    uint8_t *area = cpu->xsave;
    uint64_t all = bt_vec_components(cpu), present = load_le64(area + XS_BV) & all, upper = 0;
    fill_initial(area, ~present);
    for (unsigned i = XS_AVX; (all & XSTATE_AVX) && i < XS_END; i += 8)
        upper |= load_le64(area + i);
    /* Upper halves that are in use, be they zero, slow SSE instructions down. */
    store_le64(area + XS_BV, upper ? all : all & ~XSTATE_AVX);
    for (unsigned i = XS_COMP_BV; i < XS_AVX; i += 8)
        store_le64(area + i, 0);
    store_le32(area + XS_MXCSR, load_le32(area + XS_MXCSR) & bt_mxcsr_mask());
    store_le16(area + XS_FOP, 0);
    store_le64(area + XS_FIP, 0);
    store_le64(area + XS_FDP, 0);
}
