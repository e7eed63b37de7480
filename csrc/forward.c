/* forward.c - the transformer (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"):
 *
 *     x = wte[token] + wpe[position]
 *     n_layer times:  x += attn_proj(attention(qkv(ln_1(x))))
 *                     x += proj(activation(fc(ln_2(x))))
 *     logits = lm_head(ln_f(x))
 *
 * A step is cut into slices of at most n_batch tokens; a slice may hold tokens of several sequences. */
#include <stdbool.h>
#include <string.h>

#include "arithmetic.h"
#include "context.h"
#include "kv_cache.h"
#include "options.h"
#include "pool.h"

/* Tokens that go through the layers together: some of each of a few neighbouring spans. */
typedef struct slice {
    const fastgpt_span *spans; /* their caches have the tokens of earlier slices already */
    const int32_t *counts;     /* [n_spans] tokens of each span in this slice */
    int32_t n_spans;
    int32_t first;    /* tokens of spans[0] that earlier slices took */
    int32_t n_tokens; /* sum of counts */
} slice;

/* ---- One layer ---- */

/* Whether the product may write keys and values where they belong: for a lone span, and a cache of floats. */
static bool fills_cache(const slice *s) { return s->n_spans == 1 && s->spans[0].kv->type == TYPE_F32; }

static float *cache_or(const slice *s, int32_t l, int which, float *scratch) {
    const fastgpt_kv_cache *kv = s->spans[0].kv;
    return fills_cache(s) ? (float *)(void *)kv_cache_rows(kv, l, which, kv->n_past) : scratch;
}

static void project_qkv(fastgpt_context *ctx, const slice *s, int32_t l) {
    const weight *qkv = &ctx->model->layers[l].qkv;
    int32_t n_embd = ctx->model->n_embd;
    linear_task tasks[3] = {
        {.out = ctx->q, .ld_out = n_embd, .w = weight_rows(qkv, 0, n_embd)},
        {.out = cache_or(s, l, 0, ctx->k), .ld_out = n_embd, .w = weight_rows(qkv, n_embd, n_embd)},
        {.out = cache_or(s, l, 1, ctx->v), .ld_out = n_embd, .w = weight_rows(qkv, 2 * n_embd, n_embd)},
    };
    linear(&ctx->engine, ctx->normed, n_embd, tasks, 3, s->n_tokens);
}

static void append_rows(fastgpt_context *ctx, const fastgpt_kv_cache *kv, int32_t l, int which, const float *rows,
                        int32_t n) {
    for (int32_t i = 0; i < n; i++, rows += kv->n_embd)
        ctx->engine.kernels->narrow[kv->type](kv_cache_rows(kv, l, which, kv->n_past + i), rows, kv->n_embd);
}

/* Spreads keys and values over the caches. */
static void scatter_kv(fastgpt_context *ctx, const slice *s, int32_t l) {
    int64_t row = 0;
    for (int32_t i = 0; i < s->n_spans; i++) {
        append_rows(ctx, s->spans[i].kv, l, 0, ctx->k + row * ctx->model->n_embd, s->counts[i]);
        append_rows(ctx, s->spans[i].kv, l, 1, ctx->v + row * ctx->model->n_embd, s->counts[i]);
        row += s->counts[i];
    }
}

static void attend(fastgpt_context *ctx, const slice *s, int32_t l) {
    const fastgpt_model *m = ctx->model;
    const bool bf16 = linear_may_round(ctx->engine.kernels, m->layers[l].qkv.type);
    int64_t row = 0;
    for (int32_t i = 0; i < s->n_spans; i++) {
        const fastgpt_kv_cache *kv = s->spans[i].kv;
        ctx->spans[i] = (attention_span){.out = ctx->heads + row * m->n_embd,
                                         .q = ctx->q + row * m->n_embd,
                                         .keys = kv_cache_rows(kv, l, 0, kv->n_prefix),
                                         .values = kv_cache_rows(kv, l, 1, kv->n_prefix),
                                         .prefix_keys = kv->prefix ? kv_cache_prefix_rows(kv, l, 0) : NULL,
                                         .prefix_values = kv->prefix ? kv_cache_prefix_rows(kv, l, 1) : NULL,
                                         .n_prefix = kv->n_prefix,
                                         .type = kv->type,
                                         .n_past = kv->n_past,
                                         .n_tokens = s->counts[i],
                                         .bf16 = bf16};
        row += ctx->spans[i].n_tokens;
    }
    op_attention(&ctx->engine, ctx->spans, s->n_spans, m->n_head, m->n_embd, ctx->scores, m->n_ctx);
}

/* out = x w^T + b, or += with add */
static void one_linear(fastgpt_context *ctx, float *out, const float *x, const weight *w, bool add, int32_t n_tokens) {
    linear_task task = {.out = out, .ld_out = w->n_out, .w = *w, .add = add};
    linear(&ctx->engine, x, w->n_in, &task, 1, n_tokens);
}

/* What fc and its activation give goes to proj as panels where it may: no floats in memory, which take longer than the
 * activation. */
static void feed_forward(fastgpt_context *ctx, int32_t l, int32_t n) {
    const fastgpt_model *m = ctx->model;
    const layer *layer = &m->layers[l];
    const int64_t ld_ff = spread_row(m->n_ff);
    linear_task fc = {.out = ctx->ff, .ld_out = ld_ff, .w = layer->fc, .activation = m->activation};
    const linear_task proj = {.out = ctx->x, .ld_out = m->n_embd, .w = layer->proj, .add = true};
    const bool hands_over = linear_hands_over(&ctx->engine, &layer->fc, &layer->proj, n);

    if (hands_over) fc.panels = ctx->ff;
    linear(&ctx->engine, ctx->normed, m->n_embd, &fc, 1, n);
    profile_lap(&ctx->profile, l, FASTGPT_OP_FC, n);
    if (!hands_over) op_activation(&ctx->engine, m->activation, ctx->ff, ld_ff, n, m->n_ff);
    profile_lap(&ctx->profile, l, FASTGPT_OP_GELU, n);
    if (hands_over) linear_of_panels(&ctx->engine, ctx->ff, &proj, n);
    else linear(&ctx->engine, ctx->ff, ld_ff, &proj, 1, n);
}

static void run_layer(fastgpt_context *ctx, const slice *s, int32_t l) {
    const fastgpt_model *m = ctx->model;
    const layer *layer = &m->layers[l];
    const taps *t = &ctx->taps;
    int32_t n = s->n_tokens;

    op_layer_norm(&ctx->engine, ctx->normed, ctx->x, &layer->ln_1, m->layer_norm_epsilon, n, m->n_embd);
    taps_rows(t, t->to.ln_1, l, ctx->normed, n);
    profile_lap(&ctx->profile, l, FASTGPT_OP_LN_1, n);
    project_qkv(ctx, s, l);
    if (!fills_cache(s)) scatter_kv(ctx, s, l);
    profile_lap(&ctx->profile, l, FASTGPT_OP_QKV, n);
    attend(ctx, s, l);
    taps_attention(t, &ctx->engine, l, ctx->spans, n, m->n_head);
    profile_lap(&ctx->profile, l, FASTGPT_OP_ATTENTION, n);
    one_linear(ctx, ctx->x, ctx->heads, &layer->attn_proj, true, n);
    taps_rows(t, t->to.hidden_mid, l, ctx->x, n);
    profile_lap(&ctx->profile, l, FASTGPT_OP_ATTN_PROJ, n);

    op_layer_norm(&ctx->engine, ctx->normed, ctx->x, &layer->ln_2, m->layer_norm_epsilon, n, m->n_embd);
    taps_rows(t, t->to.ln_2, l, ctx->normed, n);
    profile_lap(&ctx->profile, l, FASTGPT_OP_LN_2, n);
    feed_forward(ctx, l, n);
    taps_rows(t, t->to.hidden, l + 1, ctx->x, n);
    profile_lap(&ctx->profile, l, FASTGPT_OP_PROJ, n);
}

/* ---- One slice ---- */

/* Those of span i that are in this slice. */
static const int32_t *new_tokens(const slice *s, int32_t i) { return s->spans[i].tokens + (i == 0 ? s->first : 0); }

static void embed(fastgpt_context *ctx, const slice *s) {
    float *x = ctx->x;
    for (int32_t i = 0; i < s->n_spans; i++) {
        const fastgpt_span *span = &s->spans[i];
        int32_t n = s->counts[i];
        op_embed(&ctx->engine, x, ctx->model, new_tokens(s, i), n, span->kv->n_past);
        x += (int64_t)n * ctx->model->n_embd;
    }
}

/* Moves the residual rows whose logits are wanted to the front of x; returns how many they are.  Those are
 * all of them, or the last of each span that ends in this slice. */
static int32_t gather_wanted(fastgpt_context *ctx, const slice *s, bool all) {
    if (all) return s->n_tokens;
    int64_t n_embd = ctx->model->n_embd, row = 0;
    int32_t n_wanted = 0;
    for (int32_t i = 0; i < s->n_spans; i++) {
        int32_t n = s->counts[i];
        row += n;
        bool ends = n + (i == 0 ? s->first : 0) == s->spans[i].n_tokens;
        if (!ends) continue;
        memmove(ctx->x + n_wanted * n_embd, ctx->x + (row - 1) * n_embd, (size_t)n_embd * sizeof(float));
        n_wanted++;
    }
    return n_wanted;
}

static void norm_last(const fastgpt_context *ctx, float *out, const float *x, int32_t n) {
    const fastgpt_model *m = ctx->model;
    op_layer_norm(&ctx->engine, out, x, &m->ln_f, m->layer_norm_epsilon, n, m->n_embd);
}

/* Writes n rows of logits. */
static void predict(fastgpt_context *ctx, int32_t n, float *logits) {
    const fastgpt_model *m = ctx->model;
    if (n == 0) return;
    norm_last(ctx, ctx->normed, ctx->x, n);
    profile_lap(&ctx->profile, -1, FASTGPT_OP_LN_F, n);
    one_linear(ctx, logits, ctx->normed, &m->lm_head, false, n);
    profile_lap(&ctx->profile, -1, FASTGPT_OP_LM_HEAD, n);
}

static bool is_cancelled(fastgpt_context *ctx) {
    if (ctx->stop && __atomic_load_n(ctx->stop, __ATOMIC_RELAXED)) return true;
    return atomic_load_explicit(&ctx->cancelled, memory_order_relaxed);
}

/* Returns the number of rows of logits, or -1 when cancelled. */
static int32_t run_slice(fastgpt_context *ctx, const slice *s, bool all_logits, float *logits) {
    const taps *t = &ctx->taps;
    profile_begin_slice(&ctx->profile, s->spans, s->counts, s->n_spans);
    embed(ctx, s);
    taps_rows(t, t->to.hidden, 0, ctx->x, s->n_tokens);
    profile_lap(&ctx->profile, -1, FASTGPT_OP_EMBED, s->n_tokens);
    for (int32_t l = 0; l < ctx->model->n_layer; l++) {
        if (is_cancelled(ctx)) return -1;
        run_layer(ctx, s, l);
    }
    if (t->to.ln_f) norm_last(ctx, taps_place(t, t->to.ln_f, 0), ctx->x, s->n_tokens);
    int32_t n_rows = logits ? gather_wanted(ctx, s, all_logits) : 0;
    profile_lap(&ctx->profile, -1, FASTGPT_OP_OTHER, 0);
    predict(ctx, n_rows, logits);
    for (int32_t i = 0; i < s->n_spans; i++)
        kv_cache_append(s->spans[i].kv, new_tokens(s, i), s->counts[i], ctx->engine.deterministic);
    return n_rows;
}

/* ---- One step ---- */

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

/* The next slice: up to n_batch tokens from token `first` of spans[0] on. */
static slice next_slice(fastgpt_context *ctx, const fastgpt_span *spans, int32_t n_spans, int32_t first) {
    slice s = {.spans = spans, .counts = ctx->counts, .first = first};
    for (; s.n_spans < n_spans && s.n_tokens < ctx->n_batch; s.n_spans++) {
        int32_t n = spans[s.n_spans].n_tokens - (s.n_spans == 0 ? first : 0);
        if (n > ctx->n_batch - s.n_tokens) n = ctx->n_batch - s.n_tokens;
        ctx->counts[s.n_spans] = n;
        s.n_tokens += n;
    }
    return s;
}

/* Puts every cache back to where it was: `done` spans are whole in it, and the first tokens of the next. */
static void roll_back(const fastgpt_span *spans, int32_t n_done, int32_t first) {
    for (int32_t i = 0; i < n_done; i++) spans[i].kv->n_past -= spans[i].n_tokens;
    if (first > 0) spans[n_done].kv->n_past -= first;
}

static fastgpt_status run_slices(fastgpt_context *ctx, const fastgpt_span *spans, int32_t n_spans, bool all_logits,
                                 float *logits) {
    int32_t n_done = 0, first = 0; /* spans wholly done, and tokens of the next one */
    while (n_done < n_spans) {
        slice s = next_slice(ctx, spans + n_done, n_spans - n_done, first);
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

fastgpt_status fastgpt_step(fastgpt_context *ctx, const fastgpt_span *spans, int32_t n_spans,
                            const fastgpt_step_options *options, float *logits) {
    fastgpt_step_options o = {.struct_size = sizeof o};
    if (options && !options_read(&o, sizeof o, options, FIRST_SIZE(fastgpt_step_options, all_logits)))
        return FASTGPT_ERR_ARGUMENT;
    fastgpt_status status = check_step(ctx, spans, n_spans);
    if (!status) status = taps_begin(&ctx->taps, o.taps, ctx->model, spans, n_spans);
    if (status) return status;
    status = pool_enter(ctx->engine.pool);
    if (status) return status;
    ctx->engine.deterministic = o.deterministic;
    ctx->stop = o.stop;
    profile_begin_step(&ctx->profile, spans, n_spans);
    status = run_slices(ctx, spans, n_spans, o.all_logits, logits);
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
        norm_last(ctx, ctx->normed, x, n);
        one_linear(ctx, logits, ctx->normed, &ctx->model->lm_head, false, n);
        x += (int64_t)n * ctx->model->n_embd;
        logits += (int64_t)n * ctx->model->n_vocab;
    }
    pool_leave(ctx->engine.pool);
    return FASTGPT_OK;
}
