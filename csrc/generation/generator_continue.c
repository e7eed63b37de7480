/* generator_continue.c - one turn of a generator: read what is said, then draw, show and look for an end. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/status.h"
#include "generation/end_tokens.h"
#include "generation/generator.h"
#include "generation/log_probs.h"
#include "sampler/sampler.h"

/* Whom the text goes to. */
typedef struct listener {
    fastgpt_generator_callback callback;
    void *user;
} listener;

/* ---- Room ---- */

/* Forgets the oldest n tokens; the others stand at new positions then, and are read again. */
static void forget_oldest(fastgpt_generator *g, int32_t n) {
    if (n <= 0) return;
    g->n_tokens -= n;
    memmove(g->tokens, g->tokens + n, (size_t)g->n_tokens * sizeof *g->tokens);
    memmove(g->text_ends, g->text_ends + n, (size_t)g->n_tokens * sizeof *g->text_ends);
    fastgpt_kv_cache_truncate(g->kv, 0);
}

/* How many of n tokens are too many before the first is drawn, or -1 where the policy makes no room. */
static int64_t n_excess(const fastgpt_generator *g, int64_t n) {
    int64_t n_ctx = fastgpt_kv_cache_n_ctx(g->kv), n_new = g->max_new_tokens;
    if (n + n_new <= n_ctx) return 0;
    if (g->overflow == FASTGPT_OVERFLOW_TRUNCATE) return n_new < n_ctx ? n + n_new - n_ctx : -1;
    if (g->overflow == FASTGPT_OVERFLOW_SLIDE) return n <= n_ctx ? 0 : n - (n_ctx + 1) / 2;
    return -1;
}

/* Puts text [n] behind what was said, whose oldest tokens go as the policy has it. */
static fastgpt_status append_tokens(fastgpt_generator *g, const int32_t *text, int32_t n, fastgpt_error *error) {
    int64_t excess = n_excess(g, (int64_t)g->n_tokens + n);
    if (excess < 0)
        return fail(error, FASTGPT_ERR_CONTEXT_FULL,
                    "%d tokens that were said, %d of the text and %d new ones exceed the %d positions of the KV cache",
                    g->n_tokens, n, g->max_new_tokens, fastgpt_kv_cache_n_ctx(g->kv));
    int32_t n_old = excess < g->n_tokens ? (int32_t)excess : g->n_tokens;
    forget_oldest(g, n_old);
    text += excess - n_old;
    n -= (int32_t)(excess - n_old);
    memcpy(g->tokens + g->n_tokens, text, (size_t)n * sizeof *text);
    g->n_tokens += n;
    memset(g->text_ends, 0, (size_t)g->n_tokens * sizeof *g->text_ends);
    return FASTGPT_OK;
}

/* ---- What is said ---- */

/* A text begins where the one before it ended: an empty beginning becomes the end-of-text token. */
static fastgpt_status begin_empty(fastgpt_generator *g, fastgpt_error *error) {
    int32_t eos = fastgpt_model_eos_token(g->model);
    if (eos < 0)
        return fail(error, FASTGPT_ERR_N_TOKENS,
                    "the text is empty, and the model has no end-of-text token to begin with");
    return append_tokens(g, &eos, 1, error);
}

/* The pending text and the new one, encoded together. */
static fastgpt_status append_text(fastgpt_generator *g, const char *text, size_t n_bytes, fastgpt_error *error) {
    text_buffer all = {0};
    if (n_bytes > INT32_MAX - g->pending.n)
        return fail(error, FASTGPT_ERR_ARGUMENT, "the text has more than 2^31 - 1 bytes");
    int32_t *tokens = malloc((g->pending.n + n_bytes + 1) * sizeof *tokens), n = 0;
    bool room =
        tokens && text_buffer_append(&all, g->pending.text, g->pending.n) && text_buffer_append(&all, text, n_bytes);
    fastgpt_status status = room ? FASTGPT_OK : FASTGPT_ERR_MEMORY;
    if (!status) status = fastgpt_encode(g->tokenizer, all.text, all.n, g->encode_flags, tokens, (int32_t)all.n, &n);
    if (status) fail(error, status, "the text: %s", fastgpt_status_text(status));
    else if (n > 0 || g->n_tokens > 0) status = append_tokens(g, tokens, n, error);
    else status = begin_empty(g, error);
    free(all.text);
    free(tokens);
    return status;
}

/* The history of the sampler is all that was said; its random numbers go on from one call to the next. */
static fastgpt_status tell_sampler(fastgpt_generator *g) {
    uint64_t state = g->sampler->state;
    fastgpt_sampler_reset(g->sampler);
    g->sampler->state = state;
    return fastgpt_sampler_accept_prompt(g->sampler, g->tokens, g->n_tokens);
}

/* ---- What is answered ---- */

/* Reads what the cache does not hold, at least the last token, whose logits are wanted. */
static fastgpt_status read_rest(fastgpt_generator *g) {
    int32_t n_past = fastgpt_kv_cache_n_past(g->kv);
    fastgpt_status status = FASTGPT_OK;
    if (n_past == g->n_tokens) status = fastgpt_kv_cache_truncate(g->kv, --n_past);
    if (status) return status;
    return fastgpt_prefill(g->ctx, g->kv, g->tokens + n_past, g->n_tokens - n_past, g->logits);
}

static float log_prob_of(const fastgpt_generator *g, int32_t token, double sum) {
    return (float)((double)g->logits[token] - sum);
}

static void add_log_probs(const fastgpt_generator *g, fastgpt_piece *piece) {
    int32_t n_vocab = fastgpt_model_n_vocab(g->model);
    double sum = log_sum_exp(g->logits, n_vocab);
    piece->log_prob = log_prob_of(g, piece->token, sum);
    find_likeliest(g->logits, n_vocab, g->likeliest, g->n_likeliest);
    for (int32_t i = 0; i < g->n_likeliest; i++) g->likeliest_log_probs[i] = log_prob_of(g, g->likeliest[i], sum);
    piece->n_likeliest = g->n_likeliest;
    piece->likeliest = g->likeliest;
    piece->likeliest_log_probs = g->likeliest_log_probs;
}

/* Hands over what is ready, and notes it for take_back; *ends becomes whether the callback ends the text. */
static fastgpt_status show_text(fastgpt_generator *g, fastgpt_piece *piece, const listener *to, bool *ends) {
    size_t n = g->stops.n_ready;
    if (!text_buffer_append(&g->shown, g->stops.held.text, n)) return FASTGPT_ERR_MEMORY;
    piece->text = g->shown.text + g->shown.n - n;
    piece->n_bytes = n;
    *ends = to->callback && to->callback(to->user, piece) != 0;
    return FASTGPT_OK;
}

/* A new token behind what was said, and its text to the listener. */
static fastgpt_status take_token(fastgpt_generator *g, int32_t token, const listener *to) {
    fastgpt_piece piece = {.struct_size = sizeof piece, .token = token};
    const char *text;
    size_t n_bytes;
    if (g->log_probs) add_log_probs(g, &piece);
    if (g->n_tokens == fastgpt_kv_cache_n_ctx(g->kv)) forget_oldest(g, g->n_tokens / 2);
    fastgpt_status status = fastgpt_stream_push(g->stream, token, &text, &n_bytes);
    if (!status) status = stop_finder_push(&g->stops, text, n_bytes);
    if (status) return status;
    g->n_text += n_bytes;
    g->text_ends[g->n_tokens] = g->n_text;
    g->tokens[g->n_tokens++] = token;
    g->n_generated++;
    bool ends = false;
    status = show_text(g, &piece, to, &ends);
    if (g->stops.found) g->finish_reason = FASTGPT_FINISH_STOP;
    else if (ends) g->finish_reason = FASTGPT_FINISH_CALLBACK;
    else if (g->n_generated == g->max_new_tokens) g->finish_reason = FASTGPT_FINISH_LENGTH;
    return status;
}

/* Draws until there is a reason to end. */
static fastgpt_status draw_tokens(fastgpt_generator *g, const listener *to) {
    fastgpt_status status = FASTGPT_OK;
    while (!status && g->finish_reason == FASTGPT_FINISH_NONE) {
        int32_t token = -1;
        status = read_rest(g);
        if (!status) status = fastgpt_profile_sample(g->ctx, g->sampler, g->logits, &token);
        if (!status) status = fastgpt_sampler_accept(g->sampler, &token, 1);
        if (status) return status;
        if (ends_text(g->model, token)) g->finish_reason = FASTGPT_FINISH_EOS;
        else status = take_token(g, token, to);
    }
    return status;
}

/* What was held back, and what is left of a character. */
static fastgpt_status give_rest(fastgpt_generator *g, const listener *to) {
    const char *text;
    size_t n_bytes;
    fastgpt_piece piece = {.struct_size = sizeof piece, .token = -1};
    fastgpt_stream_finish(g->stream, &text, &n_bytes);
    if (g->finish_reason == FASTGPT_FINISH_STOP || g->finish_reason == FASTGPT_FINISH_CALLBACK) return FASTGPT_OK;
    fastgpt_status status = stop_finder_push(&g->stops, text, n_bytes);
    if (status) return status;
    if (g->stops.found) g->finish_reason = FASTGPT_FINISH_STOP;
    stop_finder_finish(&g->stops);
    bool ends;
    return g->stops.n_ready > 0 ? show_text(g, &piece, to, &ends) : FASTGPT_OK;
}

static uint64_t text_before(const fastgpt_generator *g, int32_t i) { return i > 0 ? g->text_ends[i - 1] : 0; }

/* Takes a stop string back, and what came behind it: tokens whose text was shown whole stay, and the rest of what was
 * shown waits to be encoded with the next text. */
static fastgpt_status take_back(fastgpt_generator *g) {
    text_buffer pending = {0};
    int32_t n = g->n_tokens, first = g->n_generated < n ? n - g->n_generated : 0;
    if (g->finish_reason == FASTGPT_FINISH_STOP) {
        while (n > first && g->text_ends[n - 1] > g->shown.n) n--;
        while (n > first && g->text_ends[n - 1] == text_before(g, n - 1)) n--; /* the beginning of a character */
        size_t n_whole = (size_t)text_before(g, n);
        if (!text_buffer_append(&pending, g->shown.text + n_whole, g->shown.n - n_whole)) return FASTGPT_ERR_MEMORY;
    }
    free(g->pending.text);
    g->pending = pending;
    g->n_tokens = n;
    return fastgpt_kv_cache_n_past(g->kv) > n ? fastgpt_kv_cache_truncate(g->kv, n) : FASTGPT_OK;
}

/* ---- A turn ---- */

/* What was said before a turn that failed. */
static void restore_said(fastgpt_generator *g) {
    const int32_t *cached = fastgpt_kv_cache_tokens(g->kv);
    int32_t n_past = fastgpt_kv_cache_n_past(g->kv), n_same = 0;
    while (n_same < n_past && n_same < g->n_before && cached[n_same] == g->before[n_same]) n_same++;
    fastgpt_kv_cache_truncate(g->kv, n_same);
    if (g->n_before > 0) memcpy(g->tokens, g->before, (size_t)g->n_before * sizeof *g->tokens);
    g->n_tokens = g->n_before;
    g->finish_reason = FASTGPT_FINISH_NONE;
}

static fastgpt_status answer_text(fastgpt_generator *g, const listener *to) {
    const char *text;
    size_t n_bytes;
    fastgpt_stream_finish(g->stream, &text, &n_bytes); /* of a turn that failed */
    stop_finder_reset(&g->stops);
    g->shown.n = 0;
    g->n_text = 0;
    fastgpt_status status = tell_sampler(g);
    if (!status) status = draw_tokens(g, to);
    if (!status) status = give_rest(g, to);
    return status ? status : take_back(g);
}

fastgpt_status fastgpt_generator_continue(fastgpt_generator *g, const char *text, size_t n_bytes,
                                          fastgpt_generator_callback callback, void *user, fastgpt_error *error) {
    if (error) error->text[0] = 0;
    if (!g) return fail(error, FASTGPT_ERR_ARGUMENT, "generator is NULL");
    if (!text && n_bytes > 0) return fail(error, FASTGPT_ERR_ARGUMENT, "text is NULL, and n_bytes %zu", n_bytes);
    if (g->n_tokens > 0) memcpy(g->before, g->tokens, (size_t)g->n_tokens * sizeof *g->before);
    g->n_before = g->n_tokens;
    g->n_generated = 0;
    g->finish_reason = FASTGPT_FINISH_NONE;
    fastgpt_status status = append_text(g, text, n_bytes, error);
    if (!status) {
        status = answer_text(g, &(listener){callback, user});
        if (status) fail(error, status, "%s", fastgpt_status_text(status));
    }
    if (status) restore_said(g);
    return status;
}
