/* kv_cache.h - keys and values of one sequence: a tail of its own, and before it an optional prefix that other caches
 * may read, too. */
#ifndef FASTGPT_KV_CACHE_H
#define FASTGPT_KV_CACHE_H

#include "fastgpt.h"
#include "model/model.h"

/* Rows that nobody writes any more; free rows may follow them. */
typedef struct kv_prefix {
    uint8_t *block; /* [n_layer][2: keys, values][n_rows][n_embd] */
    int32_t n_rows;
    atomic_int n_claimed; /* leading rows; who raises it writes the rows that this adds, before anybody reads them */
    size_t n_bytes;
    atomic_int n_owners; /* the last one frees it */
} kv_prefix;

struct fastgpt_kv_cache {
    kv_prefix *prefix; /* NULL = none; its first n_prefix rows are positions [0, n_prefix) */
    int32_t n_prefix;
    uint8_t *block;   /* the tail: [n_layer][2: keys, values][n_ctx - n_prefix][n_embd] of the type */
    dtype type; /* is_kv_type; for rows of Q8_0 see from_f32_kernel */
    int32_t n_layer, n_ctx, n_embd;
    int32_t max_ctx; /* of the model */
    int32_t n_past;
    int32_t n_deterministic; /* leading positions that deterministic steps computed */
    int32_t start_layer, start_past; /* see kv_cache_skip_layers */
    int32_t *tokens; /* [n_ctx] */
    uint64_t model_id;
    int in_step; /* counts how often a step names this cache, while that is checked */
};

/* Whether a cache of this type can hold the model's heads: blocks of Q8_0 lie along a head. */
static inline bool kv_cache_holds_heads(dtype type, const fastgpt_model *m) {
    const int32_t head_width = m->n_embd / m->n_head;
    return is_float(type) || (head_width % 32 == 0 && head_width <= MAX_Q8_0_HEAD);
}

typedef enum kv_part { KV_KEYS, KV_VALUES, N_KV_PARTS } kv_part;

/* Keys or values of a layer, from a position of the tail on. */
static inline uint8_t *kv_cache_rows(const fastgpt_kv_cache *kv, int32_t layer, kv_part part, int32_t position) {
    int64_t rows = ((int64_t)layer * N_KV_PARTS + part) * (kv->n_ctx - kv->n_prefix) + position - kv->n_prefix;
    return kv->block + rows * row_bytes(kv->type, kv->n_embd);
}

/* Keys or values of a layer in the prefix, from position 0 on. */
static inline const uint8_t *kv_cache_prefix_rows(const fastgpt_kv_cache *kv, int32_t layer, kv_part part) {
    int64_t rows = ((int64_t)layer * N_KV_PARTS + part) * kv->prefix->n_rows;
    return kv->prefix->block + rows * row_bytes(kv->type, kv->n_embd);
}

/* Copies the rows of positions [first, end), of prefix and tail: for each layer its keys, then its values, each
 * `stride` bytes after the one before. */
void kv_cache_read(const fastgpt_kv_cache *kv, int32_t first, int32_t end, uint8_t *out, int64_t stride);

/* The rows after the cached ones, for a product to write in place: NULL unless the cache is F32. */
static inline float *kv_cache_f32_rows(const fastgpt_kv_cache *kv, int32_t layer, kv_part part) {
    return kv->type == TYPE_F32 ? (float *)(void *)kv_cache_rows(kv, layer, part, kv->n_past) : NULL;
}

/* Converts a row [n_embd] to the type of the cache, and writes it as the i-th after the cached ones. */
void kv_cache_store(const fastgpt_kv_cache *kv, const kernels *k, int32_t layer, kv_part part, int32_t i,
                    const float *row);

/* Makes tokens [n], whose keys and values are written, the next positions. */
void kv_cache_append(fastgpt_kv_cache *kv, const int32_t *tokens, int32_t n, bool deterministic);

/* The last n positions have no keys and values in layers below start_layer.  From the first such position (start_past)
 * on the cache keeps the highest such layer. */
void kv_cache_skip_layers(fastgpt_kv_cache *kv, int32_t n, int32_t start_layer);

/* Bytes of the keys, or of the values, of n positions in one layer. */
static inline int64_t kv_cache_row_bytes(const fastgpt_kv_cache *kv, int32_t n) {
    return n * row_bytes(kv->type, kv->n_embd);
}

#endif
