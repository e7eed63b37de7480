/* attention_tiled.c - attention of many queries of a span: two matrix products for each head and tile of queries; keys
 * beyond a query's own position get weight 0.  Three algorithms:
 *
 *   bf16   where the CPU multiplies the model's weights as BF16 values: queries, keys, weights of values and values are
 *          rounded to BF16.
 *   dot    in a deterministic step: the chunks of streamed attention, in the same order.
 *   sgemm  otherwise. */
#include <string.h>

#include "attention/attention_job.h"
#include "common/thread_pool.h"
#include "dtypes/half.h"
#include "matmul/blas.h"
#include "matmul/packing.h"

enum {
    BF16_QUERIES_PER_UNIT = 128,
    MAX_BF16_QUERIES_PER_UNIT = 512, /* where each thread has at least so many heads: */
    MIN_HEADS_PER_THREAD = 4,
    F32_QUERIES_PER_UNIT = 32, /* few, so that keys which they do not see cost little */
    QUERIES_IN_ORDER = 8
};

int64_t attention_tile_scores(int64_t n_ctx) { return QUERIES_PER_TILE * conflict_free_stride(n_ctx); }

/* Some of the queries of tile, from the first on. */
static query_tile subtile(const attention_job *job, query_tile tile, int first, int n_queries) {
    tile.q += (int64_t)first * job->n_embd;
    tile.out += first * tile.ld_out;
    tile.n_visible += first;
    tile.n_queries = n_queries;
    tile.n_keys = tile.n_visible + n_queries - 1;
    return tile;
}

static void softmax_of_tile(const attention_job *job, const query_tile *tile) {
    for (int t = 0; t < tile->n_queries; t++) {
        float *row = tile->scores + t * tile->ld_scores;
        job->e->kernels->softmax(row, tile->n_visible + t, softmax_scale(job));
        for (int i = tile->n_visible + t; i < tile->n_keys; i++) row[i] = 0;
    }
}

/* A head of a key or value as F32. */
static void head_to_f32(const attention_job *job, const attention_span *s, kv_part part, int key, int head,
                        float *out) {
    const int d = head_width(job);
    if (is_float(s->type)) {
        job->e->kernels->to_f32[s->type](out, head_at(job, s, part, key, head), d);
        return;
    }
    const int8_t *row = (const int8_t *)row_at(job, s, part, key), *q = row + head * d;
    const uint16_t *scales = (const uint16_t *)(const void *)(row + job->n_embd) + head * d / 32;
    for (int i = 0; i < d; i++) out[i] = f32_of_f16(scales[i / 32]) * q[i];
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

/* Keys that the kernels cannot read are converted first, a tile of rows at a time. */
static void pack_converted_keys(const attention_job *job, const query_tile *tile, const bf16_kv *kv, int first, int n) {
    const int d = head_width(job);
    for (int m, i = 0; i < n; i += m) {
        m = min_int(MATRIX_ROWS, n - i);
        for (int r = 0; r < m; r++)
            head_to_f32(job, tile->span, KV_KEYS, first + i + r, tile->head, kv->f32_scratch + r * d);
        job->e->kernels->bf16->tiles(key_tiles(kv, first, d) + tiles_size(i, d), kv->f32_scratch,
                                     d * (int64_t)sizeof(float), TYPE_F32, m, d);
    }
}

static void pack_keys(const attention_job *job, const query_tile *tile, const bf16_kv *kv) {
    const attention_span *s = tile->span;
    const int d = head_width(job);
    for (int key = 0, n; key < tile->n_keys; key += n) {
        n = n_contiguous(s, key, tile->n_keys - key);
        if (!is_float(s->type)) {
            pack_converted_keys(job, tile, kv, key, n);
            continue;
        }
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
    for (int64_t i = 0; i < n; i++) head_to_f32(job, s, KV_VALUES, first + (int)i, tile->head, kv->f32_scratch + i * d);
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
                   (gemm_size){tile->n_queries, head_width(job), tile->n_keys}, (out_view){tile->out, tile->ld_out});
}

/* Softmax writes unnormalised exponentials as BF16 in the next product's layout; their sums [n_queries] are what the
 * outputs are yet to be divided by. */
static void bf16_softmax_values(const attention_job *job, const query_tile *tile, const bf16_kv *kv, float *sums) {
    for (int t = 0; t < tile->n_queries; t += MATRIX_LANES)
        job->e->kernels->bf16->softmax_panel(kv->x + t * panel_k(tile->n_keys), sums + t,
                                             (f32_view){tile->scores + t * tile->ld_scores, tile->ld_scores},
                                             min_int(MATRIX_LANES, tile->n_queries - t), tile->n_visible + t,
                                             tile->n_keys, softmax_scale(job));
    multiply_values(job, tile, kv);
}

static void divide_by_sums(const attention_job *job, const query_tile *tile, const float *sums) {
    for (int64_t t = 0; t < tile->n_queries; t++) {
        const float factor = 1 / sums[t];
        for (int i = 0; i < head_width(job); i++) tile->out[t * tile->ld_out + i] *= factor;
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
        float sums[QUERIES_PER_TILE];
        bf16_softmax_values(job, &tile, &kv, sums);
        divide_by_sums(job, &tile, sums);
    }
}

/* ---- dot ---- */

/* Of a thread's scratch: the parts of all chunks so far, and of the next one, before what attention_chunk needs. */
static int64_t in_order_parts(int64_t n_head, int64_t d) { return QUERIES_IN_ORDER * part_floats(n_head, d); }

static int64_t in_order_bytes(int64_t n_head, int64_t d) {
    return 2 * in_order_parts(n_head, d) * (int64_t)sizeof(float) + attention_chunk_bytes(n_head, d);
}

/* At most QUERIES_IN_ORDER queries. */
static void attend_in_order(const attention_job *job, const query_tile *tile, float *scratch) {
    const int64_t d = head_width(job), ld = part_floats(job->n_head, d), n = in_order_parts(job->n_head, d);
    const part_view so_far = {scratch, ld}, next = {scratch + n, ld};
    key_chunk c = {.span = tile->span,
                   .q = tile->q - tile->head * d, /* from the first head on */
                   .n_queries = tile->n_queries,
                   .n_visible = tile->n_visible,
                   .first_head = tile->head,
                   .end_head = tile->head + 1};
    for (; c.first < tile->n_keys; c.first += KEYS_PER_CHUNK) {
        c.end = min_int(c.first + KEYS_PER_CHUNK, tile->n_keys);
        attention_chunk(job, &c, c.first ? next : so_far, scratch + 2 * n);
        for (int t = 0; c.first && t < c.n_queries; t++)
            if (c.n_visible + t > c.first) attention_add_part(job, tile->head, so_far.at + t * ld, next.at + t * ld);
    }
    for (int64_t t = 0; t < c.n_queries; t++)
        attention_end_head(job, tile->head, tile->out + t * tile->ld_out, so_far.at + t * ld);
}

static void multiply_in_order(const attention_job *job, const query_tile *tile, float *scratch) {
    for (int t = 0; t < tile->n_queries; t += QUERIES_IN_ORDER) {
        const query_tile few = subtile(job, *tile, t, min_int(QUERIES_IN_ORDER, tile->n_queries - t));
        attend_in_order(job, &few, scratch);
    }
}

/* ---- sgemm ---- */

/* A head's columns of all keys or values as F32: in the cache itself, or converted to the scratch. */
static f32_view f32_head(const attention_job *job, const query_tile *tile, kv_part part, float *scratch) {
    const attention_span *s = tile->span;
    const int d = head_width(job);
    if (s->type == TYPE_F32 && !s->n_prefix)
        return (f32_view){.at = (const float *)(const void *)head_at(job, s, part, 0, tile->head), .ld = job->n_embd};
    for (int64_t i = 0; i < tile->n_keys; i++) head_to_f32(job, s, part, (int)i, tile->head, scratch + i * d);
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
                           .ldc = tile->ld_out});
}

/* ---- Units ---- */

int64_t attention_scratch_bytes(int64_t n_ctx, int64_t n_head, int64_t head_width) {
    int64_t f32_head_bytes = n_ctx * head_width * (int64_t)sizeof(float);
    int64_t tiled_bytes = larger(f32_head_bytes, bf16_kv_bytes(n_ctx, head_width));
    return round_up(larger(tiled_bytes, in_order_bytes(n_head, head_width)), 64);
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

static float largest_of(const float *x, int n) {
    float largest = x[0];
    for (int i = 1; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

void attention_prefix_tile(const attention_job *job, const attention_span *s, int head, int n_queries, part_view to,
                           int thread) {
    const int d = head_width(job);
    const query_tile tile = {.span = s,
                             .head = head,
                             .n_queries = n_queries,
                             .n_visible = s->n_prefix,
                             .n_keys = s->n_prefix,
                             .q = s->q + head * d,
                             .out = to.at + head * d,
                             .ld_out = to.ld,
                             .scores = job->scores + thread * attention_tile_scores(job->n_ctx),
                             .ld_scores = conflict_free_stride(job->n_ctx)};
    const bf16_kv kv = bf16_kv_in(engine_scratch(job->e, thread), tile.n_keys, d);
    float sums[QUERIES_PER_TILE];
    pack_keys(job, &tile, &kv);
    pack_values(job, &tile, &kv);
    bf16_scores(job, &tile, &kv);
    bf16_softmax_values(job, &tile, &kv, sums);
    for (int64_t t = 0; t < n_queries; t++) {
        *part_max(job, to.at + t * to.ld, head) = largest_of(tile.scores + t * tile.ld_scores, tile.n_keys);
        *part_sum(job, to.at + t * to.ld, head) = sums[t];
    }
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
                            .ld_out = job->n_embd,
                            .scores = job->scores + thread * attention_tile_scores(job->n_ctx),
                            .ld_scores = conflict_free_stride(job->n_ctx)};
    const query_tile tile = subtile(job, all, first, min_int(queries_per_unit(job, s), s->n_tokens - first));
    if (attention_in_bf16(job, s)) multiply_in_bf16(job, &tile, engine_scratch(job->e, thread));
    else if (job->e->deterministic) multiply_in_order(job, &tile, engine_scratch(job->e, thread));
    else multiply_by_blas(job, &tile, engine_scratch(job->e, thread));
}
