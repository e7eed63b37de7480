/* dot.inl.h - products with rows of F32, F16 or BF16.
 *
 * Order of a sum over k: lane i adds k = i, i + WIDTH, ... in rising order, the tail padded with zeros; then the lanes
 * are added in halves: i with i + WIDTH / 2, and so on. */
#ifndef FASTGPT_DOT_INL_H
#define FASTGPT_DOT_INL_H

#include "kernels/generic/vectors.inl.h"
#include "kernels/kernels.h"

#ifndef PREFETCH_LEVEL
#define PREFETCH_LEVEL 3
#define PREFETCH_BEYOND 0
#endif
#ifndef STREAMS
#define STREAMS ROWS
#define STREAMED(type, n_tokens) false
#define STREAM_AHEAD 0
#endif

/* WIDTH values from index k of a row. */
ALWAYS_INLINE vec load_row(const dtype type, const char *row, int64_t k) {
    if (type == TYPE_F32) return load((const float *)(const void *)row + k);
    halves h = load_halves((const uint16_t *)(const void *)row + k);
    return type == TYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

/* n < WIDTH of them, then zeros. */
ALWAYS_INLINE vec load_row_first(const dtype type, const char *row, int64_t k, int n) {
    if (type == TYPE_F32) return load_first((const float *)(const void *)row + k, n);
    halves h = {0};
    memcpy(&h, row + 2 * k, (size_t)n * sizeof(uint16_t));
    return type == TYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

ALWAYS_INLINE int value_bytes(const dtype type) { return type == TYPE_F32 ? 4 : 2; }

/* What a tile prefetches while it computes: where rows are contiguous, the next tile, cache line by cache line; where
 * they are slices of longer rows, the same slices of the n_ahead-th row from here. */
typedef struct prefetch {
    const char *at;
    int64_t per_row, per_byte; /* steps */
} prefetch;

ALWAYS_INLINE prefetch prefetch_after(row_view w, int n_rows, int64_t bytes_of_row, int step, int n_ahead) {
    const char *at = w.at;
    if (w.ld == bytes_of_row) return (prefetch){at + n_rows * w.ld + PREFETCH_BEYOND, step, n_rows};
    return (prefetch){at + n_ahead * w.ld, w.ld, 1};
}

enum { LINE = 64, MAX_TILE_ROWS = ROWS > STREAMS ? ROWS : STREAMS };

/* n_rows <= MAX_TILE_ROWS, `apart` rows from one to the next, by n_tokens <= TOKENS; stream: each row is the head of a
 * stream of rows.  All but apart are constants wherever a tile is inlined, so that the accumulators are registers. */
typedef struct tile {
    int n_tokens, n_rows;
    int64_t apart;
    bool stream;
} tile;

/* The accumulators of a tile. */
typedef vec tile_sums[MAX_TILE_ROWS][TOKENS];

ALWAYS_INLINE void add_tile(out_view out, tile_sums sum, const tile c) {
#pragma GCC unroll 8
    for (int r = 0; r < c.n_rows; r++)
#pragma GCC unroll 8
        for (int t = 0; t < c.n_tokens; t++) out.at[t * out.ld + r * c.apart] += sum_lanes(sum[r][t]);
}

ALWAYS_INLINE void dot_tile(const dtype type, out_view out, row_view x, row_view w, const tile c, int n_in,
                            int n_ahead) {
    tile_sums sum = {{{0}}};
    const char *const x_rows = x.at, *const w_rows = w.at;
    const int element = value_bytes(type);
    const prefetch next = prefetch_after(w, c.n_rows, (int64_t)n_in * element, element * WIDTH, n_ahead);
    int k = 0;
    for (; k + WIDTH <= n_in; k += WIDTH) {
#pragma GCC unroll 8
        for (int r = 0; r < c.n_rows; r++) {
            const char *row = w_rows + r * c.apart * w.ld;
            if (c.stream && STREAM_AHEAD && k * element % LINE == 0)
                __builtin_prefetch(row + (int64_t)k * element + STREAM_AHEAD, 0, PREFETCH_LEVEL);
            if (!c.stream && (next.per_byte == 1 || r * element * WIDTH % LINE == 0)) /* each line once */
                __builtin_prefetch(next.at + r * next.per_row + (int64_t)k * element * next.per_byte, 0,
                                   PREFETCH_LEVEL);
            vec wr = load_row(type, row, k);
#pragma GCC unroll 8
            for (int t = 0; t < c.n_tokens; t++) sum[r][t] += wr * load_row(TYPE_F32, x_rows + t * x.ld, k);
        }
    }
    if (k < n_in) {
#pragma GCC unroll 8
        for (int r = 0; r < c.n_rows; r++) {
            vec wr = load_row_first(type, w_rows + r * c.apart * w.ld, k, n_in - k);
#pragma GCC unroll 8
            for (int t = 0; t < c.n_tokens; t++)
                sum[r][t] += wr * load_row_first(TYPE_F32, x_rows + t * x.ld, k, n_in - k);
        }
    }
    add_tile(out, sum, c);
}

static inline row_view rows_from(row_view v, int64_t first) {
    return (row_view){(const char *)v.at + first * v.ld, v.ld};
}

static inline out_view out_from(out_view v, int64_t token, int64_t row) {
    return (out_view){v.at + token * v.ld + row, v.ld};
}

/* All tokens of some rows, with constants for the counts.  TILE(t, r, tile) computes the tile at token t and row r. */
#define FOR_EACH_TOKEN(TILE, r, rows, apart, stream)                                                   \
    do {                                                                                               \
        int t = 0;                                                                                     \
        for (; t + TOKENS <= n_tokens; t += TOKENS) TILE(t, r, ((tile){TOKENS, rows, apart, stream})); \
        for (; t + 2 <= n_tokens; t += 2) TILE(t, r, ((tile){2, rows, apart, stream}));                \
        if (t < n_tokens) TILE(t, r, ((tile){1, rows, apart, stream}));                                \
    } while (0)

/* Cuts a product of n_tokens and n_rows into tiles; their rows are streams if may_stream and the tokens are few. */
#define FOR_EACH_TILE(may_stream, TILE)                                                        \
    int first = 0;                                                                             \
    if (n_tokens <= TOKENS && (may_stream)) {                                                  \
        const int at_once = n_tokens == 1 ? STREAMS : ROWS, n = n_rows / at_once;              \
        for (int r = 0; r < n; r++) {                                                          \
            if (n_tokens == 1) TILE(0, r, ((tile){1, STREAMS, n, true}));                      \
            else FOR_EACH_TOKEN(TILE, r, ROWS, n, true);                                       \
        }                                                                                      \
        first = n * at_once;                                                                   \
    }                                                                                          \
    for (; first + ROWS <= n_rows; first += ROWS) FOR_EACH_TOKEN(TILE, first, ROWS, 1, false); \
    for (; first < n_rows; first++)                                                            \
        for (int t = 0; t < n_tokens; t++) TILE(t, first, ((tile){1, 1, 1, false}))

ALWAYS_INLINE void dot_rows(const dtype type, out_view out, row_view x, row_view w, gemm_size size) {
    const int n_tokens = size.n_tokens, n_rows = size.n_rows, n_in = size.n_in;
#define TILE(t, r, c) dot_tile(type, out_from(out, t, r), rows_from(x, t), rows_from(w, r), c, n_in, n_rows)
    FOR_EACH_TILE(STREAMED(type, n_tokens) && w.ld == n_in * (int64_t)value_bytes(type), TILE);
#undef TILE
}

/* ---- Weighted sums of rows ---- */

enum { COLUMNS = 8 }; /* registers of weighted_sum */

/* n_columns registers of out, summed over all rows; n_columns is a constant wherever this is inlined. */
ALWAYS_INLINE void sum_columns(const dtype type, float *out, const float *p, row_view v, int n_rows,
                               const int n_columns) {
    vec sum[COLUMNS];
    const int element = value_bytes(type);
    const int64_t ahead = n_rows * v.ld;
    for (int c = 0; c < n_columns; c++) sum[c] = load(out + c * WIDTH);
    for (int i = 0; i < n_rows; i++) {
        const char *row = (const char *)v.at + i * v.ld;
#pragma GCC unroll 8
        for (int c = 0; c < n_columns; c++) {
            int at = c * WIDTH;
            if (at * element % LINE == 0) __builtin_prefetch(row + at * element + ahead, 0, PREFETCH_LEVEL);
            sum[c] += p[i] * load_row(type, row, at);
        }
    }
    for (int c = 0; c < n_columns; c++) store(out + c * WIDTH, sum[c]);
}

/* Columns from the j-th on. */
static inline row_view columns_from(const dtype type, row_view v, int64_t j) {
    return (row_view){(const char *)v.at + j * value_bytes(type), v.ld};
}

ALWAYS_INLINE void weighted_sum(const dtype type, float *out, const float *p, row_view v, int n_rows, int n) {
    int j = 0;
    for (; j + COLUMNS * WIDTH <= n; j += COLUMNS * WIDTH)
        sum_columns(type, out + j, p, columns_from(type, v, j), n_rows, COLUMNS);
    for (; j + COLUMNS / 2 * WIDTH <= n; j += COLUMNS / 2 * WIDTH)
        sum_columns(type, out + j, p, columns_from(type, v, j), n_rows, COLUMNS / 2);
    for (; j + WIDTH <= n; j += WIDTH) sum_columns(type, out + j, p, columns_from(type, v, j), n_rows, 1);
    if (j == n) return;
    vec sum = load_first(out + j, n - j);
    for (int i = 0; i < n_rows; i++) sum += p[i] * load_row_first(type, (const char *)v.at + i * v.ld, j, n - j);
    store_first(out + j, sum, n - j);
}

ALWAYS_INLINE void floats_to_f32(const dtype type, float *out, const char *row, int n) {
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(out + i, load_row(type, row, i));
    if (i < n) store_first(out + i, load_row_first(type, row, i, n - i), n - i);
}

/* The kernels of one type. */
#define FLOAT_KERNELS(NAME, name, block, block_values)                                                  \
    static void dot_##name(out_view out, row_view x, row_view w, gemm_size size) {                      \
        dot_rows(TYPE_##NAME, out, x, w, size);                                                         \
    }                                                                                                   \
    static void sum_##name(float *out, const float *p, const void *v, int64_t ldv, int n_rows, int n) { \
        weighted_sum(TYPE_##NAME, out, p, (row_view){v, ldv}, n_rows, n);                               \
    }                                                                                                   \
    static void to_f32_##name(float *out, const void *row, int n) { floats_to_f32(TYPE_##NAME, out, row, n); }

FLOAT_DTYPES(FLOAT_KERNELS)

#endif
