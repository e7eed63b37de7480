/* attention.c - see attention.h.  Two algorithms; in each, scores of all keys, then a softmax, then the values:
 *
 *   streamed  few queries of a span: keys and values are read once, row after row in memory order, each row for all
 *             heads.  First the scores, in chunks of keys; then the values, some heads at a time.
 *   tiled     many queries: see attention_tiled.c. */
#include "attention/attention.h"

#include <string.h>

#include "attention/attention_job.h"
#include "common/thread_pool.h"

enum {
    QUERIES_PER_ROUND = 32, /* that are streamed together: the scratch has room for their scores */
    KEYS_PER_UNIT = 128,    /* whose scores a thread computes */
    ROWS_PER_PASS = 8,      /* of keys or values, for one head after the other */
    VALUES_PER_SLICE = 128, /* of a row, about: whole heads */
    MIN_TILED_QUERIES = 8   /* that share a prefix, to multiply it as a tile */
};

/* Neighbouring spans with few queries each that share one prefix. */
typedef struct prefix_group {
    const attention_span *first, *last;
    int query, n_queries; /* the first of its queries in the round, and how many there are */
} prefix_group;

int64_t attention_n_scores(int64_t n_threads, int64_t n_head, int64_t n_ctx) {
    return larger(n_threads * attention_tile_scores(n_ctx), n_ctx * n_head * QUERIES_PER_ROUND);
}

/* ---- Streamed ---- */

static int n_streamed(const attention_span *s) { return s->n_tokens <= MAX_STREAMED_QUERIES ? s->n_tokens : 0; }

/* Units of the keys behind the prefix. */
static int n_chunks(const attention_span *s) {
    return n_streamed(s) ? n_tiles(s->n_past + s->n_tokens - s->n_prefix, KEYS_PER_UNIT) : 0;
}

static int heads_per_slice(const attention_job *job) { return (int)larger(VALUES_PER_SLICE / head_width(job), 1); }

static int n_slices(const attention_job *job) { return n_tiles(job->n_head, heads_per_slice(job)); }

/* Scores of the query-th query of a round: [n_head][n_ctx]. */
static float *scores_of(const attention_job *job, int64_t query) {
    return job->scores + query * job->n_head * job->n_ctx;
}

/* Few queries read rows in memory order; many reuse them from L1. */
static int rows_per_pass(int n_queries) { return n_queries <= MAX_STREAMED_QUERIES ? ROWS_PER_PASS : ROWS_PER_TILE; }

/* Scores of the chunk of keys from `first` on, at most up to n_keys, for n_queries of the round from the query-th on,
 * the first of which is the first of s. */
static void score_chunk(const attention_job *job, const attention_span *s, int query, int n_queries, int first,
                        int n_keys) {
    int d = head_width(job), end = min_int(first + KEYS_PER_UNIT, n_keys), n_rows = rows_per_pass(n_queries);
    float *scores = scores_of(job, query);
    for (int64_t row = 0; row < (int64_t)n_queries * job->n_head; row++)
        memset(scores + row * job->n_ctx + first, 0, (size_t)(end - first) * sizeof(float));
    query_tile tile = {.span = s, .n_queries = n_queries, .ld_scores = (int64_t)job->n_head * job->n_ctx};
    for (int key = first; key < end; key += n_rows)
        for (tile.head = 0; tile.head < job->n_head; tile.head++) {
            tile.q = s->q + (int64_t)tile.head * d;
            tile.scores = scores + (int64_t)tile.head * job->n_ctx;
            add_scores(job, &tile, key, min_int(n_rows, end - key));
        }
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

/* Some heads of a query of a round. */
typedef struct head_slice {
    const attention_span *span;
    int token;      /* of the span */
    float *scores;  /* [n_head][n_ctx] of the query */
    int first, end; /* heads */
} head_slice;

static head_slice head_slice_of(const attention_job *job, const attention_span *s, int query, int token, int slice) {
    int first = slice * heads_per_slice(job);
    return (head_slice){.span = s,
                        .token = token,
                        .scores = scores_of(job, query),
                        .first = first,
                        .end = min_int(first + heads_per_slice(job), job->n_head)};
}

static float *out_of(const attention_job *job, const head_slice *h) {
    return h->span->out + (int64_t)h->token * job->n_embd;
}

/* From scores to weights of values; the output begins at 0. */
static void begin_output(const attention_job *job, const head_slice *slice) {
    int d = head_width(job);
    for (int64_t h = slice->first; h < slice->end; h++)
        softmax_of_scores(job, slice->scores + h * job->n_ctx, slice->span->n_past + slice->token + 1);
    memset(out_of(job, slice) + slice->first * d, 0, (size_t)((slice->end - slice->first) * d) * sizeof(float));
}

/* Adds the values of keys [first, end). */
static void add_value_rows(const attention_job *job, const head_slice *slice, int first, int end) {
    for (int64_t h = slice->first; h < slice->end; h++)
        add_values(job, slice->span, (int)h, out_of(job, slice) + h * head_width(job), slice->scores + h * job->n_ctx,
                   first, end - first);
}

/* A head slice of one query, from its scores on.  The values of its prefix, if any, are in the output already. */
static void value_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const attention_span *s = job->spans;
    int query = unit / n_slices(job), token = query;
    (void)thread;
    for (; token >= n_streamed(s); s++) token -= n_streamed(s);
    const head_slice slice = head_slice_of(job, s, query, token, unit % n_slices(job));
    int n_keys = s->n_past + token + 1;
    if (!s->n_prefix) begin_output(job, &slice);
    for (int key = s->n_prefix; key < n_keys; key += ROWS_PER_PASS)
        add_value_rows(job, &slice, key, min_int(key + ROWS_PER_PASS, n_keys));
}

/* ---- Streamed: prefixes, each read once for all queries of its group ---- */

/* Whether a group has enough queries to multiply its prefix as a tile. */
static bool is_tiled(const attention_job *job, const prefix_group *g) {
    return g->n_queries >= MIN_TILED_QUERIES && attention_in_bf16(job, g->first);
}

static int n_prefix_units(const attention_job *job, const prefix_group *g) {
    return is_tiled(job, g) ? job->n_head : n_tiles(g->first->n_prefix, KEYS_PER_UNIT);
}

static void prefix_score_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const prefix_group *g = job->groups;
    for (; unit >= n_prefix_units(job, g); g++) unit -= n_prefix_units(job, g);
    if (is_tiled(job, g))
        attention_prefix_keys(job, g->first, unit, g->n_queries, scores_of(job, g->query) + (int64_t)unit * job->n_ctx,
                              thread);
    else score_chunk(job, g->first, g->query, g->n_queries, unit * KEYS_PER_UNIT, g->first->n_prefix);
}

/* The head slices of all queries of g; returns how many there are. */
static int slices_of_group(const attention_job *job, const prefix_group *g, int slice, head_slice *out) {
    int n = 0;
    for (const attention_span *s = g->first; n < g->n_queries; s++)
        for (int token = 0; token < s->n_tokens; token++, n++)
            out[n] = head_slice_of(job, s, g->query + n, token, slice);
    return n;
}

/* The prefix's part of a head slice of all queries of a group. */
static void prefix_value_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const prefix_group *g = &job->groups[unit / n_slices(job)];
    head_slice slices[QUERIES_PER_ROUND];
    int n = slices_of_group(job, g, unit % n_slices(job), slices), n_prefix = g->first->n_prefix;
    for (int i = 0; i < n; i++) begin_output(job, &slices[i]);
    if (is_tiled(job, g)) {
        for (int64_t h = slices->first; h < slices->end; h++)
            attention_prefix_values(job, g->first, (int)h, n, slices->scores + h * job->n_ctx, thread);
        return;
    }
    for (int key = 0, n_rows = rows_per_pass(n); key < n_prefix; key += n_rows)
        for (int i = 0; i < n; i++) add_value_rows(job, &slices[i], key, min_int(key + n_rows, n_prefix));
}

/* Whether s reads the prefix of g, and its queries and outputs directly follow those of the group's last span. */
static bool shares_prefix(const attention_job *job, const prefix_group *g, const attention_span *s) {
    const attention_span *last = g->last;
    return last + 1 == s && last->prefix_keys == s->prefix_keys && last->n_prefix == s->n_prefix &&
           last->q + (int64_t)last->n_tokens * job->n_embd == s->q &&
           last->out + (int64_t)last->n_tokens * job->n_embd == s->out;
}

static void find_prefix_groups(attention_job *job, int n_spans) {
    int query = 0;
    job->n_groups = 0;
    for (const attention_span *s = job->spans; s < job->spans + n_spans; query += n_streamed(s), s++) {
        if (!s->n_prefix || !n_streamed(s)) continue;
        prefix_group *g = &job->groups[job->n_groups];
        if (job->n_groups && shares_prefix(job, g - 1, s)) g--;
        else *g = (prefix_group){.first = s, .query = query}, job->n_groups++;
        g->last = s;
        g->n_queries += s->n_tokens;
    }
}

static int n_prefix_score_units(const attention_job *job) {
    int n = 0;
    for (int i = 0; i < job->n_groups; i++) n += n_prefix_units(job, &job->groups[i]);
    return n;
}

/* Streams as many of the spans as fit a round; returns how many spans that are. */
static int stream_round(attention_job job, const attention_span *spans, int n_spans) {
    prefix_group groups[QUERIES_PER_ROUND];
    int i = 0, n_queries = 0, n_score_units = 0;
    for (; i < n_spans && n_queries + n_streamed(&spans[i]) <= QUERIES_PER_ROUND; i++) {
        n_queries += n_streamed(&spans[i]);
        n_score_units += n_chunks(&spans[i]);
    }
    job.spans = spans;
    job.groups = groups;
    find_prefix_groups(&job, i);
    pool_run(job.e->pool, prefix_score_unit, &job, n_prefix_score_units(&job));
    pool_run(job.e->pool, score_unit, &job, n_score_units);
    pool_run(job.e->pool, prefix_value_unit, &job, job.n_groups * n_slices(&job));
    pool_run(job.e->pool, value_unit, &job, n_queries * n_slices(&job));
    return i;
}

/* ---- Both ---- */

static void tile_unit(void *arg, int unit, int thread) {
    const attention_job *job = arg;
    const attention_span *s = job->spans;
    for (; unit >= attention_n_tile_units(job, s); s++) unit -= attention_n_tile_units(job, s);
    attention_tile_unit(job, s, unit, thread);
}

void op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd, float *scores,
                  int n_ctx) {
    attention_job job = {.e = e, .spans = spans, .n_head = n_head, .n_embd = n_embd, .n_ctx = n_ctx, .scores = scores};
    int n = 0;
    for (int i = 0; i < n_spans; i++) n += attention_n_tile_units(&job, &spans[i]);
    pool_run(e->pool, tile_unit, &job, n);
    for (int i = 0; i < n_spans;) i += stream_round(job, spans + i, n_spans - i);
}
