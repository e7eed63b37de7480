/* linear.h - y = x W^T + b for weights of every type. */
#ifndef FASTGPT_LINEAR_H
#define FASTGPT_LINEAR_H

#include "engine.h"
#include "model/model.h"

/* out = x w^T + b, or with `add` out += x w^T + b
 *   out [n_tokens][w.n_out], rows ld_out apart
 * With `packed`, where linear_can_fuse_activation, the activation is a fused epilogue: activation(x w^T + b) is left
 * packed for linear_packed, and out is not written. */
typedef struct linear_task {
    float *out;
    int64_t ld_out;
    weight w;
    bool add;
    void *packed; /* panels_bytes */
    activation activation;
} linear_task;

/* Bytes of one context's scratch; n_in is the widest input of any product. */
int64_t linear_activation_bytes(int64_t n_batch, int64_t n_in); /* shared by the threads */
int64_t linear_scratch_bytes(int64_t n_in);                       /* of each thread */

/* Largest token count for which row-wise dot products beat a matrix product. */
int gemv_max_tokens(const kernels *k, dtype type);

/* Whether this CPU multiplies weights of this type as BF16 values where there are many tokens: rounding activations to
 * BF16 is then acceptable, in attention, too. */
bool linear_uses_bf16(const kernels *k, dtype type);

/* Rows [first, first + n_out) of a weight; of tiles, from the beginning of one on. */
weight weight_rows(const weight *w, int32_t first, int32_t n_out);

/* Computes all tasks for the same x [n_tokens][n_in], rows ldx apart, which no output may overlap.  Their weights have
 * one type and n_in; their units share one run of the pool. */
void linear(const engine *e, const float *x, int64_t ldx, const linear_task *tasks, int n_tasks, int n_tokens);

/* Whether the first product can leave its activated output packed for the second, never writing it as F32. */
bool linear_can_fuse_activation(const engine *e, const weight *first, const weight *second, int n_tokens);

/* linear for an x that another task has left packed. */
void linear_packed(const engine *e, void *packed, const linear_task *task, int n_tokens);

#endif
