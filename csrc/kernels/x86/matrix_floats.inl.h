/* matrix_floats.inl.h - the matrix kernel for floats: a weight meets LANES tokens at once, in a register as wide, which
 * for AVX-512 is wider than vec.
 *
 *     LANES         floats in a register
 *     SUM_ROWS      rows of weights by two registers of tokens are a block of sums: enough to hide the latency of
 *                   multiply-adds, and few enough to leave registers for operands
 *     TOKENS_AHEAD  for so many k activations are fetched in advance: worth 6% for 512 tokens on Sapphire Rapids; 0,
 *                   not at all, where nobody measured it */
#ifndef FASTGPT_MATRIX_FLOATS_INL_H
#define FASTGPT_MATRIX_FLOATS_INL_H

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

/* One number of each token of a panel. */
typedef float lanes __attribute__((vector_size(LANES * 4)));
typedef float lanes_anywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

static inline lanes load_lanes(const float *p) { return *(const lanes_anywhere *)p; }
static inline void store_lanes(float *p, lanes v) { *(lanes_anywhere *)p = v; }

/* The line of each of n rows that is due at k. */
ALWAYS_INLINE void fetch(read_ahead next, int first_row, const int n_rows, int k) {
    const uint8_t *at = next.at + first_row * next.ld + k / next.line_numbers * next.line_bytes;
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++) __builtin_prefetch(at + r * next.ld);
}

/* sum[r][i] += products of one k with each panel i of tokens. */
ALWAYS_INLINE void add_products(lanes (*sum)[SUM_PANELS], const float *x, int64_t ldx, const float *w, int64_t ldw,
                                const int n_rows, const int n_panels) {
    lanes tokens[SUM_PANELS];
    for (int i = 0; i < n_panels; i++) {
        tokens[i] = load_lanes(x + i * ldx);
        if (TOKENS_AHEAD) __builtin_prefetch(x + i * ldx + TOKENS_AHEAD * LANES);
    }
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < n_panels; i++) sum[r][i] += w[r * ldw] * tokens[i];
}

/* Rows of c [n_rows][MATRIX_TOKENS], ldc floats apart, of which n_panels * LANES are overwritten. */
ALWAYS_INLINE void store_sums_of(float *c, int64_t ldc, lanes (*sum)[SUM_PANELS], const int n_rows,
                                 const int n_panels) {
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < n_panels; i++) store_lanes(c + r * ldc + i * LANES, sum[r][i]);
}

ALWAYS_INLINE void floats_block(float *c, const float *x, int64_t ldx, const float *w, int64_t ldw, read_ahead next,
                                int first_row, const int n_rows, const int n_panels, int n_in) {
    lanes sum[SUM_ROWS][SUM_PANELS] = {{{0}}};
    w += first_row * ldw;
    for (int k = 0; k < n_in;) {
        fetch(next, first_row, n_rows, k);
        for (int end = min_int(k + next.line_numbers, n_in); k < end; k++)
            add_products(sum, x + k * LANES, ldx, w + k, ldw, n_rows, n_panels);
    }
    store_sums_of(c + first_row * MATRIX_TOKENS, MATRIX_TOKENS, sum, n_rows, n_panels);
}

/* All rows of up to SUM_TOKENS tokens.  The last block may begin within the one before, whose sums it repeats. */
ALWAYS_INLINE void floats_rows(float *c, const float *x, int64_t ldx, const float *w, int64_t ldw, read_ahead next,
                               int n_rows, const int n_panels, int n_in) {
    const int last = n_rows - SUM_ROWS;
    for (int r = 0; r < n_rows && last < 0; r++) floats_block(c, x, ldx, w, ldw, next, r, 1, n_panels, n_in);
    for (int r = 0; r < n_rows && last >= 0; r += SUM_ROWS)
        floats_block(c, x, ldx, w, ldw, next, r < last ? r : last, SUM_ROWS, n_panels, n_in);
}

static void matrix_floats(float *out, int64_t ldo, const float *x, int64_t ldx, const float *w, int64_t ldw,
                          read_ahead next, int n_tokens, int n_rows, int n_in) {
    float c[FLOAT_ROWS * MATRIX_TOKENS];
    for (int t = 0; t < n_tokens; t += SUM_TOKENS) {
        const float *panels = x + t / LANES * ldx;
        int n = n_tokens - t < SUM_TOKENS ? n_tokens - t : SUM_TOKENS;
        if (n > LANES) floats_rows(c, panels, ldx, w, ldw, next, n_rows, 2, n_in);
        else floats_rows(c, panels, ldx, w, ldw, next, n_rows, 1, n_in);
        add_transposed(out + t * ldo, ldo, c, n, n_rows);
        next = (read_ahead){.at = (const uint8_t *)w, .line_numbers = n_in + 1}; /* all has been fetched */
    }
}

#endif
