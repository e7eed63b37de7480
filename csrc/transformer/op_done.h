/* op_done.h - called at the end of each op of a step. */
#ifndef FASTGPT_OP_DONE_H
#define FASTGPT_OP_DONE_H

#include "transformer/context.h"

/* op of a layer (-1 outside of layers) has ended; values are its output for n tokens, or rows of logits.  Copies the
 * values and times the op if the caller asked for that; otherwise this costs two branches. */
static inline void op_done(fastgpt_context *ctx, fastgpt_op op, int32_t layer, const float *values, int32_t n) {
    if (ctx->taps.any) taps_copy(ctx, op, layer, values, n);
    profile_lap(&ctx->profile, layer, op, n);
}

#endif
