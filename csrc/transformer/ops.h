/* ops.h - the ops of a transformer on rows of floats, apart from the matrix products of linear.h.  Rows are split over
 * the pool in units whose size does not depend on the number of threads. */
#ifndef FASTGPT_OPS_H
#define FASTGPT_OPS_H

#include "engine.h"
#include "model/model.h"

/* out[t] = wte[tokens[t]] + wpe[position + t]; out [n_tokens][n_embd] */
void op_embed(const engine *e, float *out, const fastgpt_model *model, const int32_t *tokens, int32_t n_tokens,
              int32_t position);

/* Row by row; out and x [n_rows][n], which may be the same memory. */
void op_layer_norm(const engine *e, float *out, const float *x, const norm *norm, float epsilon, int n_rows, int n);

/* In place; x [n_rows][n], rows ldx apart */
void op_activation(const engine *e, activation activation, float *x, int64_t ldx, int n_rows, int n);

#endif
