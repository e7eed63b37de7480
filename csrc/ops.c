/* ops.c - see ops.h. */
#include "ops.h"

#include <math.h>

#include "arithmetic.h"
#include "blas.h"
#include "pool.h"

void op_embed(const engine *e, float *out, const fastgpt_model *model, const int32_t *tokens, int32_t n_tokens,
              int32_t position) {
    const weight *wte = &model->wte, *wpe = &model->wpe;
    float *place = engine_panel(e, 0);
    for (int32_t t = 0; t < n_tokens; t++, out += model->n_embd) {
        e->kernels->widen[wte->type](out, weight_row(wte, tokens[t]), model->n_embd);
        e->kernels->widen[wpe->type](place, weight_row(wpe, position + t), model->n_embd);
        for (int32_t i = 0; i < model->n_embd; i++) out[i] += place[i];
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
    pool_run(e->pool, layer_norm_unit, &job, n_tiles(n_rows, ROWS_PER_UNIT));
}

static void gelu_unit(void *arg, int unit, int thread) {
    const rows_job *job = arg;
    (void)thread;
    int end = min_int((unit + 1) * ROWS_PER_UNIT, job->n_rows);
    for (int64_t r = (int64_t)unit * ROWS_PER_UNIT; r < end; r++) job->e->kernels->gelu(job->out + r * job->n, job->n);
}

void op_gelu(const engine *e, float *x, int n_rows, int n) {
    rows_job job = {.e = e, .out = x, .n_rows = n_rows, .n = n};
    pool_run(e->pool, gelu_unit, &job, n_tiles(n_rows, ROWS_PER_UNIT));
}

/* ---- Attention ---- */

typedef struct attention_job {
    const engine *e;
    const attention_span *spans;
    int n_head, n_embd, n_ctx;
    float *scores;
} attention_job;

int64_t attention_panel_bytes(int64_t n_ctx, int64_t head_width) {
    return round_up(n_ctx * head_width * (int64_t)sizeof(float), 64);
}

/* What a unit works on: one head of a block of queries of one span. */
typedef struct attention_block {
    const attention_span *span;
    int head_at; /* first column of the head */
    int first, n_queries;
    float *scores; /* [n_queries][n_ctx] */
    float *panel;  /* [n_keys][d] */
} attention_block;

/* Few queries: each reads the keys and values once, through the kernels. */
static void attend_one_by_one(const attention_job *job, const attention_block *b) {
    const kernels *k = job->e->kernels;
    const attention_span *s = b->span;
    int n_embd = job->n_embd, d = n_embd / job->n_head;
    int64_t ld = row_bytes(s->type, n_embd), head_at = row_bytes(s->type, b->head_at);
    float scale = 1 / sqrtf((float)d), *scores = b->scores;
    for (int64_t t = b->first; t < b->first + b->n_queries; t++) {
        int n_keys = s->n_past + (int)t + 1;
        const float *q = s->q + t * n_embd + b->head_at;
        for (int i = 0; i < n_keys; i++) scores[i] = 0;
        k->dot_rows[s->type](scores, n_keys, q, 0, s->keys + head_at, ld, 1, n_keys, d);
        for (int i = 0; i < n_keys; i++) scores[i] *= scale;
        k->softmax(scores, n_keys);
        k->weighted_sum[s->type](s->out + t * n_embd + b->head_at, scores, s->values + head_at, ld, n_keys, d);
    }
}

/* A head's columns of n rows as F32: in the cache itself, or widened into the panel.  *ld counts floats. */
static const float *head_of(const attention_job *job, const attention_block *b, const uint8_t *rows, int n,
                            int64_t *ld) {
    number_type type = b->span->type;
    int d = job->n_embd / job->n_head;
    const uint8_t *head = rows + row_bytes(type, b->head_at);
    *ld = type == TYPE_F32 ? job->n_embd : d;
    if (type == TYPE_F32) return (const float *)(const void *)head;
    for (int64_t i = 0; i < n; i++)
        job->e->kernels->widen[type](b->panel + i * d, head + i * row_bytes(type, job->n_embd), d);
    return b->panel;
}

/* Many queries: two matrix products over a head, which is a slice of columns.  Keys beyond a query's own position get
 * weight 0. */
static void attend_as_block(const attention_job *job, const attention_block *b) {
    const attention_span *s = b->span;
    int n_embd = job->n_embd, d = n_embd / job->n_head, n_ctx = job->n_ctx;
    int n_keys = s->n_past + b->first + b->n_queries;
    int64_t at = (int64_t)b->first * n_embd + b->head_at, ld;
    const float *keys = head_of(job, b, s->keys, n_keys, &ld);
    blas_gemm_nt(b->n_queries, n_keys, d, 1 / sqrtf((float)d), s->q + at, n_embd, keys, ld, 0, b->scores, n_ctx);
    for (int t = 0; t < b->n_queries; t++) {
        float *row = b->scores + (int64_t)t * n_ctx;
        int n_seen = s->n_past + b->first + t + 1;
        job->e->kernels->softmax(row, n_seen);
        for (int i = n_seen; i < n_keys; i++) row[i] = 0;
    }
    const float *values = head_of(job, b, s->values, n_keys, &ld);
    blas_gemm_nn(b->n_queries, d, n_keys, 1, b->scores, n_ctx, values, ld, 0, s->out + at, n_embd);
}

/* Units run over spans, in a span over blocks of queries, in a block over heads. */
static void attention_unit(void *arg, int unit, int thread) {
    enum { FEW = 4 };
    const attention_job *job = arg;
    const attention_span *s = job->spans;
    int block = unit / job->n_head;
    for (; block >= n_tiles(s->n_tokens, ATTENTION_BLOCK); s++) block -= n_tiles(s->n_tokens, ATTENTION_BLOCK);
    int first = block * ATTENTION_BLOCK;
    attention_block b = {.span = s,
                         .head_at = unit % job->n_head * (job->n_embd / job->n_head),
                         .first = first,
                         .n_queries = min_int(ATTENTION_BLOCK, s->n_tokens - first),
                         .scores = job->scores + (int64_t)thread * ATTENTION_BLOCK * job->n_ctx,
                         .panel = engine_panel(job->e, thread)};
    if (job->e->deterministic || b.n_queries < FEW) attend_one_by_one(job, &b);
    else attend_as_block(job, &b);
}

void op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd, float *scores,
                  int n_ctx) {
    attention_job job = {.e = e, .spans = spans, .n_head = n_head, .n_embd = n_embd, .n_ctx = n_ctx, .scores = scores};
    int n_blocks = 0;
    for (int i = 0; i < n_spans; i++) n_blocks += n_tiles(spans[i].n_tokens, ATTENTION_BLOCK);
    pool_run(e->pool, attention_unit, &job, n_blocks * n_head);
}
