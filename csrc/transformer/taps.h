/* taps.h - intermediate values that a step copies out where the caller asked for them. */
#ifndef FASTGPT_TAPS_H
#define FASTGPT_TAPS_H

#include <stdbool.h>

#include "fastgpt.h"

/* The taps of the step that runs. */
typedef struct taps {
    bool any;
    fastgpt_taps to;  /* the caller's tensors; all NULL where nothing is wanted */
    int64_t n_tokens; /* of the step */
    int64_t first;    /* of them, those of earlier slices */
} taps;

/* Checks what the caller wants of a step whose spans are sound, NULL = nothing.  OK or ARGUMENT. */
fastgpt_status taps_begin(fastgpt_context *ctx, const fastgpt_taps *wanted, const fastgpt_span *spans, int32_t n_spans);

/* Where the rows of this slice belong in a tensor [level][n_tokens][n_embd] of the caller. */
float *taps_rows(const fastgpt_context *ctx, float *tensor, int32_t level);

/* Copies what op has computed for the n tokens of this slice, if it is wanted: see op_done.h.  Of attention, the
 * probabilities of the wanted heads of layer l, softmax(q k^T / sqrt(n_embd / n_head)). */
void taps_copy(const fastgpt_context *ctx, fastgpt_op op, int32_t l, const float *values, int32_t n);

#endif
