/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The benchmark's own suite: what an item is, and the few helpers that the items share.
 *
 * One static program holds all items. It runs natively and, as /init of an initial RAM disk, in a guest; the
 * machine code is the same. An item checks itself: every call must give the same checksum, and so must the
 * guest and the host.
 */
#ifndef SUITE_H
#define SUITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One thing to measure. `setup` makes what the item works on (NULL: nothing); `run` gets it and does
 * `operations` operations, about two milliseconds of work natively; `teardown` undoes `setup` (NULL: free()).
 * Items that compute may run in several threads at once, each with a context of its own.
 */
struct item {
    const char *name;
    unsigned operations;
    void *(*setup)(void);
    uint64_t (*run)(void *context); /* gives the checksum: a function of the code alone */
    void (*teardown)(void *context);
    unsigned cpus;           /* how many the item needs to mean anything; 0 is 1 */
    bool (*supported)(void); /* NULL: on every processor */
};

/* The items of a file; several files may share a name. */
struct group {
    const char *name;
    const struct item *items;
    size_t count;
};

extern const struct group group_integer;
extern const struct group group_data;
extern const struct group group_memory;
extern const struct group group_float;
extern const struct group group_vector;
extern const struct group group_system;
extern const struct group group_threads;

#define GROUP(word, table)                                                                                   \
    {                                                                                                        \
        .name = (word), .items = (table), .count = sizeof(table) / sizeof((table)[0])                        \
    }

/* Says what failed, with errno's text, and ends the program with status 1. */
_Noreturn void die(const char *what);

/* Memory of its own, zeroed; ends the program where there is none. */
void *allocate(size_t size);

/* Folds a value into a checksum. */
static inline uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * 0x9e3779b97f4a7c15ULL;
    return sum ^ (sum >> 29);
}

/* The next of a sequence of random numbers (xorshift64*); the state must not be 0. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dULL;
}

/* The folder on tmpfs that items may use. */
#define SCRATCH_FOLDER "/dev/shm"

/* The first argument with which the program does nothing but end, for items that start a program. */
#define ARGUMENT_NOTHING "--nothing"

/* When the program is the first process of a machine: makes the folders that items need, before anything is
 * measured. */
void init_prepare(void);

/* Turns the machine off. */
_Noreturn void init_power_off(void);

#endif
