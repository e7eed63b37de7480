/* attention_span.h - what attention reads of a KV cache. */
#ifndef FASTGPT_ATTENTION_SPAN_H
#define FASTGPT_ATTENTION_SPAN_H

#include "attention/attention.h"
#include "kv_cache/kv_cache.h"

/* The n newest tokens of a sequence in one layer; kv has their keys and values after its n_past positions already.
 *   q, out  [n][n_embd]
 *   bf16    many queries may be multiplied as BF16 values */
static inline attention_span attention_span_of(const fastgpt_kv_cache *kv, int32_t layer, const float *q, float *out,
                                               int32_t n, bool bf16) {
    return (attention_span){.out = out,
                            .q = q,
                            .keys = kv_cache_rows(kv, layer, KV_KEYS, kv->n_prefix),
                            .values = kv_cache_rows(kv, layer, KV_VALUES, kv->n_prefix),
                            .prefix_keys = kv->prefix ? kv_cache_prefix_rows(kv, layer, KV_KEYS) : NULL,
                            .prefix_values = kv->prefix ? kv_cache_prefix_rows(kv, layer, KV_VALUES) : NULL,
                            .n_prefix = kv->n_prefix,
                            .type = kv->type,
                            .n_past = kv->n_past,
                            .n_tokens = n,
                            .bf16 = bf16};
}

#endif
