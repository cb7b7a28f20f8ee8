/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A bare test machine around any engine: guest memory, a few test devices, and a watchdog. No board, no
 * firmware: a test puts bytes into memory, sets the processors' state and runs until the guest says it is
 * done.
 *
 * Devices: a write to port 0xF4 ends the run with that value; bytes written to port 0xE9 are collected as
 * text; ports 0x300..0x31F and physical addresses from HARNESS_MMIO are scratch registers whose accesses are
 * counted and logged.
 * The last 24 bytes of the registers tell the guest, unlogged, what cannot be tested here (enum
 * harness_limit), how many accesses there were, and what the last one was: size | write << 8 | port << 9 |
 * low half of the address << 16.
 *
 * Threads: everything here is called from the one thread that opened the harness; vCPU 0 runs on it, the
 * others on threads of the harness.
 */
#ifndef TESTS_ENGINE_HARNESS_H
#define TESTS_ENGINE_HARNESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/engine.h"

#define HARNESS_EXIT_PORT   0xf4
#define HARNESS_TEXT_PORT   0xe9
#define HARNESS_PORT        0x300 /* scratch ports: 32 bytes of memory */
#define HARNESS_PORT_COUNT  32
#define HARNESS_MMIO        UINT64_C(0xd0000000) /* scratch registers: 64 KiB of memory outside RAM */
#define HARNESS_MMIO_SIZE   0x10000u
#define HARNESS_MMIO_LIMITS 0xffe8u
#define HARNESS_MMIO_COUNT  0xfff0u
#define HARNESS_MMIO_LAST   0xfff8u
#define HARNESS_ACCESS_MAX  4096u
#define HARNESS_TEXT_MAX    0x20000u

/* One access to a scratch port or register. */
struct harness_access {
    uint64_t address;
    uint64_t value;
    uint8_t size;
    bool write;
    bool port;
};

/* An eventfd of the test's, and what it is for. */
struct harness_eventfd {
    int fd; /* -1: unused */
    uint64_t addr;
    uint32_t data;
};
#define HARNESS_EVENTFDS 8

/* What is not the engine's to do right, as bits. Tests that would end a guest there are left out, and say so.
 */
enum harness_limit {
    LIMIT_EMULATOR =
        1, /* accesses to devices go through KVM's emulator, which knows no vector instructions but moves */
    LIMIT_TRANSLATOR = 2, /* the host's processor is QEMU's translator, which checks less than silicon does */
};

enum harness_result {
    HARNESS_EXITED,   /* the guest wrote to the exit port */
    HARNESS_SHUTDOWN, /* triple fault */
    HARNESS_RESET,
    HARNESS_ERROR,   /* the engine gave up */
    HARNESS_TIMEOUT, /* the guest did not end in time */
};

struct harness_options {
    const char *engine; /* NAME[,native=auto|off|always]; NULL: the first one that works here */
    const char *cpu;    /* CPUID model; NULL: "host" */
    unsigned cpu_count; /* 0: 1 */
    uint64_t memory;    /* bytes; 0: 64 MiB */
    FILE *trace;        /* gets the engine's trace; NULL: none */
};

struct harness_worker; /* a vCPU's thread */

struct harness {
    const struct engine_ops *ops;
    struct engine *engine;
    struct guest_memory *memory;
    struct cpuid_model cpu;
    struct engine_host host;
    struct engine_config config;
    unsigned cpu_count;
    unsigned limits; /* enum harness_limit */
    struct vcpu *vcpu[32];
    struct harness_worker *worker;

    /* What happened; readable between runs. */
    uint32_t exit_value;
    char why[640]; /* for SHUTDOWN, RESET, ERROR, TIMEOUT, and of an error after EXITED: one line */
    char *text;    /* what was written to the text port, NUL-terminated */
    unsigned text_length;
    struct harness_access *access;
    unsigned access_count;
    uint8_t ports[HARNESS_PORT_COUNT];
    uint8_t mmio[HARNESS_MMIO_SIZE];
    unsigned eoi_count;
    uint8_t eoi_vector;
    int pic_vector; /* the answer to the next INTA cycle, -1: none */
    bool echo;      /* also print the guest's text as it comes */

    /* Doorbells and lines, where the engine leaves them to the machine. */
    struct harness_eventfd bell[HARNESS_EVENTFDS], line[HARNESS_EVENTFDS];

    /* Inner state. */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    pthread_t watchdog;
    atomic_int stop; /* 1 + enum harness_result once the run is to end */
    uint64_t deadline_ns;
    unsigned generation, running;
    bool closing;
    uint64_t start_ns;
    uint64_t stopped_ns; /* machine time while it stands still, 0: it runs */
};

/* Opens a machine; prints the reason and returns NULL on failure. */
struct harness *harness_open(const struct harness_options *options);
/* NULL is fine. */
void harness_close(struct harness *h);

/*
 * Runs all vCPUs until the guest ends the run, one of them cannot go on, or timeout_ms have passed. An engine
 * that does not come back at all ends the process with a message.
 */
enum harness_result harness_run(struct harness *h, unsigned timeout_ms);
const char *harness_result_name(enum harness_result result);

/*
 * Doorbells and lines as in struct engine_ops. Where the engine has none the harness does what a machine
 * would do without. The process ends with a message when the engine refuses one.
 */
void harness_doorbell_add(struct harness *h, uint64_t gpa, int fd);
void harness_doorbell_remove(struct harness *h, uint64_t gpa, int fd);
void harness_line_set(struct harness *h, int fd, uint64_t addr, uint32_t data);
void harness_line_drop(struct harness *h, int fd);
/* Sends the message of a line, n times. */
void harness_line_signal(struct harness *h, int fd, uint64_t n);

/* Machine time stands still or goes on, and guest time with it. It goes on from the start. No vCPU is
 * running. */
void harness_run_time(struct harness *h, bool running);

/* Forgets text, accesses and counters. */
void harness_clear(struct harness *h);

/* Memory by physical address; outside of RAM: the process ends with a message. */
void harness_write(struct harness *h, uint64_t gpa, const void *data, uint64_t len);
void harness_read(struct harness *h, uint64_t gpa, void *data, uint64_t len);
/* For comparing results; not to be written through. */
const void *harness_peek(struct harness *h, uint64_t gpa, uint64_t len);

/* Sets a vCPU's state; the process ends with a message when the engine refuses it. */
void harness_set(struct harness *h, unsigned index, const struct x86_state *state);

/*
 * Starting points for a state: everything that reset defines (from the engine itself), flat segments, tables
 * of limit 0, RIP 0, interrupts off, FPU and SSE (and AVX where the model has it) ready. Page tables are the
 * caller's.
 */
void harness_state_real(struct harness *h, struct x86_state *s);
void harness_state_protected(struct harness *h, struct x86_state *s, bool code32);
void harness_state_long(struct harness *h, struct x86_state *s, uint64_t cr3);
/* A flat segment: type and DPL as in a descriptor's attributes. */
struct x86_segment harness_segment(uint16_t selector, uint64_t base, uint32_t limit, uint32_t attr);

/* Four-level page tables, built in a pool of guest memory. */
struct harness_pager {
    struct harness *h;
    uint64_t root; /* for CR3 */
    uint64_t next, end;
};

#define PTE_P   BIT(0)
#define PTE_W   BIT(1)
#define PTE_U   BIT(2)
#define PTE_PWT BIT(3)
#define PTE_PCD BIT(4)
#define PTE_A   BIT(5)
#define PTE_D   BIT(6)
#define PTE_PS  BIT(7)
#define PTE_G   BIT(8)
#define PTE_NX  BIT(63)

void harness_pager_init(struct harness_pager *p, struct harness *h, uint64_t pool, uint64_t size);
/* Maps [va, va + size) to gpa by 4 KiB pages with `flags` in the last level; upper levels allow everything.
 */
void harness_map(struct harness_pager *p, uint64_t va, uint64_t gpa, uint64_t size, uint64_t flags);

#endif
