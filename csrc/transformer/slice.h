/* slice.h - the tokens that go through the layers together: some of each of a few neighbouring spans of a step. */
#ifndef FASTGPT_SLICE_H
#define FASTGPT_SLICE_H

#include "fastgpt.h"

typedef struct slice {
    const fastgpt_span *spans; /* their caches hold the tokens of earlier slices */
    const int32_t *counts;     /* [n_spans] tokens of each span in this slice */
    int32_t n_spans;
    int32_t first_span; /* of the step: spans[0] */
    int32_t first;    /* tokens of spans[0] in earlier slices */
    int32_t n_tokens; /* sum of counts */
} slice;

/* The tokens [counts[i]] of span i in this slice. */
static inline const int32_t *slice_tokens(const slice *s, int32_t i) {
    return s->spans[i].tokens + (i == 0 ? s->first : 0);
}

#endif
