/* sampler.h - what sampler.c, sampler_logits.c and sampler_filters.c share. */
#ifndef FASTGPT_SAMPLER_H
#define FASTGPT_SAMPLER_H

#include <stdbool.h>

#include "fastgpt.h"

typedef struct candidate {
    float logit;
    int32_t token;
} candidate;

/* Tokens of a sequence in order; kept only where somebody looks at their order. */
typedef struct token_history {
    int32_t *tokens; /* [capacity] */
    int32_t n, capacity;
} token_history;

struct fastgpt_sampler {
    fastgpt_sampler_params params;
    int32_t n_vocab;
    uint64_t state;           /* of PCG32 */
    double mirostat_surprise; /* bits: candidates above it are dropped; mu of the paper */

    float *bias;           /* [n_vocab] */
    bool *disallowed;      /* [n_vocab] by fastgpt_sampler_set_allowed */
    bool *banned;          /* [n_vocab] by the parameters, during one call */
    bool *seen;            /* [n_vocab] tokens of the history */
    float *n_taken;        /* [n_vocab] how often each was taken, not counting the prompt; counts to 2^24 and stays */
    int64_t n_new;         /* tokens that were taken */
    token_history history; /* empty without no_repeat_ngram_size */

    candidate *row;   /* [n_vocab] of one call: a heap, then from the end backwards what was popped */
    int32_t n_row;    /* candidates of this call; -infinity is none */
    int32_t n_popped; /* so many ranks are known */
    int32_t first_kept, n_kept;
    float largest;
};

/* ---- sampler_logits.c: bias, penalties and bans ---- */

/* Makes row of logits.  LOGITS when they are impossible, or when nothing is left. */
fastgpt_status sampler_fill_row(fastgpt_sampler *s, const float *logits);

/* ---- sampler_filters.c: which candidates to draw from ---- */

/* After OK, kept_candidate(0 .. n_kept) are the candidates to draw from. */
fastgpt_status sampler_filter(fastgpt_sampler *s, const float *logits);

/* The i-th kept candidate: by rank where anybody asked for an order, else by token. */
candidate kept_candidate(fastgpt_sampler *s, int32_t i);

/* Logarithm of a candidate's likelihood relative to that of the largest logit, after temperature. */
double log_weight(const fastgpt_sampler *s, candidate c);

/* That likelihood, and its sum over the candidates that are kept. */
double candidate_weight(const fastgpt_sampler *s, candidate c);
double sum_of_kept(fastgpt_sampler *s);

/* Notes how surprising the drawn candidate was, among the kept ones whose weights sum to sum. */
void mirostat_learn(fastgpt_sampler *s, candidate drawn, double sum);

#endif
