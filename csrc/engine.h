/* engine.h - who computes, and with what: the threads, kernels and scratch of products and of attention. */
#ifndef FASTGPT_ENGINE_H
#define FASTGPT_ENGINE_H

#include "fastgpt.h"
#include "kernels/kernels.h"

typedef struct engine {
    fastgpt_pool *pool;
    const kernels *kernels;
    uint8_t *activations; /* scratch of linear.h */
    uint8_t *panels;      /* [n_threads][panel_bytes] scratch of linear.h and attention.h */
    int64_t panel_bytes;
    bool deterministic; /* a token's sums do not depend on what else is in its step: no BLAS, among others */
} engine;

/* The scratch of one thread. */
static inline void *engine_panel(const engine *e, int thread) { return e->panels + thread * e->panel_bytes; }

#endif
