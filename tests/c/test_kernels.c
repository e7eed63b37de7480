/* test_kernels.c - every set of kernels that runs here against the formulas in double precision.  The operands end at
 * guard pages, and the gaps between rows hold NaN, so that whatever is read beyond its place shows. */
#include "check.h"
#include "guard.h"
#include "kernels/kernels.h"
#include "random.h"

#include <float.h>
#include <math.h>
#include <string.h>

static uint64_t seed = 1;

static const int sizes[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,  15,  16,  17,   18,   19,
                            20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33,  34,  35,  36,   37,   38,
                            39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52,  53,  54,  55,   56,   57,
                            58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 127, 128, 255, 1001, 1600, 3072};
enum { N_SIZES = sizeof sizes / sizeof *sizes, MAX_SIZE = 3072 };

/* [n_rows][n], rows ld apart, random, with NaN in the gaps; the last row ends at guard `which`. */
static float *random_matrix(int which, int n_rows, int n, int64_t ld) {
    int64_t n_all = (n_rows - 1) * ld + n;
    float *m = guarded_floats(which, n_all);
    for (int64_t i = 0; i < n_all; i++) m[i] = i % ld < n ? random_float(&seed) : NAN;
    return m;
}

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

/* ---- dot_rows ---- */

typedef struct product {
    int n_tokens, n_rows, n_in;
    int64_t gap; /* between rows of each operand */
} product;

/* out[t][r] as it was before the call. */
static float start_of(int t, int r) { return (float)(t - 2 * r) / 8.0f; }

static void check_dot(const kernels *k, product p, const float *out, const float *x, const float *w) {
    int64_t ldo = p.n_rows + p.gap, ld = p.n_in + p.gap;
    double worst = 0; /* error as a part of the bound: n_in + 2 roundings of at most the sum of absolute products */
    bool same_as_alone = true;
    for (int t = 0; t < p.n_tokens; t++) {
        for (int r = 0; r < p.n_rows; r++) {
            double sum = start_of(t, r), absolute = fabs(sum) + FLT_MIN;
            for (int i = 0; i < p.n_in; i++) {
                sum += (double)x[t * ld + i] * w[r * ld + i];
                absolute += fabs((double)x[t * ld + i] * w[r * ld + i]);
            }
            double error = fabs(out[t * ldo + r] - sum) / ((p.n_in + 2) * (double)FLT_EPSILON * absolute);
            worst = error <= worst ? worst : error; /* NaN counts as worst, and stays */
            float alone = start_of(t, r);
            k->dot_rows(&alone, 1, x + t * ld, ld, w + r * ld, ld, 1, 1, p.n_in);
            same_as_alone &= same_bits(alone, out[t * ldo + r]);
        }
    }
    CHECK_FOR(worst <= 1, "%s: %d tokens, %d rows, n_in %d: %g times the bound", k->name, p.n_tokens, p.n_rows, p.n_in,
              worst);
    CHECK_FOR(same_as_alone, "%s: %d tokens, %d rows, n_in %d", k->name, p.n_tokens, p.n_rows, p.n_in);
}

static void run_dot(const kernels *k, product p) {
    int64_t ldo = p.n_rows + p.gap, ld = p.n_in + p.gap;
    const float *x = random_matrix(0, p.n_tokens, p.n_in, ld), *w = random_matrix(1, p.n_rows, p.n_in, ld);
    float *out = random_matrix(2, p.n_tokens, p.n_rows, ldo);
    for (int t = 0; t < p.n_tokens; t++)
        for (int r = 0; r < p.n_rows; r++) out[t * ldo + r] = start_of(t, r);
    k->dot_rows(out, ldo, x, ld, w, ld, p.n_tokens, p.n_rows, p.n_in);
    check_dot(k, p, out, x, w);
    bool gaps_untouched = true;
    for (int64_t i = 0; i < (p.n_tokens - 1) * ldo; i++) gaps_untouched &= i % ldo < p.n_rows || isnan(out[i]);
    CHECK_FOR(gaps_untouched, "%s: %d tokens, %d rows", k->name, p.n_tokens, p.n_rows);
}

static void test_dot_rows(const kernels *k) {
    for (int s = 0; s < N_SIZES; s++)
        for (int n_rows = 1; n_rows <= 9; n_rows++)
            for (int n_tokens = 1; n_tokens <= 9; n_tokens += sizes[s] > 70 ? 4 : 1)
                run_dot(k, (product){n_tokens, n_rows, sizes[s], (n_rows + n_tokens) % 3});
}

/* ---- weighted_sum ---- */

static void run_weighted_sum(const kernels *k, int n_rows, int n, int64_t gap) {
    const float *p = random_matrix(0, 1, n_rows, n_rows), *v = random_matrix(1, n_rows, n, n + gap);
    float *out = random_matrix(2, 1, n, n);
    for (int j = 0; j < n; j++) out[j] = NAN; /* overwritten, not added to */
    k->weighted_sum(out, p, v, n + gap, n_rows, n);
    double worst = 0;
    for (int j = 0; j < n; j++) {
        double sum = 0, absolute = FLT_MIN;
        for (int i = 0; i < n_rows; i++) {
            sum += (double)p[i] * v[i * (n + gap) + j];
            absolute += fabs((double)p[i] * v[i * (n + gap) + j]);
        }
        double error = fabs(out[j] - sum) / ((n_rows + 1) * (double)FLT_EPSILON * absolute);
        worst = error <= worst ? worst : error;
    }
    CHECK_FOR(worst <= 1, "%s: %d rows of %d: %g times the bound", k->name, n_rows, n, worst);
}

static void test_weighted_sum(const kernels *k) {
    for (int s = 0; s < N_SIZES; s++)
        for (int n_rows = 1; n_rows <= 70; n_rows += sizes[s] % 4 + 1)
            run_weighted_sum(k, n_rows, sizes[s], n_rows % 4);
}

/* ---- softmax ---- */

/* As kernels.h states them. */
#define SOFTMAX_BOUND(n) (3e-7 + (n) * 0x1p-24)
#define GELU_BOUND 2e-7

/* Largest absolute error of a softmax over x [n]; out is what the kernel made of it. */
static double softmax_error(const float *out, const float *x, int n) {
    double max = x[0], sum = 0, worst = 0;
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += exp(x[i] - max);
    for (int i = 0; i < n; i++) {
        double error = fabs(out[i] - exp(x[i] - max) / sum);
        worst = error <= worst ? worst : error;
    }
    return worst;
}

static void test_softmax(const kernels *k) {
    static const float factors[] = {0, 0.01f, 1, 10, 100, 1e6f, 1e38f};
    static float before[MAX_SIZE];
    double worst = 0;
    for (int s = 0; s < N_SIZES; s++) {
        for (size_t f = 0; f < sizeof factors / sizeof *factors; f++) {
            int n = sizes[s];
            float *x = random_matrix(0, 1, n, n);
            for (int i = 0; i < n; i++) before[i] = x[i] *= factors[f];
            k->softmax(x, n);
            double error = softmax_error(x, before, n);
            CHECK_FOR(error < SOFTMAX_BOUND(n), "%s: n %d, values up to %g: error %g", k->name, n, (double)factors[f],
                      error);
            worst = error > worst ? error : worst;
        }
    }
    printf("%-8s softmax: largest absolute error %.2g\n", k->name, worst);
}

/* The worst case of the sum: one term of 1, and many that are lost when added to it one by one. */
static void test_softmax_of_a_peak(const kernels *k) {
    static float before[MAX_SIZE];
    for (int n = 1; n <= MAX_SIZE; n *= 2) {
        float *x = guarded_floats(0, n);
        for (int i = 0; i < n; i++) before[i] = x[i] = i == 0 ? 0 : -16.7f;
        k->softmax(x, n);
        double error = softmax_error(x, before, n);
        CHECK_FOR(error < SOFTMAX_BOUND(n), "%s: n %d: error %g", k->name, n, error);
    }
}

/* A number that is none, or an infinite one, must not vanish in a plausible distribution. */
static void test_softmax_of_nan(const kernels *k) {
    static const float bad[] = {NAN, INFINITY};
    for (int b = 0; b < 2; b++) {
        for (int n = 1; n <= 70; n++) {
            for (int at = 0; at < n; at++) {
                float *x = random_matrix(0, 1, n, n);
                x[at] = bad[b];
                k->softmax(x, n);
                bool all_nan = true;
                for (int i = 0; i < n; i++) all_nan &= isnan(x[i]) != 0;
                CHECK_FOR(all_nan, "%s: n %d, %g at %d", k->name, n, (double)bad[b], at);
            }
        }
    }
}

/* ---- gelu ---- */

enum { CHUNK = 64 };

/* Error against float64, in units of max(1, |x|). */
static double gelu_error(float out, float x) {
    double u = sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * (double)x);
    double error = fabs(out - 0.5 * x * (1 + tanh(u)));
    return error / (fabsf(x) > 1 ? fabs((double)x) : 1);
}

static void worst_of_chunk(const kernels *k, const float *x, double *worst, float *worst_at) {
    float *out = guarded_floats(0, CHUNK);
    memcpy(out, x, CHUNK * sizeof *x);
    k->gelu(out, CHUNK);
    for (int i = 0; i < CHUNK; i++) {
        double error = gelu_error(out[i], x[i]);
        if (error <= *worst) continue;
        *worst = error;
        *worst_at = x[i];
    }
}

static void test_gelu_error(const kernels *k) {
    enum { N_SWEEP = 400000, BITS_STEP = 4099, BITS_OF_INFINITY = 0x7F800000 };
    double worst = 0;
    float worst_at = 0, x[CHUNK];
    for (int i = 0; i < N_SWEEP; i += CHUNK) {
        for (int j = 0; j < CHUNK; j++) x[j] = (float)((i + j) * 1e-4 - 20);
        worst_of_chunk(k, x, &worst, &worst_at);
    }
    for (uint32_t bits = 0; bits + CHUNK * BITS_STEP < BITS_OF_INFINITY; bits += CHUNK / 2 * BITS_STEP) {
        for (uint32_t j = 0; j < CHUNK; j++) {
            uint32_t signed_bits = (bits + j / 2 * BITS_STEP) | j % 2 << 31;
            memcpy(&x[j], &signed_bits, sizeof *x);
        }
        worst_of_chunk(k, x, &worst, &worst_at);
    }
    printf("%-8s gelu: largest error %.3g max(1, |x|), at %.9g\n", k->name, worst, (double)worst_at);
    CHECK_FOR(worst < GELU_BOUND, "%s at %.9g: %g", k->name, (double)worst_at, worst);
}

/* A number's result must not depend on its place in the array, NaN must stay, and its neighbours be as without. */
static void test_gelu_places(const kernels *k) {
    for (int n = 1; n <= 70; n++) {
        for (int at = 0; at < n; at++) {
            float *x = guarded_floats(0, n), alone = 0.7f;
            for (int i = 0; i < n; i++) x[i] = 0.7f;
            x[at] = NAN;
            k->gelu(&alone, 1);
            k->gelu(x, n);
            bool right = true;
            for (int i = 0; i < n; i++) right &= i == at ? isnan(x[i]) != 0 : gelu_error(x[i], 0.7f) < GELU_BOUND;
            CHECK_FOR(right && gelu_error(alone, 0.7f) < GELU_BOUND, "%s: n %d, NaN at %d", k->name, n, at);
        }
    }
}

/* ---- layer_norm ---- */

static void check_norm(const kernels *k, const float *out, const float *x, const float *w, const float *b, int n) {
    const double epsilon = 1e-5f;
    double mean = 0, variance = 0, worst = 0;
    for (int i = 0; i < n; i++) mean += x[i] / (double)n;
    for (int i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / n;
    double scale = 1 / sqrt(variance + epsilon);
    for (int i = 0; i < n; i++) {
        double expected = (x[i] - mean) * scale * w[i] + b[i];
        /* the mean may be wrong by its own roundings, and everything by a few of its own size */
        double bound = FLT_EPSILON * ((n + 4) * scale * fabs(mean) * fabs(w[i]) + (n + 8) * fabs(expected - b[i]) + 4);
        double error = fabs(out[i] - expected) / bound;
        worst = error <= worst ? worst : error;
    }
    CHECK_FOR(worst <= 1, "%s: n %d: %g times the bound", k->name, n, worst);
}

static void test_layer_norm(const kernels *k) {
    static float before[MAX_SIZE];
    for (int s = 0; s < N_SIZES; s++) {
        for (int in_place = 0; in_place <= 1; in_place++) {
            int n = sizes[s];
            float *x = random_matrix(0, 1, n, n);
            const float *w = random_matrix(1, 1, n, n), *b = random_matrix(2, 1, n, n);
            float *out = in_place ? x : random_matrix(3, 1, n, n);
            for (int i = 0; i < n; i++) before[i] = x[i] += 2;
            k->layer_norm(out, x, w, b, n, 1e-5f);
            check_norm(k, out, before, w, b, n);
        }
    }
}

int main(void) {
    int n_sets;
    const kernels *const *sets = kernels_all(&n_sets);
    CHECK(n_sets >= 1 && sets[0] == &kernels_portable);
    for (int i = 0; i < n_sets; i++) {
        test_dot_rows(sets[i]);
        test_weighted_sum(sets[i]);
        test_softmax(sets[i]);
        test_softmax_of_a_peak(sets[i]);
        test_softmax_of_nan(sets[i]);
        test_gelu_error(sets[i]);
        test_gelu_places(sets[i]);
        test_layer_norm(sets[i]);
    }
    return check_report();
}
