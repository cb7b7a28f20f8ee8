/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Vector items: matrices of 128 by 128 floats multiplied with SSE, and with AVX2 and FMA.
 */
#include "suite.h"

#include <immintrin.h>
#include <string.h>
#include <sys/platform/x86.h>

#define SIDE           128
#define MATMUL_REPEATS 5

struct matrices {
    _Alignas(64) float a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
};

/* Of small whole numbers, so that every order of adding gives the same. */
static void *matmul_setup(void)
{
    struct matrices *m = allocate(sizeof(*m));
    uint64_t random = 9;
    for (size_t i = 0; i < SIDE; i++) {
        for (size_t j = 0; j < SIDE; j++) {
            m->a[i][j] = (float)(next_random(&random) >> 60);
            m->b[i][j] = (float)(next_random(&random) >> 60);
        }
    }
    return m;
}

static void multiply_sse(struct matrices *m)
{
    for (size_t i = 0; i < SIDE; i++) {
        for (size_t j = 0; j < SIDE; j += 16) {
            __m128 sum0 = _mm_setzero_ps(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
            for (size_t k = 0; k < SIDE; k++) {
                __m128 a = _mm_set1_ps(m->a[i][k]);
                const float *b = &m->b[k][j];
                sum0 = _mm_add_ps(sum0, _mm_mul_ps(a, _mm_loadu_ps(b)));
                sum1 = _mm_add_ps(sum1, _mm_mul_ps(a, _mm_loadu_ps(b + 4)));
                sum2 = _mm_add_ps(sum2, _mm_mul_ps(a, _mm_loadu_ps(b + 8)));
                sum3 = _mm_add_ps(sum3, _mm_mul_ps(a, _mm_loadu_ps(b + 12)));
            }
            _mm_storeu_ps(&m->c[i][j], sum0);
            _mm_storeu_ps(&m->c[i][j + 4], sum1);
            _mm_storeu_ps(&m->c[i][j + 8], sum2);
            _mm_storeu_ps(&m->c[i][j + 12], sum3);
        }
    }
}

static __attribute__((target("avx2,fma"))) void multiply_avx2(struct matrices *m)
{
    for (size_t i = 0; i < SIDE; i++) {
        for (size_t j = 0; j < SIDE; j += 32) {
            __m256 sum0 = _mm256_setzero_ps(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
            for (size_t k = 0; k < SIDE; k++) {
                __m256 a = _mm256_set1_ps(m->a[i][k]);
                const float *b = &m->b[k][j];
                sum0 = _mm256_fmadd_ps(a, _mm256_loadu_ps(b), sum0);
                sum1 = _mm256_fmadd_ps(a, _mm256_loadu_ps(b + 8), sum1);
                sum2 = _mm256_fmadd_ps(a, _mm256_loadu_ps(b + 16), sum2);
                sum3 = _mm256_fmadd_ps(a, _mm256_loadu_ps(b + 24), sum3);
            }
            _mm256_storeu_ps(&m->c[i][j], sum0);
            _mm256_storeu_ps(&m->c[i][j + 8], sum1);
            _mm256_storeu_ps(&m->c[i][j + 16], sum2);
            _mm256_storeu_ps(&m->c[i][j + 24], sum3);
        }
    }
}

static uint64_t matmul_run(struct matrices *m, void (*multiply)(struct matrices *m))
{
    uint64_t sum = 0;
    for (unsigned repeat = 0; repeat < MATMUL_REPEATS; repeat++) {
        multiply(m);
        for (size_t i = 0; i < SIDE; i++)
            sum = mix(sum, (uint64_t)m->c[i][(i * 7 + repeat) % SIDE]);
    }
    return sum;
}

static uint64_t sse_run(void *context)
{
    return matmul_run(context, multiply_sse);
}

static uint64_t avx2_run(void *context)
{
    return matmul_run(context, multiply_avx2);
}

static bool has_avx2(void)
{
    return CPU_FEATURE_ACTIVE(AVX2) && CPU_FEATURE_ACTIVE(FMA); /* as the C library has found out */
}

static const struct item items[] = {
    {.name = "matmul-sse", .operations = MATMUL_REPEATS, .setup = matmul_setup, .run = sse_run},
    {.name = "matmul-avx2",
     .operations = MATMUL_REPEATS,
     .setup = matmul_setup,
     .run = avx2_run,
     .supported = has_avx2},
};

const struct group group_vector = GROUP("float", items);
