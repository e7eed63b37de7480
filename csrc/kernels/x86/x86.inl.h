/* x86.inl.h - the functions that simd.inl.h needs, for AVX2 and, where the file is compiled for it, with VNNI. */
#ifndef FASTGPT_X86_INL_H
#define FASTGPT_X86_INL_H

#include <immintrin.h>

#include "kernels/generic/vectors.inl.h"

static inline vec f16_to_f32(halves h) { return (vec)_mm256_cvtph_ps((__m128i)h); }

static inline vec bf16_to_f32(halves h) { return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16); }

static inline vec splat_f16(const uint16_t *p) { return (vec)_mm256_cvtph_ps(_mm_set1_epi16((int16_t)*p)); }

static inline vec i8_to_f32(const int8_t *p) {
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

static inline void split_nibbles(bytes *q, const uint8_t *p) {
    __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
    __m256i shifted = _mm256_srlv_epi32(twice, _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0));
    *q = (bytes)_mm256_and_si256(shifted, _mm256_set1_epi8(15));
}

static inline ivec dot_unsigned(ivec sum, bytes w, bytes x) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return (ivec)_mm256_dpbusd_epi32((__m256i)sum, (__m256i)w, (__m256i)x);
#elif defined(__AVXVNNI__)
    return (ivec)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)x);
#else
    __m256i pairs = _mm256_maddubs_epi16((__m256i)w, (__m256i)x);
    return sum + (ivec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
}

/* The instructions multiply unsigned by signed bytes, so x gets the sign of w.  128 * 127 * 2 fits 16 bits. */
static inline ivec dot_bytes(ivec sum, bytes w, bytes x) {
    __m256i magnitude = _mm256_abs_epi8((__m256i)w), signed_x = _mm256_sign_epi8((__m256i)x, (__m256i)w);
    return dot_unsigned(sum, (bytes)magnitude, (bytes)signed_x);
}

#endif
