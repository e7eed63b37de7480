/* sampler.h - what the files of a sampler share. */
#ifndef FASTGPT_SAMPLER_H
#define FASTGPT_SAMPLER_H

#include <stdbool.h>

#include "fastgpt.h"

typedef struct candidate {
    float logit;
    int32_t token;
} candidate;

/* Tokens of a sequence in order; kept only for no_repeat_ngram_size. */
typedef struct token_history {
    int32_t *tokens; /* [capacity] */
    int32_t n, capacity;
} token_history;

/* What is known of a token. */
typedef enum token_mark {
    SEEN = 1,       /* the history has it */
    BANNED = 2,     /* by the parameters, during one call */
    DISALLOWED = 4, /* by fastgpt_sampler_set_allowed */
} token_mark;

enum { MAX_PARTS = 64 };

/* Tokens whose logits are adjusted together.  What has an element a token has room for whole blocks. */
enum { SAMPLER_BLOCK = 64 };

struct fastgpt_sampler {
    fastgpt_sampler_params params;
    int32_t n_vocab;
    uint64_t state;           /* of PCG32 */
    double mirostat_surprise; /* bits: candidates above it are dropped; mu of the paper */

    float *bias;           /* [n_vocab] */
    int32_t n_biased;      /* tokens whose bias is not 0 */
    uint8_t *marks;        /* [n_vocab] of token_mark */
    bool any_disallowed;
    float *n_generated;        /* [n_vocab] how often each was generated, the prompt not counted; stops at 2^24 */
    int64_t n_new;         /* tokens that were generated */
    int32_t *eos_tokens;   /* [n_eos_tokens] what min_new_tokens bans */
    int32_t n_eos_tokens;
    token_history history; /* empty without no_repeat_ngram_size */

    candidate *row;  /* [n_vocab] of one call: by token, until a rank is asked for */
    int32_t n_row;   /* candidates of this call; -infinity is none */
    double *weights; /* [n_vocab] of the first n_weighed candidates of row */
    int32_t n_weighed;
    int32_t n_sorted;                /* ranks that are known; 0 before the first is asked for */
    int32_t part_ends[MAX_PARTS];   /* of what is not sorted yet; the part of the next ranks comes last */
    int32_t n_parts;
    uint64_t pivots; /* state of PCG32, which draws the pivots of ranks.c */
    int32_t first_kept, n_kept;
    float largest;
};

/* ---- params.c ---- */

/* What a caller gave, NULL = the defaults, in the struct of this version.  ARGUMENT, with the name of the field. */
fastgpt_status sampler_read_params(fastgpt_sampler_params *out, const fastgpt_sampler_params *given, int32_t n_vocab,
                                   fastgpt_error *error);

/* ---- logits.c: bias, penalties and bans ---- */

/* Makes row of logits.  LOGITS when they are impossible, or when nothing is left. */
fastgpt_status sampler_fill_row(fastgpt_sampler *s, const float *logits);

/* ---- ranks.c: candidates by rank and by weight ---- */

/* The candidate of rank i, 0 for the largest. */
candidate candidate_at_rank(fastgpt_sampler *s, int32_t i);

/* Whether the files that are compiled for AVX2 run here. */
bool sampler_uses_avx2(void);

/* The i-th kept candidate: by rank if any rank was asked for, else by token. */
candidate kept_candidate(fastgpt_sampler *s, int32_t i);

/* Logarithm of a candidate's likelihood relative to that of the largest logit, after temperature. */
double log_weight(const fastgpt_sampler *s, candidate c);

/* That likelihood, by rank or of the i-th kept candidate, and its sum over all that are kept. */
double weight_at_rank(fastgpt_sampler *s, int32_t i);
double kept_weight(fastgpt_sampler *s, int32_t i);
double sum_of_kept(fastgpt_sampler *s);

/* ---- filters.c: which candidates to draw from ---- */

/* What candidates must weigh together that top_p or typical_p keeps, of a row that weighs sum. */
double wanted_weight(float p, double sum);

/* Single filters of the params: each shortens what is kept. */
void keep_top_k(fastgpt_sampler *s);
void keep_top_p(fastgpt_sampler *s);
void keep_min_p(fastgpt_sampler *s);

/* After OK, kept_candidate(0 .. n_kept) are the candidates to draw from. */
fastgpt_status sampler_filter(fastgpt_sampler *s, const float *logits);

/* The same for params and logits of which plain.c can tell; false for others, and nothing is said then. */
bool sampler_filter_plain(fastgpt_sampler *s, const float *logits, fastgpt_status *status);

/* Notes how surprising the drawn candidate was, among the kept ones whose weights sum to sum. */
void mirostat_learn(fastgpt_sampler *s, candidate drawn, double sum);

#endif
