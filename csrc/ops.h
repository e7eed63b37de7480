/* ops.h - what a transformer does to rows of floats, apart from the matrix products of linear.h.  One op, one
 * function; rows are split over the pool in units whose size does not depend on the number of threads. */
#ifndef FASTGPT_OPS_H
#define FASTGPT_OPS_H

#include "fastgpt.h"
#include "kernels/kernels.h"
#include "model.h"

/* Who computes, and with what. */
typedef struct engine {
    fastgpt_pool *pool;
    const kernels *kernels;
    uint8_t *activations; /* scratch of linear.h */
    uint8_t *panels;      /* [n_threads][panel_bytes] scratch of linear.h and op_attention */
    int64_t panel_bytes;
    bool deterministic; /* a token's sums do not depend on what else is in its step: no BLAS, no matrices */
} engine;

/* The scratch of one thread. */
static inline void *engine_panel(const engine *e, int thread) { return e->panels + thread * e->panel_bytes; }

/* out[t] = wte[tokens[t]] + wpe[position + t]; out [n_tokens][n_embd] */
void op_embed(const engine *e, float *out, const fastgpt_model *model, const int32_t *tokens, int32_t n_tokens,
              int32_t position);

/* Row by row; out and x [n_rows][n], may be the same. */
void op_layer_norm(const engine *e, float *out, const float *x, const norm *norm, float epsilon, int n_rows, int n);

/* Tanh form, in place; x [n_rows][n] */
void op_gelu(const engine *e, float *x, int n_rows, int n);

/* The new tokens of one sequence: causal attention over its cache, whose last n_tokens rows are theirs. */
typedef struct attention_span {
    float *out;          /* [n_tokens][n_embd], heads side by side */
    const float *q;      /* [n_tokens][n_embd] */
    const uint8_t *keys;   /* [n_past + n_tokens][n_embd] of the type */
    const uint8_t *values; /* [n_past + n_tokens][n_embd] */
    number_type type;
    int32_t n_past;
    int32_t n_tokens;
} attention_span;

/* Queries that share one product with the keys. */
enum { ATTENTION_BLOCK = 32 };

/* Bytes of a thread's panel that attention needs. */
int64_t attention_panel_bytes(int64_t n_ctx, int64_t head_width);

/* out = softmax(q k^T / sqrt(n_embd / n_head)) v for each head of each span (Vaswani et al. 2017, arXiv
 * 1706.03762).
 *   scores [n_threads][ATTENTION_BLOCK][n_ctx] scratch, where n_ctx >= every n_past + n_tokens */
void op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd, float *scores,
                  int n_ctx);

#endif
