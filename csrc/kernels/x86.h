/* x86.h - the functions that simd.h wants, for AVX2 and, where the file is compiled for it, with VNNI. */
#include <immintrin.h>

#include "vectors.h"

static inline vec widen_f16(halves h) { return (vec)_mm256_cvtph_ps((__m128i)h); }

static inline vec splat_f16(const uint16_t *p) { return (vec)_mm256_cvtph_ps(_mm_set1_epi16((int16_t)*p)); }

/* The instructions multiply unsigned by signed bytes, so w gives its sign to x.  128 * 127 * 2 fits 16 bits. */
static inline ivec dot_bytes(ivec sum, bytes w, bytes x) {
    __m256i magnitude = _mm256_abs_epi8((__m256i)w), signed_x = _mm256_sign_epi8((__m256i)x, (__m256i)w);
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return (ivec)_mm256_dpbusd_epi32((__m256i)sum, magnitude, signed_x);
#elif defined(__AVXVNNI__)
    return (ivec)_mm256_dpbusd_avx_epi32((__m256i)sum, magnitude, signed_x);
#else
    __m256i pairs = _mm256_maddubs_epi16(magnitude, signed_x);
    return sum + (ivec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
}
