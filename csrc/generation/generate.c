/* generate.c - the loop from a prompt to text: step, sample, stream, until something ends it. */
#include <stdlib.h>

#include "generation/end_tokens.h"
#include "transformer/context.h"
#include "kv_cache/kv_cache.h"

typedef struct generation {
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv;
    fastgpt_sampler *sampler;
    fastgpt_stream *stream;
    float *logits; /* [n_vocab] after the last token */
    fastgpt_piece_callback callback;
    void *user;
    int32_t n_generated;
} generation;

/* Draws a token into *token, -1 for one that ends the text. */
static fastgpt_status draw(generation *g, int32_t *token) {
    fastgpt_status status = fastgpt_profile_sample(g->ctx, g->sampler, g->logits, token);
    if (!status) status = fastgpt_sampler_accept(g->sampler, token, 1);
    if (!status && ends_text(g->ctx->model, *token)) *token = -1;
    return status;
}

/* Hands the text of a token to the callback; true when that ends the text. */
static bool ends_here(generation *g, int32_t token) {
    const char *text;
    size_t n_bytes;
    fastgpt_stream_push(g->stream, token, &text, &n_bytes);
    return g->callback && g->callback(g->user, token, text, n_bytes) != 0;
}

static void give_rest(generation *g) {
    const char *text;
    size_t n_bytes;
    fastgpt_stream_finish(g->stream, &text, &n_bytes);
    if (n_bytes > 0 && g->callback) g->callback(g->user, -1, text, n_bytes);
}

static fastgpt_status run(generation *g, const int32_t *prompt, int32_t n_prompt, int32_t max_new_tokens) {
    fastgpt_status status = fastgpt_prefill(g->ctx, g->kv, prompt, n_prompt, g->logits);
    if (!status) status = fastgpt_sampler_accept_prompt(g->sampler, prompt, n_prompt);
    while (!status && g->n_generated < max_new_tokens) {
        int32_t token;
        status = draw(g, &token);
        if (status || token < 0) break;
        g->n_generated++;
        if (ends_here(g, token)) return FASTGPT_OK;
        if (g->n_generated < max_new_tokens) status = fastgpt_decode(g->ctx, g->kv, token, g->logits);
    }
    if (!status) give_rest(g);
    return status;
}

static fastgpt_status check(const fastgpt_context *ctx, const fastgpt_kv_cache *kv, const fastgpt_sampler *sampler,
                            const fastgpt_tokenizer *tokenizer, const int32_t *prompt, int32_t n_prompt,
                            int32_t max_new_tokens) {
    if (!ctx || !kv || !sampler || !tokenizer || !prompt || max_new_tokens < 0) return FASTGPT_ERR_ARGUMENT;
    int32_t n_vocab = ctx->model->n_vocab;
    if (fastgpt_sampler_n_vocab(sampler) != n_vocab) return FASTGPT_ERR_ARGUMENT;
    if (fastgpt_tokenizer_n_vocab(tokenizer) != n_vocab) return FASTGPT_ERR_ARGUMENT;
    if (n_prompt <= 0) return FASTGPT_ERR_N_TOKENS;
    int64_t n_wanted = (int64_t)kv->n_past + n_prompt + max_new_tokens;
    return n_wanted > kv->n_ctx ? FASTGPT_ERR_CONTEXT_FULL : FASTGPT_OK;
}

fastgpt_status fastgpt_generate(fastgpt_context *ctx, fastgpt_kv_cache *kv, fastgpt_sampler *sampler,
                                const fastgpt_tokenizer *tokenizer, const int32_t *prompt, int32_t n_prompt,
                                int32_t max_new_tokens, fastgpt_piece_callback callback, void *user,
                                int32_t *n_generated) {
    fastgpt_status status = check(ctx, kv, sampler, tokenizer, prompt, n_prompt, max_new_tokens);
    if (status) return status;
    generation g = {.ctx = ctx, .kv = kv, .sampler = sampler, .callback = callback, .user = user};
    int32_t n_past = kv->n_past;
    g.logits = malloc((size_t)ctx->model->n_vocab * sizeof *g.logits);
    status = fastgpt_stream_create(tokenizer, &g.stream);
    if (!g.logits) status = FASTGPT_ERR_MEMORY;
    if (!status) status = run(&g, prompt, n_prompt, max_new_tokens);
    if (status) fastgpt_kv_cache_truncate(kv, n_past);
    else if (n_generated) *n_generated = g.n_generated;
    fastgpt_stream_free(g.stream);
    free(g.logits);
    return status;
}
