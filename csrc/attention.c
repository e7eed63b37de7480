/* attention.c - see attention.h.  Two ways, each with scores of all keys and a softmax in the middle:
 *
 *   stream  few queries of a span: keys and values are read once, row after row as they lie in memory, and each row
 *           meets all heads.  First the scores, in chunks of keys; then the values, some heads at a time.
 *   block   many queries: two matrix products for each head and block of queries; keys beyond a query's own position
 *           get weight 0.
 *
 * A deterministic step multiplies blocks by the kernels of stream, in the same order; otherwise BLAS does. */
#include "attention.h"

#include <math.h>
#include <string.h>

#include "arithmetic.h"
#include "blas.h"
#include "pool.h"

enum {
    FEW_QUERIES = 4,           /* of a span: fewer are streamed */
    QUERIES_PER_BLOCK = 32,
    QUERIES_PER_ROUND = 32,    /* that stream together, whose scores stand side by side */
    KEYS_PER_UNIT = 128,       /* whose scores a thread computes */
    ROWS_AT_ONCE = 8,          /* of keys or values, before the next head takes its turn */
    NUMBERS_PER_SUM = 128,     /* of a row of values, about: whole heads */
    ROWS_PER_BLOCK = 64        /* of keys or values that stay in cache for a block of queries */
};

typedef struct attention_job {
    const engine *e;
    const attention_span *spans;
    int n_head, n_embd, n_ctx;
    float *scores;
} attention_job;

int64_t attention_panel_bytes(int64_t n_ctx, int64_t head_width) {
    return round_up(n_ctx * head_width * (int64_t)sizeof(float), 64);
}

int64_t attention_n_scores(int64_t n_threads, int64_t n_head, int64_t n_ctx) {
    return n_ctx * larger(n_threads * QUERIES_PER_BLOCK, n_head * QUERIES_PER_ROUND);
}

static int head_width(const attention_job *job) { return job->n_embd / job->n_head; }

/* A head's columns of a row of keys or values. */
static const uint8_t *head_at(const attention_job *job, const attention_span *s, const uint8_t *rows, int64_t row,
                              int head) {
    return rows + row * row_bytes(s->type, job->n_embd) + row_bytes(s->type, (int64_t)head * head_width(job));
}

static void softmax_of_scores(const attention_job *job, float *scores, int n_keys) {
    float scale = 1 / sqrtf((float)head_width(job));
    for (int i = 0; i < n_keys; i++) scores[i] *= scale;
    job->e->kernels->softmax(scores, n_keys);
}

/* scores[t][key] += q[t] . k[key] for keys [first, first + n) */
static void add_scores(const attention_job *job, const attention_span *s, int head, float *scores, int64_t ld_scores,
                       const float *q, int n_queries, int first, int n) {
    job->e->kernels->dot_rows[s->type](scores + first, ld_scores, q, job->n_embd * (int64_t)sizeof(float),
                                       head_at(job, s, s->keys, first, head), row_bytes(s->type, job->n_embd),
                                       n_queries, n, head_width(job));
}

/* out += scores[key] * v[key] for keys [first, first + n) */
static void add_values(const attention_job *job, const attention_span *s, int head, float *out, const float *scores,
                       int first, int n) {
    job->e->kernels->weighted_sum[s->type](out, scores + first, head_at(job, s, s->values, first, head),
                                           row_bytes(s->type, job->n_embd), n, head_width(job));
}

/* ---- Stream ---- */

static int n_streamed(const attention_span *s) { return s->n_tokens < FEW_QUERIES ? s->n_tokens : 0; }

static int n_chunks(const attention_span *s) {
    return n_streamed(s) ? n_tiles(s->n_past + s->n_tokens, KEYS_PER_UNIT) : 0;
}

static int heads_per_sum(const attention_job *job) { return (int)larger(NUMBERS_PER_SUM / head_width(job), 1); }

static int n_sums(const attention_job *job) { return n_tiles(job->n_head, heads_per_sum(job)); }

/* Scores of the query-th query of a round: [n_head][n_ctx]. */
static float *scores_of(const attention_job *job, int64_t query) {
    return job->scores + query * job->n_head * job->n_ctx;
}

/* Scores of all queries of a span and a chunk of its keys. */
static void score_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const attention_span *s = job->spans;
    int query = 0, d = head_width(job);
    (void)thread;
    for (; unit >= n_chunks(s); s++) unit -= n_chunks(s), query += n_streamed(s);
    int first = unit * KEYS_PER_UNIT, end = min_int(first + KEYS_PER_UNIT, s->n_past + s->n_tokens);
    float *scores = scores_of(job, query);
    for (int64_t row = 0; row < (int64_t)s->n_tokens * job->n_head; row++)
        memset(scores + row * job->n_ctx + first, 0, (size_t)(end - first) * sizeof(float));
    for (int key = first; key < end; key += ROWS_AT_ONCE)
        for (int64_t h = 0; h < job->n_head; h++)
            add_scores(job, s, (int)h, scores + h * job->n_ctx, (int64_t)job->n_head * job->n_ctx, s->q + h * d,
                       s->n_tokens, key, min_int(ROWS_AT_ONCE, end - key));
}

/* Some heads of the output of one query, from its scores on. */
static void sum_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const attention_span *s = job->spans;
    int query = unit / n_sums(job), d = head_width(job);
    float *scores = scores_of(job, query);
    int first = unit % n_sums(job) * heads_per_sum(job), end = min_int(first + heads_per_sum(job), job->n_head);
    (void)thread;
    for (; query >= n_streamed(s); s++) query -= n_streamed(s);
    int n_keys = s->n_past + query + 1;
    float *out = s->out + (int64_t)query * job->n_embd;
    for (int64_t h = first; h < end; h++) softmax_of_scores(job, scores + h * job->n_ctx, n_keys);
    memset(out + first * d, 0, (size_t)((end - first) * d) * sizeof(float));
    for (int key = 0; key < n_keys; key += ROWS_AT_ONCE)
        for (int64_t h = first; h < end; h++)
            add_values(job, s, (int)h, out + h * d, scores + h * job->n_ctx, key, min_int(ROWS_AT_ONCE, n_keys - key));
}

/* Streams as many of the spans as a round takes; returns how many spans that are. */
static int stream_round(attention_job job, const attention_span *spans, int n_spans) {
    int i = 0, n_queries = 0, n_score_units = 0;
    for (; i < n_spans && n_queries + n_streamed(&spans[i]) <= QUERIES_PER_ROUND; i++) {
        n_queries += n_streamed(&spans[i]);
        n_score_units += n_chunks(&spans[i]);
    }
    job.spans = spans;
    pool_run(job.e->pool, score_unit, &job, n_score_units);
    pool_run(job.e->pool, sum_unit, &job, n_queries * n_sums(&job));
    return i;
}

/* ---- Blocks ---- */

/* What a unit works on: one head of a block of queries of one span. */
typedef struct attention_block {
    const attention_span *span;
    int head, n_queries, n_seen, n_keys; /* n_seen: keys of the first query; each later one has one more */
    const float *q;                      /* [n_queries], rows n_embd apart, as those of out */
    float *out;
    float *scores; /* [n_queries][n_ctx] */
    float *panel;  /* [n_keys][d] */
} attention_block;

/* A head's columns of all keys or values as F32: in the cache itself, or widened into the panel.  *ld counts floats. */
static const float *head_of(const attention_job *job, const attention_block *b, const uint8_t *rows, int64_t *ld) {
    const attention_span *s = b->span;
    int d = head_width(job);
    *ld = s->type == TYPE_F32 ? job->n_embd : d;
    if (s->type == TYPE_F32) return (const float *)(const void *)head_at(job, s, rows, 0, b->head);
    for (int64_t i = 0; i < b->n_keys; i++)
        job->e->kernels->widen[s->type](b->panel + i * d, head_at(job, s, rows, i, b->head), d);
    return b->panel;
}

static void multiply_keys(const attention_job *job, const attention_block *b) {
    int64_t ld;
    if (!job->e->deterministic) {
        const float *keys = head_of(job, b, b->span->keys, &ld);
        blas_gemm_nt(b->n_queries, b->n_keys, head_width(job), 1, b->q, job->n_embd, keys, ld, 0, b->scores,
                     job->n_ctx);
        return;
    }
    for (int64_t t = 0; t < b->n_queries; t++) memset(b->scores + t * job->n_ctx, 0, (size_t)b->n_keys * sizeof(float));
    for (int key = 0; key < b->n_keys; key += ROWS_PER_BLOCK)
        add_scores(job, b->span, b->head, b->scores, job->n_ctx, b->q, b->n_queries, key,
                   min_int(ROWS_PER_BLOCK, b->n_keys - key));
}

static void multiply_values(const attention_job *job, const attention_block *b) {
    int64_t ld;
    int d = head_width(job);
    if (!job->e->deterministic) {
        const float *values = head_of(job, b, b->span->values, &ld);
        blas_gemm_nn(b->n_queries, d, b->n_keys, 1, b->scores, job->n_ctx, values, ld, 0, b->out, job->n_embd);
        return;
    }
    for (int64_t t = 0; t < b->n_queries; t++) memset(b->out + t * job->n_embd, 0, (size_t)d * sizeof(float));
    for (int key = 0; key < b->n_keys; key += ROWS_PER_BLOCK)
        for (int64_t t = 0; t < b->n_queries; t++) {
            int n = min_int(ROWS_PER_BLOCK, b->n_seen + (int)t - key);
            if (n > 0) add_values(job, b->span, b->head, b->out + t * job->n_embd, b->scores + t * job->n_ctx, key, n);
        }
}

static int n_blocks(const attention_span *s) { return n_streamed(s) ? 0 : n_tiles(s->n_tokens, QUERIES_PER_BLOCK); }

/* Units run over spans, in a span over blocks of queries, in a block over heads. */
static void block_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const attention_span *s = job->spans;
    int block = unit / job->n_head, head = unit % job->n_head;
    for (; block >= n_blocks(s); s++) block -= n_blocks(s);
    int first = block * QUERIES_PER_BLOCK, n_queries = min_int(QUERIES_PER_BLOCK, s->n_tokens - first);
    int64_t at = (int64_t)first * job->n_embd + head * head_width(job);
    attention_block b = {.span = s,
                         .head = head,
                         .n_queries = n_queries,
                         .n_seen = s->n_past + first + 1,
                         .n_keys = s->n_past + first + n_queries,
                         .q = s->q + at,
                         .out = s->out + at,
                         .scores = job->scores + (int64_t)thread * QUERIES_PER_BLOCK * job->n_ctx,
                         .panel = engine_panel(job->e, thread)};
    multiply_keys(job, &b);
    for (int t = 0; t < n_queries; t++) {
        float *row = b.scores + (int64_t)t * job->n_ctx;
        softmax_of_scores(job, row, b.n_seen + t);
        for (int i = b.n_seen + t; i < b.n_keys; i++) row[i] = 0;
    }
    multiply_values(job, &b);
}

void op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd, float *scores,
                  int n_ctx) {
    attention_job job = {.e = e, .spans = spans, .n_head = n_head, .n_embd = n_embd, .n_ctx = n_ctx, .scores = scores};
    int n = 0;
    for (int i = 0; i < n_spans; i++) n += n_blocks(&spans[i]);
    pool_run(e->pool, block_unit, &job, n * n_head);
    for (int i = 0; i < n_spans;) i += stream_round(job, spans + i, n_spans - i);
}
