/* test_ops.c - the ops of a transformer against the formulas in double precision, with one thread and with three.
 * Arrays are of exactly the size that the headers give. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"
#include "support/check.h"
#include "support/engine.h"
#include "common/thread_pool.h"
#include "transformer/ops.h"
#include "support/weights.h"

static uint64_t seed = 2;

/* ---- Attention ---- */

/* out [n_embd] of one query at position n_keys - 1. */
static void attend(double *out, const float *q, const float *keys, const float *values, int n_keys, int n_head,
                   int n_embd) {
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
static float *widened(const uint8_t *rows, dtype type, int n) {
    float *out = new_random(&seed, n);
    kernels_portable.to_f32[type](out, rows, n);
    return out;
}

static double span_error(const attention_span *s, int n_head, int n_embd) {
    double worst = 0, expected[256];
    int n = (s->n_past + s->n_tokens) * n_embd;
    float *keys = widened(s->keys, s->type, n), *values = widened(s->values, s->type, n);
    for (int t = 0; t < s->n_tokens; t++) {
        attend(expected, s->q + t * n_embd, keys, values, s->n_past + t + 1, n_head, n_embd);
        for (int j = 0; j < n_embd; j++) {
            double error = fabs(s->out[t * n_embd + j] - expected[j]);
            worst = error <= worst ? worst : error;
        }
    }
    free(keys);
    free(values);
    return worst;
}

static uint8_t *new_rows(dtype type, int n) {
    uint8_t *rows = malloc((size_t)row_bytes(type, n));
    if (!rows) abort();
    random_row(&seed, type, rows, n);
    return rows;
}

static attention_span new_span(dtype type, bool bf16, int n_past, int n_tokens, int n_embd) {
    return (attention_span){.out = new_random(&seed, n_tokens * n_embd),
                            .q = new_random(&seed, n_tokens * n_embd),
                            .keys = new_rows(type, (n_past + n_tokens) * n_embd),
                            .values = new_rows(type, (n_past + n_tokens) * n_embd),
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
    float *scores = new_random(&seed, attention_n_scores(n_threads, n_head, n_ctx));
    e.deterministic = deterministic;
    e.panel_bytes = attention_panel_bytes(n_ctx, d);
    e.panels = os_alloc((size_t)(n_threads * e.panel_bytes));
    op_attention(&e, spans, n_spans, n_head, n_head * d, scores, n_ctx);
    os_free(e.panels);
    free(scores);
}

/* Three spans of different lengths and types at once. */
static void check_attention(engine e, bool deterministic, bool bf16, int n_tokens, int n_past, int n_head, int d) {
    enum { N_SPANS = 3 };
    const double bound = bf16 && e.kernels->bf16 && !deterministic ? 0.02 : 2e-6; /* for values below 1 */
    int n_embd = n_head * d, n_ctx = n_past + n_tokens + 3;
    attention_span spans[N_SPANS] = {new_span(TYPE_F32, bf16, n_past, n_tokens, n_embd),
                                     new_span(TYPE_F16, bf16, 0, 1 + n_tokens / 2, n_embd),
                                     new_span(TYPE_BF16, bf16, n_past / 2, n_tokens, n_embd)};
    run_attention(e, deterministic, spans, N_SPANS, n_head, d, n_ctx);
    for (int i = 0; i < N_SPANS; i++) {
        double error = span_error(&spans[i], n_head, n_embd);
        CHECK_FOR(error < bound, "span %d of %d tokens after %d, %d heads of %d: error %g", i, spans[i].n_tokens,
                  spans[i].n_past, n_head, d, error);
        free_span(spans[i]);
    }
}

static void test_attention(const engine *e) {
    static const int n_tokens[] = {1, 2, 3, 4, 5, 31, 32, 33, 65, 200}, n_past[] = {0, 1, 40, 260},
                     d[] = {1, 5, 12, 64};
    for (int t = 0; t < 10; t++)
        for (int p = 0; p < 4; p++)
            for (int i = 0; i < 8; i++)
                check_attention(*e, i % 2, i / 4, n_tokens[t], n_past[p], 1 + (t + p) % 3, d[i % 4]);
}

/* Spans of one to three tokens side by side, whose first n_prefix rows are one; `whole` are the same with rows of their
 * own. */
static void check_common_prefix(engine e, bool deterministic, bool bf16, dtype type, int n_prefix, int d) {
    enum { N_SPANS = 17, N_HEAD = 3 };
    const double bound = bf16 && e.kernels->bf16 && !deterministic ? 0.02 : 2e-6;
    int n_embd = N_HEAD * d, n_ctx = n_prefix + 9, n_tokens = 0;
    uint8_t *keys = new_rows(type, n_prefix * n_embd), *values = new_rows(type, n_prefix * n_embd);
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
        memcpy((uint8_t *)whole[i].keys, keys, (size_t)row_bytes(type, n_prefix * n_embd));
        memcpy((uint8_t *)whole[i].values, values, (size_t)row_bytes(type, n_prefix * n_embd));
        spans[i] = whole[i];
        spans[i].prefix_keys = keys;
        spans[i].prefix_values = values;
        spans[i].keys += row_bytes(type, (int64_t)n_prefix * n_embd);
        spans[i].values += row_bytes(type, (int64_t)n_prefix * n_embd);
    }
    run_attention(e, deterministic, spans, N_SPANS, N_HEAD, d, n_ctx);
    for (int i = 0; i < N_SPANS; i++) {
        double error = span_error(&whole[i], N_HEAD, n_embd);
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
        for (dtype type = 0; type < N_FLOAT_DTYPES; type++)
            for (int i = 0; i < 8; i++) check_common_prefix(*e, i % 2, i / 2 % 2, type, n_prefix[p], d[i / 4]);
}

/* ---- Rows ---- */

/* Each row is what the kernel makes of it alone. */
static void check_rows(const engine *e, int n_rows, int n) {
    float *x = new_random(&seed, n_rows * n), *out = new_random(&seed, n_rows * n),
          *expected = new_random(&seed, n_rows * n);
    const norm norm = {.w = new_random(&seed, n), .b = new_random(&seed, n)};
    for (int r = 0; r < n_rows; r++) e->kernels->layer_norm(expected + r * n, x + r * n, norm.w, norm.b, n, 1e-5f);
    op_layer_norm(e, out, x, &norm, 1e-5f, n_rows, n);
    CHECK_FOR(memcmp(out, expected, sizeof *out * (size_t)(n_rows * n)) == 0, "layer_norm: %d rows of %d", n_rows, n);
    for (int r = 0; r < n_rows; r++) e->kernels->activation[GELU_ERF](expected + r * n, n);
    op_activation(e, GELU_ERF, out, n, n_rows, n);
    CHECK_FOR(memcmp(out, expected, sizeof *out * (size_t)(n_rows * n)) == 0, "activation: %d rows of %d", n_rows, n);
    free(x);
    free(out);
    free(expected);
    free((void *)norm.w);
    free((void *)norm.b);
}

static void test_rows(const engine *e) {
    for (int n_rows = 1; n_rows <= 33; n_rows++)
        for (int n = 1; n <= 70; n += 23) check_rows(e, n_rows, n);
}

/* A table of each type; positions may have another. */
static void check_embed(const engine *e, dtype type) {
    enum { N_VOCAB = 5, N_CTX = 7, N_EMBD = 256, N_TOKENS = 4, POSITION = 3 };
    static const int32_t tokens[N_TOKENS] = {4, 0, 4, 2};
    static uint8_t wte[N_VOCAB * N_EMBD * sizeof(float)], wpe[N_CTX * N_EMBD * sizeof(float)];
    static float out[N_TOKENS * N_EMBD], token[N_EMBD], place[N_EMBD];
    fastgpt_model model = {.n_vocab = N_VOCAB, .n_ctx = N_CTX, .n_embd = N_EMBD};
    model.wte = (weight){.w = wte, .type = type, .n_out = N_VOCAB, .n_in = N_EMBD};
    model.wpe = (weight){.w = wpe, .type = TYPE_F16, .n_out = N_CTX, .n_in = N_EMBD};
    random_row(&seed, type, wte, N_VOCAB * N_EMBD);
    random_row(&seed, TYPE_F16, wpe, N_CTX * N_EMBD);
    op_embed(e, out, &model, tokens, N_TOKENS, POSITION);
    for (int t = 0; t < N_TOKENS; t++) {
        kernels_portable.to_f32[type](token, weight_row(&model.wte, tokens[t]), N_EMBD);
        kernels_portable.to_f32[TYPE_F16](place, weight_row(&model.wpe, POSITION + t), N_EMBD);
        bool same = true;
        for (int i = 0; i < N_EMBD; i++) same &= out[t * N_EMBD + i] == token[i] + place[i];
        CHECK_FOR(same, "%s, token %d", dtype_infos[type].name, t);
    }
}

int main(void) {
    fastgpt_pool *pool;
    CHECK(fastgpt_pool_create(3, &pool) == FASTGPT_OK && pool_enter(pool) == FASTGPT_OK);
    for (int threads = 1; threads <= 3; threads += 2) {
        engine e = new_engine(threads == 1 ? NULL : pool, threads, 1, 256);
        test_attention(&e);
        test_common_prefix(&e);
        test_rows(&e);
        for (dtype type = 0; type < N_KERNEL_DTYPES; type++) check_embed(&e, type);
        free_engine(&e);
    }
    pool_leave(pool);
    fastgpt_pool_free(pool);
    return check_report();
}
