/* stream_floats.h - matrix_floats.h for one panel of tokens and weights of F32, F16 or BF16, whose time is that of
 * reading the weights: SUM_ROWS rows at a time are no neighbours, but each the next of a stream of rows that lie behind
 * each other, and 16-bit numbers are widened on the way.  The same sums in the same order. */

enum {
    STREAM_K = 16,         /* numbers of a row, before the next row takes its turn */
    FLOATS_AHEAD = 512,    /* bytes that are fetched ahead in each stream */
    LINE_OF_STREAM = 64
};

/* n numbers of a row of each stream. */
typedef struct stream_rows {
    const char *w;
    int64_t apart; /* bytes from a stream to the next */
    int64_t next;  /* bytes to what is read after these numbers */
    int n;
} stream_rows;

ALWAYS_INLINE void fetch_streams(const number_type type, const stream_rows *s, int k, const int n_rows) {
    const int element = type == TYPE_F32 ? 4 : 2, later = k + FLOATS_AHEAD / element;
    if (k * element % LINE_OF_STREAM) return;
    const char *at = s->w + (later < s->n ? 0 : s->next - (int64_t)s->n * element) + (int64_t)later * element;
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++) __builtin_prefetch(at + r * s->apart);
}

/* STREAM_K numbers of each row from k on, or the last n of them, as floats; *ld: from a row to the next. */
ALWAYS_INLINE const float *float_numbers(const number_type type, float *wide, const stream_rows *s, int k, int n,
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
ALWAYS_INLINE void stream_block(const number_type type, float *c, int64_t ldc, const float *x, const stream_rows *s,
                                const int n_rows) {
    lanes sum[SUM_ROWS][SUM_PANELS] = {{{0}}};
    _Alignas(64) float wide[SUM_ROWS * STREAM_K];
    for (int k = 0; k < s->n; k += STREAM_K) {
        const int n = min_int(STREAM_K, s->n - k);
        int64_t ld;
        fetch_streams(type, s, k, n_rows);
        const float *w = float_numbers(type, wide, s, k, n, n_rows, &ld);
        for (int i = 0; i < n; i++) add_products(sum, x + (k + i) * LANES, 0, w + i, ld, n_rows, 1);
    }
    store_sums_of(c, ldc, sum, n_rows, 1);
}

/* Rows are streams as far as SUM_ROWS of them can be as long as each other; the others come one by one. */
ALWAYS_INLINE void stream_floats(const number_type type, float *out, int64_t ldo, const float *x, const void *w,
                                 int64_t ldw, int n_tokens, int n_rows, int n_in) {
    float c[FLOAT_ROWS * MATRIX_TOKENS];
    const int each = n_rows / SUM_ROWS;
    for (int r = 0; r < each; r++) {
        const int64_t to_next_tile = ((SUM_ROWS - 1) * each + 1) * ldw;
        const stream_rows s = {(const char *)w + r * ldw, each * ldw, r + 1 < each ? ldw : to_next_tile, n_in};
        stream_block(type, c + r * MATRIX_TOKENS, each * MATRIX_TOKENS, x, &s, SUM_ROWS);
    }
    for (int r = each * SUM_ROWS; r < n_rows; r++) {
        const stream_rows s = {(const char *)w + r * ldw, 0, ldw, n_in};
        stream_block(type, c + r * MATRIX_TOKENS, 0, x, &s, 1);
    }
    add_transposed(out, ldo, c, n_tokens, n_rows);
}

#define STREAM_FLOATS(suffix, type)                                                                                \
    static void stream_##suffix(float *out, int64_t ldo, const float *x, const void *w, int64_t ldw, int n_tokens, \
                                int n_rows, int n_in) {                                                            \
        stream_floats(type, out, ldo, x, w, ldw, n_tokens, n_rows, n_in);                                          \
    }

STREAM_FLOATS(f32, TYPE_F32)
STREAM_FLOATS(f16, TYPE_F16)
STREAM_FLOATS(bf16, TYPE_BF16)

static const float_kernels float_products = {
    .matrix = matrix_floats, .stream = {stream_f32, stream_f16, stream_bf16}, .lanes = LANES};
