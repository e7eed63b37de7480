/* test_products.c - the products of every set of kernels that runs here, for every type of weights, against the same
 * sums in double precision.  The operands end at guard pages, and the gaps between rows hold NaN, so that whatever is
 * read beyond its place shows. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "support/check.h"
#include "support/guard.h"
#include "kernels/kernels.h"
#include "support/matrix_law.h"
#include "support/random.h"
#include "support/weights.h"

static uint64_t seed = 1;

enum { MAX_N = 3072, MAX_ROWS = 9, GAP = 8 };

static const int float_sizes[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,  15,  16,  17,   18,   19,
                                  23, 24, 25, 31, 32, 33, 36, 47, 48, 49, 63, 64, 65, 127, 128, 255, 1001, 1600, MAX_N};
static const int block_sizes[] = {32, 64, 96, 128, 256, 288, 512, 768, 1600, MAX_N};

/* Rows that end at guard `which`, with NaN in the gaps of GAP bytes. */
typedef struct rows {
    uint8_t *at;
    int64_t ld; /* bytes */
} rows;

static rows new_rows(int which, int n_rows, int64_t bytes) {
    int64_t ld = (bytes + GAP + 3) / 4 * 4, all = (n_rows - 1) * ld + bytes;
    rows made = {guarded_bytes(which, all), ld};
    memset(made.at, 0xFF, (size_t)all);
    return made;
}

static rows random_weights(int which, dtype type, int n_rows, int n) {
    rows w = new_rows(which, n_rows, row_bytes(type, n));
    for (int r = 0; r < n_rows; r++) random_row(&seed, type, w.at + r * w.ld, n);
    return w;
}

/* Activations as products with that type need them; values [n_tokens][n] is what they represent. */
static rows random_activations(int which, dtype type, int n_tokens, int n, double *values) {
    bool quantized = takes_quantized(type);
    rows x = new_rows(which, n_tokens, quantized ? quantized_row_bytes(n) : n * (int64_t)sizeof(float));
    static float row[MAX_N];
    for (int t = 0; t < n_tokens; t++) {
        random_fill(&seed, row, n);
        uint8_t *at = x.at + t * x.ld;
        if (quantized) kernels_portable.quantize_row(at, row, n);
        else memcpy(at, row, (size_t)n * sizeof *row);
        const float *scales = (const float *)(const void *)(at + n);
        for (int i = 0; i < n; i++)
            values[t * n + i] = quantized ? (double)scales[i / 32] * (int8_t)at[i] : (double)row[i];
    }
    return x;
}

/* ---- dot_rows ---- */

/* out[t][r] as it was before the call. */
static float start_of(int t, int r) { return (float)(t - 2 * r) / 8.0f; }

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

static void check_dot(const kernels *k, dtype type, int n_tokens, int n_rows, int n) {
    static double x_values[MAX_ROWS * MAX_N];
    static float w_row[MAX_N];
    rows w = random_weights(1, type, n_rows, n);
    rows x = random_activations(0, type, n_tokens, n, x_values);
    int64_t ldo = n_rows + 2;
    float *out = guarded_floats(2, (n_tokens - 1) * ldo + n_rows);
    for (int64_t i = 0; i < (n_tokens - 1) * ldo + n_rows; i++) out[i] = NAN;
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < n_rows; r++) out[t * ldo + r] = start_of(t, r);
    k->dot_rows[type]((out_view){out, ldo}, (row_view){x.at, x.ld}, (row_view){w.at, w.ld},
                      (gemm_size){n_tokens, n_rows, n});
    double worst = 0; /* error as a part of the bound: n + 8 roundings of at most the sum of absolute products */
    bool same_as_alone = true, gaps_untouched = true;
    for (int r = 0; r < n_rows; r++) {
        kernels_portable.to_f32[type](w_row, w.at + r * w.ld, n);
        for (int t = 0; t < n_tokens; t++) {
            double sum = start_of(t, r), absolute = fabs(sum) + FLT_MIN;
            for (int i = 0; i < n; i++) {
                sum += x_values[t * n + i] * w_row[i];
                absolute += fabs(x_values[t * n + i] * w_row[i]);
            }
            double error = fabs(out[t * ldo + r] - sum) / ((n + 8) * (double)FLT_EPSILON * absolute);
            worst = error <= worst ? worst : error; /* NaN counts as worst, and stays */
            float alone = start_of(t, r);
            k->dot_rows[type]((out_view){&alone, 1}, (row_view){x.at + t * x.ld, x.ld},
                              (row_view){w.at + r * w.ld, w.ld}, (gemm_size){1, 1, n});
            same_as_alone &= same_bits(alone, out[t * ldo + r]);
        }
    }
    for (int64_t i = 0; i < (n_tokens - 1) * ldo; i++) gaps_untouched &= i % ldo < n_rows || isnan(out[i]);
    CHECK_FOR(worst <= 1 && same_as_alone && gaps_untouched,
              "%s, %s: %d tokens, %d rows, n_in %d: %g times the bound, same as alone %d, gaps untouched %d", k->name,
              dtype_infos[type].name, n_tokens, n_rows, n, worst, same_as_alone, gaps_untouched);
}

static void test_dot_rows(const kernels *k, dtype type, int n) {
    for (int n_rows = 1; n_rows <= MAX_ROWS; n_rows++)
        for (int n_tokens = 1; n_tokens <= MAX_ROWS; n_tokens += n > 70 ? 4 : 1)
            check_dot(k, type, n_tokens, n_rows, n);
}

/* ---- weighted_sum ---- */

static void check_weighted_sum(const kernels *k, dtype type, int n_rows, int n) {
    rows v = random_weights(1, type, n_rows, n);
    float *p = guarded_floats(0, n_rows), *out = guarded_floats(2, n);
    random_fill(&seed, p, n_rows);
    random_fill(&seed, out, n);
    static double sum[MAX_N], absolute[MAX_N];
    static float row[MAX_N];
    for (int j = 0; j < n; j++) sum[j] = out[j], absolute[j] = FLT_MIN + fabs(sum[j]);
    k->weighted_sum[type](out, p, v.at, v.ld, n_rows, n);
    for (int i = 0; i < n_rows; i++) {
        kernels_portable.to_f32[type](row, v.at + i * v.ld, n);
        for (int j = 0; j < n; j++) sum[j] += (double)p[i] * row[j], absolute[j] += fabs((double)p[i] * row[j]);
    }
    double worst = 0;
    for (int j = 0; j < n; j++) {
        double error = fabs(out[j] - sum[j]) / ((n_rows + 1) * (double)FLT_EPSILON * absolute[j]);
        worst = error <= worst ? worst : error;
    }
    CHECK_FOR(worst <= 1, "%s, %s: %d rows of %d: %g times the bound", k->name, dtype_infos[type].name, n_rows, n,
              worst);
}

static void test_weighted_sum(const kernels *k, dtype type) {
    for (size_t s = 0; s < sizeof float_sizes / sizeof *float_sizes; s++)
        for (int n_rows = 1; n_rows <= 70; n_rows += float_sizes[s] % 4 + 1)
            check_weighted_sum(k, type, n_rows, float_sizes[s]);
}

/* ---- Rows and activations: the same bits as those of the portable kernels ---- */

static void test_rows(const kernels *k, dtype type, int n) {
    static float expected[MAX_N];
    static uint16_t back[2 * MAX_N];
    rows w = random_weights(1, type, 1, n);
    float *out = guarded_floats(0, n);
    k->to_f32[type](out, w.at, n);
    kernels_portable.to_f32[type](expected, w.at, n);
    CHECK_FOR(memcmp(out, expected, (size_t)n * sizeof *out) == 0, "%s: %s, n %d", k->name, dtype_infos[type].name, n);
    if (!is_float(type)) return;
    k->from_f32[type](back, out, n);
    CHECK_FOR(memcmp(back, w.at, (size_t)row_bytes(type, n)) == 0, "%s: %s, n %d", k->name, dtype_infos[type].name, n);
}

/* Rows with ties, zeros, and values too large or too small to divide by. */
static void test_quantize_row(const kernels *k) {
    static uint8_t out[MAX_N + MAX_N / 8], expected[MAX_N + MAX_N / 8];
    static const float factors[] = {1, 0, 1e-38f, 1e-30f, 1e30f, 3e38f, 127.0f / 256.0f};
    for (size_t f = 0; f < sizeof factors / sizeof *factors; f++) {
        for (int n = 32; n <= 512; n += 32) {
            float *x = guarded_floats(0, n);
            for (int i = 0; i < n; i++)
                x[i] = factors[f] * (i % 3 ? random_float(&seed) : (float)(i % 256 - 128) / 254.0f);
            k->quantize_row(out, x, n);
            kernels_portable.quantize_row(expected, x, n);
            CHECK_FOR(memcmp(out, expected, (size_t)quantized_row_bytes(n)) == 0, "%s: n %d, factor %g", k->name, n,
                      (double)factors[f]);
            double worst = 0; /* each value is within half a step */
            const float *d = (const float *)(const void *)(out + n);
            for (int i = 0; i < n; i++) {
                double error = fabs((double)d[i / 32] * (int8_t)out[i] - x[i]) / (0.5001 * d[i / 32] + 1e-30);
                worst = error <= worst ? worst : error;
            }
            CHECK_FOR(worst <= 1, "%s: n %d, factor %g: %g times the bound", k->name, n, (double)factors[f], worst);
        }
    }
}

static void test_quantize_row_of_nan(const kernels *k) {
    static uint8_t out[32 + 4];
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (size_t b = 0; b < sizeof bad / sizeof *bad; b++) {
        for (int at = 0; at < 32; at++) {
            float x[32], d;
            random_fill(&seed, x, 32);
            x[at] = bad[b];
            k->quantize_row(out, x, 32);
            memcpy(&d, out + 32, sizeof d);
            CHECK_FOR(!isfinite(d), "%s: %g at %d", k->name, (double)bad[b], at);
        }
    }
}

#define SIZES(list) list, sizeof list / sizeof *list

/* Of the sizes those that are whole blocks. */
static void test_type(const kernels *k, dtype type, const int *sizes, size_t n_sizes) {
    for (size_t i = 0; i < n_sizes; i++) {
        if (sizes[i] % dtype_infos[type].block_values) continue;
        test_dot_rows(k, type, sizes[i]);
        test_rows(k, type, sizes[i]);
    }
}

int main(void) {
    int n_sets;
    const kernels *const *sets = kernels_all(&n_sets);
    CHECK(n_sets >= 1 && sets[0] == &kernels_portable);
    for (int i = 0; i < n_sets; i++) {
        for (dtype type = 0; type < N_FLOAT_DTYPES; type++) {
            test_type(sets[i], type, SIZES(float_sizes));
            test_weighted_sum(sets[i], type);
        }
        for (dtype type = N_FLOAT_DTYPES; type < N_KERNEL_DTYPES; type++) test_type(sets[i], type, SIZES(block_sizes));
        test_quantize_row(sets[i]);
        test_quantize_row_of_nan(sets[i]);
        if (sets[i]->bf16) check_bf16_kernels(sets[i]->name, sets[i]->bf16);
        if (sets[i]->floats) check_gemm_f32_sizes(sets[i]);
        if (sets[i]->floats) check_float_streams(sets[i]);
        printf("%s\n", sets[i]->name);
    }
    return check_report();
}
