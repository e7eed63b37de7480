/* kv_cache.h - keys and values of one sequence: a tail of its own, and before it perhaps a prefix that other caches
 * read, too. */
#ifndef FASTGPT_KV_CACHE_H
#define FASTGPT_KV_CACHE_H

#include "fastgpt.h"
#include "model/model.h"

/* Rows that nobody writes any more, and behind them perhaps free ones. */
typedef struct kv_prefix {
    uint8_t *block; /* [n_layer][2: keys, values][n_rows][n_embd] */
    int32_t n_rows;
    atomic_int n_claimed; /* of these, from the first on; whoever raises it writes the rows in between, at once */
    size_t n_bytes;
    atomic_int n_owners; /* the last of them frees it */
} kv_prefix;

struct fastgpt_kv_cache {
    kv_prefix *prefix; /* NULL = none; its first n_prefix rows are positions [0, n_prefix) */
    int32_t n_prefix;
    uint8_t *block;   /* [n_layer][2: keys, values][n_ctx - n_prefix][n_embd] of the type: the positions behind it */
    dtype type; /* F32, F16 or BF16 */
    int32_t n_layer, n_ctx, n_embd;
    int32_t max_ctx; /* of the model */
    int32_t n_past;
    int32_t n_deterministic; /* of these, so many from the first on are the work of deterministic steps alone */
    int32_t *tokens; /* [n_ctx] what stands at each position */
    uint64_t model_id;
    int in_step; /* marks the caches of a step while it is checked that none stands twice */
};

typedef enum kv_part { KV_KEYS, KV_VALUES, N_KV_PARTS } kv_part;

/* Keys or values of a layer, from a position of the tail on. */
static inline uint8_t *kv_cache_rows(const fastgpt_kv_cache *kv, int32_t layer, kv_part part, int32_t position) {
    int64_t rows = ((int64_t)layer * N_KV_PARTS + part) * (kv->n_ctx - kv->n_prefix) + position - kv->n_prefix;
    return kv->block + rows * row_bytes(kv->type, kv->n_embd);
}

/* The same of the prefix, from its beginning on. */
static inline const uint8_t *kv_cache_prefix_rows(const fastgpt_kv_cache *kv, int32_t layer, kv_part part) {
    int64_t rows = ((int64_t)layer * N_KV_PARTS + part) * kv->prefix->n_rows;
    return kv->prefix->block + rows * row_bytes(kv->type, kv->n_embd);
}

/* Copies the rows of positions [first, end), which lie in both parts, or in one: keys and values of each layer to `out`
 * and to every `stride` bytes behind it. */
void kv_cache_read(const fastgpt_kv_cache *kv, int32_t first, int32_t end, uint8_t *out, int64_t stride);

/* The rows behind those that the cache holds, where a product may write them: NULL unless the cache is F32. */
static inline float *kv_cache_f32_rows(const fastgpt_kv_cache *kv, int32_t layer, kv_part part) {
    return kv->type == TYPE_F32 ? (float *)(void *)kv_cache_rows(kv, layer, part, kv->n_past) : NULL;
}

/* Writes rows [n][n_embd], in the type of the cache, behind those that it holds. */
void kv_cache_store(const fastgpt_kv_cache *kv, const kernels *k, int32_t layer, kv_part part, const float *rows,
                    int32_t n);

/* Notes tokens [n], whose keys and values are there, as the next positions. */
void kv_cache_append(fastgpt_kv_cache *kv, const int32_t *tokens, int32_t n, bool deterministic);

/* Bytes of the keys, or the values, that n positions have in one layer. */
static inline int64_t kv_cache_row_bytes(const fastgpt_kv_cache *kv, int32_t n) {
    return n * row_bytes(kv->type, kv->n_embd);
}

#endif
