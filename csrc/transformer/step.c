/* step.c - a step: checks, slices of at most n_batch tokens, and the roll back when it is cancelled. */
#include <stdbool.h>

#include "common/arithmetic.h"
#include "common/thread_pool.h"
#include "common/versioned_struct.h"
#include "kv_cache/kv_cache.h"
#include "transformer/forward.h"

/* ---- Checks ---- */

static fastgpt_status check_span(const fastgpt_context *ctx, const fastgpt_span *span) {
    const fastgpt_kv_cache *kv = span->kv;
    if (!kv || !span->tokens) return FASTGPT_ERR_ARGUMENT;
    if (span->n_tokens <= 0) return FASTGPT_ERR_N_TOKENS;
    if (kv->model_id != ctx->model->id) return FASTGPT_ERR_CACHE_MISMATCH;
    if (span->n_tokens > kv->n_ctx - kv->n_past) return FASTGPT_ERR_CONTEXT_FULL;
    for (int32_t i = 0; i < span->n_tokens; i++)
        if (span->tokens[i] < 0 || span->tokens[i] >= ctx->model->n_vocab) return FASTGPT_ERR_TOKEN_RANGE;
    return FASTGPT_OK;
}

static fastgpt_status check_caches_differ(const fastgpt_span *spans, int32_t n_spans) {
    fastgpt_status status = FASTGPT_OK;
    for (int32_t i = 0; i < n_spans; i++)
        if (spans[i].kv->in_step++) status = FASTGPT_ERR_CACHE_TWICE;
    for (int32_t i = 0; i < n_spans; i++) spans[i].kv->in_step = 0;
    return status;
}

static fastgpt_status check_step(const fastgpt_context *ctx, const fastgpt_span *spans, int32_t n_spans) {
    if (!ctx || !spans || n_spans <= 0) return FASTGPT_ERR_ARGUMENT;
    for (int32_t i = 0; i < n_spans; i++) {
        fastgpt_status status = check_span(ctx, &spans[i]);
        if (status) return status;
    }
    return check_caches_differ(spans, n_spans);
}

/* ---- Slices ---- */

/* The next slice: up to n_batch tokens from token `first` of spans[0] on. */
static slice next_slice(fastgpt_context *ctx, const fastgpt_span *spans, int32_t n_spans, int32_t first) {
    slice s = {.spans = spans, .counts = ctx->counts, .first = first};
    for (; s.n_spans < n_spans && s.n_tokens < ctx->n_batch; s.n_spans++) {
        int32_t n = spans[s.n_spans].n_tokens - (s.n_spans == 0 ? first : 0);
        if (n > ctx->n_batch - s.n_tokens) n = ctx->n_batch - s.n_tokens;
        ctx->counts[s.n_spans] = n;
        ctx->first_rows[s.n_spans] = s.n_tokens;
        s.n_tokens += n;
    }
    return s;
}

/* Returns the number of rows of logits, or -1 when cancelled. */
static int32_t run_slice(fastgpt_context *ctx, const slice *s, bool all_logits, float *logits) {
    profile_begin_slice(&ctx->profile, s->spans, s->counts, s->n_spans);
    int32_t n_rows = forward(ctx, s, all_logits, logits);
    for (int32_t i = 0; n_rows >= 0 && i < s->n_spans; i++)
        kv_cache_append(s->spans[i].kv, slice_tokens(s, i), s->counts[i], ctx->engine.deterministic);
    return n_rows;
}

/* Restores every cache: n_done spans were appended whole, and the first `first` tokens of the next one. */
static void roll_back(const fastgpt_span *spans, int32_t n_done, int32_t first) {
    for (int32_t i = 0; i < n_done; i++) spans[i].kv->n_past -= spans[i].n_tokens;
    if (first > 0) spans[n_done].kv->n_past -= first;
}

static fastgpt_status run_slices(fastgpt_context *ctx, const fastgpt_span *spans, int32_t n_spans, bool all_logits,
                                 float *logits) {
    int32_t n_done = 0, first = 0; /* whole spans, and tokens of the next one */
    while (n_done < n_spans) {
        slice s = next_slice(ctx, spans + n_done, n_spans - n_done, first);
        s.first_span = n_done;
        int32_t n_rows = run_slice(ctx, &s, all_logits, logits);
        if (n_rows < 0) {
            roll_back(spans, n_done, first);
            return FASTGPT_ERR_CANCELLED;
        }
        if (logits) logits += (int64_t)n_rows * ctx->model->n_vocab;
        ctx->taps.first += s.n_tokens;
        for (first += s.n_tokens; n_done < n_spans && first >= spans[n_done].n_tokens; n_done++)
            first -= spans[n_done].n_tokens;
    }
    return FASTGPT_OK;
}

/* ---- The public functions ---- */

fastgpt_status fastgpt_step(fastgpt_context *ctx, const fastgpt_span *spans, int32_t n_spans,
                            const fastgpt_step_options *options, float *logits) {
    fastgpt_step_options o = {.struct_size = sizeof o};
    if (options && !options_read(&o, sizeof o, options, FIRST_SIZE(fastgpt_step_options, all_logits)))
        return FASTGPT_ERR_ARGUMENT;
    fastgpt_status status = check_step(ctx, spans, n_spans);
    if (!status) status = taps_begin(ctx, o.taps, spans, n_spans);
    if (!status) status = sites_begin(ctx, &o, spans, n_spans);
    if (status) return status;
    status = pool_enter(ctx->engine.pool);
    if (status) return status;
    ctx->engine.deterministic = o.deterministic;
    ctx->stop = o.stop;
    profile_begin_step(&ctx->profile, spans, n_spans);
    status = run_slices(ctx, spans, n_spans, o.all_logits, logits);
    for (int32_t i = 0; !status && i < n_spans; i++)
        kv_cache_skip_layers(spans[i].kv, spans[i].n_tokens, o.starts ? o.starts[i].layer : 0);
    profile_end_step(&ctx->profile);
    atomic_store(&ctx->cancelled, false);
    pool_leave(ctx->engine.pool);
    return status;
}

fastgpt_status fastgpt_prefill(fastgpt_context *ctx, fastgpt_kv_cache *kv, const int32_t *tokens, int32_t n_tokens,
                               float *logits) {
    fastgpt_span span = {.kv = kv, .tokens = tokens, .n_tokens = n_tokens};
    return fastgpt_step(ctx, &span, 1, NULL, logits);
}

fastgpt_status fastgpt_decode(fastgpt_context *ctx, fastgpt_kv_cache *kv, int32_t token, float *logits) {
    return fastgpt_prefill(ctx, kv, &token, 1, logits);
}

fastgpt_status fastgpt_unembed(fastgpt_context *ctx, const float *x, int32_t n_rows, float *logits) {
    if (!ctx || !x || !logits || n_rows <= 0) return FASTGPT_ERR_ARGUMENT;
    fastgpt_status status = pool_enter(ctx->engine.pool);
    if (status) return status;
    ctx->engine.deterministic = true;
    for (int32_t n; n_rows > 0; n_rows -= n) {
        n = min_int(n_rows, ctx->n_batch);
        forward_logits(ctx, x, n, logits);
        x += (int64_t)n * ctx->model->n_embd;
        logits += (int64_t)n * ctx->model->n_vocab;
    }
    pool_leave(ctx->engine.pool);
    return FASTGPT_OK;
}
