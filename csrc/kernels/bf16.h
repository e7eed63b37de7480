/* bf16.h - the products of bf16_kernels in AVX-512 BF16, but for the one loop that multiplies.  A file that includes
 * this has
 *
 *     void begin_products(void), end_products(void)
 *     void add_piece(float *sums, const uint16_t *x, const uint16_t *second_x, const uint16_t *w, int n_tokens,
 *                    int n_rows, int n, bool begins, fetching *next)
 *         sums[r][t] = or, unless it begins, += w[r] . x[t]; sums [MATRIX_ROWS][MATRIX_TOKENS], w [MATRIX_ROWS] rows
 *         PIECE numbers apart of which n count, a multiple of MATRIX_K; x and second_x the panels at those numbers.
 *         It calls fetch_some(next) for every MATRIX_K numbers.
 *
 * The instruction that rounds takes denormal numbers for zero. */
#include "arithmetic.h"
#include "bf16_piece.h"
#include "matrix.h"

_Static_assert(MATRIX_K == 32 && MATRIX_LANES == 16, "a register of BF16 numbers has 32 of them, in 16 pairs");

static inline __m512i bf16_of(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

/* The first n of 32 floats as BF16 numbers, then zeros. */
static inline __m512i bf16_of_first(const float *x, int n) {
    return bf16_of(_mm512_maskz_loadu_ps(first_of_16(n), x), _mm512_maskz_loadu_ps(first_of_16(n - 16), x + 16));
}

/* ---- Rows ---- */

static void bf16_row_f32(uint16_t *out, const void *row, int n) {
    for (int i = 0; i < n; i += MATRIX_K) _mm512_storeu_si512(out + i, bf16_of_first((const float *)row + i, n - i));
}

/* Through F32, a piece at a time. */
ALWAYS_INLINE void bf16_row_of(widen_kernel *widen, int64_t bytes_of_piece, uint16_t *out, const void *row, int n) {
    float wide[PIECE];
    const char *piece = row;
    for (int i = 0; i < n; i += PIECE, piece += bytes_of_piece) {
        int m = min_int(n - i, PIECE);
        widen(wide, piece, m);
        bf16_row_f32(out + i, wide, m);
    }
}

static void bf16_row_f16(uint16_t *out, const void *row, int n) {
    bf16_row_of(widen_row_f16, PIECE * sizeof(uint16_t), out, row, n);
}

static void bf16_row_q6_k(uint16_t *out, const void *row, int n) {
    bf16_row_of(widen_row_q6_k, sizeof(block_q6_k), out, row, n);
}

static void bf16_row_bf16(uint16_t *out, const void *row, int n) {
    const uint16_t *numbers = row;
    int i = 0;
    for (; i + MATRIX_K <= n; i += MATRIX_K) _mm512_storeu_si512(out + i, _mm512_loadu_si512(numbers + i));
    if (i < n) _mm512_storeu_si512(out + i, _mm512_maskz_loadu_epi16((1U << (n - i)) - 1, numbers + i));
}

static inline __m512 scale_of(const uint16_t *d) { return _mm512_cvtph_ps(_mm256_set1_epi16((int16_t)*d)); }

static void bf16_block_q8_0(uint16_t *out, const void *at) {
    const block_q8_0 *block = at;
    const __m512 scale = scale_of(&block->d);
    __m512 part[2];
    for (int p = 0; p < 2; p++) {
        __m128i q = _mm_loadu_si128((const void *)(block->q + 16 * p));
        part[p] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)) * scale;
    }
    _mm512_storeu_si512(out, bf16_of(part[0], part[1]));
}

/* The sixteen numbers that a block may have are made once, and looked up. */
static void bf16_block_q4_0(uint16_t *out, const void *at) {
    const block_q4_0 *block = at;
    const __m512 levels = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    __m256i table = (__m256i)_mm512_cvtneps_pbh(levels * scale_of(&block->d));
    bytes split;
    split_nibbles(&split, block->q);
    _mm512_storeu_si512(out,
                        _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16((__m256i)split), _mm512_castsi256_si512(table)));
}

static void bf16_row_q8_0(uint16_t *out, const void *row, int n) {
    const block_q8_0 *block = row;
    for (int i = 0; i < n; i += MATRIX_K) bf16_block_q8_0(out + i, block++);
}

static void bf16_row_q4_0(uint16_t *out, const void *row, int n) {
    const block_q4_0 *block = row;
    for (int i = 0; i < n; i += MATRIX_K) bf16_block_q4_0(out + i, block++);
}

/* ---- Panels and columns ---- */

/* Pairs of a token become rows of pairs. */
static void bf16_panel(uint16_t *panel, const float *x, int64_t ldx, int n_tokens, int n_in) {
    for (int k = 0; k < n_in; k += MATRIX_K) {
        __m512i row[MATRIX_LANES];
#pragma GCC unroll 16
        for (int t = 0; t < MATRIX_LANES; t++)
            row[t] = t < n_tokens ? bf16_of_first(x + t * ldx + k, n_in - k) : _mm512_setzero_si512();
        transpose_16(row);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(panel + (int64_t)k * MATRIX_LANES + 32 * i, row[i]);
    }
}

/* Sixteen columns of two rows, as pairs. */
static inline __m512i pairs_of_rows(const float *x, int64_t ldx, int n_rows, __mmask16 columns) {
    static const uint16_t riffle[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512 first = _mm512_maskz_loadu_ps(n_rows > 0 ? columns : 0, x);
    __m512 second = _mm512_maskz_loadu_ps(n_rows > 1 ? columns : 0, x + ldx);
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(riffle), bf16_of(first, second));
}

static void bf16_columns(uint16_t *out, int64_t ldo, const float *x, int64_t ldx, int n_rows, int n) {
    enum { COLUMNS = 16 };
    for (int j = 0; j < n; j += COLUMNS)
        for (int i = 0; i < n_rows; i += MATRIX_K) {
            __m512i row[COLUMNS];
#pragma GCC unroll 16
            for (int p = 0; p < 16; p++)
                row[p] = pairs_of_rows(x + (i + 2 * p) * ldx + j, ldx, n_rows - i - 2 * p, first_of_16(n - j));
            transpose_16(row);
#pragma GCC unroll 16
            for (int c = 0; c < COLUMNS; c++)
                if (c < n - j) _mm512_storeu_si512(out + (j + c) * ldo + i, row[c]);
        }
}

/* ---- Products ---- */

typedef void bf16_row(uint16_t *out, const void *row, int n);

static bf16_row *const bf16_rows[N_NUMBER_TYPES] = {bf16_row_f32,  bf16_row_f16,  bf16_row_bf16,
                                                    bf16_row_q8_0, bf16_row_q4_0, bf16_row_q6_k};

/* Some rows of weights. */
typedef struct raw_rows {
    const char *w;
    int64_t ld; /* bytes */
    number_type type;
    int n_rows, n_in, n_behind; /* rows of this product, numbers, rows behind them that may be wanted next */
} raw_rows;

/* Numbers [k, k + n) of MATRIX_ROWS rows at most from row r on, PIECE numbers apart. */
static void unpack_piece(uint16_t *out, const raw_rows *rows, int r, int k, int n) {
    const char *row = rows->w + r * rows->ld + row_bytes(rows->type, k);
    const int end = min_int(r + MATRIX_ROWS, rows->n_rows);
    for (; r < end; r++, out += PIECE, row += rows->ld) bf16_rows[rows->type](out, row, n);
}

/* What comes behind numbers [.. k) of rows [r .. r + MATRIX_ROWS), in so many steps. */
static fetching fetch_next(const raw_rows *rows, int r, int k, int n_steps) {
    enum { LINE = 64 };
    if (k == rows->n_in) k = 0, r += MATRIX_ROWS;
    const int n_rows = min_int(rows->n_rows + rows->n_behind - r, MATRIX_ROWS);
    if (n_rows <= 0) return (fetching){0};
    const int row_lines = n_tiles(row_bytes(rows->type, min_int(rows->n_in - k, PIECE)), LINE);
    return (fetching){.row = rows->w + r * rows->ld + row_bytes(rows->type, k),
                      .ld = rows->ld,
                      .row_lines = row_lines,
                      .n_lines = n_rows * row_lines,
                      .per_step = n_tiles(n_rows * row_lines, n_steps)};
}

/* What a tile of 32 rows becomes; tokens from the first on. */
typedef struct target {
    float *out; /* of the first row */
    int64_t ldo;
    const float *bias;
    bool add;
    const float *sums;
    int n_tokens, n_rows;
} target;

static inline void put_tile(const target *to, int t) {
    put_transposed(to->out + t * to->ldo, to->ldo, to->bias, to->add, to->sums + t * MATRIX_ROWS,
                   min_int(to->n_tokens - t, MATRIX_TOKENS), to->n_rows);
}

/* All tokens and a piece of some rows.  After the last piece each tile is put where it belongs, while the next one is
 * multiplied. */
static inline void multiply_piece(const target *to, float *sums, const uint16_t *x, int64_t panel, const uint16_t *w,
                                  int n, bool begins, bool ends, fetching *next) {
    for (int t = 0; t < to->n_tokens; t += MATRIX_TOKENS) {
        const uint16_t *at = x + t / MATRIX_LANES * panel;
        add_piece(sums + t * MATRIX_ROWS, at, at + panel, w, min_int(to->n_tokens - t, MATRIX_TOKENS), to->n_rows, n,
                  begins, next);
        if (ends && t > 0) put_tile(to, t - MATRIX_TOKENS);
    }
    if (ends) put_tile(to, (to->n_tokens - 1) / MATRIX_TOKENS * MATRIX_TOKENS);
}

static void product_by_pieces(float *out, int64_t ldo, const float *bias, bool add, const uint16_t *x, const void *w,
                              int64_t ldw, number_type type, int n_tokens, int n_rows, int n_in, int n_behind) {
    _Alignas(64) uint16_t unpacked[MATRIX_ROWS * PIECE];
    _Alignas(64) float sums[MOST_MATRIX_TOKENS * MATRIX_ROWS];
    const raw_rows rows = {w, ldw, type, n_rows, n_in, n_behind};
    const int64_t panel = round_up(n_in, MATRIX_K) * MATRIX_LANES;
    begin_products();
    for (int r = 0; r < n_rows; r += MATRIX_ROWS) {
        const target to = {out + r, ldo, bias ? bias + r : NULL, add, sums, n_tokens, min_int(n_rows - r, MATRIX_ROWS)};
        for (int k = 0; k < n_in; k += PIECE) {
            const int n = min_int(n_in - k, PIECE), whole_n = (int)round_up(n, MATRIX_K);
            fetching next = fetch_next(&rows, r, k + n, whole_n / MATRIX_K * n_tiles(n_tokens, MATRIX_TOKENS));
            unpack_piece(unpacked, &rows, r, k, n);
            multiply_piece(&to, sums, x + (int64_t)k * MATRIX_LANES, panel, unpacked, whole_n, k == 0, k + n == n_in,
                           &next);
        }
    }
    end_products();
}
