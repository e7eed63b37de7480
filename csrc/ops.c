/* ops.c - see ops.h. */
#include "ops.h"

#include <math.h>

#include "blas.h"
#include "pool.h"

static int min_int(int a, int b) { return a < b ? a : b; }

static int n_units_of(int n, int unit) { return (n + unit - 1) / unit; }

void op_embed(float *out, const fastgpt_model *model, const int32_t *tokens, int32_t n_tokens, int32_t position) {
    int64_t n_embd = model->n_embd;
    for (int32_t t = 0; t < n_tokens; t++) {
        const float *token = model->wte + tokens[t] * n_embd;
        const float *place = model->wpe + (position + t) * n_embd;
        for (int64_t i = 0; i < n_embd; i++) out[t * n_embd + i] = token[i] + place[i];
    }
}

/* ---- Rows: layer_norm and gelu ---- */

enum { ROWS_PER_UNIT = 8 };

typedef struct rows_job {
    const engine *e;
    float *out;
    const float *x;
    const norm *norm;
    float epsilon;
    int n_rows, n;
} rows_job;

static void layer_norm_unit(void *arg, int unit, int thread) {
    const rows_job *job = arg;
    (void)thread;
    int end = min_int((unit + 1) * ROWS_PER_UNIT, job->n_rows);
    for (int64_t r = (int64_t)unit * ROWS_PER_UNIT; r < end; r++)
        job->e->kernels->layer_norm(job->out + r * job->n, job->x + r * job->n, job->norm->w, job->norm->b, job->n,
                                    job->epsilon);
}

void op_layer_norm(const engine *e, float *out, const float *x, const norm *norm, float epsilon, int n_rows, int n) {
    rows_job job = {.e = e, .out = out, .x = x, .norm = norm, .epsilon = epsilon, .n_rows = n_rows, .n = n};
    pool_run(e->pool, layer_norm_unit, &job, n_units_of(n_rows, ROWS_PER_UNIT));
}

static void gelu_unit(void *arg, int unit, int thread) {
    const rows_job *job = arg;
    (void)thread;
    int end = min_int((unit + 1) * ROWS_PER_UNIT, job->n_rows);
    for (int64_t r = (int64_t)unit * ROWS_PER_UNIT; r < end; r++) job->e->kernels->gelu(job->out + r * job->n, job->n);
}

void op_gelu(const engine *e, float *x, int n_rows, int n) {
    rows_job job = {.e = e, .out = x, .n_rows = n_rows, .n = n};
    pool_run(e->pool, gelu_unit, &job, n_units_of(n_rows, ROWS_PER_UNIT));
}

/* ---- Attention ---- */

typedef struct attention_job {
    const engine *e;
    const attention_span *spans;
    int n_head, n_embd, n_ctx;
    float *scores;
} attention_job;

/* Few queries: each reads the keys and values once, through the kernels. */
static void attend_one_by_one(const attention_job *job, const attention_span *s, int head_at, int first, int n_queries,
                              float *scores) {
    const kernels *k = job->e->kernels;
    int n_embd = job->n_embd, d = n_embd / job->n_head;
    float scale = 1 / sqrtf((float)d);
    for (int64_t t = first; t < first + n_queries; t++) {
        int n_keys = s->n_past + (int)t + 1;
        for (int i = 0; i < n_keys; i++) scores[i] = 0;
        k->dot_rows(scores, n_keys, s->q + t * n_embd + head_at, n_embd, s->keys + head_at, n_embd, 1, n_keys, d);
        for (int i = 0; i < n_keys; i++) scores[i] *= scale;
        k->softmax(scores, n_keys);
        k->weighted_sum(s->out + t * n_embd + head_at, scores, s->values + head_at, n_embd, n_keys, d);
    }
}

/* Many queries: two matrix products over a head, which is a slice of columns and never copied.  Keys beyond
 * a query's own position get weight 0. */
static void attend_as_block(const attention_job *job, const attention_span *s, int head_at, int first, int n_queries,
                            float *scores) {
    int n_embd = job->n_embd, d = n_embd / job->n_head, n_ctx = job->n_ctx;
    int n_keys = s->n_past + first + n_queries;
    const float *q = s->q + (int64_t)first * n_embd + head_at;
    float *out = s->out + (int64_t)first * n_embd + head_at;
    blas_gemm_nt(n_queries, n_keys, d, 1 / sqrtf((float)d), q, n_embd, s->keys + head_at, n_embd, 0, scores, n_ctx);
    for (int t = 0; t < n_queries; t++) {
        float *row = scores + (int64_t)t * n_ctx;
        int n_seen = s->n_past + first + t + 1;
        job->e->kernels->softmax(row, n_seen);
        for (int i = n_seen; i < n_keys; i++) row[i] = 0;
    }
    blas_gemm_nn(n_queries, d, n_keys, 1, scores, n_ctx, s->values + head_at, n_embd, 0, out, n_embd);
}

/* Units run over spans, in a span over blocks of queries, in a block over heads. */
static void attention_unit(void *arg, int unit, int thread) {
    enum { FEW = 4 };
    const attention_job *job = arg;
    const attention_span *s = job->spans;
    int block = unit / job->n_head;
    for (; block >= n_units_of(s->n_tokens, ATTENTION_BLOCK); s++) block -= n_units_of(s->n_tokens, ATTENTION_BLOCK);
    int head_at = unit % job->n_head * (job->n_embd / job->n_head);
    int first = block * ATTENTION_BLOCK;
    int n_queries = min_int(ATTENTION_BLOCK, s->n_tokens - first);
    float *scores = job->scores + (int64_t)thread * ATTENTION_BLOCK * job->n_ctx;
    if (n_queries < FEW) attend_one_by_one(job, s, head_at, first, n_queries, scores);
    else attend_as_block(job, s, head_at, first, n_queries, scores);
}

void op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd, float *scores,
                  int n_ctx) {
    attention_job job = {.e = e, .spans = spans, .n_head = n_head, .n_embd = n_embd, .n_ctx = n_ctx, .scores = scores};
    int n_blocks = 0;
    for (int i = 0; i < n_spans; i++) n_blocks += n_units_of(spans[i].n_tokens, ATTENTION_BLOCK);
    pool_run(e->pool, attention_unit, &job, n_blocks * n_head);
}
