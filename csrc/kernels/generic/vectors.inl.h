/* vectors.inl.h - vectors of WIDTH floats in the vector extensions of gcc and clang
 * (https://gcc.gnu.org/onlinedocs/gcc/Vector-Extensions.html).  The compiler turns a * b + c into a fused multiply-add
 * (-ffp-contract=fast). */
#ifndef FASTGPT_VECTORS_INL_H
#define FASTGPT_VECTORS_INL_H

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "common/always_inline.h"

typedef float vec __attribute__((vector_size(WIDTH * 4)));
typedef int32_t ivec __attribute__((vector_size(WIDTH * 4)));
typedef int8_t bytes __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t shorts __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t halves __attribute__((vector_size(WIDTH * 2)));
typedef float vec_anywhere __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef int8_t bytes_anywhere __attribute__((vector_size(WIDTH * 4), aligned(1), may_alias));
typedef uint16_t halves_anywhere __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));

static inline vec load(const float *p) { return *(const vec_anywhere *)p; }
static inline void store(float *p, vec v) { *(vec_anywhere *)p = v; }
static inline bytes load_bytes(const int8_t *p) { return *(const bytes_anywhere *)p; }
static inline halves load_halves(const uint16_t *p) { return *(const halves_anywhere *)p; }
static inline vec splat(float x) { return x - (vec){0}; }

/* The first n < WIDTH floats, then zeros. */
#if defined(__AVX512F__) && WIDTH == 16
static inline __mmask16 first_lanes(int n) { return (__mmask16)((1U << n) - 1); }
static inline vec load_first(const float *p, int n) { return (vec)_mm512_maskz_loadu_ps(first_lanes(n), p); }
static inline void store_first(float *p, vec v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v); }
#else
static inline vec load_first(const float *p, int n) {
    vec v = {0};
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}

static inline void store_first(float *p, vec v, int n) { memcpy(p, &v, (size_t)n * sizeof(float)); }
#endif

/* Integers of 8 bits as bytes.  gcc converts them one by one where nothing better is written here. */
static inline void store_i8(int8_t *p, ivec v) {
#if defined(__AVX2__) && WIDTH == 8
    const __m256i lowest = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12,
                                            -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i fours = _mm256_shuffle_epi8((__m256i)v, lowest);
    const __m128i low = _mm256_castsi256_si128(fours), high = _mm256_extracti128_si256(fours, 1);
    _mm_storel_epi64((__m128i *)(void *)p, _mm_unpacklo_epi32(low, high));
#else
    typedef int8_t int8_vec __attribute__((vector_size(WIDTH)));
    const int8_vec narrow = __builtin_convertvector(v, int8_vec);
    memcpy(p, &narrow, sizeof narrow);
#endif
}

static inline vec choose(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }

/* The larger or the smaller; b where either is NaN. */
#if defined(__AVX512F__) && WIDTH == 16
static inline vec vmax(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vec vmin(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX__) && WIDTH == 8
static inline vec vmax(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vec vmin(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
#else
static inline vec vmax(vec a, vec b) { return choose(a > b, a, b); }
static inline vec vmin(vec a, vec b) { return choose(a < b, a, b); }
#endif

/* A NaN in x stays one. */
static inline vec clamp(vec x, float low, float high) { return vmin(splat(high), vmax(splat(low), x)); }

/* Half of a vector each: lanes 0 .. n / 2 - 1, and the rest.  Copying half of a register costs one instruction. */
#define SPLIT(half, v) \
    half low, high;    \
    memcpy(&low, &v, sizeof low), memcpy(&high, (const char *)&v + sizeof low, sizeof high)

#if WIDTH == 4
static const ivec lane_indices = {0, 1, 2, 3};
#elif WIDTH == 8
static const ivec lane_indices = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

typedef float vec2 __attribute__((vector_size(8)));
typedef float vec4 __attribute__((vector_size(16)));

static inline float sum_of_4(vec4 v) {
    SPLIT(vec2, v);
    low += high;
    return low[0] + low[1];
}

#if WIDTH == 4
static inline float sum_lanes(vec v) { return sum_of_4(v); }
#else
typedef float vec8 __attribute__((vector_size(32)));

static inline float sum_of_8(vec8 v) {
    SPLIT(vec4, v);
    return sum_of_4(low + high);
}

#if WIDTH == 8
static inline float sum_lanes(vec v) { return sum_of_8(v); }
#else
static inline float sum_lanes(vec v) {
    SPLIT(vec8, v);
    return sum_of_8(low + high);
}
#endif
#endif

#endif
