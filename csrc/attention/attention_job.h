/* attention_job.h - what the algorithms of attention.c and attention_tiled.c share. */
#ifndef FASTGPT_ATTENTION_JOB_H
#define FASTGPT_ATTENTION_JOB_H

#include <math.h>

#include "attention/attention.h"
#include "common/arithmetic.h"
#include "kv_cache/kv_cache.h"

enum {
    MAX_STREAMED_QUERIES = 3,    /* of a span: more are tiled */
    QUERIES_PER_TILE = 64,       /* at most, whose scores are in memory at a time */
    MAX_QUERIES_PER_CHUNK = 32, /* that attend to a chunk of keys together */
    KEYS_PER_CHUNK = 128         /* see attention_chunk.c */
};

typedef struct attention_job {
    const engine *e;
    int n_head, n_embd, n_ctx;
    float *scores;
} attention_job;

/* One head of some queries. */
typedef struct query_tile {
    const attention_span *span; /* whose keys and values they read */
    int head, n_queries;
    int n_visible; /* keys that the first query sees; each later one sees one more */
    int n_keys;    /* that are multiplied */
    const float *q; /* [n_queries][head_width], rows n_embd apart */
    float *out;     /* the same, ld_out apart */
    int64_t ld_out;
    float *scores;  /* [n_queries], rows ld_scores apart */
    int64_t ld_scores;
} query_tile;

static inline int head_width(const attention_job *job) { return job->n_embd / job->n_head; }

/* The row of a key or value. */
static inline const uint8_t *row_at(const attention_job *job, const attention_span *s, kv_part part, int64_t key) {
    const bool in_prefix = key < s->n_prefix;
    const uint8_t *prefix = part == KV_KEYS ? s->prefix_keys : s->prefix_values;
    const uint8_t *tail = part == KV_KEYS ? s->keys : s->values;
    const uint8_t *rows = in_prefix ? prefix : tail;
    return rows + (in_prefix ? key : key - s->n_prefix) * row_bytes(s->type, job->n_embd);
}

/* A head's columns of it, of floats. */
static inline const uint8_t *head_at(const attention_job *job, const attention_span *s, kv_part part, int64_t key,
                                     int head) {
    return row_at(job, s, part, key) + row_bytes(s->type, (int64_t)head * head_width(job));
}

/* How many of the n rows from key `first` on are contiguous in memory: prefix and tail are apart. */
static inline int n_contiguous(const attention_span *s, int first, int n) {
    return first < s->n_prefix ? min_int(n, s->n_prefix - first) : n;
}

static inline float softmax_scale(const attention_job *job) { return 1 / sqrtf((float)head_width(job)); }

/* ---- Chunks of keys (attention_chunk.c) ---- */

/* What queries get of some keys, `ld` floats apart: values [n_embd], heads side by side, weighed by exp(scale * (score
 * - largest score)); then the largest score of each head [n_head], and the sum of its weights [n_head]. */
typedef struct part_view {
    float *at;
    int64_t ld;
} part_view;

static inline int64_t part_floats(int64_t n_head, int64_t head_width) { return n_head * (head_width + 2); }

static inline float *part_max(const attention_job *job, float *part, int head) { return part + job->n_embd + head; }
static inline float *part_sum(const attention_job *job, float *part, int head) {
    return part + job->n_embd + job->n_head + head;
}

/* Some queries of neighbouring spans, and neighbouring keys that they share. */
typedef struct key_chunk {
    const attention_span *span; /* of the first query; its keys and values are read */
    const float *q; /* [n_queries][n_embd] */
    int n_queries;  /* <= MAX_QUERIES_PER_CHUNK */
    int n_visible;  /* keys of the span that the first query sees; each later one sees one more */
    int first, end; /* of the keys; end - first <= KEYS_PER_CHUNK */
    int first_head, end_head;
} key_chunk;

/* Bytes of a thread's scratch that a chunk needs. */
int64_t attention_chunk_bytes(int64_t n_head, int64_t head_width);

/* Writes what the queries get of the chunk, for its heads; nothing of a query that sees none of the keys. */
void attention_chunk(const attention_job *job, const key_chunk *c, part_view to, void *scratch);

/* Adds what a head of a query gets of later keys. */
void attention_add_part(const attention_job *job, int head, float *to, float *later);

/* out [head_width] = the values of one head of one query, divided by their sum. */
void attention_end_head(const attention_job *job, int head, float *out, float *part);

/* ---- Tiles of queries (attention_tiled.c) ---- */

/* Whether tiles of queries of s, or of spans like it, are multiplied as BF16 values. */
bool attention_in_bf16(const attention_job *job, const attention_span *s);

/* What one head of n_queries <= QUERIES_PER_TILE, the first of them being the first of s, gets of the prefix of s,
 * which all of them share; where attention_in_bf16. */
void attention_prefix_tile(const attention_job *job, const attention_span *s, int head, int n_queries, part_view to,
                           int thread);

/* Floats of a thread's scratch for the scores of a tile. */
int64_t attention_tile_scores(int64_t n_ctx);

/* The units of a span with many queries: one head of some of its queries each. */
int attention_n_tile_units(const attention_job *job, const attention_span *s);
void attention_tile_unit(const attention_job *job, const attention_span *s, int unit, int thread);

#endif
