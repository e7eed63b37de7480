/* test_blas.c - the products of blas.h, whichever BLAS is behind them, against a loop in double precision. */
#include "matmul/blas.h"
#include "support/check.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef void gemm_function(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                           int64_t ldb, float beta, float *c, int64_t ldc);

typedef struct {
    int64_t m, n, k, lda, ldb, ldc;
    float alpha, beta;
    bool transposed; /* b is [n][k] */
} product;

static const char *form(product x) { return x.transposed ? "nt" : "nn"; }

static gemm_function *gemm_of(product x) { return x.transposed ? blas_gemm_nt : blas_gemm_nn; }

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
static double bound(product x, double absolute_sum) { return (double)(x.k + 2) * FLT_EPSILON * absolute_sum; }

/* c must be alpha a op(b) + beta c_before inside its m x n part and c_before in the gaps between rows. */
static void check_result(product x, const float *a, const float *b, const float *c_before, const float *c) {
    double worst = 0.0; /* error as a part of the bound */
    bool gaps_untouched = true;
    for (int64_t i = 0; i < x.m; i++) {
        for (int64_t j = 0; j < x.n; j++) {
            double before = x.beta == 0.0f ? 0.0 : (double)x.beta * c_before[i * x.ldc + j];
            double sum = before, absolute = fabs(before) + DBL_MIN;
            for (int64_t p = 0; p < x.k; p++) {
                double b_pj = x.transposed ? b[j * x.ldb + p] : b[p * x.ldb + j];
                sum += (double)x.alpha * a[i * x.lda + p] * b_pj;
                absolute += fabs((double)x.alpha * a[i * x.lda + p] * b_pj);
            }
            double error = fabs(c[i * x.ldc + j] - sum) / bound(x, absolute);
            worst = error <= worst ? worst : error; /* NaN counts as worst, and stays */
        }
        size_t n_gap = (size_t)(x.ldc - x.n);
        gaps_untouched &= memcmp(c + i * x.ldc + x.n, c_before + i * x.ldc + x.n, n_gap * sizeof *c) == 0;
    }
    CHECK_FOR(worst <= 1.0, "%s m %d n %d k %d alpha %g beta %g: %g times the bound", form(x), (int)x.m, (int)x.n,
              (int)x.k, (double)x.alpha, (double)x.beta, worst);
    CHECK_FOR(gaps_untouched, "%s m %d n %d ldc %d", form(x), (int)x.m, (int)x.n, (int)x.ldc);
}

static void check_product(product x) {
    const int64_t c_size = x.m * x.ldc;
    float *a = random_floats(x.m * x.lda);
    float *b = random_floats((x.transposed ? x.n : x.k) * x.ldb);
    float *c_before = random_floats(c_size);
    float *c = random_floats(c_size);
    if (x.beta == 0.0f) /* must be overwritten, not multiplied by zero */
        for (int64_t i = 0; i < c_size; i++) c_before[i] = NAN;
    memcpy(c, c_before, (size_t)c_size * sizeof *c);

    gemm_of(x)(x.m, x.n, x.k, x.alpha, a, x.lda, b, x.ldb, x.beta, c, x.ldc);
    check_result(x, a, b, c_before, c);

    free(a);
    free(b);
    free(c_before);
    free(c);
}

/* The product with rows that lie gap floats further apart than they are long. */
static product with_gap(int64_t m, int64_t n, int64_t k, int64_t gap, bool transposed) {
    return (product){.m = m,
                     .n = n,
                     .k = k,
                     .lda = k + gap,
                     .ldb = (transposed ? k : n) + gap,
                     .ldc = n + gap,
                     .alpha = 1.0f,
                     .beta = 0.0f,
                     .transposed = transposed};
}

/* Every size, also zero, one, and one beside each multiple of a block. */
static void test_sizes(bool transposed) {
    static const int64_t sizes[] = {0, 1, 2, 3, 5, 8, 17, 64, 129};
    const size_t n_sizes = sizeof sizes / sizeof *sizes;
    for (size_t i = 0; i < n_sizes; i++)
        for (size_t j = 0; j < n_sizes; j++)
            for (size_t p = 0; p < n_sizes; p++)
                for (int64_t gap = 0; gap <= 3; gap += 3)
                    check_product(with_gap(sizes[i], sizes[j], sizes[p], gap, transposed));
    check_product(with_gap(7, 1001, 301, 5, transposed));
}

static void test_alpha_and_beta(bool transposed) {
    static const float factors[] = {0.0f, 1.0f, -1.0f, 0.125f, 2.5f};
    const size_t n_factors = sizeof factors / sizeof *factors;
    for (size_t i = 0; i < n_factors; i++)
        for (size_t j = 0; j < n_factors; j++)
            for (int64_t k = 0; k <= 70; k += 35) {
                product x = with_gap(9, 33, k, 2, transposed);
                x.alpha = factors[i];
                x.beta = factors[j];
                check_product(x);
            }
}

/* Whatever a product keeps in scratch memory, NaN here, must not reach the next one. */
static void test_nothing_is_left_behind(bool transposed) {
    enum { N = 128 };
    static float nans[N * N], ignored[N * N];
    for (int i = 0; i < N * N; i++) nans[i] = NAN;
    gemm_of((product){.transposed = transposed})(N, N, N, 1.0f, nans, N, nans, N, 0.0f, ignored, N);
    check_product(with_gap(5, 33, 5, 0, transposed));
}

/* Rows 2^33 floats apart, of which there is only one: an LP64 library must not see the low 32 bits alone. */
static void test_leading_dimensions_beyond_32_bits(void) {
    const int64_t far = INT64_C(1) << 33;
    product x = {.m = 1, .n = 1, .k = 3, .lda = far, .ldb = far, .ldc = far, .alpha = 1.0f, .transposed = true};
    const float a[] = {1.0f, 2.0f, 3.0f}, b[] = {4.0f, 5.0f, 6.0f};
    float c = NAN;
    gemm_of(x)(x.m, x.n, x.k, x.alpha, a, x.lda, b, x.ldb, x.beta, &c, x.ldc);
    CHECK_FOR(c == 32.0f, "c %g", (double)c);
}

int main(void) {
    CHECK(blas_reserve(1) == FASTGPT_OK);
    CHECK(strlen(blas_name()) > 0);
    for (int transposed = 0; transposed <= 1; transposed++) {
        test_sizes(transposed);
        test_alpha_and_beta(transposed);
        test_nothing_is_left_behind(transposed);
    }
    test_leading_dimensions_beyond_32_bits();
    printf("%s: ", blas_name());
    return check_report();
}
