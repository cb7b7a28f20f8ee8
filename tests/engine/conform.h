/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The conformance suite from the host's side: what engine_ops promises, the same for every engine. A case is
 * one function in a table; it runs in a machine of its own. Results are lines as the test guests print them:
 * "ok NUMBER - NAME" or "not ok NUMBER - NAME", with lines "# ..." about what was wrong before.
 */
#ifndef TESTS_ENGINE_CONFORM_H
#define TESTS_ENGINE_CONFORM_H

#include <stdbool.h>
#include <stdint.h>

#include "harness.h"

struct conform {
    const char *engine, *other; /* names; other: the engine to exchange states with, may be the same */
    uint64_t random;            /* state of conform_random */
    struct harness *h;          /* the case's machine */
    bool bad;                   /* the case has failed */
};

struct conform_case {
    const char *name;
    unsigned cpus;
    void (*run)(struct conform *c);
};

/* One table a file; each ends with a NULL name. */
extern const struct conform_case conform_state_cases[];
extern const struct conform_case conform_io_cases[];
extern const struct conform_case conform_irq_cases[];
extern const struct conform_case conform_eventfd_cases[];
extern const struct conform_case conform_memory_cases[];
extern const struct conform_case conform_user_cases[];
extern const struct conform_case conform_watch_cases[];

/* Notes a failure; at most a few a case are printed. */
void conform_fail(struct conform *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void conform_equal(struct conform *c, uint64_t got, uint64_t want, const char *what);
uint64_t conform_random(struct conform *c);

/* Machine code: CODE(name, "code32", "...") makes name[] and name_end[]. */
#define CODE(name, bits, text)                                                                               \
    extern const uint8_t name[], name##_end[];                                                               \
    __asm__(".pushsection .rodata.code, \"a\"\n.globl " #name ", " #name "_end\n" #name ":\n." bits          \
            "\n" text "\n" #name "_end:\n.code64\n.popsection\n")
#define CODE_SIZE(name) ((uint64_t)(name##_end - name))

/* Where things lie in the guest. */
enum {
    AT_GDT = 0x800,
    AT_IDT = 0x1000,
    AT_STUBS = 0x2000, /* 16 bytes a vector */
    AT_COUNT = 0x5ff0, /* interrupts taken, 4 bytes */
    AT_EOI = 0x5ff8,   /* not 0: handlers write EOI */
    AT_LOG = 0x6000,   /* their vectors, a byte each */
    AT_CODE = 0x10000,
    AT_STACK = 0x20000, /* top; vCPU n's is n * 0x1000 above */
    AT_TABLES = 0x40000,
    AT_DATA = 0x100000,
};

/*
 * Makes a vCPU ready to run code at AT_CODE in 32-bit protected mode, flat, with an IDT whose handlers log
 * their vector. The local APIC is on. Interrupts are off. *s is the state, set by conform_start.
 */
void conform_prepare(struct conform *c, unsigned cpu, const uint8_t *code, uint64_t size,
                     struct x86_state *s);
/* The same in long mode; `flags` are those of the pages, which map the first 16 MiB and the scratch
 * registers. */
void conform_prepare_long(struct conform *c, const uint8_t *code, uint64_t size, struct x86_state *s);
void conform_set(struct conform *c, unsigned cpu, const struct x86_state *s);
/* Runs and expects this end. */
void conform_run(struct conform *c, enum harness_result want, unsigned timeout_ms);
/* The vectors taken so far must be these, ending with 0. */
void conform_log_is(struct conform *c, const uint8_t *vectors);

/* Calls fn after some milliseconds, on a thread of its own; conform_later_end waits for it. */
struct conform_later {
    pthread_t thread;
    unsigned ms;
    void (*fn)(struct conform *c);
    struct conform *c;
};
void conform_later(struct conform_later *l, struct conform *c, unsigned ms, void (*fn)(struct conform *c));
void conform_later_end(struct conform_later *l);

#endif
