/* forward.h - the transformer, for one slice of a step. */
#ifndef FASTGPT_FORWARD_H
#define FASTGPT_FORWARD_H

#include "transformer/context.h"
#include "transformer/slice.h"

/* Runs the model over the tokens of s, and writes their keys and values after those of each cache, whose n_past stays.
 *   logits [n_rows][n_vocab], NULL = none: of all tokens, or of the last token of each span that ends in this slice
 * Returns n_rows, or -1 if the step was cancelled between two layers. */
int32_t forward(fastgpt_context *ctx, const slice *s, bool all_logits, float *logits);

/* logits [n][n_vocab] of the residual stream x [n][n_embd], n <= n_batch; neither timed nor tapped. */
void forward_logits(fastgpt_context *ctx, const float *x, int32_t n, float *logits);

#endif
