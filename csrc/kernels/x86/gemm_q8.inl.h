/* gemm_q8.inl.h - the matrix kernel for weights of 8 bits in AVX-512 VNNI: four weights are multiplied by four
 * activations of 16 tokens at once, or of 8. */
#ifndef FASTGPT_GEMM_Q8_INL_H
#define FASTGPT_GEMM_Q8_INL_H

#include <string.h>

#include "kernels/x86/matrix.h"

enum { Q8_ROWS = 4, Q8_PANELS = MATRIX_TOKENS / MATRIX_LANES };

static inline int32_t four_bytes(const void *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return four;
}

/* What the caller reads for a block of Q8_ROWS rows. */
static inline void prefetch_block(const uint8_t *next, int64_t block) {
    enum { LINE = 64, BYTES = Q8_ROWS * sizeof(block_q8_0) };
    __builtin_prefetch(next + block * BYTES);
    __builtin_prefetch(next + block * BYTES + LINE);
}

/* sum[r][p] += the product of 32 values of row r and panel p. */
ALWAYS_INLINE void add_block(__m512 (*sum)[Q8_PANELS], const matrix_block *const *x, const uint8_t *w, int64_t ldw,
                             const float *scales, __m512i zero, const int n_panels) {
    __m512i dot[Q8_ROWS][Q8_PANELS];
    for (int p = 0; p < n_panels; p++) {
        __m512i above = _mm512_mullo_epi32(_mm512_loadu_si512(x[p]->sums), zero);
        for (int r = 0; r < Q8_ROWS; r++) dot[r][p] = _mm512_sub_epi32(_mm512_setzero_si512(), above);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
#pragma GCC unroll 4
        for (int r = 0; r < Q8_ROWS; r++) {
            __m512i four = _mm512_set1_epi32(four_bytes(w + r * ldw + 4 * i));
#pragma GCC unroll 2
            for (int p = 0; p < n_panels; p++)
                dot[r][p] = _mm512_dpbusd_epi32(dot[r][p], four, _mm512_loadu_si512(x[p]->q[i]));
        }
#pragma GCC unroll 4
    for (int r = 0; r < Q8_ROWS; r++) {
        float scale;
        memcpy(&scale, (const char *)scales + r * ldw, sizeof scale);
#pragma GCC unroll 2
        for (int p = 0; p < n_panels; p++) {
            __m512 d = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_loadu_ps(x[p]->d));
            sum[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][p]), d, sum[r][p]);
        }
    }
}

/* c [Q8_ROWS][n_panels * MATRIX_LANES] of rows of MATRIX_TOKENS, overwritten. */
ALWAYS_INLINE void q8_rows(float *c, const matrix_block *x, const uint8_t *w, int zero, const uint8_t *next,
                           const int n_panels, int n_in) {
    int64_t ldw = quantized_row_bytes(n_in), n_blocks = n_in / 32;
    const float *scales = (const float *)(const void *)(w + n_in);
    __m512 sum[Q8_ROWS][Q8_PANELS];
    for (int r = 0; r < Q8_ROWS; r++)
        for (int p = 0; p < n_panels; p++) sum[r][p] = _mm512_setzero_ps();
    for (int64_t i = 0; i < n_blocks; i++) {
        prefetch_block(next, i);
        const matrix_block *blocks[Q8_PANELS] = {x + i, x + n_blocks + i};
        add_block(sum, blocks, w + 32 * i, ldw, scales + i, _mm512_set1_epi32(zero), n_panels);
    }
    for (int r = 0; r < Q8_ROWS; r++)
        for (int p = 0; p < n_panels; p++) _mm512_storeu_ps(c + r * MATRIX_TOKENS + p * MATRIX_LANES, sum[r][p]);
}

/* c [2 * Q8_ROWS][MATRIX_LANES / 2] of rows of MATRIX_TOKENS: half the lanes of a panel, twice the rows. */
ALWAYS_INLINE void q8_rows_half_panel(float *c, const matrix_block *x, const uint8_t *w, int zero, const uint8_t *next,
                                      int n_in) {
    enum { N = 2 * Q8_ROWS };
    int64_t ldw = quantized_row_bytes(n_in);
    const uint8_t *scales = w + n_in;
    __m256 sum[N];
    for (int r = 0; r < N; r++) sum[r] = _mm256_setzero_ps();
    for (int64_t b = 0; b < n_in / 32; b++) {
        prefetch_block(next, 2 * b);
        prefetch_block(next, 2 * b + 1);
        __m256i above = _mm256_mullo_epi32(_mm256_loadu_si256((const void *)x[b].sums), _mm256_set1_epi32(zero));
        __m256i dot[N];
        for (int r = 0; r < N; r++) dot[r] = _mm256_sub_epi32(_mm256_setzero_si256(), above);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            __m256i tokens = _mm256_loadu_si256((const void *)x[b].q[i]);
#pragma GCC unroll 8
            for (int r = 0; r < N; r++)
                dot[r] =
                    _mm256_dpbusd_epi32(dot[r], _mm256_set1_epi32(four_bytes(w + r * ldw + 32 * b + 4 * i)), tokens);
        }
#pragma GCC unroll 8
        for (int r = 0; r < N; r++) {
            __m256 d = _mm256_castsi256_ps(_mm256_set1_epi32(four_bytes(scales + r * ldw + 4 * b)));
            sum[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r]), _mm256_mul_ps(d, _mm256_loadu_ps(x[b].d)), sum[r]);
        }
    }
    for (int r = 0; r < N; r++) _mm256_storeu_ps(c + r * MATRIX_TOKENS, sum[r]);
}

static void gemm_q8(out_view out, const matrix_block *x, const uint8_t *w, int zero, const uint8_t *next,
                    gemm_size size) {
    float c[MATRIX_ROWS * MATRIX_TOKENS];
    const int n_tokens = size.n_tokens, n_rows = size.n_rows, n_in = size.n_in;
    int64_t ldw = quantized_row_bytes(n_in), ld_next = n_in / 32 * (int64_t)sizeof(block_q8_0);
    bool few = n_tokens <= MATRIX_LANES / 2;
    for (int r = 0; r < n_rows && few; r += 2 * Q8_ROWS)
        q8_rows_half_panel(c + r * MATRIX_TOKENS, x, w + r * ldw, zero, next + r * ld_next, n_in);
    for (int r = 0; r < n_rows && !few; r += Q8_ROWS) {
        if (n_tokens > MATRIX_LANES) q8_rows(c + r * MATRIX_TOKENS, x, w + r * ldw, zero, next + r * ld_next, 2, n_in);
        else q8_rows(c + r * MATRIX_TOKENS, x, w + r * ldw, zero, next + r * ld_next, 1, n_in);
    }
    add_transposed(out.at, out.ld, c, n_tokens, n_rows);
}

#endif
