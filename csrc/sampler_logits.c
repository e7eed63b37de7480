/* sampler_logits.c - the model's logits -> candidates: bias, penalties, and tokens that are not to come now. */
#include <math.h>

#include "sampler.h"

static float adjusted(const fastgpt_sampler *s, float logit, int32_t token) {
    logit += s->bias[token];
    if (s->seen[token]) {
        float penalty = s->params.repetition_penalty;
        logit = logit < 0 ? logit * penalty : logit / penalty;
    }
    if (s->n_taken[token] > 0) logit -= s->params.frequency_penalty * s->n_taken[token] + s->params.presence_penalty;
    return logit;
}

/* Whether the n tokens at a are those at b. */
static bool equal(const int32_t *a, const int32_t *b, int32_t n) {
    while (n > 0 && a[n - 1] == b[n - 1]) n--;
    return n == 0;
}

/* Marks every token that would complete an n-gram which the history already has. */
static void mark_repeats(fastgpt_sampler *s, bool mark) {
    int32_t n_before = s->params.no_repeat_ngram_size - 1, n = s->history.n;
    const int32_t *tokens = s->history.tokens;
    for (int32_t i = n_before; i < n; i++)
        if (equal(tokens + i - n_before, tokens + n - n_before, n_before)) s->banned[tokens[i]] = mark;
}

/* banned is all false between calls: whoever marks takes the marks away. */
static void mark_banned(fastgpt_sampler *s, bool mark) {
    if (s->params.no_repeat_ngram_size > 0) mark_repeats(s, mark);
    if (s->n_new < s->params.min_new_tokens && s->params.eos_token >= 0) s->banned[s->params.eos_token] = mark;
}

/* LOGITS when they are impossible. */
static fastgpt_status fill_row_unmarked(fastgpt_sampler *s, const float *logits) {
    s->n_row = s->n_popped = s->first_kept = 0;
    s->largest = -INFINITY;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        float logit = adjusted(s, logits[i], i);
        if (!(logits[i] < INFINITY) || !(logit < INFINITY)) return FASTGPT_ERR_LOGITS; /* NaN compares false too */
        if (logit == -INFINITY || s->banned[i] || s->disallowed[i]) continue;
        s->row[s->n_row++] = (candidate){logit, i};
        if (logit > s->largest) s->largest = logit;
    }
    s->n_kept = s->n_row;
    return FASTGPT_OK;
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
