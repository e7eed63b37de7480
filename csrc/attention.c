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

/* Spans with few queries each that read one prefix together. */
typedef struct group {
    const attention_span *first, *last;
    int query, n_queries; /* the first of its queries in the round, and how many they are */
} group;

typedef struct attention_job {
    const engine *e;
    const attention_span *spans;
    int n_head, n_embd, n_ctx;
    float *scores;
    group groups[QUERIES_PER_ROUND];
    int n_groups;
} attention_job;

int64_t attention_panel_bytes(int64_t n_ctx, int64_t head_width) {
    return round_up(n_ctx * head_width * (int64_t)sizeof(float), 64);
}

int64_t attention_n_scores(int64_t n_threads, int64_t n_head, int64_t n_ctx) {
    return n_ctx * larger(n_threads * QUERIES_PER_BLOCK, n_head * QUERIES_PER_ROUND);
}

static int head_width(const attention_job *job) { return job->n_embd / job->n_head; }

enum { KEYS, VALUES };

/* A head's columns of the row of a key or value. */
static const uint8_t *head_at(const attention_job *job, const attention_span *s, int which, int64_t key, int head) {
    bool shared = key < s->n_prefix;
    const uint8_t *prefix = which == KEYS ? s->prefix_keys : s->prefix_values;
    const uint8_t *rows = shared ? prefix : which == KEYS ? s->keys : s->values;
    int64_t row = shared ? key : key - s->n_prefix;
    return rows + row * row_bytes(s->type, job->n_embd) + row_bytes(s->type, (int64_t)head * head_width(job));
}

/* Of the n rows from key `first` on, how many lie behind each other. */
static int n_together(const attention_span *s, int first, int n) {
    return first < s->n_prefix ? min_int(n, s->n_prefix - first) : n;
}

static void softmax_of_scores(const attention_job *job, float *scores, int n_keys) {
    float scale = 1 / sqrtf((float)head_width(job));
    for (int i = 0; i < n_keys; i++) scores[i] *= scale;
    job->e->kernels->softmax(scores, n_keys);
}

/* scores[t][key] += q[t] . k[key] for keys [first, first + n) */
static void add_scores(const attention_job *job, const attention_span *s, int head, float *scores, int64_t ld_scores,
                       const float *q, int n_queries, int first, int n) {
    for (int m, end = first + n; first < end; first += m) {
        m = n_together(s, first, end - first);
        job->e->kernels->dot_rows[s->type](scores + first, ld_scores, q, job->n_embd * (int64_t)sizeof(float),
                                           head_at(job, s, KEYS, first, head), row_bytes(s->type, job->n_embd),
                                           n_queries, m, head_width(job));
    }
}

/* out += scores[key] * v[key] for keys [first, first + n) */
static void add_values(const attention_job *job, const attention_span *s, int head, float *out, const float *scores,
                       int first, int n) {
    for (int m, end = first + n; first < end; first += m) {
        m = n_together(s, first, end - first);
        job->e->kernels->weighted_sum[s->type](out, scores + first, head_at(job, s, VALUES, first, head),
                                               row_bytes(s->type, job->n_embd), m, head_width(job));
    }
}

/* ---- Stream ---- */

static int n_streamed(const attention_span *s) { return s->n_tokens < FEW_QUERIES ? s->n_tokens : 0; }

/* Of the keys behind the prefix. */
static int n_chunks(const attention_span *s) {
    return n_streamed(s) ? n_tiles(s->n_past + s->n_tokens - s->n_prefix, KEYS_PER_UNIT) : 0;
}

static int heads_per_sum(const attention_job *job) { return (int)larger(NUMBERS_PER_SUM / head_width(job), 1); }

static int n_sums(const attention_job *job) { return n_tiles(job->n_head, heads_per_sum(job)); }

/* Scores of the query-th query of a round: [n_head][n_ctx]. */
static float *scores_of(const attention_job *job, int64_t query) {
    return job->scores + query * job->n_head * job->n_ctx;
}

/* A few queries go through memory as it lies; many find rows in the cache again. */
static int rows_for(int n_queries) { return n_queries < FEW_QUERIES ? ROWS_AT_ONCE : ROWS_PER_BLOCK; }

/* Scores of the query-th query of a round and those behind it, which begin with those of s, for a chunk of keys. */
static void score_chunk(const attention_job *job, const attention_span *s, int query, int n_queries, int first,
                        int n_keys) {
    int d = head_width(job), end = min_int(first + KEYS_PER_UNIT, n_keys);
    float *scores = scores_of(job, query);
    for (int64_t row = 0; row < (int64_t)n_queries * job->n_head; row++)
        memset(scores + row * job->n_ctx + first, 0, (size_t)(end - first) * sizeof(float));
    int n_rows = rows_for(n_queries);
    for (int key = first; key < end; key += n_rows)
        for (int64_t h = 0; h < job->n_head; h++)
            add_scores(job, s, (int)h, scores + h * job->n_ctx, (int64_t)job->n_head * job->n_ctx, s->q + h * d,
                       n_queries, key, min_int(n_rows, end - key));
}

/* All queries of a span and a chunk of its own keys. */
static void score_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const attention_span *s = job->spans;
    int query = 0;
    (void)thread;
    for (; unit >= n_chunks(s); s++) unit -= n_chunks(s), query += n_streamed(s);
    score_chunk(job, s, query, s->n_tokens, s->n_prefix + unit * KEYS_PER_UNIT, s->n_past + s->n_tokens);
}

/* A query of a round, and some of its heads. */
typedef struct part {
    const attention_span *span;
    int token; /* of the span */
    float *scores;
    int first, end; /* heads */
} part;

static part part_of(const attention_job *job, const attention_span *s, int query, int token, int sum) {
    int first = sum * heads_per_sum(job);
    return (part){.span = s,
                  .token = token,
                  .scores = scores_of(job, query),
                  .first = first,
                  .end = min_int(first + heads_per_sum(job), job->n_head)};
}

static float *out_of(const attention_job *job, const part *p) { return p->span->out + (int64_t)p->token * job->n_embd; }

static void begin_sum(const attention_job *job, const part *p) {
    int d = head_width(job);
    for (int64_t h = p->first; h < p->end; h++)
        softmax_of_scores(job, p->scores + h * job->n_ctx, p->span->n_past + p->token + 1);
    memset(out_of(job, p) + p->first * d, 0, (size_t)((p->end - p->first) * d) * sizeof(float));
}

/* Adds the values of keys [first, end). */
static void add_rows(const attention_job *job, const part *p, int first, int end) {
    for (int64_t h = p->first; h < p->end; h++)
        add_values(job, p->span, (int)h, out_of(job, p) + h * head_width(job), p->scores + h * job->n_ctx, first,
                   end - first);
}

/* Some heads of the output of one query, from its scores on; where it has a prefix, that is in the sum already. */
static void sum_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const attention_span *s = job->spans;
    int query = unit / n_sums(job), token = query;
    (void)thread;
    for (; token >= n_streamed(s); s++) token -= n_streamed(s);
    part p = part_of(job, s, query, token, unit % n_sums(job));
    int n_keys = s->n_past + token + 1;
    if (!s->n_prefix) begin_sum(job, &p);
    for (int key = s->n_prefix; key < n_keys; key += ROWS_AT_ONCE)
        add_rows(job, &p, key, min_int(key + ROWS_AT_ONCE, n_keys));
}

/* ---- Stream: prefixes, each read once for all queries of its group ---- */

static int n_prefix_chunks(const group *g) { return n_tiles(g->first->n_prefix, KEYS_PER_UNIT); }

static void prefix_score_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const group *g = job->groups;
    (void)thread;
    for (; unit >= n_prefix_chunks(g); g++) unit -= n_prefix_chunks(g);
    score_chunk(job, g->first, g->query, g->n_queries, unit * KEYS_PER_UNIT, g->first->n_prefix);
}

/* The prefix's share of some heads of the output of all queries of a group. */
static void prefix_sum_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const group *g = &job->groups[unit / n_sums(job)];
    part parts[QUERIES_PER_ROUND];
    int n = 0, n_prefix = g->first->n_prefix;
    (void)thread;
    for (const attention_span *s = g->first; n < g->n_queries; s++)
        for (int token = 0; token < s->n_tokens; token++, n++)
            parts[n] = part_of(job, s, g->query + n, token, unit % n_sums(job));
    for (int i = 0; i < n; i++) begin_sum(job, &parts[i]);
    for (int key = 0, n_rows = rows_for(n); key < n_prefix; key += n_rows)
        for (int i = 0; i < n; i++) add_rows(job, &parts[i], key, min_int(key + n_rows, n_prefix));
}

/* Whether the queries of s stand behind those of the group's last span, and want the same rows. */
static bool joins(const attention_job *job, const group *g, const attention_span *s) {
    const attention_span *last = g->last;
    return last + 1 == s && last->prefix_keys == s->prefix_keys && last->n_prefix == s->n_prefix &&
           last->q + (int64_t)last->n_tokens * job->n_embd == s->q;
}

static void find_groups(attention_job *job, int n_spans) {
    int query = 0;
    job->n_groups = 0;
    for (const attention_span *s = job->spans; s < job->spans + n_spans; query += n_streamed(s), s++) {
        if (!s->n_prefix || !n_streamed(s)) continue;
        group *g = &job->groups[job->n_groups];
        if (job->n_groups && joins(job, g - 1, s)) g--;
        else *g = (group){.first = s, .query = query}, job->n_groups++;
        g->last = s;
        g->n_queries += s->n_tokens;
    }
}

static void stream_prefixes(attention_job *job, int n_spans) {
    int n_score_units = 0;
    find_groups(job, n_spans);
    for (int i = 0; i < job->n_groups; i++) n_score_units += n_prefix_chunks(&job->groups[i]);
    pool_run(job->e->pool, prefix_score_unit, job, n_score_units);
}

/* Streams as many of the spans as a round takes; returns how many spans that are. */
static int stream_round(attention_job job, const attention_span *spans, int n_spans) {
    int i = 0, n_queries = 0, n_score_units = 0;
    for (; i < n_spans && n_queries + n_streamed(&spans[i]) <= QUERIES_PER_ROUND; i++) {
        n_queries += n_streamed(&spans[i]);
        n_score_units += n_chunks(&spans[i]);
    }
    job.spans = spans;
    stream_prefixes(&job, i);
    pool_run(job.e->pool, score_unit, &job, n_score_units);
    pool_run(job.e->pool, prefix_sum_unit, &job, job.n_groups * n_sums(&job));
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

/* A head's columns of all keys or values as F32: in the cache itself, or side by side in the panel.  *ld counts floats.
 */
static const float *head_of(const attention_job *job, const attention_block *b, int which, int64_t *ld) {
    const attention_span *s = b->span;
    int d = head_width(job);
    bool in_place = s->type == TYPE_F32 && !s->n_prefix;
    *ld = in_place ? job->n_embd : d;
    if (in_place) return (const float *)(const void *)head_at(job, s, which, 0, b->head);
    for (int64_t i = 0; i < b->n_keys; i++)
        job->e->kernels->widen[s->type](b->panel + i * d, head_at(job, s, which, i, b->head), d);
    return b->panel;
}

static void multiply_keys(const attention_job *job, const attention_block *b) {
    int64_t ld;
    if (!job->e->deterministic) {
        const float *keys = head_of(job, b, KEYS, &ld);
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
        const float *values = head_of(job, b, VALUES, &ld);
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

void attention_probabilities(const engine *e, const attention_span *s, int n_head, int n_embd, int head, int token,
                             float *out) {
    const attention_job job = {.e = e, .n_head = n_head, .n_embd = n_embd};
    int n_keys = s->n_past + token + 1;
    memset(out, 0, (size_t)n_keys * sizeof *out);
    add_scores(&job, s, head, out, n_keys, s->q + (int64_t)token * n_embd + head * head_width(&job), 1, 0, n_keys);
    softmax_of_scores(&job, out, n_keys);
}
