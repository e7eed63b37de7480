/* context.h - the scratch memory of a step, and the flag that stops it. */
#ifndef FASTGPT_CONTEXT_H
#define FASTGPT_CONTEXT_H

#include <stdatomic.h>

#include "attention/attention.h"
#include "matmul/linear.h"
#include "model/model.h"
#include "transformer/ops.h"
#include "transformer/profile.h"
#include "transformer/sites.h"
#include "transformer/taps.h"

struct fastgpt_context {
    const fastgpt_model *model;
    engine engine;
    int32_t n_batch;

    uint8_t *block; /* one allocation for the arrays below and the scratch of the engine */
    size_t n_bytes;
    int n_reserved; /* threads reserved with blas_reserve */
    float *x;      /* [n_batch][n_embd] the residual stream */
    float *normed; /* [n_batch][n_embd] */
    float *q;      /* [n_batch][n_embd] */
    float *k;      /* [n_batch][n_embd] where the product cannot write into the cache */
    float *v;      /* [n_batch][n_embd] the same */
    float *heads;  /* [n_batch][n_embd] attention output, heads side by side */
    float *ff;     /* [n_batch][n_ff], rows conflict_free_stride(n_ff) apart, in the memory of q, k, v and heads */
    float *scores; /* attention_n_scores */
    float *gathered; /* [n_batch][larger of n_embd and n_ff] rows of site_add_residual: touched by it alone */
    float *changed; /* [n_batch][n_embd] and its outputs */

    /* [n_batch] each: every span of a slice has at least one token */
    attention_span *spans;
    int32_t *counts;
    int32_t *first_rows; /* in the slice, of each span */
    int32_t *row_index; /* see site_edit_rows */

    profile profile;
    taps taps; /* of the current step */
    sites sites; /* the same */
    const int32_t *stop; /* of the current step, or NULL */
    atomic_bool cancelled;
};

#endif
