/* kv_cache.h - keys and values of one sequence. */
#ifndef FASTGPT_KV_CACHE_H
#define FASTGPT_KV_CACHE_H

#include "fastgpt.h"
#include "model.h"

struct fastgpt_kv_cache {
    float *block; /* [n_layer][2: keys, values][n_ctx][n_embd] */
    int32_t n_layer, n_ctx, n_embd;
    int32_t n_past;
    uint64_t model_id;
    int in_step; /* marks the caches of a step while it is checked that none stands twice */
};

/* First row of a layer's keys (which = 0) or values (1). */
static inline float *kv_cache_rows(const fastgpt_kv_cache *kv, int32_t layer, int which) {
    return kv->block + ((size_t)layer * 2 + (size_t)which) * (size_t)kv->n_ctx * (size_t)kv->n_embd;
}

#endif
