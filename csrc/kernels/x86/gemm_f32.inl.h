/* gemm_f32.inl.h - the matrix kernel for floats: each weight is multiplied by LANES tokens at once, in a register as
 * wide, which for AVX-512 is wider than vec.
 *
 *     LANES         floats in a register
 *     SUM_ROWS      rows of weights by two registers of tokens are a block of accumulators: enough to hide the latency
 *                   of multiply-adds, and few enough to leave registers for operands
 *     TOKENS_AHEAD  the k for which activations are prefetched: worth 6% for 512 tokens on Sapphire Rapids; 0, no
 *                   prefetch, where nobody measured it */
#ifndef FASTGPT_GEMM_F32_INL_H
#define FASTGPT_GEMM_F32_INL_H

#include "common/always_inline.h"
#include "kernels/kernels.h"
#include "common/arithmetic.h"
#include "kernels/x86/matrix.h"

#ifdef __AVX512F__
enum { LANES = 16, SUM_ROWS = 12, TOKENS_AHEAD = 16 };
#else
enum { LANES = 8, SUM_ROWS = 6, TOKENS_AHEAD = 0 };
#endif

enum { SUM_PANELS = 2, SUM_TOKENS = SUM_PANELS * LANES };

_Static_assert(LANES <= (int)MAX_FLOAT_LANES && SUM_TOKENS <= (int)MATRIX_TOKENS, "panels and sums have room");
_Static_assert(FLOAT_ROWS % SUM_ROWS == 0, "a tile has whole blocks of rows");

/* One value of each token of a panel. */
typedef float lanes __attribute__((vector_size(LANES * 4)));
typedef float lanes_anywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

static inline lanes load_lanes(const float *p) { return *(const lanes_anywhere *)p; }
static inline void store_lanes(float *p, lanes v) { *(lanes_anywhere *)p = v; }

/* The cache line of each of n rows that is due at k. */
ALWAYS_INLINE void prefetch_lines(read_ahead next, int first_row, const int n_rows, int k) {
    const uint8_t *at = next.at + first_row * next.ld + k / next.line_values * next.line_bytes;
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++) __builtin_prefetch(at + r * next.ld);
}

typedef lanes lane_sums[SUM_ROWS][SUM_PANELS];

/* sum[r][i] += products of one k with each panel i of tokens. */
ALWAYS_INLINE void add_products(lane_sums sum, f32_view x, f32_view w, const int n_rows, const int n_panels) {
    lanes tokens[SUM_PANELS];
    for (int i = 0; i < n_panels; i++) {
        tokens[i] = load_lanes(x.at + i * x.ld);
        if (TOKENS_AHEAD) __builtin_prefetch(x.at + i * x.ld + TOKENS_AHEAD * LANES);
    }
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < n_panels; i++) sum[r][i] += w.at[r * w.ld] * tokens[i];
}

/* Rows of c [n_rows][MATRIX_TOKENS], of which n_panels * LANES are overwritten. */
ALWAYS_INLINE void store_lane_sums(out_view c, lane_sums sum, const int n_rows, const int n_panels) {
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < n_panels; i++) store_lanes(c.at + r * c.ld + i * LANES, sum[r][i]);
}

/* Rows of a product, from the first on; all but the first are constants wherever this is inlined. */
typedef struct row_block {
    int first_row, n_rows, n_panels;
} row_block;

ALWAYS_INLINE void gemm_block(float *c, f32_view x, f32_view w, read_ahead next, const row_block b, int n_in) {
    lane_sums sum = {{{0}}};
    const float *rows = w.at + b.first_row * w.ld;
    for (int k = 0; k < n_in;) {
        prefetch_lines(next, b.first_row, b.n_rows, k);
        for (int end = min_int(k + next.line_values, n_in); k < end; k++)
            add_products(sum, (f32_view){x.at + k * LANES, x.ld}, (f32_view){rows + k, w.ld}, b.n_rows, b.n_panels);
    }
    store_lane_sums((out_view){c + b.first_row * MATRIX_TOKENS, MATRIX_TOKENS}, sum, b.n_rows, b.n_panels);
}

/* All rows of up to SUM_TOKENS tokens.  The last block may begin within the one before, whose sums it repeats. */
ALWAYS_INLINE void gemm_rows(float *c, f32_view x, f32_view w, read_ahead next, int n_rows, const int n_panels,
                             int n_in) {
    const int last = n_rows - SUM_ROWS;
    for (int r = 0; r < n_rows && last < 0; r++) gemm_block(c, x, w, next, (row_block){r, 1, n_panels}, n_in);
    for (int r = 0; r < n_rows && last >= 0; r += SUM_ROWS)
        gemm_block(c, x, w, next, (row_block){r < last ? r : last, SUM_ROWS, n_panels}, n_in);
}

static void gemm_f32(out_view out, f32_view x, f32_view w, read_ahead next, gemm_size size) {
    float c[FLOAT_ROWS * MATRIX_TOKENS];
    for (int t = 0; t < size.n_tokens; t += SUM_TOKENS) {
        const f32_view panels = {x.at + t / LANES * x.ld, x.ld};
        const int n = min_int(size.n_tokens - t, SUM_TOKENS);
        if (n > LANES) gemm_rows(c, panels, w, next, size.n_rows, 2, size.n_in);
        else gemm_rows(c, panels, w, next, size.n_rows, 1, size.n_in);
        add_transposed(out.at + t * out.ld, out.ld, c, n, size.n_rows);
        next = (read_ahead){.at = (const uint8_t *)w.at, .line_values = size.n_in + 1}; /* all has been prefetched */
    }
}

#endif
