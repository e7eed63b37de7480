/* taps.h - what a step copies out of its inside on its way.  What nobody asked for costs a branch. */
#ifndef FASTGPT_TAPS_H
#define FASTGPT_TAPS_H

#include "attention/attention.h"
#include "kv_cache/kv_cache.h"

/* The taps of the step that runs. */
typedef struct taps {
    fastgpt_taps to;  /* what the caller wants, and where; all zero where nothing is wanted */
    int64_t n_tokens; /* of the step */
    int64_t first;    /* of them, those that earlier slices had */
    int32_t n_embd;
} taps;

/* Checks what the caller wants of a step whose spans are sound, NULL = nothing.  OK or ARGUMENT. */
fastgpt_status taps_begin(taps *t, const fastgpt_taps *wanted, const fastgpt_model *model, const fastgpt_span *spans,
                          int32_t n_spans);

/* Where the rows of this slice belong in out [level][n_tokens][n_embd], one of the tensors of t->to. */
float *taps_place(const taps *t, float *out, int32_t level);

/* Copies x [n_rows][n_embd], the rows of this slice, there, unless out is NULL. */
void taps_rows(const taps *t, float *out, int32_t level, const float *x, int32_t n_rows);

/* Fills in the probabilities of the heads of layer l that are wanted: softmax(q k^T / sqrt(n_embd / n_head)), as
 * op_attention has just weighted the values of these spans. */
void taps_attention(const taps *t, const engine *e, int32_t l, const attention_span *spans, int32_t n_rows,
                    int32_t n_head);

#endif
