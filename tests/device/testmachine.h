/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine for device tests, without processors. Machine time stands still unless a test moves it, so
 * counters and timers are exact; what depends on other threads or descriptors is served by running the real
 * loop for a while. Interrupts, messages and machine events are recorded. Failures go through cmocka.
 */
#ifndef TESTS_DEVICE_TESTMACHINE_H
#define TESTS_DEVICE_TESTMACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/device.h"
#include "core/machine.h"

#define TEST_RAM_SIZE (4u << 20)
#define TEST_GSIS     24
#define TEST_MSI_MAX  64

struct test_msi {
    uint64_t addr;
    uint32_t data;
};

/* An eventfd that a device gave to the engine. */
struct test_eventfd {
    uint64_t addr; /* 0: free */
    uint32_t data;
    int fd;
};
#define TEST_EVENTFDS 16

struct test_machine {
    struct machine m;
    bool gsi_level[TEST_GSIS];
    unsigned gsi_rises[TEST_GSIS]; /* how often each line went up */
    unsigned msi_count; /* all that were sent; the last TEST_MSI_MAX are in msi[n % TEST_MSI_MAX] */
    struct test_msi msi[TEST_MSI_MAX];
    unsigned event_count;
    enum machine_event last_event;
    uint32_t last_event_value;
    bool intr;              /* the PIC's output, once connected */
    unsigned written_count; /* how often RAM was marked as written */

    /* What an engine with doorbells and lines was asked for: test_machine_offer_... */
    bool refuse_eventfds;
    struct test_eventfd bell[TEST_EVENTFDS], line[TEST_EVENTFDS];
    unsigned rung;     /* writes that signalled a doorbell */
    unsigned line_set; /* calls of it */
};

/* An empty machine: buses, RAM, loop, clock at 1 s. */
struct test_machine *test_machine_new(void);
void test_machine_free(struct test_machine *t);

/*
 * The engine has doorbells, or lines, from now on. test_write signals doorbells; signals of lines stay in
 * their eventfds. With RUCHE_TEST_DOORBELLS in the environment every test machine has doorbells.
 */
void test_machine_offer_doorbells(struct test_machine *t);
void test_machine_offer_lines(struct test_machine *t);
/* The first of a table at that address, NULL: none; for address 0 a free one. */
struct test_eventfd *test_eventfd_find(struct test_eventfd *table, uint64_t addr);

/* Makes and realizes a device; `props` is "NAME=VALUE,..." or NULL. Fails the test when it cannot be made. */
struct device *test_machine_add(struct test_machine *t, const char *cls, const char *props);

/*
 * What a class needs to be realized in a test: the devices it sits on and the properties without which it
 * refuses. Adds the former and returns the latter (NULL: none), so that any class of the table can be made
 * with test_machine_add.
 */
const char *test_machine_prepare(struct test_machine *t, const char *cls);

/* Moves machine time, calling timers at their deadlines in order. Returns how many fired. */
unsigned test_machine_advance(struct test_machine *t, uint64_t ns);

/* Runs the loop for so long in real time (descriptors, posted functions, loop timers). Machine time stands
 * still. */
void test_machine_run(struct test_machine *t, unsigned ms);

/* Port and memory accesses as a vCPU makes them. */
uint32_t test_in(struct test_machine *t, uint16_t port, unsigned size);
void test_out(struct test_machine *t, uint16_t port, unsigned size, uint32_t value);
uint64_t test_read(struct test_machine *t, uint64_t gpa, unsigned size);
void test_write(struct test_machine *t, uint64_t gpa, unsigned size, uint64_t value);

/* One random access somewhere in the windows now mapped. */
void test_random_access(struct test_machine *t, uint64_t *rng);

/* xorshift64*; the seed must not be 0. */
uint64_t test_random(uint64_t *state);
/* The seed from RUCHE_TEST_SEED, or a new one; printed, so that a failure can be repeated. */
uint64_t test_seed(void);

#endif
