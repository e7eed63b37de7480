/* stream_floats.inl.h - matrix_floats.inl.h for two panels of tokens and weights of F32, F16 or BF16, whose time is
 * that of reading the weights: the rows that are read at a time are no neighbours, but each the next of a stream of
 * rows that lie behind each other, and 16-bit numbers are widened on the way.  The same sums in the same order. */
#ifndef FASTGPT_STREAM_FLOATS_INL_H
#define FASTGPT_STREAM_FLOATS_INL_H

#include "kernels/generic/dot.inl.h"
#include "kernels/x86/matrix_floats.inl.h"

enum {
    STREAM_K = 16,     /* numbers of a row, before the next row takes its turn */
    FLOATS_AHEAD = 512 /* bytes that are fetched ahead in each stream */
};

/* n numbers of a row of each stream. */
typedef struct stream_rows {
    const char *w;
    int64_t apart; /* bytes from a stream to the next */
    int64_t next;  /* bytes to what is read after these numbers */
    int n;
} stream_rows;

/* Row r of each of n streams, which have `each` of them. */
static inline stream_rows rows_of_streams(const void *w, int64_t ldw, int r, int each, int n, int n_in) {
    const int64_t to_next_tile = ((n - 1) * each + 1) * ldw;
    return (stream_rows){(const char *)w + r * ldw, each * ldw, r + 1 < each ? ldw : to_next_tile, n_in};
}

ALWAYS_INLINE void fetch_streams(const dtype type, const stream_rows *s, int k, const int n_rows) {
    const int element = type == TYPE_F32 ? 4 : 2, later = k + FLOATS_AHEAD / element;
    if (k * element % LINE) return;
    const char *at = s->w + (later < s->n ? 0 : s->next - (int64_t)s->n * element) + (int64_t)later * element;
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++) __builtin_prefetch(at + r * s->apart);
}

/* STREAM_K numbers of each row from k on, or the last n of them, as floats; *ld: from a row to the next. */
ALWAYS_INLINE const float *float_numbers(const dtype type, float *wide, const stream_rows *s, int k, int n,
                                         const int n_rows, int64_t *ld) {
    if (type == TYPE_F32) {
        *ld = s->apart / (int64_t)sizeof(float);
        return (const float *)(const void *)s->w + k;
    }
    *ld = STREAM_K;
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < STREAM_K; i += WIDTH) {
            const char *row = s->w + r * s->apart;
            if (i + WIDTH <= n) store(wide + r * STREAM_K + i, load_row(type, row, k + i));
            else if (i < n) store(wide + r * STREAM_K + i, load_row_first(type, row, k + i, n - i));
        }
    return wide;
}

/* Rows of c, ldc floats apart, are overwritten. */
ALWAYS_INLINE void stream_block(const dtype type, float *c, int64_t ldc, const float *x, int64_t ldx,
                                const stream_rows *s, const int n_rows, const int n_panels) {
    lanes sum[SUM_ROWS][SUM_PANELS] = {{{0}}};
    _Alignas(64) float wide[SUM_ROWS * STREAM_K];
    for (int k = 0; k < s->n; k += STREAM_K) {
        const int n = min_int(STREAM_K, s->n - k);
        int64_t ld;
        fetch_streams(type, s, k, n_rows);
        const float *w = float_numbers(type, wide, s, k, n, n_rows, &ld);
        for (int i = 0; i < n; i++) add_products(sum, x + (k + i) * LANES, ldx, w + i, ld, n_rows, n_panels);
    }
    store_sums_of(c, ldc, sum, n_rows, n_panels);
}

/* With constants for the number of panels. */
ALWAYS_INLINE void stream_panels(const dtype type, float *c, int64_t ldc, const float *x, int64_t ldx,
                                 const stream_rows *s, const int n_rows, int n_tokens) {
    if (n_tokens > LANES) stream_block(type, c, ldc, x, ldx, s, n_rows, 2);
    else stream_block(type, c, ldc, x, ldx, s, n_rows, 1);
}

/* ---- A few tokens: it is the weights that are turned over ---- */

#if defined(__AVX512F__)

enum { TURNED_ROWS = 16, TURNED_TOKENS = 8 };

/* The first n of sixteen numbers as floats, then zeros. */
ALWAYS_INLINE __m512 sixteen_floats(const dtype type, const char *row, int k, const int n) {
    if (type == TYPE_F32) return _mm512_maskz_loadu_ps(first_of_16(n), (const float *)(const void *)row + k);
    const __m256i h = _mm256_maskz_loadu_epi16(first_of_16(n), (const uint16_t *)(const void *)row + k);
    return type == TYPE_F16 ? _mm512_cvtph_ps(h) : (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
}

/* sum[t] += products of n numbers from k on, a lane for each row. */
ALWAYS_INLINE void add_turned(const dtype type, __m512 *sum, const float *x, const stream_rows *s, int k,
                              const int n_tokens, const int n) {
    __m512i w[TURNED_ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < TURNED_ROWS; r++) w[r] = (__m512i)sixteen_floats(type, s->w + r * s->apart, k, n);
    transpose_16(w);
#pragma GCC unroll 16
    for (int i = 0; i < STREAM_K; i++)
        if (i < n)
            for (int t = 0; t < n_tokens; t++) sum[t] += (__m512)w[i] * x[(k + i) * LANES + t];
}

/* n_tokens of each of TURNED_ROWS rows of c, ldc floats apart, are overwritten. */
ALWAYS_INLINE void turned_block(const dtype type, float *c, int64_t ldc, const float *x, const stream_rows *s,
                                const int n_tokens) {
    __m512 sum[TURNED_TOKENS] = {{0}};
    int k = 0;
    for (; k + STREAM_K <= s->n; k += STREAM_K) {
        fetch_streams(type, s, k, TURNED_ROWS);
        add_turned(type, sum, x, s, k, n_tokens, STREAM_K);
    }
    if (k < s->n) add_turned(type, sum, x, s, k, n_tokens, s->n - k);
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < TURNED_ROWS; r++) c[r * ldc + t] = sum[t][r];
}

/* With constants for their count, which may be more than there are: a panel is whole. */
ALWAYS_INLINE void turned_tokens(const dtype type, float *c, int64_t ldc, const float *x, const stream_rows *s,
                                 int n_tokens) {
    if (n_tokens > 4) turned_block(type, c, ldc, x, s, TURNED_TOKENS);
    else if (n_tokens > 2) turned_block(type, c, ldc, x, s, 4);
    else turned_block(type, c, ldc, x, s, n_tokens > 1 ? 2 : 1);
}

#else

enum { TURNED_ROWS = 1, TURNED_TOKENS = 0 };
#define turned_tokens(...) (void)0 /* of no tokens */

#endif

/* ---- All rows ---- */

/* Rows are streams as far as they can be as long as each other; the others come one by one. */
ALWAYS_INLINE void stream_floats(const dtype type, float *out, int64_t ldo, const float *x, int64_t ldx, const void *w,
                                 int64_t ldw, int n_tokens, int n_rows, int n_in) {
    float c[FLOAT_ROWS * MATRIX_TOKENS];
    const bool turned = n_tokens <= TURNED_TOKENS;
    const int n_streams = turned ? TURNED_ROWS : SUM_ROWS, each = n_rows / n_streams, ldc = each * MATRIX_TOKENS;
    for (int r = 0; r < each; r++) {
        const stream_rows s = rows_of_streams(w, ldw, r, each, n_streams, n_in);
        float *sums = c + r * MATRIX_TOKENS;
        if (turned) turned_tokens(type, sums, ldc, x, &s, n_tokens);
        else stream_panels(type, sums, ldc, x, ldx, &s, SUM_ROWS, n_tokens);
    }
    for (int r = each * n_streams; r < n_rows; r++) {
        const stream_rows s = rows_of_streams(w, ldw, r, 1, 1, n_in);
        stream_panels(type, c + r * MATRIX_TOKENS, 0, x, ldx, &s, 1, n_tokens);
    }
    add_transposed(out, ldo, c, n_tokens, n_rows);
}

#define STREAM_FLOATS(NAME, name, block, block_values)                                                          \
    static void stream_##name(float *out, int64_t ldo, const float *x, int64_t ldx, const void *w, int64_t ldw, \
                              int n_tokens, int n_rows, int n_in) {                                             \
        stream_floats(TYPE_##NAME, out, ldo, x, ldx, w, ldw, n_tokens, n_rows, n_in);                           \
    }

FLOAT_DTYPES(STREAM_FLOATS)

#define STREAM_ENTRY(NAME, name, block, block_values) [TYPE_##NAME] = stream_##name,
static const float_kernels float_products = {
    .matrix = matrix_floats, .stream = {FLOAT_DTYPES(STREAM_ENTRY)}, .lanes = LANES};

#endif
