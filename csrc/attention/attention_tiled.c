/* attention_tiled.c - attention of many queries of a span: two matrix products for each head and block of queries;
 * keys beyond a query's own position get weight 0.  Three ways to multiply:
 *
 *   bf16   where the weights are multiplied as BF16 numbers, queries, keys, weights of values and values are, too
 *   dot    in a deterministic step: the kernels of the stream, in the same order.
 *   sgemm  else. */
#include <string.h>

#include "attention/attention_job.h"
#include "matmul/blas.h"
#include "matmul/packing.h"
#include "common/thread_pool.h"

enum {
    QUERIES_PER_ROUNDING = 128,      /* in a unit */
    MOST_QUERIES_PER_ROUNDING = 512, /* where there are heads enough: */
    HEADS_PER_THREAD = 4,
    QUERIES_PER_SGEMM = 32 /* or dot: so few that keys they do not see cost little */
};

int64_t attention_block_scores(int64_t n_ctx) { return QUERIES_PER_BLOCK * conflict_free_stride(n_ctx); }

/* What a unit works on: one head of some queries of one span. */
typedef struct attention_block {
    const attention_span *span;
    int head, n_queries, n_seen, n_keys; /* n_seen: keys of the first query; each later one has one more */
    const float *q;                      /* [n_queries], rows n_embd apart, as those of out */
    float *out;
    float *scores;                       /* [n_queries], rows ld_scores apart */
    int64_t ld_scores;
    void *panel;   /* attention_panel_bytes */
} attention_block;

/* Some of the queries of b, from the first on. */
static attention_block part_of(const attention_job *job, attention_block b, int first, int n_queries) {
    b.q += (int64_t)first * job->n_embd;
    b.out += (int64_t)first * job->n_embd;
    b.n_seen += first;
    b.n_queries = n_queries;
    b.n_keys = b.n_seen + n_queries - 1;
    return b;
}

static void softmax_of_block(const attention_job *job, const attention_block *b) {
    for (int t = 0; t < b->n_queries; t++) {
        float *row = b->scores + t * b->ld_scores;
        softmax_of_scores(job, row, b->n_seen + t);
        for (int i = b->n_seen + t; i < b->n_keys; i++) row[i] = 0;
    }
}

/* ---- bf16 ---- */

/* A head of keys and values of a span, and what meets them, in a thread's panel. */
typedef struct rounded {
    int64_t ld;       /* numbers of the values of MATRIX_ROWS columns */
    float *wide;      /* [MATRIX_K][head width] */
    uint16_t *keys;   /* tiles of each run of keys that lie behind each other */
    uint16_t *values; /* tiles of columns */
    uint16_t *x;      /* panels of QUERIES_PER_BLOCK queries, or weights of values */
} rounded;

static int64_t n_wide(int64_t d) { return round_up(MATRIX_K * d, 16); }

/* Numbers of the tiles of that many rows. */
static int64_t n_tile_numbers(int64_t n_rows, int64_t n) { return round_up(n_rows, MATRIX_ROWS) * panel_k(n); }

static int64_t n_key_numbers(int64_t n_keys, int64_t d) { return n_tile_numbers(n_keys + MATRIX_ROWS, d); }

static int64_t rounded_bytes(int64_t n_keys, int64_t d) {
    int64_t n_x = QUERIES_PER_BLOCK * larger(panel_k(n_keys), panel_k(d));
    return n_wide(d) * (int64_t)sizeof(float) +
           (n_key_numbers(n_keys, d) + n_tile_numbers(d, n_keys) + n_x) * (int64_t)sizeof(uint16_t);
}

static rounded rounded_in(void *panel, int n_keys, int d) {
    rounded r = {.ld = MATRIX_ROWS * panel_k(n_keys), .wide = panel};
    r.keys = (uint16_t *)(void *)(r.wide + n_wide(d));
    r.values = r.keys + n_key_numbers(n_keys, d);
    r.x = r.values + n_tile_numbers(d, n_keys);
    return r;
}

static uint16_t *keys_from(const rounded *r, int key, int d) { return r->keys + n_tile_numbers(key, d); }

static void round_keys(const attention_job *job, const attention_block *b, const rounded *r) {
    const attention_span *s = b->span;
    const int d = head_width(job);
    for (int key = 0, n; key < b->n_keys; key += n) {
        n = n_together(s, key, b->n_keys - key);
        job->e->kernels->bf16->tiles(keys_from(r, key, d), head_at(job, s, KEYS, key, b->head),
                                     row_bytes(s->type, job->n_embd), s->type, n, d);
    }
}

static void round_values(const attention_job *job, const attention_block *b, const rounded *r) {
    const kernels *k = job->e->kernels;
    const int d = head_width(job);
    for (int i = 0; i < b->n_keys; i += MATRIX_K) {
        int n = min_int(MATRIX_K, b->n_keys - i);
        int64_t ld = job->n_embd;
        const float *values = (const float *)(const void *)head_at(job, b->span, VALUES, i, b->head);
        if (b->span->type != TYPE_F32 || n_together(b->span, i, n) < n) {
            for (int64_t j = 0; j < n; j++)
                k->to_f32[b->span->type](r->wide + j * d, head_at(job, b->span, VALUES, i + j, b->head), d);
            values = r->wide, ld = d;
        }
        k->bf16->columns(r->values + i * (int64_t)MATRIX_ROWS, r->ld, values, ld, n, d);
    }
}

/* x [n_tokens][n] */
static void fill_panels(const attention_job *job, const rounded *r, const float *x, int64_t ldx, int n_tokens, int n) {
    for (int t = 0; t < n_tokens; t += MATRIX_LANES)
        job->e->kernels->bf16->panel(r->x + t * panel_k(n), x + t * ldx, ldx, min_int(MATRIX_LANES, n_tokens - t), n);
}

/* out [n_tokens][n_rows] = x w^T, with n numbers of each. */
static void multiply_tiles(const attention_job *job, const rounded *r, float *out, int64_t ldo, const uint16_t *tiles,
                           int64_t ld_tiles, int n_tokens, int n_rows, int n) {
    const bf16_output to = {.out = out, .ldo = ldo};
    job->e->kernels->bf16->gemm(&to, NULL, (bf16_view){r->x, panel_k(n) * MATRIX_LANES}, (bf16_view){tiles, ld_tiles},
                                (gemm_size){n_tokens, n_rows, n}, true, true);
}

static void bf16_keys(const attention_job *job, const attention_block *b, const rounded *r) {
    const int d = head_width(job);
    fill_panels(job, r, b->q, job->n_embd, b->n_queries, d);
    for (int key = 0, n; key < b->n_keys; key += n) {
        n = n_together(b->span, key, b->n_keys - key);
        multiply_tiles(job, r, b->scores + key, b->ld_scores, keys_from(r, key, d), MATRIX_ROWS * panel_k(d),
                       b->n_queries, n, d);
    }
}

/* By their weights, which are in r->x. */
static void multiply_values(const attention_job *job, const attention_block *b, const rounded *r) {
    multiply_tiles(job, r, b->out, job->n_embd, r->values, r->ld, b->n_queries, head_width(job), b->n_keys);
}

static void bf16_values(const attention_job *job, const attention_block *b, const rounded *r) {
    fill_panels(job, r, b->scores, b->ld_scores, b->n_queries, b->n_keys);
    multiply_values(job, b, r);
}

/* From the scores of a block on.  Weights of values need no memory as floats: rounding is a part of the softmax, and
 * what is divided by the sums is the outputs. */
static void bf16_softmax_values(const attention_job *job, const attention_block *b, const rounded *r) {
    const int d = head_width(job);
    float sums[QUERIES_PER_BLOCK];
    for (int t = 0; t < b->n_queries; t += MATRIX_LANES)
        job->e->kernels->bf16->softmax_panel(
            r->x + t * panel_k(b->n_keys), sums + t, (f32_view){b->scores + t * b->ld_scores, b->ld_scores},
            min_int(MATRIX_LANES, b->n_queries - t), b->n_seen + t, b->n_keys, softmax_scale(job));
    multiply_values(job, b, r);
    for (int64_t t = 0; t < b->n_queries; t++) {
        const float share = 1 / sums[t];
        for (int i = 0; i < d; i++) b->out[t * job->n_embd + i] *= share;
    }
}

/* Keys and values are rounded once for several blocks of queries. */
static void multiply_in_bf16(const attention_job *job, const attention_block *b) {
    const rounded r = rounded_in(b->panel, b->n_keys, head_width(job));
    round_keys(job, b, &r);
    round_values(job, b, &r);
    for (int t = 0; t < b->n_queries; t += QUERIES_PER_BLOCK) {
        attention_block part = part_of(job, *b, t, min_int(QUERIES_PER_BLOCK, b->n_queries - t));
        bf16_keys(job, &part, &r);
        bf16_softmax_values(job, &part, &r);
    }
}

/* ---- dot ---- */

static void dot_keys(const attention_job *job, const attention_block *b) {
    for (int64_t t = 0; t < b->n_queries; t++)
        memset(b->scores + t * b->ld_scores, 0, (size_t)b->n_keys * sizeof(float));
    for (int key = 0; key < b->n_keys; key += ROWS_PER_BLOCK)
        add_scores(job, b->span, b->head, b->scores, b->ld_scores, b->q, b->n_queries, key,
                   min_int(ROWS_PER_BLOCK, b->n_keys - key));
}

static void sum_values(const attention_job *job, const attention_block *b) {
    int d = head_width(job);
    for (int64_t t = 0; t < b->n_queries; t++) memset(b->out + t * job->n_embd, 0, (size_t)d * sizeof(float));
    for (int key = 0; key < b->n_keys; key += ROWS_PER_BLOCK)
        for (int64_t t = 0; t < b->n_queries; t++) {
            int n = min_int(ROWS_PER_BLOCK, b->n_seen + (int)t - key);
            if (n > 0)
                add_values(job, b->span, b->head, b->out + t * job->n_embd, b->scores + t * b->ld_scores, key, n);
        }
}

static void multiply_in_order(const attention_job *job, const attention_block *b) {
    dot_keys(job, b);
    softmax_of_block(job, b);
    sum_values(job, b);
}

/* ---- sgemm ---- */

/* A head's columns of all keys or values as F32: in the cache itself, or side by side in the panel.  *ld counts floats.
 */
static const float *head_of(const attention_job *job, const attention_block *b, int which, int64_t *ld) {
    const attention_span *s = b->span;
    int d = head_width(job);
    float *panel = b->panel;
    bool in_place = s->type == TYPE_F32 && !s->n_prefix;
    *ld = in_place ? job->n_embd : d;
    if (in_place) return (const float *)(const void *)head_at(job, s, which, 0, b->head);
    for (int64_t i = 0; i < b->n_keys; i++)
        job->e->kernels->to_f32[s->type](panel + i * d, head_at(job, s, which, i, b->head), d);
    return panel;
}

static void multiply_by_blas(const attention_job *job, const attention_block *b) {
    int64_t ld;
    int d = head_width(job);
    const float *keys = head_of(job, b, KEYS, &ld);
    blas_gemm_nt(b->n_queries, b->n_keys, d, 1, b->q, job->n_embd, keys, ld, 0, b->scores, b->ld_scores);
    softmax_of_block(job, b);
    const float *values = head_of(job, b, VALUES, &ld);
    blas_gemm_nn(b->n_queries, d, b->n_keys, 1, b->scores, b->ld_scores, values, ld, 0, b->out, job->n_embd);
}

/* ---- Units ---- */

int64_t attention_panel_bytes(int64_t n_ctx, int64_t head_width) {
    int64_t widened = n_ctx * head_width * (int64_t)sizeof(float);
    return round_up(larger(widened, rounded_bytes(n_ctx, head_width)), 64);
}

bool attention_in_bf16(const attention_job *job, const attention_span *s) {
    return s->bf16 && job->e->kernels->bf16 && !job->e->deterministic;
}

/* Rounding the keys and values of a head again for each unit is a tenth of the work; no output depends on it. */
static int queries_per_unit(const attention_job *job, const attention_span *s) {
    if (!attention_in_bf16(job, s)) return QUERIES_PER_SGEMM;
    const bool many_heads = job->n_head >= HEADS_PER_THREAD * pool_n_threads(job->e->pool);
    return many_heads ? MOST_QUERIES_PER_ROUNDING : QUERIES_PER_ROUNDING;
}

int attention_n_block_units(const attention_job *job, const attention_span *s) {
    return s->n_tokens < FEW_QUERIES ? 0 : n_tiles(s->n_tokens, queries_per_unit(job, s)) * job->n_head;
}

/* All queries of a group, and the prefix that s has in common with it. */
static attention_block prefix_block(const attention_job *job, const attention_span *s, int head, int n_queries,
                                    float *scores, int thread) {
    return (attention_block){.span = s,
                             .head = head,
                             .n_queries = n_queries,
                             .n_keys = s->n_prefix,
                             .q = s->q + head * head_width(job),
                             .out = s->out + head * head_width(job),
                             .scores = scores,
                             .ld_scores = (int64_t)job->n_head * job->n_ctx,
                             .panel = engine_panel(job->e, thread)};
}

void attention_prefix_keys(const attention_job *job, const attention_span *s, int head, int n_queries, float *scores,
                           int thread) {
    const attention_block b = prefix_block(job, s, head, n_queries, scores, thread);
    const rounded r = rounded_in(b.panel, b.n_keys, head_width(job));
    round_keys(job, &b, &r);
    bf16_keys(job, &b, &r);
}

void attention_prefix_values(const attention_job *job, const attention_span *s, int head, int n_queries, float *scores,
                             int thread) {
    const attention_block b = prefix_block(job, s, head, n_queries, scores, thread);
    const rounded r = rounded_in(b.panel, b.n_keys, head_width(job));
    round_values(job, &b, &r);
    bf16_values(job, &b, &r);
}

/* In a span units run over blocks of queries, in a block over heads. */
void attention_block_unit(const attention_job *job, const attention_span *s, int unit, int thread) {
    const int n_blocks = attention_n_block_units(job, s) / job->n_head;
    int first = unit % n_blocks * queries_per_unit(job, s), head = unit / n_blocks;
    attention_block all = {.span = s,
                           .head = head,
                           .n_seen = s->n_past + 1,
                           .q = s->q + head * head_width(job),
                           .out = s->out + head * head_width(job),
                           .scores = job->scores + thread * attention_block_scores(job->n_ctx),
                           .ld_scores = conflict_free_stride(job->n_ctx),
                           .panel = engine_panel(job->e, thread)};
    attention_block b = part_of(job, all, first, min_int(queries_per_unit(job, s), s->n_tokens - first));
    if (attention_in_bf16(job, s)) multiply_in_bf16(job, &b);
    else if (job->e->deterministic) multiply_in_order(job, &b);
    else multiply_by_blas(job, &b);
}
