/* sampler.c - logits -> token: life, history and drawing.  logits.c adjusts the logits, filters.c says
 * which candidates are drawn from, ranks.c sorts and weighs them. */
#include "sampler/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/reproducible_math.h"
#include "common/status.h"

/* ---- Drawing ---- */

/* By weight, among what is kept; temperature > 0. */
static candidate draw_candidate(fastgpt_sampler *s) {
    double whole = sum_of_kept(s), point = next_uniform(&s->state) * whole, sum = 0;
    int32_t last = s->n_kept - 1, i = 0;
    for (; i < last; i++) {
        sum += kept_weight(s, i);
        if (point < sum) break;
    }
    candidate drawn = kept_candidate(s, i);
    mirostat_learn(s, drawn, whole);
    return drawn;
}

/* After OK, kept_candidate(0 .. n_kept) are the candidates to draw from. */
static fastgpt_status keep_candidates(fastgpt_sampler *s, const float *logits) {
    fastgpt_status status;
    return sampler_filter_plain(s, logits, &status) ? status : sampler_filter(s, logits);
}

fastgpt_status fastgpt_sampler_sample(fastgpt_sampler *s, const float *logits, int32_t *token) {
    if (!s || !logits || !token) return FASTGPT_ERR_ARGUMENT;
    fastgpt_status status = keep_candidates(s, logits);
    if (status) return status;
    *token = s->params.temperature > 0 ? draw_candidate(s).token : s->row[0].token;
    return FASTGPT_OK;
}

fastgpt_status fastgpt_sampler_probabilities(fastgpt_sampler *s, const float *logits, float *probabilities) {
    if (!s || !logits || !probabilities) return FASTGPT_ERR_ARGUMENT;
    fastgpt_status status = keep_candidates(s, logits);
    if (status) return status;
    bool greedy = s->params.temperature == 0;
    double sum = greedy ? 1 : sum_of_kept(s);
    memset(probabilities, 0, (size_t)s->n_vocab * sizeof *probabilities);
    for (int32_t i = 0; i < s->n_kept; i++) {
        double weight = greedy ? 1 : kept_weight(s, i);
        probabilities[kept_candidate(s, i).token] = (float)(weight / sum);
    }
    return FASTGPT_OK;
}

/* ---- Life ---- */

/* Elements of each array that has one a token. */
static size_t n_in_blocks(const fastgpt_sampler *s) {
    return ((size_t)s->n_vocab + SAMPLER_BLOCK - 1) / SAMPLER_BLOCK * SAMPLER_BLOCK;
}

static fastgpt_status allocate_arrays(fastgpt_sampler *s) {
    size_t n = n_in_blocks(s);
    s->bias = calloc(n, sizeof *s->bias);
    s->marks = calloc(n, sizeof *s->marks);
    s->n_generated = calloc(n, sizeof *s->n_generated);
    s->row = calloc(n, sizeof *s->row);
    s->weights = calloc(n, sizeof *s->weights);
    return s->bias && s->marks && s->n_generated && s->row && s->weights ? FASTGPT_OK : FASTGPT_ERR_MEMORY;
}

fastgpt_status fastgpt_sampler_create_checked(int32_t n_vocab, const fastgpt_sampler_params *params,
                                              fastgpt_sampler **out, fastgpt_error *error) {
    if (error) error->text[0] = 0;
    if (!out) return fail(error, FASTGPT_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    fastgpt_sampler_params p;
    fastgpt_status status = sampler_read_params(&p, params, n_vocab, error);
    if (status) return status;
    fastgpt_sampler *s = calloc(1, sizeof *s);
    if (!s) return fail(error, FASTGPT_ERR_MEMORY, "no memory for a sampler");
    s->params = p;
    s->n_vocab = n_vocab;
    status = allocate_arrays(s);
    bool bans_eos = p.min_new_tokens > 0 && p.eos_token >= 0;
    if (!status && bans_eos) status = fastgpt_sampler_set_eos_tokens(s, &p.eos_token, 1);
    if (status) {
        fastgpt_sampler_free(s);
        return fail(error, status, "no memory for a sampler of %d tokens", n_vocab);
    }
    fastgpt_sampler_reset(s);
    *out = s;
    return FASTGPT_OK;
}

fastgpt_status fastgpt_sampler_create(int32_t n_vocab, const fastgpt_sampler_params *params, fastgpt_sampler **out) {
    return fastgpt_sampler_create_checked(n_vocab, params, out, NULL);
}

void fastgpt_sampler_free(fastgpt_sampler *s) {
    if (!s) return;
    free(s->bias);
    free(s->marks);
    free(s->n_generated);
    free(s->eos_tokens);
    free(s->history.tokens);
    free(s->row);
    free(s->weights);
    free(s);
}

int32_t fastgpt_sampler_n_vocab(const fastgpt_sampler *s) { return s->n_vocab; }

size_t fastgpt_sampler_sizeof(const fastgpt_sampler *s) {
    size_t token = sizeof *s->bias + sizeof *s->marks + sizeof *s->n_generated + sizeof *s->row + sizeof *s->weights;
    return sizeof *s + n_in_blocks(s) * token + (size_t)s->history.capacity * sizeof *s->history.tokens +
           (size_t)s->n_eos_tokens * sizeof *s->eos_tokens;
}

/* ---- Bias, mask and history ---- */

fastgpt_status fastgpt_sampler_set_bias(fastgpt_sampler *s, int32_t token, float bias) {
    if (!s || !(bias < INFINITY)) return FASTGPT_ERR_ARGUMENT;
    if (token < 0 || token >= s->n_vocab) return FASTGPT_ERR_TOKEN_RANGE;
    s->n_biased += (bias != 0) - (s->bias[token] != 0);
    s->bias[token] = bias;
    return FASTGPT_OK;
}

/* The marks of four tokens, of which bit i of `bits` allows token i. */
#define MARK_OF(bits, i) ((bits) >> (i) & 1 ? 0 : DISALLOWED)
#define MARKS_OF(bits) {MARK_OF(bits, 0), MARK_OF(bits, 1), MARK_OF(bits, 2), MARK_OF(bits, 3)}
static const uint8_t FOUR_MARKS[16][4] = {
    MARKS_OF(0), MARKS_OF(1), MARKS_OF(2),  MARKS_OF(3),  MARKS_OF(4),  MARKS_OF(5),  MARKS_OF(6),  MARKS_OF(7),
    MARKS_OF(8), MARKS_OF(9), MARKS_OF(10), MARKS_OF(11), MARKS_OF(12), MARKS_OF(13), MARKS_OF(14), MARKS_OF(15)};

/* A batch does this for each constrained row of a step: four tokens at a time, in arrays of whole blocks. */
fastgpt_status fastgpt_sampler_set_allowed(fastgpt_sampler *s, const uint32_t *mask) {
    if (!s) return FASTGPT_ERR_ARGUMENT;
    s->any_disallowed = mask != NULL;
    for (int32_t i = 0; i < s->n_vocab; i++) s->marks[i] &= (uint8_t)~DISALLOWED;
    for (int32_t i = 0; mask && i < s->n_vocab; i += 4) {
        uint32_t four, added;
        memcpy(&four, s->marks + i, sizeof four);
        memcpy(&added, FOUR_MARKS[mask[i / 32] >> i % 32 & 15], sizeof added);
        four |= added;
        memcpy(s->marks + i, &four, sizeof four);
    }
    return FASTGPT_OK;
}

fastgpt_status fastgpt_sampler_set_eos_tokens(fastgpt_sampler *s, const int32_t *tokens, int32_t n_tokens) {
    if (!s || n_tokens < 0 || (!tokens && n_tokens > 0)) return FASTGPT_ERR_ARGUMENT;
    for (int32_t i = 0; i < n_tokens; i++)
        if (tokens[i] < 0 || tokens[i] >= s->n_vocab) return FASTGPT_ERR_TOKEN_RANGE;
    int32_t *copy = NULL;
    if (n_tokens > 0) {
        copy = malloc((size_t)n_tokens * sizeof *copy);
        if (!copy) return FASTGPT_ERR_MEMORY;
        memcpy(copy, tokens, (size_t)n_tokens * sizeof *copy);
    }
    free(s->eos_tokens);
    s->eos_tokens = copy;
    s->n_eos_tokens = n_tokens;
    return FASTGPT_OK;
}

/* Makes room for n_tokens more, or leaves the history as it is. */
static fastgpt_status make_room(token_history *h, int32_t n_tokens) {
    int64_t wanted = (int64_t)h->n + n_tokens;
    if (wanted <= h->capacity) return FASTGPT_OK;
    if (wanted > INT32_MAX / 2) return FASTGPT_ERR_MEMORY;
    int32_t capacity = 2 * (int32_t)wanted;
    int32_t *tokens = malloc((size_t)capacity * sizeof *tokens);
    if (!tokens) return FASTGPT_ERR_MEMORY;
    if (h->n > 0) memcpy(tokens, h->tokens, (size_t)h->n * sizeof *tokens);
    free(h->tokens);
    h->tokens = tokens;
    h->capacity = capacity;
    return FASTGPT_OK;
}

/* Adds tokens to the history; generated says that they are not the prompt's. */
static fastgpt_status add_to_history(fastgpt_sampler *s, const int32_t *tokens, int32_t n_tokens, bool generated) {
    if (!s || n_tokens < 0 || (!tokens && n_tokens > 0)) return FASTGPT_ERR_ARGUMENT;
    for (int32_t i = 0; i < n_tokens; i++)
        if (tokens[i] < 0 || tokens[i] >= s->n_vocab) return FASTGPT_ERR_TOKEN_RANGE;
    if (s->params.no_repeat_ngram_size > 0) {
        fastgpt_status status = make_room(&s->history, n_tokens);
        if (status) return status;
        for (int32_t i = 0; i < n_tokens; i++) s->history.tokens[s->history.n++] = tokens[i];
    }
    for (int32_t i = 0; i < n_tokens; i++) s->marks[tokens[i]] |= SEEN;
    for (int32_t i = 0; generated && i < n_tokens; i++) s->n_generated[tokens[i]]++;
    if (generated) s->n_new += n_tokens;
    return FASTGPT_OK;
}

fastgpt_status fastgpt_sampler_accept(fastgpt_sampler *s, const int32_t *tokens, int32_t n_tokens) {
    return add_to_history(s, tokens, n_tokens, true);
}

fastgpt_status fastgpt_sampler_accept_prompt(fastgpt_sampler *s, const int32_t *tokens, int32_t n_tokens) {
    return add_to_history(s, tokens, n_tokens, false);
}

fastgpt_status fastgpt_sampler_reset(fastgpt_sampler *s) {
    if (!s) return FASTGPT_ERR_ARGUMENT;
    for (int32_t i = 0; i < s->n_vocab; i++) s->marks[i] &= (uint8_t)~SEEN;
    memset(s->n_generated, 0, (size_t)s->n_vocab * sizeof *s->n_generated);
    s->n_new = s->history.n = 0;
    s->state = seeded(s->params.seed);
    s->mirostat_surprise = 2 * (double)s->params.mirostat_tau;
    return FASTGPT_OK;
}
