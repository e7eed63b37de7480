/* logits.c - the model's logits -> candidates: bias, penalties, and tokens that are not to come now. */
#include <math.h>

#include "common/always_inline.h"
#include "sampler/sampler.h"

static float adjusted_logit(const fastgpt_sampler *s, float logit, int32_t token) {
    logit += s->bias[token];
    if (!(s->marks[token] & SEEN)) return logit;
    float penalty = s->params.repetition_penalty;
    logit = logit < 0 ? logit * penalty : logit / penalty;
    if (s->n_generated[token] > 0)
        logit -= s->params.frequency_penalty * s->n_generated[token] + s->params.presence_penalty;
    return logit;
}

/* Whether the n tokens at a are those at b. */
static bool equal_tokens(const int32_t *a, const int32_t *b, int32_t n) {
    while (n > 0 && a[n - 1] == b[n - 1]) n--;
    return n == 0;
}

static void mark_token(fastgpt_sampler *s, int32_t token, bool mark) {
    if (mark) s->marks[token] |= BANNED;
    else s->marks[token] &= (uint8_t)~BANNED;
}

/* Marks every token that would complete an n-gram which the history already has. */
static void mark_repeats(fastgpt_sampler *s, bool mark) {
    int32_t n_before = s->params.no_repeat_ngram_size - 1, n = s->history.n;
    const int32_t *tokens = s->history.tokens;
    for (int32_t i = n_before; i < n; i++)
        if (equal_tokens(tokens + i - n_before, tokens + n - n_before, n_before)) mark_token(s, tokens[i], mark);
}

/* Marks last for one call: fill_row sets them and clears them. */
static void mark_banned(fastgpt_sampler *s, bool mark) {
    if (s->params.no_repeat_ngram_size > 0) mark_repeats(s, mark);
    if (s->n_new >= s->params.min_new_tokens) return;
    for (int32_t i = 0; i < s->n_eos_tokens; i++) mark_token(s, s->eos_tokens[i], mark);
}

/* What a pass over the logits has found so far: candidates, the largest of them in each place of a block, and whether
 * any logit was NaN or +infinity. */
typedef struct row_pass {
    int32_t n;
    int32_t n_impossible;
    float largest[SAMPLER_BLOCK];
} row_pass;

/* x[SAMPLER_BLOCK] = the adjusted logits of a block of tokens, of which the first is `first`. */
static void adjust_block(const fastgpt_sampler *s, const float *logits, int32_t first, float *x) {
    const float *bias = s->bias + first;
    const uint8_t *marks = s->marks + first;
    int seen = 0;
    for (int j = 0; j < SAMPLER_BLOCK; j++) seen |= marks[j];
    for (int j = 0; j < SAMPLER_BLOCK; j++) x[j] = logits[j] + bias[j];
    if (!(seen & SEEN)) return;
    for (int j = 0; j < SAMPLER_BLOCK; j++)
        if (marks[j] & SEEN) x[j] = adjusted_logit(s, logits[j], first + j);
}

/* Appends the candidates of a block.  Each loop has no branch, so that compilers make vectors of it. */
ALWAYS_INLINE void add_block(fastgpt_sampler *s, row_pass *p, const float *logits, int32_t first) {
    float x[SAMPLER_BLOCK];
    int32_t counts[SAMPLER_BLOCK], n_counting = 0, n_impossible = 0;
    const uint8_t *marks = s->marks + first;
    candidate *row = s->row + p->n;
    adjust_block(s, logits, first, x);
    for (int j = 0; j < SAMPLER_BLOCK; j++) n_impossible += !(x[j] < INFINITY); /* NaN compares false, too */
    for (int j = 0; j < SAMPLER_BLOCK; j++) counts[j] = (x[j] != -INFINITY) & !(marks[j] & (BANNED | DISALLOWED));
    for (int j = 0; j < SAMPLER_BLOCK; j++) n_counting += counts[j];
    for (int j = 0; j < SAMPLER_BLOCK; j++) {
        float y = counts[j] ? x[j] : -INFINITY;
        p->largest[j] = y > p->largest[j] ? y : p->largest[j];
    }
    if (n_counting == SAMPLER_BLOCK) {
        for (int j = 0; j < SAMPLER_BLOCK; j++) row[j] = (candidate){x[j], first + j};
    } else if (n_counting > 0) {
        for (int j = 0, n = 0; j < SAMPLER_BLOCK; n += counts[j++]) row[n] = (candidate){x[j], first + j};
    }
    p->n += n_counting;
    p->n_impossible += n_impossible;
}

/* LOGITS when they are impossible. */
static fastgpt_status fill_row_unmarked(fastgpt_sampler *s, const float *logits) {
    row_pass p = {0};
    int32_t n_whole = s->n_vocab / SAMPLER_BLOCK * SAMPLER_BLOCK, n_rest = s->n_vocab - n_whole;
    for (int j = 0; j < SAMPLER_BLOCK; j++) p.largest[j] = -INFINITY;
    for (int32_t i = 0; i < n_whole; i += SAMPLER_BLOCK) add_block(s, &p, logits + i, i);
    if (n_rest > 0) {
        float rest[SAMPLER_BLOCK];
        for (int j = 0; j < SAMPLER_BLOCK; j++) rest[j] = j < n_rest ? logits[n_whole + j] : -INFINITY;
        add_block(s, &p, rest, n_whole);
    }
    s->n_row = s->n_kept = p.n;
    s->first_kept = s->n_sorted = s->n_weighed = 0;
    s->largest = p.largest[0];
    for (int j = 1; j < SAMPLER_BLOCK; j++) s->largest = p.largest[j] > s->largest ? p.largest[j] : s->largest;
    return p.n_impossible ? FASTGPT_ERR_LOGITS : FASTGPT_OK;
}

/* The same with the bans; it may be that nothing is left. */
static fastgpt_status fill_row(fastgpt_sampler *s, const float *logits) {
    mark_banned(s, true);
    fastgpt_status status = fill_row_unmarked(s, logits);
    mark_banned(s, false);
    return status;
}

fastgpt_status sampler_fill_row(fastgpt_sampler *s, const float *logits) {
    fastgpt_status status = fill_row(s, logits);
    if (status) return status;
    return s->n_row > 0 ? FASTGPT_OK : FASTGPT_ERR_LOGITS;
}

fastgpt_status fastgpt_sampler_adjust(fastgpt_sampler *s, const float *logits, float *out) {
    if (!s || !logits || !out) return FASTGPT_ERR_ARGUMENT;
    fastgpt_status status = fill_row(s, logits);
    if (status) return status;
    for (int32_t i = 0; i < s->n_vocab; i++) out[i] = -INFINITY;
    for (int32_t i = 0; i < s->n_row; i++) out[s->row[i].token] = s->row[i].logit;
    return FASTGPT_OK;
}
