/* avx512_bf16.c - avx512_vnni.c with BF16 products for many tokens: a pair of weights meets 16 tokens at once, or 8. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 4
#define FETCHES_F32 1
#include "x86.h"

#include "simd.h"

#include "matrix_vnni.h"

#include "matrix_floats.h"

enum { ROWS_AT_ONCE = 8, PANELS = MATRIX_TOKENS / MATRIX_LANES };

/* A line of each of n rows, of those that come next. */
ALWAYS_INLINE void prefetch_rows(const uint16_t *w, int64_t ldw, const int n) {
#pragma GCC unroll 16
    for (int r = 0; r < n; r++) __builtin_prefetch(w + r * ldw);
}

/* c [ROWS_AT_ONCE][n_panels * MATRIX_LANES] of a row of MATRIX_TOKENS, overwritten. */
ALWAYS_INLINE void rows_product(float *c, const uint16_t *x, const uint16_t *w, int64_t ldw, const int n_panels,
                                int n_in) {
    __m512 sum[ROWS_AT_ONCE][PANELS];
    for (int r = 0; r < ROWS_AT_ONCE; r++)
        for (int p = 0; p < n_panels; p++) sum[r][p] = _mm512_setzero_ps();
    for (int k = 0; k < n_in; k += 2) {
        if (k % MATRIX_K == 0) prefetch_rows(w + ROWS_AT_ONCE * ldw + k, ldw, ROWS_AT_ONCE);
        __m512bh tokens[PANELS];
        for (int p = 0; p < n_panels; p++)
            tokens[p] = (__m512bh)_mm512_loadu_si512(x + ((int64_t)p * n_in + k) * MATRIX_LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS_AT_ONCE; r++) {
            __m512bh pair = (__m512bh)_mm512_set1_epi32(four_bytes(w + r * ldw + k));
#pragma GCC unroll 2
            for (int p = 0; p < n_panels; p++) sum[r][p] = _mm512_dpbf16_ps(sum[r][p], pair, tokens[p]);
        }
    }
    for (int r = 0; r < ROWS_AT_ONCE; r++)
        for (int p = 0; p < n_panels; p++) _mm512_storeu_ps(c + r * MATRIX_TOKENS + p * MATRIX_LANES, sum[r][p]);
}

/* c [2 * ROWS_AT_ONCE][MATRIX_LANES / 2] of rows of MATRIX_TOKENS: half the lanes of a panel, twice the rows. */
ALWAYS_INLINE void half_panel_product(float *c, const uint16_t *x, const uint16_t *w, int64_t ldw, int n_in) {
    enum { N = 2 * ROWS_AT_ONCE };
    __m256 sum[N];
    for (int r = 0; r < N; r++) sum[r] = _mm256_setzero_ps();
    for (int k = 0; k < n_in; k += 2) {
        if (k % MATRIX_K == 0) prefetch_rows(w + N * ldw + k, ldw, N);
        __m256bh tokens = (__m256bh)_mm256_loadu_si256((const void *)(x + (int64_t)k * MATRIX_LANES));
#pragma GCC unroll 16
        for (int r = 0; r < N; r++)
            sum[r] = _mm256_dpbf16_ps(sum[r], (__m256bh)_mm256_set1_epi32(four_bytes(w + r * ldw + k)), tokens);
    }
    for (int r = 0; r < N; r++) _mm256_storeu_ps(c + r * MATRIX_TOKENS, sum[r]);
}

static void matrix(float *out, int64_t ldo, const uint16_t *x, const uint16_t *w, int64_t ldw, int n_tokens, int n_rows,
                   int n_in) {
    float c[MATRIX_ROWS * MATRIX_TOKENS];
    ldw /= (int64_t)sizeof *w;
    bool few = n_tokens <= MATRIX_LANES / 2;
    for (int r = 0; r < n_rows && few; r += 2 * ROWS_AT_ONCE)
        half_panel_product(c + r * MATRIX_TOKENS, x, w + r * ldw, ldw, n_in);
    for (int r = 0; r < n_rows && !few; r += ROWS_AT_ONCE) {
        if (n_tokens > MATRIX_LANES) rows_product(c + r * MATRIX_TOKENS, x, w + r * ldw, ldw, 2, n_in);
        else rows_product(c + r * MATRIX_TOKENS, x, w + r * ldw, ldw, 1, n_in);
    }
    add_transposed(out, ldo, c, n_tokens, n_rows);
}

const kernels kernels_avx512_bf16 = KERNELS("avx512-bf16", "avx512", matrix, matrix_bytes, matrix_floats, LANES);
