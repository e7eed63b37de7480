/* avx512_bf16.c - avx512_vnni.c with BF16 products for many tokens: a pair of weights meets 16 tokens at once, or 8. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 4
#include "x86.h"

#include "avx512_math.h"
#include "simd.h"

#include "bf16_piece.h"
#include "matrix_vnni.h"

#include "matrix_floats.h"

#include "stream_floats.h"

enum { ROWS_AT_ONCE = 8, PANELS = MATRIX_TOKENS / MATRIX_LANES };

static inline void begin_products(void) {}
static inline void end_products(void) {}

/* sums [ROWS_AT_ONCE] rows of MATRIX_TOKENS, of which n_panels * MATRIX_LANES are written. */
ALWAYS_INLINE void add_rows(float *sums, const uint16_t *const *x, const uint16_t *w, int n, bool begins,
                            const int n_panels) {
    __m512 sum[ROWS_AT_ONCE][PANELS];
    for (int r = 0; r < ROWS_AT_ONCE; r++)
        for (int p = 0; p < n_panels; p++)
            sum[r][p] = begins ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + r * MATRIX_TOKENS + p * MATRIX_LANES);
    for (int k = 0; k < n; k += 2) {
        __m512bh tokens[PANELS];
        for (int p = 0; p < n_panels; p++) tokens[p] = (__m512bh)_mm512_loadu_si512(x[p] + k * MATRIX_LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS_AT_ONCE; r++) {
            __m512bh pair = (__m512bh)_mm512_set1_epi32(four_bytes(w + r * PIECE + k));
#pragma GCC unroll 2
            for (int p = 0; p < n_panels; p++) sum[r][p] = _mm512_dpbf16_ps(sum[r][p], pair, tokens[p]);
        }
    }
    for (int r = 0; r < ROWS_AT_ONCE; r++)
        for (int p = 0; p < n_panels; p++) _mm512_storeu_ps(sums + r * MATRIX_TOKENS + p * MATRIX_LANES, sum[r][p]);
}

/* sums [2 * ROWS_AT_ONCE] rows of MATRIX_TOKENS, of which MATRIX_LANES / 2 are written: half the lanes of a panel. */
ALWAYS_INLINE void add_half_panel(float *sums, const uint16_t *x, const uint16_t *w, int n, bool begins) {
    enum { N = 2 * ROWS_AT_ONCE };
    __m256 sum[N];
    for (int r = 0; r < N; r++) sum[r] = begins ? _mm256_setzero_ps() : _mm256_loadu_ps(sums + r * MATRIX_TOKENS);
    for (int k = 0; k < n; k += 2) {
        __m256bh tokens = (__m256bh)_mm256_loadu_si256((const void *)(x + k * MATRIX_LANES));
#pragma GCC unroll 16
        for (int r = 0; r < N; r++)
            sum[r] = _mm256_dpbf16_ps(sum[r], (__m256bh)_mm256_set1_epi32(four_bytes(w + r * PIECE + k)), tokens);
    }
    for (int r = 0; r < N; r++) _mm256_storeu_ps(sums + r * MATRIX_TOKENS, sum[r]);
}

static void add_piece(float *sums, const uint16_t *x, const uint16_t *second_x, const uint16_t *w, int n_tokens,
                      int n_rows, int n, bool begins, fetching *next) {
    const uint16_t *const panels[PANELS] = {x, second_x};
    const bool few = n_tokens <= MATRIX_LANES / 2;
    for (int k = 0; k < n; k += MATRIX_K) fetch_some(next);
    for (int r = 0; r < n_rows; r += few ? 2 * ROWS_AT_ONCE : ROWS_AT_ONCE) {
        float *at = sums + r * MATRIX_TOKENS;
        if (few) add_half_panel(at, x, w + r * PIECE, n, begins);
        else if (n_tokens <= MATRIX_LANES) add_rows(at, panels, w + r * PIECE, n, begins, 1);
        else add_rows(at, panels, w + r * PIECE, n, begins, 2);
    }
}

#include "bf16.h"

static const bf16_kernels bf16 = {.product = product_by_pieces, .panel = bf16_panel, .columns = bf16_columns};

const kernels kernels_avx512_bf16 = KERNELS("avx512-bf16", "avx512", &bf16, matrix_bytes, &float_products);
