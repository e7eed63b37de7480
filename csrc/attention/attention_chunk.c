/* attention_chunk.c - some queries' attention to KEYS_PER_CHUNK neighbouring keys, and how such parts become one
 * (Milakov & Gimelshein 2018, arXiv 1805.02867): each has weights relative to its own largest score, and the larger of
 * two maxima rescales the other part.
 *
 * Chunks begin at multiples of KEYS_PER_CHUNK wherever the rows are, and are added in rising order, so a query's bits
 * depend neither on threads, nor on other queries, nor on where a prefix ends. */
#include <string.h>

#include "attention/attention_job.h"

enum { ROWS_PER_PASS = 8 };

/* A chunk's scratch: scores [n_queries][end_head - first_head][KEYS_PER_CHUNK], then the queries as the kernels take
 * them. */
typedef struct chunk_scratch {
    float *scores;
    row_view q; /* [n_queries][n_embd] of floats, or rows of quantize_row */
} chunk_scratch;

int64_t attention_chunk_bytes(int64_t n_head, int64_t head_width) {
    return MAX_QUERIES_PER_CHUNK * n_head *
           (KEYS_PER_CHUNK * (int64_t)sizeof(float) + round_up(quantized_row_bytes(round_up(head_width, 32)), 4));
}

static int n_heads(const key_chunk *c) { return c->end_head - c->first_head; }

/* [KEYS_PER_CHUNK] */
static float *scores_of(const key_chunk *c, const chunk_scratch *s, int64_t query, int64_t head) {
    return s->scores + (query * n_heads(c) + head - c->first_head) * KEYS_PER_CHUNK;
}

static int64_t n_scores(const key_chunk *c) { return (int64_t)c->n_queries * n_heads(c) * KEYS_PER_CHUNK; }

static chunk_scratch scratch_of(const attention_job *job, const key_chunk *c, float *scratch) {
    const int64_t n = job->n_embd, row = quantized_row_bytes(n);
    if (!takes_quantized(c->span->type)) return (chunk_scratch){scratch, {c->q, n * (int64_t)sizeof(float)}};
    uint8_t *q = (uint8_t *)(scratch + n_scores(c));
    for (int64_t t = 0; t < c->n_queries; t++) job->e->kernels->quantize_row(q + t * row, c->q + t * n, (int)n);
    return (chunk_scratch){scratch, {q, row}};
}

/* Few queries read rows in memory order.  Many reuse those of a head from L1; of Q8_0, whose kernels take all heads at
 * a time, those of all heads from L2. */
static bool is_streamed(const key_chunk *c) {
    return c->n_queries <= MAX_STREAMED_QUERIES || takes_quantized(c->span->type);
}

/* Keys that are read by one query after the other. */
static int rows_per_pass(const key_chunk *c) {
    return c->n_queries == 1 || c->n_queries > MAX_STREAMED_QUERIES ? KEYS_PER_CHUNK : ROWS_PER_PASS;
}

/* The contiguous ones of the n rows from key `first` on. */
static head_rows rows_of(const attention_job *job, const key_chunk *c, kv_part part, int first, int n) {
    return (head_rows){.at = row_at(job, c->span, part, first),
                       .ld = row_bytes(c->span->type, job->n_embd),
                       .n_rows = n_contiguous(c->span, first, n),
                       .n_row = job->n_embd,
                       .first_head = c->first_head,
                       .n_heads = n_heads(c),
                       .head_width = head_width(job)};
}

static void stream_keys(const attention_job *job, const key_chunk *c, const chunk_scratch *s) {
    for (int key = c->first, n; key < c->end; key += n) {
        const head_rows rows = rows_of(job, c, KV_KEYS, key, min_int(rows_per_pass(c), c->end - key));
        n = rows.n_rows;
        for (int t = 0; t < c->n_queries; t++)
            job->e->kernels->score_heads[c->span->type](
                (out_view){scores_of(c, s, t, c->first_head) + key - c->first, KEYS_PER_CHUNK},
                (const uint8_t *)s->q.at + t * s->q.ld, &rows);
    }
}

/* scores[t][i] += q[t] . k[first + i] for the one head of the chunk */
static void add_scores(const attention_job *job, const key_chunk *c, out_view scores) {
    const row_view q = {c->q + (int64_t)c->first_head * head_width(job), job->n_embd * (int64_t)sizeof(float)};
    for (int key = c->first, n; key < c->end; key += n, scores.at += n) {
        n = n_contiguous(c->span, key, c->end - key);
        job->e->kernels->dot_rows[c->span->type](
            scores, q,
            (row_view){head_at(job, c->span, KV_KEYS, key, c->first_head), row_bytes(c->span->type, job->n_embd)},
            (gemm_size){c->n_queries, n, head_width(job)});
    }
}

static void score_keys(const attention_job *job, const key_chunk *c, const chunk_scratch *s) {
    memset(s->scores, 0, (size_t)n_scores(c) * sizeof(float));
    if (is_streamed(c)) stream_keys(job, c, s);
    else add_scores(job, c, (out_view){s->scores, KEYS_PER_CHUNK});
}

/* Of the chunk's keys; none or fewer for a query whose position is before them. */
static int n_seen(const key_chunk *c, int query) { return min_int(c->n_visible + query, c->end) - c->first; }

static void weigh_keys(const attention_job *job, const key_chunk *c, const chunk_scratch *s, part_view to) {
    const int64_t d = head_width(job);
    for (int t = 0; t < c->n_queries; t++) {
        const int n = n_seen(c, t);
        float *part = to.at + t * to.ld;
        for (int h = c->first_head; h < c->end_head && n > 0; h++)
            *part_sum(job, part, h) =
                job->e->kernels->exponentials(scores_of(c, s, t, h), n, softmax_scale(job), part_max(job, part, h));
        memset(part + c->first_head * d, 0, (size_t)(n_heads(c) * d) * sizeof(float));
    }
}

static void stream_values(const attention_job *job, const key_chunk *c, const chunk_scratch *s, part_view to) {
    for (int key = c->first, n; key < c->end; key += n) {
        head_rows rows = rows_of(job, c, KV_VALUES, key, min_int(rows_per_pass(c), c->end - key));
        n = rows.n_rows;
        for (int t = 0; t < c->n_queries; t++) {
            rows.n_rows = min_int(n, n_seen(c, t) + c->first - key);
            job->e->kernels->sum_heads[c->span->type](
                to.at + t * to.ld + (int64_t)c->first_head * head_width(job),
                (f32_view){scores_of(c, s, t, c->first_head) + key - c->first, KEYS_PER_CHUNK}, &rows);
        }
    }
}

/* out += weights[i] * v[first + i] for i < n and the one head of the chunk */
static void add_values(const attention_job *job, const key_chunk *c, float *out, const float *weights, int n) {
    const attention_span *s = c->span;
    for (int i = 0, m; i < n; i += m) {
        m = n_contiguous(s, c->first + i, n - i);
        job->e->kernels->weighted_sum[s->type](out, weights + i,
                                               head_at(job, s, KV_VALUES, c->first + i, c->first_head),
                                               row_bytes(s->type, job->n_embd), m, head_width(job));
    }
}

static void sum_values(const attention_job *job, const key_chunk *c, const chunk_scratch *s, part_view to) {
    if (is_streamed(c)) {
        stream_values(job, c, s, to);
        return;
    }
    for (int t = 0; t < c->n_queries; t++)
        add_values(job, c, to.at + t * to.ld + (int64_t)c->first_head * head_width(job),
                   scores_of(c, s, t, c->first_head), n_seen(c, t));
}

static void attend_heads(const attention_job *job, const key_chunk *c, part_view to, float *scratch) {
    const chunk_scratch s = scratch_of(job, c, scratch);
    score_keys(job, c, &s);
    weigh_keys(job, c, &s, to);
    sum_values(job, c, &s, to);
}

/* All heads at a time, or one. */
void attention_chunk(const attention_job *job, const key_chunk *c, part_view to, void *scratch) {
    if (is_streamed(c)) {
        attend_heads(job, c, to, scratch);
        return;
    }
    key_chunk one = *c;
    for (; one.first_head < c->end_head; one.first_head++) {
        one.end_head = one.first_head + 1;
        attend_heads(job, &one, to, scratch);
    }
}

/* ---- Parts ---- */

void attention_add_part(const attention_job *job, int head, float *to, float *later) {
    const int d = head_width(job);
    float *max = part_max(job, to, head), *sum = part_sum(job, to, head), *values = to + (int64_t)head * d;
    const float *more = later + (int64_t)head * d, later_max = *part_max(job, later, head);
    const float largest = later_max > *max ? later_max : *max;
    const float factor = expf(softmax_scale(job) * (*max - largest));
    const float later_factor = expf(softmax_scale(job) * (later_max - largest));
    for (int i = 0; i < d; i++) values[i] = values[i] * factor + more[i] * later_factor;
    *sum = *sum * factor + *part_sum(job, later, head) * later_factor;
    *max = largest;
}

void attention_end_head(const attention_job *job, int head, float *out, float *part) {
    const int d = head_width(job);
    const float *values = part + (int64_t)head * d, factor = 1 / *part_sum(job, part, head);
    for (int i = 0; i < d; i++) out[i] = values[i] * factor;
}
