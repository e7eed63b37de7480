/* x86.inl.h - the functions that simd.inl.h needs, for AVX2 and, where the file is compiled for it, with VNNI. */
#ifndef FASTGPT_X86_INL_H
#define FASTGPT_X86_INL_H

#include <immintrin.h>
#include <stdbool.h>

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

/* ---- Tiles of I8 ---- */

#define TOKENS_PER_TILE 6
#define SUMS_ZERO_POINT true

/* Without VNNI pairs of products are added in 16 bits: 255 * 128 fits. */
static inline ivec dot_tile_bytes(ivec sum, bytes w, bytes x) { return dot_unsigned(sum, w, x); }

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define SPLITS_PAIRS false
#else
#define SPLITS_PAIRS true
static inline bool has_large_pair(bytes x) {
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi8(1), limit = _mm256_set1_epi16(128);
    const __m256i above = _mm256_max_epi8((__m256i)x, zero),
                  below = _mm256_max_epi8(_mm256_sub_epi8(zero, (__m256i)x), zero);
    const __m256i large = _mm256_or_si256(_mm256_cmpgt_epi16(_mm256_maddubs_epi16(above, ones), limit),
                                          _mm256_cmpgt_epi16(_mm256_maddubs_epi16(below, ones), limit));
    return !_mm256_testz_si256(large, large);
}
#endif

#endif
