/* taps.c - see taps.h. */
#include "transformer/taps.h"

#include <string.h>

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
    for (int32_t i = 0; i < n_spans; i++) t->n_tokens += spans[i].n_tokens;
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
    return FASTGPT_OK;
}

/* ---- Rows ---- */

float *taps_rows(const fastgpt_context *ctx, const fastgpt_site_tap *tap, int64_t width) {
    return tap->to + ctx->taps.first * width;
}

/* The level-th [n_tokens][n_embd] of a tensor. */
static void copy_level(const fastgpt_context *ctx, float *tensor, int32_t level, const float *values, int64_t ld) {
    const int64_t n_embd = ctx->model->n_embd, n = ctx->sites.slice->n_tokens;
    if (!tensor) return;
    float *to = tensor + (level * ctx->taps.n_tokens + ctx->taps.first) * n_embd;
    for (int64_t t = 0; t < n; t++) memcpy(to + t * n_embd, values + t * ld, (size_t)n_embd * sizeof *to);
}

static void copy_to_sites(const fastgpt_context *ctx, fastgpt_site site, int32_t layer, const float *values,
                          int64_t ld) {
    const fastgpt_taps *to = &ctx->taps.to;
    const int64_t width = fastgpt_site_width(ctx->model, site);
    for (int32_t i = 0; i < to->n_sites; i++) {
        if (to->sites[i].site != (int32_t)site || to->sites[i].layer != layer) continue;
        float *rows = taps_rows(ctx, &to->sites[i], width);
        for (int64_t t = 0; t < ctx->sites.slice->n_tokens; t++)
            memcpy(rows + t * width, values + t * ld, (size_t)width * sizeof *rows);
    }
}

void taps_copy(const fastgpt_context *ctx, fastgpt_site site, int32_t layer, const float *values, int64_t ld) {
    const fastgpt_taps *to = &ctx->taps.to;
    switch (site) {
    case FASTGPT_SITE_RESID_PRE: copy_level(ctx, to->hidden, layer, values, ld); break;
    case FASTGPT_SITE_LN_1:      copy_level(ctx, to->ln_1, layer, values, ld); break;
    case FASTGPT_SITE_RESID_MID: copy_level(ctx, to->hidden_mid, layer, values, ld); break;
    case FASTGPT_SITE_LN_2:      copy_level(ctx, to->ln_2, layer, values, ld); break;
    case FASTGPT_SITE_RESID_POST:
        if (layer + 1 == ctx->model->n_layer) copy_level(ctx, to->hidden, layer + 1, values, ld);
        break;
    case FASTGPT_SITE_LN_F: copy_level(ctx, to->ln_f, 0, values, ld); break;
    default:                break;
    }
    if (site_is_wanted(&ctx->sites, site)) copy_to_sites(ctx, site, layer, values, ld);
}

bool taps_want_ln_f(const fastgpt_context *ctx) {
    return ctx->taps.to.ln_f || site_is_wanted(&ctx->sites, FASTGPT_SITE_LN_F);
}
