/* attention.c - see attention.h.  Two ways, each with scores of all keys and a softmax in the middle:
 *
 *   stream  few queries of a span: keys and values are read once, row after row as they lie in memory, and each row
 *           meets all heads.  First the scores, in chunks of keys; then the values, some heads at a time.
 *   block   many queries: see attention_tiled.c. */
#include "attention/attention.h"

#include <string.h>

#include "attention/attention_job.h"
#include "common/thread_pool.h"

enum {
    QUERIES_PER_ROUND = 32, /* that stream together, whose scores stand side by side */
    KEYS_PER_UNIT = 128,    /* whose scores a thread computes */
    ROWS_AT_ONCE = 8,       /* of keys or values, before the next head takes its turn */
    NUMBERS_PER_SUM = 128,  /* of a row of values, about: whole heads */
    QUERIES_OF_BLOCK = 8    /* that read a prefix together, at least, to meet it as a block */
};

/* Spans with few queries each that read one prefix together. */
typedef struct group {
    const attention_span *first, *last;
    int query, n_queries; /* the first of its queries in the round, and how many they are */
} group;

int64_t attention_n_scores(int64_t n_threads, int64_t n_head, int64_t n_ctx) {
    return larger(n_threads * attention_block_scores(n_ctx), n_ctx * n_head * QUERIES_PER_ROUND);
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

/* Whether the queries of a group are so many that they meet its prefix as a block. */
static bool is_block(const attention_job *job, const group *g) {
    return g->n_queries >= QUERIES_OF_BLOCK && attention_in_bf16(job, g->first);
}

static int n_prefix_units(const attention_job *job, const group *g) {
    return is_block(job, g) ? job->n_head : n_tiles(g->first->n_prefix, KEYS_PER_UNIT);
}

static void prefix_score_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const group *g = job->groups;
    for (; unit >= n_prefix_units(job, g); g++) unit -= n_prefix_units(job, g);
    if (is_block(job, g))
        attention_prefix_keys(job, g->first, unit, g->n_queries, scores_of(job, g->query) + (int64_t)unit * job->n_ctx,
                              thread);
    else score_chunk(job, g->first, g->query, g->n_queries, unit * KEYS_PER_UNIT, g->first->n_prefix);
}

/* The prefix's share of some heads of the output of all queries of a group. */
static void prefix_sum_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const group *g = &job->groups[unit / n_sums(job)];
    part parts[QUERIES_PER_ROUND];
    int n = 0, n_prefix = g->first->n_prefix;
    for (const attention_span *s = g->first; n < g->n_queries; s++)
        for (int token = 0; token < s->n_tokens; token++, n++)
            parts[n] = part_of(job, s, g->query + n, token, unit % n_sums(job));
    for (int i = 0; i < n; i++) begin_sum(job, &parts[i]);
    if (is_block(job, g)) {
        const part heads = part_of(job, g->first, g->query, 0, unit % n_sums(job));
        for (int64_t h = heads.first; h < heads.end; h++)
            attention_prefix_values(job, g->first, (int)h, n, heads.scores + h * job->n_ctx, thread);
        return;
    }
    for (int key = 0, n_rows = rows_for(n); key < n_prefix; key += n_rows)
        for (int i = 0; i < n; i++) add_rows(job, &parts[i], key, min_int(key + n_rows, n_prefix));
}

/* Whether the queries and outputs of s stand behind those of the group's last span, and want the same rows. */
static bool joins(const attention_job *job, const group *g, const attention_span *s) {
    const attention_span *last = g->last;
    return last + 1 == s && last->prefix_keys == s->prefix_keys && last->n_prefix == s->n_prefix &&
           last->q + (int64_t)last->n_tokens * job->n_embd == s->q &&
           last->out + (int64_t)last->n_tokens * job->n_embd == s->out;
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
    for (int i = 0; i < job->n_groups; i++) n_score_units += n_prefix_units(job, &job->groups[i]);
    pool_run(job->e->pool, prefix_score_unit, job, n_score_units);
}

/* Streams as many of the spans as a round takes; returns how many spans that are. */
static int stream_round(attention_job job, const attention_span *spans, int n_spans) {
    group groups[QUERIES_PER_ROUND];
    int i = 0, n_queries = 0, n_score_units = 0;
    for (; i < n_spans && n_queries + n_streamed(&spans[i]) <= QUERIES_PER_ROUND; i++) {
        n_queries += n_streamed(&spans[i]);
        n_score_units += n_chunks(&spans[i]);
    }
    job.spans = spans;
    job.groups = groups;
    stream_prefixes(&job, i);
    pool_run(job.e->pool, score_unit, &job, n_score_units);
    pool_run(job.e->pool, prefix_sum_unit, &job, job.n_groups * n_sums(&job));
    pool_run(job.e->pool, sum_unit, &job, n_queries * n_sums(&job));
    return i;
}

/* ---- Both ---- */

static void block_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const attention_span *s = job->spans;
    for (; unit >= attention_n_block_units(job, s); s++) unit -= attention_n_block_units(job, s);
    attention_block_unit(job, s, unit, thread);
}

void op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd, float *scores,
                  int n_ctx) {
    attention_job job = {.e = e, .spans = spans, .n_head = n_head, .n_embd = n_embd, .n_ctx = n_ctx, .scores = scores};
    int n = 0;
    for (int i = 0; i < n_spans; i++) n += attention_n_block_units(&job, &spans[i]);
    pool_run(e->pool, block_unit, &job, n);
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
