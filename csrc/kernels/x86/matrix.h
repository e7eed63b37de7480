/* matrix.h - what the matrix kernels on x86 share: transposing, and storing finished sums. */
#ifndef FASTGPT_MATRIX_H
#define FASTGPT_MATRIX_H

#include <immintrin.h>

#include "common/always_inline.h"
#include "kernels/kernels.h"

#if defined(__AVX512F__)

static inline __mmask16 first_of_16(int n) {
    return n >= 16 ? 0xFFFF : n > 0 ? (__mmask16)((1 << n) - 1) : (__mmask16)0;
}

/* Element i of row j becomes element j of row i. */
ALWAYS_INLINE void transpose_16(__m512i *row) {
    __m512i pair[16], quad[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        pair[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
        pair[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) { /* quad[i + n]: element n of every four, of rows i .. i + 3 */
            quad[i + 2 * j] = _mm512_unpacklo_epi64(pair[i + j], pair[i + j + 2]);
            quad[i + 2 * j + 1] = _mm512_unpackhi_epi64(pair[i + j], pair[i + j + 2]);
        }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i even_low = _mm512_shuffle_i32x4(quad[i], quad[i + 4], 0x88);
        __m512i odd_low = _mm512_shuffle_i32x4(quad[i], quad[i + 4], 0xDD);
        __m512i even_high = _mm512_shuffle_i32x4(quad[i + 8], quad[i + 12], 0x88);
        __m512i odd_high = _mm512_shuffle_i32x4(quad[i + 8], quad[i + 12], 0xDD);
        row[i] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
        row[i + 4] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        row[i + 8] = _mm512_shuffle_i32x4(even_low, even_high, 0xDD);
        row[i + 12] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xDD);
    }
}

/* out[t][r] = c[r][t] + bias[r], and with add the old out[t][r]; c [n_rows][MATRIX_TOKENS], the first n_tokens used.
 * Blocks of 16 by 16 are transposed in registers. */
static inline void store_transposed(float *out, int64_t ldo, const float *bias, bool add, const float *c, int n_tokens,
                                    int n_rows) {
    enum { N = 16 };
    for (int r = 0; r < n_rows; r += N) {
        const __mmask16 mask = first_of_16(n_rows - r);
        const __m512 b = bias ? _mm512_maskz_loadu_ps(mask, bias + r) : _mm512_setzero_ps();
        for (int t = 0; t < n_tokens; t += N) {
            __m512i block[N];
#pragma GCC unroll 16
            for (int i = 0; i < N; i++) block[i] = _mm512_loadu_si512(c + (r + i) * MATRIX_TOKENS + t);
            transpose_16(block);
            float *to = out + t * ldo + r;
#pragma GCC unroll 16
            for (int i = 0; i < N; i++, to += ldo)
                if (i < n_tokens - t) {
                    __m512 start = b;
                    if (add) start = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), b);
                    _mm512_mask_storeu_ps(to, mask, start + _mm512_castsi512_ps(block[i]));
                }
        }
    }
}

/* out[t][r] += c[r][t] */
static inline void add_transposed(float *out, int64_t ldo, const float *c, int n_tokens, int n_rows) {
    store_transposed(out, ldo, NULL, true, c, n_tokens, n_rows);
}

#else

/* out[t][r] += c[r][t]; c [n_rows][MATRIX_TOKENS], the first n_tokens used.  Blocks of 4 by 4 are transposed in
 * registers. */
static inline void add_transposed(float *out, int64_t ldo, const float *c, int n_tokens, int n_rows) {
    int t = 0;
    for (; t + 4 <= n_tokens; t += 4) {
        int r = 0;
        for (; r + 4 <= n_rows; r += 4) {
            const float *from = c + r * MATRIX_TOKENS + t;
            float *to = out + t * ldo + r;
            __m128 row[4];
            for (int i = 0; i < 4; i++) row[i] = _mm_loadu_ps(from + i * MATRIX_TOKENS);
            _MM_TRANSPOSE4_PS(row[0], row[1], row[2], row[3]);
            for (int i = 0; i < 4; i++) _mm_storeu_ps(to + i * ldo, _mm_add_ps(_mm_loadu_ps(to + i * ldo), row[i]));
        }
        for (; r < n_rows; r++)
            for (int i = 0; i < 4; i++) out[(t + i) * ldo + r] += c[r * MATRIX_TOKENS + t + i];
    }
    for (; t < n_tokens; t++)
        for (int r = 0; r < n_rows; r++) out[t * ldo + r] += c[r * MATRIX_TOKENS + t];
}

#endif

#endif
