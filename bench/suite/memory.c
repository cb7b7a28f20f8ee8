/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory items: copying, dependent loads at several sizes, strides, stack frames.
 */
#include "suite.h"

#include <stdlib.h>
#include <string.h>

#define COPY_SIZE    (1 << 20)
#define COPY_REPEATS 20

static void *copy_setup(void)
{
    uint8_t *buffer = allocate((size_t)2 * COPY_SIZE);
    for (size_t i = 0; i < COPY_SIZE; i++)
        buffer[i] = (uint8_t)(i * 7);
    return buffer;
}

static uint64_t copy_run(void *context)
{
    uint8_t *from = context, *to = from + COPY_SIZE;
    uint64_t sum = 0;
    for (unsigned i = 0; i < COPY_REPEATS; i++) {
        from[i * 4099] = (uint8_t)i;
        memcpy(to, from, COPY_SIZE);
        sum = mix(sum, to[i * 4099]);
    }
    return mix(sum, to[COPY_SIZE - 1]);
}

static uint64_t set_run(void *context)
{
    uint8_t *buffer = context;
    uint64_t sum = 0;
    for (unsigned i = 0; i < COPY_REPEATS; i++) {
        memset(buffer, (int)i, COPY_SIZE);
        sum = mix(sum, buffer[i * 4099]);
    }
    return sum;
}

/*
 * A chain through all lines of a buffer, each holding the address of the next. The order is that of a linear
 * congruential sequence of full period: no hardware prefetches it, making it costs one pass, and where it
 * leads can be foretold. Each call goes on where the last one ended, so that all of the buffer is used.
 */
#define LINE        64
#define STEP_FACTOR 1664525
#define STEP_ADDEND 1013904223

struct chase {
    uint8_t *lines;
    size_t count, index;   /* of lines; where the chain is */
    size_t factor, addend; /* of the sequence that takes every `steps`th element */
    unsigned steps;
};

static void *chase_setup(size_t size, unsigned steps)
{
    uint8_t *lines = allocate(size + LINE);
    struct chase *chase = allocate(sizeof(*chase));
    *chase = (struct chase){.lines = lines, .count = size / LINE, .factor = 1, .steps = steps};
    size_t index = 0, mask = chase->count - 1;
    for (size_t i = 0; i < chase->count; i++) {
        size_t next = (index * STEP_FACTOR + STEP_ADDEND) & mask;
        void *address = lines + next * LINE;
        memcpy(lines + index * LINE, &address, sizeof(address));
        index = next;
    }
    for (unsigned i = 0; i < steps; i++) {
        chase->factor = chase->factor * STEP_FACTOR & mask;
        chase->addend = (chase->addend * STEP_FACTOR + STEP_ADDEND) & mask;
    }
    return chase;
}

static uint64_t chase_run(void *context)
{
    struct chase *chase = context;
    void **at = (void **)(void *)(chase->lines + chase->index * LINE);
    size_t expected = (chase->index * chase->factor + chase->addend) & (chase->count - 1);
    for (unsigned i = 0; i < chase->steps; i += 4) {
        at = *at;
        at = *at;
        at = *at;
        at = *at;
    }
    chase->index = (size_t)((uint8_t *)at - chase->lines) / LINE;
    return chase->index == expected ? chase->steps : 0;
}

static void chase_teardown(void *context)
{
    struct chase *chase = context;
    free(chase->lines);
    free(chase);
}

#define STEPS_16K  500000
#define STEPS_1M   200000
#define STEPS_16M  100000
#define STEPS_256M 10000

static void *chase_16k_setup(void)
{
    return chase_setup(16 << 10, STEPS_16K);
}

static void *chase_1m_setup(void)
{
    return chase_setup(1 << 20, STEPS_1M);
}

static void *chase_16m_setup(void)
{
    return chase_setup(16 << 20, STEPS_16M);
}

static void *chase_256m_setup(void)
{
    return chase_setup(256 << 20, STEPS_256M);
}

/* Columns of a matrix whose rows are a page and a line apart: each access is in another page. */
#define STRIDE         (4096 + LINE)
#define STRIDE_ROWS    2048
#define STRIDE_COLUMNS 64

static void *stride_setup(void)
{
    uint8_t *matrix = allocate((size_t)STRIDE * STRIDE_ROWS);
    for (size_t i = 0; i < (size_t)STRIDE * STRIDE_ROWS; i += 8)
        matrix[i] = (uint8_t)(i >> 3);
    return matrix;
}

static uint64_t stride_run(void *context)
{
    uint8_t *matrix = context;
    uint64_t sum = 0;
    for (size_t column = 0; column < STRIDE_COLUMNS * 8; column += 8) {
        for (size_t row = 0; row < STRIDE_ROWS; row++) {
            uint64_t value;
            memcpy(&value, matrix + row * STRIDE + column, sizeof(value));
            sum += value;
        }
    }
    return sum;
}

/* Frames with arguments on the stack and locals that are written and read back. */
#define STACK_DEPTH   200
#define STACK_REPEATS 200

static __attribute__((noinline)) uint64_t frame(unsigned depth, uint64_t a, uint64_t b, uint64_t c,
                                                uint64_t d, uint64_t e, uint64_t f, uint64_t g)
{
    volatile uint64_t local[8];
    for (unsigned i = 0; i < 8; i++)
        local[i] = a + i * b;
    uint64_t below = depth ? frame(depth - 1, b, c, d, e, f, g, a + 1) : g;
    for (unsigned i = 0; i < 8; i++)
        below += local[i] ^ c;
    return below + a + d + e + f;
}

static uint64_t stack_run(void *context)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < STACK_REPEATS; i++)
        sum = mix(sum, frame(STACK_DEPTH, i, 2, 3, 4, 5, 6, 7));
    return sum;
}

static const struct item items[] = {
    {.name = "memcpy-1M", .operations = COPY_REPEATS, .setup = copy_setup, .run = copy_run},
    {.name = "memset-1M", .operations = COPY_REPEATS, .setup = copy_setup, .run = set_run},
    {.name = "chase-16K",
     .operations = STEPS_16K,
     .setup = chase_16k_setup,
     .run = chase_run,
     .teardown = chase_teardown},
    {.name = "chase-1M",
     .operations = STEPS_1M,
     .setup = chase_1m_setup,
     .run = chase_run,
     .teardown = chase_teardown},
    {.name = "chase-16M",
     .operations = STEPS_16M,
     .setup = chase_16m_setup,
     .run = chase_run,
     .teardown = chase_teardown},
    {.name = "chase-256M",
     .operations = STEPS_256M,
     .setup = chase_256m_setup,
     .run = chase_run,
     .teardown = chase_teardown},
    {.name = "strided", .operations = STRIDE_ROWS * STRIDE_COLUMNS, .setup = stride_setup, .run = stride_run},
    {.name = "stack", .operations = STACK_DEPTH * STACK_REPEATS, .run = stack_run},
};

const struct group group_memory = GROUP("memory", items);
