/* engine.h - what products and attention run with: threads, kernels and scratch. */
#ifndef FASTGPT_ENGINE_H
#define FASTGPT_ENGINE_H

#include "fastgpt.h"
#include "kernels/kernels.h"

typedef struct engine {
    fastgpt_pool *pool;
    const kernels *kernels;
    uint8_t *activations; /* scratch of linear.h, which the threads share */
    uint8_t *scratch;     /* [n_threads][scratch_bytes] of linear.h and attention.h */
    int64_t scratch_bytes;
    bool deterministic; /* a token's sums must not depend on what else is in its step: no BLAS, for one */
} engine;

/* The scratch of one thread. */
static inline void *engine_scratch(const engine *e, int thread) { return e->scratch + thread * e->scratch_bytes; }

#endif
