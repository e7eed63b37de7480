/* test_blas.c - the products of blas.h, whichever BLAS is behind them, against a loop in double precision. */
#include "matmul/blas.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"

static const char *form(const gemm_args *g) { return g->transpose_b ? "nt" : "nn"; }

/* [n] floats in (-1, 1), the same every time (a linear congruential generator). */
static float *random_floats(int64_t n) {
    static uint32_t state = 1;
    float *values = malloc((size_t)(n > 0 ? n : 1) * sizeof *values);
    if (values == NULL) abort();
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
    return values;
}

/* |error| that one element may have: k + 2 roundings of values up to the sum of absolute products. */
static double bound(const gemm_args *g, double absolute_sum) { return (double)(g->k + 2) * FLT_EPSILON * absolute_sum; }

/* The error of c[i][j] as a part of its bound. */
static double error_at(const gemm_args *g, const float *c_before, int64_t i, int64_t j) {
    double sum = g->accumulate ? (double)c_before[i * g->ldc + j] : 0.0, absolute = fabs(sum) + DBL_MIN;
    for (int64_t p = 0; p < g->k; p++) {
        double b_pj = g->transpose_b ? g->b[j * g->ldb + p] : g->b[p * g->ldb + j];
        sum += g->a[i * g->lda + p] * b_pj;
        absolute += fabs(g->a[i * g->lda + p] * b_pj);
    }
    return fabs(g->c[i * g->ldc + j] - sum) / bound(g, absolute);
}

/* c must be the product inside its m x n part, and c_before in the gaps between rows. */
static void check_result(const gemm_args *g, const float *c_before) {
    double worst = 0.0;
    bool gaps_untouched = true;
    for (int64_t i = 0; i < g->m; i++) {
        for (int64_t j = 0; j < g->n; j++) {
            double error = error_at(g, c_before, i, j);
            worst = error <= worst ? worst : error; /* NaN counts as worst, and stays */
        }
        int64_t gap = i * g->ldc + g->n;
        gaps_untouched &= memcmp(g->c + gap, c_before + gap, (size_t)(g->ldc - g->n) * sizeof(float)) == 0;
    }
    CHECK_FOR(worst <= 1.0, "%s m %d n %d k %d accumulate %d: %g times the bound", form(g), (int)g->m, (int)g->n,
              (int)g->k, g->accumulate, worst);
    CHECK_FOR(gaps_untouched, "%s m %d n %d ldc %d", form(g), (int)g->m, (int)g->n, (int)g->ldc);
}

/* Fills the matrices of g, of which it has the sizes, and multiplies them. */
static void check_product(gemm_args g) {
    const int64_t c_size = g.m * g.ldc;
    float *a = random_floats(g.m * g.lda);
    float *b = random_floats((g.transpose_b ? g.n : g.k) * g.ldb);
    float *c_before = random_floats(c_size);
    float *c = random_floats(c_size);
    if (!g.accumulate) /* must be overwritten, not multiplied by zero */
        for (int64_t i = 0; i < c_size; i++) c_before[i] = NAN;
    memcpy(c, c_before, (size_t)c_size * sizeof *c);

    g.a = a, g.b = b, g.c = c;
    blas_gemm(&g);
    check_result(&g, c_before);

    free(a);
    free(b);
    free(c_before);
    free(c);
}

/* Sizes of a product whose rows lie gap floats further apart than they are long. */
static gemm_args with_gap(int64_t m, int64_t n, int64_t k, int64_t gap, bool transpose_b) {
    return (gemm_args){.m = m,
                       .n = n,
                       .k = k,
                       .lda = k + gap,
                       .ldb = (transpose_b ? k : n) + gap,
                       .ldc = n + gap,
                       .transpose_b = transpose_b};
}

/* Every size, also zero, one, and one beside each multiple of a block. */
static void test_sizes(bool transpose_b) {
    static const int64_t sizes[] = {0, 1, 2, 3, 5, 8, 17, 64, 129};
    const size_t n_sizes = sizeof sizes / sizeof *sizes;
    for (size_t i = 0; i < n_sizes; i++)
        for (size_t j = 0; j < n_sizes; j++)
            for (size_t p = 0; p < n_sizes; p++)
                for (int64_t gap = 0; gap <= 3; gap += 3)
                    check_product(with_gap(sizes[i], sizes[j], sizes[p], gap, transpose_b));
    check_product(with_gap(7, 1001, 301, 5, transpose_b));
}

static void test_accumulate_adds_to_c(bool transpose_b) {
    for (int64_t k = 0; k <= 70; k += 35) {
        gemm_args g = with_gap(9, 33, k, 2, transpose_b);
        g.accumulate = true;
        check_product(g);
    }
}

/* Whatever a product keeps in scratch memory, NaN here, must not reach the next one. */
static void test_nothing_is_left_behind(bool transpose_b) {
    enum { N = 128 };
    static float nans[N * N], ignored[N * N];
    for (int i = 0; i < N * N; i++) nans[i] = NAN;
    gemm_args g = with_gap(N, N, N, 0, transpose_b);
    g.a = g.b = nans, g.c = ignored;
    blas_gemm(&g);
    check_product(with_gap(5, 33, 5, 0, transpose_b));
}

/* Rows 2^33 floats apart, of which there is only one: an LP64 library must not see the low 32 bits alone. */
static void test_leading_dimensions_beyond_32_bits(void) {
    const float a[] = {1.0f, 2.0f, 3.0f}, b[] = {4.0f, 5.0f, 6.0f};
    float c = NAN;
    gemm_args g = with_gap(1, 1, 3, INT64_C(1) << 33, true);
    g.a = a, g.b = b, g.c = &c;
    blas_gemm(&g);
    CHECK_FOR(c == 32.0f, "c %g", (double)c);
    g.accumulate = true;
    blas_gemm(&g);
    CHECK_FOR(c == 64.0f, "c %g", (double)c);
}

int main(void) {
    CHECK(blas_reserve(1) == FASTGPT_OK);
    CHECK(strlen(blas_name()) > 0);
    for (int transpose_b = 0; transpose_b <= 1; transpose_b++) {
        test_sizes(transpose_b);
        test_accumulate_adds_to_c(transpose_b);
        test_nothing_is_left_behind(transpose_b);
    }
    test_leading_dimensions_beyond_32_bits();
    printf("%s: ", blas_name());
    return check_report();
}
