/* attention.c - see attention.h.  Two algorithms:
 *
 *   streamed  few queries of a span: keys and values are read once, in memory order, chunk by chunk of keys
 *             (attention_chunk.c).  Chunks are the units of work, so one long sequence fills the threads as many short
 *             ones do.
 *   tiled     many queries: see attention_tiled.c. */
#include "attention/attention.h"

#include <stdatomic.h>
#include <string.h>

#include "attention/attention_job.h"
#include "common/thread_pool.h"

enum {
    QUERIES_PER_ROUND = MAX_QUERIES_PER_CHUNK, /* that are streamed together: the scratch has room for their parts */
    UNITS_PER_THREAD = 2,                      /* at least, where there are heads enough: */
    MIN_HEADS_PER_UNIT = 4,                    /* shorter runs of a row cost more than they gain */
    MIN_TILED_QUERIES = 8                      /* that share a prefix, to multiply it as a tile */
};

/* A run of keys that some queries of a round read together: the common prefix of a group of spans, or the keys that one
 * span reads alone. */
typedef struct key_run {
    const attention_span *span; /* the first of them */
    int query, n_queries;       /* of the round */
    int n_visible;              /* of the first query; each later one sees one more */
    int first, end;             /* keys */
    int slot;                   /* of the first chunk's parts */
    bool tiled;                 /* one part for all keys */
} key_run;

/* A query, and the units that are not done. */
typedef struct round_query {
    float *out;
    int n_parts;
    atomic_int n_left;
} round_query;

typedef struct stream_round {
    const attention_job *job;
    key_run runs[2 * QUERIES_PER_ROUND];
    round_query queries[QUERIES_PER_ROUND];
    int n_runs, n_queries;
    int heads_per_unit;
} stream_round;

/* Parts of a query: its chunks, and a tile of a prefix. */
static int64_t max_parts(int64_t n_ctx) { return n_tiles(n_ctx, KEYS_PER_CHUNK) + 1; }

int64_t attention_n_scores(int64_t n_threads, int64_t n_ctx, int64_t n_head, int64_t head_width) {
    return n_threads * attention_tile_scores(n_ctx) +
           QUERIES_PER_ROUND * max_parts(n_ctx) * part_floats(n_head, head_width);
}

/* Parts of the round's queries from the query-th on, behind the scores of tiles. */
static part_view parts_of(const attention_job *job, int query, int slot) {
    const int64_t n = part_floats(job->n_head, head_width(job)), ld = max_parts(job->n_ctx) * n;
    float *parts = job->scores + pool_n_threads(job->e->pool) * attention_tile_scores(job->n_ctx);
    return (part_view){parts + query * ld + slot * n, ld};
}

/* ---- Units ---- */

static int n_chunks(const key_run *r) { return n_tiles(r->end - r->first, KEYS_PER_CHUNK); }

static int n_slices(const stream_round *round) { return n_tiles(round->job->n_head, round->heads_per_unit); }

static int n_units(const stream_round *round, const key_run *r) {
    return r->tiled ? round->job->n_head : n_chunks(r) * n_slices(round);
}

static void chunk_unit(const stream_round *round, const key_run *r, int unit, int thread) {
    const attention_job *job = round->job;
    const int i = unit / n_slices(round), first = r->first + i * KEYS_PER_CHUNK;
    const int head = unit % n_slices(round) * round->heads_per_unit;
    const key_chunk c = {.span = r->span,
                         .q = r->span->q,
                         .n_queries = r->n_queries,
                         .n_visible = r->n_visible,
                         .first = first,
                         .end = min_int(first + KEYS_PER_CHUNK, r->end),
                         .first_head = head,
                         .end_head = min_int(head + round->heads_per_unit, job->n_head)};
    attention_chunk(job, &c, parts_of(job, r->query, r->slot + i), engine_scratch(job->e, thread));
}

/* Adds the parts of a query in rising order of keys. */
static void end_query(const stream_round *round, int query) {
    const attention_job *job = round->job;
    const round_query *q = &round->queries[query];
    float *part = parts_of(job, query, 0).at;
    for (int slot = 1; slot < q->n_parts; slot++)
        for (int h = 0; h < job->n_head; h++) attention_add_part(job, h, part, parts_of(job, query, slot).at);
    for (int h = 0; h < job->n_head; h++) attention_end_head(job, h, q->out + (int64_t)h * head_width(job), part);
}

/* Whoever does the last unit of a query ends it. */
static void run_unit(void *arg, int unit, int thread) {
    stream_round *round = arg;
    const key_run *r = round->runs;
    for (; unit >= n_units(round, r); r++) unit -= n_units(round, r);
    if (r->tiled) {
        attention_prefix_tile(round->job, r->span, unit, r->n_queries, parts_of(round->job, r->query, r->slot), thread);
    } else chunk_unit(round, r, unit, thread);
    for (int q = r->query; q < r->query + r->n_queries; q++)
        if (atomic_fetch_sub_explicit(&round->queries[q].n_left, 1, memory_order_acq_rel) == 1) end_query(round, q);
}

/* ---- Rounds ---- */

static bool is_streamed(const attention_span *s) { return s->n_tokens <= MAX_STREAMED_QUERIES; }

/* Whether s reads the prefix of the span before it, and its queries directly follow. */
static bool shares_prefix(const attention_job *job, const attention_span *s) {
    const attention_span *last = s - 1;
    return is_streamed(last) && last->prefix_keys == s->prefix_keys && last->n_prefix == s->n_prefix &&
           last->q + (int64_t)last->n_tokens * job->n_embd == s->q;
}

/* The queries of s and of the spans behind it that share its prefix, at most `room`. */
static int n_sharing(const attention_job *job, const attention_span *s, int n_spans, int room) {
    int n = s->n_tokens;
    for (int i = 1; i < n_spans && is_streamed(&s[i]) && n + s[i].n_tokens <= room && shares_prefix(job, &s[i]); i++)
        n += s[i].n_tokens;
    return n;
}

/* The common prefix of a group: as one tile, or its whole chunks. */
static key_run prefix_run(const attention_job *job, const attention_span *s, int query, int n_queries) {
    const bool tiled = n_queries >= MIN_TILED_QUERIES && attention_in_bf16(job, s);
    const int end = tiled ? s->n_prefix : s->n_prefix / KEYS_PER_CHUNK * KEYS_PER_CHUNK;
    return (key_run){.span = s, .query = query, .n_queries = n_queries, .n_visible = end, .end = end, .tiled = tiled};
}

/* Adds the keys that s reads alone, behind those of `common`, if any. */
static void add_span(stream_round *round, const attention_span *s, const key_run *common) {
    key_run r = {.span = s,
                 .query = round->n_queries,
                 .n_queries = s->n_tokens,
                 .n_visible = s->n_past + 1,
                 .first = common ? common->end : 0,
                 .end = s->n_past + s->n_tokens};
    if (common) r.slot = common->tiled ? 1 : n_chunks(common);
    for (int t = 0; t < s->n_tokens; t++)
        round->queries[round->n_queries++] =
            (round_query){.out = s->out + (int64_t)t * round->job->n_embd,
                          .n_parts = r.slot + n_tiles(r.n_visible + t - r.first, KEYS_PER_CHUNK)};
    round->runs[round->n_runs++] = r;
}

/* Plans as many of the spans as fit; returns how many that are. */
static int plan_round(stream_round *round, const attention_span *spans, int n_spans) {
    key_run common = {.n_queries = 0};
    int i = 0, group_end = 0;
    for (; i < n_spans; i++) {
        const attention_span *s = &spans[i];
        if (!is_streamed(s)) continue;
        if (round->n_queries + s->n_tokens > QUERIES_PER_ROUND) break;
        if (round->n_queries >= group_end) {
            const int n = n_sharing(round->job, s, n_spans - i, QUERIES_PER_ROUND - round->n_queries);
            common = prefix_run(round->job, s, round->n_queries, n);
            group_end = round->n_queries + n;
            if (n > s->n_tokens && common.end > 0) round->runs[round->n_runs++] = common;
            else common.end = 0;
        }
        add_span(round, s, common.end ? &common : NULL);
    }
    return i;
}

/* Counts the units of each query, and of all. */
static int count_units(stream_round *round) {
    int n = 0;
    for (const key_run *r = round->runs; r < round->runs + round->n_runs; r++) {
        n += n_units(round, r);
        for (int q = r->query; q < r->query + r->n_queries; q++) round->queries[q].n_left += n_units(round, r);
    }
    return n;
}

/* Where there are few chunks, a unit has some of the heads. */
static int heads_per_unit(const stream_round *round) {
    const attention_job *job = round->job;
    const int n_threads = pool_n_threads(job->e->pool);
    int n = 0;
    for (const key_run *r = round->runs; r < round->runs + round->n_runs; r++) n += r->tiled ? 0 : n_chunks(r);
    if (n_threads == 1 || n == 0) return job->n_head;
    return (int)larger(n_tiles(job->n_head, n_tiles(UNITS_PER_THREAD * n_threads, n)), MIN_HEADS_PER_UNIT);
}

static int stream_spans(const attention_job *job, const attention_span *spans, int n_spans) {
    stream_round round = {.job = job};
    const int n = plan_round(&round, spans, n_spans);
    round.heads_per_unit = heads_per_unit(&round);
    pool_run(job->e->pool, run_unit, &round, count_units(&round));
    return n;
}

/* ---- Both ---- */

typedef struct tile_job {
    const attention_job *job;
    const attention_span *spans;
} tile_job;

static void tile_unit(void *arg, int unit, int thread) {
    const tile_job *t = arg;
    const attention_span *s = t->spans;
    for (; unit >= attention_n_tile_units(t->job, s); s++) unit -= attention_n_tile_units(t->job, s);
    attention_tile_unit(t->job, s, unit, thread);
}

void op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd, float *scores,
                  int n_ctx) {
    const attention_job job = {.e = e, .n_head = n_head, .n_embd = n_embd, .n_ctx = n_ctx, .scores = scores};
    int n = 0;
    for (int i = 0; i < n_spans; i++) n += attention_n_tile_units(&job, &spans[i]);
    pool_run(e->pool, tile_unit, &(tile_job){&job, spans}, n);
    for (int i = 0; i < n_spans;) i += stream_spans(&job, spans + i, n_spans - i);
}
