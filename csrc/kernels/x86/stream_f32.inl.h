/* stream_f32.inl.h - gemm_f32.inl.h for at most two panels of tokens and weights of F32, F16 or BF16, where reading the
 * weights takes most of the time: the rows that are read at a time are not neighbours, but the heads of streams, each
 * of which is a run of contiguous rows, and 16-bit values become F32 on the way.  The same sums in the same order. */
#ifndef FASTGPT_STREAM_F32_INL_H
#define FASTGPT_STREAM_F32_INL_H

#include "kernels/generic/dot.inl.h"
#include "kernels/x86/gemm_f32.inl.h"

enum {
    STREAM_K = 16, /* values of a row, before the row of the next stream */
    FLOATS_AHEAD = 512 /* bytes of each stream between what is read and what is prefetched */
};

/* n values of a row of each stream. */
typedef struct stream_rows {
    const char *w;
    int64_t apart; /* bytes from a stream to the next */
    int64_t next; /* bytes to what is read after these values */
    int n;
} stream_rows;

/* Row r of each of n streams, which have `each` of them. */
static inline stream_rows rows_of_streams(row_view w, int r, int each, int n, int n_in) {
    const int64_t to_next_tile = ((n - 1) * each + 1) * w.ld;
    return (stream_rows){(const char *)w.at + r * w.ld, each * w.ld, r + 1 < each ? w.ld : to_next_tile, n_in};
}

ALWAYS_INLINE void prefetch_streams(const dtype type, const stream_rows *s, int k, const int n_rows) {
    const int element = value_bytes(type), later = k + FLOATS_AHEAD / element;
    if (k * element % LINE) return;
    const char *at = s->w + (later < s->n ? 0 : s->next - (int64_t)s->n * element) + (int64_t)later * element;
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++) __builtin_prefetch(at + r * s->apart);
}

/* STREAM_K values of each row from k on, or the last n of them, as floats; in scratch where they are not. */
ALWAYS_INLINE f32_view stream_to_f32(const dtype type, float *scratch, const stream_rows *s, int k, int n,
                                     const int n_rows) {
    if (type == TYPE_F32) return (f32_view){(const float *)(const void *)s->w + k, s->apart / (int64_t)sizeof(float)};
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < STREAM_K; i += WIDTH) {
            const char *row = s->w + r * s->apart;
            if (i + WIDTH <= n) store(scratch + r * STREAM_K + i, load_row(type, row, k + i));
            else if (i < n) store(scratch + r * STREAM_K + i, load_row_first(type, row, k + i, n - i));
        }
    return (f32_view){scratch, STREAM_K};
}

/* Rows of c are overwritten. */
ALWAYS_INLINE void stream_block(const dtype type, out_view c, f32_view x, const stream_rows *s, const int n_rows,
                                const int n_panels) {
    lane_sums sum = {{{0}}};
    _Alignas(64) float scratch[SUM_ROWS * STREAM_K];
    for (int k = 0; k < s->n; k += STREAM_K) {
        const int n = min_int(STREAM_K, s->n - k);
        prefetch_streams(type, s, k, n_rows);
        const f32_view w = stream_to_f32(type, scratch, s, k, n, n_rows);
        for (int i = 0; i < n; i++)
            add_products(sum, (f32_view){x.at + (k + i) * LANES, x.ld}, (f32_view){w.at + i, w.ld}, n_rows, n_panels);
    }
    store_lane_sums(c, sum, n_rows, n_panels);
}

/* With constants for the number of panels. */
ALWAYS_INLINE void stream_panels(const dtype type, out_view c, f32_view x, const stream_rows *s, const int n_rows,
                                 int n_tokens) {
    if (n_tokens > LANES) stream_block(type, c, x, s, n_rows, 2);
    else stream_block(type, c, x, s, n_rows, 1);
}

/* ---- A few tokens: the weights are transposed, not the tokens ---- */

#if defined(__AVX512F__)

enum { TRANSPOSED_ROWS = 16, TRANSPOSED_TOKENS = 8 };

/* The first n of sixteen values as floats, then zeros. */
ALWAYS_INLINE __m512 sixteen_floats(const dtype type, const char *row, int k, const int n) {
    if (type == TYPE_F32) return _mm512_maskz_loadu_ps(first_of_16(n), (const float *)(const void *)row + k);
    const __m256i h = _mm256_maskz_loadu_epi16(first_of_16(n), (const uint16_t *)(const void *)row + k);
    return type == TYPE_F16 ? _mm512_cvtph_ps(h) : (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
}

/* sum[t] += products of n values from k on, a lane for each row. */
ALWAYS_INLINE void add_transposed_rows(const dtype type, __m512 *sum, const float *x, const stream_rows *s, int k,
                                       const int n_tokens, const int n) {
    __m512i w[TRANSPOSED_ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < TRANSPOSED_ROWS; r++) w[r] = (__m512i)sixteen_floats(type, s->w + r * s->apart, k, n);
    transpose_16(w);
#pragma GCC unroll 16
    for (int i = 0; i < STREAM_K; i++)
        if (i < n)
            for (int t = 0; t < n_tokens; t++) sum[t] += (__m512)w[i] * x[(k + i) * LANES + t];
}

/* n_tokens of each of TRANSPOSED_ROWS rows of c are overwritten. */
ALWAYS_INLINE void transposed_block(const dtype type, out_view c, const float *x, const stream_rows *s,
                                    const int n_tokens) {
    __m512 sum[TRANSPOSED_TOKENS] = {{0}};
    int k = 0;
    for (; k + STREAM_K <= s->n; k += STREAM_K) {
        prefetch_streams(type, s, k, TRANSPOSED_ROWS);
        add_transposed_rows(type, sum, x, s, k, n_tokens, STREAM_K);
    }
    if (k < s->n) add_transposed_rows(type, sum, x, s, k, n_tokens, s->n - k);
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < TRANSPOSED_ROWS; r++) c.at[r * c.ld + t] = sum[t][r];
}

/* With constants for their count, which may be more than there are: a panel is whole. */
ALWAYS_INLINE void transposed_tokens(const dtype type, out_view c, const float *x, const stream_rows *s, int n_tokens) {
    if (n_tokens > 4) transposed_block(type, c, x, s, TRANSPOSED_TOKENS);
    else if (n_tokens > 2) transposed_block(type, c, x, s, 4);
    else transposed_block(type, c, x, s, n_tokens > 1 ? 2 : 1);
}

#else

enum { TRANSPOSED_ROWS = 1, TRANSPOSED_TOKENS = 0 };
#define transposed_tokens(...) (void)0 /* of no tokens */

#endif

/* ---- All rows ---- */

/* As many rows as make streams of equal length are read as streams; the others one by one. */
ALWAYS_INLINE void stream_floats(const dtype type, out_view out, f32_view x, row_view w, gemm_size size) {
    float c[FLOAT_ROWS * MATRIX_TOKENS];
    const bool transposed = size.n_tokens <= TRANSPOSED_TOKENS;
    const int n_streams = transposed ? TRANSPOSED_ROWS : SUM_ROWS, each = size.n_rows / n_streams;
    for (int r = 0; r < each; r++) {
        const stream_rows s = rows_of_streams(w, r, each, n_streams, size.n_in);
        const out_view sums = {c + r * MATRIX_TOKENS, each * MATRIX_TOKENS};
        if (transposed) transposed_tokens(type, sums, x.at, &s, size.n_tokens);
        else stream_panels(type, sums, x, &s, SUM_ROWS, size.n_tokens);
    }
    for (int r = each * n_streams; r < size.n_rows; r++) {
        const stream_rows s = rows_of_streams(w, r, 1, 1, size.n_in);
        stream_panels(type, (out_view){c + r * MATRIX_TOKENS, 0}, x, &s, 1, size.n_tokens);
    }
    add_transposed(out.at, out.ld, c, size.n_tokens, size.n_rows);
}

#define STREAM_F32(NAME, name, block, block_values)                                   \
    static void stream_##name(out_view out, f32_view x, row_view w, gemm_size size) { \
        stream_floats(TYPE_##NAME, out, x, w, size);                                  \
    }

FLOAT_DTYPES(STREAM_F32)

#define STREAM_ENTRY(NAME, name, block, block_values) [TYPE_##NAME] = stream_##name,
static const float_kernels float_products = {.gemm = gemm_f32, .stream = {FLOAT_DTYPES(STREAM_ENTRY)}, .lanes = LANES};

#endif
