/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile guest code: any bytes, in any mode, on two processors' worth of engine state. Whatever the guest
 * does, the process neither crashes nor reads or writes outside of the guest's memory (the sanitizers watch),
 * and it answers a kick.
 *
 * Input: one byte of mode, three of register seeds, then code.
 */
#include <string.h>

#include "base/util.h"
#include "harness.h"

#define CODE_GPA 0x8000u
#define CODE_MAX 4096u
#define RUN_MS   15u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct harness *h;
static struct harness_pager pager;

static void open_machine(void)
{
    struct harness_options options = {.engine = "bt", .memory = 4 * MIB};
    h = harness_open(&options);
    if (!h)
        __builtin_trap();
    harness_pager_init(&pager, h, 0x100000, 0x80000);
    harness_map(&pager, 0, 0, 0x200000, PTE_P | PTE_W | PTE_U);
    harness_map(&pager, HARNESS_MMIO, HARNESS_MMIO, 0x10000, PTE_P | PTE_W | PTE_U);
}

/* Tables that are there but hold whatever the last run left, so that exceptions have somewhere to go. */
static void choose_state(struct x86_state *s, uint8_t mode, const uint8_t *seed)
{
    switch (mode & 3) {
    case 0:
        harness_state_real(h, s);
        break;
    case 1:
        harness_state_protected(h, s, mode & 4);
        break;
    default:
        harness_state_long(h, s, pager.root);
        break;
    }
    s->rip = CODE_GPA;
    s->gdtr = (struct x86_table){0x1000, 0x7ff};
    s->idtr = (struct x86_table){0x2000, 0xfff};
    if (!(mode & 3))
        s->idtr = (struct x86_table){0, 0x3ff};
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = i * 0x1111u + seed[i % 3] * 0x101u;
    s->gpr[R_RSP] = 0x7000;
    s->gpr[R_RDI] = mode & 8 ? HARNESS_MMIO : CODE_GPA + seed[0];
    s->gpr[R_RSI] = CODE_GPA + 64;
    if (mode & 16)
        s->rflags |= FLAG_IF;
    if (mode & 32)
        s->rflags |= FLAG_TF;
    bool user = (mode & 64) && (mode & 3);
    for (unsigned i = SEG_ES; user && i <= SEG_GS; i++) {
        s->seg[i].selector |= 3;
        s->seg[i].attr |= ATTR_DPL;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t ending[CODE_MAX];
    struct x86_state state;
    if (!h)
        open_machine();
    /* Code that runs on comes to `out %al, $0xf4` soon. */
    for (unsigned i = 0; i < CODE_MAX; i += 2) {
        ending[i] = 0xe6;
        ending[i + 1] = HARNESS_EXIT_PORT;
    }
    if (size < 5 || size > CODE_MAX)
        return 0;
    choose_state(&state, data[0], data + 1);
    harness_write(h, CODE_GPA, ending, CODE_MAX);
    harness_write(h, CODE_GPA, data + 4, size - 4);
    harness_set(h, 0, &state);
    harness_clear(h);
    harness_run(h, RUN_MS);
    h->ops->get_state(h->vcpu[0], &state);
    return 0;
}
