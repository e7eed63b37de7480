/* matrix_law.h - what every matrix kernel of kernels.h promises. */
#ifndef FASTGPT_MATRIX_LAW_H
#define FASTGPT_MATRIX_LAW_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "common/arithmetic.h"
#include "support/check.h"
#include "support/guard.h"
#include "dtypes/half.h"
#include "kernels/kernels.h"
#include "support/random.h"
#include "support/weights.h"

/* Number k of token t, or of row r. */
typedef double number_of(const void *operand, int row, int k, int n_in);

static inline double bf16_of_panel(const void *x, int t, int k, int n_in) {
    int64_t at = (int64_t)(t / MATRIX_LANES) * n_in * MATRIX_LANES + (int64_t)k / MATRIX_K * MATRIX_K * MATRIX_LANES +
                 t % MATRIX_LANES * MATRIX_K + k % MATRIX_K;
    return f32_of_bf16(((const uint16_t *)x)[at]);
}

static inline double float_of_panels_of_8(const void *x, int t, int k, int n_in) {
    return ((const float *)x)[(int64_t)(t / 8) * n_in * 8 + k * 8 + t % 8];
}

static inline double float_of_panels_of_16(const void *x, int t, int k, int n_in) {
    return ((const float *)x)[(int64_t)(t / 16) * n_in * 16 + k * 16 + t % 16];
}

static inline double float_of_row(const void *w, int r, int k, int n_in) {
    return ((const float *)w)[(int64_t)r * n_in + k];
}

/* What a kernel adds to. */
static inline float *new_sums(int which, int64_t n) {
    float *out = guarded_floats(which, n);
    for (int64_t i = 0; i < n; i++) out[i] = (float)(i % 5);
    return out;
}

/* What it made of them: each within n_in + 4 roundings of the sum of absolute products, and gaps as they were.  The
 * sums start from what was there, if it adds, and a bias [n_rows], if there is one. */
static inline void check_sums(const char *name, const float *out, int64_t ldo, bool add, const float *bias,
                              const void *x, number_of *x_number, const void *w, number_of *w_number, int n_tokens,
                              int n_rows, int n_in) {
    double worst = 0; /* error as a part of the bound */
    for (int64_t i = 0; i < (n_tokens - 1) * ldo + n_rows; i++) {
        int t = (int)(i / ldo), r = (int)(i % ldo);
        bool gap = r >= n_rows;
        double sum = (add || gap ? (double)(i % 5) : 0) + (bias && !gap ? bias[r] : 0), absolute = sum + FLT_MIN;
        for (int k = 0; k < n_in && !gap; k++) {
            double product = x_number(x, t, k, n_in) * w_number(w, r, k, n_in);
            sum += product;
            absolute += fabs(product);
        }
        double bound = gap ? 0 : (n_in + 4) * (double)FLT_EPSILON * absolute;
        double error = fabs(out[i] - sum);
        worst = error <= worst * bound ? worst : error / (bound + DBL_MIN);
    }
    CHECK_FOR(worst <= 1, "%s: %d tokens, %d rows, n_in %d: %g times the bound", name, n_tokens, n_rows, n_in, worst);
}

/* A product of BF16 numbers. */
typedef struct bf16_case {
    const bf16_kernels *k;
    const void *w;
    int64_t ldw;
    dtype type;
    int n_rows, n_in;
} bf16_case;

/* Numbers of every token that meet the weights before the others do; whole blocks of every type. */
enum { LAW_PIECE = 256 };

static inline void multiply_pieces(const bf16_case *c, const bf16_output *to, const uint16_t *x, int n_tokens) {
    const int64_t n_sums = round_up(n_tokens, MATRIX_TOKENS) * round_up(c->n_rows, MATRIX_ROWS);
    const int64_t ldx = round_up(c->n_in, MATRIX_K) * MATRIX_LANES;
    float *sums = aligned_alloc(64, (size_t)n_sums * sizeof *sums);
    uint16_t *tiles = (uint16_t *)(void *)guarded_bytes(4, round_up(c->n_rows, MATRIX_ROWS) * LAW_PIECE * 2);
    for (int i = 0, n; i < c->n_in; i += n) {
        n = c->n_in - i < LAW_PIECE ? c->n_in - i : LAW_PIECE;
        const char *w = (const char *)c->w + row_bytes(c->type, i);
        c->k->tiles(tiles, w, c->ldw, c->type, c->n_rows, n);
        c->k->gemm(to, sums, (bf16_view){x + i * MATRIX_LANES, ldx},
                   (bf16_view){tiles, round_up(n, MATRIX_K) * MATRIX_ROWS}, (gemm_size){n_tokens, c->n_rows, n}, i == 0,
                   i + n == c->n_in);
    }
    free(sums);
}

static inline void multiply_stream(const bf16_case *c, const bf16_output *to, const uint16_t *x, int n_tokens) {
    c->k->stream(to, x, (row_view){c->w, c->ldw}, c->type, (gemm_size){n_tokens, c->n_rows, c->n_in});
}

/* Panels of tokens [first, first + n_tokens) of x, for `product` or `stream`; to be freed. */
static inline uint16_t *panels_of(bf16_panel_kernel *fill, const float *x, int first, int n_tokens, int n_in) {
    const int64_t n_panel = round_up(n_in, MATRIX_K);
    uint16_t *panels = aligned_alloc(64, (size_t)(round_up(n_tokens, MATRIX_LANES) * n_panel) * sizeof *panels);
    for (int64_t t = 0; t < n_tokens; t += MATRIX_LANES)
        fill(panels + t * n_panel, x + (first + t) * n_in, n_in, n_tokens - t < MATRIX_LANES ? (int)(n_tokens - t) : 16,
             n_in);
    return panels;
}

/* Whether the sums of tokens are those that they have alone or, for `stream`, with few others: of all, or of some. */
static inline bool same_as_few(const bf16_case *c, const bf16_output *to, const float *start, const float *x,
                               int n_tokens, bool streamed) {
    float *rows = malloc((size_t)(STREAM_TOKENS * to->ldo) * sizeof *rows);
    bool same = true;
    for (int t = 0, n; t < n_tokens; t += n + n_tokens / 4) {
        n = streamed ? n_tokens - t < STREAM_TOKENS ? n_tokens - t : STREAM_TOKENS : 1;
        uint16_t *few = panels_of(streamed ? c->k->stream_panel : c->k->panel, x, t, n, c->n_in);
        const size_t n_bytes = (size_t)((n - 1) * to->ldo + c->n_rows) * sizeof *rows;
        const bf16_output rows_to = {rows, to->ldo, to->bias, to->add, NULL, NULL, 0};
        memcpy(rows, start + t * to->ldo, n_bytes);
        if (streamed) multiply_stream(c, &rows_to, few, n);
        else multiply_pieces(c, &rows_to, few, n);
        same &= memcmp(rows, to->out + t * to->ldo, n_bytes) == 0;
        free(few);
    }
    free(rows);
    return same;
}

/* Whether outputs as panels are those in floats, after an activation, rounded. */
static inline bool same_as_panels(const bf16_case *c, const bf16_output *to, const uint16_t *x, int n_tokens) {
    activation_kernel *const activation = kernels_portable.activation[RELU];
    const int64_t n = round_up(c->n_rows, MATRIX_K);
    uint16_t *panels =
        (uint16_t *)(void *)guarded_bytes(5, round_up(n_tokens, MATRIX_LANES) * n * (int64_t)sizeof *panels);
    const bf16_output as_panels = {
        .bias = to->bias, .activation = activation, .panels = panels, .ld_panels = n * MATRIX_LANES};
    multiply_pieces(c, &as_panels, x, n_tokens);
    bool same = true;
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < n; r++) {
            float number = r < c->n_rows ? to->out[t * to->ldo + r] : 0;
            activation(&number, 1);
            same &= f32_of_bf16(bf16_of_f32(number)) == (float)bf16_of_panel(panels, t, r, (int)n);
        }
    return same;
}

/* With or without what is there, and a bias. */
static inline void check_bf16(const char *name, const bf16_kernels *k, uint64_t *state, dtype type, int n_tokens,
                              int n_rows, int n_in) {
    const int64_t ldo = n_rows + 3, ldw = round_up(row_bytes(type, n_in) + 4, 4), n_panel = round_up(n_in, MATRIX_K);
    const bool add = (n_tokens + n_rows) % 2, has_bias = (n_tokens + n_in / 32) % 2;
    uint8_t *w = guarded_bytes(1, (n_rows - 1) * ldw + row_bytes(type, n_in));
    float *numbers = malloc((size_t)(n_rows * n_panel) * sizeof *numbers);
    float *x = malloc((size_t)n_tokens * (size_t)n_in * sizeof *x);
    float *out = new_sums(2, (n_tokens - 1) * ldo + n_rows), *bias = guarded_floats(3, n_rows);
    random_fill(state, x, (int64_t)n_tokens * n_in);
    for (int64_t r = 0; r < n_rows; r++) {
        bias[r] = (float)(r % 3);
        random_row(state, type, w + r * ldw, n_in);
        kernels_portable.to_f32[type](numbers + r * n_panel, w + r * ldw, n_in);
        for (int64_t i = 0; i < n_panel; i++)
            numbers[r * n_panel + i] = i < n_in ? f32_of_bf16(bf16_of_f32(numbers[r * n_panel + i])) : 0;
    }
    const bf16_case c = {k, w, ldw, type, n_rows, n_in};
    const bf16_output to = {.out = out, .ldo = ldo, .bias = has_bias ? bias : NULL, .add = add};
    const size_t n_bytes = (size_t)((n_tokens - 1) * ldo + n_rows) * sizeof *out;
    float *start = memcpy(malloc(n_bytes), out, n_bytes);
    uint16_t *panels = panels_of(k->panel, x, 0, n_tokens, n_in);
    multiply_pieces(&c, &to, panels, n_tokens);
    check_sums(name, out, ldo, add, to.bias, panels, bf16_of_panel, numbers, float_of_row, n_tokens, n_rows,
               (int)n_panel);
    CHECK_FOR(same_as_few(&c, &to, start, x, n_tokens, false), "%s: %d tokens, %d rows, n_in %d: other bits than alone",
              name, n_tokens, n_rows, n_in);
    if (k->streams[type])
        CHECK_FOR(same_as_few(&c, &to, start, x, n_tokens, true),
                  "%s: %d tokens, %d rows, n_in %d: other bits than streamed", name, n_tokens, n_rows, n_in);
    if (!add)
        CHECK_FOR(same_as_panels(&c, &to, panels, n_tokens),
                  "%s: %d tokens, %d rows, n_in %d: other panels than floats", name, n_tokens, n_rows, n_in);
    free(panels);
    free(start);
    free(x);
    free(numbers);
}

static inline void check_bf16_products(const char *name, const bf16_kernels *k, dtype type) {
    uint64_t state = 7;
    static const int tokens[] = {1, 2, 3, 4, 8, 9, 15, 16, 17, 31, 32, 33, 65, 512};
    static const int rows[] = {1, 2, 15, 16, 17, 32, 33, 70, 150}, any[] = {1, 31, 33, 64, 290},
                     blocks[] = {32, 96, 544, 256};
    const bool any_size = is_float(type), wide = type == TYPE_Q6_K;
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        for (size_t j = 0; j < sizeof rows / sizeof *rows; j++)
            for (size_t n = wide ? 3 : 0; n < (any_size ? 5 : 4); n++)
                check_bf16(name, k, &state, type, tokens[i], rows[j], any_size ? any[n] : wide ? 512 : blocks[n]);
}

/* Where number k of row r stands in tiles of rows with n numbers. */
static inline int64_t place_in_tiles(int r, int k, int64_t n) {
    const int64_t tile = (r / MATRIX_ROWS * (n / MATRIX_K) + k / MATRIX_K) * 2 + r % MATRIX_ROWS / MATRIX_LANES;
    return (tile * (MATRIX_K / 2) + k % MATRIX_K / 2) * MATRIX_LANES * 2 + r % MATRIX_LANES * 2 + k % 2;
}

/* Columns as tiles of rows. */
static inline bool same_columns(const bf16_kernels *k, const float *x, int64_t ld, int n_tokens, int n) {
    const int64_t n_numbers = round_up(n_tokens, MATRIX_K), n_rows = round_up(n, MATRIX_ROWS);
    uint16_t *tiles = (uint16_t *)(void *)guarded_bytes(2, n_rows * n_numbers * 2);
    k->columns(tiles, MATRIX_ROWS * n_numbers, x, ld, n_tokens, n);
    bool same = true;
    for (int t = 0; t < n_numbers; t++)
        for (int i = 0; i < n_rows; i++)
            same &= tiles[place_in_tiles(i, t, n_numbers)] == (t < n_tokens && i < n ? bf16_of_f32(x[t * ld + i]) : 0);
    return same;
}

/* Number i of token t of a panel of `panel`, or of `stream_panel`. */
static inline bool same_panel(bf16_panel_kernel *fill, bool streamed, const float *x, int64_t ld, int n_tokens, int n) {
    const int64_t n_panel = round_up(n, MATRIX_K);
    uint16_t *panel = (uint16_t *)(void *)guarded_bytes(1, n_panel * MATRIX_LANES * 2);
    fill(panel, x, ld, n_tokens, n);
    bool same = true;
    for (int t = 0; t < MATRIX_LANES; t++)
        for (int i = 0; i < n_panel; i++) {
            const uint16_t number = t < n_tokens && i < n ? bf16_of_f32(x[t * ld + i]) : 0;
            same &= number == (streamed ? panel[(i / 2 * MATRIX_LANES + t) * 2 + i % 2]
                                        : bf16_of_f32((float)bf16_of_panel(panel, t, i, (int)n_panel)));
        }
    return same;
}

/* Activations as panels, and columns as tiles, are what bf16_of_f32 makes of them. */
static inline void check_bf16_panel(const char *name, const bf16_kernels *k, int n_tokens, int n) {
    uint64_t state = 9;
    const int64_t ld = n + 5;
    float *x = guarded_floats(0, (n_tokens - 1) * ld + n);
    random_fill(&state, x, (n_tokens - 1) * ld + n);
    CHECK_FOR(same_columns(k, x, ld, n_tokens, n), "%s: columns of %d rows of %d", name, n_tokens, n);
    if (n_tokens > MATRIX_LANES) return;
    CHECK_FOR(same_panel(k->panel, false, x, ld, n_tokens, n), "%s: panel of %d tokens of %d", name, n_tokens, n);
    if (k->stream_panel)
        CHECK_FOR(same_panel(k->stream_panel, true, x, ld, n_tokens, n), "%s: stream's panel of %d tokens of %d", name,
                  n_tokens, n);
}

static inline void check_bf16_kernels(const char *name, const bf16_kernels *k) {
    static const int sizes[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 100};
    for (dtype type = 0; type < N_KERNEL_DTYPES; type++) check_bf16_products(name, k, type);
    for (int n_tokens = 1; n_tokens <= 70; n_tokens++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) check_bf16_panel(name, k, n_tokens, sizes[i]);
}

static inline void check_gemm_f32(const kernels *k, uint64_t *state, int n_tokens, int n_rows, int n_in) {
    const int64_t lanes = k->floats->lanes, ldo = FLOAT_ROWS + 3, n_x = (n_tokens + lanes - 1) / lanes * lanes * n_in;
    float *x = guarded_floats(0, n_x), *w = guarded_floats(1, (int64_t)n_rows * n_in);
    random_fill(state, x, n_x);
    random_fill(state, w, (int64_t)n_rows * n_in);
    read_ahead next = {.at = (const uint8_t *)w, .ld = n_in, .line_bytes = 34, .line_values = 16 << n_in % 3};
    float *out = new_sums(2, (n_tokens - 1) * ldo + n_rows);
    k->floats->gemm((out_view){out, ldo}, (f32_view){x, lanes * n_in}, (f32_view){w, n_in}, next,
                    (gemm_size){n_tokens, n_rows, n_in});
    check_sums(k->name, out, ldo, true, NULL, x, lanes == 8 ? float_of_panels_of_8 : float_of_panels_of_16, w,
               float_of_row, n_tokens, n_rows, n_in);
}

/* Weights as they lie in memory, and two panels of tokens at most: the bits of the same tokens among more, and of
 * widened weights.
 */
static inline void check_stream_floats(const kernels *k, uint64_t *state, dtype type, int n_tokens, int n_rows,
                                       int n_in) {
    const int64_t lanes = k->floats->lanes, ldo = FLOAT_ROWS + 3, ldw = row_bytes(type, n_in) + 4;
    float *x = guarded_floats(0, 2 * lanes * n_in), *numbers = guarded_floats(3, (int64_t)n_rows * n_in);
    uint8_t *w = guarded_bytes(1, (n_rows - 1) * ldw + row_bytes(type, n_in));
    random_fill(state, x, 2 * lanes * n_in);
    for (int64_t r = 0; r < n_rows; r++) {
        random_row(state, type, w + r * ldw, n_in);
        kernels_portable.to_f32[type](numbers + r * n_in, w + r * ldw, n_in);
    }
    const size_t n_bytes = (size_t)((2 * lanes - 1) * ldo + n_rows) * sizeof(float);
    float *among_more = memcpy(malloc(n_bytes), new_sums(2, (2 * lanes - 1) * ldo + n_rows), n_bytes);
    read_ahead nothing = {.at = w, .line_values = 16};
    k->floats->gemm((out_view){among_more, ldo}, (f32_view){x, lanes * n_in}, (f32_view){numbers, n_in}, nothing,
                    (gemm_size){(int)(2 * lanes), n_rows, n_in});
    float *out = new_sums(2, (n_tokens - 1) * ldo + n_rows);
    k->floats->stream[type]((out_view){out, ldo}, (f32_view){x, lanes * n_in}, (row_view){w, ldw},
                            (gemm_size){n_tokens, n_rows, n_in});
    bool same = true;
    for (int64_t t = 0; t < n_tokens; t++)
        same &= memcmp(out + t * ldo, among_more + t * ldo, (size_t)n_rows * sizeof *out) == 0;
    CHECK_FOR(same, "%s, %s: %d tokens, %d rows, n_in %d: other bits than among more", k->name, dtype_infos[type].name,
              n_tokens, n_rows, n_in);
    free(among_more);
}

static inline void check_float_streams(const kernels *k) {
    uint64_t state = 10;
    static const int rows[] = {1, 5, 6, 11, 12, 13, 24, 25, 47, 48}, sizes[] = {1, 7, 8, 15, 16, 17, 40, 300};
    for (dtype type = 0; type < N_FLOAT_DTYPES; type++)
        for (int n_tokens = 1; n_tokens <= STREAMED_PANELS * k->floats->lanes; n_tokens += 1 + n_tokens / 4)
            for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
                    check_stream_floats(k, &state, type, n_tokens, rows[i], sizes[j]);
}

static inline void check_gemm_f32_sizes(const kernels *k) {
    uint64_t state = 8;
    static const int rows[] = {1, 2, 5, 6, 7, 11, 12, 13, 18, 47, 48}, sizes[] = {1, 2, 3, 31, 32, 33, 66};
    CHECK(k->floats->lanes == 8 || k->floats->lanes == 16);
    for (int n_tokens = 1; n_tokens <= 4 * k->floats->lanes + 1; n_tokens++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
                check_gemm_f32(k, &state, n_tokens, rows[i], sizes[j]);
}

#endif
