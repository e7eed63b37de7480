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

/* Checks the taps of a step, NULL = none, whose spans are valid, and makes them current; their sites are checked by
 * sites_begin.  OK or ARGUMENT. */
fastgpt_status taps_begin(fastgpt_context *ctx, const fastgpt_taps *wanted, const fastgpt_span *spans, int32_t n_spans);

/* Where a tap has the first row of the current slice: each token has `width` numbers. */
float *taps_rows(const fastgpt_context *ctx, const fastgpt_site_tap *tap, int64_t width);

/* Copies the values of a site, a row for each token of ctx->sites.slice, rows ld apart, to whatever wants them. */
void taps_copy(const fastgpt_context *ctx, fastgpt_site site, int32_t layer, const float *values, int64_t ld);

/* Whether ln_f is wanted of all tokens, not only of those that get logits. */
bool taps_want_ln_f(const fastgpt_context *ctx);

#endif
