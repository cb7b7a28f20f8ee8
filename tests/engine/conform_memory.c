/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Conformance: the dirty log, exact to the page, for what guests and devices write. */
#include "conform.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define PAGES (16 * MIB / GUEST_PAGE_SIZE)
#define WORDS (PAGES / 64)

/* Writes a byte to each page of a list of addresses at ESI that ends with 0. */
CODE(write_list, "code32",
     "1: mov (%esi), %eax; test %eax, %eax; jz 2f; incb (%eax); add $4, %esi; jmp 1b; 2: out %al, $0xf4; 9: "
     "jmp 9b");

#define AT_LIST 0x30000

static void mark(uint64_t *map, uint64_t gpa)
{
    map[gpa / GUEST_PAGE_SIZE / 64] |= BIT(gpa / GUEST_PAGE_SIZE % 64);
}

static void compare(struct conform *c, const uint64_t *want)
{
    uint64_t got[WORDS];
    memset(got, 0xff, sizeof(got));
    c->h->ops->dirty_fetch(c->h->engine, 0, got, WORDS);
    for (unsigned i = 0; i < WORDS; i++) {
        if (want[i] & ~got[i])
            conform_fail(c, "pages %u on: got too few: 0x%llx", i * 64,
                         (unsigned long long)(want[i] & ~got[i]));
        if (got[i] & ~want[i])
            conform_fail(c, "pages %u on: got too many: 0x%llx", i * 64,
                         (unsigned long long)(got[i] & ~want[i]));
    }
}

/* Has the guest write to random pages; they are marked in `map`. */
static void write_pages(struct conform *c, const struct x86_state *start, uint64_t *map)
{
    uint32_t list[100] = {0};
    unsigned n = 1 + (unsigned)(conform_random(c) % 98);
    for (unsigned i = 0; i < n; i++) {
        list[i] = (uint32_t)(AT_DATA + conform_random(c) % (14 * MIB));
        mark(map, list[i]);
    }
    harness_write(c->h, AT_LIST, list, sizeof(list));
    if (map[0] | map[AT_LIST / GUEST_PAGE_SIZE / 64])
        mark(map, AT_LIST); /* while the log is on, what the test itself writes counts too */
    conform_set(c, 0, start);
    conform_run(c, HARNESS_EXITED, 20000);
}

static void start_log(struct conform *c)
{
    struct error *err = NULL;
    if (!c->h->ops->dirty_start(c->h->engine, &err))
        conform_fail(c, "the log cannot be started");
}

static void guest_writes(struct conform *c)
{
    struct x86_state s;
    uint64_t ignored[WORDS] = {0}, none[WORDS] = {0};
    conform_prepare(c, 0, write_list, CODE_SIZE(write_list), &s);
    s.gpr[R_RSI] = AT_LIST;
    write_pages(c, &s, ignored); /* before the log is on */
    start_log(c);
    compare(c, none);
    for (unsigned round = 0; round < 10; round++) {
        uint64_t want[WORDS] = {0};
        mark(want, AT_LIST);
        write_pages(c, &s, want);
        compare(c, want);
        compare(c, none);
    }
    c->h->ops->dirty_stop(c->h->engine);
    write_pages(c, &s, ignored);
    start_log(c);
    compare(c, none);
    c->h->ops->dirty_stop(c->h->engine);
}

/* Each page of [EDI, ESI) once: more than a processor's log may hold at a time. */
CODE(write_range, "code32",
     "1: incb (%edi); add $4096, %edi; cmp %esi, %edi; jb 1b; out %al, $0xf4; 9: jmp 9b");

static void many_writes(struct conform *c)
{
    struct x86_state s;
    uint64_t want[WORDS] = {0};
    conform_prepare(c, 0, write_range, CODE_SIZE(write_range), &s);
    s.gpr[R_RDI] = AT_DATA;
    s.gpr[R_RSI] = 16 * MIB;
    for (uint64_t gpa = AT_DATA; gpa < 16 * MIB; gpa += GUEST_PAGE_SIZE)
        mark(want, gpa);
    conform_set(c, 0, &s);
    conform_run(c, HARNESS_EXITED, 20000); /* what is only read has been mapped before the log is on */
    start_log(c);
    for (unsigned round = 0; round < 3; round++) { /* pages that are logged again after a fetch */
        conform_set(c, 0, &s);
        conform_run(c, HARNESS_EXITED, 20000);
        compare(c, want);
    }
    c->h->ops->dirty_stop(c->h->engine);
}

static void device_writes(struct conform *c)
{
    uint64_t want[WORDS] = {0}, none[WORDS] = {0};
    const uint8_t data[8192] = {0};
    start_log(c);
    harness_write(c->h, 0x200ffc, data, 8); /* across two pages */
    harness_write(c->h, 0x300000, data, 1);
    harness_write(c->h, 0x400800, data, sizeof(data)); /* three pages */
    for (uint64_t gpa = 0x200000; gpa <= 0x201000; gpa += GUEST_PAGE_SIZE)
        mark(want, gpa);
    mark(want, 0x300000);
    for (uint64_t gpa = 0x400000; gpa <= 0x402000; gpa += GUEST_PAGE_SIZE)
        mark(want, gpa);
    compare(c, want);
    compare(c, none);
    c->h->ops->dirty_stop(c->h->engine);
}

/* Reading makes nothing dirty. */
CODE(read_list, "code32",
     "1: mov (%esi), %eax; test %eax, %eax; jz 2f; mov (%eax), %bl; add $4, %esi; jmp 1b; 2: out %al, $0xf4; "
     "9: jmp 9b");

static void guest_reads(struct conform *c)
{
    struct x86_state s;
    uint64_t want[WORDS] = {0}, read[WORDS] = {0};
    conform_prepare(c, 0, read_list, CODE_SIZE(read_list), &s);
    s.gpr[R_RSI] = AT_LIST;
    start_log(c);
    write_pages(c, &s, read);
    mark(want, AT_LIST);
    compare(c, want);
    c->h->ops->dirty_stop(c->h->engine);
}

const struct conform_case conform_memory_cases[] = {
    {"dirty log of what a guest writes", 1, guest_writes},
    {"dirty log of nearly all memory, again and again", 1, many_writes},
    {"dirty log of what devices write", 1, device_writes},
    {"reading is not dirty", 1, guest_reads},
    {NULL, 0, NULL},
};
