/* test_heads.c - scores and weighted sums of the heads of cached rows, for every set of kernels that runs here and
 * every type of cache, against the same sums in double precision.  The operands end at guard pages, and the gaps
 * between rows hold NaN. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "support/check.h"
#include "support/guard.h"
#include "support/kv_rows.h"
#include "support/random.h"

static uint64_t seed = 7;

enum { MAX_ROWS = 19, MAX_N = 6144, GAP = 8 };

/* A cache's rows of n_head heads, of which a kernel gets some. */
typedef struct shape {
    int n_head, head_width, first_head, n_heads, n_rows;
} shape;

static int n_of(shape s) { return s.n_head * s.head_width; }

static head_rows random_rows(dtype type, shape s, float *values) {
    const int n = n_of(s);
    const int64_t bytes = row_bytes(type, n), ld = (bytes + GAP + 3) / 4 * 4, all = (s.n_rows - 1) * ld + bytes;
    uint8_t *at = guarded_bytes(0, all);
    memset(at, 0xFF, (size_t)all);
    for (int r = 0; r < s.n_rows; r++) {
        random_kv_row(&seed, type, at + r * ld, n);
        kv_row_as_f32(type, values + (int64_t)r * n, at + r * ld, n);
    }
    return (head_rows){at, ld, s.n_rows, n, s.first_head, s.n_heads, s.head_width};
}

/* A query as kernels take it for that type; values [n] is what it represents. */
static const void *random_query(dtype type, int n, double *values) {
    static float x[MAX_N];
    const bool quantized = takes_quantized(type);
    const int64_t bytes = quantized ? quantized_row_bytes(n) : n * (int64_t)sizeof(float);
    uint8_t *q = guarded_bytes(1, bytes);
    random_fill(&seed, x, n);
    if (quantized) kernels_portable.quantize_row(q, x, n);
    else memcpy(q, x, (size_t)bytes);
    const float *scales = (const float *)(const void *)(q + n);
    for (int i = 0; i < n; i++) values[i] = quantized ? (double)scales[i / 32] * (int8_t)q[i] : (double)x[i];
    return q;
}

static float rows_f32[MAX_ROWS * MAX_N];

static void check_scores(const kernels *k, dtype type, shape s) {
    static double query[MAX_N];
    const head_rows rows = random_rows(type, s, rows_f32);
    const void *q = random_query(type, n_of(s), query);
    const int ldo = s.n_rows + 2;
    float *out = guarded_floats(2, (s.n_heads - 1) * ldo + s.n_rows);
    for (int i = 0; i < (s.n_heads - 1) * ldo + s.n_rows; i++) out[i] = i % ldo < s.n_rows ? 0 : NAN;
    k->score_heads[type]((out_view){out, ldo}, q, &rows);
    for (int h = 0; h < s.n_heads; h++)
        for (int r = 0; r < s.n_rows; r++) {
            const int first = (s.first_head + h) * s.head_width;
            double sum = 0, absolute = FLT_MIN;
            for (int i = first; i < first + s.head_width; i++) {
                const double product = query[i] * rows_f32[r * n_of(s) + i];
                sum += product, absolute += fabs(product);
            }
            const double error = fabs(out[h * ldo + r] - sum) / ((s.head_width + 8) * (double)FLT_EPSILON * absolute);
            CHECK_FOR(error <= 1, "%s, %s: head %d of %d, row %d of %d: %g times the bound", k->name,
                      dtype_infos[type].name, first / s.head_width, s.n_head, r, s.n_rows, error);
        }
    for (int i = s.n_rows; i < (s.n_heads - 1) * ldo; i += ldo) CHECK(isnan(out[i]) && isnan(out[i + 1]));
}

static void check_sums(const kernels *k, dtype type, shape s) {
    const head_rows rows = random_rows(type, s, rows_f32);
    const int ldp = s.n_rows + 1, n_out = s.n_heads * s.head_width;
    float *p = guarded_floats(1, (s.n_heads - 1) * ldp + s.n_rows), *out = guarded_floats(2, n_out);
    static float before[MAX_N];
    random_fill(&seed, p, (s.n_heads - 1) * ldp + s.n_rows);
    random_fill(&seed, before, n_out);
    memcpy(out, before, (size_t)n_out * sizeof *out);
    k->sum_heads[type](out, (f32_view){p, ldp}, &rows);
    for (int j = 0; j < n_out; j++) {
        double sum = before[j], absolute = FLT_MIN + fabs(sum);
        for (int r = 0; r < s.n_rows; r++) {
            const double product =
                (double)p[j / s.head_width * ldp + r] * rows_f32[r * n_of(s) + s.first_head * s.head_width + j];
            sum += product, absolute += fabs(product);
        }
        const double error = fabs(out[j] - sum) / ((s.n_rows + 3) * (double)FLT_EPSILON * absolute);
        CHECK_FOR(error <= 1, "%s, %s: value %d of %d heads of %d, %d rows: %g times the bound", k->name,
                  dtype_infos[type].name, j, s.n_heads, s.head_width, s.n_rows, error);
    }
}

/* Fewer heads, or fewer rows, give the same bits. */
static void check_parts(const kernels *k, dtype type, shape s) {
    static double query[MAX_N];
    static float all[MAX_N * MAX_ROWS], part[MAX_ROWS];
    head_rows rows = random_rows(type, s, rows_f32);
    const void *q = random_query(type, n_of(s), query);
    memset(all, 0, sizeof all);
    k->score_heads[type]((out_view){all, s.n_rows}, q, &rows);
    rows.n_heads = 1;
    for (int h = 0; h < s.n_heads; h++)
        for (int r = 0; r < s.n_rows; r++) {
            head_rows one = rows;
            one.first_head = s.first_head + h;
            one.at = (const uint8_t *)rows.at + r * rows.ld;
            one.n_rows = 1;
            part[0] = 0;
            k->score_heads[type]((out_view){part, 1}, q, &one);
            CHECK_FOR(memcmp(part, &all[h * s.n_rows + r], sizeof *part) == 0, "%s, %s: head %d, row %d alone", k->name,
                      dtype_infos[type].name, h, r);
        }
}

static void test_type(const kernels *k, dtype type) {
    static const int float_widths[] = {1, 5, 8, 12, 33, 64, 80}, block_widths[] = {32, 64, 96, 128, 256, 2048, 64};
    for (int i = 0; i < 7 * MAX_ROWS; i++) {
        shape s = {.head_width = (is_float(type) ? float_widths : block_widths)[i % 7], .n_rows = 1 + i / 7};
        s.n_head = s.head_width == 2048 ? 3 : 1 + (int)random_below(&seed, 13);
        s.first_head = (int)random_below(&seed, (uint64_t)s.n_head);
        s.n_heads = 1 + (int)random_below(&seed, (uint64_t)(s.n_head - s.first_head));
        check_scores(k, type, s);
        check_sums(k, type, s);
        check_parts(k, type, s);
    }
}

/* Each value is within half a step and the rounding of the scale. */
static void test_q8_0_rows(const kernels *k) {
    static float x[MAX_N], back[MAX_N];
    static uint8_t row[2 * MAX_N];
    for (int n = 32; n <= 512; n += 32) {
        random_fill(&seed, x, n);
        for (int i = 0; i < 32; i++) x[i] *= 0.1f;
        k->from_f32[TYPE_Q8_0](row, x, n);
        kv_row_as_f32(TYPE_Q8_0, back, row, n);
        for (int i = 0; i < n; i++) {
            const double largest = i < 32 ? 0.1 : 1;
            CHECK_FOR(fabs((double)back[i] - x[i]) <= largest * (0.5 / 127 + 0x1p-11 + 1e-6), "%s: n %d, value %d",
                      k->name, n, i);
        }
    }
}

int main(void) {
    int n;
    const kernels *const *sets = kernels_all(&n);
    for (int i = 0; i < n; i++) {
        for (dtype type = 0; type < N_KERNEL_DTYPES; type++)
            if (is_kv_type(type)) test_type(sets[i], type);
        test_q8_0_rows(sets[i]);
    }
    return check_report();
}
