/* forward.c - the transformer (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"):
 *
 *     x = wte[token] + wpe[position]
 *     n_layer times:  x += attn_proj(attention(qkv(ln_1(x))))
 *                     x += proj(activation(fc(ln_2(x))))
 *     logits = lm_head(ln_f(x))
 *
 *     x, normed, q, k, v, heads  [n][n_embd]     ff  [n][n_ff]     logits  [n_rows][n_vocab]
 *
 * n counts the tokens of a slice, of one sequence or of many.  Each op ends in op_done, where it is timed and its
 * output can be copied out. */
#include "transformer/forward.h"

#include <string.h>

#include "attention/attention_span.h"
#include "common/arithmetic.h"
#include "kv_cache/kv_cache.h"
#include "transformer/op_done.h"

/* out = x w^T + b, or with `add` out += x w^T + b */
static void op_linear(fastgpt_context *ctx, float *out, const float *x, const weight *w, bool add, int32_t n) {
    const linear_task task = {.out = out, .ld_out = w->n_out, .w = *w, .add = add};
    linear(&ctx->engine, x, w->n_in, &task, 1, n);
}

static void layer_norm(fastgpt_context *ctx, float *out, const float *x, const norm *norm, int32_t n) {
    op_layer_norm(&ctx->engine, out, x, norm, ctx->model->layer_norm_epsilon, n, ctx->model->n_embd);
}

/* x = wte[token] + wpe[position]; positions follow those in each cache */
static void embed(fastgpt_context *ctx, const slice *s) {
    float *x = ctx->x;
    for (int32_t i = 0; i < s->n_spans; i++) {
        op_embed(&ctx->engine, x, ctx->model, slice_tokens(s, i), s->counts[i], s->spans[i].kv->n_past);
        x += (int64_t)s->counts[i] * ctx->model->n_embd;
    }
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
    if (in_place) return;
    for (int64_t i = 0, row = 0; i < s->n_spans; row += s->counts[i] * (int64_t)n_embd, i++) {
        kv_cache_store(s->spans[i].kv, ctx->engine.kernels, l, KV_KEYS, ctx->k + row, s->counts[i]);
        kv_cache_store(s->spans[i].kv, ctx->engine.kernels, l, KV_VALUES, ctx->v + row, s->counts[i]);
    }
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

/* x += proj(activation(fc(normed))).  Where possible fc + activation leave their output packed for proj; F32 through
 * memory would cost more than the activation. */
static void feed_forward(fastgpt_context *ctx, const layer_weights *w, int32_t l, int32_t n) {
    const fastgpt_model *m = ctx->model;
    const engine *e = &ctx->engine;
    const bool fused = linear_can_fuse_activation(e, &w->fc, &w->proj, n);
    const int64_t ld_ff = conflict_free_stride(m->n_ff);
    const linear_task fc = {
        .out = ctx->ff, .ld_out = ld_ff, .w = w->fc, .packed = fused ? ctx->ff : NULL, .activation = m->activation};
    const linear_task proj = {.out = ctx->x, .ld_out = m->n_embd, .w = w->proj, .add = true};

    linear(e, ctx->normed, m->n_embd, &fc, 1, n);
    op_done(ctx, FASTGPT_OP_FC, l, ctx->ff, n);
    if (!fused) op_activation(e, m->activation, ctx->ff, ld_ff, n, m->n_ff);
    op_done(ctx, FASTGPT_OP_GELU, l, ctx->ff, n);
    if (fused) linear_packed(e, ctx->ff, &proj, n);
    else linear(e, ctx->ff, ld_ff, &proj, 1, n);
    op_done(ctx, FASTGPT_OP_PROJ, l, ctx->x, n);
}

static void run_layer(fastgpt_context *ctx, const slice *s, int32_t l) {
    const layer_weights *w = &ctx->model->layers[l];
    const int32_t n = s->n_tokens;

    layer_norm(ctx, ctx->normed, ctx->x, &w->ln_1, n);
    op_done(ctx, FASTGPT_OP_LN_1, l, ctx->normed, n);
    project_qkv(ctx, s, l);
    op_done(ctx, FASTGPT_OP_QKV, l, ctx->q, n);
    attend(ctx, s, l);
    op_done(ctx, FASTGPT_OP_ATTENTION, l, ctx->heads, n);
    op_linear(ctx, ctx->x, ctx->heads, &w->attn_proj, true, n);
    op_done(ctx, FASTGPT_OP_ATTN_PROJ, l, ctx->x, n);

    layer_norm(ctx, ctx->normed, ctx->x, &w->ln_2, n);
    op_done(ctx, FASTGPT_OP_LN_2, l, ctx->normed, n);
    feed_forward(ctx, w, l, n);
}

/* Moves the last token of each span that ends in this slice to the front of x; returns how many there are. */
static int32_t gather_last(fastgpt_context *ctx, const slice *s) {
    const int64_t n_embd = ctx->model->n_embd;
    int64_t row = 0;
    int32_t n_last = 0;
    for (int32_t i = 0; i < s->n_spans; i++) {
        row += s->counts[i];
        const bool ends = s->counts[i] + (i == 0 ? s->first : 0) == s->spans[i].n_tokens;
        if (!ends) continue;
        memmove(ctx->x + n_last * n_embd, ctx->x + (row - 1) * n_embd, (size_t)n_embd * sizeof(float));
        n_last++;
    }
    return n_last;
}

static void compute_logits(fastgpt_context *ctx, int32_t n, float *logits) {
    layer_norm(ctx, ctx->normed, ctx->x, &ctx->model->ln_f, n);
    op_done(ctx, FASTGPT_OP_LN_F, -1, ctx->normed, n);
    op_linear(ctx, logits, ctx->normed, &ctx->model->lm_head, false, n);
    op_done(ctx, FASTGPT_OP_LM_HEAD, -1, logits, n);
}

static bool is_cancelled(fastgpt_context *ctx) {
    if (ctx->stop && __atomic_load_n(ctx->stop, __ATOMIC_RELAXED)) return true;
    return atomic_load_explicit(&ctx->cancelled, memory_order_relaxed);
}

int32_t forward(fastgpt_context *ctx, const slice *s, bool all_logits, float *logits) {
    embed(ctx, s);
    op_done(ctx, FASTGPT_OP_EMBED, -1, ctx->x, s->n_tokens);
    for (int32_t l = 0; l < ctx->model->n_layer; l++) {
        if (is_cancelled(ctx)) return -1;
        run_layer(ctx, s, l);
    }
    if (ctx->taps.to.ln_f)
        layer_norm(ctx, taps_rows(ctx, ctx->taps.to.ln_f, 0), ctx->x, &ctx->model->ln_f, s->n_tokens);
    const int32_t n_rows = !logits ? 0 : all_logits ? s->n_tokens : gather_last(ctx, s);
    op_done(ctx, FASTGPT_OP_OTHER, -1, NULL, 0);
    if (n_rows > 0) compute_logits(ctx, n_rows, logits);
    return n_rows;
}

void forward_logits(fastgpt_context *ctx, const float *x, int32_t n, float *logits) {
    layer_norm(ctx, ctx->normed, x, &ctx->model->ln_f, n);
    op_linear(ctx, logits, ctx->normed, &ctx->model->lm_head, false, n);
}
