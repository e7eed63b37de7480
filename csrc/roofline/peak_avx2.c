/* peak_avx2.c - AVX2 with FMA; its dot product of int8 is three instructions. */
#define WIDTH 8
#define ACCUMULATORS 12
#include "roofline/peak_simd.inl.h"

#include <immintrin.h>

static float dot_int8(int n_rounds) {
    __m256i sum[ACCUMULATORS], ones = _mm256_set1_epi16(1);
    for (int i = 0; i < ACCUMULATORS; i++) sum[i] = _mm256_set1_epi8((char)i);
    for (int round = 0; round < n_rounds; round++) {
#pragma GCC unroll 16
        for (int i = 0; i < ACCUMULATORS; i++) {
            __m256i pairs = _mm256_maddubs_epi16(sum[i], ones); /* of sum itself, or else it would be computed once */
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs, ones));
        }
    }
    for (int i = 1; i < ACCUMULATORS; i++) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
    return (float)_mm256_cvtsi256_si32(sum[0]);
}

const peak peak_avx2 = {
    .family = "avx2", .read = read_words, .f32 = PEAK_F32, .int8 = {dot_int8, 2 * 32 * ACCUMULATORS, 0}};
