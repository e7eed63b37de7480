/* taps.c - see taps.h. */
#include "transformer/taps.h"

#include <string.h>

#include "common/thread_pool.h"
#include "common/versioned_struct.h"
#include "kv_cache/kv_cache.h"
#include "transformer/context.h"

/* ---- Checks ---- */

static bool heads_exist(const fastgpt_taps *wanted, const fastgpt_model *model) {
    for (int32_t i = 0; i < wanted->n_heads; i++) {
        const fastgpt_head *h = &wanted->heads[i];
        if (h->layer < 0 || h->layer >= model->n_layer || h->head < 0 || h->head >= model->n_head) return false;
    }
    return true;
}

static bool keys_fit(const fastgpt_taps *wanted, const fastgpt_span *spans, int32_t n_spans) {
    for (int32_t i = 0; i < n_spans; i++)
        if (spans[i].kv->n_past + spans[i].n_tokens > wanted->n_keys) return false;
    return true;
}

fastgpt_status taps_begin(fastgpt_context *ctx, const fastgpt_taps *wanted, const fastgpt_span *spans,
                          int32_t n_spans) {
    taps *t = &ctx->taps;
    *t = (taps){.any = false};
    if (!wanted) return FASTGPT_OK;
    fastgpt_taps to;
    if (!options_read(&to, sizeof to, wanted, FIRST_SIZE(fastgpt_taps, n_keys)) || to.n_heads < 0)
        return FASTGPT_ERR_ARGUMENT;
    if (to.n_heads > 0) {
        if (!to.heads || !to.attention || !keys_fit(&to, spans, n_spans)) return FASTGPT_ERR_ARGUMENT;
        if (!heads_exist(&to, ctx->model)) return FASTGPT_ERR_ARGUMENT;
    }
    t->to = to;
    t->any = true;
    for (int32_t i = 0; i < n_spans; i++) t->n_tokens += spans[i].n_tokens;
    return FASTGPT_OK;
}

/* ---- Attention ---- */

typedef struct probabilities_job {
    const engine *e;
    const attention_span *spans;
    int n_head, n_embd, head;
    float *out; /* [rows of the slice][n_keys] */
    int64_t n_keys;
} probabilities_job;

/* One row: the attention of a token of the slice to each position up to its own; 0 for later ones. */
static void probabilities_unit(void *arg, int row, int thread) {
    const probabilities_job *job = arg;
    const attention_span *s = job->spans;
    int t = row;
    (void)thread;
    for (; t >= s->n_tokens; s++) t -= s->n_tokens;
    float *out = job->out + row * job->n_keys;
    int64_t n_visible = s->n_past + t + 1;
    attention_probabilities(job->e, s, job->n_head, job->n_embd, job->head, t, out);
    memset(out + n_visible, 0, (size_t)(job->n_keys - n_visible) * sizeof *out);
}

static void copy_probabilities(const fastgpt_context *ctx, int32_t l, int32_t n) {
    const taps *t = &ctx->taps;
    for (int32_t i = 0; i < t->to.n_heads; i++) {
        if (t->to.heads[i].layer != l) continue;
        probabilities_job job = {.e = &ctx->engine,
                                 .spans = ctx->spans,
                                 .n_head = ctx->model->n_head,
                                 .n_embd = ctx->model->n_embd,
                                 .head = t->to.heads[i].head,
                                 .out = t->to.attention + (i * t->n_tokens + t->first) * t->to.n_keys,
                                 .n_keys = t->to.n_keys};
        pool_run(ctx->engine.pool, probabilities_unit, &job, n);
    }
}

/* ---- Rows ---- */

float *taps_rows(const fastgpt_context *ctx, float *tensor, int32_t level) {
    return tensor + (level * ctx->taps.n_tokens + ctx->taps.first) * ctx->model->n_embd;
}

static void copy_rows(const fastgpt_context *ctx, float *tensor, int32_t level, const float *x, int32_t n) {
    size_t n_bytes = (size_t)n * (size_t)ctx->model->n_embd * sizeof *x;
    if (tensor) memcpy(taps_rows(ctx, tensor, level), x, n_bytes);
}

void taps_copy(const fastgpt_context *ctx, fastgpt_op op, int32_t l, const float *values, int32_t n) {
    const fastgpt_taps *to = &ctx->taps.to;
    switch (op) {
    case FASTGPT_OP_EMBED:     copy_rows(ctx, to->hidden, 0, values, n); break;
    case FASTGPT_OP_LN_1:      copy_rows(ctx, to->ln_1, l, values, n); break;
    case FASTGPT_OP_ATTENTION: copy_probabilities(ctx, l, n); break;
    case FASTGPT_OP_ATTN_PROJ: copy_rows(ctx, to->hidden_mid, l, values, n); break;
    case FASTGPT_OP_LN_2:      copy_rows(ctx, to->ln_2, l, values, n); break;
    case FASTGPT_OP_PROJ:      copy_rows(ctx, to->hidden, l + 1, values, n); break;
    default:                   break;
    }
}
