/* i8.inl.h - products with tiles of I8: sixteen outputs in the lanes of 16 / WIDTH registers, for some tokens at once.
 * Activations have one scale a token, so sums of whole rows are integers, which are exact in any order.
 *
 * An instruction set defines
 *
 *     TOKENS_PER_TILE    tokens whose sums are registers: 16 / WIDTH accumulators each
 *     SUMS_ZERO_POINT    whether dot_tile_bytes leaves the weights' zero point in its sums
 *     SPLITS_PAIRS       whether dot_tile_bytes saturates where the activations of a pair add up to more than 128, so
 *                        that what is above that must be multiplied apart; it then defines has_large_pair
 *     ivec dot_tile_bytes(ivec sum, bytes w, bytes x)    lane i: sum[i] + bytes 4 i .. 4 i + 3 of w, unsigned, times
 *                        those of x, signed; or of w - 128
 *     bool has_large_pair(bytes x)    whether two neighbours in x of one sign have magnitudes of more than 128 together
 */
#ifndef FASTGPT_I8_INL_H
#define FASTGPT_I8_INL_H

#include "kernels/generic/vectors.inl.h"
#include "kernels/kernels.h"
#include "common/arithmetic.h"

enum { TILE_REGISTERS = I8_TILE_ROWS / WIDTH, LINES_AHEAD = 32 };

/* ---- Activations ---- */

/* The largest magnitude; NaN or infinity where there is one. */
static inline float largest_magnitude(const float *x, int n) {
    ivec largest = {0}; /* as bits: their order is that of the values, and NaN is above all */
    for (int i = 0; i < n; i += WIDTH) {
        ivec magnitude = (ivec)load(x + i) & 0x7FFFFFFF;
        ivec above = magnitude > largest;
        largest = (magnitude & above) | (largest & ~above);
    }
    int32_t lanes[WIDTH], bits = 0;
    memcpy(lanes, &largest, sizeof lanes);
    for (int lane = 0; lane < WIDTH; lane++) bits = lanes[lane] > bits ? lanes[lane] : bits;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* The 128 that a pair may have stay in q; the rest goes to split, which is zero before. */
static inline bool split_pair(int8_t *q, int8_t *split) {
    const int a = q[0] < 0 ? -q[0] : q[0], b = q[1] < 0 ? -q[1] : q[1], above = a + b - 128;
    if (above <= 0 || (q[0] < 0) != (q[1] < 0)) return false;
    const int i = a < b, rest = q[i] < 0 ? -above : above;
    split[i] = (int8_t)rest;
    q[i] = (int8_t)(q[i] - rest);
    return true;
}

#if SPLITS_PAIRS
static inline void split_pairs(i8_activations *to, int n) {
    i8_split *splits = i8_splits(to, n);
    for (int i = 0; i < n; i += 4 * WIDTH) {
        if (!has_large_pair(load_bytes(to->q + i))) continue;
        for (int k = i; k < i + 4 * WIDTH; k += I8_LINE_K) {
            i8_split split = {.line = k / I8_LINE_K};
            const bool first = split_pair(to->q + k, split.q), second = split_pair(to->q + k + 2, split.q + 2);
            if (first || second) splits[to->n_splits++] = split;
        }
    }
}
#endif

/* Adding 1.5 * 2^23 in one rounding (a fused multiply-add) rounds the product to an integer. */
static void quantize_token(i8_activations *to, const float *x, int n) {
    const float magic = 12582912.0f, largest = largest_magnitude(x, n);
    const bool zero = largest < 1e-30f, finite = largest <= 3.4028235e38f;
    const float inverse = zero || !finite ? 0 : 127 / largest;
    *to = (i8_activations){.d = zero ? 0 : largest / 127};
    ivec sum = {0};
    for (int i = 0; i < n; i += WIDTH) {
        vec values = finite ? load(x + i) : (vec){0};
        ivec rounded = (ivec)(values * inverse + magic) - 0x4B400000; /* the bits of magic */
        store_i8(to->q + i, rounded);
        sum += rounded;
    }
    int32_t lanes[WIDTH];
    memcpy(lanes, &sum, sizeof lanes);
    for (int lane = 0; lane < WIDTH; lane++) to->sum += lanes[lane];
#if SPLITS_PAIRS
    split_pairs(to, n);
#endif
}

/* ---- Products ---- */

typedef ivec i8_sums[TOKENS_PER_TILE][TILE_REGISTERS];

static inline const i8_activations *token_of(const gemm_i8_args *g, int t) {
    return (const i8_activations *)(const void *)((const char *)g->x.at + t * g->x.ld);
}

static inline bytes line_register(const tile_line_i8 *line, int i) {
    return load_bytes((const int8_t *)line->q[0] + 4 * WIDTH * i);
}

/* Four activations, in every lane. */
static inline bytes splat_four(const int8_t *q) {
    int32_t four;
    memcpy(&four, q, sizeof four);
    return (bytes)(four - (ivec){0});
}

/* sum[t] += line . x[t] */
ALWAYS_INLINE void add_line(i8_sums sum, const tile_line_i8 *line, const int8_t *const *x, int k, const int n_tokens) {
    bytes w[TILE_REGISTERS];
#pragma GCC unroll 4
    for (int i = 0; i < TILE_REGISTERS; i++) w[i] = line_register(line, i);
#pragma GCC unroll 8
    for (int t = 0; t < n_tokens; t++) {
        const bytes four = splat_four(x[t] + k);
#pragma GCC unroll 4
        for (int i = 0; i < TILE_REGISTERS; i++) sum[t][i] = dot_tile_bytes(sum[t][i], w[i], four);
    }
}

ALWAYS_INLINE void add_splits(ivec *sum, const tile_line_i8 *tile, const i8_activations *x, int n_in) {
    const i8_split *splits = i8_splits((i8_activations *)(uintptr_t)x, n_in);
    for (int s = 0; s < x->n_splits; s++) {
        const bytes four = splat_four(splits[s].q);
#pragma GCC unroll 4
        for (int i = 0; i < TILE_REGISTERS; i++)
            sum[i] = dot_tile_bytes(sum[i], line_register(tile + splits[s].line, i), four);
    }
}

/* The outputs of a token: out = bias + sum * (d * scales), or out += that; n <= WIDTH of them. */
ALWAYS_INLINE void store_scaled(const gemm_i8_args *g, float *out, vec sum, float d, int row, const int n) {
    const bool whole = n == WIDTH;
    const vec scales = whole ? load(g->scales + row) : load_first(g->scales + row, n);
    vec bias = {0}, old = {0};
    if (g->bias) bias = whole ? load(g->bias + row) : load_first(g->bias + row, n);
    if (g->add) old = whole ? load(out) : load_first(out, n);
    const vec result = sum * (scales * d) + bias + old;
    if (whole) store(out, result);
    else store_first(out, result, n);
}

ALWAYS_INLINE void store_token(const gemm_i8_args *g, int t, int row, const ivec *sum, int n_rows) {
    const i8_activations *x = token_of(g, t);
    float *out = g->out.at + t * g->out.ld + row;
    const int of_zero_point = SUMS_ZERO_POINT ? I8_ZERO_POINT * x->sum : 0;
    for (int i = 0; i < TILE_REGISTERS; i++) {
        const int n = n_rows - row - i * WIDTH;
        const vec whole = __builtin_convertvector(sum[i] - of_zero_point, vec);
        if (n >= WIDTH) store_scaled(g, out + i * WIDTH, whole, x->d, row + i * WIDTH, WIDTH);
        else if (n > 0) store_scaled(g, out + i * WIDTH, whole, x->d, row + i * WIDTH, n);
    }
}

/* The tile that begins at a row, for n_tokens from token t on; n_tokens is a constant wherever this is inlined. */
ALWAYS_INLINE void i8_tile(const gemm_i8_args *g, int t, int row, const int n_tokens) {
    const int n_in = g->size.n_in;
    const tile_line_i8 *tile = g->tiles + (int64_t)row / I8_TILE_ROWS * (n_in / I8_LINE_K);
    const int8_t *x[TOKENS_PER_TILE];
    i8_sums sum = {{{0}}};
    for (int i = 0; i < n_tokens; i++) x[i] = token_of(g, t + i)->q;
    for (int k = 0; k < n_in; k += I8_LINE_K) {
        __builtin_prefetch(tile + k / I8_LINE_K + LINES_AHEAD);
        add_line(sum, tile + k / I8_LINE_K, x, k, n_tokens);
    }
#pragma GCC unroll 8
    for (int i = 0; i < n_tokens; i++) {
        if (SPLITS_PAIRS) add_splits(sum[i], tile, token_of(g, t + i), n_in);
        store_token(g, t + i, row, sum[i], g->size.n_rows);
    }
}

/* A tile for tokens [t, end). */
ALWAYS_INLINE void i8_tile_of_all(const gemm_i8_args *g, int t, int end, int row) {
    for (; t + TOKENS_PER_TILE <= end; t += TOKENS_PER_TILE) i8_tile(g, t, row, TOKENS_PER_TILE);
    if (t + 4 <= end) i8_tile(g, t, row, 4), t += 4;
    if (t + 2 <= end) i8_tile(g, t, row, 2), t += 2;
    if (t < end) i8_tile(g, t, row, 1);
}

/* Tokens whose activations stay in L2 while tiles pass. */
enum { BYTES_OF_TOKENS = 128 << 10 };

static void gemm_i8(const gemm_i8_args *g) {
    const int at_once = BYTES_OF_TOKENS / g->size.n_in / TOKENS_PER_TILE * TOKENS_PER_TILE;
    const int step = at_once > TOKENS_PER_TILE ? at_once : TOKENS_PER_TILE;
    for (int t = 0; t < g->size.n_tokens; t += step)
        for (int row = 0; row < g->size.n_rows; row += I8_TILE_ROWS)
            i8_tile_of_all(g, t, min_int(t + step, g->size.n_tokens), row);
}

#endif
