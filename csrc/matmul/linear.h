/* linear.h - y = x W^T + b for weights of every type. */
#ifndef FASTGPT_LINEAR_H
#define FASTGPT_LINEAR_H

#include "engine.h"
#include "model/model.h"

/* out = x w^T + b, or with `add` out += x w^T + b
 *   out [n_tokens][w.n_out], rows ld_out apart
 * Or, with packed, activation(x w^T + b), packed for linear_packed, where linear_can_fuse_activation. */
typedef struct linear_task {
    float *out;
    int64_t ld_out;
    weight w;
    bool add;
    void *packed; /* panels_bytes */
    activation activation;
} linear_task;

/* Scratch of one context, in bytes; n_in is the widest input of any product. */
int64_t linear_activation_bytes(int64_t n_batch, int64_t n_in); /* shared by the threads */
int64_t linear_panel_bytes(int64_t n_in);                       /* of each thread */

/* Up to so many tokens each weight is read once for all of them and meets them one by one; beyond, rows and tokens
 * multiply as matrices, which is faster there. */
int gemv_max_tokens(const kernels *k, dtype type);

/* Whether many tokens meet weights of this type as BF16 numbers, or might: whether so much rounding is agreed to. */
bool linear_uses_bf16(const kernels *k, dtype type);

/* Rows [first, first + n_out) of a weight. */
weight weight_rows(const weight *w, int32_t first, int32_t n_out);

/* Does all tasks for the same x [n_tokens][n_in], rows ldx apart, which no output may overlap.  The weights are of one
 * type and width; their units share one run of the pool. */
void linear(const engine *e, const float *x, int64_t ldx, const linear_task *tasks, int n_tasks, int n_tokens);

/* Whether outputs of the first weight may go to the second without ever being floats in memory. */
bool linear_can_fuse_activation(const engine *e, const weight *first, const weight *second, int n_tokens);

/* The same for an x that a task handed over. */
void linear_packed(const engine *e, void *packed, const linear_task *task, int n_tokens);

#endif
