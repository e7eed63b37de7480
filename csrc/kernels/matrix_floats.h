/* matrix_floats.h - the matrix kernel for floats: a weight meets FLOAT_LANES tokens at once, in a register as wide.
 * Six rows by two registers of tokens are 12 sums, enough to hide the latency of multiply-adds, and leave 4 of 16
 * registers for operands. */
#include "matrix.h"

enum { SUM_ROWS = 6, SUM_REGISTERS = 2, SUM_TOKENS = SUM_REGISTERS * FLOAT_LANES };

_Static_assert(WIDTH == FLOAT_LANES, "a panel has one register of tokens");
_Static_assert(FLOAT_ROWS % SUM_ROWS == 0, "a tile has whole blocks of rows");

/* The line of each of n rows that is due at k. */
ALWAYS_INLINE void fetch(read_ahead next, int first_row, const int n_rows, int k) {
    const uint8_t *at = next.at + first_row * next.ld + k / next.line_numbers * next.line_bytes;
#pragma GCC unroll 6
    for (int r = 0; r < n_rows; r++) __builtin_prefetch(at + r * next.ld);
}

/* sum[r][i] += products of one k.  Two panels of tokens have a register each; one panel has both, for even and odd k.
 */
ALWAYS_INLINE void add_products(vec (*sum)[SUM_REGISTERS], const float *x, int64_t ldx, const float *w, int64_t ldw,
                                const int n_rows, const int n_panels) {
    const int odd = n_panels == 1;
    vec tokens[SUM_REGISTERS] = {load(x), load(odd ? x + FLOAT_LANES : x + ldx)};
#pragma GCC unroll 6
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < SUM_REGISTERS; i++) sum[r][i] += splat(w[r * ldw + i * odd]) * tokens[i];
}

/* c [n_rows] rows of MATRIX_TOKENS, of which n_panels * FLOAT_LANES are overwritten. */
ALWAYS_INLINE void floats_block(float *c, const float *x, int64_t ldx, const float *w, int64_t ldw, read_ahead next,
                                int first_row, const int n_rows, const int n_panels, int n_in) {
    vec sum[SUM_ROWS][SUM_REGISTERS] = {{{0}}};
    const int step = n_panels == 1 ? 2 : 1;
    w += first_row * ldw;
    int k = 0;
    while (k + step <= n_in) {
        fetch(next, first_row, n_rows, k);
        for (int end = k + next.line_numbers < n_in ? k + next.line_numbers : n_in; k + step <= end; k += step)
            add_products(sum, x + k * FLOAT_LANES, ldx, w + k, ldw, n_rows, n_panels);
    }
    for (int r = 0; r < n_rows; r++) {
        float *row = c + (first_row + r) * MATRIX_TOKENS;
        if (k < n_in) sum[r][0] += splat(w[r * ldw + k]) * load(x + k * FLOAT_LANES);
        store(row, n_panels == 1 ? sum[r][0] + sum[r][1] : sum[r][0]);
        if (n_panels == 2) store(row + FLOAT_LANES, sum[r][1]);
    }
}

/* All rows of up to SUM_TOKENS tokens. */
ALWAYS_INLINE void floats_rows(float *c, const float *x, int64_t ldx, const float *w, int64_t ldw, read_ahead next,
                               int n_rows, const int n_panels, int n_in) {
    int r = 0;
    for (; r + SUM_ROWS <= n_rows; r += SUM_ROWS) floats_block(c, x, ldx, w, ldw, next, r, SUM_ROWS, n_panels, n_in);
    for (; r < n_rows; r++) floats_block(c, x, ldx, w, ldw, next, r, 1, n_panels, n_in);
}

static void matrix_floats(float *out, int64_t ldo, const float *x, int64_t ldx, const float *w, int64_t ldw,
                          read_ahead next, int n_tokens, int n_rows, int n_in) {
    float c[FLOAT_ROWS * MATRIX_TOKENS];
    for (int t = 0; t < n_tokens; t += SUM_TOKENS) {
        const float *panels = x + t / FLOAT_LANES * ldx;
        int n = n_tokens - t < SUM_TOKENS ? n_tokens - t : SUM_TOKENS;
        if (n > FLOAT_LANES) floats_rows(c, panels, ldx, w, ldw, next, n_rows, 2, n_in);
        else floats_rows(c, panels, ldx, w, ldw, next, n_rows, 1, n_in);
        add_transposed(out + t * ldo, ldo, c, n, n_rows);
        next = (read_ahead){.at = (const uint8_t *)w, .line_numbers = n_in + 1}; /* all has been fetched */
    }
}
