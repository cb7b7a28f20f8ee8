/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reset values: see reset.h. */
#include "x86/reset.h"

#define RESET_CS_SELECTOR 0xf000
#define RESET_CS_BASE     0xffff0000
#define RESET_RIP         0xfff0
#define RESET_CR0         (CR0_CD | CR0_NW | CR0_ET)
#define RESET_DR6         0xffff0ff0
#define RESET_DR7         0x400
#define RESET_PAT         UINT64_C(0x0007040600070406)
#define RESET_FCW         0x37f
#define RESET_MXCSR       0x1f80

#define APIC_BASE    UINT64_C(0xfee00000)
#define APIC_BSP     BIT(8)
#define APIC_ENABLED BIT(11)
#define LVT_MASKED   0x10000u

static void reset_lapic(struct x86_lapic *l, unsigned index)
{
    l->base = APIC_BASE | APIC_ENABLED | (index ? 0 : APIC_BSP);
    l->id = index;
    l->dfr = UINT32_MAX;
    l->svr = 0xff;
    l->lvt_timer = l->lvt_thermal = l->lvt_pmc = LVT_MASKED;
    l->lvt_lint0 = l->lvt_lint1 = l->lvt_error = LVT_MASKED;
}

static void reset_segments(struct x86_state *s)
{
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i] = (struct x86_segment){.attr = ATTR_P | ATTR_S | 3, .limit = 0xffff};
    s->seg[SEG_CS].selector = RESET_CS_SELECTOR;
    s->seg[SEG_CS].base = RESET_CS_BASE;
    s->seg[SEG_CS].attr |= 8;
    s->seg[SEG_LDTR] = (struct x86_segment){.attr = ATTR_P | 2, .limit = 0xffff};
    s->seg[SEG_TR] = (struct x86_segment){.attr = ATTR_P | 11, .limit = 0xffff};
    s->gdtr = s->idtr = (struct x86_table){.limit = 0xffff};
}

void x86_state_reset(struct x86_state *s, const struct cpuid_model *model, unsigned index)
{
    uint32_t identity[4];
    memset(s, 0, sizeof(*s));
    cpuid_model_query(model, 1, 0, index, 0, 1, identity);
    s->gpr[R_RDX] = identity[0]; /* family, model, stepping */
    s->rip = RESET_RIP;
    s->rflags = 2;
    s->cr0 = RESET_CR0;
    s->xcr0 = 1;
    s->dr[6] = RESET_DR6;
    s->dr[7] = RESET_DR7;
    s->pat = RESET_PAT;
    s->misc_enable = 1;
    store_le16(s->xsave, RESET_FCW);
    store_le32(s->xsave + 24, RESET_MXCSR);
    reset_segments(s);
    reset_lapic(&s->lapic, index);
    s->mp_state = index ? MP_WAIT_SIPI : MP_RUNNING;
}
