/* reproducible_math.h - random numbers, exp and log that are the same bits on every machine: double precision, a fixed
 * order, nothing of libm.  Files that use them are compiled without fused multiply-adds (CMakeLists.txt). */
#ifndef FASTGPT_REPRODUCIBLE_MATH_H
#define FASTGPT_REPRODUCIBLE_MATH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/always_inline.h"

/* PCG32: XSH-RR 64/32 (O'Neill 2014, https://www.pcg-random.org), stream 54. */
static const uint64_t PCG_STREAM = 54u << 1 | 1;

static inline uint32_t next_u32(uint64_t *state) {
    uint64_t old = *state;
    *state = old * UINT64_C(6364136223846793005) + PCG_STREAM;
    uint32_t shifted = (uint32_t)(((old >> 18) ^ old) >> 27);
    uint32_t turn = (uint32_t)(old >> 59);
    return shifted >> turn | shifted << (-turn & 31);
}

static inline uint64_t seeded(uint64_t seed) {
    uint64_t state = PCG_STREAM + seed;
    next_u32(&state);
    return state;
}

/* In [0, 1): 53 bits of two draws, the high ones first. */
static inline double next_uniform(uint64_t *state) {
    uint64_t high = next_u32(state) >> 5, low = next_u32(state) >> 6;
    return (double)(high << 26 | low) * 0x1p-53;
}

/* ln 2 in two parts: a whole number times the first is exact. */
static const double LN2_HIGH = 0.693147180369123816490, LN2_LOW = 1.90821492927058770002e-10;

/* Four numbers that are computed side by side, each as if alone: in vectors as wide as the compiler may take. */
typedef double four_doubles __attribute__((vector_size(32)));
typedef int64_t four_int64 __attribute__((vector_size(32)));
typedef int32_t four_int32 __attribute__((vector_size(16)));

/* exp(x) for x <= 0, to 1e-15 of itself; 0 below -700.  x = n ln 2 + r, |r| <= ln 2 / 2, and Taylor.  In place, since a
 * vector that wide is no argument on every machine. */
ALWAYS_INLINE void exp_reproducible(four_doubles *x) {
    static const double inverse_factorial[] = {
        1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
        1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1,           1};
    const four_int64 counts = *x >= -700.0;
    four_doubles within =
        (four_doubles)(((four_int64)*x & counts) | ((four_int64)(four_doubles){-700, -700, -700, -700} & ~counts));
    four_int32 n = __builtin_convertvector(within * 1.4426950408889634 - 0.5, four_int32);
    four_doubles whole = __builtin_convertvector(n, four_doubles), r = within - whole * LN2_HIGH - whole * LN2_LOW;
    four_doubles sum = {0};
    for (size_t i = 0; i < sizeof inverse_factorial / sizeof *inverse_factorial; i++)
        sum = sum * r + inverse_factorial[i];
    four_int64 power = (__builtin_convertvector(n, four_int64) + 1023) << 52;
    *x = (four_doubles)((four_int64)(sum * (four_doubles)power) & counts);
}

/* ln x for a normal x > 0, to 1e-15.  x = 2^n m, m in [sqrt(1/2), sqrt(2)), and ln m = 2 artanh((m - 1) / (m + 1)). */
static inline double log_reproducible(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int n = (int)(bits >> 52) - 1023;
    bits = (bits & UINT64_C(0xFFFFFFFFFFFFF)) | UINT64_C(1023) << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) m /= 2, n++;
    double s = (m - 1) / (m + 1), sum = 0;
    for (int i = 21; i > 0; i -= 2) sum = sum * s * s + 1.0 / i;
    return n * LN2_HIGH + (n * LN2_LOW + 2 * s * sum);
}

#endif
