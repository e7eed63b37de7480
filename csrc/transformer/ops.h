/* ops.h - what a transformer does to rows of floats, apart from the matrix products of linear.h.  One op, one
 * function; rows are split over the pool in units whose size does not depend on the number of threads. */
#ifndef FASTGPT_OPS_H
#define FASTGPT_OPS_H

#include "fastgpt.h"
#include "kernels/kernels.h"
#include "model/model.h"

/* Who computes, and with what. */
typedef struct engine {
    fastgpt_pool *pool;
    const kernels *kernels;
    uint8_t *activations; /* scratch of linear.h */
    uint8_t *panels;      /* [n_threads][panel_bytes] scratch of linear.h and op_attention */
    int64_t panel_bytes;
    bool deterministic; /* a token's sums do not depend on what else is in its step: no BLAS, among others */
} engine;

/* The scratch of one thread. */
static inline void *engine_panel(const engine *e, int thread) { return e->panels + thread * e->panel_bytes; }

/* out[t] = wte[tokens[t]] + wpe[position + t]; out [n_tokens][n_embd] */
void op_embed(const engine *e, float *out, const fastgpt_model *model, const int32_t *tokens, int32_t n_tokens,
              int32_t position);

/* Row by row; out and x [n_rows][n], may be the same. */
void op_layer_norm(const engine *e, float *out, const float *x, const norm *norm, float epsilon, int n_rows, int n);

/* In place; x [n_rows][n], rows ldx apart */
void op_activation(const engine *e, activation activation, float *x, int64_t ldx, int n_rows, int n);

#endif
