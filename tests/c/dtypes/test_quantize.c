/* test_quantize.c - the dtypes against their definitions in double precision, and every documented error.  That
 * the bytes are those of the package gguf is tested from Python. */
#include "support/check.h"
#include "fastgpt.h"
#include "support/guard.h"
#include "dtypes/dtype.h"
#include "dtypes/half.h"
#include "support/random.h"

#include <float.h>
#include <math.h>
#include <string.h>

static uint64_t seed = 1;

typedef struct type_case {
    fastgpt_type type;
    const char *name;
    int block_values, block_bytes;
    double rounding; /* of floats: the largest relative error */
    int steps;       /* of blocks: the largest value in units of the scale */
} type_case;

static const type_case types[] = {
    {FASTGPT_TYPE_F32, "F32", 1, 4, 0, 0},        {FASTGPT_TYPE_F16, "F16", 1, 2, 0x1p-11, 0},
    {FASTGPT_TYPE_BF16, "BF16", 1, 2, 0x1p-8, 0}, {FASTGPT_TYPE_Q8_0, "Q8_0", 32, 34, 0, 127},
    {FASTGPT_TYPE_Q4_0, "Q4_0", 32, 18, 0, 8},    {FASTGPT_TYPE_Q6_K, "Q6_K", 256, 210, 0, 0},
    {FASTGPT_TYPE_Q4_1, "Q4_1", 32, 20, 0, 0},    {FASTGPT_TYPE_Q5_0, "Q5_0", 32, 22, 0, 0},
    {FASTGPT_TYPE_Q5_1, "Q5_1", 32, 24, 0, 0},    {FASTGPT_TYPE_Q4_K, "Q4_K", 256, 144, 0, 0},
    {FASTGPT_TYPE_Q5_K, "Q5_K", 256, 176, 0, 0}};
enum { N_TYPES = sizeof types / sizeof *types, N = 512, N_ROWS = 3 };
/* I8 has no rows: test_tiles_have_no_rows. */
_Static_assert(sizeof types / sizeof *types == N_DTYPES - 1, "every dtype is tested");

/* The other types are only read. */
static bool is_written(const type_case *t) { return t->block_values == 1 || t->steps > 0; }

/* ---- Names and sizes ---- */

static void check_sizes(const type_case *t) {
    CHECK(strcmp(fastgpt_type_name(t->type), t->name) == 0);
    for (int32_t n = 0; n <= N; n++) {
        int64_t expected = n % t->block_values ? 0 : n / t->block_values * t->block_bytes;
        CHECK_FOR(fastgpt_type_row_bytes(t->type, n) == expected, "%s, n %d", t->name, n);
    }
    CHECK(fastgpt_type_row_bytes(t->type, -256) == 0);
    CHECK(fastgpt_type_row_bytes(t->type, INT32_MAX / 256 * 256) ==
          INT64_C(1) * (INT32_MAX / 256 * 256) / t->block_values * t->block_bytes);
}

/* ---- Errors ---- */

static void check_arguments(const type_case *t) {
    static float x[N];
    static uint8_t bytes[4 * N];
    fastgpt_status good = is_written(t) ? FASTGPT_OK : FASTGPT_ERR_ARGUMENT;
    CHECK(fastgpt_quantize_rows(t->type, x, 1, N, bytes) == good);
    CHECK(fastgpt_quantize_rows(t->type, NULL, 0, N, NULL) == good);
    CHECK(fastgpt_quantize_rows(t->type, NULL, 5, 0, NULL) == good);
    CHECK(fastgpt_dequantize_rows(t->type, bytes, 1, N, x) == FASTGPT_OK);
    CHECK(fastgpt_dequantize_rows(t->type, NULL, 0, N, NULL) == FASTGPT_OK);
    struct {
        const float *x;
        int64_t n_rows;
        int32_t n;
        uint8_t *bytes;
    } bad[] = {{NULL, 1, N, bytes},
               {x, 1, N, NULL},
               {x, -1, N, bytes},
               {x, 1, -N, bytes},
               {x, INT64_MAX / 4 / N + 1, N, bytes}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(fastgpt_quantize_rows(t->type, bad[i].x, bad[i].n_rows, bad[i].n, bad[i].bytes) == FASTGPT_ERR_ARGUMENT);
        CHECK(fastgpt_dequantize_rows(t->type, bad[i].bytes, bad[i].n_rows, bad[i].n, (float *)bad[i].x) ==
              FASTGPT_ERR_ARGUMENT);
    }
    if (t->block_values == 1) return;
    CHECK(fastgpt_quantize_rows(t->type, x, 2, N - t->block_values / 2, bytes) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_dequantize_rows(t->type, bytes, 2, N - t->block_values / 2, x) == FASTGPT_ERR_ARGUMENT);
}

static void check_unknown_types(void) {
    static const int unknown[] = {-1, 4, 5, 9, 10, 11, 15, 29, 31, 1 << 30};
    float x[256] = {0};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        fastgpt_type type = (fastgpt_type)unknown[i];
        CHECK(strcmp(fastgpt_type_name(type), "unknown") == 0);
        CHECK(fastgpt_type_row_bytes(type, 256) == 0);
        CHECK(fastgpt_quantize_rows(type, x, 1, 256, x) == FASTGPT_ERR_ARGUMENT);
        CHECK(fastgpt_dequantize_rows(type, x, 1, 256, x) == FASTGPT_ERR_ARGUMENT);
    }
}

/* One value of many that the type cannot hold: NUMBERS, and out as it was.  The float before it is no error. */
static void check_too_large(fastgpt_type type, float first_bad) {
    static float x[N];
    static uint8_t out[4 * N], before[4 * N];
    memset(before, 0xA5, sizeof before);
    for (int sign = -1; sign <= 1; sign += 2) {
        memcpy(out, before, sizeof out);
        x[N - 2] = (float)sign * first_bad;
        CHECK_FOR(fastgpt_quantize_rows(type, x, 1, N, out) == FASTGPT_ERR_NUMBERS, "%s %g", fastgpt_type_name(type),
                  (double)x[N - 2]);
        CHECK(memcmp(out, before, sizeof out) == 0);
        x[N - 2] = (float)sign * nextafterf(first_bad, 0);
        CHECK_FOR(isnan(first_bad) || fastgpt_quantize_rows(type, x, 1, N, out) == FASTGPT_OK, "%s %g",
                  fastgpt_type_name(type), (double)x[N - 2]);
    }
}

static void check_numbers(void) {
    for (int i = 0; i < N_TYPES; i++)
        if (is_written(&types[i])) check_too_large(types[i].type, NAN);
    check_too_large(FASTGPT_TYPE_F32, INFINITY);
    check_too_large(FASTGPT_TYPE_BF16, 0x1.FFp127f);
    check_too_large(FASTGPT_TYPE_F16, 65520);
    check_too_large(FASTGPT_TYPE_Q8_0, 65520.0f * 127); /* the scale is the largest value / 127, as F16 */
    check_too_large(FASTGPT_TYPE_Q4_0, 65520.0f * 8);
}

/* ---- Rounding ---- */

/* The largest error of value i of a block after quantizing and dequantizing: half a step, and the error of the scale,
 * an F16. Q4_0 has -8 but no 8, so that a value near the end without it may be off by a whole step. */
static double allowed_error(const type_case *t, const float *block, int i) {
    double x = fabs((double)block[i]);
    if (t->block_values == 1) return (x + 0x1p-14) * t->rounding; /* below the smallest normal F16 the step stays */
    double largest = 0;
    for (int k = 0; k < t->block_values; k++)
        if (fabs((double)block[k]) > fabs(largest)) largest = block[k];
    bool at_short_end = t->type == FASTGPT_TYPE_Q4_0 && block[i] / largest < -7.5 / 8;
    return fabs(largest) / t->steps * (at_short_end ? 1 : 0.5) * (1 + 1e-4) + x * 0x1p-11;
}

/* And values that have been quantized once are quantized to the same bytes again. */
static void check_round_trip(const type_case *t, float magnitude) {
    int64_t n_bytes = fastgpt_type_row_bytes(t->type, N) * N_ROWS;
    float *x = guarded_floats(0, N_ROWS * N), *back = guarded_floats(1, N_ROWS * N);
    uint8_t *bytes = guarded_bytes(2, n_bytes), *again = guarded_bytes(3, n_bytes);
    for (int i = 0; i < N_ROWS * N; i++) x[i] = magnitude * random_float(&seed) * (i / N == 1 ? 0.125f : 1);
    CHECK(fastgpt_quantize_rows(t->type, x, N_ROWS, N, bytes) == FASTGPT_OK);
    CHECK(fastgpt_dequantize_rows(t->type, bytes, N_ROWS, N, back) == FASTGPT_OK);
    double worst = 0;
    for (int i = 0; i < N_ROWS * N; i++) {
        int in_block = i % t->block_values;
        double part = fabs((double)back[i] - x[i]) / (allowed_error(t, x + i - in_block, in_block) + DBL_MIN);
        worst = part <= worst ? worst : part;
    }
    CHECK_FOR(worst <= 1, "%s, magnitude %g: %g times the bound", t->name, (double)magnitude, worst);
    CHECK(fastgpt_quantize_rows(t->type, back, N_ROWS, N, again) == FASTGPT_OK);
    CHECK_FOR(memcmp(bytes, again, (size_t)n_bytes) == 0, "%s, magnitude %g: not the same again", t->name,
              (double)magnitude);
}

/* ---- Reading blocks of any bytes ---- */

static double f16_at(const uint8_t *bytes) { return f32_of_f16((uint16_t)(bytes[0] | bytes[1] << 8)); }

static int nibble_of_32(const uint8_t *q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }

static int fifth_of_32(const uint8_t *high, int i) { return 16 * (high[i / 8] >> i % 8 & 1); }

/* Q4_K, and Q5_K, which has 32 more bytes of fifth bits before the nibbles. */
static double value_of_groups(const uint8_t *b, int i, bool five_bits) {
    const uint8_t *packed = b + 4, *q = b + 16 + (five_bits ? 32 : 0);
    int group = i / 32, low = group % 4;
    int scale = packed[low] & 63, minimum = packed[low + 4] & 63;
    if (group >= 4) {
        scale = (packed[low + 8] & 15) + 16 * (packed[low] >> 6);
        minimum = (packed[low + 8] >> 4) + 16 * (packed[low + 4] >> 6);
    }
    int nibbles = q[32 * (group / 2) + i % 32], value = group % 2 ? nibbles >> 4 : nibbles & 15;
    if (five_bits) value += 16 * (b[16 + i % 32] >> group & 1);
    return f16_at(b) * scale * value - f16_at(b + 2) * minimum;
}

/* Value i of a block, from its bytes, as ggml lays them out. */
static double value_in_block(fastgpt_type type, const uint8_t *b, int i) {
    if (type == FASTGPT_TYPE_Q8_0) return f16_at(b) * (int8_t)b[2 + i];
    if (type == FASTGPT_TYPE_Q4_0) return f16_at(b) * (nibble_of_32(b + 2, i) - 8);
    if (type == FASTGPT_TYPE_Q4_1) return f16_at(b) * nibble_of_32(b + 4, i) + f16_at(b + 2);
    if (type == FASTGPT_TYPE_Q5_0) return f16_at(b) * (nibble_of_32(b + 6, i) + fifth_of_32(b + 2, i) - 16);
    if (type == FASTGPT_TYPE_Q5_1) return f16_at(b) * (nibble_of_32(b + 8, i) + fifth_of_32(b + 4, i)) + f16_at(b + 2);
    if (type == FASTGPT_TYPE_Q4_K || type == FASTGPT_TYPE_Q5_K) return value_of_groups(b, i, type == FASTGPT_TYPE_Q5_K);
    int half = i / 128, quarter = i % 128 / 32, l = i % 32;
    const uint8_t *low = b + 64 * half, *high = b + 128 + 32 * half;
    int nibbles[4] = {low[l] & 15, low[l + 32] & 15, low[l] >> 4, low[l + 32] >> 4};
    int q = nibbles[quarter] + 16 * (high[l] >> 2 * quarter & 3) - 32;
    return f16_at(b + 208) * (int8_t)b[192 + 8 * half + 2 * quarter + l / 16] * q;
}

/* Products of three integers of at most 24 bits in all are exact; a sum of two such products is rounded once. */
static void check_reading(const type_case *t) {
    int64_t n_bytes = fastgpt_type_row_bytes(t->type, N);
    uint8_t *bytes = guarded_bytes(0, n_bytes);
    float *out = guarded_floats(1, N);
    for (int round = 0; round < 100; round++) {
        for (int64_t i = 0; i < n_bytes; i++) bytes[i] = (uint8_t)random_below(&seed, 256);
        CHECK(fastgpt_dequantize_rows(t->type, bytes, 1, N, out) == FASTGPT_OK);
        int n_wrong = 0;
        for (int i = 0; i < N; i++) {
            double expected =
                value_in_block(t->type, bytes + i / t->block_values * t->block_bytes, i % t->block_values);
            n_wrong += isfinite(expected) ? out[i] != (float)expected : isfinite(out[i]);
        }
        CHECK_FOR(n_wrong == 0, "%s: %d of %d values", t->name, n_wrong, N);
    }
}

static void test_tiles_have_no_rows(void) {
    static float x[N];
    static uint8_t bytes[4 * N];
    CHECK(strcmp(fastgpt_type_name(FASTGPT_TYPE_I8), "I8") == 0 && fastgpt_type_row_bytes(FASTGPT_TYPE_I8, 64) == 0);
    CHECK(fastgpt_quantize_rows(FASTGPT_TYPE_I8, x, 1, 64, bytes) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_dequantize_rows(FASTGPT_TYPE_I8, bytes, 1, 64, x) == FASTGPT_ERR_ARGUMENT);
}

int main(void) {
    test_tiles_have_no_rows();
    for (int i = 0; i < N_TYPES; i++) {
        check_sizes(&types[i]);
        check_arguments(&types[i]);
        if (types[i].block_values > 1) check_reading(&types[i]);
        if (!is_written(&types[i])) continue;
        for (float magnitude = 0.125f; magnitude < 1e5f; magnitude *= 7) check_round_trip(&types[i], magnitude);
    }
    check_unknown_types();
    check_numbers();
    return check_report();
}
