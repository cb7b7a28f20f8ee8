/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Floating-point items in scalar code: SSE2 doubles and the x87's long doubles. No library function computes
 * in them, since the C library chooses those by processor.
 */
#include "suite.h"

#include <string.h>

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* Newton's method; enough rounds for every double between 1e-6 and 1e6. */
static double square_root(double value)
{
    double root = value > 1 ? value : 1;
    for (int i = 0; i < 40; i++)
        root = 0.5 * (root + value / root);
    return root;
}

/* Bodies that attract each other; softened, so that none comes too near. */
#define BODIES      5
#define NBODY_STEPS 12000

struct body {
    double position[3], velocity[3], mass;
};

static void attract(struct body *a, struct body *b, double step)
{
    double distance[3], square = 0.01;
    for (int k = 0; k < 3; k++) {
        distance[k] = a->position[k] - b->position[k];
        square += distance[k] * distance[k];
    }
    double force = step / (square * __builtin_sqrt(square));
    for (int k = 0; k < 3; k++) {
        a->velocity[k] -= distance[k] * b->mass * force;
        b->velocity[k] += distance[k] * a->mass * force;
    }
}

static uint64_t nbody_run(void *context)
{
    struct body bodies[BODIES];
    for (int i = 0; i < BODIES; i++)
        bodies[i] =
            (struct body){{i * 1.5, i - 2.0, 0.25 * i}, {0.1 * i, 0.3 - 0.1 * i, 0.05}, 1.0 + 0.5 * i};
    for (int step = 0; step < NBODY_STEPS; step++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++)
                attract(&bodies[i], &bodies[j], 0.001);
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++)
                bodies[i].position[k] += 0.001 * bodies[i].velocity[k];
    }
    uint64_t sum = 0;
    for (int i = 0; i < BODIES; i++)
        sum = mix(sum, bits_of(bodies[i].position[0]));
    return sum;
}

/* The fast Fourier transform of 4096 complex numbers, in place, by halves. */
#define FFT_BITS    12
#define FFT_SIZE    (1u << FFT_BITS)
#define FFT_REPEATS 10

struct complex {
    double re, im;
};

struct fft {
    struct complex input[FFT_SIZE], work[FFT_SIZE], roots[FFT_SIZE / 2];
};

static struct complex times(struct complex a, struct complex b)
{
    return (struct complex){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

/* The roots of unity by halving the angle: the square root of e^(ix) is (1 + e^(ix)) / |1 + e^(ix)|. */
static void make_roots(struct complex *roots)
{
    roots[0] = (struct complex){1, 0};
    struct complex step = {0, -1};
    for (size_t distance = FFT_SIZE / 4; distance; distance /= 2) {
        for (size_t i = distance; i < FFT_SIZE / 2; i += 2 * distance)
            roots[i] = times(roots[i - distance], step);
        double re = 1 + step.re, length = square_root(re * re + step.im * step.im);
        step = (struct complex){re / length, step.im / length};
    }
}

static void *fft_setup(void)
{
    struct fft *fft = allocate(sizeof(*fft));
    uint64_t random = 8;
    for (size_t i = 0; i < FFT_SIZE; i++)
        fft->input[i].re = (double)(next_random(&random) >> 40);
    make_roots(fft->roots);
    return fft;
}

static void transform(struct fft *fft)
{
    for (size_t i = 0; i < FFT_SIZE; i++) {
        size_t reversed = 0;
        for (unsigned bit = 0; bit < FFT_BITS; bit++)
            reversed |= (i >> bit & 1) << (FFT_BITS - 1 - bit);
        fft->work[reversed] = fft->input[i];
    }
    for (size_t half = 1; half < FFT_SIZE; half *= 2) {
        for (size_t base = 0; base < FFT_SIZE; base += 2 * half) {
            for (size_t i = 0; i < half; i++) {
                struct complex *a = &fft->work[base + i], *b = a + half;
                struct complex turned = times(*b, fft->roots[i * (FFT_SIZE / 2 / half)]);
                *b = (struct complex){a->re - turned.re, a->im - turned.im};
                *a = (struct complex){a->re + turned.re, a->im + turned.im};
            }
        }
    }
}

static uint64_t fft_run(void *context)
{
    struct fft *fft = context;
    uint64_t sum = 0;
    for (unsigned repeat = 0; repeat < FFT_REPEATS; repeat++) {
        transform(fft);
        sum = mix(sum, bits_of(fft->work[repeat + 1].re));
    }
    return sum;
}

/* Points of the Mandelbrot set in long double, which compilers compute on the x87. */
#define X87_SIDE  40
#define X87_DEPTH 100

static uint64_t x87_run(void *context)
{
    uint64_t sum = 0;
    for (int row = 0; row < X87_SIDE; row++) {
        for (int column = 0; column < X87_SIDE; column++) {
            long double cx = -2.0L + 3.0L * column / X87_SIDE, cy = -1.5L + 3.0L * row / X87_SIDE, x = 0,
                        y = 0;
            unsigned depth = 0;
            for (; depth < X87_DEPTH && x * x + y * y < 4; depth++) {
                long double next = x * x - y * y + cx;
                y = 2 * x * y + cy;
                x = next;
            }
            sum = mix(sum, depth);
        }
    }
    return sum;
}

static const struct item items[] = {
    {.name = "nbody", .operations = NBODY_STEPS, .run = nbody_run},
    {.name = "fft", .operations = FFT_REPEATS, .setup = fft_setup, .run = fft_run},
    {.name = "x87", .operations = 1, .run = x87_run},
};

const struct group group_float = GROUP("float", items);
