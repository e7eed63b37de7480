/* test_kernels.c - softmax, activations and layer_norm of every set of kernels that runs here against the formulas in
 * double precision.  The operands end at guard pages. */
#include "support/check.h"
#include "support/guard.h"
#include "kernels/instruction_sets.h"
#include "kernels/kernels.h"
#include "support/random.h"

#include <float.h>
#include <math.h>
#include <string.h>

static uint64_t seed = 1;

static const int sizes[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,  15,  16,  17,   18,   19,
                            20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33,  34,  35,  36,   37,   38,
                            39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52,  53,  54,  55,   56,   57,
                            58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 127, 128, 255, 1001, 1600, 3072};
enum { N_SIZES = sizeof sizes / sizeof *sizes, MAX_SIZE = 3072 };

/* n random values that end at guard `which`. */
static float *random_values(int which, int n) {
    float *x = guarded_floats(which, n);
    random_fill(&seed, x, n);
    return x;
}

/* ---- softmax ---- */

/* As kernels.h states them. */
#define SOFTMAX_BOUND(n) (3e-7 + (n) * 0x1p-24)
#define ACTIVATION_BOUND 2e-7

/* Largest absolute error of a softmax over scale * x [n]; out is what the kernel made of it. */
static double softmax_error(const float *out, const float *x, int n, double scale) {
    double max = x[0], sum = 0, worst = 0;
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += exp(scale * (x[i] - max));
    for (int i = 0; i < n; i++) {
        double error = fabs(out[i] - exp(scale * (x[i] - max)) / sum);
        worst = error <= worst ? worst : error;
    }
    return worst;
}

static void check_exponentials(const kernels *k, const float *before, float *x, int n, float scale) {
    float max;
    const float sum = k->exponentials(x, n, scale, &max);
    double largest = before[0], expected_sum = 0, worst = 0;
    for (int i = 1; i < n; i++) largest = before[i] > largest ? before[i] : largest;
    for (int i = 0; i < n; i++) {
        const double expected = exp(scale * (before[i] - largest)), error = fabs(x[i] - expected);
        worst = error <= worst ? worst : error;
        expected_sum += expected;
    }
    CHECK_FOR(worst < 3e-7 && max == (float)largest && fabs(sum - expected_sum) < SOFTMAX_BOUND(n) * expected_sum,
              "%s: n %d: error %g, largest %g, sum %g", k->name, n, worst, (double)max, (double)sum);
}

static void test_softmax(const kernels *k) {
    static const float factors[] = {0, 0.01f, 1, 10, 100, 1e6f, 1e38f}, scales[] = {1, 0.125f, 0.1f, 7};
    static float before[MAX_SIZE];
    double worst = 0;
    for (int s = 0; s < N_SIZES; s++) {
        for (size_t f = 0; f < sizeof factors / sizeof *factors; f++) {
            int n = sizes[s];
            float *x = random_values(0, n), scale = scales[((size_t)s + f) % 4];
            for (int i = 0; i < n; i++) before[i] = x[i] *= factors[f];
            check_exponentials(k, before, x, n, scale);
            memcpy(x, before, (size_t)n * sizeof *x);
            k->softmax(x, n, scale);
            double error = softmax_error(x, before, n, scale);
            CHECK_FOR(error < SOFTMAX_BOUND(n), "%s: n %d, values up to %g times %g: error %g", k->name, n,
                      (double)factors[f], (double)scale, error);
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
        k->softmax(x, n, 1);
        double error = softmax_error(x, before, n, 1);
        CHECK_FOR(error < SOFTMAX_BOUND(n), "%s: n %d: error %g", k->name, n, error);
    }
}

/* A NaN or infinite value must not vanish in a plausible distribution. */
static void test_softmax_of_nan(const kernels *k) {
    static const float bad[] = {NAN, INFINITY};
    for (int b = 0; b < 2; b++) {
        for (int n = 1; n <= 70; n++) {
            for (int at = 0; at < n; at++) {
                float *x = random_values(0, n);
                x[at] = bad[b];
                float max, *copy = guarded_floats(1, n);
                memcpy(copy, x, (size_t)n * sizeof *x);
                CHECK(isnan(k->exponentials(copy, n, 1, &max)));
                k->softmax(x, n, 1);
                bool all_nan = true;
                for (int i = 0; i < n; i++) all_nan &= isnan(x[i]) != 0;
                CHECK_FOR(all_nan, "%s: n %d, %g at %d", k->name, n, (double)bad[b], at);
            }
        }
    }
}

/* ---- softmax_panel ---- */

/* Relative errors, as kernels.h states them: of an exponential, and after rounding it to BF16. */
#define EXP_BOUND 1e-5
#define ROUNDED_BOUND (EXP_BOUND + 0x1p-8)

enum { MAX_PANEL = 1056 };

/* Scores of tokens, each of which has one more than the token before; NaN behind those of a row. */
static float *causal_scores(int n_tokens, int n_visible, float factor) {
    const int n = n_visible + n_tokens - 1;
    float *x = random_values(0, n_tokens * n);
    for (int t = 0; t < n_tokens; t++)
        for (int i = 0; i < n; i++) x[t * n + i] = i < n_visible + t ? x[t * n + i] * factor : NAN;
    return x;
}

static float panel_value(const uint16_t *panel, int t, int i) {
    const uint32_t bits = (uint32_t)panel[i / MATRIX_K * MATRIX_LANES * MATRIX_K + t * MATRIX_K + i % MATRIX_K] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Token t of a panel, whose row of scores has n_visible. */
static bool is_softmax_row(const uint16_t *panel, int t, float got_sum, const float *x, int n_visible, int n,
                           double scale) {
    double max = x[0], sum = 0;
    bool right = true;
    for (int i = 1; i < n_visible; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < (n + MATRIX_K - 1) / MATRIX_K * MATRIX_K; i++) {
        const double expected = i < n_visible ? exp(scale * (x[i] - max)) : 0;
        right &= fabs(panel_value(panel, t, i) - expected) <= ROUNDED_BOUND * expected + FLT_MIN;
        sum += expected;
    }
    return right && fabs(got_sum - sum) <= (EXP_BOUND + 1e-6) * sum;
}

static void test_softmax_panel(const kernels *k) {
    static const float factors[] = {0, 1, 100, 1e38f};
    static const int n_tokens[] = {1, 5, MATRIX_LANES}, n_visible[] = {1, 15, 16, 17, 31, 32, 33, 64, 500, 1024};
    enum { N_VISIBLE = sizeof n_visible / sizeof *n_visible };
    static uint16_t panel[MATRIX_LANES * MAX_PANEL];
    for (int i = 0; i < 4 * 3 * N_VISIBLE; i++) {
        const int tokens = n_tokens[i % 3], visible = n_visible[i / 3 % N_VISIBLE], n = visible + tokens - 1;
        const float *x = causal_scores(tokens, visible, factors[i / 3 / N_VISIBLE]);
        float sums[MATRIX_LANES];
        memset(panel, 0xFF, sizeof panel);
        k->bf16->softmax_panel(panel, sums, (f32_view){x, n}, tokens, visible, n, 0.125f);
        for (int t = 0; t < tokens; t++)
            CHECK_FOR(is_softmax_row(panel, t, sums[t], x + t * n, visible + t, n, 0.125),
                      "%s: %d of %d tokens, %d visible", k->name, t, tokens, visible);
        for (int t = tokens; t < MATRIX_LANES; t++)
            for (int j = 0; j < n; j++) CHECK(panel_value(panel, t, j) == 0);
    }
}

/* Outputs are divided by the sum, so a NaN there reaches them. */
static void test_softmax_panel_of_nan(const kernels *k) {
    static const float bad[] = {NAN, INFINITY};
    static uint16_t panel[MATRIX_LANES * 96];
    for (int i = 0; i < 2 * 70 * 70; i++) {
        const int n = 1 + i / 2 % 70, at = i / 2 / 70;
        float *x = random_values(0, n), sum;
        if (at >= n) continue;
        x[at] = bad[i % 2];
        k->bf16->softmax_panel(panel, &sum, (f32_view){x, n}, 1, n, n, 1);
        CHECK_FOR(isnan(sum), "%s: n %d, %g at %d", k->name, n, (double)bad[i % 2], at);
    }
}

/* ---- Activations ---- */

enum { CHUNK = 64 };

static const char *const activation_names[N_ACTIVATIONS] = {"gelu_tanh", "gelu_erf", "relu", "silu"};

static double exact(activation a, double x) {
    switch (a) {
    case GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case GELU_ERF:  return 0.5 * x * (1 + erf(x / sqrt(2)));
    case RELU:      return x < 0 ? 0 : x;
    default:        return x / (1 + exp(-x));
    }
}

/* Error against float64, in units of max(1, |x|). */
static double activation_error(activation a, float out, float x) {
    return fabs(out - exact(a, (double)x)) / (fabsf(x) > 1 ? fabs((double)x) : 1);
}

static void worst_of_chunk(const kernels *k, activation a, const float *x, double *worst, float *worst_at) {
    float *out = guarded_floats(0, CHUNK);
    memcpy(out, x, CHUNK * sizeof *x);
    k->activation[a](out, CHUNK);
    for (int i = 0; i < CHUNK; i++) {
        double error = activation_error(a, out[i], x[i]);
        if (error <= *worst) continue;
        *worst = error;
        *worst_at = x[i];
    }
}

static void test_activation_error(const kernels *k, activation a) {
    enum { N_SWEEP = 400000, BITS_STEP = 4099, BITS_OF_INFINITY = 0x7F800000 };
    double worst = 0;
    float worst_at = 0, x[CHUNK];
    for (int i = 0; i < N_SWEEP; i += CHUNK) {
        for (int j = 0; j < CHUNK; j++) x[j] = (float)((i + j) * 1e-4 - 20);
        worst_of_chunk(k, a, x, &worst, &worst_at);
    }
    for (uint32_t bits = 0; bits + CHUNK * BITS_STEP < BITS_OF_INFINITY; bits += CHUNK / 2 * BITS_STEP) {
        for (uint32_t j = 0; j < CHUNK; j++) {
            uint32_t signed_bits = (bits + j / 2 * BITS_STEP) | j % 2 << 31;
            memcpy(&x[j], &signed_bits, sizeof *x);
        }
        worst_of_chunk(k, a, x, &worst, &worst_at);
    }
    printf("%-8s %s: largest error %.3g max(1, |x|), at %.9g\n", k->name, activation_names[a], worst, (double)worst_at);
    CHECK_FOR(worst < ACTIVATION_BOUND, "%s %s at %.9g: %g", k->name, activation_names[a], (double)worst_at, worst);
}

/* A value's result does not depend on its place in the array, and NaN stays NaN and changes no neighbour. */
static void test_activation_places(const kernels *k, activation a) {
    for (int n = 1; n <= 70; n++) {
        for (int at = 0; at < n; at++) {
            float *x = guarded_floats(0, n), alone = 0.7f;
            for (int i = 0; i < n; i++) x[i] = 0.7f;
            x[at] = NAN;
            k->activation[a](&alone, 1);
            k->activation[a](x, n);
            bool right = activation_error(a, alone, 0.7f) < ACTIVATION_BOUND;
            for (int i = 0; i < n; i++)
                right &= i == at ? isnan(x[i]) != 0 : activation_error(a, x[i], 0.7f) < ACTIVATION_BOUND;
            CHECK_FOR(right, "%s %s: n %d, NaN at %d", k->name, activation_names[a], n, at);
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
            float *x = random_values(0, n);
            const float *w = random_values(1, n), *b = random_values(2, n);
            float *out = in_place ? x : random_values(3, n);
            for (int i = 0; i < n; i++) before[i] = x[i] += 2;
            k->layer_norm(out, x, w, b, n, 1e-5f);
            check_norm(k, out, before, w, b, n);
        }
    }
}

/* A name has dashes where the set has underscores. */
static bool is_name_of(const char *name, const char *set) {
    for (; *name && (*name == *set || (*name == '-' && *set == '_')); name++, set++) continue;
    return *name == *set;
}

/* Every set that this CPU can run is in the build, under the name that the list has: only others are left out. */
static void test_no_set_is_missing(const kernels *const *sets, int n_sets) {
#define EXPECTED(set, table, family, needs) {#set, #family, needs},
    static const struct {
        const char *set, *family;
        unsigned needs;
    } all[] = {INSTRUCTION_SETS(EXPECTED)};
    int n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i].needs & ~os_cpu_features()) continue;
        const bool found =
            n < n_sets && is_name_of(sets[n]->name, all[i].set) && strcmp(sets[n]->family, all[i].family) == 0;
        CHECK_FOR(found, "%s is not in this build", all[i].set);
        n++;
    }
    CHECK(n == n_sets);
}

int main(void) {
    int n_sets;
    const kernels *const *sets = kernels_all(&n_sets);
    CHECK(n_sets >= 1 && sets[0] == &kernels_portable);
    test_no_set_is_missing(sets, n_sets);
    for (int i = 0; i < n_sets; i++) {
        test_softmax(sets[i]);
        test_softmax_of_a_peak(sets[i]);
        test_softmax_of_nan(sets[i]);
        if (sets[i]->bf16) test_softmax_panel(sets[i]);
        if (sets[i]->bf16) test_softmax_panel_of_nan(sets[i]);
        for (activation a = 0; a < N_ACTIVATIONS; a++) {
            test_activation_error(sets[i], a);
            test_activation_places(sets[i], a);
        }
        test_layer_norm(sets[i]);
    }
    return check_report();
}
