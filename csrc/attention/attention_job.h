/* attention_job.h - what the two ways of attention.c and attention_tiled.c share. */
#ifndef FASTGPT_ATTENTION_JOB_H
#define FASTGPT_ATTENTION_JOB_H

#include <math.h>

#include "common/arithmetic.h"
#include "attention/attention.h"

enum {
    FEW_QUERIES = 4,        /* of a span: fewer are streamed */
    QUERIES_PER_BLOCK = 64, /* at most, whose scores stand side by side */
    ROWS_PER_BLOCK = 64     /* of keys or values that stay in cache for a block of queries */
};

typedef struct attention_job {
    const engine *e;
    const attention_span *spans;
    int n_head, n_embd, n_ctx;
    float *scores;
    struct group *groups; /* of a round of the stream */
    int n_groups;
} attention_job;

static inline int head_width(const attention_job *job) { return job->n_embd / job->n_head; }

enum { KEYS, VALUES };

/* A head's columns of the row of a key or value. */
static inline const uint8_t *head_at(const attention_job *job, const attention_span *s, int which, int64_t key,
                                     int head) {
    bool shared = key < s->n_prefix;
    const uint8_t *prefix = which == KEYS ? s->prefix_keys : s->prefix_values;
    const uint8_t *rows = shared ? prefix : which == KEYS ? s->keys : s->values;
    int64_t row = shared ? key : key - s->n_prefix;
    return rows + row * row_bytes(s->type, job->n_embd) + row_bytes(s->type, (int64_t)head * head_width(job));
}

/* Of the n rows from key `first` on, how many lie behind each other. */
static inline int n_together(const attention_span *s, int first, int n) {
    return first < s->n_prefix ? min_int(n, s->n_prefix - first) : n;
}

static inline float softmax_scale(const attention_job *job) { return 1 / sqrtf((float)head_width(job)); }

static inline void softmax_of_scores(const attention_job *job, float *scores, int n_keys) {
    job->e->kernels->softmax(scores, n_keys, softmax_scale(job));
}

/* scores[t][key] += q[t] . k[key] for keys [first, first + n) */
static inline void add_scores(const attention_job *job, const attention_span *s, int head, float *scores,
                              int64_t ld_scores, const float *q, int n_queries, int first, int n) {
    for (int m, end = first + n; first < end; first += m) {
        m = n_together(s, first, end - first);
        job->e->kernels->dot_rows[s->type](
            (out_view){scores + first, ld_scores}, (row_view){q, job->n_embd * (int64_t)sizeof(float)},
            (row_view){head_at(job, s, KEYS, first, head), row_bytes(s->type, job->n_embd)},
            (gemm_size){n_queries, m, head_width(job)});
    }
}

/* out += scores[key] * v[key] for keys [first, first + n) */
static inline void add_values(const attention_job *job, const attention_span *s, int head, float *out,
                              const float *scores, int first, int n) {
    for (int m, end = first + n; first < end; first += m) {
        m = n_together(s, first, end - first);
        job->e->kernels->weighted_sum[s->type](out, scores + first, head_at(job, s, VALUES, first, head),
                                               row_bytes(s->type, job->n_embd), m, head_width(job));
    }
}

/* Whether many queries of s, or of spans like it, are multiplied as BF16 numbers. */
bool attention_in_bf16(const attention_job *job, const attention_span *s);

/* One head of n_queries <= QUERIES_PER_BLOCK that read the prefix of s together, the first of which is the first of s:
 * their scores [n_queries], n_head * n_ctx apart; and their outputs from what softmax made of those. */
void attention_prefix_keys(const attention_job *job, const attention_span *s, int head, int n_queries, float *scores,
                           int thread);
void attention_prefix_values(const attention_job *job, const attention_span *s, int head, int n_queries, float *scores,
                             int thread);

/* Floats of the scratch that a thread has for scores of blocks. */
int64_t attention_block_scores(int64_t n_ctx);

/* The units of a span with many queries: one head of a block of them each. */
int attention_n_block_units(const attention_job *job, const attention_span *s);
void attention_block_unit(const attention_job *job, const attention_span *s, int unit, int thread);

#endif
