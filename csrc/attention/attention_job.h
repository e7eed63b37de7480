/* attention_job.h - what the algorithms of attention.c and attention_tiled.c share. */
#ifndef FASTGPT_ATTENTION_JOB_H
#define FASTGPT_ATTENTION_JOB_H

#include <math.h>

#include "attention/attention.h"
#include "common/arithmetic.h"
#include "kv_cache/kv_cache.h"

enum {
    MAX_STREAMED_QUERIES = 3, /* of a span: more are tiled */
    QUERIES_PER_TILE = 64,    /* at most, whose scores are in memory at a time */
    ROWS_PER_TILE = 64        /* of keys or values that stay in L1 for a tile of queries */
};

typedef struct attention_job {
    const engine *e;
    const attention_span *spans;
    int n_head, n_embd, n_ctx;
    float *scores;
    struct prefix_group *groups; /* of a round of streamed spans */
    int n_groups;
} attention_job;

/* One head of some queries. */
typedef struct query_tile {
    const attention_span *span; /* whose keys and values they read */
    int head, n_queries;
    int n_visible; /* keys that the first query sees; each later one sees one more */
    int n_keys;    /* that are multiplied */
    const float *q; /* [n_queries][head_width], rows n_embd apart */
    float *out;     /* the same */
    float *scores;  /* [n_queries], rows ld_scores apart */
    int64_t ld_scores;
} query_tile;

static inline int head_width(const attention_job *job) { return job->n_embd / job->n_head; }

/* A head's columns of the row of a key or value. */
static inline const uint8_t *head_at(const attention_job *job, const attention_span *s, kv_part part, int64_t key,
                                     int head) {
    const bool in_prefix = key < s->n_prefix;
    const uint8_t *prefix = part == KV_KEYS ? s->prefix_keys : s->prefix_values;
    const uint8_t *tail = part == KV_KEYS ? s->keys : s->values;
    const uint8_t *rows = in_prefix ? prefix : tail;
    int64_t row = in_prefix ? key : key - s->n_prefix;
    return rows + row * row_bytes(s->type, job->n_embd) + row_bytes(s->type, (int64_t)head * head_width(job));
}

/* How many of the n rows from key `first` on are contiguous in memory: prefix and tail are apart. */
static inline int n_contiguous(const attention_span *s, int first, int n) {
    return first < s->n_prefix ? min_int(n, s->n_prefix - first) : n;
}

static inline float softmax_scale(const attention_job *job) { return 1 / sqrtf((float)head_width(job)); }

static inline void softmax_of_scores(const attention_job *job, float *scores, int n_keys) {
    job->e->kernels->softmax(scores, n_keys, softmax_scale(job));
}

/* scores[t][key] += q[t] . k[key] for keys [first, first + n) */
static inline void add_scores(const attention_job *job, const query_tile *tile, int first, int n) {
    const attention_span *s = tile->span;
    for (int m, end = first + n; first < end; first += m) {
        m = n_contiguous(s, first, end - first);
        job->e->kernels->dot_rows[s->type](
            (out_view){tile->scores + first, tile->ld_scores},
            (row_view){tile->q, job->n_embd * (int64_t)sizeof(float)},
            (row_view){head_at(job, s, KV_KEYS, first, tile->head), row_bytes(s->type, job->n_embd)},
            (gemm_size){tile->n_queries, m, head_width(job)});
    }
}

/* out += scores[key] * v[key] for keys [first, first + n) */
static inline void add_values(const attention_job *job, const attention_span *s, int head, float *out,
                              const float *scores, int first, int n) {
    for (int m, end = first + n; first < end; first += m) {
        m = n_contiguous(s, first, end - first);
        job->e->kernels->weighted_sum[s->type](out, scores + first, head_at(job, s, KV_VALUES, first, head),
                                               row_bytes(s->type, job->n_embd), m, head_width(job));
    }
}

/* Whether tiles of queries of s, or of spans like it, are multiplied as BF16 values. */
bool attention_in_bf16(const attention_job *job, const attention_span *s);

/* For one head of n_queries <= QUERIES_PER_TILE that share the prefix of s, the first of them being the first of s:
 * their scores for its keys, [n_queries], n_head * n_ctx apart; and its part of their outputs, from what softmax made
 * of the scores. */
void attention_prefix_keys(const attention_job *job, const attention_span *s, int head, int n_queries, float *scores,
                           int thread);
void attention_prefix_values(const attention_job *job, const attention_span *s, int head, int n_queries, float *scores,
                             int thread);

/* Floats of a thread's scratch for the scores of a tile. */
int64_t attention_tile_scores(int64_t n_ctx);

/* The units of a span with many queries: one head of some of its queries each. */
int attention_n_tile_units(const attention_job *job, const attention_span *s);
void attention_tile_unit(const attention_job *job, const attention_span *s, int unit, int thread);

#endif
