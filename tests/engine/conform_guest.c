/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the conformance suite's cases share: preparing a guest, running it, looking at what it did. */
#include "conform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

#define GDT_CODE    UINT64_C(0x00cf9b000000ffff)
#define GDT_DATA    UINT64_C(0x00cf93000000ffff)
#define GDT_CODE64  UINT64_C(0x00af9b000000ffff)
#define GATE32      0x8e00u
#define SVR_ENABLED 0x1ffu

/* Logs the vector that the stub pushed. */
CODE(log_vector, "code32",
     "pusha; mov 32(%esp), %eax; mov 0x5ff0, %ebx; mov %al, 0x6000(%ebx); incl 0x5ff0;"
     "cmpl $0, 0x5ff8; je 1f; movl $0, 0xfee000b0; 1: popa; add $4, %esp; iret");

static void put32(struct harness *h, uint64_t at, uint32_t value)
{
    harness_write(h, at, &value, sizeof(value));
}

static void put_gate(struct harness *h, unsigned vector)
{
    uint8_t stub[10] = {0x68, (uint8_t)vector, 0, 0, 0, 0xe9};
    uint32_t at = AT_STUBS + 16 * vector, common = AT_STUBS + 16 * 256;
    store_le32(stub + 6, common - (at + sizeof(stub)));
    harness_write(h, at, stub, sizeof(stub));
    put32(h, AT_IDT + 8 * vector, 8u << 16 | (at & 0xffff));
    put32(h, AT_IDT + 8 * vector + 4, (at & 0xffff0000) | GATE32);
}

static void put_tables(struct harness *h)
{
    const uint64_t gdt[] = {0, GDT_CODE, GDT_DATA, GDT_CODE64};
    const uint32_t nothing = 0;
    harness_write(h, AT_GDT, gdt, sizeof(gdt));
    for (unsigned v = 0; v < 256; v++)
        put_gate(h, v);
    harness_write(h, AT_STUBS + 16 * 256, log_vector, CODE_SIZE(log_vector));
    harness_write(h, AT_COUNT, &nothing, sizeof(nothing));
    harness_write(h, AT_EOI, &nothing, sizeof(nothing));
}

static void ready(struct conform *c, unsigned cpu, const uint8_t *code, uint64_t size, struct x86_state *s)
{
    harness_write(c->h, AT_CODE, code, size);
    s->rip = AT_CODE;
    s->gpr[R_RSP] = AT_STACK + 0x1000 * cpu;
    s->gdtr = (struct x86_table){.base = AT_GDT, .limit = 31};
    s->idtr = (struct x86_table){.base = AT_IDT, .limit = 256 * 8 - 1};
    s->lapic.svr = SVR_ENABLED;
}

void conform_prepare(struct conform *c, unsigned cpu, const uint8_t *code, uint64_t size, struct x86_state *s)
{
    harness_state_protected(c->h, s, true);
    put_tables(c->h);
    ready(c, cpu, code, size, s);
    s->lapic.id = cpu;
    if (cpu)
        s->lapic.base &= ~BIT(8);
}

void conform_prepare_long(struct conform *c, const uint8_t *code, uint64_t size, struct x86_state *s)
{
    struct harness_pager pager;
    harness_pager_init(&pager, c->h, AT_TABLES, 0x40000);
    harness_map(&pager, 0, 0, 4 * MIB, PTE_P | PTE_W | PTE_A | PTE_D);
    harness_map(&pager, HARNESS_MMIO, HARNESS_MMIO, HARNESS_MMIO_SIZE, PTE_P | PTE_W | PTE_A | PTE_D);
    harness_state_long(c->h, s, pager.root);
    put_tables(c->h);
    ready(c, 0, code, size, s);
}

void conform_set(struct conform *c, unsigned cpu, const struct x86_state *s)
{
    harness_set(c->h, cpu, s);
}

void conform_run(struct conform *c, enum harness_result want, unsigned timeout_ms)
{
    enum harness_result got = harness_run(c->h, timeout_ms);
    if (got != want)
        conform_fail(c, "the run ended with %s (%s), not %s", harness_result_name(got), c->h->why,
                     harness_result_name(want));
}

void conform_log_is(struct conform *c, const uint8_t *vectors)
{
    uint32_t count = 0;
    uint8_t log[256];
    harness_read(c->h, AT_COUNT, &count, sizeof(count));
    harness_read(c->h, AT_LOG, log, sizeof(log));
    conform_equal(c, count, strlen((const char *)vectors), "interrupts taken");
    for (uint32_t i = 0; vectors[i] && i < count; i++)
        conform_equal(c, log[i], vectors[i], "vector");
}

static void *later_main(void *opaque)
{
    struct conform_later *l = opaque;
    usleep(l->ms * 1000);
    l->fn(l->c);
    return NULL;
}

void conform_later(struct conform_later *l, struct conform *c, unsigned ms, void (*fn)(struct conform *c))
{
    *l = (struct conform_later){.ms = ms, .fn = fn, .c = c};
    if (pthread_create(&l->thread, NULL, later_main, l) != 0) {
        perror("conform: cannot create a thread");
        exit(1);
    }
}

void conform_later_end(struct conform_later *l)
{
    pthread_join(l->thread, NULL);
}

void conform_equal(struct conform *c, uint64_t got, uint64_t want, const char *what)
{
    if (got != want)
        conform_fail(c, "%s: got 0x%llx, want 0x%llx", what, (unsigned long long)got,
                     (unsigned long long)want);
}
