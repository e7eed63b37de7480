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

/* Element k of token t in panels of n_in. */
static inline double panel_number(const uint16_t *x, int t, int k, int n_in) {
    return f32_of_bf16(
        x[((int64_t)(t / MATRIX_LANES) * n_in + k / 2 * 2) * MATRIX_LANES + t % MATRIX_LANES * 2 + k % 2]);
}

static inline void check_matrix(const char *name, matrix_kernel *matrix, uint64_t *state, int n_tokens, int n_rows,
                                int n_in) {
    const int64_t ldo = MATRIX_ROWS + 3;
    const uint16_t *x = random_bf16(state, 0, (int64_t)MATRIX_TOKENS * n_in);
    const uint16_t *w = random_bf16(state, 1, (int64_t)MATRIX_ROWS * n_in);
    float *out = guarded_floats(2, (n_tokens - 1) * ldo + n_rows);
    for (int64_t i = 0; i < (n_tokens - 1) * ldo + n_rows; i++) out[i] = (float)(i % 5);
    matrix(out, ldo, x, w, n_in * (int64_t)sizeof *w, n_tokens, n_rows, n_in);
    double worst = 0; /* error as a part of the bound: n_in roundings of at most the sum of absolute products */
    for (int64_t i = 0; i < (n_tokens - 1) * ldo + n_rows; i++) {
        int t = (int)(i / ldo), r = (int)(i % ldo);
        double sum = (double)(i % 5), absolute = sum + FLT_MIN;
        for (int k = 0; k < n_in && r < n_rows; k++) {
            double product = panel_number(x, t, k, n_in) * f32_of_bf16(w[(int64_t)r * n_in + k]);
            sum += product;
            absolute += fabs(product);
        }
        double bound = r < n_rows ? (n_in + 2) * (double)FLT_EPSILON * absolute : 0; /* gaps stay as they were */
        double error = fabs(out[i] - sum);
        worst = error <= worst * bound ? worst : error / (bound + DBL_MIN);
    }
    CHECK_FOR(worst <= 1, "%s: %d tokens, %d rows, n_in %d: %g times the bound", name, n_tokens, n_rows, n_in, worst);
}

static inline void check_matrix_kernel(const char *name, matrix_kernel *matrix) {
    uint64_t state = 7;
    static const int sizes[] = {1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
            for (int n_in = MATRIX_K; n_in <= 5 * MATRIX_K; n_in += 2 * MATRIX_K)
                check_matrix(name, matrix, &state, sizes[i], sizes[j], n_in);
}

#endif
