/* linear.h - y = x W^T + b. */
#ifndef FASTGPT_LINEAR_H
#define FASTGPT_LINEAR_H

#include "model.h"
#include "ops.h"

/* out = x w^T + b, or with `add` out += x w^T + b
 *   x [n_tokens][w.n_in]   out [n_tokens][w.n_out], rows ld_out apart; must not overlap x */
typedef struct linear_task {
    float *out;
    int64_t ld_out;
    const float *x;
    weight w;
    bool add;
} linear_task;

/* Rows [first, first + n_out) of a weight. */
weight weight_rows(const weight *w, int32_t first, int32_t n_out);

/* Does all tasks for the same number of tokens; their units share one run of the pool. */
void linear(const engine *e, const linear_task *tasks, int n_tasks, int n_tokens);

#endif
