/* site_residual.c - the sites attn_out and ff_out: what is added to the residual stream.  A product adds it without
 * writing it anywhere, so taps, and edits of some rows, multiply once more. */
#include <string.h>

#include "matmul/linear.h"
#include "transformer/site_done.h"

/* The rows of the slice that edits or hooks of the site may change: row_index[r] counts them, -1 for the others.
 * Returns how many there are. */
static int32_t index_rows(fastgpt_context *ctx, fastgpt_site site, int32_t layer) {
    const sites *s = &ctx->sites;
    const int32_t n = s->slice->n_tokens;
    int32_t n_indexed = 0;
    const bool hooked = site_hook(s, site, layer) != NULL;
    for (int32_t r = 0; r < n; r++) ctx->row_index[r] = hooked ? 0 : -1;
    for (const fastgpt_edit *e = s->edits; e < s->edits + s->n_edits; e++) {
        if (e->site != (int32_t)site || e->layer != layer) continue;
        const edit_rows rows = site_rows_of_edit(ctx, e);
        for (int32_t r = rows.first; r < rows.first + rows.n; r++) ctx->row_index[r] = 0;
    }
    for (int32_t r = 0; r < n; r++)
        if (ctx->row_index[r] == 0) ctx->row_index[r] = n_indexed++;
    return n_indexed;
}

/* ctx->normed = in w^T + b of the indexed rows, and ctx->changed = what edits and hooks make of it. */
static void change_rows(fastgpt_context *ctx, fastgpt_site site, int32_t layer, const linear_task *task,
                        const float *in, int64_t ld_in, int32_t n_indexed) {
    const int64_t n_embd = ctx->model->n_embd, n_in = task->w.n_in;
    for (int32_t r = 0; r < ctx->sites.slice->n_tokens; r++)
        if (ctx->row_index[r] >= 0)
            memcpy(ctx->gathered + ctx->row_index[r] * n_in, in + r * ld_in, (size_t)n_in * sizeof *in);
    linear_task again = *task;
    again.out = ctx->normed;
    again.add = false;
    linear(&ctx->engine, ctx->gathered, n_in, &again, 1, n_indexed);
    memcpy(ctx->changed, ctx->normed, (size_t)(n_indexed * n_embd) * sizeof(float));
    site_edit_rows(ctx, site, layer, ctx->changed, n_embd, ctx->row_index);
    const fastgpt_hook *hook = site_hook(&ctx->sites, site, layer);
    if (hook) site_call_hook(ctx, hook, ctx->changed, n_embd);
}

static void copy_to_taps(fastgpt_context *ctx, fastgpt_site site, int32_t layer, const linear_task *task,
                         const float *in, int64_t ld_in) {
    const fastgpt_taps *to = &ctx->taps.to;
    const int64_t n_embd = ctx->model->n_embd;
    const int32_t n = ctx->sites.slice->n_tokens;
    for (int32_t i = 0; i < to->n_sites; i++) {
        if (to->sites[i].site != (int32_t)site || to->sites[i].layer != layer) continue;
        linear_task tapped = *task;
        tapped.out = taps_rows(ctx, &to->sites[i], n_embd);
        tapped.add = false;
        linear(&ctx->engine, in, ld_in, &tapped, 1, n);
        for (int32_t r = 0; r < n; r++)
            if (ctx->row_index[r] >= 0)
                memcpy(tapped.out + r * n_embd, ctx->changed + ctx->row_index[r] * n_embd,
                       (size_t)n_embd * sizeof(float));
    }
}

/* Turns changed rows of what is added into rows of the residual stream after it; the index of the others becomes -1. */
static void add_to_changed(fastgpt_context *ctx) {
    const int64_t n_embd = ctx->model->n_embd;
    for (int32_t r = 0; r < ctx->sites.slice->n_tokens; r++) {
        if (ctx->row_index[r] < 0) continue;
        float *changed = ctx->changed + ctx->row_index[r] * n_embd;
        const float *before = ctx->normed + ctx->row_index[r] * n_embd;
        if (memcmp(changed, before, (size_t)n_embd * sizeof *changed) == 0) ctx->row_index[r] = -1;
        else
            for (int64_t i = 0; i < n_embd; i++) changed[i] += ctx->x[r * n_embd + i];
    }
}

void site_add_residual(fastgpt_context *ctx, fastgpt_site site, int32_t layer, const linear_task *task, const float *in,
                       int64_t ld_in) {
    const int64_t n_embd = ctx->model->n_embd;
    const int32_t n = ctx->sites.slice->n_tokens, n_indexed = index_rows(ctx, site, layer);
    if (n_indexed > 0) change_rows(ctx, site, layer, task, in, ld_in, n_indexed);
    if (ctx->taps.any) copy_to_taps(ctx, site, layer, task, in, ld_in);
    if (n_indexed > 0) add_to_changed(ctx);
    linear(&ctx->engine, in, ld_in, task, 1, n);
    for (int32_t r = 0; n_indexed > 0 && r < n; r++)
        if (ctx->row_index[r] >= 0)
            memcpy(ctx->x + r * n_embd, ctx->changed + ctx->row_index[r] * n_embd, (size_t)n_embd * sizeof(float));
}
