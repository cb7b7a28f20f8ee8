/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the log says about a processor that cannot go on: registers, and the bytes of the instruction at
 * fault. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "vmm/board.h"

#define INSN_BYTES  16
#define PTE_PRESENT BIT(0)
#define PTE_LARGE   BIT(7)
#define PTE_ADDRESS 0x000ffffffffff000u

/* One table level: the entry for `va`, whose index has `bits` bits from `shift`. */
static bool read_entry(const struct guest_memory *mem, uint64_t table, uint64_t va, unsigned shift, bool wide,
                       uint64_t *entry)
{
    uint64_t index = va >> shift & (wide ? 0x1ff : 0x3ff);

    *entry = 0;
    return guest_read(mem, table + index * (wide ? 8 : 4), entry, wide ? 8 : 4) && (*entry & PTE_PRESENT);
}

/* Walks the page tables as the processor would, without changing them (SDM vol. 3 chapter 4). */
static bool translate(const struct guest_memory *mem, const struct x86_state *s, uint64_t va, uint64_t *pa)
{
    bool wide = s->cr4 & CR4_PAE;
    unsigned shift = s->efer & EFER_LMA ? 39 : wide ? 30 : 22;
    uint64_t table = s->cr3 & (s->efer & EFER_LMA || !wide ? PTE_ADDRESS : 0xffffffe0u);
    uint64_t entry;

    if (!(s->cr0 & CR0_PG)) {
        *pa = va;
        return true;
    }
    for (;;) {
        if (!read_entry(mem, table, va, shift, wide, &entry))
            return false;
        bool large = shift > 12 && shift < 39 && (entry & PTE_LARGE) && (wide || (s->cr4 & CR4_PSE));
        if (shift == 12 || large) {
            uint64_t page = BIT(shift) - 1;
            *pa = (entry & PTE_ADDRESS & ~page) | (va & page);
            return true;
        }
        table = entry & PTE_ADDRESS;
        shift -= wide ? 9 : 10;
    }
}

static void log_instruction(const struct guest_memory *mem, const struct x86_state *s)
{
    char text[INSN_BYTES * 3 + 1] = "";
    uint64_t va = s->seg[SEG_CS].base + s->rip;

    for (unsigned i = 0; i < INSN_BYTES; i++) {
        uint64_t pa;
        uint8_t byte;
        if (!translate(mem, s, va + i, &pa) || !guest_read(mem, pa, &byte, 1))
            break;
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%02x ", byte);
    }
    log_line(LOG_ERROR, "code at RIP: %s", *text ? text : "not readable");
}

static void log_segments(const struct x86_state *s)
{
    static const char *const names[SEG_COUNT] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDT", "TR"};

    for (int i = 0; i < SEG_COUNT; i++)
        log_line(LOG_ERROR, "%-3s %04x base %016" PRIx64 " limit %08x attr %05x", names[i],
                 s->seg[i].selector, s->seg[i].base, s->seg[i].limit, s->seg[i].attr);
    log_line(LOG_ERROR, "GDT base %016" PRIx64 " limit %04x  IDT base %016" PRIx64 " limit %04x",
             s->gdtr.base, s->gdtr.limit, s->idtr.base, s->idtr.limit);
}

void crash_log(struct board *b, unsigned index, const char *why)
{
    static const char *const names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"};
    struct x86_state s = {0};

    b->ops->get_state(vcpus_get(b->vcpus, index), &s);
    log_line(LOG_ERROR, "processor %u: %s", index, why);
    for (int i = 0; i < 16; i += 4)
        log_line(LOG_ERROR, "%s=%016" PRIx64 " %s=%016" PRIx64 " %s=%016" PRIx64 " %s=%016" PRIx64, names[i],
                 s.gpr[i], names[i + 1], s.gpr[i + 1], names[i + 2], s.gpr[i + 2], names[i + 3],
                 s.gpr[i + 3]);
    log_line(LOG_ERROR, "RIP=%016" PRIx64 " RFLAGS=%08" PRIx64 " EFER=%04" PRIx64, s.rip, s.rflags, s.efer);
    log_line(LOG_ERROR, "CR0=%08" PRIx64 " CR2=%016" PRIx64 " CR3=%016" PRIx64 " CR4=%08" PRIx64, s.cr0,
             s.cr2, s.cr3, s.cr4);
    log_segments(&s);
    log_instruction(b->m.memory, &s);
}
