/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Integer items: loops, calls and jumps.
 */
#include "suite.h"

#include <string.h>

#define SIEVE_SIZE 1000000

static void *sieve_setup(void)
{
    return allocate(SIEVE_SIZE);
}

static uint64_t sieve_run(void *context)
{
    uint8_t *composite = context;
    uint64_t count = 0;
    memset(composite, 0, SIEVE_SIZE);
    for (size_t i = 2; i < SIEVE_SIZE; i++) {
        if (composite[i])
            continue;
        count++;
        for (size_t j = i * i; j < SIEVE_SIZE; j += i)
            composite[j] = 1;
    }
    return count;
}

#define CRC_SIZE (1 << 20)

struct crc {
    uint32_t table[256];
    uint8_t data[CRC_SIZE];
};

static void *crc_setup(void)
{
    struct crc *crc = allocate(sizeof(*crc));
    uint64_t random = 1;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = (value >> 1) ^ (value & 1 ? 0xedb88320u : 0);
        crc->table[i] = value;
    }
    for (size_t i = 0; i < CRC_SIZE; i++)
        crc->data[i] = (uint8_t)(next_random(&random) >> 32);
    return crc;
}

static uint64_t crc_run(void *context)
{
    const struct crc *crc = context;
    uint32_t value = ~0u;
    for (size_t i = 0; i < CRC_SIZE; i++)
        value = (value >> 8) ^ crc->table[(value ^ crc->data[i]) & 0xff];
    return ~value;
}

/* Two functions that call each other: a compiler would unfold one that calls itself, and few calls would be
 * left. */
static uint64_t fib_odd(unsigned n);

static __attribute__((noinline)) uint64_t fib_even(unsigned n)
{
    return n < 2 ? n : fib_odd(n - 1) + fib_odd(n - 2);
}

static __attribute__((noinline)) uint64_t fib_odd(unsigned n)
{
    return n < 2 ? n : fib_even(n - 1) + fib_even(n - 2);
}

static uint64_t fib_run(void *context)
{
    return fib_even(29);
}

/* Calls through a table, in an order that has a period which a processor's predictor can learn in part. */
#define INDIRECT_CALLS  500000
#define INDIRECT_PERIOD 512

static uint64_t indirect_add(uint64_t x)
{
    return x + 0x1234567;
}

static uint64_t indirect_xor(uint64_t x)
{
    return x ^ (x >> 7);
}

static uint64_t indirect_rotate(uint64_t x)
{
    return x << 13 | x >> 51;
}

static uint64_t indirect_multiply(uint64_t x)
{
    return x * 0x5851f42d4c957f2dULL;
}

static uint64_t indirect_not(uint64_t x)
{
    return ~x;
}

static uint64_t indirect_subtract(uint64_t x)
{
    return x - (x >> 3);
}

static uint64_t indirect_swap(uint64_t x)
{
    return __builtin_bswap64(x);
}

static uint64_t indirect_odd(uint64_t x)
{
    return x | 1;
}

typedef uint64_t indirect_function(uint64_t x);

static indirect_function *const indirect_functions[8] = {
    indirect_add, indirect_xor,      indirect_rotate, indirect_multiply,
    indirect_not, indirect_subtract, indirect_swap,   indirect_odd,
};

static void *indirect_setup(void)
{
    indirect_function **order = allocate(INDIRECT_PERIOD * sizeof(indirect_function *));
    uint64_t random = 2;
    for (size_t i = 0; i < INDIRECT_PERIOD; i++)
        order[i] = indirect_functions[next_random(&random) >> 61];
    return order;
}

static uint64_t indirect_run(void *context)
{
    indirect_function *const *order = context;
    uint64_t x = 1;
    for (size_t i = 0; i < INDIRECT_CALLS; i++)
        x = order[i % INDIRECT_PERIOD](x);
    return x;
}

/* A stack machine that adds up the lengths of the Collatz sequences of 1 to COLLATZ_LIMIT - 1. */
#define COLLATZ_LIMIT 1200

enum opcode {
    PUSH,
    LOAD,
    STORE,
    ADD,
    SUBTRACT,
    MULTIPLY,
    AND,
    SHIFT,
    DUPLICATE,
    IF_ZERO,
    UNLESS_ZERO,
    JUMP,
    HALT
};

struct instruction {
    uint32_t opcode;
    int32_t argument;
};

enum { VAR_N, VAR_X, VAR_TOTAL, VARS };
enum { AT_OUTER = 2, AT_INNER = 4, AT_EVEN = 19, AT_COUNT = 23, AT_NEXT = 28 };

static const struct instruction collatz[] = {
    {PUSH, 1},         {STORE, VAR_N}, /* 0: n = 1 */
    {LOAD, VAR_N},     {STORE, VAR_X}, /* 2, outer: x = n */
    {LOAD, VAR_X},     {PUSH, 1},
    {SUBTRACT, 0},     {IF_ZERO, AT_NEXT}, /* 4, inner: while x != 1 */
    {LOAD, VAR_X},     {PUSH, 1},
    {AND, 0},          {IF_ZERO, AT_EVEN}, /* 8 */
    {LOAD, VAR_X},     {PUSH, 3},
    {MULTIPLY, 0},     {PUSH, 1}, /* 12: x = 3 * x + 1 */
    {ADD, 0},          {STORE, VAR_X},
    {JUMP, AT_COUNT}, /* 16 */
    {LOAD, VAR_X},     {PUSH, 1},
    {SHIFT, 0},        {STORE, VAR_X}, /* 19, even: x = x / 2 */
    {LOAD, VAR_TOTAL}, {PUSH, 1},
    {ADD, 0},          {STORE, VAR_TOTAL}, /* 23, count */
    {JUMP, AT_INNER},                      /* 27 */
    {LOAD, VAR_N},     {PUSH, 1},
    {ADD, 0},          {DUPLICATE, 0}, /* 28, next: n = n + 1 */
    {STORE, VAR_N},    {PUSH, COLLATZ_LIMIT},
    {SUBTRACT, 0},     {UNLESS_ZERO, AT_OUTER}, /* 32 */
    {HALT, 0},
};

static __attribute__((noinline)) int64_t interpret(const struct instruction *program)
{
    int64_t stack[16], *top = stack, vars[VARS] = {0};
    for (const struct instruction *at = program;;) {
        const struct instruction *now = at++;
        switch ((enum opcode)now->opcode) {
        case PUSH:
            *top++ = now->argument;
            break;
        case LOAD:
            *top++ = vars[now->argument];
            break;
        case STORE:
            vars[now->argument] = *--top;
            break;
        case ADD:
            top--;
            top[-1] += top[0];
            break;
        case SUBTRACT:
            top--;
            top[-1] -= top[0];
            break;
        case MULTIPLY:
            top--;
            top[-1] *= top[0];
            break;
        case AND:
            top--;
            top[-1] &= top[0];
            break;
        case SHIFT:
            top--;
            top[-1] >>= top[0];
            break;
        case DUPLICATE:
            top[0] = top[-1];
            top++;
            break;
        case IF_ZERO:
            if (*--top == 0)
                at = program + now->argument;
            break;
        case UNLESS_ZERO:
            if (*--top != 0)
                at = program + now->argument;
            break;
        case JUMP:
            at = program + now->argument;
            break;
        case HALT:
            return vars[VAR_TOTAL];
        }
    }
}

static uint64_t interpret_run(void *context)
{
    return (uint64_t)interpret(collatz);
}

/* Numbers of 64-bit limbs, multiplied as at school: 64x64 multiplications and chains of carries. */
#define LIMBS       256
#define BIG_REPEATS 20

struct big {
    uint64_t a[LIMBS], b[LIMBS], product[2 * LIMBS];
};

static void *big_setup(void)
{
    struct big *big = allocate(sizeof(*big));
    uint64_t random = 3;
    for (size_t i = 0; i < LIMBS; i++) {
        big->a[i] = next_random(&random);
        big->b[i] = next_random(&random);
    }
    return big;
}

static void big_multiply(struct big *big)
{
    memset(big->product, 0, sizeof(big->product));
    for (size_t i = 0; i < LIMBS; i++) {
        uint64_t carry = 0;
        for (size_t j = 0; j < LIMBS; j++) {
            unsigned __int128 sum = (unsigned __int128)big->a[i] * big->b[j] + big->product[i + j] + carry;
            big->product[i + j] = (uint64_t)sum;
            carry = (uint64_t)(sum >> 64);
        }
        big->product[i + LIMBS] = carry;
    }
}

static uint64_t big_run(void *context)
{
    struct big *big = context;
    uint64_t sum = 0;
    for (int repeat = 0; repeat < BIG_REPEATS; repeat++) {
        big_multiply(big);
        for (size_t i = 0; i < 2 * LIMBS; i++)
            sum = mix(sum, big->product[i]);
    }
    return sum;
}

static const struct item items[] = {
    {.name = "sieve", .operations = 1, .setup = sieve_setup, .run = sieve_run},
    {.name = "crc32", .operations = 1, .setup = crc_setup, .run = crc_run},
    {.name = "fib", .operations = 1, .run = fib_run},
    {.name = "indirect-calls", .operations = INDIRECT_CALLS, .setup = indirect_setup, .run = indirect_run},
    {.name = "interpreter", .operations = 1, .run = interpret_run},
    {.name = "bigint", .operations = BIG_REPEATS, .setup = big_setup, .run = big_run},
};

const struct group group_integer = GROUP("integer", items);
