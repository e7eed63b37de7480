/* test_attention.c - attention of spans over their caches against the formula in double precision, with one thread and
 * with three.  Arrays are of exactly the size that attention.h gives. */
#include "attention/attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/thread_pool.h"
#include "support/check.h"
#include "support/engine.h"
#include "support/kv_rows.h"
#include "support/reference_bf16.h"

static uint64_t seed = 2;

/* out [n_embd] of one query at position n_keys - 1. */
static void attend_in_double(double *out, const float *q, const float *keys, const float *values, int n_keys,
                             int n_head, int n_embd) {
    int d = n_embd / n_head;
    double *p = calloc((size_t)n_keys, sizeof *p);
    if (!p) abort();
    for (int h = 0; h < n_head; h++) {
        double max = -INFINITY, sum = 0;
        for (int i = 0; i < n_keys; i++) {
            for (int j = h * d; j < (h + 1) * d; j++) p[i] += (double)q[j] * keys[i * n_embd + j] / sqrt(d);
            max = p[i] > max ? p[i] : max;
        }
        for (int i = 0; i < n_keys; i++) sum += p[i] = exp(p[i] - max);
        for (int j = h * d; j < (h + 1) * d; j++) out[j] = 0;
        for (int i = 0; i < n_keys; i++) {
            for (int j = h * d; j < (h + 1) * d; j++) out[j] += p[i] / sum * values[i * n_embd + j];
            p[i] = 0;
        }
    }
    free(p);
}

/* Rows of a cache as F32. */
static float *rows_as_f32(const uint8_t *rows, dtype type, int n_rows, int n) {
    float *out = new_random(&seed, (int64_t)n_rows * n);
    for (int64_t r = 0; r < n_rows; r++) kv_row_as_f32(type, out + r * n, rows + r * row_bytes(type, n), n);
    return out;
}

/* What a query is multiplied as.  By the kernels under test: two of them may round what lies between two integers to
 * different ones (test_kernels.c says how far they may be apart), and that is no error of attention. */
static void query_as_used(const kernels *k, float *out, const float *q, dtype type, int n, bool exact) {
    static uint8_t row[2048];
    memcpy(out, q, (size_t)n * sizeof *q);
    if (exact || !takes_quantized(type)) return;
    k->quantize_row(row, q, n);
    const float *scales = (const float *)(const void *)(row + n);
    for (int i = 0; i < n; i++) out[i] = scales[i / 32] * (int8_t)row[i];
}

/* exact: queries are not quantized for keys that are. */
static double span_error(const kernels *k, const attention_span *s, int n_head, int n_embd, bool exact) {
    double worst = 0, expected[256];
    float q[256];
    const int n = s->n_past + s->n_tokens;
    float *keys = rows_as_f32(s->keys, s->type, n, n_embd), *values = rows_as_f32(s->values, s->type, n, n_embd);
    for (int t = 0; t < s->n_tokens; t++) {
        query_as_used(k, q, s->q + t * n_embd, s->type, n_embd, exact);
        attend_in_double(expected, q, keys, values, s->n_past + t + 1, n_head, n_embd);
        for (int j = 0; j < n_embd; j++) {
            double error = fabs(s->out[t * n_embd + j] - expected[j]);
            worst = error <= worst ? worst : error;
        }
    }
    free(keys);
    free(values);
    return worst;
}

static uint8_t *new_rows(dtype type, int n_rows, int n) {
    uint8_t *rows = malloc((size_t)(n_rows * row_bytes(type, n)));
    if (!rows) abort();
    for (int64_t r = 0; r < n_rows; r++) random_kv_row(&seed, type, rows + r * row_bytes(type, n), n);
    return rows;
}

static attention_span new_span(dtype type, bool bf16, int n_past, int n_tokens, int n_embd) {
    return (attention_span){.out = new_random(&seed, n_tokens * n_embd),
                            .q = new_random(&seed, n_tokens * n_embd),
                            .keys = new_rows(type, n_past + n_tokens, n_embd),
                            .values = new_rows(type, n_past + n_tokens, n_embd),
                            .type = type,
                            .n_past = n_past,
                            .n_tokens = n_tokens,
                            .bf16 = bf16};
}

static void free_span(attention_span s) {
    free(s.out);
    free((void *)s.q);
    free((void *)s.keys);
    free((void *)s.values);
}

static void run_attention(engine e, bool deterministic, const attention_span *spans, int n_spans, int n_head, int d,
                          int n_ctx) {
    int n_threads = pool_n_threads(e.pool);
    float *scores = new_random(&seed, attention_n_scores(n_threads, n_ctx, n_head, d));
    e.deterministic = deterministic;
    e.scratch_bytes = attention_scratch_bytes(n_ctx, n_head, d);
    e.scratch = os_alloc((size_t)(n_threads * e.scratch_bytes));
    op_attention(&e, spans, n_spans, n_head, n_head * d, scores, n_ctx);
    os_free(e.scratch);
    free(scores);
}

/* Three spans of different lengths and types at once. */
static void check_attention(engine e, bool deterministic, bool bf16, int n_tokens, int n_past, int n_head, int d) {
    enum { N_SPANS = 4 };
    const double bound = bf16 && e.kernels->bf16 && !deterministic ? 0.02 : 2e-6; /* for values below 1 */
    int n_embd = n_head * d, n_ctx = n_past + n_tokens + 3;
    attention_span spans[N_SPANS] = {new_span(TYPE_F32, bf16, n_past, n_tokens, n_embd),
                                     new_span(TYPE_F16, bf16, 0, 1 + n_tokens / 2, n_embd),
                                     new_span(TYPE_BF16, bf16, n_past / 2, n_tokens, n_embd),
                                     new_span(d % 32 ? TYPE_F16 : TYPE_Q8_0, bf16, n_past, n_tokens, n_embd)};
    run_attention(e, deterministic, spans, N_SPANS, n_head, d, n_ctx);
    for (int i = 0; i < N_SPANS; i++) {
        double error = span_error(e.kernels, &spans[i], n_head, n_embd, !deterministic && spans[i].n_tokens > 3);
        CHECK_FOR(error < bound, "span %d of %d tokens after %d, %d heads of %d: error %g", i, spans[i].n_tokens,
                  spans[i].n_past, n_head, d, error);
        free_span(spans[i]);
    }
}

static void test_attention(const engine *e) {
    static const int n_tokens[] = {1, 2, 3, 4, 5, 31, 32, 33, 65, 200}, n_past[] = {0, 1, 40, 260},
                     d[] = {1, 5, 32, 64};
    for (int t = 0; t < 10; t++)
        for (int p = 0; p < 4; p++)
            for (int i = 0; i < 8; i++)
                check_attention(*e, i % 2, i / 4, n_tokens[t], n_past[p], 1 + (t + p) % 3, d[i % 4]);
}

/* Neighbouring spans of one to three tokens that share their first n_prefix rows, against `whole`: the same spans, each
 * with all rows of its own. */
static void check_common_prefix(engine e, bool deterministic, bool bf16, dtype type, int n_prefix, int d) {
    enum { N_SPANS = 17, N_HEAD = 3 };
    const double bound = bf16 && e.kernels->bf16 && !deterministic ? 0.02 : 2e-6;
    int n_embd = N_HEAD * d, n_ctx = n_prefix + 9, n_tokens = 0;
    uint8_t *keys = new_rows(type, n_prefix, n_embd), *values = new_rows(type, n_prefix, n_embd);
    float *q = new_random(&seed, 3 * N_SPANS * n_embd), *out = new_random(&seed, 3 * N_SPANS * n_embd);
    attention_span spans[N_SPANS], whole[N_SPANS];
    for (int i = 0; i < N_SPANS; i++) {
        whole[i] = new_span(type, bf16, n_prefix + i % 3, 1 + i % 5 % 3, n_embd);
        free(whole[i].out);
        free((void *)whole[i].q);
        whole[i].out = out + n_tokens * n_embd;
        whole[i].q = q + n_tokens * n_embd;
        n_tokens += whole[i].n_tokens;
        whole[i].n_prefix = n_prefix;
        memcpy((uint8_t *)whole[i].keys, keys, (size_t)(n_prefix * row_bytes(type, n_embd)));
        memcpy((uint8_t *)whole[i].values, values, (size_t)(n_prefix * row_bytes(type, n_embd)));
        spans[i] = whole[i];
        spans[i].prefix_keys = keys;
        spans[i].prefix_values = values;
        spans[i].keys += n_prefix * row_bytes(type, n_embd);
        spans[i].values += n_prefix * row_bytes(type, n_embd);
    }
    run_attention(e, deterministic, spans, N_SPANS, N_HEAD, d, n_ctx);
    for (int i = 0; i < N_SPANS; i++) {
        double error = span_error(e.kernels, &whole[i], N_HEAD, n_embd, false);
        CHECK_FOR(error < bound, "span %d of %d behind a common prefix of %d, heads of %d: error %g", i,
                  spans[i].n_tokens, n_prefix, d, error);
        free((void *)whole[i].keys);
        free((void *)whole[i].values);
    }
    free(keys);
    free(values);
    free(q);
    free(out);
}

static void test_common_prefix(const engine *e) {
    static const int n_prefix[] = {1, 31, 200}, d[] = {5, 64};
    for (int p = 0; p < 3; p++)
        for (dtype type = 0; type < N_KERNEL_DTYPES; type++)
            for (int i = 0; i < 8 && is_kv_type(type); i++)
                if (is_float(type) || d[i / 4] % 32 == 0)
                    check_common_prefix(*e, i % 2, i / 2 % 2, type, n_prefix[p], d[i / 4]);
}

int main(void) {
    bf16_kernels bf16;
    const kernels reference = reference_bf16_set(&bf16, false), *sets[] = {kernels_chosen(), &reference};
    fastgpt_pool *pool;
    CHECK(fastgpt_pool_create(3, &pool) == FASTGPT_OK && pool_enter(pool) == FASTGPT_OK);
    for (int threads = 1; threads <= 3; threads += 2) {
        engine e = new_engine(threads == 1 ? NULL : pool, threads, 1, 256);
        for (int i = 0; i < 2; i++) {
            e.kernels = sets[i];
            test_attention(&e);
            test_common_prefix(&e);
        }
        free_engine(&e);
    }
    pool_leave(pool);
    fastgpt_pool_free(pool);
    return check_report();
}
