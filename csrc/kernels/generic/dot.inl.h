/* dot.inl.h - products with rows of F32, F16 or BF16 numbers.
 *
 * Order of a sum over k: lane i adds k = i, i + WIDTH, ... in rising order, the tail padded with zeros; then the lanes
 * are added in halves: i with i + WIDTH / 2, and so on. */
#ifndef FASTGPT_DOT_INL_H
#define FASTGPT_DOT_INL_H

#include "kernels/generic/vectors.inl.h"
#include "kernels/kernels.h"

#ifndef FETCH_LEVEL
#define FETCH_LEVEL 3
#define FETCH_BEYOND 0
#endif
#ifndef STREAMS
#define STREAMS ROWS
#define STREAMED(type, n_tokens) false
#define STREAM_AHEAD 0
#endif

/* WIDTH numbers from index k of a row. */
ALWAYS_INLINE vec load_row(const dtype type, const char *row, int64_t k) {
    if (type == TYPE_F32) return load((const float *)(const void *)row + k);
    halves h = load_halves((const uint16_t *)(const void *)row + k);
    return type == TYPE_F16 ? widen_f16(h) : widen_bf16(h);
}

/* n < WIDTH of them, then zeros. */
ALWAYS_INLINE vec load_row_first(const dtype type, const char *row, int64_t k, int n) {
    if (type == TYPE_F32) return load_first((const float *)(const void *)row + k, n);
    halves h = {0};
    memcpy(&h, row + 2 * k, (size_t)n * sizeof(uint16_t));
    return type == TYPE_F16 ? widen_f16(h) : widen_bf16(h);
}

/* What a tile fetches while it computes: line after line of the next tile, where rows follow each other; where they are
 * slices of longer rows, the same slices of the n_ahead-th row from here. */
typedef struct ahead {
    const char *at;
    int64_t per_row, per_byte; /* steps */
} ahead;

ALWAYS_INLINE ahead look_ahead(const char *w, int64_t ldw, int n_rows, int64_t bytes_of_row, int step, int n_ahead) {
    if (ldw == bytes_of_row) return (ahead){w + n_rows * ldw + FETCH_BEYOND, step, n_rows};
    return (ahead){w + n_ahead * ldw, ldw, 1};
}

enum { LINE = 64, MOST_ROWS = ROWS > STREAMS ? ROWS : STREAMS };

/* A tile of n_rows <= MOST_ROWS, each `apart` rows behind the one before, by n_tokens <= TOKENS; type, counts and
 * stream are constants wherever this is inlined, so that the accumulators live in registers. */
ALWAYS_INLINE void dot_tile(const dtype type, float *out, int64_t ldo, const char *x, int64_t ldx, const char *w,
                            int64_t ldw, int64_t apart, const int n_tokens, const int n_rows, int n_in, int n_ahead,
                            const bool stream) {
    vec sum[MOST_ROWS][TOKENS] = {{{0}}};
    const int element = type == TYPE_F32 ? 4 : 2;
    const ahead next = look_ahead(w, ldw, n_rows, (int64_t)n_in * element, element * WIDTH, n_ahead);
    int k = 0;
    for (; k + WIDTH <= n_in; k += WIDTH) {
#pragma GCC unroll 8
        for (int r = 0; r < n_rows; r++) {
            const char *row = w + r * apart * ldw;
            if (stream && STREAM_AHEAD && k * element % LINE == 0)
                __builtin_prefetch(row + (int64_t)k * element + STREAM_AHEAD, 0, FETCH_LEVEL);
            if (!stream && (next.per_byte == 1 || r * element * WIDTH % LINE == 0)) /* each line once */
                __builtin_prefetch(next.at + r * next.per_row + (int64_t)k * element * next.per_byte, 0, FETCH_LEVEL);
            vec wr = load_row(type, row, k);
#pragma GCC unroll 8
            for (int t = 0; t < n_tokens; t++) sum[r][t] += wr * load_row(TYPE_F32, x + t * ldx, k);
        }
    }
    if (k < n_in) {
#pragma GCC unroll 8
        for (int r = 0; r < n_rows; r++) {
            vec wr = load_row_first(type, w + r * apart * ldw, k, n_in - k);
#pragma GCC unroll 8
            for (int t = 0; t < n_tokens; t++) sum[r][t] += wr * load_row_first(TYPE_F32, x + t * ldx, k, n_in - k);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < n_rows; r++)
#pragma GCC unroll 8
        for (int t = 0; t < n_tokens; t++) out[t * ldo + r * apart] += sum_lanes(sum[r][t]);
}

/* Tokens from the first on, with constants for their counts. */
#define FOR_EACH_TOKEN(TILE, r, rows, apart, stream)                                         \
    do {                                                                                     \
        int t = 0;                                                                           \
        for (; t + TOKENS <= n_tokens; t += TOKENS) TILE(t, TOKENS, r, rows, apart, stream); \
        for (; t + 2 <= n_tokens; t += 2) TILE(t, 2, r, rows, apart, stream);                \
        if (t < n_tokens) TILE(t, 1, r, rows, apart, stream);                                \
    } while (0)

/* Cuts a product into tiles.  TILE(t, tokens, r, rows, apart, stream) computes one at token t and row r, with constants
 * for its counts and for whether its rows are streams, as they are where the tokens are few and they may be. */
#define FOR_EACH_TILE(may_stream, TILE)                                                        \
    int first = 0;                                                                             \
    if (n_tokens <= TOKENS && (may_stream)) {                                                  \
        const int at_once = n_tokens == 1 ? STREAMS : ROWS, n = n_rows / at_once;              \
        for (int r = 0; r < n; r++) {                                                          \
            if (n_tokens == 1) TILE(0, 1, r, STREAMS, n, true);                                \
            else FOR_EACH_TOKEN(TILE, r, ROWS, n, true);                                       \
        }                                                                                      \
        first = n * at_once;                                                                   \
    }                                                                                          \
    for (; first + ROWS <= n_rows; first += ROWS) FOR_EACH_TOKEN(TILE, first, ROWS, 1, false); \
    for (; first < n_rows; first++)                                                            \
        for (int t = 0; t < n_tokens; t++) TILE(t, 1, first, 1, 1, false)

ALWAYS_INLINE void dot_rows(const dtype type, float *out, int64_t ldo, const char *x, int64_t ldx, const char *w,
                            int64_t ldw, int n_tokens, int n_rows, int n_in) {
#define TILE(t, tokens, r, rows, apart, stream)                                                                   \
    dot_tile(type, out + (t) * ldo + (r), ldo, x + (t) * ldx, ldx, w + (r) * ldw, ldw, apart, tokens, rows, n_in, \
             n_rows, stream)
    FOR_EACH_TILE(
        STREAMED(type, n_tokens) && ldw == n_in * (int64_t)(type == TYPE_F32 ? sizeof(float) : sizeof(uint16_t)), TILE);
#undef TILE
}

enum { COLUMNS = 8 }; /* registers of weighted_sum */

/* n_columns registers of out, summed over all rows; n_columns is a constant wherever this is inlined. */
ALWAYS_INLINE void sum_columns(const dtype type, float *out, const float *p, const char *v, int64_t ldv, int n_rows,
                               int first, const int n_columns) {
    vec sum[COLUMNS];
    const int element = type == TYPE_F32 ? 4 : 2;
    const int64_t ahead = n_rows * ldv;
    for (int c = 0; c < n_columns; c++) sum[c] = load(out + first + c * WIDTH);
    for (int i = 0; i < n_rows; i++) {
        const char *row = v + i * ldv;
#pragma GCC unroll 8
        for (int c = 0; c < n_columns; c++) {
            int at = first + c * WIDTH;
            if (c * WIDTH * element % 64 == 0) __builtin_prefetch(row + at * element + ahead, 0, FETCH_LEVEL);
            sum[c] += p[i] * load_row(type, row, at);
        }
    }
    for (int c = 0; c < n_columns; c++) store(out + first + c * WIDTH, sum[c]);
}

ALWAYS_INLINE void weighted_sum(const dtype type, float *out, const float *p, const char *v, int64_t ldv, int n_rows,
                                int n) {
    int j = 0;
    for (; j + COLUMNS * WIDTH <= n; j += COLUMNS * WIDTH) sum_columns(type, out, p, v, ldv, n_rows, j, COLUMNS);
    for (; j + COLUMNS / 2 * WIDTH <= n; j += COLUMNS / 2 * WIDTH)
        sum_columns(type, out, p, v, ldv, n_rows, j, COLUMNS / 2);
    for (; j + WIDTH <= n; j += WIDTH) sum_columns(type, out, p, v, ldv, n_rows, j, 1);
    if (j == n) return;
    vec sum = load_first(out + j, n - j);
    for (int i = 0; i < n_rows; i++) sum += p[i] * load_row_first(type, v + i * ldv, j, n - j);
    store_first(out + j, sum, n - j);
}

ALWAYS_INLINE void floats_to_f32(const dtype type, float *out, const char *row, int n) {
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(out + i, load_row(type, row, i));
    if (i < n) store_first(out + i, load_row_first(type, row, i, n - i), n - i);
}

/* The kernels of one type. */
#define FLOAT_KERNELS(NAME, name, block, block_values)                                                      \
    static void dot_##name(float *out, int64_t ldo, const void *x, int64_t ldx, const void *w, int64_t ldw, \
                           int n_tokens, int n_rows, int n_in) {                                            \
        dot_rows(TYPE_##NAME, out, ldo, x, ldx, w, ldw, n_tokens, n_rows, n_in);                            \
    }                                                                                                       \
    static void sum_##name(float *out, const float *p, const void *v, int64_t ldv, int n_rows, int n) {     \
        weighted_sum(TYPE_##NAME, out, p, v, ldv, n_rows, n);                                               \
    }                                                                                                       \
    static void to_f32_##name(float *out, const void *row, int n) { floats_to_f32(TYPE_##NAME, out, row, n); }

FLOAT_DTYPES(FLOAT_KERNELS)

#endif
