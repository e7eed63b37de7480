/* test_ops.c - the ops of a transformer against the formulas in double precision, with one thread and with three.
 * Arrays are of exactly the size that the headers give. */
#include "check.h"
#include "linear.h"
#include "ops.h"
#include "pool.h"
#include "random.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 2;

static float *new_random(int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    if (!x) abort();
    random_fill(&seed, x, n);
    return x;
}

static float *new_copy(const float *x, int64_t n) {
    float *copy = new_random(n);
    memcpy(copy, x, (size_t)n * sizeof *x);
    return copy;
}

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

static double span_error(const attention_span *s, int n_head, int n_embd) {
    double worst = 0, expected[256];
    for (int t = 0; t < s->n_tokens; t++) {
        attend(expected, s->q + t * n_embd, s->keys, s->values, s->n_past + t + 1, n_head, n_embd);
        for (int j = 0; j < n_embd; j++) {
            double error = fabs(s->out[t * n_embd + j] - expected[j]);
            worst = error <= worst ? worst : error;
        }
    }
    return worst;
}

static attention_span new_span(int n_past, int n_tokens, int n_embd) {
    return (attention_span){.out = new_random(n_tokens * n_embd),
                            .q = new_random(n_tokens * n_embd),
                            .keys = new_random((n_past + n_tokens) * n_embd),
                            .values = new_random((n_past + n_tokens) * n_embd),
                            .n_past = n_past,
                            .n_tokens = n_tokens};
}

static void free_span(attention_span s) {
    free(s.out);
    free((void *)s.q);
    free((void *)s.keys);
    free((void *)s.values);
}

/* Three spans of different lengths at once. */
static void check_attention(const engine *e, int n_tokens, int n_past, int n_head, int d) {
    enum { N_SPANS = 3 };
    int n_embd = n_head * d, n_ctx = n_past + n_tokens + 3;
    attention_span spans[N_SPANS] = {new_span(n_past, n_tokens, n_embd), new_span(0, 1 + n_tokens / 2, n_embd),
                                     new_span(n_past / 2, n_tokens, n_embd)};
    float *scores = new_random((int64_t)pool_n_threads(e->pool) * ATTENTION_BLOCK * n_ctx);
    op_attention(e, spans, N_SPANS, n_head, n_embd, scores, n_ctx);
    for (int i = 0; i < N_SPANS; i++) {
        double error = span_error(&spans[i], n_head, n_embd);
        CHECK_FOR(error < 2e-6, "span %d of %d tokens after %d, %d heads of %d: error %g", i, spans[i].n_tokens,
                  spans[i].n_past, n_head, d, error);
        free_span(spans[i]);
    }
    free(scores);
}

static void test_attention(const engine *e) {
    static const int n_tokens[] = {1, 2, 3, 4, 5, 31, 32, 33, 65}, n_past[] = {0, 1, 7, 40}, d[] = {1, 5, 12, 64};
    for (int t = 0; t < 9; t++)
        for (int p = 0; p < 4; p++)
            for (int i = 0; i < 4; i++) check_attention(e, n_tokens[t], n_past[p], 1 + (t + p) % 3, d[i]);
}

/* ---- linear ---- */

/* out [n_tokens][n_out] of one task; before is what out held. */
static double linear_error(const linear_task *task, const float *before, int n_tokens) {
    double worst = 0;
    for (int t = 0; t < n_tokens; t++) {
        for (int r = 0; r < task->w.n_out; r++) {
            double sum = task->add ? before[t * task->ld_out + r] : 0, absolute = fabs(sum) + FLT_MIN;
            if (task->w.b) sum += task->w.b[r];
            if (task->w.b) absolute += fabsf(task->w.b[r]);
            for (int i = 0; i < task->w.n_in; i++) {
                double product = (double)task->x[t * task->w.n_in + i] * task->w.w[r * task->w.n_in + i];
                sum += product;
                absolute += fabs(product);
            }
            double bound = (task->w.n_in + 3) * (double)FLT_EPSILON * absolute;
            double error = fabs(task->out[t * task->ld_out + r] - sum) / bound;
            worst = error <= worst ? worst : error;
        }
    }
    return worst;
}

static bool gaps_untouched(const linear_task *task, const float *before, int n_tokens) {
    for (int64_t i = 0; i < (n_tokens - 1) * task->ld_out; i++)
        if (i % task->ld_out >= task->w.n_out && memcmp(&task->out[i], &before[i], sizeof *before) != 0) return false;
    return true;
}

/* Two tasks of one run: rows from the middle of a weight, and a weight of one row more without bias. */
static void check_linear(const engine *e, int n_tokens, int n_out, int n_in, bool add) {
    weight whole = {.w = new_random((n_out + 7) * n_in), .b = new_random(n_out + 7), .n_out = n_out + 7, .n_in = n_in};
    float *x = new_random(n_tokens * n_in);
    linear_task tasks[2] = {{.ld_out = n_out + 2, .x = x, .w = weight_rows(&whole, 3, n_out), .add = add},
                            {.ld_out = n_out + 1, .x = x, .w = weight_rows(&whole, 0, n_out + 1), .add = !add}};
    tasks[1].w.b = NULL;
    CHECK(tasks[0].w.w == whole.w + 3 * n_in && tasks[0].w.b == whole.b + 3 && tasks[0].w.n_out == n_out);
    float *before[2];
    for (int i = 0; i < 2; i++) {
        int64_t n = (n_tokens - 1) * tasks[i].ld_out + tasks[i].w.n_out;
        tasks[i].out = new_random(n);
        before[i] = new_copy(tasks[i].out, n);
    }
    linear(e, tasks, 2, n_tokens);
    for (int i = 0; i < 2; i++) {
        double error = linear_error(&tasks[i], before[i], n_tokens);
        CHECK_FOR(error <= 1, "%d tokens, n_out %d, n_in %d: %g times the bound", n_tokens, n_out, n_in, error);
        CHECK(gaps_untouched(&tasks[i], before[i], n_tokens));
        free(tasks[i].out);
        free(before[i]);
    }
    free(x);
    free((void *)whole.w);
    free((void *)whole.b);
}

static void test_linear(const engine *e) {
    static const int n_tokens[] = {1, 2, 15, 16, 17, 257}, n_out[] = {1, 63, 64, 65, 255, 257}, n_in[] = {1, 7, 33};
    for (int t = 0; t < 6; t++)
        for (int o = 0; o < 6; o++)
            for (int i = 0; i < 3; i++) check_linear(e, n_tokens[t], n_out[o], n_in[i], (t + o + i) % 2);
}

/* ---- Rows ---- */

/* Each row is what the kernel makes of it alone. */
static void check_rows(const engine *e, int n_rows, int n) {
    float *x = new_random(n_rows * n), *out = new_random(n_rows * n), *expected = new_random(n_rows * n);
    const norm norm = {.w = new_random(n), .b = new_random(n)};
    for (int r = 0; r < n_rows; r++) e->kernels->layer_norm(expected + r * n, x + r * n, norm.w, norm.b, n, 1e-5f);
    op_layer_norm(e, out, x, &norm, 1e-5f, n_rows, n);
    CHECK_FOR(memcmp(out, expected, sizeof *out * (size_t)(n_rows * n)) == 0, "layer_norm: %d rows of %d", n_rows, n);
    for (int r = 0; r < n_rows; r++) e->kernels->gelu(expected + r * n, n);
    op_gelu(e, out, n_rows, n);
    CHECK_FOR(memcmp(out, expected, sizeof *out * (size_t)(n_rows * n)) == 0, "gelu: %d rows of %d", n_rows, n);
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

static void test_embed(void) {
    enum { N_VOCAB = 5, N_CTX = 7, N_EMBD = 3, N_TOKENS = 4, POSITION = 3 };
    static const int32_t tokens[N_TOKENS] = {4, 0, 4, 2};
    float *wte = new_random(N_VOCAB * N_EMBD), *wpe = new_random(N_CTX * N_EMBD), *out = new_random(N_TOKENS * N_EMBD);
    const fastgpt_model model = {.n_vocab = N_VOCAB, .n_ctx = N_CTX, .n_embd = N_EMBD, .wte = wte, .wpe = wpe};
    op_embed(out, &model, tokens, N_TOKENS, POSITION);
    for (int t = 0; t < N_TOKENS; t++)
        for (int i = 0; i < N_EMBD; i++)
            CHECK(out[t * N_EMBD + i] == wte[tokens[t] * N_EMBD + i] + wpe[(POSITION + t) * N_EMBD + i]);
    free(wte);
    free(wpe);
    free(out);
}

int main(void) {
    fastgpt_pool *pool;
    CHECK(fastgpt_pool_create(3, &pool) == FASTGPT_OK && pool_enter(pool) == FASTGPT_OK);
    for (int threads = 1; threads <= 3; threads += 2) {
        engine e = {.pool = threads == 1 ? NULL : pool, .kernels = kernels_chosen()};
        test_attention(&e);
        test_linear(&e);
        test_rows(&e);
    }
    test_embed();
    pool_leave(pool);
    fastgpt_pool_free(pool);
    return check_report();
}
