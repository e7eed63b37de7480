/* logits.c - the model's logits -> candidates: bias, penalties, and tokens that are not to come now. */
#include <math.h>

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

/* Nothing is banned between calls: whoever marks takes the marks away. */
static void mark_banned(fastgpt_sampler *s, bool mark) {
    if (s->params.no_repeat_ngram_size > 0) mark_repeats(s, mark);
    if (s->n_new >= s->params.min_new_tokens) return;
    for (int32_t i = 0; i < s->n_eos_tokens; i++) mark_token(s, s->eos_tokens[i], mark);
}

/* LOGITS when they are impossible.  Most tokens have no mark, and there is no branch on whether one becomes a
 * candidate, so a token costs a few cycles. */
static fastgpt_status fill_row_unmarked(fastgpt_sampler *s, const float *logits) {
    int32_t n = 0;
    bool possible = true;
    float largest = -INFINITY;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        uint8_t marks = s->marks[i];
        float logit = marks ? adjusted_logit(s, logits[i], i) : logits[i] + s->bias[i];
        possible &= (logits[i] < INFINITY) & (logit < INFINITY); /* NaN compares false too */
        bool counts = (logit != -INFINITY) & !(marks & (BANNED | DISALLOWED));
        s->row[n] = (candidate){logit, i};
        n += counts;
        largest = counts && logit > largest ? logit : largest;
    }
    s->n_row = s->n_kept = n;
    s->first_kept = s->n_sorted = s->n_weighed = 0;
    s->largest = largest;
    return possible ? FASTGPT_OK : FASTGPT_ERR_LOGITS;
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
