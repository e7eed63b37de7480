/* op_done.h - called at the end of each op of a step. */
#ifndef FASTGPT_OP_DONE_H
#define FASTGPT_OP_DONE_H

#include "transformer/context.h"

/* op of a layer (-1 outside of layers) has ended for n tokens, or rows of logits.  Times it if the caller asked for
 * that; otherwise this costs a branch. */
static inline void op_done(fastgpt_context *ctx, fastgpt_op op, int32_t layer, int32_t n) {
    profile_lap(&ctx->profile, layer, op, n);
}

#endif
