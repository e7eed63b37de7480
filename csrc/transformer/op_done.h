/* op_done.h - the one place that each op of a step passes when it ends. */
#ifndef FASTGPT_OP_DONE_H
#define FASTGPT_OP_DONE_H

#include "transformer/context.h"

/* op of a layer (-1 outside of layers) has ended, and values hold what it computed for n tokens, or rows of logits.
 * Where the caller asked for it, the values are copied out and the op is timed; where not, this costs two branches. */
static inline void op_done(fastgpt_context *ctx, fastgpt_op op, int32_t layer, const float *values, int32_t n) {
    if (ctx->taps.any) taps_copy(ctx, op, layer, values, n);
    profile_lap(&ctx->profile, layer, op, n);
}

#endif
