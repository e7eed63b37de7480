/* session.h - a model with a context and tokens to run through it. */
#ifndef FASTGPT_SESSION_H
#define FASTGPT_SESSION_H

#include "support/check.h"
#include "support/load.h"
#include "support/random.h"

/* Creation that cannot fail here, in one word. */
static inline fastgpt_pool *new_pool(int32_t n_threads) {
    fastgpt_pool *pool;
    if (!CHECK(fastgpt_pool_create(n_threads, &pool) == FASTGPT_OK)) abort();
    return pool;
}

static inline fastgpt_context *new_context(const fastgpt_model *model, fastgpt_pool *pool, int32_t n_batch) {
    fastgpt_context *ctx;
    if (!CHECK(fastgpt_context_create(model, pool, n_batch, &ctx) == FASTGPT_OK)) abort();
    return ctx;
}

static inline fastgpt_kv_cache *new_cache(const fastgpt_model *model, int32_t n_ctx) {
    fastgpt_kv_cache *kv;
    if (!CHECK(fastgpt_kv_cache_create(model, n_ctx, &kv) == FASTGPT_OK)) abort();
    return kv;
}

/* [n] floats of NaN, so that what a step did not write shows. */
static inline float *new_floats(int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    if (!x) abort();
    memset(x, 0xFF, (size_t)n * sizeof *x);
    return x;
}

static inline void random_tokens(uint64_t *state, int32_t *tokens, int32_t n, int32_t n_vocab) {
    for (int32_t i = 0; i < n; i++) tokens[i] = (int32_t)random_below(state, (uint64_t)n_vocab);
}

static inline bool same_floats(const float *a, const float *b, int64_t n) {
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* NaN when there is one in a or b. */
static inline double largest_difference(const float *a, const float *b, int64_t n) {
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double difference = a[i] > b[i] ? (double)a[i] - b[i] : (double)b[i] - a[i];
        if (!(difference <= largest)) largest = difference;
        if (difference != difference) return difference;
    }
    return largest;
}

#endif
