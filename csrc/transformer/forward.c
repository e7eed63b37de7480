/* forward.c - the transformer (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"):
 *
 *     x = wte[token] + wpe[position]
 *     n_layer times:  x += attn_proj(attention(qkv(ln_1(x))))
 *                     x += proj(activation(fc(ln_2(x))))
 *     logits = lm_head(ln_f(x))
 *
 *     x, normed, q, k, v, heads  [n][n_embd]     ff  [n][n_ff]     logits  [n_rows][n_vocab]
 *
 * n counts the tokens of a slice, of one sequence or of many.  Each op ends in op_done, where it is timed; site_done is
 * called where the values of a site are complete, so that they can be shown and changed. */
#include "transformer/forward.h"

#include <string.h>

#include "attention/attention_span.h"
#include "common/arithmetic.h"
#include "common/thread_pool.h"
#include "kv_cache/kv_cache.h"
#include "transformer/op_done.h"
#include "transformer/site_done.h"

/* out = x w^T + b */
static void op_linear(fastgpt_context *ctx, float *out, const float *x, const weight *w, int32_t n) {
    const linear_task task = {.out = out, .ld_out = w->n_out, .w = *w};
    linear(&ctx->engine, x, w->n_in, &task, 1, n);
}

/* x += in w^T + b, which is a site; rows of `in` ld_in apart */
static void add_to_residual(fastgpt_context *ctx, fastgpt_site site, int32_t l, const float *in, int64_t ld_in,
                            const weight *w) {
    const linear_task task = {.out = ctx->x, .ld_out = w->n_out, .w = *w, .add = true};
    if (site_is_wanted(&ctx->sites, site)) site_add_residual(ctx, site, l, &task, in, ld_in);
    else linear(&ctx->engine, in, ld_in, &task, 1, ctx->sites.slice->n_tokens);
}

static void layer_norm(fastgpt_context *ctx, float *out, const float *x, const norm *norm, int32_t n) {
    op_layer_norm(&ctx->engine, out, x, norm, ctx->model->layer_norm_epsilon, n, ctx->model->n_embd);
}

/* The first spans of s, as many as begin in no layer above l. */
static slice spans_of_layer(const fastgpt_context *ctx, const slice *s, int32_t l) {
    slice active = *s;
    const fastgpt_start *starts = ctx->sites.starts ? ctx->sites.starts + s->first_span : NULL;
    while (starts && active.n_spans > 0 && starts[active.n_spans - 1].layer > l)
        active.n_tokens -= s->counts[--active.n_spans];
    return active;
}

/* The first spans of s, as many as begin with embeddings; x = the residuals that the caller gives of the others. */
static slice take_residuals(fastgpt_context *ctx, const slice *s) {
    slice embedded = *s;
    const int64_t n_embd = ctx->model->n_embd;
    const fastgpt_start *starts = ctx->sites.starts ? ctx->sites.starts + s->first_span : NULL;
    while (starts && embedded.n_spans > 0 && starts[embedded.n_spans - 1].resid) {
        const int32_t i = --embedded.n_spans, n = s->counts[i];
        embedded.n_tokens -= n;
        memcpy(ctx->x + embedded.n_tokens * n_embd, starts[i].resid + (i == 0 ? s->first * n_embd : 0),
               (size_t)(n * n_embd) * sizeof *ctx->x);
    }
    return embedded;
}

/* x = wte[token] + wpe[position]; positions follow those in each cache */
static void embed(fastgpt_context *ctx, const slice *all) {
    const slice s = take_residuals(ctx, all);
    if (site_is_wanted(&ctx->sites, FASTGPT_SITE_EMBED) || site_is_wanted(&ctx->sites, FASTGPT_SITE_POS_EMBED)) {
        site_embed(ctx, &s);
        return;
    }
    float *x = ctx->x;
    for (int32_t i = 0; i < s.n_spans; i++) {
        op_embed(&ctx->engine, x, ctx->model, slice_tokens(&s, i), s.counts[i], s.spans[i].kv->n_past);
        x += (int64_t)s.counts[i] * ctx->model->n_embd;
    }
}

typedef struct store_job {
    const fastgpt_context *ctx;
    const slice *s;
    int32_t layer;
} store_job;

/* The keys and values of one token. */
static void store_unit(void *arg, int token, int thread) {
    const store_job *job = arg;
    const fastgpt_context *ctx = job->ctx;
    const int64_t row = (int64_t)token * ctx->model->n_embd;
    int32_t i = 0;
    (void)thread;
    for (; token >= job->s->counts[i]; i++) token -= job->s->counts[i];
    kv_cache_store(job->s->spans[i].kv, ctx->engine.kernels, job->layer, KV_KEYS, token, ctx->k + row);
    kv_cache_store(job->s->spans[i].kv, ctx->engine.kernels, job->layer, KV_VALUES, token, ctx->v + row);
}

/* q, k, v = split(normed w^T + b).  Keys and values of a single sequence with an F32 cache are written in place;
 * otherwise they are converted to the type of each cache. */
static void project_qkv(fastgpt_context *ctx, const slice *s, int32_t l) {
    const weight *qkv = &ctx->model->layers[l].qkv;
    const int32_t n_embd = ctx->model->n_embd;
    float *in_place = s->n_spans == 1 ? kv_cache_f32_rows(s->spans[0].kv, l, KV_KEYS) : NULL;
    const linear_task tasks[3] = {
        {.out = ctx->q, .ld_out = n_embd, .w = weight_rows(qkv, 0, n_embd)},
        {.out = in_place ? in_place : ctx->k, .ld_out = n_embd, .w = weight_rows(qkv, n_embd, n_embd)},
        {.out = in_place ? kv_cache_f32_rows(s->spans[0].kv, l, KV_VALUES) : ctx->v,
         .ld_out = n_embd,
         .w = weight_rows(qkv, 2 * n_embd, n_embd)},
    };
    linear(&ctx->engine, ctx->normed, n_embd, tasks, 3, s->n_tokens);
    site_done(ctx, FASTGPT_SITE_Q, l, tasks[0].out, n_embd);
    site_done(ctx, FASTGPT_SITE_K, l, tasks[1].out, n_embd);
    site_done(ctx, FASTGPT_SITE_V, l, tasks[2].out, n_embd);
    if (!in_place) pool_run(ctx->engine.pool, store_unit, &(store_job){ctx, s, l}, s->n_tokens);
}

/* heads = softmax(q k^T / sqrt(n_embd / n_head)) v, for each head, over each sequence's cache */
static void attend(fastgpt_context *ctx, const slice *s, int32_t l) {
    const fastgpt_model *m = ctx->model;
    const bool bf16 = linear_uses_bf16(ctx->engine.kernels, m->layers[l].qkv.type);
    int64_t row = 0;
    for (int32_t i = 0; i < s->n_spans; i++) {
        ctx->spans[i] = attention_span_of(s->spans[i].kv, l, ctx->q + row, ctx->heads + row, s->counts[i], bf16);
        row += s->counts[i] * (int64_t)m->n_embd;
    }
    op_attention(&ctx->engine, ctx->spans, s->n_spans, m->n_head, m->n_embd, ctx->scores, m->n_ctx);
}

/* Whether the inside of the feed-forward part is wanted as rows of floats. */
static bool wants_neurons(const sites *s) {
    return site_is_wanted(s, FASTGPT_SITE_FF_PRE) || site_is_wanted(s, FASTGPT_SITE_FF_POST) ||
           site_is_wanted(s, FASTGPT_SITE_FF_OUT);
}

/* x += proj(activation(fc(normed))).  Where possible fc + activation leave their output packed for proj; F32 through
 * memory would cost more than the activation. */
static void feed_forward(fastgpt_context *ctx, const layer_weights *w, int32_t l, int32_t n) {
    const fastgpt_model *m = ctx->model;
    const engine *e = &ctx->engine;
    const bool fused = !wants_neurons(&ctx->sites) && linear_can_fuse_activation(e, &w->fc, &w->proj, n);
    const int64_t ld_ff = conflict_free_stride(m->n_ff);
    const linear_task fc = {
        .out = ctx->ff, .ld_out = ld_ff, .w = w->fc, .packed = fused ? ctx->ff : NULL, .activation = m->activation};
    const linear_task proj = {.out = ctx->x, .ld_out = m->n_embd, .w = w->proj, .add = true};

    linear(e, ctx->normed, m->n_embd, &fc, 1, n);
    if (!fused) site_done(ctx, FASTGPT_SITE_FF_PRE, l, ctx->ff, ld_ff);
    op_done(ctx, FASTGPT_OP_FC, l, n);
    if (!fused) op_activation(e, m->activation, ctx->ff, ld_ff, n, m->n_ff);
    if (!fused) site_done(ctx, FASTGPT_SITE_FF_POST, l, ctx->ff, ld_ff);
    op_done(ctx, FASTGPT_OP_GELU, l, n);
    if (fused) linear_packed(e, ctx->ff, &proj, n);
    else add_to_residual(ctx, FASTGPT_SITE_FF_OUT, l, ctx->ff, ld_ff, &w->proj);
    site_done(ctx, FASTGPT_SITE_RESID_POST, l, ctx->x, m->n_embd);
    op_done(ctx, FASTGPT_OP_PROJ, l, n);
}

static void run_layer(fastgpt_context *ctx, const slice *s, int32_t l) {
    const layer_weights *w = &ctx->model->layers[l];
    const int32_t n = s->n_tokens, n_embd = ctx->model->n_embd;

    ctx->sites.slice = s;
    site_done(ctx, FASTGPT_SITE_RESID_PRE, l, ctx->x, n_embd);
    layer_norm(ctx, ctx->normed, ctx->x, &w->ln_1, n);
    site_done(ctx, FASTGPT_SITE_LN_1, l, ctx->normed, n_embd);
    op_done(ctx, FASTGPT_OP_LN_1, l, n);
    project_qkv(ctx, s, l);
    op_done(ctx, FASTGPT_OP_QKV, l, n);
    attend(ctx, s, l);
    attention_done(ctx, l);
    site_done(ctx, FASTGPT_SITE_Z, l, ctx->heads, n_embd);
    op_done(ctx, FASTGPT_OP_ATTENTION, l, n);
    add_to_residual(ctx, FASTGPT_SITE_ATTN_OUT, l, ctx->heads, n_embd, &w->attn_proj);
    site_done(ctx, FASTGPT_SITE_RESID_MID, l, ctx->x, n_embd);
    op_done(ctx, FASTGPT_OP_ATTN_PROJ, l, n);

    layer_norm(ctx, ctx->normed, ctx->x, &w->ln_2, n);
    site_done(ctx, FASTGPT_SITE_LN_2, l, ctx->normed, n_embd);
    op_done(ctx, FASTGPT_OP_LN_2, l, n);
    feed_forward(ctx, w, l, n);
}

/* Moves the rows of the last token of each span that ends in this slice to the front of x; returns how many there are.
 */
static int32_t gather_last(const fastgpt_context *ctx, const slice *s, float *x) {
    const int64_t n_embd = ctx->model->n_embd;
    int64_t row = 0;
    int32_t n_last = 0;
    for (int32_t i = 0; i < s->n_spans; i++) {
        row += s->counts[i];
        const bool ends = s->counts[i] + (i == 0 ? s->first : 0) == s->spans[i].n_tokens;
        if (!ends) continue;
        memmove(x + n_last * n_embd, x + (row - 1) * n_embd, (size_t)n_embd * sizeof *x);
        n_last++;
    }
    return n_last;
}

/* normed = ln_f(x), of the rows that get logits, in front, or of all where that is wanted; returns the number of rows
 * that get logits. */
static int32_t last_norm(fastgpt_context *ctx, const slice *s, bool all_logits, bool any_logits) {
    const norm *ln_f = &ctx->model->ln_f;
    if (taps_want_ln_f(ctx)) {
        ctx->sites.slice = s;
        layer_norm(ctx, ctx->normed, ctx->x, ln_f, s->n_tokens);
        site_done(ctx, FASTGPT_SITE_LN_F, 0, ctx->normed, ctx->model->n_embd);
        return !any_logits ? 0 : all_logits ? s->n_tokens : gather_last(ctx, s, ctx->normed);
    }
    const int32_t n_rows = !any_logits ? 0 : all_logits ? s->n_tokens : gather_last(ctx, s, ctx->x);
    op_done(ctx, FASTGPT_OP_OTHER, -1, 0);
    if (n_rows > 0) layer_norm(ctx, ctx->normed, ctx->x, ln_f, n_rows);
    return n_rows;
}

static bool is_cancelled(fastgpt_context *ctx) {
    if (ctx->sites.ended) return true;
    if (ctx->stop && __atomic_load_n(ctx->stop, __ATOMIC_RELAXED)) return true;
    return atomic_load_explicit(&ctx->cancelled, memory_order_relaxed);
}

int32_t forward(fastgpt_context *ctx, const slice *s, bool all_logits, float *logits) {
    embed(ctx, s);
    op_done(ctx, FASTGPT_OP_EMBED, -1, s->n_tokens);
    for (int32_t l = 0; l < ctx->model->n_layer; l++) {
        const slice active = spans_of_layer(ctx, s, l);
        if (is_cancelled(ctx)) return -1;
        if (active.n_tokens > 0) run_layer(ctx, &active, l);
    }
    const int32_t n_rows = last_norm(ctx, s, all_logits, logits != NULL);
    if (ctx->sites.ended) return -1;
    if (n_rows == 0) return 0;
    op_done(ctx, FASTGPT_OP_LN_F, -1, n_rows);
    op_linear(ctx, logits, ctx->normed, &ctx->model->lm_head, n_rows);
    op_done(ctx, FASTGPT_OP_LM_HEAD, -1, n_rows);
    return n_rows;
}

void forward_logits(fastgpt_context *ctx, const float *x, int32_t n, float *logits) {
    layer_norm(ctx, ctx->normed, x, &ctx->model->ln_f, n);
    op_linear(ctx, logits, ctx->normed, &ctx->model->lm_head, n);
}
