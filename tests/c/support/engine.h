/* engine.h - an engine for tests of ops, with scratch of its own. */
#ifndef FASTGPT_SUPPORT_ENGINE_H
#define FASTGPT_SUPPORT_ENGINE_H

#include <stdlib.h>

#include "matmul/linear.h"
#include "common/os.h"
#include "support/random.h"

/* Scratch for products of up to n_batch tokens with n_in numbers. */
static inline engine new_engine(fastgpt_pool *pool, int n_threads, int n_batch, int n_in) {
    engine e = {.pool = pool, .kernels = kernels_chosen(), .scratch_bytes = linear_scratch_bytes(n_in)};
    e.activations = os_alloc((size_t)linear_activation_bytes(n_batch, n_in));
    e.scratch = os_alloc((size_t)(n_threads * e.scratch_bytes));
    if (!e.activations || !e.scratch) abort();
    return e;
}

static inline void free_engine(engine *e) {
    os_free(e->activations);
    os_free(e->scratch);
}

static inline float *new_random(uint64_t *state, int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    if (!x) abort();
    random_fill(state, x, n);
    return x;
}

#endif
