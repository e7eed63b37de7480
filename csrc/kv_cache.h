/* kv_cache.h - keys and values of one sequence. */
#ifndef FASTGPT_KV_CACHE_H
#define FASTGPT_KV_CACHE_H

#include "fastgpt.h"
#include "model.h"

struct fastgpt_kv_cache {
    uint8_t *block;   /* [n_layer][2: keys, values][n_ctx][n_embd] of the type */
    number_type type; /* F32, F16 or BF16 */
    int32_t n_layer, n_ctx, n_embd;
    int32_t n_past;
    int32_t n_deterministic; /* of these, so many from the first on are the work of deterministic steps alone */
    int32_t *tokens; /* [n_ctx] what stands at each position */
    uint64_t model_id;
    int in_step; /* marks the caches of a step while it is checked that none stands twice */
};

/* Keys (which = 0) or values (1) of a layer, from a position on. */
static inline uint8_t *kv_cache_rows(const fastgpt_kv_cache *kv, int32_t layer, int which, int32_t position) {
    int64_t rows = ((int64_t)layer * 2 + which) * kv->n_ctx + position;
    return kv->block + rows * row_bytes(kv->type, kv->n_embd);
}

/* Notes tokens [n], whose keys and values are there, as the next positions. */
void kv_cache_append(fastgpt_kv_cache *kv, const int32_t *tokens, int32_t n, bool deterministic);

/* Bytes of the keys, or the values, that n positions have in one layer. */
static inline int64_t kv_cache_row_bytes(const fastgpt_kv_cache *kv, int32_t n) {
    return n * row_bytes(kv->type, kv->n_embd);
}

#endif
