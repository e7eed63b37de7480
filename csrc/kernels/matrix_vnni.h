/* matrix_vnni.h - the matrix kernel for weights of 8 bits in AVX-512 VNNI: four weights meet those of 16 tokens at
 * once. */
#include "matrix.h"

enum { BYTE_ROWS_AT_ONCE = 4, BYTE_PANELS = MATRIX_TOKENS / MATRIX_LANES };

static inline __m512i splat_four(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* sum[r][p] += the product of 32 numbers of row r and panel p; `at` is their first. */
ALWAYS_INLINE void add_block(__m512 (*sum)[BYTE_PANELS], const matrix_block *const *x, const uint8_t *w, int64_t ldw,
                             const float *scales, __m512i zero, const int n_panels) {
    __m512i dot[BYTE_ROWS_AT_ONCE][BYTE_PANELS];
    for (int p = 0; p < n_panels; p++) {
        __m512i above = _mm512_mullo_epi32(_mm512_loadu_si512(x[p]->sums), zero);
        for (int r = 0; r < BYTE_ROWS_AT_ONCE; r++) dot[r][p] = _mm512_sub_epi32(_mm512_setzero_si512(), above);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
#pragma GCC unroll 4
        for (int r = 0; r < BYTE_ROWS_AT_ONCE; r++) {
            __m512i four = splat_four(w + r * ldw + 4 * i);
#pragma GCC unroll 2
            for (int p = 0; p < n_panels; p++)
                dot[r][p] = _mm512_dpbusd_epi32(dot[r][p], four, _mm512_loadu_si512(x[p]->q[i]));
        }
#pragma GCC unroll 4
    for (int r = 0; r < BYTE_ROWS_AT_ONCE; r++) {
        float scale;
        memcpy(&scale, (const char *)scales + r * ldw, sizeof scale);
#pragma GCC unroll 2
        for (int p = 0; p < n_panels; p++) {
            __m512 d = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_loadu_ps(x[p]->d));
            sum[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][p]), d, sum[r][p]);
        }
    }
}

/* c [BYTE_ROWS_AT_ONCE][n_panels * MATRIX_LANES] of rows of MATRIX_TOKENS, overwritten. */
ALWAYS_INLINE void byte_rows_product(float *c, const matrix_block *x, const uint8_t *w, int zero, const int n_panels,
                                     int n_in) {
    int64_t ldw = quantized_row_bytes(n_in), n_blocks = n_in / 32;
    const float *scales = (const float *)(const void *)(w + n_in);
    __m512 sum[BYTE_ROWS_AT_ONCE][BYTE_PANELS];
    for (int r = 0; r < BYTE_ROWS_AT_ONCE; r++)
        for (int p = 0; p < n_panels; p++) sum[r][p] = _mm512_setzero_ps();
    for (int64_t i = 0; i < n_blocks; i++) {
        const matrix_block *blocks[BYTE_PANELS] = {x + i, x + n_blocks + i};
        add_block(sum, blocks, w + 32 * i, ldw, scales + i, _mm512_set1_epi32(zero), n_panels);
    }
    for (int r = 0; r < BYTE_ROWS_AT_ONCE; r++)
        for (int p = 0; p < n_panels; p++) _mm512_storeu_ps(c + r * MATRIX_TOKENS + p * MATRIX_LANES, sum[r][p]);
}

static void matrix_bytes(float *out, int64_t ldo, const matrix_block *x, const uint8_t *w, int zero, int n_tokens,
                         int n_rows, int n_in) {
    float c[MATRIX_ROWS * MATRIX_TOKENS];
    for (int r = 0; r < n_rows; r += BYTE_ROWS_AT_ONCE) {
        const uint8_t *rows = w + r * quantized_row_bytes(n_in);
        if (n_tokens > MATRIX_LANES) byte_rows_product(c + r * MATRIX_TOKENS, x, rows, zero, 2, n_in);
        else byte_rows_product(c + r * MATRIX_TOKENS, x, rows, zero, 1, n_in);
    }
    add_transposed(out, ldo, c, n_tokens, n_rows);
}
