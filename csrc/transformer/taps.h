/* taps.h - intermediate values to copy out of a step. */
#ifndef FASTGPT_TAPS_H
#define FASTGPT_TAPS_H

#include <stdbool.h>

#include "fastgpt.h"

/* Of the current step. */
typedef struct taps {
    bool any;
    fastgpt_taps to;  /* the caller's tensors; all NULL if nothing is wanted */
    int64_t n_tokens; /* of the step */
    int64_t first;    /* token of the current slice */
} taps;

/* Checks the taps of a step, NULL = none, whose spans are valid, and makes them current.  OK or ARGUMENT. */
fastgpt_status taps_begin(fastgpt_context *ctx, const fastgpt_taps *wanted, const fastgpt_span *spans, int32_t n_spans);

/* The rows of the current slice in a caller's tensor [level][n_tokens][n_embd]. */
float *taps_rows(const fastgpt_context *ctx, float *tensor, int32_t level);

/* Copies what op has computed for the n tokens of the current slice, if it is wanted: see op_done.h.  For attention
 * these are the probabilities of the wanted heads of layer l, softmax(q k^T / sqrt(n_embd / n_head)). */
void taps_copy(const fastgpt_context *ctx, fastgpt_op op, int32_t l, const float *values, int32_t n);

#endif
