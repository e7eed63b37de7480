/* attention_tiled.c - attention of many queries of a span: two matrix products for each head and tile of queries; keys
 * beyond a query's own position get weight 0.  Three algorithms:
 *
 *   bf16   where the CPU multiplies the model's weights as BF16 values: queries, keys, weights of values and values are
 *          rounded to BF16.
 *   dot    in a deterministic step: the kernels of streamed attention, in the same order.
 *   sgemm  otherwise. */
#include <string.h>

#include "attention/attention_job.h"
#include "common/thread_pool.h"
#include "matmul/blas.h"
#include "matmul/packing.h"

enum {
    BF16_QUERIES_PER_UNIT = 128,
    MAX_BF16_QUERIES_PER_UNIT = 512, /* where each thread has at least so many heads: */
    MIN_HEADS_PER_THREAD = 4,
    F32_QUERIES_PER_UNIT = 32 /* few, so that keys which they do not see cost little */
};

int64_t attention_tile_scores(int64_t n_ctx) { return QUERIES_PER_TILE * conflict_free_stride(n_ctx); }

/* Some of the queries of tile, from the first on. */
static query_tile subtile(const attention_job *job, query_tile tile, int first, int n_queries) {
    tile.q += (int64_t)first * job->n_embd;
    tile.out += (int64_t)first * job->n_embd;
    tile.n_visible += first;
    tile.n_queries = n_queries;
    tile.n_keys = tile.n_visible + n_queries - 1;
    return tile;
}

static void softmax_of_tile(const attention_job *job, const query_tile *tile) {
    for (int t = 0; t < tile->n_queries; t++) {
        float *row = tile->scores + t * tile->ld_scores;
        softmax_of_scores(job, row, tile->n_visible + t);
        for (int i = tile->n_visible + t; i < tile->n_keys; i++) row[i] = 0;
    }
}

/* ---- bf16 ---- */

/* A head of a span's keys and values as BF16, and what they are multiplied by; in a thread's scratch. */
typedef struct bf16_kv {
    int64_t ld_values;  /* elements from the tiles of MATRIX_ROWS columns of values to the next */
    float *f32_scratch; /* [MATRIX_K][head_width] */
    uint16_t *keys;     /* tiles, apart for each contiguous run of keys */
    uint16_t *values;   /* tiles of columns */
    uint16_t *x;        /* packed panels of QUERIES_PER_TILE queries, or of their weights of values */
} bf16_kv;

static int64_t f32_scratch_size(int64_t d) { return round_up(MATRIX_K * d, 16); }

/* Elements of the tiles of that many rows of n values. */
static int64_t tiles_size(int64_t n_rows, int64_t n) { return round_up(n_rows, MATRIX_ROWS) * panel_k(n); }

static int64_t key_tiles_size(int64_t n_keys, int64_t d) { return tiles_size(n_keys + MATRIX_ROWS, d); }

static int64_t bf16_kv_bytes(int64_t n_keys, int64_t d) {
    int64_t x_size = QUERIES_PER_TILE * larger(panel_k(n_keys), panel_k(d));
    return f32_scratch_size(d) * (int64_t)sizeof(float) +
           (key_tiles_size(n_keys, d) + tiles_size(d, n_keys) + x_size) * (int64_t)sizeof(uint16_t);
}

static bf16_kv bf16_kv_in(void *scratch, int n_keys, int d) {
    bf16_kv kv = {.ld_values = MATRIX_ROWS * panel_k(n_keys), .f32_scratch = scratch};
    kv.keys = (uint16_t *)(void *)(kv.f32_scratch + f32_scratch_size(d));
    kv.values = kv.keys + key_tiles_size(n_keys, d);
    kv.x = kv.values + tiles_size(d, n_keys);
    return kv;
}

static uint16_t *key_tiles(const bf16_kv *kv, int key, int d) { return kv->keys + tiles_size(key, d); }

static void pack_keys(const attention_job *job, const query_tile *tile, const bf16_kv *kv) {
    const attention_span *s = tile->span;
    const int d = head_width(job);
    for (int key = 0, n; key < tile->n_keys; key += n) {
        n = n_contiguous(s, key, tile->n_keys - key);
        job->e->kernels->bf16->tiles(key_tiles(kv, key, d), head_at(job, s, KV_KEYS, key, tile->head),
                                     row_bytes(s->type, job->n_embd), s->type, n, d);
    }
}

/* Values [first, first + n) of a head as F32: in place where they are so, or converted to the scratch. */
static f32_view f32_values(const attention_job *job, const query_tile *tile, const bf16_kv *kv, int first, int n) {
    const attention_span *s = tile->span;
    const int d = head_width(job);
    if (s->type == TYPE_F32 && n_contiguous(s, first, n) == n)
        return (f32_view){.at = (const float *)(const void *)head_at(job, s, KV_VALUES, first, tile->head),
                          .ld = job->n_embd};
    for (int64_t i = 0; i < n; i++)
        job->e->kernels->to_f32[s->type](kv->f32_scratch + i * d, head_at(job, s, KV_VALUES, first + i, tile->head), d);
    return (f32_view){.at = kv->f32_scratch, .ld = d};
}

static void pack_values(const attention_job *job, const query_tile *tile, const bf16_kv *kv) {
    for (int i = 0; i < tile->n_keys; i += MATRIX_K) {
        int n = min_int(MATRIX_K, tile->n_keys - i);
        const f32_view values = f32_values(job, tile, kv, i, n);
        job->e->kernels->bf16->columns(kv->values + i * (int64_t)MATRIX_ROWS, kv->ld_values, values.at, values.ld, n,
                                       head_width(job));
    }
}

static void pack_x(const attention_job *job, const bf16_kv *kv, const activation_view *x) {
    for (int t = 0; t < x->n_tokens; t += MATRIX_LANES)
        pack_bf16_panel(job->e->kernels->bf16->panel, kv->x, t / MATRIX_LANES, x);
}

/* out = x w^T, where x is kv->x. */
static void multiply_tiles(const attention_job *job, const bf16_kv *kv, bf16_view w, gemm_size size, out_view out) {
    const bf16_output to = {.out = out.at, .ldo = out.ld};
    const bf16_view x = {kv->x, panel_k(size.n_in) * MATRIX_LANES};
    job->e->kernels->bf16->gemm(&to, NULL, x, w, size, true, true);
}

static void bf16_scores(const attention_job *job, const query_tile *tile, const bf16_kv *kv) {
    const int d = head_width(job);
    pack_x(job, kv, &(activation_view){.x = tile->q, .ldx = job->n_embd, .n_tokens = tile->n_queries, .n_in = d});
    for (int key = 0, n; key < tile->n_keys; key += n) {
        n = n_contiguous(tile->span, key, tile->n_keys - key);
        multiply_tiles(job, kv, (bf16_view){key_tiles(kv, key, d), MATRIX_ROWS * panel_k(d)},
                       (gemm_size){tile->n_queries, n, d}, (out_view){tile->scores + key, tile->ld_scores});
    }
}

/* By their weights, which are in kv->x. */
static void multiply_values(const attention_job *job, const query_tile *tile, const bf16_kv *kv) {
    multiply_tiles(job, kv, (bf16_view){kv->values, kv->ld_values},
                   (gemm_size){tile->n_queries, head_width(job), tile->n_keys}, (out_view){tile->out, job->n_embd});
}

/* Softmax writes unnormalised exponentials as BF16 in the next product's layout; outputs are divided by their sum. */
static void bf16_softmax_values(const attention_job *job, const query_tile *tile, const bf16_kv *kv) {
    const int d = head_width(job);
    float sums[QUERIES_PER_TILE];
    for (int t = 0; t < tile->n_queries; t += MATRIX_LANES)
        job->e->kernels->bf16->softmax_panel(kv->x + t * panel_k(tile->n_keys), sums + t,
                                             (f32_view){tile->scores + t * tile->ld_scores, tile->ld_scores},
                                             min_int(MATRIX_LANES, tile->n_queries - t), tile->n_visible + t,
                                             tile->n_keys, softmax_scale(job));
    multiply_values(job, tile, kv);
    for (int64_t t = 0; t < tile->n_queries; t++) {
        const float factor = 1 / sums[t];
        for (int i = 0; i < d; i++) tile->out[t * job->n_embd + i] *= factor;
    }
}

/* Keys and values are packed once for several tiles of queries. */
static void multiply_in_bf16(const attention_job *job, const query_tile *all, void *scratch) {
    const bf16_kv kv = bf16_kv_in(scratch, all->n_keys, head_width(job));
    pack_keys(job, all, &kv);
    pack_values(job, all, &kv);
    for (int t = 0; t < all->n_queries; t += QUERIES_PER_TILE) {
        const query_tile tile = subtile(job, *all, t, min_int(QUERIES_PER_TILE, all->n_queries - t));
        bf16_scores(job, &tile, &kv);
        bf16_softmax_values(job, &tile, &kv);
    }
}

/* ---- dot ---- */

static void dot_scores(const attention_job *job, const query_tile *tile) {
    for (int64_t t = 0; t < tile->n_queries; t++)
        memset(tile->scores + t * tile->ld_scores, 0, (size_t)tile->n_keys * sizeof(float));
    for (int key = 0; key < tile->n_keys; key += ROWS_PER_TILE)
        add_scores(job, tile, key, min_int(ROWS_PER_TILE, tile->n_keys - key));
}

static void sum_values(const attention_job *job, const query_tile *tile) {
    int d = head_width(job);
    for (int64_t t = 0; t < tile->n_queries; t++) memset(tile->out + t * job->n_embd, 0, (size_t)d * sizeof(float));
    for (int key = 0; key < tile->n_keys; key += ROWS_PER_TILE)
        for (int64_t t = 0; t < tile->n_queries; t++) {
            int n = min_int(ROWS_PER_TILE, tile->n_visible + (int)t - key);
            if (n > 0)
                add_values(job, tile->span, tile->head, tile->out + t * job->n_embd, tile->scores + t * tile->ld_scores,
                           key, n);
        }
}

static void multiply_in_order(const attention_job *job, const query_tile *tile) {
    dot_scores(job, tile);
    softmax_of_tile(job, tile);
    sum_values(job, tile);
}

/* ---- sgemm ---- */

/* A head's columns of all keys or values as F32: in the cache itself, or converted to the scratch. */
static f32_view f32_head(const attention_job *job, const query_tile *tile, kv_part part, float *scratch) {
    const attention_span *s = tile->span;
    const int d = head_width(job);
    if (s->type == TYPE_F32 && !s->n_prefix)
        return (f32_view){.at = (const float *)(const void *)head_at(job, s, part, 0, tile->head), .ld = job->n_embd};
    for (int64_t i = 0; i < tile->n_keys; i++)
        job->e->kernels->to_f32[s->type](scratch + i * d, head_at(job, s, part, i, tile->head), d);
    return (f32_view){.at = scratch, .ld = d};
}

static void multiply_by_blas(const attention_job *job, const query_tile *tile, float *scratch) {
    const int d = head_width(job);
    const f32_view keys = f32_head(job, tile, KV_KEYS, scratch);
    blas_gemm(&(gemm_args){.m = tile->n_queries,
                           .n = tile->n_keys,
                           .k = d,
                           .a = tile->q,
                           .lda = job->n_embd,
                           .b = keys.at,
                           .ldb = keys.ld,
                           .transpose_b = true,
                           .c = tile->scores,
                           .ldc = tile->ld_scores});
    softmax_of_tile(job, tile);
    const f32_view values = f32_head(job, tile, KV_VALUES, scratch);
    blas_gemm(&(gemm_args){.m = tile->n_queries,
                           .n = d,
                           .k = tile->n_keys,
                           .a = tile->scores,
                           .lda = tile->ld_scores,
                           .b = values.at,
                           .ldb = values.ld,
                           .c = tile->out,
                           .ldc = job->n_embd});
}

/* ---- Units ---- */

int64_t attention_scratch_bytes(int64_t n_ctx, int64_t head_width) {
    int64_t f32_head_bytes = n_ctx * head_width * (int64_t)sizeof(float);
    return round_up(larger(f32_head_bytes, bf16_kv_bytes(n_ctx, head_width)), 64);
}

bool attention_in_bf16(const attention_job *job, const attention_span *s) {
    return s->bf16 && job->e->kernels->bf16 && !job->e->deterministic;
}

/* Each unit packs the keys and values of its head again, a tenth of the work: so larger units where there are enough of
 * them.  No output depends on it. */
static int queries_per_unit(const attention_job *job, const attention_span *s) {
    if (!attention_in_bf16(job, s)) return F32_QUERIES_PER_UNIT;
    const bool many_heads = job->n_head >= MIN_HEADS_PER_THREAD * pool_n_threads(job->e->pool);
    return many_heads ? MAX_BF16_QUERIES_PER_UNIT : BF16_QUERIES_PER_UNIT;
}

int attention_n_tile_units(const attention_job *job, const attention_span *s) {
    return s->n_tokens <= MAX_STREAMED_QUERIES ? 0 : n_tiles(s->n_tokens, queries_per_unit(job, s)) * job->n_head;
}

/* All queries of a group, and the prefix that they share. */
static query_tile prefix_tile(const attention_job *job, const attention_span *s, int head, int n_queries,
                              float *scores) {
    return (query_tile){.span = s,
                        .head = head,
                        .n_queries = n_queries,
                        .n_keys = s->n_prefix,
                        .q = s->q + head * head_width(job),
                        .out = s->out + head * head_width(job),
                        .scores = scores,
                        .ld_scores = (int64_t)job->n_head * job->n_ctx};
}

void attention_prefix_keys(const attention_job *job, const attention_span *s, int head, int n_queries, float *scores,
                           int thread) {
    const query_tile tile = prefix_tile(job, s, head, n_queries, scores);
    const bf16_kv kv = bf16_kv_in(engine_scratch(job->e, thread), tile.n_keys, head_width(job));
    pack_keys(job, &tile, &kv);
    bf16_scores(job, &tile, &kv);
}

void attention_prefix_values(const attention_job *job, const attention_span *s, int head, int n_queries, float *scores,
                             int thread) {
    const query_tile tile = prefix_tile(job, s, head, n_queries, scores);
    const bf16_kv kv = bf16_kv_in(engine_scratch(job->e, thread), tile.n_keys, head_width(job));
    const activation_view weights = {.x = scores, .ldx = tile.ld_scores, .n_tokens = n_queries, .n_in = tile.n_keys};
    pack_values(job, &tile, &kv);
    pack_x(job, &kv, &weights);
    multiply_values(job, &tile, &kv);
}

/* Units run over the queries of a head first, then over heads. */
void attention_tile_unit(const attention_job *job, const attention_span *s, int unit, int thread) {
    const int n_across = attention_n_tile_units(job, s) / job->n_head;
    const int first = unit % n_across * queries_per_unit(job, s), head = unit / n_across;
    const query_tile all = {.span = s,
                            .head = head,
                            .n_visible = s->n_past + 1,
                            .q = s->q + head * head_width(job),
                            .out = s->out + head * head_width(job),
                            .scores = job->scores + thread * attention_tile_scores(job->n_ctx),
                            .ld_scores = conflict_free_stride(job->n_ctx)};
    const query_tile tile = subtile(job, all, first, min_int(queries_per_unit(job, s), s->n_tokens - first));
    if (attention_in_bf16(job, s)) multiply_in_bf16(job, &tile, engine_scratch(job->e, thread));
    else if (job->e->deterministic) multiply_in_order(job, &tile);
    else multiply_by_blas(job, &tile, engine_scratch(job->e, thread));
}
