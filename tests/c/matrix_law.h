/* matrix_law.h - what every matrix kernel of kernels.h promises. */
#ifndef FASTGPT_MATRIX_LAW_H
#define FASTGPT_MATRIX_LAW_H

#include <float.h>
#include <math.h>

#include "check.h"
#include "guard.h"
#include "half.h"
#include "kernels/kernels.h"
#include "random.h"

/* Numbers of BF16 [n] that end at guard `which`. */
static inline uint16_t *random_bf16(uint64_t *state, int which, int64_t n) {
    uint16_t *out = (uint16_t *)(void *)guarded_floats(which, n / 2);
    for (int64_t i = 0; i < n; i++) out[i] = bf16_of_f32(random_float(state));
    return out;
}

/* Number k of token t, or of row r. */
typedef double number_of(const void *operand, int row, int k, int n_in);

static inline double bf16_of_panel(const void *x, int t, int k, int n_in) {
    int64_t at = ((int64_t)(t / MATRIX_LANES) * n_in + k / 2 * 2) * MATRIX_LANES + t % MATRIX_LANES * 2 + k % 2;
    return f32_of_bf16(((const uint16_t *)x)[at]);
}

static inline double bf16_of_row(const void *w, int r, int k, int n_in) {
    return f32_of_bf16(((const uint16_t *)w)[(int64_t)r * n_in + k]);
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

/* What it made of them: each within n_in + 2 roundings of the sum of absolute products, and gaps as they were. */
static inline void check_sums(const char *name, const float *out, int64_t ldo, const void *x, number_of *x_number,
                              const void *w, number_of *w_number, int n_tokens, int n_rows, int n_in) {
    double worst = 0; /* error as a part of the bound */
    for (int64_t i = 0; i < (n_tokens - 1) * ldo + n_rows; i++) {
        int t = (int)(i / ldo), r = (int)(i % ldo);
        double sum = (double)(i % 5), absolute = sum + FLT_MIN;
        for (int k = 0; k < n_in && r < n_rows; k++) {
            double product = x_number(x, t, k, n_in) * w_number(w, r, k, n_in);
            sum += product;
            absolute += fabs(product);
        }
        double bound = r < n_rows ? (n_in + 2) * (double)FLT_EPSILON * absolute : 0;
        double error = fabs(out[i] - sum);
        worst = error <= worst * bound ? worst : error / (bound + DBL_MIN);
    }
    CHECK_FOR(worst <= 1, "%s: %d tokens, %d rows, n_in %d: %g times the bound", name, n_tokens, n_rows, n_in, worst);
}

static inline void check_matrix(const char *name, matrix_kernel *matrix, uint64_t *state, int n_tokens, int n_rows,
                                int n_in) {
    const int64_t ldo = MATRIX_ROWS + 3;
    const uint16_t *x = random_bf16(state, 0, (int64_t)MATRIX_TOKENS * n_in);
    const uint16_t *w = random_bf16(state, 1, (int64_t)MATRIX_ROWS * n_in);
    float *out = new_sums(2, (n_tokens - 1) * ldo + n_rows);
    matrix(out, ldo, x, w, n_in * (int64_t)sizeof *w, n_tokens, n_rows, n_in);
    check_sums(name, out, ldo, x, bf16_of_panel, w, bf16_of_row, n_tokens, n_rows, n_in);
}

static inline void check_matrix_kernel(const char *name, matrix_kernel *matrix) {
    uint64_t state = 7;
    static const int sizes[] = {1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
            for (int n_in = MATRIX_K; n_in <= 5 * MATRIX_K; n_in += 2 * MATRIX_K)
                check_matrix(name, matrix, &state, sizes[i], sizes[j], n_in);
}

static inline void check_matrix_floats(const kernels *k, uint64_t *state, int n_tokens, int n_rows, int n_in) {
    const int64_t lanes = k->float_lanes, ldo = FLOAT_ROWS + 3, n_x = (n_tokens + lanes - 1) / lanes * lanes * n_in;
    float *x = guarded_floats(0, n_x), *w = guarded_floats(1, (int64_t)n_rows * n_in);
    random_fill(state, x, n_x);
    random_fill(state, w, (int64_t)n_rows * n_in);
    read_ahead next = {.at = (const uint8_t *)w, .ld = n_in, .line_bytes = 34, .line_numbers = 16 << n_in % 3};
    float *out = new_sums(2, (n_tokens - 1) * ldo + n_rows);
    k->matrix_floats(out, ldo, x, lanes * n_in, w, n_in, next, n_tokens, n_rows, n_in);
    check_sums(k->name, out, ldo, x, lanes == 8 ? float_of_panels_of_8 : float_of_panels_of_16, w, float_of_row,
               n_tokens, n_rows, n_in);
}

static inline void check_matrix_floats_kernel(const kernels *k) {
    uint64_t state = 8;
    static const int rows[] = {1, 2, 5, 6, 7, 11, 12, 13, 18, 47, 48}, sizes[] = {1, 2, 3, 31, 32, 33, 66};
    CHECK(k->float_lanes == 8 || k->float_lanes == 16);
    for (int n_tokens = 1; n_tokens <= 4 * k->float_lanes + 1; n_tokens++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
                check_matrix_floats(k, &state, n_tokens, rows[i], sizes[j]);
}

#endif
