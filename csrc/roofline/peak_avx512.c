/* peak_avx512.c - AVX-512, and where the CPU has them its dot products of bf16 and int8. */
#define WIDTH 16
#define ACCUMULATORS 16
#include "roofline/peak_simd.inl.h"

#include <immintrin.h>

#include "common/os.h"

__attribute__((target("avx512bf16"))) static float dot_bf16(int n_rounds) {
    __m512 sum[ACCUMULATORS];
    __m512bh x = (__m512bh)_mm512_set1_epi16(0);
    for (int i = 0; i < ACCUMULATORS; i++) sum[i] = _mm512_set1_ps((float)i);
    for (int round = 0; round < n_rounds; round++)
#pragma GCC unroll 16
        for (int i = 0; i < ACCUMULATORS; i++) sum[i] = _mm512_dpbf16_ps(sum[i], x, x);
    for (int i = 1; i < ACCUMULATORS; i++) sum[0] = _mm512_add_ps(sum[0], sum[i]);
    return _mm512_cvtss_f32(sum[0]);
}

__attribute__((target("avx512vnni"))) static float dot_int8(int n_rounds) {
    __m512i sum[ACCUMULATORS], x = _mm512_set1_epi8(1);
    for (int i = 0; i < ACCUMULATORS; i++) sum[i] = _mm512_set1_epi32(i);
    for (int round = 0; round < n_rounds; round++)
#pragma GCC unroll 16
        for (int i = 0; i < ACCUMULATORS; i++) sum[i] = _mm512_dpbusd_epi32(sum[i], x, x);
    for (int i = 1; i < ACCUMULATORS; i++) sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    return (float)_mm512_cvtsi512_si32(sum[0]);
}

const peak peak_avx512 = {
    .family = "avx512",
    .read = read_words,
    .f32 = PEAK_F32,
    .bf16 = {dot_bf16, 2 * 32 * ACCUMULATORS, OS_CPU_AVX512_BF16},
    .int8 = {dot_int8, 2 * 64 * ACCUMULATORS, OS_CPU_AVX512_VNNI},
};
